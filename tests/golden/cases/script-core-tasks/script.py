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


def kind(label, f):
    """Only the kind of error: its text tells of Ray's insides."""
    try:
        out(label, "->", f())
    except BaseException as e:
        out(label, "raised", type(e).__name__)


def attempt(label, f):
    try:
        out(label, "->", f())
    except BaseException as e:
        text = str(e).strip().splitlines()
        out(label, "raised", type(e).__name__, "|", re.sub("[0-9a-f]{8}-[0-9a-f-]{27}", "ID", text[-1])[:200] if text else "")



ray.init(ignore_reinit_error=True)


@ray.remote
def add(a, b=1):
    return a + b


@ray.remote(num_returns=2)
def pair(x):
    return x, x * 2


@ray.remote
def fails(text):
    raise ValueError(text)


@ray.remote
def nested(n):
    return sum(ray.get([add.remote(i) for i in range(n)]))


@ray.remote
def slow(s):
    time.sleep(s)
    return "slow"


@ray.remote(max_retries=0)
def dies():
    os._exit(3)


@ray.remote
def generator(n):
    for i in range(n):
        yield i


@ray.remote
def pid():
    return os.getpid()


attempt("task", lambda: ray.get(add.remote(1)))
attempt("keywords", lambda: ray.get(add.remote(a=1, b=5)))
attempt("list", lambda: ray.get([add.remote(i) for i in range(3)]))
attempt("options", lambda: ray.get(add.options(name="x", num_cpus=0.5).remote(2)))
attempt("pair", lambda: ray.get(list(pair.remote(4))))
attempt("ref argument", lambda: ray.get(add.remote(add.remote(1), add.remote(2))))
attempt("put", lambda: ray.get(ray.put({"a": [1, 2]})))
attempt("put argument", lambda: ray.get(add.remote(ray.put(5))))
attempt("nested", lambda: ray.get(nested.remote(4)))
attempt("other process", lambda: ray.get(pid.remote()) != os.getpid())
attempt("error", lambda: ray.get(fails.remote("text")))
attempt("error in argument", lambda: ray.get(add.remote(fails.remote("early"))))
try:
    ray.get(fails.remote("t"))
except ValueError as e:
    out("kinds", isinstance(e, ray.exceptions.RayTaskError), isinstance(e, ray.exceptions.RayError), type(e.cause).__name__)
attempt("timeout", lambda: ray.get(slow.remote(5), timeout=0.3))
kind("dies", lambda: ray.get(dies.remote()))
attempt("direct call", lambda: add(1, 2))
attempt("get of value", lambda: ray.get(5))
refs = [slow.remote(0.05), slow.remote(8)]
ready, rest = ray.wait(refs, num_returns=1, timeout=5)
out("wait", len(ready), len(rest), ready[0] == refs[0])
attempt("wait none", lambda: [len(x) for x in ray.wait([refs[1]], timeout=0.05)])
attempt("wait empty", lambda: ray.wait([]))
attempt("wait too many", lambda: ray.wait([refs[1]], num_returns=2))
attempt("wait twice", lambda: ray.wait([refs[1], refs[1]]))
ray.cancel(refs[1], force=True)
kind("cancelled", lambda: ray.get(refs[1]))
attempt("stream", lambda: [ray.get(r) for r in generator.remote(3)])
out("ref", type(refs[0]).__name__, len(refs[0].hex()) > 20, len({refs[0], refs[0]}))


async def main():
    a = await add.remote(1)
    b = await asyncio.gather(*[add.remote(i) for i in range(5)])
    try:
        await fails.remote("awaited")
    except ValueError as e:
        c = str(e).strip().splitlines()[-1]
    return [a, b, c]


attempt("asyncio", lambda: asyncio.run(main()))
attempt("future", lambda: add.remote(1).future().result(timeout=10))
attempt("closure", lambda: ray.get(ray.remote(lambda x: x + 1).remote(1)))
kind("bad option", lambda: add.options(absent=1))
attempt("initialized", lambda: ray.is_initialized())
attempt("nodes", lambda: [len(ray.nodes()), ray.nodes()[0]["Alive"], "CPU" in ray.nodes()[0]["Resources"]])
attempt("resources", lambda: ["CPU" in ray.cluster_resources(), type(ray.available_resources()).__name__])
attempt("context", lambda: [len(ray.get_runtime_context().get_node_id()) > 20, ray.get_runtime_context().get_actor_id(), isinstance(ray.get_runtime_context().get_job_id(), str)])
big = ray.put(b"x" * 10_000_000)
attempt("big", lambda: len(ray.get(big)))


@ray.remote
def size(b):
    return len(b)


@ray.remote
def refs_inside(d):
    return [type(d["ref"]).__name__, ray.get(d["ref"])]


attempt("big argument", lambda: ray.get(size.remote(big)))
attempt("ref inside", lambda: ray.get(refs_inside.remote({"ref": add.remote(41)})))
attempt("ref returned", lambda: ray.get(ray.get(ray.remote(lambda: ray.put("inner")).remote())))
kind("unpicklable argument", lambda: add.remote(threading.Lock()))
attempt("shutdown", lambda: ray.shutdown())
attempt("initialized", lambda: ray.is_initialized())
