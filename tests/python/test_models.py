"""The models of ray.serve.config and ray.serve.schema, with pydantic and without.

Each check runs on the library's own classes and, where pydantic is installed, on the ones made of
them.
"""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
import unittest
from typing import Any, Callable, Dict, List
from unittest import mock

import fakenode
from ray.serve import config, schema
from rserve import _config, _details, _model, _schema

from test_names import facts

FILE: Dict[str, Any] = {
    "http_options": {"port": 9001, "unknown": 1},
    "applications": [
        {
            "name": "a",
            "import_path": "m:app",
            "deployments": [
                {
                    "name": "D",
                    "num_replicas": "auto",
                    "autoscaling_config": {"max_replicas": 3},
                    "ray_actor_options": {"num_cpus": "0.5"},
                    "logging_config": {"log_level": "DEBUG"},
                }
            ],
        },
        {"name": "b", "import_path": "m.app", "route_prefix": "/b"},
    ],
}


class Kind:
    """The models by name: the library's own, or the ones that programs see."""

    def __init__(self, public: bool) -> None:
        self.public = public

    def __getattr__(self, name: str) -> Any:
        for module in (_config, _schema, _details):
            if hasattr(module, name):
                found = getattr(module, name)
                return _model.public(found) if self.public else found
        raise AttributeError(name)


class Both(unittest.TestCase):
    """Runs `check(models)` for both kinds of model."""

    def both(self, check: Callable[[Any], None]) -> None:
        kinds = [False] if _model.pydantic() is None else [False, True]
        for public in kinds:
            with self.subTest(pydantic=public):
                check(Kind(public))

    def refused(self, text: str, make: Callable[[], Any]) -> None:
        with self.assertRaises(ValueError) as caught:
            make()
        self.assertIn(text, str(caught.exception))


