"""Local testing mode: applications inside the test's own process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import unittest
from typing import Any, AsyncIterator, Dict, Iterator, List
from unittest import mock

import fakenode  # noqa: F401  (puts the library on sys.path)
from ray import serve
from ray.serve.exceptions import RayServeException, RequestCancelledError
from ray.serve.handle import (
    DeploymentHandle,
    DeploymentResponse,
    DeploymentResponseGenerator,
)


@serve.deployment
class Doubler:
    def __init__(self, by: int = 2) -> None:
        self.by = by

    def double(self, x: int) -> int:
        return x * self.by

    async def adouble(self, x: int) -> int:
        await asyncio.sleep(0)
        return x * self.by

    def fail(self) -> None:
        raise KeyError("no such thing")

    def count(self, n: int) -> Iterator[int]:
        yield from range(n)

    async def count_slowly(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    def append(self, to: List[int]) -> List[int]:
        to.append(1)
        return to

    def threads(self) -> List[str]:
        return [threading.current_thread().name]

    async def context(self) -> Dict[str, Any]:
        c = serve.context._get_serve_request_context()
        return {
            "model": serve.get_multiplexed_model_id(),
            "session": c.session_id,
            "app": c.app_name,
            "id": c.request_id,
        }

    @serve.batch(max_batch_size=3, batch_wait_timeout_s=30)
    async def batched(self, items: List[int]) -> List[List[int]]:
        return [items for _ in items]


@serve.deployment
class Front:
    def __init__(self, inner: DeploymentHandle[Any], more: Any = None) -> None:
        self.inner = inner
        self.more = more
        self.config: Any = None

    def reconfigure(self, config: Any) -> None:
        self.config = config

    async def __call__(self, x: int) -> int:
        value: int = await self.inner.double.remote(x) + 1
        return value

    def sync(self, x: int) -> int:
        value: int = self.inner.double.remote(x).result() + 1
        return value

    async def chain(self, x: int) -> int:
        first = self.inner.double.remote(x)
        value: int = await self.inner.adouble.remote(first)
        return value

    async def stream(self, n: int) -> AsyncIterator[int]:
        async for i in self.inner.options(stream=True, method_name="count_slowly").remote(n):
            yield i * 10

    async def ids(self) -> List[str]:
        mine = serve.context._get_serve_request_context().request_id
        return [mine, (await self.inner.context.remote())["id"]]

    def facts(self) -> List[Any]:
        return [self.config, type(self.more["deep"][0]).__name__]

    async def refused(self) -> str:
        try:
            await self.inner.double.remote([self.inner.double.remote(1)])
        except RayServeException as e:
            return str(e)
        return ""


class Local(unittest.TestCase):
    def setUp(self) -> None:
        inner = Doubler.bind()
        app = Front.options(user_config={"a": 1}).bind(
            inner, {"deep": [Doubler.options(name="Other").bind(3)]}
        )
        self.handle = serve.run(app, name="local", _local_testing_mode=True)
        self.inner = serve.get_deployment_handle("Doubler", "local")

    def tearDown(self) -> None:
        serve.shutdown()
        left = [t.name for t in threading.enumerate() if t.name.startswith("serve-local-")]
        self.assertEqual([], left)

    def test_unary(self) -> None:
        response = self.handle.remote(4)
        self.assertIsInstance(self.handle, DeploymentHandle)
        self.assertIsInstance(response, DeploymentResponse)
        self.assertEqual(response.result(), 9)
        self.assertEqual(response.result(timeout_s=0), 9)
        self.assertEqual(self.handle.sync.remote(4).result(), 9)
        self.assertEqual(self.handle.chain.remote(4).result(), 16)
        self.assertEqual(self.handle.facts.remote().result(), [{"a": 1}, "DeploymentHandle"])

    def test_in_an_event_loop(self) -> None:
        async def work() -> List[Any]:
            response = self.handle.remote(1)
            with self.assertRaisesRegex(RuntimeError, "Sync methods should not be called"):
                response.result()
            first = self.handle.remote(2)
            out = [await response, await response, await self.inner.double.remote(first)]
            stream = self.handle.options(stream=True).stream.remote(3)
            out.append([i async for i in stream])
            with self.assertRaisesRegex(TypeError, "cannot be awaited"):
                await stream
            return out

        self.assertEqual(asyncio.run(work()), [3, 3, 10, [0, 10, 20]])

    def test_streams(self) -> None:
        for method in ("count", "count_slowly"):
            stream = self.inner.options(stream=True, method_name=method).remote(200)
            self.assertIsInstance(stream, DeploymentResponseGenerator)
            self.assertEqual(list(stream), list(range(200)))
        with self.assertRaisesRegex(TypeError, "must use `handle.options\\(stream=True\\)`"):
            self.inner.count.remote(1).result()
        with self.assertRaisesRegex(TypeError, "did not return a generator"):
            next(self.inner.options(stream=True).double.remote(1))
        with self.assertRaisesRegex(RuntimeError, "cannot be passed to downstream"):
            self.inner.double.remote(self.inner.options(stream=True).count.remote(1)).result()

    def test_a_stream_is_not_far_ahead_and_can_be_cancelled(self) -> None:
        stream = self.inner.options(stream=True).count_slowly.remote(10**9)
        self.assertEqual([next(stream), next(stream)], [0, 1])
        stream.cancel()
        with self.assertRaises(RequestCancelledError):
            for _ in stream:
                pass

    def test_errors(self) -> None:
        with self.assertRaisesRegex(KeyError, "no such thing"):
            self.inner.fail.remote().result()
        with self.assertRaisesRegex(RayServeException, "'nothing' that does not exist"):
            self.inner.nothing.remote().result()
        with self.assertRaisesRegex(RayServeException, "'__call__' that does not exist"):
            self.inner.remote().result()
        with self.assertRaises(KeyError):
            self.inner.double.remote(self.inner.fail.remote()).result()
        self.assertIn("top-level arguments", self.handle.refused.remote().result())
        with self.assertRaisesRegex(RuntimeError, "not supported in local testing mode"):
            self.handle.remote(1)._to_object_ref_sync()
        with self.assertRaises(ValueError):
            self.handle.options(request_serialization="smoke")

    def test_arguments_are_copies(self) -> None:
        mine: List[int] = []
        self.assertEqual(self.inner.append.remote(mine).result(), [1])
        self.assertEqual(mine, [])

    def test_context(self) -> None:
        handle = self.inner.options(multiplexed_model_id="m", session_id="s")
        facts = handle.context.remote().result()
        self.assertEqual([facts["model"], facts["session"], facts["app"]], ["m", "s", "local"])
        first, second = self.handle.ids.remote().result()
        self.assertEqual(first, second)
        with self.assertRaises(RayServeException):
            serve.get_replica_context()

    def test_batches(self) -> None:
        responses = [self.inner.batched.remote(i) for i in range(3)]
        self.assertEqual([r.result() for r in responses], [[0, 1, 2]] * 3)

    def test_names(self) -> None:
        self.assertEqual(serve.get_app_handle("local").remote(1).result(), 3)
        status = serve.status()
        self.assertEqual(status.applications["local"].status, "RUNNING")
        self.assertEqual(
            list(status.applications["local"].deployments), ["Doubler", "Other", "Front"]
        )
        serve.delete("local")
        with self.assertRaisesRegex(RayServeException, "not running"):
            self.handle.remote(1).result()


class Cancelling(unittest.TestCase):
    def tearDown(self) -> None:
        serve.shutdown()

    def test_cancel_flows_down(self) -> None:
        entered, cancelled = threading.Event(), threading.Event()

        @serve.deployment
        class Slow:
            async def __call__(self) -> None:
                entered.set()
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    cancelled.set()
                    raise

        @serve.deployment
        class Caller:
            def __init__(self, slow: Any) -> None:
                self.slow = slow

            async def __call__(self) -> None:
                response = self.slow.remote()  # nobody waits for it
                await asyncio.sleep(60)
                await response

        handle = serve.run(Caller.bind(Slow.bind()), _local_testing_mode=True)
        response = handle.remote()
        self.assertTrue(entered.wait(30))
        with self.assertRaises(TimeoutError):
            response.result(timeout_s=0.01)
        self.assertFalse(response.cancelled())
        response.cancel()
        self.assertTrue(response.cancelled())
        with self.assertRaises(RequestCancelledError):
            response.result()
        self.assertTrue(cancelled.wait(30))

    def test_a_deployment_deleted_under_a_call(self) -> None:
        entered = threading.Event()

        @serve.deployment
        class Slow:
            async def __call__(self) -> None:
                entered.set()
                await asyncio.sleep(60)

        handle = serve.run(Slow.bind(), _local_testing_mode=True)
        response = handle.remote()
        self.assertTrue(entered.wait(30))
        serve.delete("default")
        with self.assertRaises(RequestCancelledError):
            response.result(timeout_s=30)


class Starting(unittest.TestCase):
    def tearDown(self) -> None:
        serve.shutdown()

    def test_function_and_environment(self) -> None:
        @serve.deployment
        def greet(name: str) -> str:
            return f"hello {name}"

        with mock.patch.dict(os.environ, RAY_SERVE_FORCE_LOCAL_TESTING_MODE="1"):
            handle = serve.run(greet.bind())
            self.assertEqual(handle.remote("you").result(), "hello you")

    def test_constructors(self) -> None:
        @serve.deployment
        class Async:
            async def __init__(self) -> None:  # type: ignore[misc]
                await asyncio.sleep(0)
                self.ready = True

            def __call__(self) -> bool:
                return self.ready

        self.assertTrue(serve.run(Async.bind(), _local_testing_mode=True).remote().result())

        @serve.deployment
        class Broken:
            def __init__(self) -> None:
                raise ValueError("not today")

        with self.assertRaisesRegex(ValueError, "not today"):
            serve.run(Broken.bind(), name="b", _local_testing_mode=True)
        with self.assertRaises(AttributeError):
            serve.run(
                Async.options(user_config={"a": 1}).bind(), name="b", _local_testing_mode=True
            )
        self.assertNotIn("b", serve.status().applications)

    def test_an_application_replaces_its_predecessor(self) -> None:
        @serve.deployment
        class Version:
            def __init__(self, n: int) -> None:
                self.n = n

            def __call__(self) -> int:
                return self.n

        old = serve.run(Version.bind(1), _local_testing_mode=True)
        self.assertEqual(old.remote().result(), 1)
        serve.run(Version.bind(2), _local_testing_mode=True)
        self.assertEqual(old.remote().result(), 2)

    def test_run_many(self) -> None:
        targets = [
            serve.RunTarget(Doubler.bind(n), name=f"n{n}", route_prefix=f"/{n}") for n in (2, 3)
        ]
        handles = serve.run_many(targets, _local_testing_mode=True)
        self.assertEqual([h.double.remote(5).result() for h in handles], [10, 15])

    def test_blocking_methods_do_not_hold_each_other_up(self) -> None:
        barrier = threading.Barrier(2)

        @serve.deployment
        class Meets:
            def __call__(self) -> int:
                barrier.wait(30)
                return 1

        handle = serve.run(Meets.bind(), _local_testing_mode=True)
        started = time.monotonic()
        self.assertEqual([r.result() for r in (handle.remote(), handle.remote())], [1, 1])
        self.assertLess(time.monotonic() - started, 30)


class WithPackages(unittest.TestCase):
    def tearDown(self) -> None:
        serve.shutdown()

    def test_fastapi_pydantic_numpy(self) -> None:
        try:
            import fastapi
            import numpy
            import pydantic
        except ImportError as e:
            self.skipTest(str(e))
        events: List[str] = []

        @contextlib.asynccontextmanager
        async def lifespan(app: Any) -> Any:
            events.append("up")
            yield
            events.append("down")

        api = fastapi.FastAPI(lifespan=lifespan)

        class Query(pydantic.BaseModel):
            values: List[float]

        class Sums:
            async def __call__(self, array: Any) -> Any:
                return array.sum()

        class Api:
            def __init__(self, sums: DeploymentHandle[Any]) -> None:
                self.sums = sums

            async def add(self, values: List[float]) -> float:
                query = Query(values=values)
                return float(await self.sums.remote(numpy.array(query.values)))

        api.post("/add")(Api.add)
        app = serve.deployment(serve.ingress(api)(Api)).bind(serve.deployment(Sums).bind())
        handle = serve.run(app, _local_testing_mode=True)
        self.assertEqual(events, ["up"])
        self.assertEqual(handle.add.remote([1, "2.5"]).result(), 3.5)
        serve.shutdown()
        self.assertEqual(events, ["up", "down"])


if __name__ == "__main__":
    unittest.main()
