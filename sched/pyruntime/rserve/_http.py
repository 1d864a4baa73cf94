"""HTTP requests of plain handlers: a lazy starlette Request in, a return value out."""

from __future__ import annotations

import asyncio
import functools
import sys
from typing import Any, Coroutine, Dict, List, Optional, Tuple
from urllib.parse import unquote

from rserve import _wire as w
from rserve._call import Call
from rserve._errors import pack_error
from rserve._json import to_json

#: Given back by coroutines that have sent the answer themselves.
ANSWERED = object()


def _meta(status: int, headers: List[Tuple[bytes, bytes]]) -> bytes:
    return w.field_u16(w.T_STATUS, status) + w.field(w.T_HEADERS, w.pack_headers(headers))


META_TEXT = _meta(200, [(b"content-type", b"text/plain; charset=utf-8")])
META_PLAIN = _meta(200, [(b"content-type", b"text/plain")])
META_JSON = _meta(200, [(b"content-type", b"application/json")])

_NO_BODY = (204, 304)


@functools.lru_cache(maxsize=1024)  # of a client that keeps its connection it is the same
def _address(value: Optional[bytes]) -> Optional[Tuple[str, Optional[int]]]:
    if not value:
        return None
    host, _, port = value.decode("latin-1").rpartition(":")
    if not port.isdigit():
        return (value.decode("latin-1"), None)
    return (host.strip("[]"), int(port))


@functools.lru_cache(maxsize=64)
def _text(value: bytes) -> str:
    """Of one of a few words."""
    return value.decode("utf-8", "replace")


_stripped: Optional[bool] = None


def wants_stripped_paths() -> bool:
    """Starlette before 0.33 wants `path` without `root_path`."""
    global _stripped
    if _stripped is None:
        version = getattr(sys.modules.get("starlette"), "__version__", "")
        major, minor = (version.split(".") + ["", ""])[:2]
        _stripped = major == "0" and minor.isdigit() and 0 < int(minor) < 33
    return _stripped


def make_scope(call: Call, state: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
    """The ASGI scope of a request."""
    fields = call.fields
    get = fields.get
    raw_path = get(w.T_PATH) or b"/"
    path = raw_path.decode("latin-1")
    if "%" in path:
        path = unquote(path)
    elif not path.isascii():
        path = raw_path.decode("utf-8", "replace")
    root_path = w.text(fields, w.T_ROOT_PATH) if get(w.T_ROOT_PATH) else ""
    if root_path and wants_stripped_paths() and path.startswith(root_path):
        path = path[len(root_path) :]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": _text(get(w.T_HTTP_VERSION, b"1.1")),
        "server": _address(get(w.T_SERVER)),
        "client": _address(get(w.T_CLIENT)),
        "scheme": _text(get(w.T_SCHEME, b"http")),
        "method": _text(get(w.T_HTTP_METHOD, b"GET")),
        "root_path": root_path,
        "path": path,
        "raw_path": raw_path,
        "query_string": get(w.T_QUERY) or b"",
        "headers": w.unpack_headers(get(w.T_HEADERS) or b""),
        "state": dict(state) if state else {},
    }


#: Headers of answers, packed: most are the same again and again.
_headers_packed: Dict[Any, bytes] = {}


def _packed(headers: Any) -> bytes:
    key = tuple(headers)
    try:
        block = _headers_packed.get(key)
    except TypeError:  # lists in a list
        return w.pack_headers(key)
    if block is None:
        block = w.pack_headers(key)
        if len(block) <= 1024:
            if len(_headers_packed) >= 256:
                _headers_packed.clear()
            _headers_packed[key] = block
    return block


class Channel:
    """The `receive` and `send` of one request."""

    __slots__ = ("call", "status", "headers", "opened", "_taken")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.status = 0
        self.headers = b""
        self.opened = False
        self._taken = False

    async def receive(self) -> Dict[str, Any]:
        call = self.call
        while not self._taken and not call.cancelled:
            if call.chunks is None:
                self._taken = True
                return {"type": "http.request", "body": call.body, "more_body": False}
            if call.chunks:
                body = call.chunks.popleft()
                call.took(len(body))
                more = not call.ended or bool(call.chunks)
                self._taken = not more
                return {"type": "http.request", "body": body, "more_body": more}
            if call.ended:
                self._taken = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await call.wait_for_input()
        while not call.cancelled and not call.answered:
            await call.wait_for_input()
        return {"type": "http.disconnect"}

    async def send(self, message: Dict[str, Any]) -> None:
        kind = message["type"]
        call = self.call
        if kind == "http.response.start":
            if self.status:
                raise RuntimeError("http.response.start was sent twice")
            self.headers = _packed(message.get("headers") or ())
            self.status = int(message["status"])
        elif kind == "http.response.body":
            if not self.status:
                raise RuntimeError("http.response.body was sent before http.response.start")
            body = message.get("body") or b""
            if type(body) is not bytes:
                body = bytes(body)
            more = message.get("more_body", False)
            if call.cancelled or call.answered:
                await asyncio.sleep(0)  # an application that never waits learns of it here
                return
            if self.opened:
                if not more:
                    call.end_answer(body)
                elif body:
                    if not call.try_send(body):
                        await call.send_body(body)
                return
            self.opened = True
            meta = self.meta()
            if more:
                call.open_answer(meta, body)
            elif self._whole():
                call.link.reply(call, meta, body)
                call.wake()
            else:
                call.open_answer(meta, body)
                call.end_answer()
        elif kind not in ("http.response.push", "http.response.debug", "http.response.early_hint"):
            raise RuntimeError(f"unexpected ASGI message {kind!r}")

    def meta(self) -> bytes:
        return w.field_u16(w.T_STATUS, self.status) + w.field(w.T_HEADERS, self.headers)

    def _whole(self) -> bool:
        """Whether the answer may go as one frame, which gets a content-length if it has none."""
        return (
            self.status < 200
            or self.status in _NO_BODY
            or self.headers.startswith(b"content-length\0")
            or b"\0content-length\0" in self.headers
        )


