"""A replica: its life, HTTP requests, streams, cancellation, faults."""

from __future__ import annotations

import json
import os
import random
import signal
import time
import unittest
from typing import Optional

from fakenode import FakeNode, Peer, w

BASIC = """
import asyncio, os, time
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse

seen = []
sleeping = 0

@serve.deployment(max_ongoing_requests=100)
class A:
    async def __call__(self, request: Request):
        path = request.url.path
        if path == "/body":
            body = await request.body()
            return {"size": len(body), "sum": sum(body)}
        if path == "/echo":
            return await request.body()
        if path == "/chunks":
            return [len(c) async for c in request.stream()]
        if path == "/sleep":
            global sleeping
            sleeping += 1
            try:
                await asyncio.sleep(float(request.query_params["s"]))
            except asyncio.CancelledError:
                seen.append("cancelled")
                seen.append(await request.is_disconnected())
                raise
            return "slept"
        if path == "/seen":
            return seen
        if path == "/sleeping":
            return sleeping
        if path == "/big":
            return b"x" * int(request.query_params["n"])
        if path == "/raise":
            raise LookupError("what the user said")
        if path == "/stream":
            async def items():
                for i in range(int(request.query_params["n"])):
                    seen.append(i)
                    yield "%d," % i
            return StreamingResponse(items(), media_type="text/plain")
        if path == "/flood":
            async def flood():
                for i in range(64):
                    seen.append(i)
                    yield b"f" * 65536
            return StreamingResponse(flood())
        if path == "/forever":
            async def forever():
                try:
                    while True:
                        yield b"tick"
                        await asyncio.sleep(0.01)
                finally:
                    seen.append("closed")
            return StreamingResponse(forever())
        if path == "/header":
            return PlainTextResponse("x", headers={"x-a": "1" + chr(13) + chr(10) + "x-b: 2"})
        if path == "/exit":
            raise SystemExit(4)
        if path == "/kill":
            os._exit(9)
        if path == "/block":
            time.sleep(0.4)
        return path

app = A.bind()
"""


