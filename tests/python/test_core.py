"""Tasks and actors as far as they need no node: options, arguments, waiting, lists."""

import pickle
import threading
import time
import unittest
from unittest import mock

import ray
from ray import _options, actor, exceptions
from ray.remote_function import RemoteFunction
from ray.util import placement_group as groups
from ray.util import scheduling_strategies as strategies
from ray.util.actor_pool import ActorPool
from ray.util.state import _select
from rserve import _arguments, _core, _items, _node, _objects, _refs, _remote, _values
from rserve import _wire as w


class FakeLink:
    """Takes what is sent; answers when told to."""

    def __init__(self):
        self.sent = []
        self.asked = []
        self.calls = []
        self.cancelled = []
        self.thread_id = 0
        self.app = "x"
        self._streams = iter(range(1, 1 << 30, 2))
        self.loop = mock.Mock()

    def send(self, data):
        self.sent.append(data)

    def send_json(self, kind, message, stream=0):
        self.sent.append(message)

    def inquire(self, kind, message, told):
        self.asked.append((message, told))

    def open_call(self, pending, meta, body):
        self.calls.append((pending, w.parse_fields(meta), body))
        return next(self._streams)

    def cancel_call(self, stream):
        self.cancelled.append(stream)

    def flush(self):
        pass


def answer(call, value):
    body = pickle.dumps(value)
    call.on_answer(w.Frame(w.RESPONSE, w.END, call.stream, _values.F_PICKLE, body, ()))


def fail(call, code, kind="", body=b""):
    meta = w.field_u8(w.T_ERROR_CODE, code) + w.field_str(w.T_ERROR_TYPE, kind)
    call.on_answer(w.Frame(w.ERROR, w.END, call.stream, meta, body, ()))


class WithLink(unittest.TestCase):
    def setUp(self):
        self.link = FakeLink()
        before = _node.current()
        _node.set_current(self.link)
        self.addCleanup(_node.set_current, before)

    def opened_pool(self):
        pool = _remote.pool_for(self.link, {"options": {}, "env": {"app": "x"}, "t": self.id()})
        pool.app, pool.deployment = "ray:x@1", "task:1"
        return pool

    def task(self, pool, args=(), retries=0, retry_exceptions=None, num_returns=1):
        call = _remote.TaskCall(pool, "f", (num_returns, b"hash", b"code"), args, {}, num_returns,
                                retries, retry_exceptions)
        refs = call.take_refs()
        call.start()
        return call, refs


