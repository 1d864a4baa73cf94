"""@serve.ingress: plain ASGI applications, and FastAPI where it is installed."""

from __future__ import annotations

import json
import os
import unittest

from fakenode import HAS_FASTAPI, FakeNode, Peer, w

PLAIN = """
import asyncio, json
from ray import serve

events = []

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            events.append(message["type"])
            if MODE == "raise": raise RuntimeError("no start")
            if MODE == "refuse":
                failed = "lifespan.startup.failed"
                return await send({"type": failed, "message": "the database is away"})
            if MODE == "silent": return
            scope["state"]["pool"] = "shared"
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                print("lifespan over")
                return
    path = scope["path"]
    if path == "/never":
        return
    if path == "/half":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        return
    if path == "/wait":
        await receive()
        events.append("waits")
        message = await receive()
        events.append(message["type"])
        return
    if path == "/echo":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            message = await receive()
            await send({**message, "type": "http.response.body"})
            if not message["more_body"]: return
    if path == "/events":
        body = json.dumps(events).encode()
    elif path == "/state":
        body = json.dumps(scope["state"]).encode()
    else:
        del scope["headers"]
        plain = {k: (v.decode() if isinstance(v, bytes) else v) for k, v in scope.items()}
        body = json.dumps(plain).encode()
    headers = [(b"Content-Length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
    done = await receive() if path == "/after" else None
    if path == "/after":
        done = await receive()
        events.append(done["type"])

class App:
    __call__ = staticmethod(asgi)

MODE = "normal"

@serve.deployment
@serve.ingress(App())
class A:
    def __init__(self): events.append("constructor")
    def method(self, x): return x + 1

@serve.deployment
@serve.ingress(lambda: App())
class Built: pass

@serve.deployment
@serve.ingress(asgi)
class Function: pass

app = A.bind()
built = Built.bind()
function = Function.bind()
default = serve.deployment(serve.ingress(App())()).bind()
"""


class Plain(unittest.TestCase):
    def serve(self, source: str = PLAIN, path: str = "app:app") -> Peer:
        self.node = FakeNode(source)
        self.addCleanup(self.node.close)
        return self.node.serve(path)

    def test_scope(self) -> None:
        peer = self.serve()
        self.assertTrue(peer.ready["asgi"])
        scope = json.loads(
            peer.http("/pre/x%2Fy", query="a=b", root_path="/pre", method="POST").body
        )
        self.assertEqual(
            scope,
            {
                "type": "http",
                "asgi": {"version": "3.0", "spec_version": "2.4"},
                "http_version": "1.1",
                "server": ["127.0.0.1", 8000],
                "client": ["127.0.0.1", 50000],
                "scheme": "http",
                "method": "POST",
                "root_path": "/pre",
                "path": "/pre/x/y",
                "raw_path": "/pre/x%2Fy",
                "query_string": "a=b",
                "state": {"pool": "shared"},
            },
        )

    def test_all_forms(self) -> None:
        for path in ("app:built", "app:function", "app:default"):
            with self.subTest(path=path):
                self.assertEqual(self.serve(path=path).http("/state").body, b'{"pool": "shared"}')

    def test_streamed_both_ways(self) -> None:
        peer = self.serve()
        stream = peer.open_http("/echo", method="POST", body=b"1", end=False)
        self.node.pump(lambda: peer.answers[stream].body == b"1")
        peer.send(w.BODY, 0, stream, b"", b"2" * 100_000)
        self.node.pump(lambda: len(peer.answers[stream].body) == 100_001)
        peer.send(w.BODY, w.END, stream, b"", b"3")
        self.assertEqual(peer.wait(stream).body[-2:], b"23")

    def test_broken_answers(self) -> None:
        peer = self.serve()
        self.assertEqual(peer.http("/never").code, w.E_PROTOCOL)
        answer = peer.http("/half")
        self.assertEqual((answer.body, answer.code), (b"half", w.E_PROTOCOL))

    def test_disconnect_is_received(self) -> None:
        peer = self.serve()
        stream = peer.open_http("/wait")
        self.events_until(peer, "waits")
        peer.cancel(stream)
        peer.http("/after")
        events = self.events_until(peer, "http.disconnect")
        self.assertEqual(events[:2], ["constructor", "lifespan.startup"])
        self.assertEqual(events[-1], "http.disconnect")

    def events_until(self, peer: Peer, last: str) -> "list[str]":
        events: "list[str]" = self.node.eventually(
            lambda: json.loads(peer.http("/events").body), lambda e: e[-1] == last
        )
        return events

    def test_handle_calls_reach_the_class(self) -> None:
        self.assertEqual(self.serve().call("method", 1).value(), 2)

    def test_lifespan_ends(self) -> None:
        peer = self.serve()
        peer.stop()
        self.assertEqual(peer.exit_status(), 0)
        self.assertEqual(peer.stdout(), "lifespan over\n")

    def test_lifespan_modes(self) -> None:
        self.assertEqual(
            self.serve(PLAIN.replace('"normal"', '"silent"')).http("/state").body, b"{}"
        )
        for mode, text in (("raise", "no start"), ("refuse", "the database is away")):
            node = FakeNode(PLAIN.replace('"normal"', f'"{mode}"'))
            self.addCleanup(node.close)
            node.build()
            peer = node.fork("A", start=False)
            message = peer.expect_json(w.FAILED)
            self.assertIn("ASGI lifespan startup failed", message["error"])
            self.assertIn(text, message["traceback"])
            self.assertEqual(os.waitstatus_to_exitcode(peer.exit_status()), 1)