class Values(Both):
    def test_conversions(self) -> None:
        def check(m: Any) -> None:
            c = m.AutoscalingConfig(min_replicas="2", max_replicas=5.0, upscale_delay_s="1.5")
            self.assertEqual([c.min_replicas, c.max_replicas, c.upscale_delay_s], [2, 5, 1.5])
            self.assertEqual(c.policy.policy_function, _config.DEFAULT_AUTOSCALING_POLICY_NAME)
            self.assertTrue(c.policy.is_default_policy_function())
            c = m.AutoscalingConfig(aggregation_function="MAX", policy={"policy_kwargs": {"a": 1}})
            self.assertIs(c.aggregation_function, config.AggregationFunction.MAX)
            self.assertEqual(c.policy.policy_kwargs, {"a": 1})
            self.assertEqual(m.AutoscalingConfig.default().max_replicas, 100)
            http = m.HTTPOptions(host=None, location="NoServer")
            self.assertIs(http.location, config.ProxyLocation.Disabled)
            self.assertIs(m.HTTPOptions(host=None).location, config.ProxyLocation.Disabled)
            gang = m.GangSchedulingConfig(gang_size=2, gang_placement_strategy="SPREAD")
            self.assertIs(gang.gang_placement_strategy, config.GangPlacementStrategy.SPREAD)
            log = m.LoggingConfig(log_level="WARNING", additional_log_standard_attrs=["name"])
            self.assertEqual([log.log_level, log.encoding], ["WARNING", "TEXT"])
            actor = m.DeploymentActorConfig(name="n", actor_class="collections:OrderedDict")
            self.assertEqual(actor.get_actor_class().__name__, "OrderedDict")

        self.both(check)

    def test_refusals(self) -> None:
        def check(m: Any) -> None:
            cases: List[Any] = [
                (
                    "Input should be greater than or equal to 0",
                    m.AutoscalingConfig,
                    "min_replicas",
                    -1,
                ),
                ("Input should be greater than 0", m.AutoscalingConfig, "max_replicas", 0),
                ("must be greater than or equal to min", m.AutoscalingConfig, "min_replicas", 2),
                ("must be less than or equal to max", m.AutoscalingConfig, "initial_replicas", 3),
                ("valid integer, unable to parse", m.AutoscalingConfig, "max_replicas", "many"),
                ("fractional part", m.AutoscalingConfig, "max_replicas", 1.5),
                ("valid number", m.AutoscalingConfig, "upscale_delay_s", []),
                ("Invalid aggregation function", m.AutoscalingConfig, "aggregation_function", "x"),
                (
                    "policy_kwargs is not JSON",
                    m.AutoscalingPolicy,
                    "policy_kwargs",
                    {"a": object()},
                ),
                ("Input should be 503 or 429", m.BackpressureConfig, "status_code", 500),
                ("Extra inputs are not permitted", m.BackpressureConfig, "statuscode", 503),
                ("Extra inputs are not permitted", m.LoggingConfig, "level", "INFO"),
                ("log_level must be one of", m.LoggingConfig, "log_level", "LOUD"),
                ("Encoding must be one of", m.LoggingConfig, "encoding", "XML"),
                ("Unknown attribute 'x'", m.LoggingConfig, "additional_log_standard_attrs", ["x"]),
                ("between 0 and 1", m.TracingConfig, "sampling_ratio", 2),
                ("must be provided together", m.HTTPOptions, "ssl_keyfile", "k"),
                ("must be provided together", m.HTTPOptionsSchema, "ssl_certfile", "c"),
                ("no longer supported", m.HTTPOptions, "num_cpus", 1),
                ("'HeadOnly' or 'EveryNode'", m.HTTPOptions, "location", "Everywhere"),
                ("Field required", m.CeleryAdapterConfig, "broker_url", "redis://"),
                ("valid string", m.ControllerOptions, "runtime_env", {1: 2}),
            ]
            for text, model, name, value in cases:
                with self.subTest(model=model.__name__, field=name):
                    self.refused(text, lambda m=model, n=name, v=value: m(**{n: v}))
            with self.assertRaises(NotImplementedError):
                m.GangSchedulingConfig(gang_size=1, runtime_failure_policy="RESTART_REPLICA")

        self.both(check)

    def test_files(self) -> None:
        def check(m: Any) -> None:
            file = m.ServeDeploySchema.model_validate(copy.deepcopy(FILE))
            self.assertEqual([a.name for a in file.applications], ["a", "b"])
            self.assertEqual(file.http_options.port, 9001)
            deployment = file.applications[0].deployments[0]
            self.assertTrue(deployment.is_autoscaling_configured())
            self.assertEqual(deployment.ray_actor_options.num_cpus, 0.5)
            self.assertEqual(file.applications[0].deployment_names, ["D"])
            self.assertEqual(deployment.user_config, _schema.NOT_SET)
            told = file.model_dump(exclude_unset=True, mode="json")
            self.assertEqual(told["http_options"], {"port": 9001})
            self.assertEqual(told["applications"][1], FILE["applications"][1])
            text = file.model_dump_json(exclude_unset=True)
            again = m.ServeDeploySchema.model_validate_json(text)
            self.assertEqual(again.model_dump(exclude_unset=True, mode="json"), told)
            empty = m.ServeDeploySchema.get_empty_schema_dict()
            self.assertEqual(m.ServeDeploySchema.model_validate(empty).applications, [])

        self.both(check)

    def test_files_refused(self) -> None:
        def app(**more: Any) -> Dict[str, Any]:
            return {"applications": [{"import_path": "m:a", **more}]}

        def deployment(**more: Any) -> Dict[str, Any]:
            return app(deployments=[{"name": "D", **more}])

        def check(m: Any) -> None:
            two: List[Dict[str, Any]] = [{"name": n, "import_path": "m:a"} for n in ("a", "b")]
            cases: List[Any] = [
                ("Field required", {}),
                ("must be nonempty", app(name="")),
                ("Found duplicate applications for route prefix", {"applications": two}),
                (
                    'Found multiple configs for application "a"',
                    {"applications": [two[0], {**two[0], "route_prefix": "/x"}]},
                ),
                ("may have at most one colon", app(import_path="a:b:c")),
                ("may not start or end with a dot", app(import_path=".a.b")),
                ("at least one dot or colon", app(import_path="a")),
                ("support only remote URIs", app(runtime_env={"working_dir": "/x"})),
                (
                    "external_scaler_enabled",
                    {
                        "applications": [
                            {
                                "import_path": "m:a",
                                "external_scaler_enabled": True,
                                "deployments": [{"name": "D", "num_replicas": "auto"}],
                            }
                        ]
                    },
                ),
                ('Host "x" is set in the config for application', app(host="x")),
                ('must be an int or "auto"', deployment(num_replicas="many")),
                (
                    "Manually setting num_replicas",
                    deployment(num_replicas=2, autoscaling_config={}),
                ),
                ("max_queued_requests must be", deployment(max_queued_requests=0)),
                (
                    "max_replicas_per_node is not allowed",
                    deployment(max_replicas_per_node=1, placement_group_bundles=[{"CPU": 1}]),
                ),
                (
                    "multiple of gang_size",
                    deployment(num_replicas=3, gang_scheduling_config={"gang_size": 2}),
                ),
                (
                    "placement_group_strategy is not allowed",
                    deployment(
                        placement_group_strategy="PACK", gang_scheduling_config={"gang_size": 2}
                    ),
                ),
                (
                    "placement_group_bundle_label_selector is not allowed",
                    deployment(placement_group_bundle_label_selector=[{"a": "b"}]),
                ),
                (
                    "applications.0.deployments.0.max_ongoing_requests",
                    deployment(max_ongoing_requests=0),
                ),
                ("less than or equal to 100", {"applications": [], "target_capacity": 101}),
            ]
            for text, value in cases:
                with self.subTest(text=text):
                    self.refused(text, lambda v=value: m.ServeDeploySchema.model_validate(v))

        self.both(check)

    def test_unknown_and_legacy_names(self) -> None:
        def check(m: Any) -> None:
            c = m.AutoscalingConfig(target_num_ongoing_requests_per_replica=7, nonsense=1)
            self.assertEqual(c.target_ongoing_requests, 7)
            self.assertFalse(hasattr(c, "nonsense"))
            both = {"target_num_ongoing_requests_per_replica": 7, "target_ongoing_requests": 3}
            self.assertEqual(m.AutoscalingConfig(**both).target_ongoing_requests, 3)

        self.both(check)

    def test_copies_equality_pickles(self) -> None:
        def check(m: Any) -> None:
            c = m.AutoscalingConfig(max_replicas=4, policy={"policy_function": "a:b"})
            self.assertEqual(
                c, m.AutoscalingConfig(max_replicas=4, policy={"policy_function": "a:b"})
            )
            self.assertNotEqual(c, m.AutoscalingConfig(max_replicas=4))
            self.assertEqual(c.model_fields_set, {"max_replicas", "policy"})
            changed = c.model_copy(update={"max_replicas": 9})
            self.assertEqual([c.max_replicas, changed.max_replicas], [4, 9])
            deep = c.model_copy(deep=True)
            deep.policy.policy_kwargs["x"] = 1
            self.assertEqual(c.policy.policy_kwargs, {})
            for other in (copy.copy(c), copy.deepcopy(c)):
                self.assertEqual(other, c)
                self.assertEqual(other.model_fields_set, c.model_fields_set)
            self.assertIn("max_replicas=4", repr(c))
            back = pickle.loads(pickle.dumps(c))
            self.assertIs(type(back), config.AutoscalingConfig)
            self.assertEqual(back.model_dump(), c.model_dump())
            self.assertEqual(back.model_fields_set, c.model_fields_set)
            self.assertEqual(
                m.LoggingConfig(additional_log_standard_attrs=["name"]), m.LoggingConfig()
            )

        self.both(check)

    def test_policies_and_routers_by_value(self) -> None:
        def check(m: Any) -> None:
            policy = m.AutoscalingPolicy(policy_function=json.dumps)
            self.assertFalse(policy.is_default_policy_function())
            pickled = policy.get_serialized_policy_def()
            policy.serialize_policy()
            self.assertEqual(policy.policy_function, "json:dumps")
            self.assertIs(policy.get_policy(), json.dumps)
            again = m.AutoscalingPolicy.from_serialized_policy_def(policy.model_dump(), pickled)
            self.assertIs(again.get_policy(), json.dumps)
            router = m.RequestRouterConfig(request_router_class="json:dumps")
            self.assertIs(router.get_request_router_class(), json.dumps)
            self.assertIsNone(router.get_serialized_request_router_cls())
            grpc = m.gRPCOptions(grpc_servicer_functions=["json:dumps"])
            self.assertEqual(grpc.grpc_servicer_func_callable, [json.dumps])
            with self.assertRaises(ValueError):
                m.gRPCOptions(grpc_servicer_functions=["json:nothing"]).grpc_servicer_func_callable

        self.both(check)

    def test_details(self) -> None:
        details = {
            "proxies": {"n": {"status": "HEALTHY", "node_ip": "127.0.0.1"}},
            "applications": {
                "a": {
                    "name": "a",
                    "route_prefix": "/",
                    "docs_path": None,
                    "status": "RUNNING",
                    "message": "",
                    "last_deployed_time_s": 1.5,
                    "source": "declarative",
                    "external_scaler_enabled": False,
                    "deployments": {
                        "D": {
                            "name": "D",
                            "status": "HEALTHY",
                            "status_trigger": "CONFIG_UPDATE_COMPLETED",
                            "message": "",
                            "deployment_config": {"name": "D", "num_replicas": 1},
                            "target_num_replicas": 1,
                            "required_resources": {"CPU": 1},
                            "replicas": [
                                {"replica_id": "x", "state": "RUNNING", "start_time_s": 2.5}
                            ],
                        }
                    },
                }
            },
        }

        def check(m: Any) -> None:
            read = m.ServeInstanceDetails.model_validate(details)
            deployment = read.applications["a"].deployments["D"]
            self.assertIs(deployment.replicas[0].state, schema.ReplicaState.RUNNING)
            self.assertIs(read.proxies["n"].status, schema.ProxyStatus.HEALTHY)
            self.assertEqual(read.model_dump(exclude_unset=True, mode="json"), details)
            self.refused(
                "must start with a forward slash",
                lambda: m.ApplicationDetails.model_validate(
                    {**details["applications"]["a"], "route_prefix": "x"}  # type: ignore[index]
                ),
            )
            stats = m.DurationStats.from_values([1.0, 3.0])
            self.assertEqual([stats.mean, stats.std, stats.min, stats.max], [2, 1, 1, 3])

        self.both(check)