class Tasks(WithLink):
    def test_value_and_error(self):
        pool = self.opened_pool()
        call, (ref,) = self.task(pool, (1, 2))
        answer(call, {"a": 1})
        self.assertEqual(ray.get(ref), {"a": 1})
        self.assertIsNot(ray.get(ref), ray.get(ref))
        call, (ref,) = self.task(pool)
        error = exceptions.RayTaskError("ray::f", "trace\nValueError: no", ValueError("no"), pid=7)
        fail(call, w.E_USER, "ValueError", pickle.dumps(error))
        for _ in range(2):
            with self.assertRaises(ValueError) as caught:
                ray.get(ref)
        self.assertIsInstance(caught.exception, exceptions.RayTaskError)
        self.assertEqual(caught.exception.pid, 7)

    def test_dependencies_go_along_by_value_when_they_are_there(self):
        pool = self.opened_pool()
        first, (a,) = self.task(pool)
        second, (b,) = self.task(pool, (a, [1]))
        self.assertEqual(len(self.link.calls), 1, "the second waits")
        self.assertEqual(pool.outstanding, 1, "and asks for no worker")
        answer(first, "value")
        self.assertEqual(len(self.link.calls), 2)
        _, name, _, _, _, data, values = pickle.loads(self.link.calls[1][2])
        self.assertEqual(name, "f")
        self.assertEqual(_arguments.unpack_arguments(data, values), (("value", [1]), {}))
        third, (c,) = self.task(pool, (b,))
        fail(second, w.E_CANCELLED)
        with self.assertRaises(exceptions.TaskCancelledError):
            ray.get(c)
        self.assertEqual(len(self.link.calls), 2, "what depends on a failure does not run")
        self.assertEqual(third.state, "done")

    def test_retries(self):
        pool = self.opened_pool()
        call, (ref,) = self.task(pool, retries=2)
        fail(call, w.E_DIED)
        fail(call, w.E_DIED)
        self.assertEqual(len(self.link.calls), 3)
        fail(call, w.E_DIED)
        with self.assertRaises(exceptions.WorkerCrashedError):
            ray.get(ref)
        call, (ref,) = self.task(pool, retries=1, retry_exceptions=[KeyError])
        body = pickle.dumps(exceptions.RayTaskError("f", "t", KeyError("k")))
        fail(call, w.E_USER, "KeyError", body)
        self.assertEqual(call.state, "sent")
        fail(call, w.E_USER, "KeyError", body)
        with self.assertRaises(KeyError):
            ray.get(ref)
        self.assertEqual(pool.outstanding, 0)

    def test_cancel(self):
        pool = self.opened_pool()
        call, (ref,) = self.task(pool)
        ray.cancel(ref)
        self.assertEqual(self.link.cancelled, [call.stream])
        with self.assertRaises(exceptions.TaskCancelledError):
            ray.get(ref)
        answer(call, 1)  # too late
        with self.assertRaises(exceptions.TaskCancelledError):
            ray.get(ref)
        ray.cancel(ref)
        with self.assertRaises(TypeError):
            ray.cancel("no reference")

    def test_several_results(self):
        pool = self.opened_pool()
        call, refs = self.task(pool, num_returns=2)
        answer(call, [pickle.dumps(1), pickle.dumps(2)])
        self.assertEqual(ray.get(refs), [1, 2])

    def test_generator(self):
        pool = self.opened_pool()
        call = _remote.TaskCall(pool, "g", (1, b"", b""), (), {}, -1, 0, None)
        items = _items.ObjectRefGenerator(call)
        call.start()
        self.assertEqual(w.number(self.link.calls[0][1], w.T_STREAM), 1)
        meta = w.field_u8(w.T_ITEMS, 1) + w.field(w.T_CONTENT_TYPE, w.PICKLE)
        call.link.give_credit = lambda stream, size: None
        call.on_answer(w.Frame(w.RESPONSE, 0, call.stream, meta, b"", ()))
        call.on_answer(w.Frame(w.BODY, 0, call.stream, b"", pickle.dumps("a"), ()))
        self.assertEqual(ray.get(next(items)), "a")
        self.assertFalse(items.next_ready())
        call.on_answer(w.Frame(w.BODY, 0, call.stream, b"", pickle.dumps("b"), ()))
        call.on_answer(w.Frame(w.BODY, w.END, call.stream, b"", b"", ()))
        self.assertEqual([ray.get(ref) for ref in items], ["b"])
        self.assertTrue(items.is_finished())

    def test_demand_is_told(self):
        pool = self.opened_pool()
        calls = [self.task(pool)[0] for _ in range(3)]
        told = [m["n"] for m in self.link.sent if isinstance(m, dict) and m["op"] == "demand"]
        self.assertEqual(told[-1], 3)
        for call in calls:
            answer(call, 0)
        deadline = time.monotonic() + 30
        while pool.app is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        told = [m["n"] for m in self.link.sent if isinstance(m, dict) and m["op"] == "demand"]
        self.assertEqual(told[-1], 0)


