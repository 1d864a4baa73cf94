"""WebSocket requests: records in and out of ASGI applications."""

from __future__ import annotations

import json
import unittest
from typing import Any, List, Tuple

from fakenode import HAS_FASTAPI, FakeNode, Peer, w

from rserve import _websocket as ws

SOURCE = """
import asyncio, json
from ray import serve

noted = []

class App:
    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            return
        if scope["type"] == "http":
            body = json.dumps(noted).encode()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            return await send({"type": "http.response.body", "body": body})
        await getattr(self, scope["path"][1:])(scope, receive, send)

    async def echo(self, scope, receive, send):
        noted.append((await receive())["type"])
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                noted.append([message["code"], message["reason"]])
                again = await receive()
                noted.append(again == message)
                try:
                    await send({"type": "websocket.send", "text": "late"})
                except OSError as e:
                    noted.append(type(e).__name__)
                    raise
            await send({**message, "type": "websocket.send"})

    async def close(self, scope, receive, send):
        await send({"type": "websocket.accept", "subprotocol": "p", "headers": [(b"X-A", b"b")]})
        long = "\\u20ac" * 100
        await send({"type": "websocket.close", "code": 4321, "reason": long})
        noted.append(await receive())
        noted.append(await receive())
        try:
            await send({"type": "websocket.send", "text": "late"})
        except RuntimeError as e:
            noted.append(str(e))

    async def bad_code(self, scope, receive, send):
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1006})

    async def big(self, scope, receive, send):
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "bytes": bytes((16 << 20) + 5)})

    async def crowd(self, scope, receive, send):
        await send({"type": "websocket.accept"})
        async def one(n):
            for _ in range(20):
                await send({"type": "websocket.send", "bytes": bytes([n]) * 10_000})
        await asyncio.gather(*[one(n) for n in range(5)])

    async def broken_off(self, scope, receive, send):
        await send({"type": "websocket.accept"})
        message = {"type": "websocket.send", "bytes": bytes((16 << 20) + 5)}
        try:
            await asyncio.wait_for(send(message), 0.05)
        except asyncio.TimeoutError:
            noted.append("timeout")

    async def wrong(self, scope, receive, send):
        try:
            await send({"type": "websocket.send", "text": "x"})
        except RuntimeError as e:
            noted.append(str(e))
            raise

    async def half_denied(self, scope, receive, send):
        await send({"type": "websocket.http.response.start", "status": 409, "headers": []})
        raise ValueError("half way")

    async def wait(self, scope, receive, send):
        await receive()
        noted.append((await receive())["code"])

@serve.deployment
@serve.ingress(App())
class A: pass

app = A.bind()
"""

FAST = """
from fastapi import APIRouter, FastAPI, WebSocket, WebSocketException
from ray import serve

api = FastAPI()
router = APIRouter(prefix="/more")

@router.websocket("/plain")
async def plain(socket: WebSocket):
    await socket.accept()
    await socket.send_bytes(b"plain")
    await socket.close()

api.include_router(router)

@serve.deployment
@serve.ingress(api)
class Views:
    def __init__(self): self.name = "views"

    @api.websocket("/mine/{n}")
    async def mine(self, socket: WebSocket, n: int, q: str = ""):
        await socket.accept()
        await socket.send_json({"me": self.name, "n": n, "q": q, "path": socket.url.path})
        while True:
            await socket.send_text(await socket.receive_text())

    @api.websocket("/refused")
    async def refused(self, socket: WebSocket):
        raise WebSocketException(code=1008)

app = Views.bind()
"""

Record = Tuple[int, int, int, bytes]


def open_websocket(peer: Peer, path: str, root_path: str = "") -> int:
    stream = peer.open_http(path, end=False, kind=w.KIND_WEBSOCKET, root_path=root_path)
    return stream


