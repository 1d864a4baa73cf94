"""URLs, headers, query parameters, forms."""

from __future__ import annotations

import tempfile
from typing import (
    Any,
    Dict,
    Iterator,
    List,
    Mapping,
    MutableMapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit


class Address(NamedTuple):
    host: str
    port: int


class State:
    """Attributes kept in a dictionary."""

    def __init__(self, state: Optional[Dict[str, Any]] = None) -> None:
        super().__setattr__("_state", {} if state is None else state)

    def __setattr__(self, key: str, value: Any) -> None:
        self._state[key] = value

    def __getattr__(self, key: str) -> Any:
        try:
            return self.__dict__["_state"][key]
        except KeyError:
            raise AttributeError(f"'State' object has no attribute '{key}'") from None

    def __delattr__(self, key: str) -> None:
        del self._state[key]

    def __getitem__(self, key: str) -> Any:
        return self._state[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._state[key] = value

    def __contains__(self, key: str) -> bool:
        return key in self._state

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)


class URL:
    """A URL; made of a string, of an ASGI scope, or of its parts."""

    def __init__(
        self, url: str = "", scope: Optional[Mapping[str, Any]] = None, **components: Any
    ) -> None:
        if scope is not None:
            url = self._of_scope(scope)
        elif components:
            url = URL("").replace(**components).components.geturl()
        self._url = url

    @staticmethod
    def _of_scope(scope: Mapping[str, Any]) -> str:
        scheme = scope.get("scheme", "http")
        path = scope.get("app_root_path", "") + scope["path"]
        host = None
        for key, value in scope["headers"]:
            if key == b"host":
                host = value.decode("latin-1")
                break
        server = scope.get("server")
        if host is not None:
            url = f"{scheme}://{host}{path}"
        elif server is None:
            url = path
        else:
            name, port = server
            usual = {"http": 80, "https": 443, "ws": 80, "wss": 443}.get(scheme)
            url = (
                f"{scheme}://{name}{path}"
                if port in (usual, None)
                else f"{scheme}://{name}:{port}{path}"
            )
        query = scope.get("query_string", b"")
        return f"{url}?{query.decode('latin-1')}" if query else url

    @property
    def components(self) -> SplitResult:
        if not hasattr(self, "_components"):
            self._components = urlsplit(self._url)
        return self._components

    @property
    def scheme(self) -> str:
        return self.components.scheme

    @property
    def netloc(self) -> str:
        return self.components.netloc

    @property
    def path(self) -> str:
        return self.components.path

    @property
    def query(self) -> str:
        return self.components.query

    @property
    def fragment(self) -> str:
        return self.components.fragment

    @property
    def username(self) -> Optional[str]:
        return self.components.username

    @property
    def password(self) -> Optional[str]:
        return self.components.password

    @property
    def hostname(self) -> Optional[str]:
        return self.components.hostname

    @property
    def port(self) -> Optional[int]:
        return self.components.port

    @property
    def is_secure(self) -> bool:
        return self.scheme in ("https", "wss")

    def replace(self, **kwargs: Any) -> "URL":
        if {"username", "password", "hostname", "port"} & set(kwargs):
            hostname = kwargs.pop("hostname", None)
            port = kwargs.pop("port", self.port)
            username = kwargs.pop("username", self.username)
            password = kwargs.pop("password", self.password)
            if hostname is None:
                hostname = self.netloc.rpartition("@")[2]
                if hostname and hostname[-1] != "]":
                    hostname = hostname.rsplit(":", 1)[0]
            netloc = hostname if port is None else f"{hostname}:{port}"
            if username is not None:
                user = username if password is None else f"{username}:{password}"
                netloc = f"{user}@{netloc}"
            kwargs["netloc"] = netloc
        return URL(self.components._replace(**kwargs).geturl())

    def include_query_params(self, **kwargs: Any) -> "URL":
        params = MultiDict(parse_qsl(self.query, keep_blank_values=True))
        params.update({str(k): str(v) for k, v in kwargs.items()})
        return self.replace(query=urlencode(params.multi_items()))

    def replace_query_params(self, **kwargs: Any) -> "URL":
        return self.replace(query=urlencode([(str(k), str(v)) for k, v in kwargs.items()]))

    def remove_query_params(self, keys: Union[str, Sequence[str]]) -> "URL":
        names = [keys] if isinstance(keys, str) else list(keys)
        pairs = parse_qsl(self.query, keep_blank_values=True)
        return self.replace(query=urlencode([(k, v) for k, v in pairs if k not in names]))

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other)

    def __hash__(self) -> int:
        return hash(self._url)

    def __str__(self) -> str:
        return self._url

    def __repr__(self) -> str:
        url = str(self.replace(password="********")) if self.password else self._url
        return f"URL({url!r})"


class URLPath(str):
    """A path on this server."""


class ImmutableMultiDict(Mapping[str, Any]):
    """A mapping that keeps repeated keys; the last value wins on look-up."""

    _list: List[Tuple[str, Any]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        value = args[0] if args else []
        if isinstance(value, ImmutableMultiDict):
            pairs = value.multi_items()
        elif hasattr(value, "items"):
            pairs = list(value.items())
        else:
            pairs = list(value or [])
        self._list = [(k, v) for k, v in pairs] + list(kwargs.items())
        self._dict: Dict[str, Any] = dict(self._list)

    def getlist(self, key: Any) -> List[Any]:
        return [v for k, v in self._list if k == key]

    def keys(self) -> Any:
        return self._dict.keys()

    def values(self) -> Any:
        return self._dict.values()

    def items(self) -> Any:
        return self._dict.items()

    def multi_items(self) -> List[Tuple[str, Any]]:
        return list(self._list)

    def __getitem__(self, key: str) -> Any:
        return self._dict[key]

    def __contains__(self, key: Any) -> bool:
        return key in self._dict

    def __iter__(self) -> Iterator[str]:
        return iter(self._dict)

    def __len__(self) -> int:
        return len(self._dict)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and sorted(self._list) == sorted(other._list)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.multi_items()!r})"


