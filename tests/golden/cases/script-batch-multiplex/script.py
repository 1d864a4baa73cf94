import asyncio
import json
import os
import threading
import time

import ray
from ray import serve

PORT = int(os.environ["GOLDEN_PORT"])


def out(*values):
    print("OUT", *values, flush=True)


def names(e):
    return [c.__name__ for c in type(e).__mro__ if c.__module__ != "builtins" or c is type(e)][:6]


def attempt(label, f):
    try:
        out(label, "->", f())
    except BaseException as e:
        text = str(e).strip().splitlines()
        out(label, "raised", type(e).__name__, "|", text[-1][:200] if text else "")


serve.start(http_options={"host": "127.0.0.1", "port": PORT})



@serve.deployment
class Sized:
    def __init__(self):
        self.sizes = []

    @serve.batch(max_batch_size=4, batch_wait_timeout_s=0.2)
    async def batched(self, xs):
        self.sizes.append(len(xs))
        return [x * 10 for x in xs]

    async def call(self, x):
        return await self.batched(x)

    @serve.batch(max_batch_size=3, batch_wait_timeout_s=0.1)
    async def wrong_length(self, xs):
        return xs[:-1]

    @serve.batch
    async def default(self, xs):
        return ["%s" % x for x in xs]

    @serve.batch(max_batch_size=2, batch_wait_timeout_s=0.05)
    async def failing(self, xs):
        raise ValueError("batch of %s" % sorted(xs))

    @serve.batch(max_batch_size=3, batch_wait_timeout_s=0.2)
    async def pairs(self, a, b):
        return [x + y for x, y in zip(a, b)]

    async def run(self, method, n, *more):
        out = await asyncio.gather(*[getattr(self, method)(i, *more) for i in range(n)], return_exceptions=True)
        return [o if not isinstance(o, Exception) else [type(o).__name__, str(o)[:120]] for o in out]

    async def setters(self):
        before = [self.batched._get_max_batch_size(), self.batched._get_batch_wait_timeout_s()]
        self.batched.set_max_batch_size(2)
        self.batched.set_batch_wait_timeout_s(0.01)
        self.sizes.clear()
        await asyncio.gather(*[self.batched(i) for i in range(4)])
        return [before, self.batched._get_max_batch_size(), self.sizes]

    def get_sizes(self):
        return sorted(self.sizes, reverse=True)


h = serve.run(Sized.bind(), name="b", route_prefix=None)
rs = [h.call.remote(i) for i in range(4)]
attempt("four", lambda: [r.result() for r in rs])
attempt("sizes", lambda: h.get_sizes.remote().result())
attempt("wrong length", lambda: h.run.remote("wrong_length", 3).result())
attempt("default", lambda: h.run.remote("default", 3).result())
attempt("failing", lambda: h.run.remote("failing", 2).result())
attempt("pairs", lambda: h.run.remote("pairs", 3, 5).result())
attempt("setters", lambda: h.setters.remote().result())


def decorate(**kw):
    @serve.batch(**kw)
    async def f(xs):
        return xs
    return "ok"


def decorate_sync():
    @serve.batch
    def f(xs):
        return xs


for kw in ({"max_batch_size": 0}, {"max_batch_size": 1.5}, {"max_batch_size": "1"}, {"max_batch_size": 2.0}, {"batch_wait_timeout_s": -1}, {"batch_wait_timeout_s": "x"}, {"max_concurrent_batches": 0}, {"max_concurrent_batches": 2}, {"batch_size_fn": 3}, {"absent": 1}):
    attempt("batch %s" % kw, lambda: decorate(**kw))
attempt("batch sync", decorate_sync)


@serve.deployment
class Models:
    def __init__(self):
        self.loads = []

    @serve.multiplexed(max_num_models_per_replica=2)
    async def load(self, model_id):
        self.loads.append(model_id)
        if model_id == "bad":
            raise ValueError("no such model")
        return "model " + model_id

    async def __call__(self, x=None):
        return [serve.get_multiplexed_model_id(), await self.load(serve.get_multiplexed_model_id())]

    def get_loads(self):
        return self.loads

    async def direct(self, model_id):
        return await self.load(model_id)


m = serve.run(Models.bind(), name="m", route_prefix=None)
for i in ("a", "b", "a", "c", "a", "b"):
    attempt("model " + i, lambda: m.options(multiplexed_model_id=i).remote().result())
attempt("loads", lambda: m.get_loads.remote().result())
attempt("bad model", lambda: m.options(multiplexed_model_id="bad").remote().result())
attempt("no model id", lambda: m.remote().result())
attempt("direct int", lambda: m.direct.remote(5).result())
attempt("direct empty", lambda: m.direct.remote("").result())
attempt("outside", lambda: serve.get_multiplexed_model_id())


def multiplexed(f=None, **kw):
    async def load(self, model_id):
        return model_id
    serve.multiplexed(f or load, **kw) if not kw else serve.multiplexed(**kw)(f or load)
    return "ok"


for kw in ({"max_num_models_per_replica": 0}, {"max_num_models_per_replica": -1}, {"max_num_models_per_replica": "2"}, {"max_num_models_per_replica": 1.5}):
    attempt("multiplexed %s" % kw, lambda: multiplexed(**kw))


def plain(self, model_id):
    return 1


async def none():
    return 1


async def three(self, a, b):
    return 1


for f in (plain, none, three):
    attempt("multiplexed " + f.__name__, lambda: multiplexed(f))
