"""Objects and values: formats, references, calls that wait for calls, what the node hears of it."""

from __future__ import annotations

import gc
import json
import os
import pickle
import threading
import unittest
from typing import Any, Dict, List, Tuple

from fakenode import FakeNode, Peer, w
from rserve import _json, _objects, _values
from test_handles import _has_cloudpickle


class Array:
    """As an array of numpy's: its memory stays out of the pickle."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Array, (pickle.PickleBuffer(self.data),)


def encode(value: Any) -> Tuple[Dict[int, bytes], Any]:
    meta, body = _values.encode(value)
    return w.parse_fields(meta), body


class Values(unittest.TestCase):
    def travel(self, value: Any) -> Tuple[bytes, Any]:
        """Content type, and the value as another process would get it."""
        fields, body = encode(value)
        if len(body) > w.MEMFD_FROM:
            body = w.map_memfd(w.make_memfd(body), len(body))
        kind = fields[w.T_CONTENT_TYPE]
        return kind, _values.decode_value(kind, body)

    def test_small_ones_are_plain_pickles(self) -> None:
        for value in (None, 1, "text", [1, {"a": (2,)}], b"x" * 1000, Array(bytearray(b"abc"))):
            fields, body = encode(value)
            self.assertEqual(fields, {w.T_CONTENT_TYPE: w.PICKLE})
            self.assertIsInstance(body, bytes)
            pickle.loads(body)

    def test_large_buffers_stay_out_of_the_pickle(self) -> None:
        for size in (20_000, 100_000, 3_000_001):
            data = bytearray(os.urandom(size))
            kind, (first, rest) = self.travel([Array(data), {"x": Array(memoryview(data)[5:])}])
            self.assertEqual(kind, w.PICKLE5)
            self.assertEqual(bytes(first.data), data)
            self.assertEqual(bytes(rest["x"].data), data[5:])
            view = memoryview(first.data)
            view[0] ^= 1  # a copy on write: nobody else sees it
            self.assertNotEqual(view[0], data[0])

    def test_a_long_body_is_a_map(self) -> None:
        before = len(os.listdir("/proc/self/fd"))
        _, array = self.travel(Array(bytearray(b"x") * 1_000_000))
        view = memoryview(array.data)
        self.assertEqual(type(view.obj).__name__, "mmap")
        del view, array
        gc.collect()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_long_bytes_are_not_copied_to_be_sent(self) -> None:
        data = os.urandom(1_000_000)
        for value in (data, (data,), ((1, data), {}), ((), {"x": data}), {"x": data}):
            _, body = encode(value)
            self.assertIsInstance(body, w.Parts)
            self.assertTrue(any(part is data for part in body.parts))
            self.assertEqual(self.travel(value), (w.PICKLE, value))
        value = ([data, Array(bytearray(b"y") * 100_000)],)
        kind, ((got, array),) = self.travel(value)
        self.assertEqual((kind, got, bytes(array.data)), (w.PICKLE5, data, b"y" * 100_000))

    def test_buffers_that_are_no_single_run(self) -> None:
        for size in (50_000, 200_000):
            view = memoryview(bytearray(size))[::2]
            with self.assertRaises(Exception):
                _values.encode(Array(view))  # pickle's own refusal, and no crash

    def test_broken_bodies(self) -> None:
        _, body = encode(Array(bytearray(100_000)))
        whole = b"".join(bytes(p) for p in body.parts)
        for cut in (b"", whole[:10], whole[:30], whole[:200], whole[:-1]):
            with self.assertRaises(Exception) as caught:
                _values.decode_value(w.PICKLE5, cut)
            self.assertIsInstance(caught.exception, (pickle.UnpicklingError, EOFError))

    def test_a_memfd_that_may_shrink_is_read(self) -> None:
        fd = os.memfd_create("test")
        os.write(fd, b"x" * 100_000)
        self.assertIsInstance(w.map_memfd(fd, 100_000), bytes)
        with self.assertRaises(w.ProtocolError):
            w.map_memfd(w.make_memfd(b"short"), 100)

    def test_maps_leave_descriptors_for_others(self) -> None:
        before, w._most_mapped = w._most_mapped, 1
        try:
            fds = len(os.listdir("/proc/self/fd"))
            kind, array = self.travel(Array(bytearray(b"x") * 100_000))
            self.assertEqual((kind, bytes(array.data)), (w.PICKLE5, b"x" * 100_000))
            memoryview(array.data)[0] = 1
            self.assertEqual(len(os.listdir("/proc/self/fd")), fds)
        finally:
            w._most_mapped = before

    @unittest.skipUnless(_has_cloudpickle(), "cloudpickle is in the zip only")
    def test_main_goes_by_value(self) -> None:
        import __main__

        exec("class InMain:\n    x = 5\n", vars(__main__))
        try:
            cls = getattr(__main__, "InMain")
            cls.__module__ = "__main__"
            for value in (cls, cls()):
                data = encode(value)[1]
                self.assertIn(b"cloudpickle", data)
                self.assertEqual(pickle.loads(data).x, 5)
        finally:
            del __main__.InMain  # type: ignore[attr-defined]

    def test_keys_of_sqlalchemy_are_left_out(self) -> None:
        self.assertEqual(_json.to_json({"_sa_x": 1, "a": ["_sa"]}), b'{"a":["_sa"]}')


HEAD = """
import asyncio, os, threading, pickle, gc
from ray import serve
from ray.exceptions import *
from ray.serve.exceptions import *
from rserve import _objects as objects