@unittest.skipIf(_model.pydantic() is None, "pydantic is not installed")
class WithPydantic(unittest.TestCase):
    maxDiff = None

    def test_they_are_pydantic_models(self) -> None:
        from pydantic import BaseModel, ValidationError

        class Mine(BaseModel):
            scaling: config.AutoscalingConfig
            log: schema.LoggingConfig = schema.LoggingConfig()

        mine = Mine(scaling={"max_replicas": 2})
        self.assertIsInstance(mine.scaling, config.AutoscalingConfig)
        self.assertIsInstance(config.HTTPOptions(), BaseModel)
        self.assertIn("AutoscalingConfig", Mine.model_json_schema()["$defs"])
        with self.assertRaises(ValidationError):
            Mine(scaling={"max_replicas": 0})

    def test_json_schema(self) -> None:
        version = [int(n) for n in _model.pydantic().VERSION.split(".")[:2]]
        if version < [2, 11]:
            self.skipTest("older versions of pydantic write other schemas")

        def plain(value: Any) -> Any:
            if isinstance(value, list):
                return [plain(v) for v in value]
            if not isinstance(value, dict):
                return value
            out = {}
            for key, inner in value.items():
                if key in ("title", "description") and isinstance(inner, str):
                    continue
                out[key] = plain(inner)
            return out

        for name, theirs in facts("schema-2.60.json").items():
            with self.subTest(model=name):
                ours = plain(getattr(schema, name).model_json_schema())
                self.assertEqual(theirs, ours)


