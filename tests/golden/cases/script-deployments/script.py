import asyncio
import json
import os
import re
import threading
import time
import urllib.error
import urllib.request

import ray
from ray import serve

PORT = int(os.environ["GOLDEN_PORT"])


def out(*values):
    print("OUT", *values, flush=True)


def attempt(label, f):
    try:
        out(label, "->", f())
    except BaseException as e:
        if type(e).__name__ == "ValidationError":
            return out(label, "raised ValidationError")
        text = str(e).strip().splitlines()
        out(label, "raised", type(e).__name__, "|", re.sub("[0-9a-f]{8}-[0-9a-f-]{27}", "ID", text[-1])[:200] if text else "")


def http(path, data=None, method=None, headers={}):
    body = data if data is None or isinstance(data, bytes) else json.dumps(data).encode()
    r = urllib.request.Request("http://127.0.0.1:%d%s" % (PORT, path), data=body, method=method, headers=headers)
    try:
        with urllib.request.urlopen(r, timeout=60) as f:
            return f.status, f.headers.get("content-type"), f.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.headers.get("content-type"), e.read().decode()


serve.start(http_options={"host": "127.0.0.1", "port": PORT})


from ray.serve.config import AutoscalingConfig, HTTPOptions
from ray.serve.schema import LoggingConfig


@serve.deployment(num_replicas=2, max_ongoing_requests=3, user_config={"k": 1}, ray_actor_options={"num_cpus": 0.1}, health_check_period_s=5, graceful_shutdown_timeout_s=1)
class D:
    def __init__(self, a, b=2):
        self.a = a
        self.b = b
        c = serve.get_replica_context()
        self.early = [c.app_name, c.deployment, type(c.servable_object).__name__]
        self.configs = []

    async def reconfigure(self, config):
        self.configs.append(config)

    def __call__(self, request=None):
        return "x"

    def state(self):
        return [self.a, self.b, self.early, self.configs]

    def context(self):
        c = serve.get_replica_context()
        return [c.app_name, c.deployment, len(c.replica_tag), str(c.replica_id.deployment_id), c.replica_id.unique_id == c.replica_tag, type(c.servable_object).__name__, c.rank.rank in (0, 1), c.world_size, type(c.replica_id).__name__]

    def request(self):
        c = serve.context._serve_request_context.get()
        return [c.route, c.app_name, c.multiplexed_model_id, len(c.request_id) > 10]


attempt("name", lambda: D.name)
attempt("num_replicas", lambda: D.num_replicas)
attempt("user_config", lambda: D.user_config)
attempt("max_ongoing_requests", lambda: D.max_ongoing_requests)
attempt("max_queued_requests", lambda: D.max_queued_requests)
attempt("ray_actor_options", lambda: D.ray_actor_options)
attempt("version", lambda: D.version)
attempt("func_or_class", lambda: D.func_or_class.__name__)
attempt("init_args", lambda: D.init_args)
attempt("route_prefix", lambda: D.route_prefix)
attempt("url", lambda: D.url)
attempt("options", lambda: [D.options(name="E").name, D.options(num_replicas=5).num_replicas, D.num_replicas])
attempt("call", lambda: D())
attempt("equal", lambda: [D == D.options(), D == D.options(name="F")])
attempt("repr", lambda: [str(D), repr(D)])
attempt("bind", lambda: type(D.bind(1)).__name__)
attempt("is app", lambda: isinstance(D.bind(1), serve.Application))
attempt("bad options", lambda: D.options(absent=1))
for kw in ({"num_replicas": 0}, {"num_replicas": -1}, {"num_replicas": "many"}, {"num_replicas": 1.5}, {"max_ongoing_requests": 0}, {"max_ongoing_requests": None}, {"max_queued_requests": 0}, {"max_queued_requests": -2}, {"num_replicas": 2, "autoscaling_config": {"min_replicas": 1}}, {"autoscaling_config": {"min_replicas": 5, "max_replicas": 2}}, {"autoscaling_config": {"target_ongoing_requests": 0}}, {"ray_actor_options": {"resources": {"CPU": 1}}}, {"ray_actor_options": {"num_cpus": -1}}, {"ray_actor_options": 5}, {"health_check_period_s": 0}, {"health_check_timeout_s": -1}, {"graceful_shutdown_timeout_s": -1}, {"user_config": b"bytes"}, {"user_config": {1, 2}}, {"placement_group_strategy": "PACK"}, {"placement_group_bundles": []}, {"max_replicas_per_node": 0}, {"max_replicas_per_node": 101}, {"max_constructor_retry_count": 0}, {"logging_config": {"absent": 1}}, {"logging_config": {"log_level": "LOUD"}}, {"name": 5}, {"name": ""}, {"version": "1"}, {"max_surge_percent": 101}, {"rolling_update_percentage": 0}, {"backpressure_config": {"status_code": 500}}, {"request_router_config": {"request_routing_stats_period_s": 0}}):
    attempt("deployment %s" % sorted(kw.items(), key=str), lambda: serve.deployment(**kw)(type("X", (), {})).name)
