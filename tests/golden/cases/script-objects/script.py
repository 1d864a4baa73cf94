import asyncio
import json
import os
import re
import threading
import time

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



import numpy as np

ray.init(ignore_reinit_error=True)
serve.start(http_options={"host": "127.0.0.1", "port": PORT})


@serve.deployment(max_ongoing_requests=20)
class S:
    def total(self, a):
        return [type(a).__name__, str(a.dtype), list(a.shape), float(a.sum()), bool(a.flags.writeable)]

    def make(self, n):
        return np.ones(n)

    def both(self, a, b=None):
        return [type(a).__name__, type(b).__name__]

    def ref(self):
        return [ray.put("inside")]

    def use(self, refs):
        return ray.get(refs[0])

    async def await_ref(self, refs):
        return await refs[0]

    def size(self, b):
        return len(b)

    def fail(self):
        raise KeyError("upstream")


h = serve.run(S.bind(), name="s", route_prefix=None)
attempt("array", lambda: h.total.remote(np.arange(10)).result()[:4])
attempt("large array", lambda: h.total.remote(np.ones((1000, 1000))).result()[:4])
attempt("array back", lambda: (lambda a: [a.shape, float(a.sum())])(h.make.remote(1_000_000).result()))
attempt("bytes", lambda: h.size.remote(b"x" * 5_000_000).result())
ref = ray.put(np.arange(100))
attempt("ref argument", lambda: h.total.remote(ref).result()[:4])
attempt("ref keyword", lambda: h.both.remote(1, b=ray.put("s")).result())
attempt("ref in list", lambda: h.use.remote([ray.put("listed")]).result())
attempt("ref awaited", lambda: h.await_ref.remote([ray.put("awaited")]).result())
attempt("ref returned", lambda: ray.get(h.ref.remote().result()[0]))
attempt("response as ref", lambda: ray.get(h.size.remote(b"123")._to_object_ref_sync()))
attempt("chain", lambda: h.total.remote(h.make.remote(1000)).result()[:4])
attempt("chain of failure", lambda: h.total.remote(h.fail.remote()).result())


@ray.remote
def task(a):
    return float(np.asarray(a).sum())


attempt("response ref to task", lambda: ray.get(task.remote(h.make.remote(10)._to_object_ref_sync())))
attempt("handle in task", lambda: ray.get(ray.remote(lambda handle: handle.size.remote(b"12").result()).remote(h)))


@ray.remote
class Caller:
    def __init__(self, handle):
        self.handle = handle

    async def call(self):
        return await self.handle.size.remote(b"1234")


attempt("handle in actor", lambda: ray.get(Caller.remote(h).call.remote()))
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

pg = placement_group([{"CPU": 1}, {"CPU": 1}], strategy="PACK")
attempt("pg ready", lambda: ray.get(pg.ready(), timeout=20) is not None)
attempt("pg wait", lambda: pg.wait(10))
attempt("pg bundles", lambda: [pg.bundle_count, pg.bundle_specs])
attempt("pg table", lambda: [placement_group_table(pg)["state"], placement_group_table(pg)["strategy"]])
attempt("pg task", lambda: ray.get(task.options(scheduling_strategy=PlacementGroupSchedulingStrategy(placement_group=pg)).remote([1, 2])))
remove_placement_group(pg)
for _ in range(100):
    if placement_group_table(pg)["state"] == "REMOVED":
        break
    time.sleep(0.1)
attempt("pg removed", lambda: placement_group_table(pg)["state"])
attempt("pg empty", lambda: placement_group([]))
attempt("pg too large", lambda: placement_group([{"CPU": 10000}]).wait(1))
from ray.util.state import list_actors, list_nodes

os.environ["RAY_ADDRESS"] = os.environ.get("RAY_ADDRESS", "auto") if os.environ.get("RAY_ADDRESS") != "local" else "auto"
attempt("list actors", lambda: sorted({x.class_name for x in list_actors(filters=[("state", "=", "ALIVE")]) if x.class_name.startswith("ServeReplica")}))
attempt("list nodes", lambda: [len(list_nodes()), list_nodes()[0].state])
from ray.util.metrics import Counter, Gauge, Histogram

attempt("metrics", lambda: [Counter("c1", tag_keys=("a",)).inc(1, tags={"a": "b"}), Gauge("g1").set(3), Histogram("h1", boundaries=[1, 2]).observe(1.5)])
attempt("histogram without boundaries", lambda: Histogram("h2"))
attempt("counter zero", lambda: Counter("c2").inc(0))
from ray._common.test_utils import SignalActor, wait_for_condition

s = SignalActor.remote()
w = s.wait.remote()
wait_for_condition(lambda: ray.get(s.cur_num_waiters.remote()) == 1)
ray.get(s.send.remote())
attempt("signal", lambda: ray.get(w))
attempt("condition", lambda: wait_for_condition(lambda: False, timeout=0.2))