FASTAPI = """
import asyncio, contextlib
from typing import Optional
from fastapi import FastAPI, Request, Depends, APIRouter, HTTPException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from ray import serve
from ray.serve.exceptions import BackPressureError

events = []

@contextlib.asynccontextmanager
async def lifespan(app):
    events.append("up")
    yield {"started": True}
    print("down")

api = FastAPI(lifespan=lifespan, title="T")

class Item(BaseModel):
    name: str
    n: int = 1

@api.get("/free")
def free(): return "free"

@serve.deployment(max_ongoing_requests=50)
class Back:
    def __call__(self, x): return x * 2

class Base:
    @api.get("/base")
    async def base(self): return self.word

@serve.deployment(max_ongoing_requests=50)
@serve.ingress(api)
class Front(Base):
    def __init__(self, back):
        self.back = back
        self.word = "mine"
        events.append("constructor")

    @api.get("/word/{n}", response_model=list, tags=["t"], name="words")
    async def get_word(self, n: int, request: Request, q: Optional[str] = None):
        return [self.word, n, q, str(request.url_for("words", n=5).path), request.state.started]

    @api.post("/item")
    def item(self, item: Item): return {"name": item.name, "n": item.n}

    @api.get("/call/{x}")
    async def call(self, x: int): return await self.back.remote(x)

    @api.get("/busy")
    async def busy(self): raise BackPressureError(1, 2)

    @api.get("/crash")
    async def crash(self): raise RuntimeError("x")

    @api.get("/events")
    async def get_events(self): return events

    @api.get("/slow")
    async def slow(self):
        events.append("slow")
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            events.append("cancelled")
            raise

@serve.deployment
@serve.ingress(api)
class Other:
    @api.get("/other")
    def other(self): return "other"

@api.get("/late")
def late(): return "late"

app = Front.bind(Back.bind())
other = Other.bind()
"""


