"""Answers that are nothing but the items of a call: what the replica tells the node, and what it
does when the node sends the items to it all the same, as the fake one does."""

from __future__ import annotations

import json
import time
import unittest
from typing import Any, Dict

from fakenode import FakeNode, w

APP = """
import asyncio
from ray import serve
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse

ran = []

@serve.deployment(max_ongoing_requests=100)
class Back:
    async def count(self, n):
        for i in range(n): yield f"{i} "
    async def fails(self):
        yield "first "
        raise ValueError("bad")

class Ascii(StreamingResponse):
    charset = "ascii"

class Own(StreamingResponse):
    async def stream_response(self, send):
        await send({"type": "http.response.start", "status": 201, "headers": []})
        async for chunk in self.body_iterator:
            await send({"type": "http.response.body", "body": b"<%s>" % chunk.encode(),
                        "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

@serve.deployment(max_ongoing_requests=100)
class Front:
    def __init__(self, back):
        self.back = back.options(stream=True)
    async def __call__(self, request):
        path = request.url.path
        if path == "/ran":
            return ran
        items = (self.back.fails if path == "/fails" else self.back.count).remote(
            *() if path == "/fails" else (3,))
        if path == "/peek":
            await items.__anext__()
        if path == "/generator":
            async def again():
                async for item in items: yield item
            return StreamingResponse(again())
        kind = {"/ascii": Ascii, "/own": Own}.get(path, StreamingResponse)
        return kind(items, 201, background=BackgroundTask(ran.append, path))
    def gives(self):
        return self.back.count.remote(3)
    async def gives_later(self):
        await asyncio.sleep(0)
        return self.back.count.remote(3)
    async def yields(self):
        async for item in self.back.count.remote(3): yield item

app = Front.bind(Back.bind())
"""


class Wired(unittest.TestCase):
    node: FakeNode

    @classmethod
    def setUpClass(cls) -> None:
        cls.node = FakeNode(APP)
        cls.node.build()
        cls.front = cls.node.fork("Front")
        cls.node.fork("Back")

    @classmethod
    def tearDownClass(cls) -> None:
        cls.node.close()

    def get(self, path: str) -> Any:
        return self.front.http(path)

    def assertTold(self, fields: Dict[int, bytes], told: bool) -> None:
        self.assertEqual(w.T_BODY_OF in fields, told)
        if told:
            self.assertEqual(w.number(fields, w.T_BODY_OF) % 2, 1)

    def test_http(self) -> None:
        for path, told, body in (
            ("/", True, b"0 1 2 "),
            ("/peek", None, b"1 2 "),
            ("/generator", False, b"0 1 2 "),
            ("/ascii", False, b"0 1 2 "),
            ("/own", False, b"<0 ><1 ><2 >"),
        ):
            with self.subTest(path):
                got = self.get(path)
                if told is not None:
                    self.assertTold(got.fields, told)
                self.assertEqual(got.body, body)
                self.assertEqual(got.status, 200 if path == "/generator" else 201)
        ran, until = b"", time.monotonic() + 30
        while ran.count(b"/") < 4 and time.monotonic() < until:  # they run behind the answers
            ran = self.get("/ran").body
        self.assertEqual(sorted(json.loads(ran)), ["/", "/ascii", "/own", "/peek"])

    def test_an_error_of_the_call(self) -> None:
        got = self.get("/fails")
        self.assertTold(got.fields, True)
        self.assertEqual((got.body, got.code), (b"first ", w.E_USER))
        self.assertNotIn(b"fails", self.get("/ran").body)

    def test_methods_that_return_generators_of_handles(self) -> None:
        for method, told in (("gives", None), ("gives_later", True), ("yields", False)):
            with self.subTest(method):
                got = self.front.wait(self.front.open_call(method, stream=True))
                self.assertIsNone(got.error)
                if told is not None:  # a thread may be slower than the items
                    self.assertTold(got.fields, told)
                self.assertEqual(w.number(got.fields, w.T_ITEMS), 1)
                self.assertEqual(got.frames, 5)  # the head, the items, the end


class Middleware(unittest.TestCase):
    """Which wrappers of `send` are looked through."""

    def test_unknown_wrappers(self) -> None:
        import functools

        from rserve._http import Channel
        from rserve._wired import _channel

        channel = Channel(None)  # type: ignore[arg-type]

        async def send(message: Any) -> None:
            await channel.send(message)

        def wrapper(send: Any) -> Any:
            async def _send(message: Any) -> None:
                await send(message)

            _send.__module__ = "starlette.middleware.errors"
            _send.__qualname__ = "ServerErrorMiddleware.__call__.<locals>._send"
            return _send

        self.assertIs(_channel(channel.send), channel)
        self.assertIs(_channel(wrapper(wrapper(channel.send))), channel)
        for odd in (send, wrapper(send), functools.partial(channel.send), None, print, 7):
            self.assertIsNone(_channel(odd))


if __name__ == "__main__":
    unittest.main()
