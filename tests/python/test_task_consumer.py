"""Task consumers: with an adapter of the test's own, and with a Celery of the test's own."""

from __future__ import annotations

import asyncio
import pickle
import sys
import types
import unittest
from typing import Any, Dict, List, Optional
from unittest import mock

import fakenode  # noqa: F401  (puts the library on sys.path)
from ray import serve
from ray.serve import context as serve_context
from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve.schema import (
    CeleryAdapterConfig,
    ReplicaRank,
    TaskProcessorAdapter,
    TaskProcessorConfig,
    TaskResult,
)
from ray.serve.task_consumer import (
    instantiate_adapter_from_config,
    task_consumer,
    task_handler,
)
from ray.serve.task_processor import CeleryTaskProcessorAdapter


class Memory(TaskProcessorAdapter):
    """Tasks are worked on where they are put in."""

    made: List["Memory"] = []

    def __init__(self, config: Any) -> None:
        self.config = config
        self.handlers: Dict[str, Any] = {}
        self.events: List[Any] = []
        Memory.made.append(self)

    def initialize(self, consumer_concurrency: int = 5) -> None:
        self.events.append(("initialize", consumer_concurrency))

    def register_task_handle(self, func: Any, name: Optional[str] = None) -> None:
        self.handlers[name or func.__name__] = func

    def enqueue_task_sync(
        self, task_name: str, args: Any = None, kwargs: Any = None, **options: Any
    ) -> TaskResult:
        value = self.handlers[task_name](*(args or ()), **(kwargs or {}))
        return TaskResult(id="1", status="SUCCESS", result=value)

    def get_task_status_sync(self, task_id: str) -> TaskResult:
        return TaskResult(id=task_id, status="PENDING", result=None)

    def start_consumer(self, **kwargs: Any) -> None:
        self.events.append("start")

    def stop_consumer(self, timeout: float = 10.0) -> None:
        self.events.append("stop")


def config(**more: Any) -> Any:
    return TaskProcessorConfig(
        **{"queue_name": "q", "adapter": Memory, "adapter_config": {}, **more}
    )