def records(data: bytes) -> List[Record]:
    found: List[Record] = []
    while len(data) >= ws.RECORD.size:
        kind, flags, code, length = ws.RECORD.unpack_from(data)
        data = data[ws.RECORD.size :]
        if len(data) < length:
            break
        found.append((kind, flags, code, data[:length]))
        data = data[length:]
    return found


class Case(unittest.TestCase):
    source = SOURCE

    def setUp(self) -> None:
        self.node = FakeNode(self.source)
        self.addCleanup(self.node.close)
        self.peer = self.node.serve("app:app")

    def accepted(self, path: str, root_path: str = "") -> int:
        stream = open_websocket(self.peer, path, root_path)
        self.node.pump(lambda: self.peer.answers[stream].started, "an answer")
        self.assertEqual(self.peer.answers[stream].status, 101)
        return stream

    def wait_records(self, stream: int, count: int) -> List[Record]:
        answer = self.peer.answers[stream]
        self.node.pump(lambda: len(records(answer.body)) >= count, f"{count} records")
        return records(answer.body)

    def noted(self) -> Any:
        return json.loads(self.peer.http("/").body)


class Plain(Case):
    def test_records_cut_anywhere(self) -> None:
        self.assertTrue(self.peer.ready["websocket"])
        stream = self.accepted("/echo")
        data = (
            ws.record(ws.TEXT, ws.FIN, "ü".encode())
            + ws.record(ws.TEXT, 0, b"\xe2\x82")
            + ws.record(ws.TEXT, ws.FIN, b"\xac")
            + ws.record(ws.BINARY, 0, b"1")
            + ws.record(ws.BINARY, 0, b"2")
            + ws.record(ws.BINARY, ws.FIN, b"")
            + ws.record(ws.TEXT, ws.FIN, b"")
        )
        for i in range(len(data)):
            self.peer.send(w.BODY, 0, stream, b"", data[i : i + 1])
        self.assertEqual(
            self.wait_records(stream, 4),
            [
                (ws.TEXT, ws.FIN, 0, "ü".encode()),
                (ws.TEXT, ws.FIN, 0, b"\xe2\x82\xac"),
                (ws.BINARY, ws.FIN, 0, b"12"),
                (ws.TEXT, ws.FIN, 0, b""),
            ],
        )
        self.peer.send(w.BODY, w.END, stream, b"", ws.record(ws.CLOSE, ws.FIN, b"bye", 4000))
        answer = self.peer.wait(stream)
        self.assertIsNone(answer.error)
        self.assertEqual(len(records(answer.body)), 4)
        self.assertEqual(
            self.noted(), ["websocket.connect", [4000, "bye"], True, "ClientDisconnected"]
        )

    def test_the_application_closes(self) -> None:
        stream = self.accepted("/close")
        answer = self.peer.wait(stream)
        self.assertEqual(answer.headers, [(b"x-a", b"b"), (b"sec-websocket-protocol", b"p")])
        reason = "\u20ac" * 41  # as many as fit
        self.assertEqual(records(answer.body), [(ws.CLOSE, ws.FIN, 4321, reason.encode())])
        self.assertEqual(
            self.noted(),
            [
                {"type": "websocket.connect"},
                {"type": "websocket.disconnect", "code": 1005, "reason": ""},
                "Unexpected ASGI message 'websocket.send', after sending 'websocket.close' or "
                "response already completed.",
            ],
        )

    def test_what_applications_must_not_do(self) -> None:
        stream = self.accepted("/bad_code")
        self.assertEqual(self.peer.wait(stream).code, w.E_USER)
        answer = self.peer.wait(open_websocket(self.peer, "/wrong"))
        self.assertEqual((answer.started, answer.code), (False, w.E_USER))
        self.assertIn("Expected ASGI message 'websocket.accept'", self.noted()[0])
        answer = self.peer.wait(open_websocket(self.peer, "/half_denied"))
        self.assertEqual((answer.status, answer.code), (409, w.E_USER))

    def test_long_messages_leave_in_pieces(self) -> None:
        stream = self.accepted("/big")
        answer = self.peer.wait(stream)
        kinds = [(kind, flags, len(data)) for kind, flags, _, data in records(answer.body)]
        self.assertEqual(kinds, [(ws.BINARY, 0, 16 << 20), (ws.BINARY, ws.FIN, 5)])

    def test_several_tasks_send(self) -> None:
        self.peer.auto_window = False
        stream = self.accepted("/crowd")
        answer = self.peer.answers[stream]
        self.node.pump(lambda: len(answer.body) >= w.INITIAL_CREDIT, "all that credit allows")
        self.peer.http("/")
        self.assertLess(len(answer.body), w.INITIAL_CREDIT + 10_100)
        self.peer.send(w.WINDOW, 0, stream, w.field_u32(w.T_CREDIT, 1 << 30))
        self.peer.wait(stream)
        seen = [data[0] for _, _, _, data in records(answer.body) if len(set(data)) == 1]
        self.assertEqual(sorted(seen), sorted(list(range(5)) * 20))

    def test_a_message_that_is_broken_off(self) -> None:
        """Nothing can follow the half of a message but the end."""
        self.peer.auto_window = False
        stream = self.accepted("/broken_off")
        found = records(self.peer.wait(stream).body)
        self.assertEqual([r[:3] for r in found], [(ws.BINARY, 0, 0), (ws.CLOSE, ws.FIN, 1011)])
        self.assertEqual(self.noted(), ["timeout"])

    def test_a_cancelled_handshake(self) -> None:
        stream = open_websocket(self.peer, "/wait")
        self.assertEqual(self.noted(), [])
        self.peer.cancel(stream)
        self.peer.http("/")
        self.assertEqual(self.noted(), [])  # its task was cancelled