class Waiting(WithLink):
    def test_wait(self):
        made = [_refs.new_result() for _ in range(3)]
        refs = [ref for ref, _ in made]
        made[1][1].complete(w.PICKLE, pickle.dumps(1), None)
        self.assertEqual(ray.wait(refs), ([refs[1]], [refs[0], refs[2]]))
        self.assertEqual(ray.wait(refs, num_returns=2, timeout=0.01),
                         ([refs[1]], [refs[0], refs[2]]))
        threading.Timer(0.05, made[2][1].complete, (w.PICKLE, pickle.dumps(2), None)).start()
        ready, pending = ray.wait(refs, num_returns=2, timeout=30)
        self.assertEqual((ready, pending), ([refs[1], refs[2]], [refs[0]]))
        for wrong in (refs[0], [1], [refs[0], refs[0]]):
            with self.assertRaises((TypeError, ValueError)):
                ray.wait(wrong)

    def test_get(self):
        ref, result = _refs.new_result()
        with self.assertRaises(exceptions.GetTimeoutError):
            ray.get(ref, timeout=0.01)
        threading.Timer(0.05, result.complete, (w.PICKLE, pickle.dumps("v"), None)).start()
        self.assertEqual(ray.get([ref, ref], timeout=30), ["v", "v"])
        self.assertEqual(ref.future().result(timeout=30), "v")
        with self.assertRaises(ValueError):
            ray.get("no reference")

    def test_results_go_with_their_last_reference(self):
        ref, _ = _refs.new_result()
        key = ref.binary()
        self.assertIn(key, _refs._results)
        del ref
        _objects._drain(None)
        self.assertNotIn(key, _refs._results)


class Actors(WithLink):
    def call(self, known, args=(), retries=0):
        call = _remote.ActorCall(known, "m", "A.m", (1,), args, {}, 1, retries, None)
        refs = call.take_refs()
        call.start()
        return call, refs[0]

    def test_calls_wait_for_creation_and_keep_their_order(self):
        known = _remote.actor_for(self.link, "a" * 32)
        known.owned = True
        gate, result = _refs.new_result()
        calls = [self.call(known)[0], self.call(known, (gate,))[0], self.call(known)[0]]
        self.assertEqual(self.link.calls, [])
        known.created({"app": "ray:x", "state": "PENDING_CREATION"})
        self.assertEqual([c[0] for c in self.link.calls], calls[:1])
        result.complete(w.PICKLE, pickle.dumps(1), None)
        self.assertEqual([c[0] for c in self.link.calls], calls)

    def test_death_is_explained_by_the_head(self):
        known = _remote.actor_for(self.link, "b" * 32)
        known.app = "ray:x"
        call, ref = self.call(known)
        fail(call, w.E_DIED)
        message, told = self.link.asked[-1]
        self.assertEqual(message["op"], "actor_info")
        told({"state": "DEAD", "class_name": "A", "cause": "it was killed", "actor_id": "b" * 32})
        with self.assertRaises(exceptions.ActorDiedError) as caught:
            ray.get(ref)
        self.assertIn("it was killed", str(caught.exception))
        _, later = self.call(known)
        with self.assertRaises(exceptions.ActorDiedError):
            ray.get(later)

    def test_one_that_starts_again(self):
        known = _remote.actor_for(self.link, "c" * 32)
        known.app, known.max_restarts = "ray:x", 3
        call, ref = self.call(known)
        fail(call, w.E_DIED)
        self.link.asked[-1][1]({"state": "RESTARTING", "app": "ray:x"})
        with self.assertRaises(exceptions.ActorUnavailableError):
            ray.get(ref)
        call, ref = self.call(known, retries=1)
        fail(call, w.E_DIED)
        self.link.asked[-1][1]({"state": "RESTARTING", "app": "ray:x"})
        self.assertEqual(len(self.link.calls), 3)
        answer(call, 5)
        self.assertEqual(ray.get(ref), 5)

    def test_handles_are_counted(self):
        facts = {"class_name": "A", "methods": {"m": {}}}
        handle = actor.ActorHandle(self.link, "d" * 32, facts)
        self.assertEqual([m["op"] for m in self.link.sent], ["hold"])
        known = handle._actor
        del handle
        self.link.loop.call_soon_threadsafe.assert_called_with(known._dropped)
        known._dropped()
        self.assertEqual([m["op"] for m in self.link.sent], ["hold", "release"])
        handle = actor.ActorHandle(self.link, "e" * 32, facts)
        copy = pickle.loads(pickle.dumps(handle))
        self.assertEqual(copy, handle)
        with self.assertRaises(AttributeError):
            handle.nothing
        with self.assertRaises(TypeError):
            handle.m()