class Consumers(unittest.TestCase):
    def setUp(self) -> None:
        del Memory.made[:]

    def tearDown(self) -> None:
        serve.shutdown()
        serve_context._set_replica_context(None)

    def test_a_consumer_as_a_deployment(self) -> None:
        @serve.deployment
        @task_consumer(task_processor_config=config())
        class Worker:
            def __init__(self, factor: int) -> None:
                self.factor = factor

            @task_handler
            def times(self, x: int) -> int:
                return self.factor * x

            @task_handler(name="other name")
            def plus(self, x: int) -> int:
                return self.factor + x

            def direct(self, x: int) -> int:
                return self.times(x)

        self.assertEqual(Worker.name, "Worker")
        handle = serve.run(Worker.bind(3), _local_testing_mode=True)
        (adapter,) = Memory.made
        self.assertEqual(adapter.events, [("initialize", 5), "start"])
        self.assertEqual(sorted(adapter.handlers), ["other name", "times"])
        self.assertEqual(adapter.enqueue_task_sync("times", [2]).result, 6)
        self.assertEqual(adapter.enqueue_task_sync("other name", kwargs={"x": 2}).result, 5)
        self.assertEqual(handle.direct.remote(4).result(), 12)
        serve.shutdown()
        del handle
        self.assertEqual(adapter.events[-1], "stop")

    def test_concurrency_is_that_of_the_deployment(self) -> None:
        replica = ReplicaID("abc", DeploymentID("D", "a"))
        rank = ReplicaRank(rank=0, node_rank=0, local_rank=0)
        serve_context._set_replica_context(
            serve_context.ReplicaContext(replica, None, {"max_ongoing_requests": 7}, rank, 1)
        )

        @task_consumer(task_processor_config=config())
        class Worker:
            async def __init__(self) -> None:  # type: ignore[misc]
                self.ready = True

        worker: Any = Worker.__new__(Worker)
        asyncio.run(worker.__init__())
        self.assertTrue(worker.ready)
        self.assertEqual(Memory.made[0].events[0], ("initialize", 7))

    def test_handlers_of_base_classes(self) -> None:
        class Base:
            @task_handler
            def first(self) -> int:
                return 1

        @task_consumer(task_processor_config=config())
        class Worker(Base):
            @task_handler
            def second(self) -> int:
                return 2

        Worker()
        self.assertEqual(sorted(Memory.made[0].handlers), ["first", "second"])

    def test_refused(self) -> None:
        with self.assertRaisesRegex(ValueError, "non-empty string"):
            task_handler(name=" ")
        with self.assertRaisesRegex(ValueError, "non-empty string"):
            task_handler(name=3)  # type: ignore[arg-type]
        with self.assertRaisesRegex(NotImplementedError, "not supported yet"):

            @task_handler
            async def handler() -> None:
                pass

        with self.assertRaisesRegex(TypeError, "must be used with a class"):
            task_consumer(task_processor_config=config())(lambda: None)  # type: ignore[arg-type]

    def test_adapters(self) -> None:
        made = instantiate_adapter_from_config(config(adapter=f"{__name__}:Memory"))
        self.assertEqual(type(made).__name__, "Memory")
        for path in ("nowhere:Adapter", f"{__name__}:Nobody", "x"):
            with self.assertRaisesRegex(RuntimeError, "Failed to import"):
                instantiate_adapter_from_config(config(adapter=path))
        with self.assertRaisesRegex(TypeError, "must inherit from TaskProcessorAdapter"):
            instantiate_adapter_from_config(config(adapter=dict))
        with self.assertRaisesRegex(TypeError, "must inherit from TaskProcessorAdapter"):
            instantiate_adapter_from_config(config(adapter=lambda c: c))
        with self.assertRaisesRegex(RuntimeError, "Failed to instantiate"):
            instantiate_adapter_from_config(config(adapter=lambda: None))
        with self.assertRaises(NotImplementedError):
            made.cancel_task_sync("1")
        with self.assertRaises(NotImplementedError):
            asyncio.run(made.enqueue_task_async("x"))
        with self.assertRaises(TypeError):
            TaskProcessorAdapter()  # type: ignore[abstract]

    def test_results_travel(self) -> None:
        result = TaskResult(id="1", status="SUCCESS", created_at=1.0, result=[1])
        self.assertEqual(pickle.loads(pickle.dumps(result)), result)


class FakeCelery(types.ModuleType):
    """What the adapter asks of celery, with a note of it."""

    def __init__(self) -> None:
        super().__init__("celery")
        self.asked: List[Any] = []
        self.signals = types.ModuleType("celery.signals")
        for name in ("task_failure", "task_unknown"):
            signal = types.SimpleNamespace(connect=self._connect(name))
            setattr(self.signals, name, signal)
        self.Celery = self._make
        self.conf: Any = {}
        self.connected: Dict[str, Any] = {}
        self.control = mock.Mock()

    def _connect(self, name: str) -> Any:
        def connect(function: Any, weak: bool) -> None:
            self.connected[name] = function

        return connect

    def _make(self, name: str, backend: str, broker: str) -> Any:
        self.asked.append(("Celery", name, backend, broker))
        return self

    def task(self, **options: Any) -> Any:
        return lambda function: self.asked.append(("task", options))

    def send_task(self, name: str, **options: Any) -> Any:
        self.asked.append(("send", name, options))
        return types.SimpleNamespace(id="7", status="PENDING", result=None)

    def AsyncResult(self, task_id: str) -> Any:  # noqa: N802
        return types.SimpleNamespace(id=task_id, status="SUCCESS", result=5)

    def worker_main(self, arguments: List[str]) -> None:
        self.asked.append(("worker", arguments))