@serve.deployment(max_ongoing_requests=100)
class Back:
    async def value(self, x): return x
    async def slow(self, s, x=None):
        await asyncio.sleep(s)
        return x
    def add(self, a, b=0): return a + b
    def fail(self): raise ValueError("bad")
    def inside(self, box): return objects.get(box[0])
    def give(self, x): return [objects.put(x)]
    def items(self, n):
        for i in range(n): yield i

@serve.deployment(max_ongoing_requests=100)
class Front:
    def __init__(self, back): self.back = back
    async def __call__(self, request):
        b = self.back
        return await self.run(b)
    async def run(self, b):
{body}

app = Front.bind(Back.bind())
"""


class Objects(unittest.TestCase):
    def run_code(self, body: str, by_value: bool = False, capacity: int = 1 << 40) -> Any:
        text = "\n".join("        " + line for line in body.strip().splitlines())
        self.node = FakeNode(HEAD.replace("{body}", text))
        self.addCleanup(self.node.close)
        front: Peer = self.node.serve()
        if by_value:
            self.node.objects.by_value.add("Back")
        self.node.objects.capacity = capacity
        answer = front.http()
        self.assertIsNone(answer.error, (answer.message, w.text(answer.error or {}, w.T_TRACEBACK)))
        return json.loads(answer.body)

    def log(self) -> List[str]:
        return self.node.objects.log

    def assertNothingLeft(self) -> None:
        objects = self.node.objects
        self.node.eventually(objects.live, lambda live: not live)
        self.assertEqual(objects.live(), {})

    def test_a_chain_is_the_nodes(self) -> None:
        got = self.run_code("return await b.add.remote(b.slow.remote(0.05, x=1), b=2)")
        self.assertEqual(got, 3)
        self.assertEqual(self.log(), ["hold", "await", "get"])  # the get is the callee's
        self.assertNothingLeft()

    def test_results_are_there_for_the_caller_too(self) -> None:
        got = self.run_code("""
first = b.slow.remote(0.05, x=1)
second = b.add.remote(first, first)
loop = asyncio.get_running_loop()
third = b.add.remote(1, b=second)
return [await second, await first, await first, await third,
        await loop.run_in_executor(None, b.add.remote(first, third).result)]
""")
        self.assertEqual(got, [2, 1, 1, 3, 4])
        self.assertNothingLeft()

    def test_what_is_there_goes_along(self) -> None:
        got = self.run_code("""
