"""The user's autoscaling policies as their process calls them, and what replicas tell for them."""

import asyncio
import contextlib
import http.server
import io
import json
import os
import threading
import types
import unittest
from typing import Any, Dict, List, Optional
from unittest import mock

import fakenode  # noqa: F401  (puts the library on the path)
from ray.serve._private.common import DeploymentID
from ray.serve.autoscaling_policy import (
    PrometheusQueryMixin,
    PrometheusScalar,
    PrometheusVector,
    default_autoscaling_policy,
)
from ray.serve.config import AutoscalingConfig
from rserve import _stats
from rserve import _wire as w
from rserve._policy import Policies


def facts(**more: Any) -> Dict[str, Any]:
    config = {
        "min_replicas": 1,
        "max_replicas": 5,
        "target_ongoing_requests": 2.0,
        "aggregation_function": "mean",
        "policy": {"policy_function": more.pop("path", "m:f"), "policy_kwargs": {}},
    }
    config["policy"]["policy_kwargs"] = more.pop("kwargs", {})  # type: ignore[index]
    return {
        "current_num_replicas": 2,
        "target_num_replicas": 3,
        "running_replicas": ["a1", "b2"],
        "total_num_requests": 8.5,
        "total_queued_requests": 1.5,
        "capacity_adjusted_min_replicas": 1,
        "capacity_adjusted_max_replicas": 5,
        "last_scale_up_time": None,
        "last_scale_down_time": 12.0,
        "current_time": 100.0,
        "config": config,
        "stats": [],
        **more,
    }


def graph(**policies: Any) -> Any:
    """Of deployments whose code names these policies."""
    return types.SimpleNamespace(
        nodes={
            name: types.SimpleNamespace(
                deployment=types.SimpleNamespace(
                    _options={"autoscaling_config": {"policy": {"policy_function": p}}}
                )
            )
            for name, p in policies.items()
        }
    )


def path_of(value: Any) -> str:
    return f"{value.__module__}:{value.__qualname__}"