def celery_config(**more: Any) -> Any:
    adapter = CeleryAdapterConfig(
        broker_url="memory://", backend_url="cache+memory://", **more.pop("adapter", {})
    )
    return TaskProcessorConfig(queue_name="q", adapter_config=adapter, **more)


class Celery(unittest.TestCase):
    def adapter(self, fake: FakeCelery, **more: Any) -> CeleryTaskProcessorAdapter:
        adapter = instantiate_adapter_from_config(celery_config(**more))
        assert isinstance(adapter, CeleryTaskProcessorAdapter)
        with mock.patch.dict(sys.modules, {"celery": fake, "celery.signals": fake.signals}):
            adapter.initialize(4)
        return adapter

    def test_without_celery(self) -> None:
        adapter = instantiate_adapter_from_config(celery_config())
        with mock.patch.dict(sys.modules, {"celery": None}):
            with self.assertRaisesRegex(ImportError, "pip install celery"):
                adapter.initialize()

    def test_settings(self) -> None:
        fake = FakeCelery()
        self.adapter(fake, adapter={"app_custom_config": {"task_time_limit": 9}})
        self.assertEqual(fake.asked, [("Celery", "q", "cache+memory://", "memory://")])
        expected = {"worker_pool": "threads", "worker_concurrency": 4, "task_acks_late": True}
        self.assertEqual({k: fake.conf.get(k) for k in expected}, expected)
        self.assertEqual(fake.conf["task_time_limit"], 9)
        with self.assertRaisesRegex(ValueError, "worker_pool"):
            self.adapter(FakeCelery(), adapter={"app_custom_config": {"worker_pool": "solo"}})
        with self.assertRaisesRegex(RuntimeError, "must be a CeleryAdapterConfig"):
            instantiate_adapter_from_config(TaskProcessorConfig(queue_name="q", adapter_config={}))

    def test_tasks(self) -> None:
        fake = FakeCelery()
        adapter = self.adapter(fake, max_retries=2)
        adapter.register_task_handle(len, "size")
        kind, options = fake.asked[-1]
        self.assertEqual(options["name"], "size")
        self.assertEqual(options["retry_kwargs"], {"max_retries": 2})
        self.assertEqual(options["autoretry_for"], (Exception,))
        sent = adapter.enqueue_task_sync("size", ["abc"])
        self.assertEqual([sent.id, sent.status], ["7", "PENDING"])
        self.assertEqual(fake.asked[-1][2]["queue"], "q")
        self.assertEqual(adapter.get_task_status_sync("7").result, 5)
        adapter.cancel_task_sync("7")
        fake.control.revoke.assert_called_once_with("7")

    def test_tasks_that_fail_for_good_are_put_aside(self) -> None:
        fake = FakeCelery()
        self.adapter(fake, failed_task_queue_name="failed", unprocessable_task_queue_name="odd")
        fake.connected["task_failure"](
            sender=types.SimpleNamespace(name="size"),
            task_id="7",
            exception=ValueError("no"),
            args=[1],
            kwargs={},
            einfo="trace",
        )
        _, name, options = fake.asked[-1]
        self.assertEqual([name, options["queue"]], ["size", "failed"])
        self.assertEqual(options["args"], ["7", "no", "[1]", "{}", "trace"])
        fake.connected["task_unknown"](name="what", id="8", message="m", exc=KeyError("what"))
        _, name, options = fake.asked[-1]
        self.assertEqual(
            [name, options["queue"], options["args"][:2]], ["what", "odd", ["what", "8"]]
        )

    def test_the_worker(self) -> None:
        fake = FakeCelery()
        adapter = self.adapter(fake)
        adapter.start_consumer()
        adapter.stop_consumer(timeout=10)
        self.assertIn(("worker", ["worker", "--hostname=q_local", "-Q", "q"]), fake.asked)
        adapter.stop_consumer()  # a second time does nothing


if __name__ == "__main__":
    unittest.main()