_request_class: Any = None


def request_class() -> Any:
    """A starlette Request that is set up when it is first looked at."""
    global _request_class
    if _request_class is not None:
        return _request_class
    from starlette.requests import Request

    class LazyRequest(Request):  # type: ignore[misc]
        def __init__(self, call: Call) -> None:
            self._rserve_call = call

        def __getattr__(self, name: str) -> Any:
            call = self.__dict__.get("_rserve_call")
            if call is None or name == "_json":  # which is looked for before it is made
                raise AttributeError(f"'Request' object has no attribute {name!r}")
            if name == "_body" and call.chunks is None:  # all that `await request.body()` needs
                self._body = call.body
                return call.body
            del self._rserve_call
            channel = Channel(call)
            Request.__init__(self, make_scope(call), channel.receive, channel.send)
            if call.chunks is None:
                self._body = call.body  # it is all there: nobody need wait for it
            return getattr(self, name)

    LazyRequest.__name__ = LazyRequest.__qualname__ = "Request"
    LazyRequest.__module__ = Request.__module__
    _request_class = LazyRequest
    return _request_class


def encode(value: Any) -> Tuple[bytes, bytes]:
    """Metadata and body for a return value that is not a Response."""
    kind = type(value)
    if kind is str:
        return META_TEXT, value.encode("utf-8", "surrogatepass")
    if kind is dict or kind is list:
        return META_JSON, to_json(value)
    if kind is bytes:
        return META_PLAIN, value
    if value is None:
        return META_PLAIN, b""
    if isinstance(value, str):
        return META_TEXT, str.encode(value, "utf-8", "surrogatepass")
    if isinstance(value, bytes):
        return META_PLAIN, bytes(value)
    return META_JSON, to_json(value)


def response_class() -> Any:
    module = sys.modules.get("starlette.responses")
    return None if module is None else module.Response


def answer(call: Call, value: Any) -> Optional[Coroutine[Any, Any, Any]]:
    """Answers with what a handler returned. A coroutine given back has the rest to do."""
    kind = type(value)
    if kind is not str and kind is not dict:
        base = response_class()
        if base is not None and isinstance(value, base):
            return _answer_response(call, value, base)
        if hasattr(value, "__anext__") or (hasattr(value, "__next__") and hasattr(value, "send")):
            refuse_generator(call)
            return None
    meta, body = encode(value)
    call.link.reply(call, meta, body)
    return None


def _answer_response(call: Call, response: Any, base: Any) -> Optional[Coroutine[Any, Any, Any]]:
    if type(response).__call__ is base.__call__:
        meta = w.field_u16(w.T_STATUS, response.status_code)
        meta += w.field(w.T_HEADERS, _packed(response.raw_headers))
        body = response.body
        call.link.reply(call, meta, body if type(body) is bytes else bytes(body))
        if response.background is None:
            return None
        return _background(response)
    return run_asgi(call, response, make_scope(call))


async def _background(response: Any) -> Any:
    await response.background()
    return ANSWERED


async def run_asgi(call: Call, app: Any, scope: Dict[str, Any]) -> Any:
    """Lets an ASGI application answer."""
    channel = Channel(call)
    try:
        await app(scope, channel.receive, channel.send)
    except Exception:
        if channel.status and not channel.opened and not call.answered and not call.cancelled:
            call.open_answer(channel.meta())  # what was promised goes out, and then breaks off
        raise
    if not call.answered and not call.cancelled:
        if channel.opened:
            message = "the ASGI application returned before it ended its answer"
        else:
            message = "the ASGI application returned without an answer"
        call.link.reply_error(call, pack_error(call.stream, w.E_PROTOCOL, "RuntimeError", message))
    return ANSWERED


def refuse_generator(call: Call) -> None:
    message = (
        f"Method '{call.method}' returned a generator. Wrap it in a StreamingResponse to stream it "
        "over HTTP."
    )
    call.link.reply_error(call, pack_error(call.stream, w.E_PROTOCOL, "TypeError", message))