class MultiDict(ImmutableMultiDict):
    """The same, to be changed."""

    def __setitem__(self, key: str, value: Any) -> None:
        self.setlist(key, [value])

    def __delitem__(self, key: str) -> None:
        self._list = [(k, v) for k, v in self._list if k != key]
        del self._dict[key]

    def setlist(self, key: str, values: List[Any]) -> None:
        self._list = [(k, v) for k, v in self._list if k != key] + [(key, v) for v in values]
        self._dict.pop(key, None)
        if values:
            self._dict[key] = values[-1]

    def append(self, key: str, value: Any) -> None:
        self._list.append((key, value))
        self._dict[key] = value

    def update(self, *args: Any, **kwargs: Any) -> None:
        other = MultiDict(*args, **kwargs)
        self._list = [(k, v) for k, v in self._list if k not in other._dict] + other._list
        self._dict.update(other._dict)

    def pop(self, key: str, default: Any = None) -> Any:
        self._list = [(k, v) for k, v in self._list if k != key]
        return self._dict.pop(key, default)


class QueryParams(ImmutableMultiDict):
    """The parameters of a query string."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        value = args[0] if args else []
        if isinstance(value, bytes):
            value = value.decode("latin-1")
        if isinstance(value, str):
            value = parse_qsl(value, keep_blank_values=True)
        super().__init__(value, **kwargs)
        self._list = [(str(k), str(v)) for k, v in self._list]
        self._dict = {str(k): str(v) for k, v in self._dict.items()}

    def __str__(self) -> str:
        return urlencode(self._list)

    def __repr__(self) -> str:
        return f"QueryParams({str(self)!r})"


class UploadFile:
    """A file of a form."""

    def __init__(
        self,
        file: Any = None,
        *,
        size: Optional[int] = None,
        filename: Optional[str] = None,
        headers: "Optional[Headers]" = None,
    ) -> None:
        self.file = file if file is not None else tempfile.SpooledTemporaryFile(1 << 20)
        self.size = size
        self.filename = filename
        self.headers = headers or Headers()

    @property
    def content_type(self) -> Optional[str]:
        return self.headers.get("content-type")

    async def read(self, size: int = -1) -> bytes:
        data: bytes = self.file.read(size)
        return data

    async def write(self, data: bytes) -> None:
        self.file.write(data)
        if self.size is not None:
            self.size += len(data)

    async def seek(self, offset: int) -> None:
        self.file.seek(offset)

    async def close(self) -> None:
        self.file.close()


class FormData(ImmutableMultiDict):
    """The fields and files of a form."""

    async def close(self) -> None:
        for _, value in self.multi_items():
            if isinstance(value, UploadFile):
                await value.close()


class Headers(Mapping[str, str]):
    """HTTP headers: names without case, repeats kept, the first one wins on look-up."""

    def __init__(
        self,
        headers: Optional[Mapping[str, str]] = None,
        raw: Optional[List[Tuple[bytes, bytes]]] = None,
        scope: Optional[MutableMapping[str, Any]] = None,
    ) -> None:
        self._list: List[Tuple[bytes, bytes]] = []
        if headers is not None:
            self._list = [
                (k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()
            ]
        elif raw is not None:
            self._list = raw
        elif scope is not None:
            self._list = scope["headers"] = list(scope["headers"])

    @property
    def raw(self) -> List[Tuple[bytes, bytes]]:
        return self._list

    def keys(self) -> Any:
        return [k.decode("latin-1") for k, _ in self._list]

    def values(self) -> Any:
        return [v.decode("latin-1") for _, v in self._list]

    def items(self) -> Any:
        return [(k.decode("latin-1"), v.decode("latin-1")) for k, v in self._list]

    def getlist(self, key: str) -> List[str]:
        name = key.lower().encode("latin-1")
        return [v.decode("latin-1") for k, v in self._list if k == name]

    def mutablecopy(self) -> "MutableHeaders":
        return MutableHeaders(raw=list(self._list))

    def __getitem__(self, key: str) -> str:
        name = key.lower().encode("latin-1")
        for k, v in self._list:
            if k == name:
                return v.decode("latin-1")
        raise KeyError(key)

    def __contains__(self, key: Any) -> bool:
        name = str(key).lower().encode("latin-1")
        return any(k == name for k, _ in self._list)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self._list)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and sorted(self._list) == sorted(other._list)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self.items())!r})"


class MutableHeaders(Headers):
    """The same, to be changed."""

    def __setitem__(self, key: str, value: str) -> None:
        name, data = key.lower().encode("latin-1"), value.encode("latin-1")
        at = [i for i, (k, _) in enumerate(self._list) if k == name]
        for i in reversed(at[1:]):
            del self._list[i]
        if at:
            self._list[at[0]] = (name, data)
        else:
            self._list.append((name, data))

    def __delitem__(self, key: str) -> None:
        name = key.lower().encode("latin-1")
        self._list[:] = [(k, v) for k, v in self._list if k != name]

    def setdefault(self, key: str, value: str) -> str:
        if key in self:
            return self[key]
        self[key] = value
        return value

    def update(self, other: Mapping[str, str]) -> None:
        for key, value in other.items():
            self[key] = value

    def append(self, key: str, value: str) -> None:
        self._list.append((key.lower().encode("latin-1"), value.encode("latin-1")))

    def add_vary_header(self, vary: str) -> None:
        existing = self.get("vary")
        self["vary"] = ", ".join([existing, vary]) if existing else vary