attempt("function", lambda: serve.deployment(lambda r: 1).name)
h = serve.run(D.bind(1, b=[2]), name="app", route_prefix="/app")
attempt("state", lambda: h.state.remote().result())
attempt("context", lambda: h.context.remote().result())
attempt("request", lambda: h.request.remote().result())
attempt("outside", lambda: serve.get_replica_context())
s = serve.status().applications["app"]
attempt("status", lambda: [s.status, s.message, sorted(s.deployments), s.deployments["D"].status, s.deployments["D"].status_trigger, {str(k): v for k, v in s.deployments["D"].replica_states.items()}])
h = serve.run(D.options(user_config={"k": 2}).bind(1), name="app", route_prefix="/app")
attempt("changed", lambda: h.state.remote().result()[3][-1])


@serve.deployment
def function(request):
    return "function"


@serve.deployment
async def coroutine(x):
    return ["coroutine", x if isinstance(x, (int, str)) else type(x).__name__]


@serve.deployment
def generator(n):
    for i in range(n if isinstance(n, int) else 2):
        yield i


f = serve.run(function.bind(), name="f", route_prefix="/f")
attempt("function", lambda: [f.remote("x").result(), http("/f")])
g = serve.run(coroutine.bind(), name="g", route_prefix="/g")
attempt("coroutine", lambda: [g.remote(1).result(), http("/g")])
attempt("function with arguments", lambda: serve.run(function.bind(1), name="f2", route_prefix="/f2"))
k = serve.run(generator.bind(), name="k", route_prefix=None)
attempt("generator function", lambda: list(k.options(stream=True).remote(3)))


@serve.deployment
class Holder:
    def __init__(self, parts, named=None):
        self.parts = parts
        self.named = named

    async def __call__(self, request=None):
        return [[await p.remote(i) for i, p in enumerate(self.parts)], await self.named["x"][0].remote("named")]


c1 = coroutine.options(name="c1").bind()
n = serve.run(Holder.bind([c1, c1, coroutine.options(name="c2").bind()], named={"x": [c1]}), name="n", route_prefix="/n")
attempt("nested handles", lambda: n.remote().result())
attempt("deployments", lambda: sorted(serve.status().applications["n"].deployments))
attempt("http", lambda: http("/n"))


@serve.deployment
class Returns:
    def __call__(self, request):
        what = request.query_params["what"]
        import datetime
        import uuid
        from dataclasses import dataclass
        from enum import Enum

        import numpy as np
        from starlette.responses import JSONResponse, Response

        @dataclass
        class Data:
            x: int
            y: str

        class Color(Enum):
            RED = 1

        return {"int": 1, "float": 1.5, "str": "text é", "bytes": b"bytes", "none": None, "true": True, "list": [1, "a", None], "dict": {"b": 1, "a": {"c": 2}}, "tuple": (1, 2), "set": {1}, "data": Data(1, "z"), "enum": Color.RED, "date": datetime.date(2020, 1, 2), "datetime": datetime.datetime(2020, 1, 2, 3), "uuid": uuid.UUID(int=5), "np": np.arange(3), "np_int": np.int64(4), "np_float": np.float32(0.5), "np_nested": {"a": np.ones((2, 2)), "b": [np.bool_(True)]}, "response": Response("r", 201, {"x-a": "b"}, "text/q"), "json": JSONResponse([1], 203), "empty": "", "nested": [[[]]], "big": 2**70, "exception": ValueError("v")}[what]


serve.run(Returns.bind(), name="r", route_prefix="/r")
for what in ("int", "float", "str", "bytes", "none", "true", "list", "dict", "tuple", "set", "data", "enum", "date", "datetime", "uuid", "np", "np_int", "np_float", "np_nested", "response", "json", "empty", "nested", "big", "exception"):
    attempt("returns " + what, lambda: http("/r?what=" + what))


class Parent:
    def hello(self):
        return "parent"


@serve.deployment
class Child(Parent):
    def hello(self):
        return "child of " + super().hello()


attempt("inheritance", lambda: serve.run(Child.bind(), name="c", route_prefix=None).hello.remote().result())


@serve.deployment
class AsyncInit:
    async def __init__(self):
        await asyncio.sleep(0.01)
        self.ready = True

    def __call__(self, request=None):
        return self.ready


attempt("async init", lambda: serve.run(AsyncInit.bind(), name="ai", route_prefix=None).remote().result())
attempt("http options", lambda: [HTTPOptions().port, HTTPOptions().host, HTTPOptions().root_path])
attempt("http options bad", lambda: HTTPOptions(port="x"))
attempt("autoscaling", lambda: [AutoscalingConfig().min_replicas, AutoscalingConfig().target_ongoing_requests, AutoscalingConfig(max_replicas=3).max_replicas])
attempt("logging", lambda: [LoggingConfig().encoding, LoggingConfig(log_level="DEBUG").log_level, LoggingConfig(log_level=10).log_level])
attempt("run many none", lambda: serve.run_many([]))
hs = serve.run_many([serve.RunTarget(function.bind(), name="m1", route_prefix="/m1"), serve.RunTarget(coroutine.bind(), name="m2", route_prefix="/m2")])
attempt("run many", lambda: [len(hs), http("/m1"), http("/m2")])
serve.delete("m1")
attempt("deleted", lambda: [http("/m1")[0], "m1" in serve.status().applications])
attempt("routes", lambda: json.loads(http("/-/routes")[2]))
serve.shutdown()
attempt("after shutdown", lambda: serve.status().applications)