first = b.value.remote(1)
await first
return await b.add.remote(first, 1)
""")
        self.assertEqual((got, self.log()), (2, []))

    def test_those_that_take_values(self) -> None:
        got = self.run_code(
            """
first = b.slow.remote(0.05, x=1)
second = b.add.remote(first, objects.put(5))
third = b.add.remote(1, b=second)
return [await third, await second, await first]
""",
            by_value=True,
        )
        self.assertEqual(got, [7, 6, 1])
        self.assertIn("bounce", self.log())
        self.assertNothingLeft()

    def test_errors_of_the_first(self) -> None:
        for by_value in (False, True):
            got = self.run_code(
                """
second = b.add.remote(b.fail.remote(), 1)
third = b.add.remote(second)
out = []
for response in (second, third):
    try:
        await response
    except ValueError as e:
        out.append([isinstance(e, RayTaskError), "Back.fail" in str(e), str(e.cause)])
    del response
del second, third
gc.collect()
return out
""",
                by_value,
            )
            self.assertEqual(got, [[True, True, "bad"]] * 2)
            self.assertNothingLeft()

    def test_references_travel(self) -> None:
        got = self.run_code("""
ref = objects.put([1, 2])
outer = objects.put({"ref": ref})
same = pickle.loads(pickle.dumps(ref))
out = [await b.inside.remote([ref]), await b.value.remote(ref)]
out += [same == ref, hash(same) == hash(ref)]
(back,) = await b.give.remote("x")
out.append(await back)
del ref, same
out.append(await (await outer)["ref"])
out.append(objects.get([back, back]))
return out
""")
        self.assertEqual(got, [[1, 2], [1, 2], True, True, "x", [1, 2], ["x", "x"]])
        self.assertNothingLeft()

    def test_from_threads_and_on_the_loop(self) -> None:
        got = self.run_code("""
def in_thread():
    refs = [objects.put(i) for i in range(50)]
    slow = b.slow.remote(0.1, x=7)._to_object_ref_sync()
    ready, rest = objects.wait([*refs, slow], num_returns=51)
    late = [slow.future().result(), objects.get(slow)]
    return [sum(objects.get(refs)), len(ready), len(rest), *late]
threads = [asyncio.get_running_loop().run_in_executor(None, in_thread) for _ in range(4)]
late = b.slow.remote(0.1, x=3)._to_object_ref_sync(_allow_running_in_asyncio_loop=True)
blocking = objects.get(late)
return [blocking, *[await t for t in threads]]
""")
        self.assertEqual(got, [3, *[[1225, 51, 0, 7, 7]] * 4])
        self.assertNothingLeft()

    def test_waits(self) -> None:
        got = self.run_code("""
slow = await b.slow.remote(60)._to_object_ref()
quick = objects.put(1)
out = [[r is quick for r in objects.wait([slow, quick])[0]]]
out.append([len(x) for x in await objects.wait_async([slow, quick], num_returns=1)])
try:
    objects.get([quick, slow], timeout=0.05)
except GetTimeoutError as e:
    out.append([isinstance(e, TimeoutError), str(e)])
twice = [quick, quick]
for bad in (lambda: objects.get(5), lambda: objects.wait(twice), lambda: objects.put(quick)):
    try:
        bad()
    except (ValueError, TypeError) as e:
        out.append(type(e).__name__)
return out
""")
        self.assertEqual(got[:2], [[True], [1, 1]])
        self.assertEqual(got[2], [True, "Get timed out: some object(s) not ready."])
        self.assertEqual(got[3:], ["ValueError", "ValueError", "TypeError"])

    def test_errors_of_the_store(self) -> None:
        got = self.run_code(
            """
out = []
unknown = objects.ObjectRef(bytes(16))
for bad in (lambda: objects.put(bytes(200_000)), lambda: objects.get(unknown)):
    try:
        bad()
    except RayError as e:
        out.append([type(e).__name__, str(e)])
