"""Deployment options, option objects, the names that applications import."""

from __future__ import annotations

import importlib
import unittest
from typing import Any, Callable

import fakenode  # noqa: F401  (puts the library on sys.path)
import ray
from ray import serve
from ray.serve import config, exceptions, schema
from ray.serve.deployment import options_for_node


class Plain:
    pass


def function(request: Any) -> int:
    return 1


class Decorator(unittest.TestCase):
    def test_bare_and_called(self) -> None:
        self.assertEqual(serve.deployment(Plain).name, "Plain")
        self.assertEqual(serve.deployment()(function).name, "function")
        self.assertEqual(serve.deployment(name="Other")(Plain).name, "Other")
        self.assertEqual(str(serve.deployment(Plain)), "Deployment(name=Plain)")

    def test_defaults(self) -> None:
        d = serve.deployment(Plain)
        self.assertEqual(
            (d.num_replicas, d.max_ongoing_requests, d.max_queued_requests), (1, 5, -1)
        )
        self.assertIs(d.func_or_class, Plain)
        self.assertEqual(options_for_node(d), {})
        for name in ("url", "route_prefix"):
            self.assertFalse(hasattr(d, name))

    def test_number_of_replicas_with_autoscaling(self) -> None:
        self.assertEqual(serve.deployment(num_replicas="auto")(Plain).num_replicas, 1)

    def test_only_what_was_set_is_told(self) -> None:
        d = serve.deployment(
            num_replicas="auto",
            autoscaling_config={"max_replicas": 4, "target_num_ongoing_requests_per_replica": 3},
            logging_config=schema.LoggingConfig(log_level="DEBUG"),
            request_router_config=config.RequestRouterConfig(request_router_class=Plain),
            backpressure_config={"status_code": 429},
        )(Plain)
        self.assertEqual(
            options_for_node(d),
            {
                "num_replicas": "auto",
                "autoscaling_config": {
                    "max_replicas": 4,
                    "target_num_ongoing_requests_per_replica": 3,
                },
                "logging_config": {"log_level": "DEBUG"},
                "request_router_config": {"request_router_class": f"{__name__}:Plain"},
                "backpressure_config": {"status_code": 429},
            },
        )

    def test_options_copies(self) -> None:
        a = serve.deployment(num_replicas=2, user_config={"x": 1})(Plain)
        b = a.options(name="B", num_replicas=3)
        self.assertEqual((a.name, a.num_replicas), ("Plain", 2))
        self.assertEqual((b.name, b.num_replicas, b.user_config), ("B", 3, {"x": 1}))
        c = b.options(autoscaling_config={"max_replicas": 2})
        self.assertEqual(
            options_for_node(c),
            {"user_config": {"x": 1}, "autoscaling_config": {"max_replicas": 2}},
        )
        self.assertEqual(
            options_for_node(c.options(num_replicas=1)),
            {"user_config": {"x": 1}, "num_replicas": 1},
        )
        with self.assertRaises(TypeError):
            a.options(nonsense=1)

    def test_bundles_that_fit(self) -> None:
        d = serve.deployment(
            placement_group_bundles=[{"CPU": 2, "GPU": 1}],
            placement_group_strategy="PACK",
            ray_actor_options={"num_cpus": 2, "num_gpus": 0.5},
        )(Plain)
        self.assertEqual(d.options(ray_actor_options={"num_cpus": 0}).name, "Plain")
        with self.assertRaisesRegex(ValueError, "must be a subset of the first bundle"):
            d.options(ray_actor_options={"resources": {"special": 1}})
        serve.deployment(num_replicas=4, gang_scheduling_config={"gang_size": 2})(Plain)

    def refused(self, kind: type, text: str, f: Callable[[], Any]) -> None:
        with self.assertRaises(kind) as caught:
            f()
        self.assertIn(text, str(caught.exception))

    def test_refused(self) -> None:
        def d(**options: Any) -> Callable[[], Any]:
            return lambda: serve.deployment(**options)(Plain)

        for kind, text, options in (
            (TypeError, "unexpected keyword argument 'route_prefix'", {"route_prefix": "/x"}),
            (ValueError, "expected to larger than 0", {"num_replicas": 0}),
            (ValueError, "1 validation error for DeploymentConfig", {"num_replicas": -1}),
            (ValueError, "1 validation error for DeploymentConfig", {"num_replicas": "many"}),
            (ValueError, "must be non-null", {"max_ongoing_requests": None}),
            (ValueError, "1 validation error for DeploymentConfig", {"max_ongoing_requests": 0}),
            (ValueError, "1 validation error for DeploymentConfig", {"max_queued_requests": 0}),
            (ValueError, "1 validation error for DeploymentConfig", {"max_queued_requests": 1.5}),
            (
                ValueError,
                "2 validation errors",
                {"health_check_period_s": 0, "graceful_shutdown_timeout_s": -1},
            ),
            (
                ValueError,
                "1 validation error for DeploymentConfig",
                {"rolling_update_percentage": 0},
            ),
            (ValueError, "not JSON-serializable", {"user_config": {"x": object()}}),
            (
                ValueError,
                "not allowed. Allowed options: {'accelerator_type'",
                {"ray_actor_options": {"max_restarts": 1}},
            ),
            (
                ValueError,
                "Manually setting num_replicas",
                {"num_replicas": 2, "autoscaling_config": {}},
            ),
            (
                ValueError,
                "min_replicas",
                {"autoscaling_config": {"min_replicas": 3, "max_replicas": 2}},
            ),
            (ValueError, "placement_group_bundles", {"placement_group_strategy": "PACK"}),
            (
                ValueError,
                "Invalid placement group strategy",
                {"placement_group_strategy": "X", "placement_group_bundles": [{}]},
            ),
            (ValueError, "[1, 100]", {"max_replicas_per_node": 0}),
            (
                ValueError,
                "not allowed when placement_group_bundles",
                {"max_replicas_per_node": 1, "placement_group_bundles": [{"CPU": 1}]},
            ),
            (
                ValueError,
                "`num_cpus` for the actor is 1 but the bundle only has 0 `CPU`",
                {"placement_group_bundles": [{"GPU": 1}]},
            ),
            (
                ValueError,
                "`num_gpus` for the actor is 2 but the bundle only has 1 `GPU`",
                {
                    "placement_group_bundles": [{"GPU": 1}, {"GPU": 1}],
                    "ray_actor_options": {"num_cpus": 0, "num_gpus": 2},
                },
            ),
            (
                ValueError,
                "num_replicas (3) must be a multiple of gang_size (2)",
                {"num_replicas": 3, "gang_scheduling_config": {"gang_size": 2}},
            ),
            (
                ValueError,
                "num_replicas (1) must be a multiple of gang_size (2)",
                {"gang_scheduling_config": {"gang_size": 2}},
            ),
            (
                ValueError,
                "max_replicas (3) must be a multiple",
                {
                    "autoscaling_config": {"min_replicas": 2, "max_replicas": 3},
                    "gang_scheduling_config": {"gang_size": 2},
                },
            ),
            (
                ValueError,
                "Use gang_placement_strategy",
                {
                    "placement_group_bundles": [{"CPU": 1}],
                    "placement_group_strategy": "PACK",
                    "gang_scheduling_config": {"gang_size": 2},
                },
            ),
            (ValueError, "log_level", {"logging_config": {"log_level": "LOUD"}}),
            (ValueError, "Extra inputs", {"logging_config": {"level": "INFO"}}),
            (ValueError, "503 or 429", {"backpressure_config": {"status_code": 500}}),
        ):
            with self.subTest(options=options):
                self.refused(kind, text, d(**options))
        self.refused(TypeError, "class or function", lambda: serve.deployment()(3))
        self.refused(
            RuntimeError, "cannot be constructed directly", lambda: serve.deployment(Plain)()
        )
        self.refused(RuntimeError, "should not be called directly", lambda: serve.Deployment("x"))
        self.refused(
            ValueError, "init_args not supported", lambda: serve.deployment(function).bind(1)
        )
        self.refused(
            ValueError, "init_kwargs not supported", lambda: serve.deployment(function).bind(x=1)
        )
        self.refused(ValueError, "used with a class", lambda: serve.ingress(object())(function))

        class HasCall:
            def __call__(self) -> None:
                pass

        self.refused(ValueError, "may not have __call__", lambda: serve.ingress(object())(HasCall))

    def test_program_functions_say_what_to_do(self) -> None:
        app = serve.deployment(Plain).bind()
        self.refused(exceptions.RayServeException, "rserve python", lambda: serve.run(app))
        self.refused(TypeError, ".bind()", lambda: serve.run(serve.deployment(Plain)))
        self.refused(
            exceptions.RayServeException, "must a non-empty string", lambda: serve.run(app, name="")
        )
        self.refused(ValueError, "forward slash", lambda: serve.run(app, route_prefix="x"))
        self.refused(ValueError, "trailing '/'", lambda: serve.run(app, route_prefix="/x/"))
        self.refused(
            exceptions.RayServeException, "within a Ray Serve deployment", serve.get_replica_context
        )
        self.refused(
            exceptions.RayServeException,
            "application name",
            lambda: serve.get_deployment_handle("x"),
        )
        self.assertFalse(ray.is_initialized())
        self.assertEqual(ray.__version__, "2.60.0")
        self.assertEqual(serve.get_multiplexed_model_id(), "")


