"""WebSocket connections of ASGI applications: the ASGI messages on one side, records on the other.

The node speaks with the client: frames, pings, checks, the closing handshake. Here come pieces of
messages, as net/wire/PROTOCOL.md has them in its section "WebSocket".
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from typing import Any, Deque, Dict, List, Optional, Union

from rserve import _http
from rserve import _wire as w
from rserve._call import Call
from rserve._errors import pack_error

TEXT, BINARY, CLOSE = 1, 2, 3
FIN = 1
RECORD = struct.Struct("<BBHI")
#: A longer message leaves in several pieces, so that a slow client holds its sender back.
PIECE = 16 << 20
REASON_MAX = 123

NO_CODE, ABNORMAL = 1005, 1006


class ClientDisconnected(OSError):
    """The application sent something to a client that is gone."""


def make_scope(call: Call, state: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
    """The ASGI scope of a WebSocket connection."""
    scope = _http.make_scope(call, state)
    protocols: List[str] = []
    for name, value in scope["headers"]:
        if name == b"sec-websocket-protocol":
            protocols += [p.strip() for p in value.decode("latin-1").split(",")]
    del scope["method"]
    scope["type"] = "websocket"
    scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
    scope["subprotocols"] = protocols
    scope["extensions"] = {"websocket.http.response": {}}
    return scope


class Inbox:
    """Records from bytes that are cut anywhere, and messages from records."""

    __slots__ = ("_data", "_parts", "messages")

    def __init__(self) -> None:
        self._data = bytearray()
        self._parts: List[bytes] = []
        self.messages: Deque[Dict[str, Any]] = deque()

    def feed(self, chunk: bytes) -> None:
        rest = self._data
        data: Union[bytes, bytearray] = chunk  # mostly whole records: nothing to keep
        if rest:
            rest += chunk
            data = rest
        at, end = 0, len(data)
        while end - at >= RECORD.size:
            kind, flags, code, length = RECORD.unpack_from(data, at)
            start = at + RECORD.size
            if end - start < length:
                break
            at = start + length
            self._record(kind, flags, code, bytes(data[start:at]))
        if data is rest:
            del rest[:at]
        elif at < end:
            rest += chunk[at:]

    def _record(self, kind: int, flags: int, code: int, body: bytes) -> None:
        if kind == CLOSE:
            reason = body.decode("utf-8", "replace")
            message = {"type": "websocket.disconnect", "code": code, "reason": reason}
            self.messages.append(message)
            return
        if kind not in (TEXT, BINARY):
            raise w.ProtocolError(f"a WebSocket record of type {kind}")
        if not flags & FIN:
            self._parts.append(body)
            return
        if self._parts:
            self._parts.append(body)
            body = b"".join(self._parts)
            self._parts = []
        if kind == TEXT:
            self.messages.append({"type": "websocket.receive", "text": body.decode()})
        else:
            self.messages.append({"type": "websocket.receive", "bytes": body})


def record(kind: int, flags: int, body: bytes, code: int = 0) -> bytes:
    return RECORD.pack(kind, flags, code, len(body)) + body


def close_record(code: int, reason: str) -> bytes:
    valid = 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
    if not valid:
        raise RuntimeError(f"{code} is no WebSocket close code that may be sent")
    text = reason.encode("utf-8")
    if len(text) > REASON_MAX:
        text = text[:REASON_MAX].decode("utf-8", "ignore").encode("utf-8")
    return record(CLOSE, FIN, text, code)


class Connection:
    """The `receive` and `send` of one connection."""

    __slots__ = ("call", "accepted", "closed", "_inbox", "_connected", "_denial", "_sending")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.accepted = False
        self.closed = False  # by the application
        self._inbox = Inbox()
        self._connected = False
        self._denial: Optional[_http.Channel] = None
        self._sending = asyncio.Lock()

    @property
    def gone(self) -> bool:
        """The client's side has ended, whether the application has read that far or not."""
        return self.call.ended or self.call.cancelled

    # --- receive

    async def receive(self) -> Dict[str, Any]:
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        call = self.call
        messages = self._inbox.messages
        while not messages:
            if self.closed:
                return {"type": "websocket.disconnect", "code": NO_CODE, "reason": ""}
            if call.answered or call.cancelled:
                break
            if call.chunks:
                # Only what is asked for is taken and given back as credit.
                chunk = call.chunks.popleft()
                self._inbox.feed(chunk)
                call.took(len(chunk))
            elif call.ended:
                break
            else:
                await call.wait_for_input()
        if messages:
            message = messages.popleft()
            if message["type"] == "websocket.disconnect":
                messages.append(message)  # whoever asks again hears it again
            return message
        return {"type": "websocket.disconnect", "code": ABNORMAL, "reason": ""}

    # --- send

    async def send(self, message: Dict[str, Any]) -> None:
        kind = message["type"]
        if self.accepted and not self.closed:
            await self._send_open(kind, message)
        elif self._denial is not None and not self.call.answered:
            if kind != "websocket.http.response.body":
                raise RuntimeError(
                    f"Expected ASGI message 'websocket.http.response.body' but got '{kind}'."
                )
            await self._deny(message)
        elif self.accepted or self.call.answered:
            raise RuntimeError(
                f"Unexpected ASGI message '{kind}', after sending 'websocket.close' or response "
                "already completed."
            )
        else:
            await self._answer_handshake(kind, message)

    async def _answer_handshake(self, kind: str, message: Dict[str, Any]) -> None:
        call = self.call
        if kind == "websocket.accept":
            headers = [(bytes(k), bytes(v)) for k, v in message.get("headers") or ()]
            protocol = message.get("subprotocol")
            if protocol is not None:
                headers.append((b"sec-websocket-protocol", protocol.encode("latin-1")))
            meta = _meta(101, headers)
            self.accepted = True
            if not call.cancelled:
                call.open_answer(meta)
        elif kind == "websocket.close":
            call.link.reply(call, _meta(403, []), b"")
            call.wake()
        elif kind == "websocket.http.response.start":
            self._denial = _http.Channel(call)
            await self._deny(message)
        else:
            raise RuntimeError(
                "Expected ASGI message 'websocket.accept', 'websocket.close', or "
                f"'websocket.http.response.start' but got '{kind}'."
            )

    async def _deny(self, message: Dict[str, Any]) -> None:
        assert self._denial is not None
        kind = message["type"][len("websocket.") :]
        await self._denial.send({**message, "type": kind})

    async def _send_open(self, kind: str, message: Dict[str, Any]) -> None:
        if kind == "websocket.send":
            data = message.get("bytes")
            if data is None:
                text = message["text"]
                await self._send_message(TEXT, text.encode("utf-8"))
            else:
                await self._send_message(BINARY, bytes(data))
        elif kind == "websocket.close":
            code = message.get("code", 1000)
            data = close_record(1000 if code is None else int(code), message.get("reason") or "")
            async with self._sending:
                if self.gone:
                    self.closed = True
                elif not self.closed:
                    self._end_with(data)
        else:
            raise RuntimeError(
                f"Expected ASGI message 'websocket.send' or 'websocket.close', but got '{kind}'."
            )

    async def _send_message(self, kind: int, data: bytes) -> None:
        async with self._sending:  # of several tasks one message after the other
            if len(data) <= PIECE:
                await self._send_piece(record(kind, FIN, data))
                return
            at = 0
            try:
                while at < len(data):
                    piece = data[at : at + PIECE]
                    at += len(piece)
                    await self._send_piece(record(kind, FIN if at >= len(data) else 0, piece))
            except BaseException:
                if not self.gone:  # cut off half way: no other message can follow
                    self._end_with(close_record(1011, "a message was broken off"))
                raise

    async def _send_piece(self, data: bytes) -> None:
        if self.gone or self.closed:
            raise ClientDisconnected("the WebSocket connection is closed")
        await self.call.send_body(data)

    def _end_with(self, data: bytes) -> None:
        """A close record, past all credit."""
        self.closed = True
        self.call.link.send_frame(w.BODY, 0, self.call.stream, b"", data)
        self.call.wake()

    # --- the end

    def finish(self) -> None:
        """The application returned."""
        call = self.call
        if call.answered or call.cancelled:
            return
        if self.accepted:
            call.end_answer()
            return
        if self._denial is not None:
            text = "the ASGI application returned before it ended its answer"
        else:
            text = "the ASGI application returned without answering the WebSocket handshake"
        call.link.reply_error(call, pack_error(call.stream, w.E_PROTOCOL, "RuntimeError", text))

    def keep_promise(self) -> None:
        """It raised within an HTTP answer: what was promised goes out, and then breaks off."""
        denial, call = self._denial, self.call
        if denial is not None and denial.status and not denial.opened:
            if not call.answered and not call.cancelled:
                call.open_answer(denial.meta())


def _meta(status: int, headers: Any) -> bytes:
    return w.field_u16(w.T_STATUS, status) + w.field(w.T_HEADERS, w.pack_headers(headers))


async def run(call: Call, app: Any, scope: Dict[str, Any]) -> Any:
    """Lets an ASGI application serve a connection, to its end."""
    connection = Connection(call)
    try:
        await app(scope, connection.receive, connection.send)
    except ClientDisconnected:
        pass
    except Exception as e:
        # What frameworks raise when the client leaves is no failure of the application's.
        if not (connection.gone and type(e).__name__ == "WebSocketDisconnect"):
            connection.keep_promise()
            raise
    connection.finish()
    return _http.ANSWERED