@unittest.skipUnless(HAS_FASTAPI, "FastAPI is not installed")
class Fast(Case):
    source = FAST

    def test_views_are_bound(self) -> None:
        stream = self.accepted("/pre/mine/7", "/pre")
        first = json.loads(self.wait_records(stream, 1)[0][3])
        self.assertEqual(first, {"me": "views", "n": 7, "q": "", "path": "/pre/mine/7"})
        self.peer.send(w.BODY, 0, stream, b"", ws.record(ws.TEXT, ws.FIN, b"back"))
        self.assertEqual(self.wait_records(stream, 2)[1][3], b"back")
        # the client leaves and the view does not catch what FastAPI makes of it: no failure
        self.peer.send(w.BODY, w.END, stream, b"", ws.record(ws.CLOSE, ws.FIN, b"", 1001))
        self.assertIsNone(self.peer.wait(stream).error)

    def test_routers_and_refusals(self) -> None:
        stream = self.accepted("/more/plain")
        answer = self.peer.wait(stream)
        self.assertEqual(
            records(answer.body),
            [(ws.BINARY, ws.FIN, 0, b"plain"), (ws.CLOSE, ws.FIN, 1000, b"")],
        )
        for path in ("/refused", "/nowhere"):
            self.assertEqual(self.peer.wait(open_websocket(self.peer, path)).status, 403)


class Inbox(unittest.TestCase):
    def test_unknown_records(self) -> None:
        inbox = ws.Inbox()
        with self.assertRaises(w.ProtocolError):
            inbox.feed(ws.record(9, ws.FIN, b""))

    def test_a_close_within_a_message(self) -> None:
        inbox = ws.Inbox()
        inbox.feed(ws.record(ws.TEXT, 0, b"half"))
        inbox.feed(ws.record(ws.CLOSE, ws.FIN, b"gone", 1001))
        self.assertEqual(
            list(inbox.messages),
            [{"type": "websocket.disconnect", "code": 1001, "reason": "gone"}],
        )


if __name__ == "__main__":
    unittest.main()
