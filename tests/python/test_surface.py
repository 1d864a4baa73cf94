"""The smaller modules of ray.serve: gRPC types, Gradio, what is gone, errors that travel."""

from __future__ import annotations

import asyncio
import importlib
import pickle
import sys
import types
import unittest
from typing import Any, AsyncIterator, List
from unittest import mock

import fakenode  # noqa: F401  (puts the library on sys.path)
import ray
from ray import serve
from ray.exceptions import RayError, TaskCancelledError
from ray.serve import context, exceptions, gang, grpc_util
from ray.serve._private.common import DeploymentID, ReplicaID


class FakeContext:
    """A grpc.ServicerContext with what a caller sent."""

    def __init__(self) -> None:
        self.set: List[Any] = []

    def auth_context(self) -> Any:
        return {"transport": [b"x"]}

    def code(self) -> Any:
        return None

    def details(self) -> str:
        return ""

    def invocation_metadata(self) -> Any:
        return (("application", "a"), ("request_id", "7"), ("multiplexed_model_id", "m"))

    def peer(self) -> str:
        return "ipv4:127.0.0.1:5"

    def peer_identities(self) -> Any:
        return None

    def peer_identity_key(self) -> Any:
        return None

    def trailing_metadata(self) -> Any:
        return ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("set_"):
            return lambda value: self.set.append((name, value))
        raise AttributeError(name)


class Grpc(unittest.TestCase):
    def test_context(self) -> None:
        real: Any = FakeContext()
        c = grpc_util.RayServegRPCContext(real)
        self.assertEqual([c.application(), c.request_id()], ["a", "7"])
        self.assertEqual([c.multiplexed_model_id(), c.traceparent()], ["m", None])
        self.assertEqual(
            [c.peer(), c.code(), c.trailing_metadata()], ["ipv4:127.0.0.1:5", None, []]
        )
        c.set_code("NOT_FOUND")  # type: ignore[arg-type]
        c.set_details("no such thing")
        c.set_trailing_metadata([("k", "v")])
        self.assertEqual([c.code(), c.details()], ["NOT_FOUND", "no such thing"])
        again = pickle.loads(pickle.dumps(c))
        again._set_on_grpc_context(real)
        self.assertEqual(
            real.set,
            [
                ("set_code", "NOT_FOUND"),
                ("set_details", "no such thing"),
                ("set_trailing_metadata", [("k", "v")]),
            ],
        )

    def test_input_stream(self) -> None:
        async def messages() -> AsyncIterator[int]:
            for i in range(3):
                yield i

        async def work() -> None:
            stream = grpc_util.gRPCInputStream(messages())
            self.assertEqual([i async for i in stream], [0, 1, 2])
            self.assertTrue(stream.is_exhausted)
            stream = grpc_util.gRPCInputStream(messages())
            self.assertEqual(await stream.__anext__(), 0)
            stream.cancel()
            self.assertEqual([i async for i in stream], [])
            self.assertEqual([stream.is_cancelled(), stream.is_exhausted], [True, False])

        asyncio.run(work())


class Gone(unittest.TestCase):
    def test_llm_and_dag(self) -> None:
        with self.assertRaisesRegex(ImportError, "kind http"):
            importlib.import_module("ray.serve.llm")
        from ray.serve.dag import InputNode

        with self.assertRaisesRegex(RuntimeError, "through their handles"):
            InputNode()
        importlib.import_module("ray.serve.experimental")

    def test_names(self) -> None:
        with self.assertRaisesRegex(AttributeError, "no attribute 'nonsense'"):
            serve.nonsense  # noqa: B018
        with self.assertRaises(AttributeError):
            serve.config.Nonsense  # noqa: B018
        with self.assertRaises(AttributeError):
            serve.schema.Nonsense  # noqa: B018
        self.assertIs(serve.HTTPOptions, serve.config.HTTPOptions)
        names: Any = {}
        exec("from ray.serve.config import *\nfrom ray.serve.schema import *", names)
        self.assertIs(names["LoggingConfig"], serve.schema.LoggingConfig)