@unittest.skipUnless(HAS_FASTAPI, "FastAPI is not installed")
class FastApi(unittest.TestCase):
    def serve(self, path: str = "app:app") -> Peer:
        self.node = FakeNode(FASTAPI)
        self.addCleanup(self.node.close)
        return self.node.serve(path)

    def get(self, peer: Peer, path: str, **kwargs: object) -> object:
        answer = peer.http(path, **kwargs)
        self.assertEqual(answer.status, 200, answer.body)
        return json.loads(answer.body)

    def test_views(self) -> None:
        peer = self.serve()
        self.assertEqual(peer.ready["docs_path"], "/docs")
        self.assertEqual(self.node.graph["docs_path"], "/docs")
        self.assertEqual(
            self.get(peer, "/pre/word/3", query="q=z", root_path="/pre"),
            ["mine", 3, "z", "/pre/word/5", True],
        )
        self.assertEqual(self.get(peer, "/base"), "mine")
        self.assertEqual(self.get(peer, "/free"), "free")
        self.assertEqual(self.get(peer, "/call/21"), 42)
        item = self.get(
            peer,
            "/item",
            method="POST",
            body=b'{"name": "a"}',
            headers=[("content-type", "application/json")],
        )
        self.assertEqual(item, {"name": "a", "n": 1})
        self.assertEqual(self.get(peer, "/events"), ["constructor", "up"])
        self.assertEqual(peer.http("/word/x").status, 422)

    def test_routes_of_other_classes_are_gone(self) -> None:
        front, other = self.serve(), self.serve("app:other")
        for peer, missing in (
            (front, "/other"),
            (front, "/late"),
            (other, "/base"),
            (other, "/word/1"),
        ):
            self.assertEqual(peer.http(missing).status, 404, missing)
        self.assertEqual(self.get(other, "/other"), "other")
        self.assertEqual(self.get(other, "/free"), "free")

    def test_openapi(self) -> None:
        peer = self.serve()
        document = self.get(peer, "/pre/openapi.json", root_path="/pre")
        assert isinstance(document, dict)
        self.assertIn("/word/{n}", document["paths"])
        operation = document["paths"]["/word/{n}"]["get"]
        self.assertEqual(operation["tags"], ["t"])
        self.assertEqual([p["name"] for p in operation["parameters"]], ["n", "q"])
        self.assertNotIn("/other", document["paths"])
        self.assertEqual(peer.http("/docs").status, 200)

    def test_errors(self) -> None:
        peer = self.serve()
        answer = peer.http("/busy")
        self.assertEqual(
            (answer.status, answer.body),
            (
                503,
                b"Request dropped due to backpressure "
                b"(num_queued_requests=1, max_queued_requests=2).",
            ),
        )
        answer = peer.http("/crash")
        self.assertEqual((answer.status, answer.body), (500, b"Internal Server Error"))
        self.assertIn("RuntimeError: x", peer.stderr())

    def test_cancel(self) -> None:
        peer = self.serve()
        stream = peer.open_http("/slow")
        want = ["constructor", "up", "slow"]
        self.node.eventually(lambda: self.get(peer, "/events"), lambda e: e == want)
        peer.cancel(stream)
        want.append("cancelled")
        got = self.node.eventually(lambda: self.get(peer, "/events"), lambda e: e == want)
        self.assertEqual(got, want)

    def test_stop(self) -> None:
        peer = self.serve()
        peer.stop()
        self.assertEqual(peer.exit_status(), 0)
        self.assertEqual(peer.stdout(), "down\n")

    def test_method_without_self(self) -> None:
        source = """
from fastapi import FastAPI
from ray import serve
api = FastAPI()
class A:
    @api.get("/")
    def f(): return 1
A = serve.deployment(serve.ingress(api)(A))
"""
        with FakeNode(source) as node:
            self.assertIn("must have ``self``", node.build()["error"])

    def test_router_and_other_kinds_of_application(self) -> None:
        source = """
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from ray import serve

router = APIRouter(prefix="/v1")

@serve.deployment
@serve.ingress(router)
class Router:
    def __init__(self): self.name = "mine"
    @router.get("/word/{x}")
    def word(self, x: int): return [self.name, x]

def build():
    api = FastAPI()
    @api.get("/")
    def root(): return "built"
    return api

Built = serve.deployment(serve.ingress(build)())
star = Starlette(routes=[Route("/", lambda request: PlainTextResponse("star"))])
Star = serve.deployment(serve.ingress(star)())
router_app, built_app = Router.bind(), Built.options(name="Built").bind()
star_app = Star.options(name="Star").bind()
"""
        for path, what in (
            ("/v1/word/3", b'["mine",3]'),
            ("/", b'"built"'),
            ("/", b"star"),
        ):
            name = what.strip(b'"[').split(b'"')[0].decode().replace("mine", "router")
            with self.subTest(name), FakeNode(source) as node:
                peer = node.serve(f"app:{name}_app")
                self.assertEqual(peer.http(path).body, what)
                if name == "router":
                    self.assertEqual(peer.http("/v1/word/x").status, 422)

    def test_two_fastapi_deployments(self) -> None:
        source = """
from fastapi import FastAPI
from ray import serve
@serve.deployment
@serve.ingress(FastAPI())
class A:
    def __init__(self, *a): pass
app = A.bind(A.bind())
"""
        with FakeNode(source) as node:
            message = node.build()
            self.assertEqual(message["phase"], "validate")
            self.assertIn("Found multiple FastAPI deployments", message["error"])

    def test_values_of_pydantic_and_numpy(self) -> None:
        source = """
import numpy, pydantic
from ray import serve
class M(pydantic.BaseModel):
    a: int = pydantic.Field(1, alias="A")
@serve.deployment
def f(request):
    return [M(), numpy.arange(3), numpy.float32(0.5), numpy.int64(4), {"x": numpy.ones((1, 2))}]
app = f.bind()
"""
        with FakeNode(source) as node:
            graph = node.build()
            if "deployments" not in graph:
                self.skipTest(graph["error"])
            peer = node.fork("f")
            self.assertEqual(peer.http().body, b'[{"A":1},[0,1,2],0.5,4,{"x":[[1.0,1.0]]}]')


if __name__ == "__main__":
    unittest.main()
