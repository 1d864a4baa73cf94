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


def until(f, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = f()
        if value:
            return value
        time.sleep(0.05)
    return f()


def http(path, data=None, method=None, headers={}, timeout=60):
    body = data if data is None or isinstance(data, bytes) else json.dumps(data).encode()
    r = urllib.request.Request("http://127.0.0.1:%d%s" % (PORT, path), data=body, method=method, headers=headers)
    try:
        with urllib.request.urlopen(r, timeout=timeout) as f:
            return f.status, f.headers.get("content-type"), f.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.headers.get("content-type"), e.read().decode()


serve.start(http_options={"host": "127.0.0.1", "port": PORT})


import logging

from ray.serve.config import AutoscalingConfig
from ray.serve.schema import LoggingConfig

@serve.deployment(ray_actor_options={"num_cpus": 0})
class Leaf:
    def __init__(self, x):
        self.x = x

    def __call__(self, request=None):
        return self.x


@serve.deployment(ray_actor_options={"num_cpus": 0})
class Root:
    def __init__(self, *parts, **named):
        self.parts = parts
        self.named = named

    async def __call__(self, request=None):
        return [await p.remote() for p in self.parts] + sorted([[k, await v.remote()] for k, v in self.named.items()])


h = serve.run(Root.bind(Leaf.bind(1)), name="g", route_prefix="/g")
attempt("graph", lambda: [h.remote().result(), sorted(serve.status().applications["g"].deployments)])
h = serve.run(Root.bind(Leaf.bind(1), Leaf.bind(2), x=Leaf.bind(3)), name="g", route_prefix="/g")
attempt("grown", lambda: [h.remote().result(), sorted(serve.status().applications["g"].deployments)])
h = serve.run(Root.options(name="Top").bind(x=Leaf.options(name="L").bind(9)), name="g", route_prefix="/g2")
attempt("changed", lambda: [h.remote().result(), until(lambda: sorted(serve.status().applications["g"].deployments) == ["L", "Top"])])
attempt("old route", lambda: [http("/g")[0], http("/g2")[2]])


def clash():
    try:
        serve.run(Leaf.bind(5), name="clash", route_prefix="/g2")
    except serve.exceptions.RayServeException as e:
        return str(e).strip().splitlines()[-1].split("Exception: ")[-1]


attempt("other app same route", clash)
attempt("clash", lambda: sorted(serve.status().applications))
attempt("bad route", lambda: serve.run(Leaf.bind(5), name="bad", route_prefix="g2"))
attempt("bad route slash", lambda: serve.run(Leaf.bind(5), name="bad", route_prefix="/g2/"))
attempt("bad route brace", lambda: serve.run(Leaf.bind(5), name="bad", route_prefix="/{x}"))
attempt("bad name", lambda: serve.run(Leaf.bind(5), name="", route_prefix=None))
attempt("run class", lambda: serve.run(Leaf, name="x", route_prefix=None))
attempt("run function", lambda: serve.run(lambda: 1, name="x", route_prefix=None))
attempt("run result", lambda: type(serve.run(Leaf.bind(5), route_prefix="/default")).__name__)
attempt("default name", lambda: [serve.get_app_handle("default").remote().result(), "default" in serve.status().applications])
attempt("delete absent", lambda: serve.delete("absent"))
attempt("auto", lambda: [serve.deployment(num_replicas="auto")(Leaf.func_or_class).num_replicas, serve.deployment(num_replicas="auto")(Leaf.func_or_class).max_ongoing_requests])
A = Leaf.options(num_replicas="auto", autoscaling_config=None)
attempt("auto run", lambda: serve.run(Leaf.options(num_replicas="auto").bind(8), name="auto", route_prefix=None).remote().result())
attempt("autoscaling object", lambda: serve.run(Leaf.options(autoscaling_config=AutoscalingConfig(min_replicas=2, max_replicas=3)).bind(8), name="auto2", route_prefix=None).remote().result())
attempt("auto replicas", lambda: [dict(serve.status().applications[a].deployments["Leaf"].replica_states) for a in ("auto", "auto2")])
attempt("initial", lambda: serve.run(Leaf.options(autoscaling_config={"min_replicas": 1, "initial_replicas": 2, "max_replicas": 3, "downscale_delay_s": 600}).bind(8), name="auto3", route_prefix=None).remote().result())
attempt("initial replicas", lambda: [dict(serve.status().applications[a].deployments["Leaf"].replica_states) for a in ("auto3",)])
attempt("scale to zero", lambda: serve.run(Leaf.options(autoscaling_config={"min_replicas": 0, "max_replicas": 1, "upscale_delay_s": 0.1}).bind(10), name="zero", route_prefix="/zero").remote().result(timeout_s=30))
attempt("env", lambda: serve.run(serve.deployment(ray_actor_options={"num_cpus": 0, "runtime_env": {"env_vars": {"MY_VAR": "of deployment"}}})(type("E", (), {"__call__": lambda self: os.environ.get("MY_VAR")})).bind(), name="env", route_prefix=None).remote().result())


@serve.deployment(ray_actor_options={"num_cpus": 0}, logging_config=LoggingConfig(log_level="DEBUG"))
class Logs:
    def level(self):
        return [logging.getLogger("ray.serve").level, logging.getLogger("ray.serve").getEffectiveLevel(), logging.getLogger().level]


attempt("log level", lambda: serve.run(Logs.bind(), name="log", route_prefix=None).level.remote().result())
attempt("log level plain", lambda: serve.run(Logs.options(logging_config={"log_level": "WARNING"}).bind(), name="log2", route_prefix=None).level.remote().result())
attempt("log level of run", lambda: serve.run(Logs.options(logging_config=None).bind(), name="log3", route_prefix=None, logging_config={"log_level": "ERROR"}).level.remote().result())


attempt("status dict", lambda: sorted(k for k, v in serve.status().applications.items() if v.status == "RUNNING"))
attempt("multi get", lambda: serve.get_deployment_handle("L", "g").remote().result())
serve.shutdown()