class Gradio(unittest.TestCase):
    def tearDown(self) -> None:
        sys.modules.pop("ray.serve.gradio_integrations", None)

    def test_without_gradio(self) -> None:
        with mock.patch.dict(sys.modules, {"gradio": None}):
            with self.assertRaisesRegex(ImportError, "pip install gradio"):
                importlib.import_module("ray.serve.gradio_integrations")

    def test_with_gradio(self) -> None:
        seen: List[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope)

        fake: Any = types.ModuleType("gradio")
        fake.mount_gradio_app = lambda site, blocks, path: app if (blocks, path) == want else None
        want = ("blocks", "")
        web: Any = types.ModuleType("fastapi")
        web.FastAPI = lambda **options: None
        with mock.patch.dict(sys.modules, {"gradio": fake, "fastapi": web}):
            module = importlib.import_module("ray.serve.gradio_integrations")
        self.assertEqual(module.GradioServer.name, "GradioIngress")
        application = module.GradioServer.options(num_replicas=2).bind(lambda: "blocks")
        self.assertIsInstance(application, serve.Application)
        replica = ReplicaID("abc", DeploymentID("D", "a"))
        servable = module.GradioIngress(lambda: "blocks")
        rank: Any = None
        context._set_replica_context(context.ReplicaContext(replica, servable, {}, rank, 1))
        try:
            asyncio.run(module.GradioIngress.__serve_ingress__.app({"type": "http"}, None, None))
        finally:
            context._set_replica_context(None)
        self.assertEqual(seen, [{"type": "http"}])


class Routers(unittest.TestCase):
    def test_private_paths(self) -> None:
        for module, names in (
            ("", "PowerOfTwoChoicesRequestRouter PendingRequest RunningReplica RequestRouter"),
            (".common", "PendingRequest"),
            (".replica_wrapper", "RunningReplica"),
            (".request_router", "RequestRouter FIFOMixin LocalityMixin MultiplexMixin"),
            (".pow_2_router", "PowerOfTwoChoicesRequestRouter"),
        ):
            found = importlib.import_module(f"ray.serve._private.request_router{module}")
            for name in names.split():
                self.assertTrue(hasattr(found, name), f"{module}.{name}")
        default = serve.config.RequestRouterConfig()
        self.assertTrue(default.is_default_request_router())
        self.assertEqual(
            getattr(default.get_request_router_class(), "__name__"),  # noqa: B009
            "PowerOfTwoChoicesRequestRouter",
        )

    def test_two_choices(self) -> None:
        from ray.serve._private.request_router import PowerOfTwoChoicesRequestRouter
        from ray.serve.request_router import RunningReplica, RunningReplicaInfo

        deployment = DeploymentID("D", "a")
        source: Any = None
        router = PowerOfTwoChoicesRequestRouter(deployment_id=deployment, handle_source=source)
        self.assertEqual(asyncio.run(router.choose_replicas([])), [])
        replicas = []
        for n in range(3):
            info: Any = mock.Mock(spec=RunningReplicaInfo)
            info.replica_id = ReplicaID(str(n), deployment)
            info.node_id, info.multiplexed_model_ids = "n", set()
            replicas.append(RunningReplica(info))
        router.update_replicas(replicas)
        for n, replica in enumerate(replicas):
            router.replica_queue_len_cache.update(replica.replica_id, 3 - n)
        for _ in range(20):
            first, second = asyncio.run(router.choose_replicas(replicas))
            lengths = [router.replica_queue_len_cache.get(r[0].replica_id) for r in (first, second)]
            self.assertEqual(lengths, sorted(lengths, key=lambda n: n or 0))
            self.assertNotEqual(first, second)


class Errors(unittest.TestCase):
    def test_they_travel(self) -> None:
        deployment = DeploymentID("D", "a")
        for error, text in (
            (exceptions.RayServeException("x"), "x"),
            (
                exceptions.BackPressureError(3, 2, 429, 1.5),
                "Request dropped due to backpressure (num_queued_requests=3, "
                "max_queued_requests=2).",
            ),
            (
                exceptions.DeploymentUnavailableError(deployment),
                "Deployment(name='D', app='a') is unavailable because it failed to deploy.",
            ),
            (exceptions.ReplicaUnavailableError("r"), "Replica r is unavailable."),
            (exceptions.RequestCancelledError("7"), "Request 7 was cancelled."),
            (exceptions.gRPCStatusError(ValueError("no"), "CODE", "why"), "no"),
        ):
            with self.subTest(error=type(error).__name__):
                back = pickle.loads(pickle.dumps(error))
                self.assertIs(type(back), type(error))
                self.assertEqual(str(back), text)
                self.assertIsInstance(back, exceptions.RayServeException)
        full = pickle.loads(pickle.dumps(exceptions.BackPressureError(3, 2, 429, 1.5)))
        self.assertEqual([full.status_code, full.retry_after_s], [429, 1.5])
        status = pickle.loads(
            pickle.dumps(exceptions.gRPCStatusError(ValueError("no"), "CODE", "why"))
        )
        self.assertEqual([status.grpc_code, status.grpc_details], ["CODE", "why"])
        self.assertIsInstance(status.original_exception, ValueError)
        cancelled = exceptions.RequestCancelledError()
        self.assertIsInstance(cancelled, TaskCancelledError)
        self.assertIsInstance(cancelled, RayError)