class Http(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.node = FakeNode(BASIC)
        cls.node.build()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.node.close()

    def setUp(self) -> None:
        self.peer: Peer = self.node.fork("A", max_ongoing_requests=100)

    def tearDown(self) -> None:
        if self.peer.pid and not self.peer.gone:
            self.peer.stop()
            self.assertEqual(self.peer.exit_status(), 0, self.peer.stderr()[-2000:])
        self.peer.sock.close()
        self.node.replicas.clear()

    def seen(self, want: Optional[list] = None) -> list:
        """What handlers noted down; waits for `want`."""
        return self.node.eventually(
            lambda: json.loads(self.peer.http("/seen").body), lambda got: want in (None, got)
        )

    def wait_sleeping(self, want: int) -> None:
        """Until so many requests sleep."""
        self.node.eventually(
            lambda: int(self.peer.http("/sleeping").body), lambda got: got >= want
        )

    def test_ready(self) -> None:
        self.assertEqual(
            self.peer.ready,
            {
                "methods": ["__call__"],
                "asgi": False,
                "docs_path": None,
                "has_check_health": False,
                "has_reconfigure": False,
                "websocket": False,
                "starts": False,
                "ends": True,
            },
        )

    def test_one_frame_each_way(self) -> None:
        answer = self.peer.http("/x%20y/%C3%A9", query="a=1")
        self.assertEqual((answer.status, answer.body, answer.frames), (200, "/x y/é".encode(), 1))

    def test_pipelined(self) -> None:
        streams = [self.peer.open_http(f"/{i}") for i in range(300)]
        self.assertEqual(
            [self.peer.wait(s).body for s in streams], [b"/%d" % i for i in range(300)]
        )

    def test_error(self) -> None:
        answer = self.peer.http("/raise")
        self.assertEqual(answer.code, w.E_USER)
        self.assertEqual(answer.message, "LookupError: what the user said")
        self.assertEqual(w.text(answer.error or {}, w.T_ERROR_TYPE), "LookupError")
        trace = w.text(answer.error or {}, w.T_TRACEBACK)
        self.assertIn("app.py", trace)
        self.assertNotIn("_drive.py", trace)
        self.assertIn("LookupError: what the user said", self.peer.stderr())
        self.assertRegex(
            self.peer.stderr(),
            r"ERROR \d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} "
            r"default_A abcd\d{4} test-request-id -- Request failed\.",
        )

    def test_exit_in_a_request_is_an_error(self) -> None:
        self.assertEqual(self.peer.http("/exit").code, w.E_USER)
        self.assertEqual(self.peer.http("/on").body, b"/on")

    def test_response_splitting_is_refused(self) -> None:
        answer = self.peer.http("/header")
        self.assertEqual(answer.code, w.E_USER)
        self.assertIn("line break", answer.message)

    def test_body_in_one_frame(self) -> None:
        answer = self.peer.http("/body", method="POST", body=b"\x01" * 1000)
        self.assertEqual(json.loads(answer.body), {"size": 1000, "sum": 1000})

    def test_body_by_memfd(self) -> None:
        body = random.Random(1).randbytes(5 << 20)
        answer = self.peer.http("/echo", method="POST", body=body)
        self.assertEqual(answer.body, body)
        self.assertEqual(answer.frames, 1)

    def test_body_of_100_mb(self) -> None:
        answer = self.peer.http("/body", method="POST", body=b"\x01" * (100 << 20))
        self.assertEqual(json.loads(answer.body)["size"], 100 << 20)
        self.assertEqual(len(self.peer.http("/big", query=f"n={100 << 20}").body), 100 << 20)

    def test_streamed_body(self) -> None:
        stream = self.peer.open_http("/body", method="POST", body=b"\x01" * 10, end=False)
        for i in range(50):
            self.peer.send(w.BODY, 0, stream, b"", b"\x02" * 20_000)
        self.peer.send(w.BODY, w.END, stream, b"", b"\x03")
        answer = self.peer.wait(stream)
        self.assertEqual(json.loads(answer.body), {"size": 1_000_011, "sum": 10 + 2_000_000 + 3})
        given = sum(n for s, n in self.peer.credit if s == stream)
        self.assertGreater(given, 700_000)
        self.assertLessEqual(given, 1_000_011)

    def test_streamed_body_that_ends_empty(self) -> None:
        stream = self.peer.open_http("/chunks", method="POST", end=False)
        self.peer.send(w.BODY, 0, stream, b"", b"abc")
        self.peer.send(w.BODY, w.END, stream)
        self.assertEqual(json.loads(self.peer.wait(stream).body)[0], 3)

    def test_handler_starts_before_the_body_is_there(self) -> None:
        stream = self.peer.open_http("/x", method="POST", end=False)
        self.assertEqual(self.peer.wait(stream).body, b"/x")
        self.peer.send(w.BODY, w.END, stream, b"", b"late")  # crossed the answer
        self.assertEqual(self.peer.http("/on").body, b"/on")

    def test_stream_out(self) -> None:
        answer = self.peer.http("/stream", query="n=100")
        self.assertEqual(answer.body, b"".join(b"%d," % i for i in range(100)))
        self.assertEqual(answer.header("content-type"), "text/plain; charset=utf-8")
        self.assertGreater(answer.frames, 100)

    def test_stream_waits_for_credit(self) -> None:
        self.peer.auto_window = False
        stream = self.peer.open_http("/flood")
        answer = self.peer.answers[stream]
        self.node.pump_for(0.3)
        self.assertFalse(answer.ended)
        self.assertLessEqual(len(answer.body), w.INITIAL_CREDIT + 65536)
        self.assertLessEqual(len(self.seen()), 6)
        while not answer.ended:
            self.peer.send(w.WINDOW, 0, stream, w.field_u32(w.T_CREDIT, 300_000))
            self.node.pump_for(0.02)
        self.assertEqual(len(answer.body), 4 << 20)

    def test_cancel(self) -> None:
        stream = self.peer.open_http("/sleep", query="s=60")
        self.wait_sleeping(1)
        self.peer.cancel(stream)
        want = ["cancelled", True]
        self.assertEqual(self.seen(want), want)

    def check_cancelled(self, least: int) -> None:
        """Every request that began was told; one that was cancelled before leaves no trace."""
        seen = self.node.eventually(
            self.seen, lambda got: least <= got.count(True) == got.count("cancelled")
        )
        self.assertEqual(seen.count(True), seen.count("cancelled"))
        self.assertGreaterEqual(seen.count(True), least)

    def test_cancel_at_once(self) -> None:
        for _ in range(20):
            stream = self.peer.open_http("/sleep", query="s=60")
            self.peer.cancel(stream)
        self.assertEqual(self.peer.http("/on").body, b"/on")
        self.check_cancelled(0)

    def test_cancel_a_burst(self) -> None:
        streams = [self.peer.open_http("/sleep", query="s=60") for _ in range(300)]
        self.wait_sleeping(1)
        for stream in streams:
            self.peer.cancel(stream)
        self.check_cancelled(1)

    def test_cancel_of_a_stream(self) -> None:
        stream = self.peer.open_http("/forever")
        answer = self.peer.answers[stream]
        self.node.pump(lambda: len(answer.body) > 20)
        self.peer.cancel(stream)
        self.assertEqual(self.seen(["closed"]), ["closed"])

    def test_frames_of_unknown_streams_are_dropped(self) -> None:
        self.peer.send(w.BODY, w.END, 9998, b"", b"x")
        self.peer.send(w.CANCEL, 0, 9998)
        self.peer.send(w.WINDOW, 0, 9998, w.field_u32(w.T_CREDIT, 5))
        self.assertEqual(self.peer.http("/on").body, b"/on")

    def test_ping(self) -> None:
        self.assertEqual(self.peer.ping(), {"ok": True})

    def test_garbage_ends_the_replica(self) -> None:
        self.peer.sock.setblocking(True)
        self.peer.sock.sendall(os.urandom(4096))
        self.assertEqual(os.waitstatus_to_exitcode(self.peer.exit_status()), 1)

    def test_wrong_stream_number_ends_the_replica(self) -> None:
        self.peer.send(w.REQUEST, w.END, 7, w.field_u8(w.T_KIND, 1))
        self.assertEqual(os.waitstatus_to_exitcode(self.peer.exit_status()), 1)

    def test_hang_up_ends_the_replica(self) -> None:
        self.peer.open_http("/sleep", query="s=60")
        self.wait_sleeping(1)
        self.node.selector.unregister(self.peer.sock)
        self.peer.sock.close()
        _, status = os.waitpid(self.peer.pid, 0)
        self.peer.pid = 0
        self.assertEqual(status, 0)

    def test_death_is_a_hang_up(self) -> None:
        self.peer.open_http("/kill")
        self.assertEqual(os.waitstatus_to_exitcode(self.peer.exit_status()), 9)

    def test_sigkill(self) -> None:
        os.kill(self.peer.pid, signal.SIGKILL)
        self.assertEqual(os.waitstatus_to_exitcode(self.peer.exit_status()), -9)

    def test_stop_finishes_what_runs(self) -> None:
        stream = self.peer.open_http("/sleep", query="s=0.3")
        self.wait_sleeping(1)
        self.peer.stop()
        self.assertEqual(self.peer.wait(stream).body, b"slept")
        self.assertEqual(self.peer.exit_status(), 0)

    def test_answers_while_the_loop_is_blocked_come_after(self) -> None:
        first = self.peer.open_http("/block")
        second = self.peer.open_http("/after")
        self.assertEqual(self.peer.wait(second).body, b"/after")
        self.assertEqual(self.peer.wait(first).body, b"/block")


class Handlers(unittest.TestCase):
    def serve(self, source: str, **config: object) -> Peer:
        node = FakeNode("import asyncio, time, threading\nfrom ray import serve\n" + source)
        self.addCleanup(node.close)
        return node.serve(**config)

    def test_values(self) -> None:
        peer = self.serve(
            """
import collections, dataclasses, datetime, decimal, enum, pathlib, uuid

@dataclasses.dataclass
class D:
    a: int
    b: "list"

class Colour(enum.Enum):
    RED = "red"

class Level(int, enum.Enum):
    LOW = 1

class Plain:
    def __init__(self): self.x = 1; self._sa_instance_state = object()

V = {
    "dataclass": D(1, [datetime.date(2020, 1, 2)]),
    "enum": [Colour.RED, Level.LOW],
    "keys": {Colour.RED: 1, 2: 3, None: 4, True: 5, (1, 2).__class__.__name__: 6},
    "uuid_key": {uuid.UUID(int=1): uuid.UUID(int=2)},
    "set": {1},
    "decimal": [decimal.Decimal("1.5"), decimal.Decimal("2")],
    "bytes_inside": [b"abc"],
    "nan": float("nan"),
    "object": Plain(),
    "exception": [ValueError("v")],
    "path": pathlib.PurePosixPath("/a"),
    "deque": collections.deque([1, 2]),
    "timedelta": datetime.timedelta(seconds=1.5),
    "str_subclass": type("S", (str,), {})("text"),
}

@serve.deployment
def f(request):
    return V[request.query_params["k"]]
app = f.bind()
"""
        )
        expected = {
            "dataclass": '{"a":1,"b":["2020-01-02"]}',
            "enum": '["red",1]',
            "keys": '{"red":1,"2":3,"null":4,"true":5,"tuple":6}',
            "uuid_key": '{"00000000-0000-0000-0000-000000000001":'
            '"00000000-0000-0000-0000-000000000002"}',
            "set": "[1]",
            "decimal": "[1.5,2]",
            "bytes_inside": '["abc"]',
            "nan": "NaN",
            "object": '{"x":1}',
            "exception": '["v"]',
            "path": '"/a"',
            "deque": "[1,2]",
            "timedelta": "1.5",
        }
        for key, text in expected.items():
            with self.subTest(key=key):
                answer = peer.http(query=f"k={key}")
                self.assertEqual(answer.body.decode(), text)
                self.assertEqual(answer.header("content-type"), "application/json")
        answer = peer.http(query="k=str_subclass")
        self.assertEqual(answer.body, b"text")
        self.assertEqual(answer.header("content-type"), "text/plain; charset=utf-8")

    def test_sync_runs_in_threads_side_by_side(self) -> None:
        peer = self.serve(
            """
@serve.deployment(max_ongoing_requests=8)
class A:
    def __init__(self): self.barrier = threading.Barrier(8)
    def __call__(self, request):
        self.barrier.wait(10)
        return threading.current_thread() is threading.main_thread()
app = A.bind()
"""
        )
        streams = [peer.open_http() for _ in range(8)]
        self.assertEqual([peer.wait(s).body for s in streams], [b"false"] * 8)

    def test_sync_on_the_loop_when_asked(self) -> None:
        os.environ["RAY_SERVE_RUN_SYNC_IN_THREADPOOL"] = "0"
        try:
            peer = self.serve(
                """
@serve.deployment
class A:
    def __call__(self, request):
        return threading.current_thread() is threading.main_thread()
app = A.bind()
"""
            )
        finally:
            del os.environ["RAY_SERVE_RUN_SYNC_IN_THREADPOOL"]
        self.assertEqual(peer.http().body, b"true")

    def test_sync_that_returns_an_awaitable(self) -> None:
        peer = self.serve(
            """
async def inner(): await asyncio.sleep(0); return "awaited"
@serve.deployment
class A:
    def __call__(self): return inner()
app = A.bind()
"""
        )
        self.assertEqual(peer.http().body, b"awaited")

    def test_missing_call_and_generators(self) -> None:
        for body, code in (
            ("def other(self): pass", w.E_NOT_FOUND),
            ("def __call__(self): yield 1", w.E_PROTOCOL),
            ("async def __call__(self): yield 1", w.E_PROTOCOL),
            ("def __call__(self): return (x for x in 'ab')", w.E_PROTOCOL),
        ):
            with self.subTest(body=body):
                peer = self.serve(f"@serve.deployment\nclass A:\n    {body}\napp = A.bind()\n")
                self.assertEqual(peer.http().code, code)

    def test_http_exception_is_a_500(self) -> None:
        peer = self.serve(
            """
from starlette.exceptions import HTTPException
@serve.deployment
async def f(request): raise HTTPException(404)
app = f.bind()
"""
        )
        self.assertEqual(peer.http().code, w.E_USER)

    def test_tasks_timeouts_and_context(self) -> None:
        """The first step of a handler runs outside of a task of its own; it must not notice."""
        peer = self.serve(
            """
import contextvars, sys
var = contextvars.ContextVar("var", default="unset")
from ray.serve.context import _get_serve_request_context

@serve.deployment(max_ongoing_requests=1000)
class A:
    async def __call__(self, request):
        how = request.query_params["how"]
        if how == "current":
            a = asyncio.current_task()
            await asyncio.sleep(0)
            b = asyncio.current_task()
            await asyncio.sleep(0.001)
            return [a is not None, a is b, b is asyncio.current_task()]
        if how == "wait_for":
            try:
                await asyncio.wait_for(asyncio.sleep(10), 0.01)
            except asyncio.TimeoutError:
                return "timed out"
        if how == "timeout" and sys.version_info >= (3, 11):
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(10)
            except TimeoutError:
                return "timed out"
        if how == "timeout0" and sys.version_info >= (3, 11):
            try:
                async with asyncio.timeout(0):
                    await asyncio.sleep(10)
            except TimeoutError:
                return "timed out"
        if how == "timeout_unused" and sys.version_info >= (3, 11):
            async with asyncio.timeout(5):
                return "timed out"
        if how == "group" and sys.version_info >= (3, 11):
            async def one(n): await asyncio.sleep(0); return n
            async with asyncio.TaskGroup() as g:
                tasks = [g.create_task(one(i)) for i in range(3)]
            return [t.result() for t in tasks]
        if how == "cancel_self":
            asyncio.current_task().cancel()
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                return "caught"
        if how == "cancel_self_and_finish":
            asyncio.current_task().cancel()
            return "finished"
        if how == "cancel_self_yield":
            asyncio.current_task().cancel()
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                return "caught"
        if how == "leak":
            before = var.get()
            token = var.set("set")
            return before
        if how == "reset":
            token = var.set("set")
            await asyncio.sleep(0.001)
            inside = var.get()
            var.reset(token)
            return [inside, var.get()]
        if how == "ids":
            a = _get_serve_request_context().request_id
            await asyncio.sleep(0.01)
            b = await asyncio.create_task(self.other())
            c = await asyncio.to_thread(lambda: _get_serve_request_context().request_id)
            return [a, b, c]
        return "none"
    async def other(self):
        return _get_serve_request_context().request_id
app = A.bind()
"""
        )
        for how, body in (
            ("current", b"[true,true,true]"),
            ("wait_for", b"timed out"),
            ("timeout", (b"timed out", b"none")),
            ("timeout0", (b"timed out", b"none")),
            ("timeout_unused", (b"timed out", b"none")),
            ("group", (b"[0,1,2]", b"none")),
            ("cancel_self", b"caught"),
            ("cancel_self_and_finish", b"finished"),
            ("cancel_self_yield", b"caught"),
            ("leak", b"unset"),
            ("reset", b'["set","unset"]'),
        ):
            for times in (1, 5):
                with self.subTest(how=how, times=times):
                    streams = [peer.open_http(query=f"how={how}") for _ in range(times)]
                    for stream in streams:
                        answer = peer.wait(stream)
                        self.assertIn(
                            answer.body,
                            body if isinstance(body, tuple) else (body,),
                            answer.message,
                        )
        streams = [peer.open_http(query="how=ids", request_id=f"id{i}") for i in range(200)]
        for i, stream in enumerate(streams):
            self.assertEqual(json.loads(peer.wait(stream).body), [f"id{i}"] * 3)

    def test_request_context_in_threads(self) -> None:
        peer = self.serve(
            """
from ray.serve.context import _get_serve_request_context
@serve.deployment
def f(request):
    c = _get_serve_request_context()
    return [c.request_id, c.route, c.app_name, c.is_http_request]
app = f.bind()
"""
        )
        answer = peer.http(request_id="abc", root_path="/pre")
        self.assertEqual(json.loads(answer.body), ["abc", "/pre", "default", True])

    def test_background_task_of_a_response(self) -> None:
        peer = self.serve(
            """
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse
done = []
async def work():
    await asyncio.sleep(0.01)
    done.append(1)
@serve.deployment
class A:
    async def __call__(self, request):
        if request.url.path == "/done": return done
        return PlainTextResponse("first", background=BackgroundTask(work))
app = A.bind()
"""
        )
        self.assertEqual(peer.http().body, b"first")
        got = peer.node.eventually(lambda: peer.http("/done").body, lambda b: b == b"[1]")
        self.assertEqual(got, b"[1]")


class Life(unittest.TestCase):
    def node(self, body: str) -> FakeNode:
        indented = "\n".join("    " + line for line in body.splitlines())
        head = "import asyncio, os, time\nfrom ray import serve\n@serve.deployment\nclass A:\n"
        source = f"{head}{indented}\napp = A.bind()\n"
        node = FakeNode(source)
        self.addCleanup(node.close)
        graph = node.build()
        self.assertIn("deployments", graph, graph)
        return node

    def failed(self, node: FakeNode, phase: str, **config: object) -> dict:
        peer = node.fork("A", start=False, **config)
        message = peer.expect_json(w.FAILED, w.READY)
        self.assertEqual(message.get("phase"), phase, message)
        self.assertEqual(os.waitstatus_to_exitcode(peer.exit_status()), 1)
        return message

    def test_constructor_raises(self) -> None:
        node = self.node("def __init__(self):\n    raise RuntimeError('cannot load the model')\n")
        message = self.failed(node, "constructor")
        self.assertEqual(message["error"], "RuntimeError: cannot load the model")
        self.assertIn("raise RuntimeError", message["traceback"])
        self.assertNotIn("replica.py", message["traceback"])

    def test_constructor_exits(self) -> None:
        node = self.node("def __init__(self):\n    raise SystemExit(1)\n")
        self.assertEqual(self.failed(node, "constructor")["kind"], "SystemExit")

    def test_constructor_dies(self) -> None:
        node = self.node("def __init__(self):\n    os._exit(7)\n")
        peer = node.fork("A", start=False)
        self.assertEqual(os.waitstatus_to_exitcode(peer.exit_status()), 7)

    def test_async_constructor(self) -> None:
        node = self.node(
            "async def __init__(self):\n    await asyncio.sleep(0.01)\n"
            "    self.x = serve.get_replica_context().deployment\n"
            "def __call__(self): return self.x\n"
        )
        self.assertEqual(node.fork("A").http().body, b"A")

    def test_stop_in_order(self) -> None:
        node = self.node(
            "async def __del__(self):\n    await asyncio.sleep(0.01)\n    print('destroyed')\n"
        )
        peer = node.fork("A")
        peer.stop()
        self.assertEqual(peer.exit_status(), 0)
        self.assertEqual(peer.stdout(), "destroyed\n")

    def test_destructor_runs_once(self) -> None:
        node = self.node("def __del__(self):\n    print('destroyed')\n")
        peer = node.fork("A")
        peer.stop()
        self.assertEqual(peer.exit_status(), 0)
        self.assertEqual(peer.stdout(), "destroyed\n")

    def test_destructor_raises(self) -> None:
        node = self.node("def __del__(self):\n    raise ValueError('late')\n")
        peer = node.fork("A")
        peer.stop()
        self.assertEqual(peer.exit_status(), 0)
        self.assertIn("ValueError: late", peer.stderr())

    def test_atexit_runs(self) -> None:
        node = self.node(
            "def __init__(self):\n    import atexit\n    atexit.register(print, 'at exit')\n"
        )
        peer = node.fork("A")
        peer.stop()
        self.assertEqual(peer.exit_status(), 0)
        self.assertEqual(peer.stdout(), "at exit\n")

    def test_reconfigure(self) -> None:
        node = self.node(
            "def __init__(self): self.got = []\n"
            "async def reconfigure(self, config):\n"
            "    if config == 'bad': raise ValueError('not that')\n"
            "    self.got.append(config)\n"
            "def __call__(self): return self.got\n"
        )
        peer = node.fork("A", user_config={"a": 1})
        self.assertTrue(peer.ready["has_reconfigure"])
        for config in ({"a": 1}, {"a": 2}, None):
            peer.send_json(w.RECONFIGURE, {"user_config": config, "config": {}, "rank": 0})
            peer.expect(w.READY)
        self.assertEqual(peer.http().body, b'[{"a":1},{"a":2}]')
        peer.send_json(w.RECONFIGURE, {"user_config": "bad", "config": {}, "rank": 0})
        self.assertEqual(peer.expect_json(w.FAILED)["error"], "ValueError: not that")

    def test_reconfigure_with_rank(self) -> None:
        node = self.node(
            "def __init__(self): self.got = []\n"
            "def reconfigure(self, config, rank): self.got.append([config, rank.rank])\n"
            "def __call__(self): return self.got\n"
        )
        peer = node.fork("A")
        peer.send_json(w.RECONFIGURE, {"user_config": None, "config": {}, "rank": 3})
        peer.expect(w.READY)
        self.assertEqual(peer.http().body, b"[[null,0],[null,3]]")

    def test_no_reconfigure(self) -> None:
        node = self.node("pass\n")
        message = self.failed(node, "reconfigure", user_config={"x": 1})
        self.assertIn("no method 'reconfigure'", message["error"])

    def test_health(self) -> None:
        node = self.node(
            "async def check_health(self):\n"
            "    if os.path.exists('sick'): raise RuntimeError('feeling bad')\n"
        )
        peer = node.fork("A")
        self.assertTrue(peer.ready["has_check_health"])
        self.assertEqual(peer.ping(), {"ok": True})
        (node.folder / "sick").write_text("")
        self.assertEqual(peer.ping(), {"ok": False, "error": "RuntimeError: feeling bad"})
        self.failed(node, "health_check")

    def test_limits_of_logging(self) -> None:
        node = self.node(
            "def __call__(self):\n    import logging\n    log = logging.getLogger('ray.serve')\n"
            "    log.info('one')\n    log.debug('two')\n    return log.level\n"
        )
        peer = node.fork("A", logging_config={"log_level": "DEBUG", "encoding": "JSON"})
        self.assertEqual(peer.http().body, b"10")
        lines = [json.loads(line) for line in peer.stderr().splitlines()]
        self.assertEqual(
            [(x["message"], x["request_id"], x["replica"]) for x in lines],
            [("one", "test-request-id", "abcd0000"), ("two", "test-request-id", "abcd0000")],
        )

    def test_access_log_when_asked_for(self) -> None:
        node = self.node("def __call__(self): return 1\n")
        peer = node.fork("A", logging_config={"enable_access_log": True})
        peer.http(root_path="/pre")
        peer.call()
        node.eventually(peer.stderr, lambda text: "CALL" in text)
        self.assertRegex(peer.stderr(), r"-- GET /pre \d+\.\dms\n.*-- CALL __call__ OK \d+\.\dms\n")

    def test_stop_while_a_thread_works(self) -> None:
        node = self.node(
            "def __call__(self):\n    print('begins', flush=True)\n"
            "    time.sleep(0.3)\n    return 'done'\n"
        )
        peer = node.fork("A")
        stream = peer.open_http()
        node.eventually(peer.stdout, lambda text: "begins" in text)
        peer.stop()
        self.assertEqual(peer.wait(stream).body, b"done")
        self.assertEqual(peer.exit_status(), 0)


if __name__ == "__main__":
    unittest.main()