class Declarations(unittest.TestCase):
    def test_remote(self):
        @ray.remote
        def f(x):
            return x

        @ray.remote(num_cpus=2)
        class A:
            async def m(self):
                pass

            @ray.method(num_returns=2)
            def two(self):
                pass

        self.assertIsInstance(f, RemoteFunction)
        self.assertIsInstance(A, actor.ActorClass)
        self.assertTrue(A.__ray_metadata__.is_async)
        self.assertEqual(A.__ray_metadata__.methods["two"], {"num_returns": 2})
        for wrong in (f, A):
            with self.assertRaises(TypeError):
                wrong()
        with self.assertRaises(TypeError):
            ray.remote(5)
        with self.assertRaises(TypeError):
            ray.remote()
        with self.assertRaises(ValueError):
            f.options(no_such=1)
        with self.assertRaises(ValueError):
            A.options(lifetime="forever")

        async def coroutine():
            pass

        with self.assertRaises(ValueError):
            ray.remote(coroutine)

    def test_resources(self):
        self.assertEqual(_options.resources_of({}, 1), {"num_cpus": 1.0})
        self.assertEqual(
            _options.resources_of({"num_cpus": 0, "num_gpus": 1, "resources": {"a": 2, "b": 0}}, 1),
            {"num_cpus": 0.0, "num_gpus": 1, "resources": {"a": 2}})
        with self.assertRaises(ValueError):
            _options.check({"resources": {"CPU": 1}}, _options.TASK)
        with self.assertRaises(ValueError):
            _options.check({"num_cpus": -1}, _options.TASK)

    def test_placement_groups(self):
        for bundles in ([], [{}], [{"CPU": 0}], {"CPU": 1}, [{"CPU": -1}]):
            with self.assertRaises(ValueError):
                groups.validate_placement_group(bundles)
        with self.assertRaises(ValueError):
            groups.validate_placement_group([{"CPU": 1}], "ODD")
        pg = groups.PlacementGroup("f" * 32, [{"CPU": 1}])
        self.assertEqual(pickle.loads(pickle.dumps(pg)), pg)
        with self.assertRaises(ValueError):
            strategies.PlacementGroupSchedulingStrategy(pg, 1)
        self.assertTrue(callable(ray.util.placement_group))
        self.assertIs(ray.util.placement_group.placement_group, groups.placement_group)

    def test_filters_of_lists(self):
        rows = [{"a": 1, "b": True}, {"a": 2, "b": False}]
        self.assertEqual(_select(rows, [("a", "=", "2")], 10), rows[1:])
        self.assertEqual(_select(rows, [("b", "!=", False)], 10), rows[:1])
        self.assertEqual(_select(rows, None, 1), rows[:1])
        with self.assertRaises(ValueError):
            _select(rows, [("a", "~", 1)], 10)

    def test_pool_of_actors_refuses_one_twice(self):
        pool = ActorPool(["a", "b"])
        self.assertTrue(pool.has_free())
        with self.assertRaises(ValueError):
            pool.push("a")
        self.assertEqual(pool.pop_idle(), "b")
        with self.assertRaises(StopIteration):
            pool.get_next()

    def test_outside_of_a_worker(self):
        self.assertEqual(_core.identity, {})
        self.assertIsNone(ray.get_runtime_context().get_task_id())
        self.assertIsNone(groups.get_current_placement_group())
        with self.assertRaises(TypeError):
            actor.exit_actor()
        self.assertEqual(ray.get_gpu_ids(), [])


if __name__ == "__main__":
    unittest.main()
