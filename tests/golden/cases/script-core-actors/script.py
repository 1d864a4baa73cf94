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



ray.init(ignore_reinit_error=True, namespace="here")


@ray.remote
class Counter:
    def __init__(self, n=0):
        self.n = n

    def inc(self, by=1):
        self.n += by
        return self.n

    def get(self):
        return self.n

    def fail(self):
        raise KeyError("missing")

    def pid(self):
        return os.getpid()

    def exit(self):
        os._exit(1)

    def me(self):
        c = ray.get_runtime_context()
        return [c.get_actor_name(), c.namespace, len(c.get_actor_id()) > 10]

    @ray.method(num_returns=2)
    def two(self):
        return 1, 2

    def gen(self, n):
        for i in range(n):
            yield i


@ray.remote
class Async:
    def __init__(self):
        self.running = 0
        self.most = 0
        self.event = asyncio.Event()

    async def work(self):
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.3)
        self.running -= 1

    async def get_most(self):
        return self.most

    async def wait(self):
        await self.event.wait()
        return "set"

    async def set(self):
        self.event.set()


@ray.remote(max_concurrency=3)
class Threaded:
    def __init__(self):
        self.running = 0
        self.most = 0
        self.lock = threading.Lock()

    def work(self):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        time.sleep(0.3)
        with self.lock:
            self.running -= 1

    def get_most(self):
        return self.most


@ray.remote
class Bad:
    def __init__(self):
        raise ValueError("bad constructor")

    def f(self):
        return 1


c = Counter.remote(5)
attempt("inc", lambda: ray.get(c.inc.remote()))
attempt("ordered", lambda: ray.get([c.inc.remote() for _ in range(5)]))
attempt("keyword", lambda: ray.get(c.inc.remote(by=10)))
attempt("fail", lambda: ray.get(c.fail.remote()))
attempt("after fail", lambda: ray.get(c.get.remote()))
attempt("two", lambda: ray.get(list(c.two.remote())))
attempt("gen", lambda: [ray.get(r) for r in c.gen.options(num_returns="streaming").remote(3)])
attempt("missing method", lambda: c.absent)
attempt("direct", lambda: c.inc())
attempt("direct class", lambda: Counter(1))
attempt("own process", lambda: ray.get(c.pid.remote()) != os.getpid())
n = Counter.options(name="named").remote(100)
attempt("get_actor", lambda: ray.get(ray.get_actor("named").inc.remote()))
attempt("me", lambda: ray.get(n.me.remote()))
attempt("get_actor namespace", lambda: ray.get(ray.get_actor("named", namespace="here").get.remote()))
attempt("get_actor missing", lambda: ray.get_actor("absent"))
attempt("get_actor empty", lambda: ray.get_actor(""))
kind("name taken", lambda: ray.get(Counter.options(name="named").remote().get.remote()))
attempt("get_if_exists", lambda: ray.get(Counter.options(name="named", get_if_exists=True).remote().get.remote()))
attempt("list named", lambda: sorted(ray.util.list_named_actors()))
a = Async.remote()
ray.get([a.work.remote() for _ in range(10)])
attempt("async most", lambda: ray.get(a.get_most.remote()))
w = a.wait.remote()
ray.get(a.set.remote())
attempt("event", lambda: ray.get(w))
t = Threaded.remote()
ray.get([t.work.remote() for _ in range(6)])
attempt("threaded most", lambda: ray.get(t.get_most.remote()))
attempt("bad constructor", lambda: ray.get(Bad.remote().f.remote()))
kind("exit", lambda: ray.get(c.exit.remote()))
kind("after exit", lambda: ray.get(c.get.remote()))
try:
    ray.get(c.get.remote())
except ray.exceptions.RayActorError as e:
    out("kind", type(e).__name__)
k = Counter.remote()
ray.get(k.get.remote())
ray.kill(k)
attempt("killed", lambda: ray.get(k.get.remote()))
attempt("kill of no actor", lambda: ray.kill(5))


@ray.remote
def use(handle):
    return ray.get(handle.inc.remote(1000))


attempt("handle in task", lambda: ray.get(use.remote(n)))
attempt("handle in list", lambda: ray.get(ray.remote(lambda hs: ray.get(hs[0].get.remote())).remote([n])))
r = Counter.options(max_restarts=1).remote(7)
first = ray.get(r.pid.remote())
kind("restarts", lambda: ray.get(r.exit.remote()))
for _ in range(100):
    try:
        second = ray.get(r.pid.remote())
        break
    except ray.exceptions.RayActorError:
        time.sleep(0.1)
out("restarted", first != second, ray.get(r.get.remote()))


async def main():
    return [await n.get.remote(), await asyncio.gather(*[n.inc.remote() for _ in range(3)])]


attempt("asyncio", lambda: asyncio.run(main()))
from ray.util import ActorPool
from ray.util.queue import Empty, Queue

pool = ActorPool([Counter.remote(i) for i in range(2)])
attempt("pool", lambda: sorted(pool.map(lambda actor, v: actor.inc.remote(v), [1, 1, 1, 1])))
q = Queue(maxsize=2)
q.put(1)
q.put(2)
attempt("queue", lambda: [q.qsize(), q.full(), q.get(), q.get(), q.empty()])
attempt("queue empty", lambda: q.get(block=False))
attempt("queue timeout", lambda: q.get(timeout=0.1))
attempt("queue class", lambda: issubclass(Empty, Exception))


@serve.deployment
class Uses:
    def __init__(self, counter):
        self.counter = counter
        self.own = Counter.remote(1)

    async def go(self):
        return [await self.counter.inc.remote(), await self.own.inc.remote(), await ray.get_actor("named", namespace="here").get.remote()]


serve.start(http_options={"host": "127.0.0.1", "port": PORT})
h = serve.run(Uses.bind(n), route_prefix=None)
attempt("in a deployment", lambda: h.go.remote().result())
attempt("repr", lambda: re.sub("[0-9a-f]{20,}", "ID", repr(n)))
