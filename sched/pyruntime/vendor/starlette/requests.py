"""Request."""

from __future__ import annotations

import asyncio
import email
import io
import json
from http import cookies as http_cookies
from typing import Any, AsyncIterator, Dict, Generator, Iterator, List, Mapping, Optional, Tuple
from urllib.parse import parse_qsl

from starlette.datastructures import (
    URL,
    Address,
    FormData,
    Headers,
    QueryParams,
    State,
    UploadFile,
)
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send


class ClientDisconnect(Exception):
    pass


def cookie_parser(cookie_string: str) -> Dict[str, str]:
    """Cookies as browsers send them, which is laxer than the standard."""
    found: Dict[str, str] = {}
    for chunk in cookie_string.split(";"):
        key, separator, value = chunk.partition("=")
        if not separator:
            key, value = "", chunk
        key, value = key.strip(), value.strip()
        if key or value:
            found[key] = http_cookies._unquote(value)  # type: ignore[attr-defined]
    return found


class HTTPConnection(Mapping[str, Any]):
    """What requests know before their body is read."""

    def __init__(self, scope: Scope, receive: Optional[Receive] = None) -> None:
        assert scope["type"] in ("http", "websocket")
        self.scope = scope

    def __getitem__(self, key: str) -> Any:
        return self.scope[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.scope)

    def __len__(self) -> int:
        return len(self.scope)

    __eq__ = object.__eq__
    __hash__ = object.__hash__  # type: ignore[assignment]

    @property
    def app(self) -> Any:
        return self.scope["app"]

    @property
    def url(self) -> URL:
        if not hasattr(self, "_url"):
            self._url = URL(scope=self.scope)
        return self._url

    @property
    def base_url(self) -> URL:
        if not hasattr(self, "_base_url"):
            scope = dict(self.scope)
            root = scope.get("app_root_path", scope.get("root_path", ""))
            scope["path"] = root if root.endswith("/") else root + "/"
            scope["query_string"] = b""
            self._base_url = URL(scope=scope)
        return self._base_url

    @property
    def headers(self) -> Headers:
        if not hasattr(self, "_headers"):
            self._headers = Headers(scope=self.scope)
        return self._headers

    @property
    def query_params(self) -> QueryParams:
        if not hasattr(self, "_query_params"):
            self._query_params = QueryParams(self.scope["query_string"])
        return self._query_params

    @property
    def path_params(self) -> Dict[str, Any]:
        params: Dict[str, Any] = self.scope.get("path_params", {})
        return params

    @property
    def cookies(self) -> Dict[str, str]:
        if not hasattr(self, "_cookies"):
            self._cookies: Dict[str, str] = {}
            for header in self.headers.getlist("cookie"):
                self._cookies.update(cookie_parser(header))
        return self._cookies

    @property
    def client(self) -> Optional[Address]:
        value = self.scope.get("client")
        return None if value is None else Address(*value)

    @property
    def state(self) -> State:
        if not hasattr(self, "_state"):
            self._state = State(self.scope.setdefault("state", {}))
        return self._state


async def empty_receive() -> Message:
    raise RuntimeError("Receive channel has not been made available")


async def empty_send(message: Message) -> None:
    raise RuntimeError("Send channel has not been made available")


class _Form:
    """What `request.form()` gives: to be awaited, or used in `async with`."""

    def __init__(self, request: "Request") -> None:
        self._request = request

    def __await__(self) -> Generator[Any, None, FormData]:
        return self._request._read_form().__await__()

    async def __aenter__(self) -> FormData:
        return await self

    async def __aexit__(self, *args: Any) -> None:
        await self._request.close()


class Request(HTTPConnection):
    """An HTTP request; the body is read when it is asked for."""

    def __init__(
        self, scope: Scope, receive: Receive = empty_receive, send: Send = empty_send
    ) -> None:
        super().__init__(scope)
        assert scope["type"] == "http"
        self._receive = receive
        self._send = send
        self._stream_consumed = False
        self._is_disconnected = False
        self._form: Optional[FormData] = None

    @property
    def method(self) -> str:
        return str(self.scope["method"])

    @property
    def receive(self) -> Receive:
        return self._receive

    async def stream(self) -> AsyncIterator[bytes]:
        if hasattr(self, "_body"):
            yield self._body
            yield b""
            return
        if self._stream_consumed:
            raise RuntimeError("Stream consumed")
        while not self._stream_consumed:
            message = await self._receive()
            if message["type"] == "http.request":
                body = message.get("body", b"")
                if not message.get("more_body", False):
                    self._stream_consumed = True
                if body:
                    yield body
            elif message["type"] == "http.disconnect":
                self._is_disconnected = True
                raise ClientDisconnect()
        yield b""

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            chunks = [chunk async for chunk in self.stream()]
            self._body = b"".join(chunks)
        return self._body

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = json.loads(await self.body())
        return self._json

    def form(self, **limits: Any) -> _Form:
        return _Form(self)

    async def _read_form(self) -> FormData:
        if self._form is None:
            kind = self.headers.get("content-type", "")
            name = kind.partition(";")[0].strip().lower()
            body = await self.body()
            if name == "application/x-www-form-urlencoded":
                text = body.decode("latin-1")
                self._form = FormData(parse_qsl(text, keep_blank_values=True, encoding="utf-8"))
            elif name == "multipart/form-data":
                self._form = FormData(_multipart(kind, body))
            else:
                self._form = FormData()
        return self._form

    async def close(self) -> None:
        if self._form is not None:
            await self._form.close()

    async def is_disconnected(self) -> bool:
        if not self._is_disconnected:
            task = asyncio.ensure_future(self._receive())
            await asyncio.sleep(0)
            if not task.done():
                task.cancel()
                return False
            if task.result().get("type") == "http.disconnect":
                self._is_disconnected = True
        return self._is_disconnected


def _multipart(content_type: str, body: bytes) -> List[Tuple[str, Any]]:
    """The parts of a multipart form. Headers go through the mail parser."""
    boundary = _headers(f"Content-Type: {content_type}".encode("latin-1")).get_boundary()
    if not boundary:
        raise HTTPException(400, "Missing boundary in multipart.")
    found: List[Tuple[str, Any]] = []
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary.encode("latin-1"))[1:]:
        if part.startswith(b"--"):
            break
        head, separator, data = part.partition(b"\r\n\r\n")
        headers = _headers(head.lstrip())
        name = headers.get_param("name", header="content-disposition")
        if not separator or name is None:
            raise HTTPException(400, "A part of the form has no name.")
        filename = headers.get_filename()
        if filename is None:
            found.append((str(name), data.decode("utf-8", "replace")))
        else:
            fields = Headers({k: str(v) for k, v in headers.items()})
            file = UploadFile(io.BytesIO(data), size=len(data), filename=filename, headers=fields)
            found.append((str(name), file))
    return found


def _headers(block: bytes) -> Any:
    return email.message_from_bytes(block)
