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


def names(e):
    return [c.__name__ for c in type(e).__mro__ if c.__module__ != "builtins" or c is type(e)][:6]


def attempt(label, f):
    try:
        out(label, "->", f())
    except BaseException as e:
        text = str(e).strip().splitlines()
        out(label, "raised", type(e).__name__, "|", re.sub("[0-9a-f]{8}-[0-9a-f-]{27}", "ID", text[-1])[:200] if text else "")


serve.start(http_options={"host": "127.0.0.1", "port": PORT})



class Custom(Exception):
    def __init__(self, code, text="some text"):
        super().__init__(code, text)
        self.code = code


class Base:
    def inherited(self, x):
        return ["base", x]

    @staticmethod
    def static(x):
        return ["static", x]

    @classmethod
    def of_class(cls, x):
        return [cls.__name__, x]


@serve.deployment(max_ongoing_requests=50)
class Target(Base):
    def __init__(self):
        self.seen = 0
        self.cancelled = 0

    def __call__(self, x=None):
        return {"called": x}

    async def add(self, a, b=1, *rest, c=2, **more):
        return [a, b, list(rest), c, sorted(more.items())]

    def sync(self, x):
        return [x, threading.current_thread() is threading.main_thread()]

    def fail(self, kind):
        raise {"value": ValueError("bad value"), "key": KeyError("k"), "custom": Custom(7), "stop": StopIteration("s")}[kind]

    async def slow(self, s):
        try:
            await asyncio.sleep(s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "slept"

    def count_cancelled(self):
        return self.cancelled

    def gen(self, n):
        for i in range(n):
            yield {"i": i}

    async def agen(self, n, fail_at=None):
        for i in range(n):
            if i == fail_at:
                raise ValueError("at %d" % i)
            yield i

    def none(self):
        return None

    def lambda_(self):
        return lambda x: x + 1

    def unpicklable(self):
        return threading.Lock()

    def echo(self, *args, **kwargs):
        return [[type(a).__name__ for a in args], sorted((k, type(v).__name__) for k, v in kwargs.items())]

    def _private(self):
        return "private"

    attribute = 5


@serve.deployment
class Caller:
    def __init__(self, target):
        self.target = target

    async def chain(self, x):
        r = self.target.echo.remote(self.target.remote(x), key=self.target.sync.remote(1))
        return await r

    async def fail(self, kind):
        return await self.target.fail.remote(kind)

    async def fail_in_argument(self):
        return await self.target.echo.remote(self.target.fail.remote("value"))

    async def catch(self):
        try:
            await self.target.fail.remote("custom")
        except Custom as e:
            return ["caught", e.code, isinstance(e, ray.exceptions.RayTaskError)]

    async def stream(self, n):
        return [x async for x in self.target.options(stream=True).agen.remote(n)]

    async def twice(self):
        r = self.target.add.remote(1)
        return [await r, await r]

    async def sync_result_inside(self):
        return self.target.remote(1).result()

    async def nested(self):
        return await self.target.echo.remote([self.target.remote(1)])


h = serve.run(Caller.bind(Target.bind()), name="one", route_prefix="/one")
t = serve.get_deployment_handle("Target", "one")
out(type(h).__name__, h.deployment_name, h.app_name, repr(t), str(t.deployment_id))
attempt("call", lambda: t.remote(5).result())
attempt("keywords", lambda: t.add.remote(1, c=5, z=9).result())
attempt("positional", lambda: t.add.remote(1, 2, 3, 4).result())
attempt("sync in thread", lambda: t.sync.remote("x").result())
attempt("inherited", lambda: t.inherited.remote(1).result())
attempt("static", lambda: t.static.remote(1).result())
attempt("class method", lambda: t.of_class.remote(1).result())
attempt("private", lambda: t._private.remote().result())
attempt("none", lambda: t.none.remote().result())
attempt("lambda", lambda: t.lambda_.remote().result()(4))
attempt("missing", lambda: t.absent.remote().result())
attempt("attribute", lambda: t.attribute.remote().result())
attempt("too few", lambda: t.add.remote().result())
for kind in ("value", "key", "custom"):
    attempt("fail " + kind, lambda: t.fail.remote(kind).result())
    try:
        t.fail.remote(kind).result()
    except Exception as e:
        out(kind, isinstance(e, ray.exceptions.RayTaskError), isinstance(e, (ValueError, KeyError, Custom)), type(getattr(e, "cause", None)).__name__)
attempt("timeout", lambda: t.slow.remote(5).result(timeout_s=0.2))
attempt("timeout enough", lambda: t.slow.remote(0.01).result(timeout_s=20))
r = t.slow.remote(30)
time.sleep(0.5)
r.cancel()
attempt("cancelled", lambda: len(r.result()))
out("is cancelled", r.cancelled())
for _ in range(100):
    if t.count_cancelled.remote().result():
        break
    time.sleep(0.05)
attempt("count cancelled", lambda: t.count_cancelled.remote().result())
attempt("generator", lambda: list(t.options(stream=True).gen.remote(3)))
attempt("async generator", lambda: list(t.options(stream=True).agen.remote(3)))
attempt("empty generator", lambda: list(t.options(stream=True).gen.remote(0)))


def until_failure():
    got = []
    try:
        for x in t.options(stream=True).agen.remote(5, fail_at=2):
            got.append(x)
    except ValueError as e:
        got.append(str(e).strip().splitlines()[-1])
    return got


attempt("failing generator", until_failure)
attempt("generator without stream", lambda: t.gen.remote(3).result())
attempt("stream of no generator", lambda: list(t.options(stream=True).add.remote(1)))
attempt("result of generator", lambda: t.options(stream=True).gen.remote(3).result())
attempt("method option", lambda: t.options(method_name="add").remote(1).result())
attempt("bad option", lambda: t.options(absent=1))
attempt("chain", lambda: h.chain.remote(3).result())
attempt("chain from here", lambda: t.echo.remote(t.remote(1), x=t.none.remote()).result())
attempt("fail two hops", lambda: h.fail.remote("value").result())
attempt("fail in argument", lambda: h.fail_in_argument.remote().result())
attempt("catch", lambda: h.catch.remote().result())
attempt("stream two hops", lambda: h.stream.remote(4).result())
attempt("await twice", lambda: h.twice.remote().result())
attempt("sync result inside", lambda: h.sync_result_inside.remote().result())
attempt("nested", lambda: h.nested.remote().result())
attempt("result twice", lambda: (lambda r: [r.result(), r.result()])(t.none.remote()))


async def inside():
    a = await asyncio.gather(*[t.add.remote(i) for i in range(20)])
    try:
        t.remote(1).result()
    except RuntimeError as e:
        b = str(e)
    c = [x async for x in t.options(stream=True).gen.remote(2)]
    return [len(a), a[-1], b, c]


attempt("in a loop", lambda: asyncio.run(inside()))
got = []
threads = [threading.Thread(target=lambda i=i: got.append(t.add.remote(i).result()[0])) for i in range(8)]
[x.start() for x in threads]
[x.join() for x in threads]
out("threads", sorted(got))
attempt("handle as argument", lambda: t.echo.remote(h, t).result())
attempt("unknown app", lambda: serve.get_app_handle("absent"))
attempt("unknown deployment", lambda: serve.get_deployment_handle("Absent", "one"))
attempt("no app name", lambda: serve.get_deployment_handle("Target"))
attempt("await generator", lambda: asyncio.run(t.options(stream=True).gen.remote(1).__await__()))
