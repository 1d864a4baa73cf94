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



@serve.deployment(max_ongoing_requests=3)
class A:
    def __init__(self, n=1):
        self.n = n
        self.config = None

    def reconfigure(self, c):
        self.config = c

    def __call__(self, x=None):
        return [self.n, x, self.config]

    async def add(self, a, b=2):
        await asyncio.sleep(0.001)
        return a + b

    def gen(self, n):
        for i in range(n):
            yield i

    async def agen(self, n):
        for i in range(n):
            yield i * 10

    def fail(self):
        raise ValueError("local failure")

    def mutate(self, items):
        items.append(1)
        return len(items)

    def pid(self):
        return os.getpid() == PID

    @serve.batch(max_batch_size=3, batch_wait_timeout_s=0.05)
    async def batched(self, xs):
        return [len(xs)] * len(xs)

    def context(self):
        return serve.get_replica_context().app_name

    async def slow(self):
        await asyncio.sleep(30)


PID = os.getpid()


@serve.deployment
class B:
    def __init__(self, a, extra):
        self.a = a
        self.extra = extra

    async def __call__(self, x):
        return [await self.a.remote(x), await self.extra["h"].add.remote(1)]

    async def chain(self, x):
        return await self.a.add.remote(self.a.add.remote(x), b=self.a.add.remote(10))

    async def stream(self, n):
        async for x in self.a.options(stream=True).agen.remote(n):
            yield x

    async def fail(self):
        await self.a.fail.remote()


@serve.deployment
def function(x):
    return ["function", x]


a = A.bind(5)
h = serve.run(B.bind(a, {"h": A.options(name="A2").bind()}), _local_testing_mode=True)
out(type(h).__name__)
attempt("call", lambda: h.remote("x").result())
attempt("chain", lambda: h.chain.remote(1).result())
attempt("stream", lambda: list(h.options(stream=True).stream.remote(3)))
attempt("fail", lambda: h.fail.remote().result())
try:
    h.fail.remote().result()
except Exception as e:
    out("kind", [c.__name__ for c in type(e).__mro__][:3])
one = serve.run(A.bind(), name="one", route_prefix="/one", _local_testing_mode=True)
attempt("gen", lambda: list(one.options(stream=True).gen.remote(3)))
attempt("gen without stream", lambda: one.gen.remote(3).result())
attempt("stream of no gen", lambda: list(one.options(stream=True).add.remote(3)))
attempt("same process", lambda: one.pid.remote().result())
items = []
attempt("arguments are copies", lambda: [one.mutate.remote(items).result(), len(items)])
attempt("missing method", lambda: one.absent.remote().result())
attempt("timeout", lambda: one.slow.remote().result(timeout_s=0.1))


async def main():
    rs = await asyncio.gather(*[one.add.remote(i) for i in range(5)])
    gs = [x async for x in one.options(stream=True).agen.remote(2)]
    return [rs, gs]


attempt("asyncio", lambda: asyncio.run(main()))
f = serve.run(function.bind(), name="f", route_prefix="/f", _local_testing_mode=True)
attempt("function", lambda: f.remote(1).result())
attempt("object ref", lambda: one.add.remote(1)._to_object_ref_sync())
attempt("names", lambda: [h.deployment_name, h.app_name, one.app_name])
r = one.slow.remote()
time.sleep(0.1)
r.cancel()
attempt("cancelled", lambda: len(r.result()))
attempt("unpicklable", lambda: one.remote(threading.Lock()).result())