return out
""",
            capacity=100_000,
        )
        self.assertEqual(got[0], ["ObjectStoreFullError", "no room"])
        self.assertEqual(got[1][0], "ObjectLostError")
        self.assertIn("00" * 16, got[1][1])
        self.assertIn("not known", got[1][1])

    def test_what_may_not_be_passed(self) -> None:
        got = self.run_code("""
out = []
for call in (
    lambda: b.value.remote([b.value.remote(1)]),
    lambda: b.value.remote(b.items.options(stream=True).remote(3)),
):
    try:
        await call()
    except Exception as e:
        out.append([type(e).__name__, str(e)[:50]])
by_value = b.options(_by_reference=False).value.remote(1)
try:
    await by_value._to_object_ref()
except RuntimeError as e:
    out.append(str(e)[:20])
out.append(await b.add.remote(b.options(_by_reference=False).slow.remote(0.05, x=1), 1))
return out
""")
        self.assertEqual(
            got[0], ["RayServeException", "`DeploymentResponse` is not serializable. If you a"]
        )
        self.assertEqual(
            got[1], ["RuntimeError", "Streaming deployment handle results cannot be pass"]
        )
        self.assertEqual(got[2:], ["Converting by-value ", 2])

    def test_cancel(self) -> None:
        got = self.run_code("""
first = b.slow.remote(60)
second = b.add.remote(first)
await asyncio.sleep(0.05)
second.cancel()
out = []
try:
    await second
except RequestCancelledError:
    out.append("second")
first.cancel()
try:
    await b.add.remote(first)
except Exception as e:
    out.append(type(e).__name__)
return out
""")
        self.assertEqual(got, ["second", "RequestCancelledError"])


class References(unittest.TestCase):
    """Counting without a node."""

    def test_ids(self) -> None:
        ref = _objects.new_ref()
        self.assertEqual(len(ref.binary()), 16)
        self.assertEqual(bytes.fromhex(ref.hex()), ref.binary())
        self.assertEqual(repr(ref), f"ObjectRef({ref.hex()})")
        self.assertNotEqual(ref, _objects.new_ref())
        with self.assertRaises(ValueError):
            _objects.ObjectRef(b"short")

    def test_pickling_is_recorded(self) -> None:
        first, second = _objects.new_ref(), _objects.new_ref()
        fields, body = encode([first, {"x": second}, first])
        self.assertEqual(fields[w.T_OBJECTS], first.binary() + second.binary())
        got = pickle.loads(body)
        self.assertEqual((got[0], got[1]["x"]), (first, second))
        self.assertNotIn(w.T_OBJECTS, encode([1])[0])

    def test_short_values_come_along(self) -> None:
        first, second, other = (_objects.new_ref() for _ in range(3))
        block = b""
        for value in ({"a": 1}, "text"):
            data = pickle.dumps(value)
            block += len(w.PICKLE).to_bytes(2, "little") + len(data).to_bytes(4, "little")
            block += w.PICKLE + data
        fields = {w.T_AWAIT_OBJECTS: first.binary() + second.binary(), w.T_READY: block}
        args, kwargs = (1, first, [second]), {"x": second, "y": first}
        self.assertEqual(
            _objects.sent_along(fields, args, kwargs),
            ((1, {"a": 1}, [second]), {"x": "text", "y": {"a": 1}}),
        )
        self.assertIsNone(_objects.sent_along(fields, (other,), {}))
        self.assertIsNone(_objects.sent_along({w.T_AWAIT_OBJECTS: b""}, (first,), {}))
        with self.assertRaises(w.ProtocolError):
            _objects.sent_along({**fields, w.T_READY: block[:3]}, args, kwargs)

    def test_threads(self) -> None:
        refs = [_objects.new_ref() for _ in range(20)]

        def work() -> None:
            for _ in range(200):
                pickle.loads(pickle.dumps(refs))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        _objects._drain(None)
        self.assertEqual([_objects._local[r.binary()] for r in refs], [1] * 20)
        ids = [r.binary() for r in refs]
        del refs
        _objects._drain(None)
        self.assertFalse(any(id in _objects._local or id in _objects._granted for id in ids))


if __name__ == "__main__":
    unittest.main()
