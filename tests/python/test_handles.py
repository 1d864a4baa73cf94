"""Calls between deployments: values, streams, errors, cancellation, threads."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import unittest
from typing import Any, List
from unittest import mock

from fakenode import FakeNode, Peer, w

HEAD = """
import asyncio, os, threading, time
from ray import serve
import ray
from ray.serve.exceptions import *
from ray.exceptions import *
"""

CALLEE = """
class Custom(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.code = code

class Unpicklable(Exception):
    def __init__(self, a, b):
        super().__init__("text")

seen = []
begun = []

@serve.deployment(max_ongoing_requests=100)
class Back:
    def echo(self, *args, **kwargs):
        return [list(args), kwargs]
    async def value(self, x): return x
    async def slow(self, s, x=None):
        begun.append(s)
        try:
            await asyncio.sleep(s)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return x
    def sync_slow(self, s):
        time.sleep(s)
        return threading.current_thread().name != "MainThread"
    def get_seen(self): return seen
    async def until(self, notes, n):  # until there are so many
        while len(globals()[notes]) < n: await asyncio.sleep(0.005)
        return globals()[notes]
    def fail(self, how):
        if how == "custom": raise Custom(7)
        if how == "unpicklable": raise Unpicklable(1, 2)
        if how == "os": raise FileNotFoundError(2, "gone", "/x")
        if how == "key": raise KeyError("k")
        if how == "exit": raise SystemExit(3)
        if how == "local":
            class Local(ValueError): pass
            raise Local("l")
        raise ValueError("bad " + how)
    def die(self): os._exit(3)
    async def count(self, n, pause=0.0):
        try:
            for i in range(n):
                await asyncio.sleep(pause)
                yield i
        finally:
            seen.append("closed")
    def sync_count(self, n):
        for i in range(n): yield [i]
    def big_items(self, n, size):
        for i in range(n):
            seen.append(i)
            yield bytes(size)
    def returns_generator(self): return (i for i in range(3))
    async def returns_async_generator(self): return self.count(2)
    def not_serializable(self): return threading.Lock()
    def request_id(self):
        from ray.serve.context import _get_serve_request_context as c
        return [c().request_id, c().route, c().app_name, c().multiplexed_model_id, c().session_id]
    async def forward(self, handle, x): return await handle.value.remote(x)
    async def chain(self, n):
        if n == 0: raise Custom(11)
        me = serve.get_deployment_handle("Back")
        return await me.chain.remote(n - 1)
    def __call__(self, *args, **kwargs): return [list(args), kwargs]
"""

FRONT = """
@serve.deployment(max_ongoing_requests=100)
class Front:
    def __init__(self, back): self.back = back
    async def __call__(self, request):
        return await self.run(request)
{body}

app = Front.bind(Back.bind())
"""


class Calls(unittest.TestCase):
    def front(self, body: str, sync: bool = False) -> Peer:
        indented = "\n".join("        " + line for line in body.strip().splitlines())
        head = "    def" if sync else "    async def"
        source = FRONT.format(body=f"{head} run(self, request):\n{indented}")
        if sync:
            source = source.replace("async def __call__", "def __call__").replace(
                "await self.run", "self.run"
            )
        self.node = FakeNode(HEAD + CALLEE + source)
        self.addCleanup(self.node.close)
        return self.node.serve()

    def run_code(self, body: str, sync: bool = False) -> Any:
        answer = self.front(body, sync).http(root_path="/pre", request_id="rid")
        self.assertIsNone(answer.error, (answer.message, w.text(answer.error or {}, w.T_TRACEBACK)))
        return json.loads(answer.body)

    def test_arguments_and_values(self) -> None:
        got = self.run_code(
            """
b = self.back
return [
    await b.remote(1, x=2),
    await b.echo.remote(),
    [type(await b.value.remote(v)).__name__ for v in (b"", b"x", "", "x", 1, None, (1,), {1})],
    await b.value.remote("\\udc80") == "\\udc80",
    await b.value.options(request_serialization="orjson").remote({"a": [1]}),
    len(await b.value.remote(b"x" * 1_000_000)),
    len((await b.value.remote(["x" * 300_000]))[0]),
    (await b.value.remote(max)).__name__,
    (await b.value.remote(lambda: 5))() if CLOUDPICKLE else 5,
]
""".replace("CLOUDPICKLE", str(_has_cloudpickle()))
        )
        self.assertEqual(
            got,
            [
                [[1], {"x": 2}],
                [[], {}],
                ["bytes", "bytes", "str", "str", "int", "NoneType", "tuple", "set"],
                True,
                {"a": [1]},
                1_000_000,
                300_000,
                "max",
                5,
            ],
        )

    def test_inherited_context(self) -> None:
        got = self.run_code(
            "return [await self.back.request_id.remote(), "
            "await self.back.options(multiplexed_model_id='m', session_id='s').request_id.remote()]"
        )
        self.assertEqual(
            got, [["rid", "/pre", "default", "", ""], ["rid", "/pre", "default", "m", "s"]]
        )
        for fields in self.node.calls:
            self.assertEqual(w.number(fields, w.T_KIND), w.KIND_CALL)
            self.assertEqual(w.text(fields, w.T_DEPLOYMENT), "Back")
            self.assertEqual(w.number(fields, w.T_PARENT), 2)
            self.assertEqual(len(w.text(fields, w.T_HANDLE)), 8)
        self.assertEqual(len({w.text(f, w.T_HANDLE) for f in self.node.calls}), 1)

    def test_handles_travel(self) -> None:
        got = self.run_code(
            "return await self.back.forward.remote(self.back.options(stream=False), 9)"
        )
        self.assertEqual(got, 9)

    def test_responses_as_arguments(self) -> None:
        got = self.run_code(
            """
b = self.back
first = b.slow.remote(0.02, 1)
again = b.value.remote(2)
await again
out = [await b.echo.remote(first, again, x=first, y=b.slow.remote(0.01, "z"))]
try:
    await b.echo.remote([first])
except RayServeException as e:
    out.append("top-level" in str(e))
try:
    await b.value.remote(b.fail.remote("upstream"))
except ValueError as e:
    out.append(str(e).splitlines()[-1])
return out
"""
        )
        self.assertEqual(got, [[[1, 2], {"x": 1, "y": "z"}], True, "ValueError: bad upstream"])

    def test_gather_and_repeated_await(self) -> None:
        got = self.run_code(
            """
r = [self.back.slow.remote(0.01 * (5 - i), i) for i in range(5)]
return [await asyncio.gather(*r), [await x for x in r], await asyncio.wait_for(r[0], 1)]
"""
        )
        self.assertEqual(got, [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], 0])

    def test_exceptions(self) -> None:
        got = self.run_code(
            """
out = []
for how in ("custom", "unpicklable", "os", "key", "exit", "local", "plain"):
    try:
        await self.back.fail.remote(how)
    except BaseException as e:
        out.append([how, isinstance(e, RayTaskError), [c.__name__ for c in type(e).__mro__][:3],
                    str(e).splitlines()[-1], getattr(e, "code", None), getattr(e, "errno", None),
                    type(getattr(e, "cause", None)).__name__])
return out
"""
        )
        by_name = {row[0]: row[1:] for row in got}
        self.assertEqual(
            by_name["custom"],
            [
                True,
                ["RayTaskError(Custom)", "RayTaskError", "RayError"],
                "app.Custom: 7",
                7,
                None,
                "Custom",
            ],
        )
        self.assertEqual(by_name["os"][4], 2)
        self.assertEqual(by_name["os"][1][0], "RayTaskError(FileNotFoundError)")
        self.assertEqual(by_name["unpicklable"][0], False)
        self.assertEqual(by_name["unpicklable"][1][0], "UnserializableException")
        self.assertEqual(by_name["unpicklable"][2], "app.Unpicklable: text")
        self.assertEqual(by_name["key"][2], "KeyError: 'k'")
        self.assertEqual(by_name["exit"][1][0], "RayTaskError(SystemExit)")
        if _has_cloudpickle():
            self.assertEqual(by_name["local"][1][0], "RayTaskError(Local)")
        self.assertEqual(by_name["plain"][2], "ValueError: bad plain")

    def test_exception_over_several_hops(self) -> None:
        got = self.run_code(
            """
try:
    await self.back.chain.remote(3)
except Exception as e:
    text = str(e)
    return [type(e).__name__, e.code, type(e.cause).__name__,
            "Custom: 11" in text, "in chain" in text, e.pid, text.count("(pid=%d)" % e.pid)]
"""
        )
        self.assertEqual(got[:5], ["RayTaskError(Custom)", 11, "Custom", True, True])
        pids = {p.pid: p.name for p in self.node.replicas.values()}
        self.assertEqual(pids[got[5]], "Back", "each hop tells the process that raised")
        self.assertGreaterEqual(got[6], 1)

    def test_unserializable_result(self) -> None:
        got = self.run_code(
            "try:\n    await self.back.not_serializable.remote()\n"
            "except TypeError as e:\n    return 'pickle' in str(e)"
        )
        self.assertTrue(got)

    def test_unserializable_argument(self) -> None:
        got = self.run_code(
            "try:\n    await self.back.value.remote(threading.Lock())\n"
            "except TypeError as e:\n    return 'pickle' in str(e)"
        )
        self.assertTrue(got)

    def test_streams(self) -> None:
        got = self.run_code(
            """
s = self.back.options(stream=True)
async def items(g): return [x async for x in g]
return [await items(s.count.remote(3)), await items(s.sync_count.remote(3)),
        await items(s.returns_generator.remote()),
        await items(s.returns_async_generator.remote()), await items(s.count.remote(0)),
        sum([len(x) async for x in s.big_items.remote(40, 100_000)])]
"""
        )
        self.assertEqual(got, [[0, 1, 2], [[0], [1], [2]], [0, 1, 2], [0, 1], [], 4_000_000])

    def test_stream_is_bounded_by_credit(self) -> None:
        got = self.run_code(
            """
gen = self.back.options(stream=True).big_items.remote(100, 100_000)
await gen.__anext__()
await asyncio.sleep(0.2)
made = len(await self.back.get_seen.remote())
rest = [len(x) async for x in gen]
return [made < 20, len(rest)]
"""
        )
        self.assertEqual(got, [True, 99])

    def test_cancel_a_stream(self) -> None:
        got = self.run_code(
            """
gen = self.back.options(stream=True).count.remote(1000, 0.01)
await gen.__anext__()
gen.cancel()
out = []
try:
    while True: await gen.__anext__()
except RequestCancelledError: out.append("cancelled")
return out + await self.back.until.remote("seen", 1)
"""
        )
        self.assertEqual(got, ["cancelled", "closed"])

    def test_cancel(self) -> None:
        got = self.run_code(
            """
r = self.back.slow.remote(30)
await self.back.until.remote("begun", 1)
r.cancel()
out = [r.cancelled()]
try:
    await r
except RequestCancelledError as e:
    out += [isinstance(e, TaskCancelledError), str(e)]
await self.back.until.remote("seen", 1)
done = self.back.value.remote(1)
await done
done.cancel()
return out + await self.back.get_seen.remote() + [await done, done.cancelled()]
"""
        )
        self.assertEqual(got, [True, True, "Request rid was cancelled.", "cancelled", 1, False])

    def test_cancelled_waiter(self) -> None:
        got = self.run_code(
            """
try:
    await asyncio.wait_for(self.back.slow.remote(30), 0.05)
except asyncio.TimeoutError:
    return ["timed out"]
"""
        )
        self.assertEqual(got, ["timed out"])

    def test_result_in_threads(self) -> None:
        got = self.run_code(
            """
out = [self.back.value.remote(5).result(), self.back.slow.remote(0.05, 6).result(timeout_s=25)]
try:
    self.back.slow.remote(30).result(timeout_s=0.05)
except TimeoutError:
    out.append("timeout")
out.append(list(self.back.options(stream=True).count.remote(3)))
try:
    self.back.fail.remote("there").result()
except ValueError as e:
    out.append(str(e).splitlines()[-1])
out.append(self.back.value.remote(self.back.value.remote(8)).result())
out.append(self.back.request_id.remote().result()[:2])
async def elsewhere():
    items = self.back.options(stream=True).count.remote(2, 0.01)
    return [await self.back.slow.remote(0.02, 7), [x async for x in items]]
out.append(asyncio.run(elsewhere()))
r = self.back.slow.remote(30)
r.cancel()
try: r.result()
except RequestCancelledError: out.append("cancelled")
return out
""",
            sync=True,
        )
        self.assertEqual(
            got,
            [
                5,
                6,
                "timeout",
                [0, 1, 2],
                "ValueError: bad there",
                8,
                ["rid", "/pre"],
                [7, [0, 1]],
                "cancelled",
            ],
        )

    def test_many_threads(self) -> None:
        got = self.run_code(
            """
out = []
def work(n):
    for i in range(50): out.append(self.back.value.remote(i).result())
threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
for t in threads: t.start()
for t in threads: t.join()
return [len(out), sum(out)]
""",
            sync=True,
        )
        self.assertEqual(got, [400, 8 * sum(range(50))])

    def test_errors_of_the_node(self) -> None:
        peer = self.front(
            """
try:
    await self.back.options(method_name=request.query_params["how"]).remote()
except BaseException as e:
    return [[c.__name__ for c in type(e).__mro__][:2], str(e)]
"""
        )
        codes = {
            "a": (
                w.E_BACKPRESSURE,
                "BackPressureError",
                "num_queued_requests=3, max_queued_requests=4",
            ),
            "b": (w.E_UNAVAILABLE, "DeploymentUnavailableError", "said the node"),
            "c": (w.E_CANCELLED, "RequestCancelledError", "was cancelled"),
            "d": (w.E_TIMEOUT, "GetTimeoutError", "said the node"),
            "e": (w.E_DIED, "ActorDiedError", "said the node"),
            "f": (w.E_NOT_FOUND, "DeploymentUnavailableError", "said the node"),
            "g": (w.E_INTERNAL, "RayServeException", "said the node"),
        }

        def refuse(name: str, fields: dict) -> bytes:
            code = codes[w.text(fields, w.T_METHOD)][0]
            return (
                w.field_u8(w.T_ERROR_CODE, code)
                + w.field_str(w.T_MESSAGE, "said the node")
                + w.field_u32(w.T_QUEUED, 3)
                + w.field_u32(w.T_MAX_QUEUED, 4)
            )

        self.node.refuse = refuse
        for how, (_, kind, text) in codes.items():
            with self.subTest(kind=kind):
                mro, message = json.loads(peer.http(query=f"how={how}").body)
                self.assertEqual(mro[0], kind)
                self.assertIn(text, message)

    def test_backpressure_inside_a_handler_becomes_its_answer(self) -> None:
        peer = self.front("return await self.back.value.remote(1)")
        for code in (w.E_BACKPRESSURE, w.E_UNAVAILABLE):
            self.node.refuse = lambda n, f: (
                w.field_u8(w.T_ERROR_CODE, code)
                + w.field_u32(w.T_QUEUED, 1)
                + w.field_u32(w.T_MAX_QUEUED, 1)
            )
            answer = peer.http()
            self.assertEqual(answer.code, code)
            self.assertRegex(
                answer.message, r"backpressure \(num_queued_requests=1, max|is unavailable because"
            )

    def test_errors_of_streams(self) -> None:
        got = self.run_code(
            """
out = []
s = self.back.options(stream=True)
for call in (s.value, self.back.count, self.back.returns_generator, s.missing):
    try:
        r = call.remote(1) if "generator" not in call._method else call.remote()
        if hasattr(r, "__anext__"): await r.__anext__()
        else: await r
    except Exception as e:
        out.append([type(e).__name__, str(e).splitlines()[-1]])
return out
"""
        )
        self.assertEqual(
            [g[0] for g in got],
            ["RayTaskError(TypeError)"] * 3 + ["RayTaskError(RayServeException)"],
        )
        self.assertIn("did not return a generator", got[0][1])
        self.assertIn("returned a generator", got[1][1])

    def test_look_ups(self) -> None:
        got = self.run_code(
            """
out = [await serve.get_deployment_handle("Back").value.remote(1)]
out.append(serve.get_app_handle("default").deployment_name)
for f in (lambda: serve.get_app_handle("none"), lambda: serve.get_deployment_handle("none"),
          lambda: serve.get_deployment_handle("Back", "none")):
    try: f()
    except Exception as e: out.append([type(e).__name__, str(e)])
out.append(await asyncio.to_thread(lambda: serve.get_app_handle("default").app_name))
# requests that come with the answer of a look-up are not lost
out.append(sum([serve.get_app_handle("default") is not None for _ in range(50)]))
return out
"""
        )
        self.assertEqual(
            got,
            [
                1,
                "Front",
                ["RayServeException", "Application 'none' does not exist."],
                ["KeyError", "\"Deployment(name='none', app='default') does not exist.\""],
                ["KeyError", "\"Deployment(name='Back', app='none') does not exist.\""],
                "default",
                50,
            ],
        )

    def test_look_ups_under_load(self) -> None:
        peer = self.front("serve.get_app_handle('default')\nreturn await self.back.value.remote(1)")
        streams = [peer.open_http() for _ in range(100)]
        self.assertEqual([peer.wait(s).body for s in streams], [b"1"] * 100)

    def test_look_up_in_the_constructor(self) -> None:
        source = (
            HEAD
            + """
@serve.deployment
class A:
    def __init__(self): self.h = serve.get_deployment_handle("B")
    async def __call__(self): return await self.h.remote()
@serve.deployment
class B:
    def __call__(self): return "from B"
@serve.deployment
class C:
    def __init__(self, *a): pass
app = C.bind(A.bind(), B.bind())
"""
        )
        with FakeNode(source) as node:
            node.build()
            a, _ = node.fork("A"), node.fork("B")
            self.assertEqual(a.call().value(), "from B")

    def test_calls_of_a_replica_that_answers(self) -> None:
        """Direct calls, as the node makes them."""
        with FakeNode(HEAD + CALLEE + "app = Back.bind()\n") as node:
            peer = node.serve()
            self.assertEqual(peer.call("value", {"a": (1, 2)}).value(), {"a": (1, 2)})
            answer = peer.call("count", 3, stream=True)
            self.assertEqual(w.number(answer.fields, w.T_ITEMS), 1)
            self.assertEqual(len(answer.parts), 3)
            answer = peer.call("missing")
            self.assertIn("Available methods: ['big_items', 'chain', 'count',", answer.message)
            self.assertEqual(answer.code, w.E_USER)

    def test_call_in_several_frames(self) -> None:
        with FakeNode(HEAD + CALLEE + "app = Back.bind()\n") as node:
            peer = node.serve()
            meta = w.field_u8(w.T_KIND, 2) + w.field_str(w.T_METHOD, "value")
            meta += w.field_str(w.T_CONTENT_TYPE, "application/octet-stream")
            stream = peer.stream()
            from fakenode import Answer

            peer.answers[stream] = Answer()
            peer.send(w.REQUEST, 0, stream, meta, b"one ")
            peer.send(w.BODY, 0, stream, b"", b"two ")
            peer.send(w.BODY, w.END, stream, b"", b"three")
            self.assertEqual(peer.wait(stream).value(), b"one two three")
            peer.stop()
            self.assertEqual(peer.exit_status(), 0)

    def test_other_content_types(self) -> None:
        with FakeNode(HEAD + CALLEE + "app = Back.bind()\n") as node:
            peer = node.serve()
            from fakenode import Answer

            for kind, body, value in (
                ("application/json", b'{"a": [1]}', {"a": [1]}),
                ("text/plain; charset=utf-8", "é".encode(), "é"),
                ("application/octet-stream", b"\x00", b"\x00"),
                ("image/png", b"png", b"png"),
            ):
                meta = w.field_u8(w.T_KIND, 2) + w.field_str(w.T_METHOD, "value")
                stream = peer.stream()
                peer.answers[stream] = Answer()
                peer.send(
                    w.REQUEST, w.END, stream, meta + w.field_str(w.T_CONTENT_TYPE, kind), body
                )
                self.assertEqual(peer.wait(stream).value(), value)


class OutsideOfAReplica(unittest.TestCase):
    def test_handle_needs_a_node(self) -> None:
        from ray.serve.exceptions import RayServeException
        from ray.serve.handle import DeploymentHandle

        handle: "DeploymentHandle[Any]" = DeploymentHandle("A", "app")
        with tempfile.TemporaryDirectory() as nowhere:  # no node of this user is found or started
            place = {"XDG_STATE_HOME": nowhere, "RSERVE_BIN": f"{nowhere}/rserve", "PATH": nowhere}
            with mock.patch.dict(os.environ, place), self.assertRaises(RayServeException):
                handle.remote()
        with self.assertRaises(ValueError):
            handle.options(request_serialization="xml")
        import copy
        import pickle

        for other in (pickle.loads(pickle.dumps(handle.m)), copy.deepcopy(handle.m)):
            self.assertEqual(
                (other.deployment_name, other.app_name, other._method), ("A", "app", "m")
            )

    def test_exception_that_cannot_be_pickled(self) -> None:
        import threading

        from ray.exceptions import RayError, RayTaskError
        from rserve._errors import _pickle_error, task_error

        broken = ValueError("v")
        broken.lock = threading.Lock()  # type: ignore[attr-defined]
        error = task_error("f", "trace", _pickle_error(broken))
        self.assertIs(type(error), RayTaskError)
        self.assertIs(type(getattr(error, "cause")), RayError)
        self.assertIn("ValueError", str(getattr(error, "cause")))

    @unittest.skipUnless(sys.version_info >= (3, 11), "ExceptionGroup is there from Python 3.11 on")
    def test_dual_exception_group(self) -> None:
        import builtins

        from ray.exceptions import RayTaskError

        group: Any = getattr(builtins, "ExceptionGroup")("several", [ValueError("a")])
        error: Any = RayTaskError("f", "trace", group).as_instanceof_cause()
        self.assertIsInstance(error, type(group))
        self.assertEqual([str(e) for e in error.exceptions], ["a"])

    def test_dual_exceptions_pickle(self) -> None:
        import pickle

        from ray.exceptions import RayTaskError

        names: List[BaseException] = [
            ValueError("v"),
            OSError(2, "x"),
            KeyError("k"),
            UnicodeDecodeError("utf-8", b"x", 0, 1, "r"),
        ]
        for cause in names:
            error = RayTaskError("f", "trace", cause).as_instanceof_cause()
            self.assertIsInstance(error, type(cause))
            again = pickle.loads(pickle.dumps(error))
            self.assertIsInstance(again, type(cause))
            self.assertIsInstance(again, RayTaskError)
            self.assertEqual(str(again), str(error))


def _has_cloudpickle() -> bool:
    import subprocess

    from fakenode import PYTHON, ROOT

    code = "import rserve, cloudpickle"
    return (
        subprocess.run(
            [PYTHON, "-c", code], env={"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL
        ).returncode
        == 0
    )


if __name__ == "__main__":
    unittest.main()