class Models(unittest.TestCase):
    def test_autoscaling(self) -> None:
        c = config.AutoscalingConfig(min_replicas=1, max_replicas="5", aggregation_function="MAX")
        self.assertEqual(
            (c.max_replicas, c.target_ongoing_requests, c.upscale_delay_s), (5, 2, 30.0)
        )
        self.assertIs(c.aggregation_function, config.AggregationFunction.MAX)
        self.assertEqual(
            c.model_dump(exclude_unset=True, mode="json"),
            {"min_replicas": 1, "max_replicas": 5, "aggregation_function": "max"},
        )
        self.assertEqual(c, config.AutoscalingConfig(**c.model_dump(exclude_unset=True)))
        self.assertIn("max_replicas=5", repr(c))
        options = config.HTTPOptions()
        with self.assertRaises(ValueError):
            options.port = "x"
        self.assertEqual(c.model_copy(update={"max_replicas": 7}).max_replicas, 7)
        self.assertEqual(c.max_replicas, 5)

    def test_defaults_are_not_shared(self) -> None:
        config.HTTPOptions().middlewares.append(1)
        self.assertEqual(config.HTTPOptions().middlewares, [])

    def test_http_options(self) -> None:
        with self.assertRaises(ValueError) as caught:
            config.HTTPOptions(ssl_keyfile="x")
        self.assertIn("must be provided together", str(caught.exception))
        self.assertEqual(
            config.HTTPOptions(location="NoServer").location, config.ProxyLocation.Disabled
        )

    def test_errors_are_counted(self) -> None:
        with self.assertRaises(ValueError) as caught:
            config.AutoscalingConfig(min_replicas="x", max_replicas=0)
        self.assertTrue(
            str(caught.exception).startswith("2 validation errors for AutoscalingConfig")
        )


