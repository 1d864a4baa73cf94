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


@serve.deployment(ray_actor_options={"num_cpus": 0}, max_ongoing_requests=100)
class Batched:
    @serve.batch(max_batch_size=4, batch_wait_timeout_s=0.3)
    async def two(self, a, b):
        return [[x, y] for x, y in zip(a, b)]

    @serve.batch(max_batch_size=3, batch_wait_timeout_s=0.3)
    async def each(self, a):
        return [ValueError("item %d" % x) if x == 1 else x for x in a]

    @serve.batch(max_batch_size=3, batch_wait_timeout_s=0.3)
    async def wrong(self, a):
        return a[:-1]

    @serve.batch(max_batch_size=3, batch_wait_timeout_s=0.3)
    async def raises(self, a):
        raise KeyError("whole batch of %d" % len(a))

    @serve.batch(max_batch_size=3, batch_wait_timeout_s=0.05)
    async def not_list(self, a):
        return 5

    @serve.batch(max_batch_size=3, batch_wait_timeout_s=0.05)
    async def default(self, a, b="def"):
        return [[a, b]] * len(a)

    async def call(self, name, *a):
        return await getattr(self, name)(*a)

    def sizes(self):
        self.two.set_max_batch_size(2)
        self.two.set_batch_wait_timeout_s(0.05)
        return [self.two._get_max_batch_size(), self.two._get_batch_wait_timeout_s()]


b = serve.run(Batched.bind(), name="b", route_prefix=None)


def many(name, args):
    got = []
    for r in [b.call.remote(name, *a) for a in args]:
        try:
            got.append(r.result(timeout_s=20))
        except Exception as e:
            got.append([type(e).__name__, str(e).strip().splitlines()[-1]])
    return got


attempt("batch two", lambda: many("two", [(i, -i) for i in range(5)]))
attempt("batch each", lambda: many("each", [(i,) for i in range(3)]))
attempt("batch wrong", lambda: [x[0] for x in many("wrong", [(i,) for i in range(3)])])
attempt("batch raises", lambda: many("raises", [(i,) for i in range(3)]))
attempt("batch not list", lambda: [x[0] for x in many("not_list", [(1,)])])
attempt("batch sizes", lambda: b.sizes.remote().result())


@ray.remote(num_cpus=0)
class Shared:
    def __init__(self):
        self.n = 0

    def add(self):
        self.n += 1
        return self.n


@serve.deployment(ray_actor_options={"num_cpus": 0})
class Actors:
    def __init__(self, actor=None):
        self.actor = actor

    async def use(self):
        return await self.actor.add.remote()

    def named(self):
        a = Shared.options(name="shared-one", namespace="space", get_if_exists=True, lifetime="detached").remote()
        return ray.get(a.add.remote())

    def look(self):
        return ray.get(ray.get_actor("shared-one", namespace="space").add.remote())

    def absent(self):
        return ray.get_actor("absent", namespace="space")

    async def cancel(self):
        @ray.remote(num_cpus=0)
        def forever():
            time.sleep(60)
        ref = forever.remote()
        await asyncio.sleep(0.5)
        ray.cancel(ref)
        try:
            await ref
        except BaseException as e:
            return type(e).__name__

    def failing(self):
        @ray.remote(num_cpus=0, max_retries=0)
        def fails():
            raise ValueError("in a task")
        return ray.get(fails.remote())

    def timeout(self):
        ref = ray.remote(num_cpus=0)(lambda: time.sleep(3)).remote()
        return ray.get(ref, timeout=0.2)

    def killed(self):
        a = Shared.remote()
        ray.get(a.add.remote())
        ray.kill(a)
        return ray.get(a.add.remote())


s = Shared.remote()
a1 = serve.run(Actors.bind(s), name="a1", route_prefix=None)
a2 = serve.run(Actors.bind(s), name="a2", route_prefix=None)
attempt("shared", lambda: [a1.use.remote().result(), a2.use.remote().result(), ray.get(s.add.remote())])
attempt("named", lambda: [a1.named.remote().result(), a2.look.remote().result(), a2.named.remote().result()])
attempt("named here", lambda: ray.get(ray.get_actor("shared-one", namespace="space").add.remote()))
attempt("other namespace", lambda: type(ray.get_actor("shared-one", namespace="other")).__name__)
attempt("absent", lambda: a1.absent.remote().result())
attempt("cancel task", lambda: a1.cancel.remote().result())
attempt("failing task", lambda: a1.failing.remote().result())
attempt("timeout task", lambda: a1.timeout.remote().result())
try:
    a1.killed.remote().result()
except Exception as e:
    out("killed", type(e).__name__, isinstance(e, ray.exceptions.RayActorError))
serve.shutdown()