class Decide(unittest.TestCase):
    def decide(self, policies: Policies, deployments: Dict[str, Any], **more: Any) -> Any:
        self.errors = io.StringIO()
        with contextlib.redirect_stderr(self.errors):
            answer = asyncio.run(policies.decide({"deployments": deployments, **more}))
        return answer["deployments"]

    def one(self, policy: Any, **more: Any) -> Any:
        policies = Policies(graph(D=policy), "app")
        return self.decide(policies, {"D": facts(path=path_of(policy), **more)})["D"]

    def test_context(self) -> None:
        seen: List[Any] = []

        def policy(ctx: Any) -> Any:
            seen.append(ctx)
            return 2.5, {}

        asked = facts(path=path_of(policy))
        asked["config"]["metrics_interval_s"] = 3.0  # deprecated: who wrote it was told
        with mock.patch("logging.Logger.handle") as handle:
            answer = self.decide(Policies(graph(D=policy), "app"), {"D": asked})
        handle.assert_not_called()
        self.assertEqual(answer["D"], {"replicas": 2.5})
        ctx = seen[0]
        self.assertEqual(ctx.deployment_id, DeploymentID("D", "app"))
        self.assertEqual((ctx.deployment_name, ctx.app_name), ("D", "app"))
        self.assertEqual([r.unique_id for r in ctx.running_replicas], ["a1", "b2"])
        self.assertEqual(ctx.total_running_requests, 7)
        self.assertIsInstance(ctx.config, AutoscalingConfig)
        self.assertEqual(ctx.config.max_replicas, 5)
        self.assertEqual(ctx.policy_state, {})
        self.assertEqual(ctx.last_scale_down_time, 12)

    def test_state_is_kept(self) -> None:
        def policy(ctx: Any) -> Any:
            n = ctx.policy_state.get("n", 0)
            if n == 1 and not ctx.policy_state.get("again"):
                ctx.policy_state["again"] = True
                raise RuntimeError("once")
            return n, {**ctx.policy_state, "n": n + 1}

        policies = Policies(graph(D=policy), "app")
        asked = {"D": facts(path=path_of(policy))}
        got = [self.decide(policies, asked)["D"] for _ in range(4)]
        self.assertEqual(got[0], {"replicas": 0})
        self.assertIn("RuntimeError: once", got[1]["error"])
        self.assertEqual(got[2:], [{"replicas": 1}, {"replicas": 2}])

    def test_a_class_is_made_once(self) -> None:
        made: List[int] = []

        class Policy:
            def __init__(self, factor: int) -> None:
                made.append(factor)
                self.factor = factor

            async def __call__(self, ctx: Any) -> Any:
                await asyncio.sleep(0)
                return self.factor, None

        policies = Policies(graph(D=Policy), "app")
        for factor in (2, 2, 3):
            asked = facts(path=path_of(Policy), kwargs={"factor": factor})
            self.assertEqual(self.decide(policies, {"D": asked})["D"], {"replicas": factor})
        self.assertEqual(made, [2, 3])

    def test_below_zero_is_zero(self) -> None:
        self.assertEqual(self.one(lambda ctx: (-1.5, {})), {"replicas": 0.0})

    def test_wrong_answers(self) -> None:
        for value in (3, None, (1, 2, 3), ("many", {}), (float("nan"), {}),
                      (float("inf"), {}), (None, {})):
            with self.subTest(value=value):
                def policy(ctx: Any, value: Any = value) -> Any:
                    return value

                self.assertEqual(list(self.one(policy)), ["error"])

    def test_one_fails_the_others_go_on(self) -> None:
        def good(ctx: Any) -> Any:
            return 4, {}

        policies = Policies(graph(A=good, B="nowhere:policy"), "app")
        asked = {"A": facts(path=path_of(good)), "B": facts(path="nowhere:policy"),
                 "C": facts(path="json:no_such_name"), "E": facts(path="nothing")}
        for _ in range(2):
            got = self.decide(policies, asked)
            self.assertEqual(got["A"], {"replicas": 4})
            self.assertIn("nowhere", got["B"]["error"])
            self.assertIn("no_such_name", got["C"]["error"])
            self.assertIn("nothing", got["E"]["error"])
        self.assertEqual(self.errors.getvalue(), "")  # told once

    def test_of_the_application(self) -> None:
        name = f"{__name__}:whole"
        policies = Policies(graph(), "app")
        asked = {n: facts(total_num_requests=x) for n, x in (("A", 3.0), ("B", 5.0), ("C", 0.0))}
        got = self.decide(policies, asked, application_policy={"policy_function": name})
        self.assertEqual(got, {"A": {"replicas": 3}, "B": {"replicas": 5}})
        got = self.decide(policies, asked, application_policy={
            "policy_function": name, "policy_kwargs": {"add": 1}})
        self.assertEqual(got, {"A": {"replicas": 4}, "B": {"replicas": 6}})
        got = self.decide(policies, asked, application_policy={"policy_function": "nowhere:x"})
        self.assertEqual({k: list(v) for k, v in got.items()},
                         {k: ["error"] for k in "ABC"})

    def test_metrics_of_replicas(self) -> None:
        seen: Dict[str, Any] = {}

        def policy(ctx: Any) -> Any:
            seen["agg"], seen["raw"] = ctx.aggregated_metrics, ctx.raw_metrics
            return 1, {}

        stats = [[90.0, "a1", {"x": 1, "y": 5}], [95.0, "a1", {"x": 3}], [97.0, "b2", {"x": 7}]]
        for how, want in (("mean", 2.0), ("max", 3.0), ("min", 1.0)):
            asked = facts(path=path_of(policy), stats=stats)
            asked["config"]["aggregation_function"] = how
            self.decide(Policies(graph(D=policy), "app"), {"D": asked})
            by_id = {r.unique_id: v for r, v in seen["agg"]["x"].items()}
            self.assertEqual(by_id, {"a1": want, "b2": 7.0})
            self.assertEqual(list(seen["agg"]["y"].values()), [5.0])
        raw = {r.unique_id: [(s.timestamp, s.value) for s in v]
               for r, v in seen["raw"]["x"].items()}
        self.assertEqual(raw, {"a1": [(90.0, 1), (95.0, 3)], "b2": [(97.0, 7)]})

    def test_the_default_policy_can_be_called(self) -> None:
        def policy(ctx: Any) -> Any:
            number, state = default_autoscaling_policy(ctx)
            return number * 2, state

        self.assertEqual(self.one(policy), {"replicas": 8.5})
        self.assertEqual(self.one(policy, current_num_replicas=0), {"replicas": 6})
        self.assertEqual(
            self.one(policy, current_num_replicas=0, total_num_requests=0.0), {"replicas": 6})


def whole(contexts: Dict[Any, Any], add: int = 0) -> Any:
    return {d: c.total_num_requests + add for d, c in contexts.items() if d.name != "C"}, {
        d: {"seen": True} for d in contexts}


class Link:
    def __init__(self) -> None:
        self.sent: List[Any] = []

    def send_json(self, kind: int, message: Dict[str, Any]) -> None:
        assert kind == w.STATS
        self.sent.append(message)