class Names(unittest.TestCase):
    def test_imports(self) -> None:
        for path in (
            "ray.exceptions:RayTaskError RayActorError ActorDiedError TaskCancelledError "
            "GetTimeoutError OutOfMemoryError",
            "ray.serve:Application Deployment HTTPOptions RunTarget deployment ingress run "
            "start status delete shutdown batch multiplexed get_app_handle",
            "ray.serve.handle:DeploymentHandle DeploymentResponse DeploymentResponseGenerator "
            "DeploymentBroadcastResponse",
            "ray.serve.config:AutoscalingConfig HTTPOptions gRPCOptions ProxyLocation "
            "RequestRouterConfig GangSchedulingConfig DeploymentActorConfig",
            "ray.serve.schema:LoggingConfig EncodingType ApplicationStatus ProxyStatus "
            "ServeStatus ReplicaRank",
            "ray.serve.exceptions:RayServeException BackPressureError "
            "DeploymentUnavailableError RequestCancelledError gRPCStatusError",
            "ray.serve.context:ReplicaContext _get_serve_request_context _serve_request_context",
            "ray.serve.metrics:Counter Gauge Histogram",
            "ray.serve.deployment:Application Deployment",
            "ray.serve._private.constants:SERVE_LOGGER_NAME",
            "ray.serve._private.common:DeploymentID ReplicaID",
        ):
            module, _, names = path.partition(":")
            for name in names.split():
                with self.subTest(name=f"{module}.{name}"):
                    self.assertTrue(hasattr(importlib.import_module(module), name))

    def test_replica_ids(self) -> None:
        from ray.serve._private.common import DeploymentID, ReplicaID

        r = ReplicaID("abc", DeploymentID("D", "app"))
        self.assertEqual(str(r), "Replica(id='abc', deployment='D', app='app')")
        self.assertEqual(r.to_full_id_str(), "app#D#abc")
        self.assertEqual(ReplicaID.from_full_id_str("SERVE_REPLICA::app#D#abc"), r)


if __name__ == "__main__":
    unittest.main()