class Contexts(unittest.TestCase):
    def test_fields(self) -> None:
        replica = ReplicaID("abc", DeploymentID("D", "a"))
        rank: Any = serve.schema.ReplicaRank(rank=2, node_rank=0, local_rank=1)
        group = gang.GangContext("g", 0, 2, ["abc", "def"])
        c = context.ReplicaContext(replica, "object", {}, rank, 3, gang_context=group)
        self.assertEqual([c.app_name, c.deployment, c.replica_tag], ["a", "D", "abc"])
        self.assertEqual([c.world_size, c.rank.rank, c.code_version], [3, 2, None])
        self.assertEqual([c.gang_context, group.pg_name], [group, ""])
        actor = context.DeploymentActorContext(DeploymentID("D", "a"), "helper")
        self.assertEqual([actor.app_name, actor.deployment, actor.code_version], ["a", "D", None])

    def test_the_rank_is_what_programs_import(self) -> None:
        from rserve import _model, _schema

        own: Any = _schema.ReplicaRank(rank=1, node_rank=0, local_rank=1)
        replica = ReplicaID("abc", DeploymentID("D", "a"))
        context._set_replica_context(context.ReplicaContext(replica, None, {}, own, 1))
        try:
            self.assertIsInstance(serve.get_replica_context().rank, serve.schema.ReplicaRank)
            self.assertEqual(serve.get_replica_context().rank.rank, 1)
            kept = serve.get_replica_context().rank
            self.assertIs(serve.get_replica_context().rank, kept)
        finally:
            context._set_replica_context(None)
        self.assertEqual(kept is own, _model.pydantic() is None)

    def test_outside(self) -> None:
        for ask in (serve.get_replica_context,):
            with self.assertRaisesRegex(
                exceptions.RayServeException,
                "may only be called from within a Ray Serve deployment",
            ):
                ask()
        self.assertIsNone(serve.get_trace_context())
        self.assertEqual(serve.get_multiplexed_model_id(), "")

    def test_lazy_figures_of_an_autoscaling_context(self) -> None:
        asked: List[str] = []

        def total() -> float:
            asked.append("total")
            return 5.0

        c = serve.config.AutoscalingContext(
            DeploymentID("D", "a"),
            "D",
            "a",
            1,
            1,
            [],
            total,
            2.0,
            None,
            None,
            1,
            2,
            {},
            None,
            None,
            None,
            None,
        )
        self.assertEqual(asked, [])
        self.assertEqual([c.total_running_requests, c.total_num_requests], [3.0, 5.0])
        self.assertEqual(asked, ["total"])


class Programs(unittest.TestCase):
    def test_errors_of_serve_run(self) -> None:
        @serve.deployment
        class D:
            pass

        app = D.bind()
        refused = exceptions.RayServeException
        cases: List[Any] = [
            (refused, "must a non-empty string", lambda: serve.run(app, name="")),
            (TypeError, "expects an `Application`", lambda: serve.run(D)),
            (ValueError, "must start with a forward", lambda: serve.run(app, route_prefix="x")),
            (ValueError, "may not end with", lambda: serve.run(app, route_prefix="/x/")),
            (ValueError, "wildcards", lambda: serve.run(app, route_prefix="/{x}")),
            (ValueError, "No applications provided.", lambda: serve.run_many([])),
            (ValueError, "http_options", lambda: serve.start(http_port=1)),
        ]
        for kind, text, call in cases:
            with self.subTest(text=text), self.assertRaises(kind) as caught:
                call()
            self.assertIn(text, str(caught.exception))
        with self.assertRaises(dataclass_error()):
            serve.RunTarget(app).name = "y"  # type: ignore[misc]

    def test_version(self) -> None:
        self.assertEqual(ray.__version__, "2.60.0")


def dataclass_error() -> Any:
    import dataclasses

    return dataclasses.FrozenInstanceError


if __name__ == "__main__":
    unittest.main()