class Stats(unittest.TestCase):
    def run_for(self, servable: Any, enough: Any, config: Optional[Dict[str, Any]] = None) -> Link:
        link = Link()

        async def main() -> None:
            tasks = _stats.start(link, servable, config or {
                "autoscaling_config": {"metrics_interval_s": 0.001},
                "request_router_config": {"request_routing_stats_period_s": 0.001}})
            deadline = asyncio.get_running_loop().time() + 30
            while not enough(link) and asyncio.get_running_loop().time() < deadline:
                await asyncio.sleep(0.001)
            for task in tasks:
                task.cancel()

        asyncio.run(main())
        self.assertTrue(enough(link))
        return link

    def test_both_are_told(self) -> None:
        class D:
            n = 0

            def record_autoscaling_stats(self) -> Any:
                self.n += 1
                if self.n == 2:
                    raise ValueError("not now")
                return {"x": self.n}

            async def record_routing_stats(self) -> Any:
                return {"best": [1]}

        with self.assertLogs("ray.serve", "WARNING") as logs:
            link = self.run_for(D(), lambda link: {"autoscaling_stats": {"x": 3}} in link.sent
                                and {"routing_stats": {"best": [1]}} in link.sent)
        self.assertNotIn({"autoscaling_stats": {"x": 2}}, link.sent)
        self.assertEqual(_stats._failed.info["name"], "serve_record_autoscaling_stats_failed")
        self.assertIn("not now", logs.output[0])

    def test_the_wrong_type_ends_it(self) -> None:
        for value in (3, {"x": "many"}, {1: 2}, {"x": True}, {"x": float("nan")}):
            calls: List[int] = []

            class D:
                def record_autoscaling_stats(self, value: Any = value) -> Any:
                    calls.append(1)
                    return value

            with self.subTest(value=value), self.assertLogs("ray.serve", "ERROR"):
                link = self.run_for(D(), lambda link: len(calls) == 1)
                self.assertEqual(link.sent, [])

    def test_nobody_wants_to_know(self) -> None:
        class D:
            def record_autoscaling_stats(self) -> Any:
                raise AssertionError

        self.assertEqual(self.run_for(D(), lambda link: True, {"num_replicas": 1}).sent, [])
        self.assertEqual(self.run_for(lambda: 1, lambda link: True).sent, [])


class Prometheus(unittest.TestCase):
    def test_queries(self) -> None:
        answers = {
            "one": {"resultType": "scalar", "result": [7.0, "2.5"]},
            "some": {"resultType": "vector", "result": [
                {"metric": {"a": "1"}, "value": [7.0, "3"]}]},
        }
        seen: List[Any] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = self.path.split("query=")[1]
                seen.append((query, self.headers.get("X-Scope")))
                body = json.dumps({"status": "success", "data": answers[query]}
                                  if query in answers else {"status": "error"}).encode()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        class Policy(PrometheusQueryMixin):
            def __call__(self, ctx: Any) -> Any:
                return self.prometheus_results, self.prometheus_metrics

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()

        async def main() -> Any:
            policy = Policy(prometheus_address=f"http://127.0.0.1:{server.server_port}/",
                            prometheus_queries=["one", "bad", "some"], fetch_interval_s=60)
            self.assertEqual(policy(None), ({}, {}))  # it never waits
            for _ in range(1000):
                await asyncio.sleep(0.01)
                if len(policy(None)[0]) == 2:
                    break
            return policy(None)

        with mock.patch.dict(os.environ, {"RAY_PROMETHEUS_HEADERS": '{"X-Scope": "me"}'}), \
                self.assertLogs("ray.serve", "WARNING"):
            results, metrics = asyncio.run(main())
        server.shutdown()
        thread.join()
        server.server_close()
        self.assertEqual(results["one"], PrometheusScalar(2.5, 7.0))
        self.assertIsInstance(results["some"], PrometheusVector)
        self.assertEqual(metrics, {"one": 2.5, "some": 3.0})
        self.assertEqual(seen[0], ("one", "me"))

    def test_wrong_configuration(self) -> None:
        with mock.patch.dict(os.environ, {"RAY_PROMETHEUS_HOST": ""}):
            with self.assertRaisesRegex(ValueError, "RAY_PROMETHEUS_HOST"):
                PrometheusQueryMixin(prometheus_queries=["up"])
        with mock.patch.dict(os.environ, {"RAY_PROMETHEUS_HEADERS": "nonsense"}):
            with self.assertRaisesRegex(ValueError, "JSON"):
                PrometheusQueryMixin()


if __name__ == "__main__":
    unittest.main()