class Lean(unittest.TestCase):
    def test_importing_loads_no_pydantic(self) -> None:
        program = (
            "import sys; import ray, ray.serve, ray.serve.config, ray.serve.schema\n"
            "from ray import serve\n"
            "@serve.deployment(autoscaling_config={'max_replicas': 2}, num_replicas='auto')\n"
            "class D: pass\n"
            "D.options(logging_config={'log_level': 'INFO'}).bind()\n"
            "print([m for m in sys.modules if m.startswith('pydantic')])\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONPATH": str(fakenode.ROOT)},
            stdout=subprocess.PIPE,
            check=True,
        )
        self.assertEqual(done.stdout.decode().strip(), "[]")

    def test_importing_loads_little(self) -> None:
        heavy = (
            "http.client ipaddress pydantic urllib.request rserve._details rserve._driver "
            "rserve._schema ray.serve.schema starlette"
        )
        program = f"import sys, ray.serve; print([m for m in {heavy.split()} if m in sys.modules])"
        done = subprocess.run(
            [sys.executable, "-S", "-c", program],
            env={"PYTHONPATH": str(fakenode.ROOT)},
            stdout=subprocess.PIPE,
            check=True,
        )
        self.assertEqual(done.stdout.decode().strip(), "[]")

    def test_without_pydantic_the_classes_are_our_own(self) -> None:
        with mock.patch.object(_model, "pydantic", lambda: None):
            self.assertIs(_model.public(_config.HTTPOptions), _config.HTTPOptions)


if __name__ == "__main__":
    unittest.main()
