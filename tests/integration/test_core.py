#!/usr/bin/env python3
"""Tasks, actors, placement groups and resources: ray.remote and what is around it.

Each test sends the body of a function to a deployment, which runs it in a thread and answers with
what it returned; only where the loop matters it runs on the event loop.
"""

import os
import signal
import subprocess
import textwrap

from harness import (RSERVE, SLOW, Server, ServeTest, call, free_port, main, read_process,
                     wait_until)

CODE = '''
import asyncio, gc, os, signal, time
import ray
from ray import serve
from ray.util.actor_pool import ActorPool
from ray.util.placement_group import (get_current_placement_group, placement_group,
                                      placement_group_table, remove_placement_group)
from ray.util.queue import Empty, Full, Queue
from ray.util.scheduling_strategies import (NodeAffinitySchedulingStrategy,
                                            PlacementGroupSchedulingStrategy)
from ray.util.state import list_actors, list_nodes, list_placement_groups, list_tasks
from ray._common.test_utils import SignalActor, Semaphore, wait_for_condition


@ray.remote
class Counter:
    def __init__(self, start=0):
        self.n = start
    def add(self, k=1):
        self.n += k
        return self.n
    def pid(self):
        return os.getpid()
    def die(self):
        os._exit(3)
    def leave(self):
        ray.actor.exit_actor()
    def boom(self):
        raise KeyError("bad key")
    def items(self, n):
        for i in range(n):
            yield i
        raise RuntimeError("after the last")
    def slow(self, s):
        time.sleep(s)
        return s
    @ray.method(num_returns=2)
    def two(self):
        return 1, 2
    def where(self):
        c = ray.get_runtime_context()
        return c.get_node_id()
    def group(self):
        g = get_current_placement_group()
        return g and g.id.hex()


@ray.remote
class Broken:
    def __init__(self):
        raise ValueError("no good")
    def f(self):
        return 1


@ray.remote
class Async:
    def __init__(self):
        self.event = asyncio.Event()
        self.cancelled = 0
    async def wait(self):
        try:
            await self.event.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "woken"
    async def go(self):
        self.event.set()
    async def count(self):
        return self.cancelled


@ray.remote
def square(x):
    return x * x

@ray.remote
def nested(n):
    return 0 if n == 0 else 1 + ray.get(nested.remote(n - 1))

@ray.remote
def sleepy(s):
    time.sleep(s)
    return s

@ray.remote
def crash(path, times):
    with open(path, "a") as f:
        f.write("x")
    if os.path.getsize(path) <= times:
        os._exit(1)
    return "survived"

@ray.remote
def fails(path, times):
    with open(path, "a") as f:
        f.write("x")
    if os.path.getsize(path) <= times:
        raise OSError(5, "flaky")
    return "passed"

@ray.remote
def total(a, b):
    return a + b

@ray.remote
def add_all(refs):
    return sum(ray.get(refs))


def error(f):
    """[name of the class, names of its bases, text]"""
    try:
        return ["no error", [], repr(f())]
    except Exception as e:
        return [type(e).__name__, [c.__name__ for c in type(e).__mro__], str(e)]


def alive(pid):
    return os.path.exists(f"/proc/{pid}")


@serve.deployment(max_ongoing_requests=50, ray_actor_options={"num_cpus": 0})
class App:
    async def __call__(self, request):
        space = dict(globals())
        exec((await request.body()).decode(), space)
        if request.query_params.get("loop"):
            return space["run"]()
        return await asyncio.to_thread(space["run"])

app = App.bind()
'''


class CoreTest(ServeTest):
    def run_code(self, s: Server, body: str, query: str = ""):
        text = "def run():\n" + textwrap.indent(textwrap.dedent(body), "    ")
        answer = s.call("/" + query, method="POST", body=text.encode(), timeout=60)
        self.assertEqual(answer.status, 200, answer.text)
        return answer.json()


class OneNode(CoreTest):
    def begin(self, cpus: int = 4) -> Server:
        return self.serve_code(CODE, "--num-cpus", str(cpus), "--num-gpus", "4")

    # --- tasks

    def test_tasks(self) -> None:
        s = self.begin()
        got = self.run_code(s, """
            a = square.remote(3)
            b = total.remote(a, ray.put(1))
            @ray.remote(num_returns=3)
            def three():
                return 1, 2, 3
            @ray.remote
            def gen(n):
                yield from range(n)
            return [ray.get([square.remote(i) for i in range(50)]) == [i * i for i in range(50)],
                    ray.get(total.remote(b, a)), ray.get(three.remote()),
                    [ray.get(r) for r in gen.remote(3)],
                    ray.get(add_all.remote([square.remote(2), ray.put(5), sleepy.remote(0.1)])),
                    [square.remote(i) for i in ()], type(a).__name__]
        """)
        self.assertEqual(got, [True, 19, [1, 2, 3], [0, 1, 2], 9.1, [], "ObjectRef"])

    def test_errors_of_tasks(self) -> None:
        s = self.begin()
        path = os.path.join(self.folder, "flaky")
        name, bases, text = self.run_code(s, """
            return error(lambda: ray.get(fails.remote(%r, 100)))
        """ % (path + "0"))
        self.assertEqual(name, "RayTaskError(OSError)")
        self.assertIn("RayTaskError", bases)
        self.assertTrue(text.strip().endswith("OSError: [Errno 5] flaky"), text)
        self.assertIn("ray::fails", text)
        got = self.run_code(s, """
            a = fails.options(retry_exceptions=True, max_retries=2).remote(%r, 2)
            b = fails.options(retry_exceptions=[KeyError]).remote(%r, 1)
            c = total.remote(b, 1)  # of what failed
            direct = error(lambda: square(3))
            return [ray.get(a), error(lambda: ray.get(b))[0], error(lambda: ray.get(c))[0],
                    direct[0], error(lambda: ray.get(sleepy.remote(3), timeout=0.1))[:2]]
        """ % (path + "1", path + "2"))
        self.assertEqual(got[:4], ["passed", "RayTaskError(OSError)", "RayTaskError(OSError)",
                                   "TypeError"])
        self.assertEqual(got[4][0], "GetTimeoutError")
        self.assertIn("TimeoutError", got[4][1])

    def test_worker_that_dies(self) -> None:
        s = self.begin()
        path = os.path.join(self.folder, "crashes")
        got = self.run_code(s, """
            return [ray.get(crash.remote(%r, 3), timeout=30), os.path.getsize(%r),
                    error(lambda: ray.get(crash.options(max_retries=1).remote(%r, 9),
                                          timeout=30))[0],
                    os.path.getsize(%r), ray.get(square.remote(4))]
        """ % (path, path, path + "2", path + "2"))
        self.assertEqual(got, ["survived", 4, "WorkerCrashedError", 2, 16])

    def test_nested_tasks_on_one_cpu(self) -> None:
        s = self.begin(cpus=1)
        got = self.run_code(s, "return [ray.get(nested.remote(6), timeout=50) for _ in range(2)]")
        self.assertEqual(got, [6, 6])
        # a worker that waited has its CPU again: two at a time are one too many
        got = self.run_code(s, """
            @ray.remote
            def outer():
                ray.get(square.remote(2))
                return os.getpid()
            a = [outer.remote() for _ in range(4)]
            return len(ray.get(a, timeout=50))
        """)
        self.assertEqual(got, 4)
        # of two shapes: the one that waits for an argument keeps no CPU from the other
        got = self.run_code(s, """
            refs = [total.remote(square.options(num_cpus=0.5).remote(i), 1) for i in range(4)]
            return ray.get(refs, timeout=50)
        """)
        self.assertEqual(got, [1, 2, 5, 10])
        self.run_code(s, """
            wait_for_condition(lambda: ray.available_resources().get("CPU") == 1)
            return True
        """)

    def test_waiting_and_cancelling(self) -> None:
        s = self.begin(cpus=2)
        got = self.run_code(s, """
            refs = [sleepy.remote(2), sleepy.remote(0)]
            ready, pending = ray.wait(refs, timeout=20)
            out = [ready == [refs[1]], pending == [refs[0]]]
            long = sleepy.remote(600)
            wait_for_condition(lambda: any(t.name == "sleepy" and t.state == "SUBMITTED_TO_WORKER"
                                           for t in list_tasks()))
            time.sleep(0.3)
            ray.cancel(long)
            out.append(error(lambda: ray.get(long, timeout=20))[0])
            out.append(ray.get([square.remote(i) for i in range(4)], timeout=30))
            long = sleepy.remote(600)
            time.sleep(0.3)
            ray.cancel(long, force=True)
            out.append(error(lambda: ray.get(long, timeout=20))[0])
            out.append(ray.get([square.remote(i) for i in range(4)], timeout=30))
            return out
        """)
        self.assertEqual(got, [True, True, "TaskCancelledError", [0, 1, 4, 9],
                               "TaskCancelledError", [0, 1, 4, 9]])

    def test_storm_of_cancels(self) -> None:
        s = self.begin(cpus=2)
        got = self.run_code(s, """
            refs = [sleepy.remote(0.2) for _ in range(2000)]
            for r in refs:
                ray.cancel(r)
            kinds = {error(lambda: ray.get(r, timeout=20))[0] for r in refs}
            return sorted(kinds), ray.get(square.remote(5), timeout=20)
        """)
        self.assertLessEqual(set(got[0]), {"TaskCancelledError", "no error"})
        self.assertEqual(got[1], 25)

    def test_large_values(self) -> None:
        s = self.begin()
        got = self.run_code(s, """
            data = bytes(range(256)) * 20000
            @ray.remote
            def same(b):
                return b
            @ray.remote
            def size(b):
                return len(b)
            c = Counter.remote()
            return [ray.get(same.remote(data)) == data, ray.get(same.remote(ray.put(data))) == data,
                    ray.get(size.remote(same.remote(data))), len(ray.get(ray.put([data, data]))[1])]
        """)
        self.assertEqual(got, [True, True, 5120000, 5120000])

    # --- actors

    def test_actors(self) -> None:
        s = self.begin()
        got = self.run_code(s, """
            c = Counter.remote(5)
            items = c.items.options(num_returns="streaming").remote(3)
            seen = []
            last = None
            for ref in items:
                last = error(lambda: seen.append(ray.get(ref)))
            @ray.remote
            def use(h):
                return ray.get(h.add.remote(100))
            return [ray.get([c.add.remote() for _ in range(20)]) == list(range(6, 26)),
                    ray.get(c.two.remote()), seen, last[0],
                    error(lambda: ray.get(c.boom.remote()))[:2],
                    ray.get(use.remote(c)), ray.get(c.add.remote()), error(lambda: c.add())[0],
                    error(lambda: c.nothing)[0], error(lambda: Counter())[0],
                    error(lambda: Counter.remote(1, 2, 3))[0],
                    error(lambda: Counter.options(nope=1))[0]]
        """)
        self.assertEqual(got[:4], [True, [1, 2], [0, 1, 2], "RayTaskError(RuntimeError)"])
        self.assertEqual(got[4][0], "RayTaskError(KeyError)")
        self.assertEqual(got[5:], [125, 126, "TypeError", "AttributeError", "TypeError",
                                   "TypeError", "ValueError"])

    def test_asynchronous_and_threaded_actors(self) -> None:
        s = self.begin()
        got = self.run_code(s, """
            a = Async.remote()
            refs = [a.wait.remote() for _ in range(50)]
            gone = a.wait.remote()
            ray.get(a.count.remote())
            ray.cancel(gone)
            wait_for_condition(lambda: ray.get(a.count.remote()) == 1)
            ray.get(a.go.remote())
            t = Counter.options(max_concurrency=8).remote()
            signal = SignalActor.remote()
            @ray.remote(max_concurrency=3)
            class Waits:
                def wait(self):
                    return ray.get(signal.wait.remote())
            w = Waits.remote()
            waits = [w.wait.remote() for _ in range(5)]
            wait_for_condition(lambda: ray.get(signal.cur_num_waiters.remote()) == 3)
            time.sleep(0.2)
            most = ray.get(signal.cur_num_waiters.remote())
            signal.send.remote()
            return [set(ray.get(refs, timeout=20)) == {"woken"}, error(lambda: ray.get(gone))[0],
                    most, ray.get(waits, timeout=20)]
        """)
        self.assertEqual(got, [True, "TaskCancelledError", 3, [None] * 5])

    def test_named_actors(self) -> None:
        s = self.begin()
        got = self.run_code(s, """
            c = Counter.options(name="bob").remote(1)
            out = [ray.get(ray.get_actor("bob").add.remote()),
                   "bob" in ray.util.list_named_actors(),
                   error(lambda: Counter.options(name="bob").remote())]
            d = Counter.options(name="bob", get_if_exists=True).remote()
            out.append(ray.get(d.add.remote()))
            other = Counter.options(name="bob", namespace="elsewhere").remote(50)
            out.append(ray.get(ray.get_actor("bob", namespace="elsewhere").add.remote()))
            ray.kill(c)
            out += [error(lambda: ray.get(d.add.remote(), timeout=20)),
                    error(lambda: ray.get_actor("bob"))]
            return out
        """)
        self.assertEqual(got[:2], [2, True])
        self.assertIn("ValueError", got[2][1])
        self.assertIn("already exists", got[2][2])
        self.assertEqual(got[3:5], [3, 51])
        self.assertEqual(got[5][0], "ActorDiedError")
        self.assertIn("killed by `ray.kill`", got[5][2])
        self.assertEqual(got[6][0], "ValueError")
        self.assertIn("Failed to look up actor with name 'bob'", got[6][2])

    def test_ends_of_actors(self) -> None:
        s = self.begin()
        got = self.run_code(s, """
            b = Broken.remote()
            out = [error(lambda: ray.get(b.f.remote(), timeout=20))]
            c = Counter.remote()
            pid = ray.get(c.pid.remote())
            running, queued = c.slow.remote(60), c.add.remote()
            time.sleep(0.2)
            os.kill(pid, signal.SIGKILL)
            refs = (running, queued, c.add.remote())
            out += [error(lambda: ray.get(r, timeout=20)) for r in refs]
            c = Counter.remote()
            out.append(error(lambda: ray.get(c.leave.remote(), timeout=20)))
            return out
        """)
        for name, bases, _ in got:
            self.assertEqual(name, "ActorDiedError")
            self.assertIn("RayActorError", bases)
        self.assertIn("ray::Broken.__init__()", got[0][2])
        self.assertIn("ValueError: no good", got[0][2])
        self.assertIn("SIGKILL", got[3][2])
        self.assertIn("exit_actor() was called", got[4][2])

    def test_restarts_of_actors(self) -> None:
        s = self.begin()
        got = self.run_code(s, """
            c = Counter.options(max_restarts=2).remote(100)
            out = [ray.get(c.add.remote()), error(lambda: ray.get(c.die.remote(), timeout=20))[0],
                   ray.get(c.add.remote(), timeout=20)]
            pid = ray.get(c.pid.remote())
            ray.kill(c, no_restart=False)
            wait_for_condition(lambda: not alive(pid))
            out.append(ray.get(c.add.remote(), timeout=20))
            out += [error(lambda: ray.get(c.die.remote(), timeout=20))[0],
                    error(lambda: ray.get(c.add.remote(), timeout=20))[0]]
            t = Counter.options(max_restarts=1, max_task_retries=1).remote()
            pid = ray.get(t.pid.remote())
            slow = t.slow.remote(0.5)
            time.sleep(0.1)
            os.kill(pid, signal.SIGKILL)
            out.append(ray.get(slow, timeout=20))
            return out
        """)
        self.assertEqual(got[:4], [101, "ActorUnavailableError", 101, 101])
        self.assertEqual(got[5:], ["ActorDiedError", 0.5])

    def test_actor_ends_with_its_last_handle_and_its_owner(self) -> None:
        s = self.begin()
        got = self.run_code(s, """
            c = Counter.remote()
            pid = ray.get(c.pid.remote())
            del c
            gc.collect()
            wait_for_condition(lambda: not alive(pid))
            global kept, detached
            kept = Counter.remote()
            detached = Counter.options(name="stays", lifetime="detached").remote(7)
            return [os.getpid(), ray.get(kept.pid.remote()), ray.get(detached.pid.remote())]
        """)
        replica, kept, detached = got
        os.kill(replica, signal.SIGKILL)
        wait_until("the actor of the dead replica is gone", lambda: read_process(kept) is None)
        wait_until("there is a new replica",
                   lambda: [r for r in s.replicas("app", "App") if r["pid"] != replica])
        s.wait_apps()
        self.assertIsNotNone(read_process(detached))
        self.assertEqual(self.run_code(s, """
            return ray.get(ray.get_actor("stays").add.remote())
        """), 8)

    def test_calls_from_the_event_loop(self) -> None:
        s = self.begin()
        got = self.run_code(s, """
            c = Counter.remote()
            return [ray.get([square.remote(i) for i in range(10)])[-1], ray.get(c.add.remote()),
                    ray.get(nested.remote(2)),
                    error(lambda: ray.get(Broken.remote().f.remote()))[0]]
        """, "?loop=1")
        self.assertEqual(got, [81, 1, 2, "ActorDiedError"])

    def test_environments(self) -> None:
        s = self.begin()
        self.write("mods/apart/__init__.py", "VALUE = 42")
        got = self.run_code(s, """
            @ray.remote(runtime_env={"py_modules": [%r], "env_vars": {"WORD": "yes"}})
            def inside():
                import apart
                return apart.VALUE, os.environ["WORD"]
            @ray.remote
            def outside():
                import apart
            @ray.remote(runtime_env={"pip": ["/no/such/wheel-1-py3-none-any.whl"]})
            def broken():
                return 1
            @ray.remote(runtime_env={"image_uri": "x"})
            def refused():
                return 1
            return [ray.get(inside.remote(), timeout=30),
                    error(lambda: ray.get(outside.remote()))[0],
                    error(lambda: ray.get(broken.remote(), timeout=60))[0],
                    error(refused.remote)[0],
                    os.environ.get("WORD")]
        """ % os.path.join(self.folder, "mods", "apart"))
        self.assertEqual(got, [[42, "yes"], "RayTaskError(ModuleNotFoundError)",
                               "RuntimeEnvSetupError", "ValueError", None])

    # --- resources

    def test_resources(self) -> None:
        s = self.begin()
        got = self.run_code(s, """
            a = Counter.options(num_cpus=3, num_gpus=2).remote()
            ray.get(a.pid.remote())
            free = ray.available_resources()
            b = Counter.options(num_cpus=2).remote()
            out = [free["CPU"], free["GPU"], ray.cluster_resources()["CPU"],
                   error(lambda: ray.get(b.add.remote(), timeout=0.3))[0]]
            waiting = list_actors(filters=[("state", "=", "PENDING_CREATION")])
            out.append([x.pending for x in waiting])
            @ray.remote(num_gpus=1)
            def ids():
                return ray.get_gpu_ids()
            out.append(ray.get(ids.remote(), timeout=20))
            ray.kill(a)
            out.append(ray.get(b.add.remote(), timeout=20))
            nodes = ray.nodes()
            here = ray.get_runtime_context().get_node_id()
            out.append([len(nodes), nodes[0]["Alive"], nodes[0]["NodeID"] == here])
            return out
        """)
        self.assertEqual(got[:4], [1.0, 2.0, 4.0, "GetTimeoutError"])
        self.assertEqual(len(got[4]), 1)
        self.assertIn("needs 2 CPU", got[4][0])
        self.assertEqual(len(got[5]), 1)
        self.assertEqual(got[6:], [2, [1, True, True]])

    def test_idle_workers_make_room(self) -> None:
        s = self.begin(cpus=2)
        got = self.run_code(s, """
            ray.get([square.remote(i) for i in range(20)])
            a = Counter.options(num_cpus=2).remote()
            return ray.get(a.add.remote(), timeout=20)
        """)
        self.assertEqual(got, 1)

    def test_placement_groups(self) -> None:
        s = self.begin()
        got = self.run_code(s, """
            pg = placement_group([{"CPU": 1}, {"CPU": 1, "GPU": 1}],
                                 strategy="STRICT_PACK", name="pair")
            out = [pg.wait(20), ray.get(pg.ready(), timeout=20) == pg,
                   ray.available_resources()["CPU"]]
            def strategy(n):
                return PlacementGroupSchedulingStrategy(pg, n)
            a = Counter.options(num_cpus=1, scheduling_strategy=strategy(0)).remote()
            b = Counter.options(num_cpus=1, scheduling_strategy=strategy(0)).remote()
            out += [ray.get(a.group.remote(), timeout=20) == pg.id.hex(),
                    error(lambda: ray.get(b.add.remote(), timeout=0.3))[0],
                    ray.get(square.options(num_gpus=1, num_cpus=0,
                                           scheduling_strategy=strategy(1)).remote(3)),
                    placement_group_table(pg)["state"], len(list_placement_groups()),
                    ray.util.get_placement_group("pair") == pg,
                    error(lambda: strategy(7))[0]]
            ray.kill(a)
            out.append(ray.get(b.add.remote(), timeout=20))
            remove_placement_group(pg)
            out.append(error(lambda: ray.get(b.add.remote(), timeout=20))[0])
            wait_for_condition(lambda: ray.available_resources()["CPU"] == 4)
            big = placement_group([{"CPU": 3}, {"CPU": 3}])
            out += [big.wait(0.2), placement_group_table(big)["state"]]
            remove_placement_group(big)
            return out
        """)
        self.assertEqual(got, [True, True, 2.0, True, "GetTimeoutError", 9, "CREATED", 1, True,
                               "ValueError", 2, "ActorDiedError", False, "PENDING"])

    # --- ray.util

    def test_queues_pools_and_lists(self) -> None:
        s = self.begin()
        got = self.run_code(s, """
            q = Queue(maxsize=2)
            q.put(1)
            q.put_nowait_batch([2])
            out = [q.full(), len(q), error(lambda: q.put_nowait(3))[1], q.get(),
                   q.get_nowait_batch(1)]
            out.append(isinstance_of(lambda: q.get(timeout=0.05), Empty))
            q.shutdown()
            pool = ActorPool([Counter.remote(i) for i in (10, 20)])
            out.append(sorted(pool.map_unordered(lambda a, v: a.add.remote(v), [1, 2, 3, 4])))
            keep = Counter.remote()
            ray.get(keep.add.remote())
            rows = list_actors(filters=[("class_name", "=", "Counter"), ("state", "=", "ALIVE")])
            out.append(bool(rows and rows[0].pid and rows[0].node_id
                            and rows[0].ray_namespace == "serve"))
            alive_now = [a for a in list_actors(limit=1000) if a.state == "ALIVE"]
            out.append(sorted({a["class_name"] for a in alive_now}))
            return out
        """.replace("isinstance_of", "(lambda f, k: k.__name__ in error(f)[1])"))
        self.assertEqual(got[:2], [True, 2])
        self.assertIn("Full", got[2])
        self.assertEqual(got[3:6], [1, [2], True])
        self.assertEqual(got[7], True)
        self.assertLessEqual({"Counter", "ServeController", "ProxyActor", "ServeReplica:app:App"},
                             set(got[8]))

    def test_nothing_is_left(self) -> None:
        s = self.begin()
        before = self.run_code(s, """
            return [len(os.listdir('/proc/self/fd')), ray.available_resources()]
        """)
        got = self.run_code(s, """
            for _ in range(20):
                c = Counter.remote()
                ray.get([c.add.remote() for _ in range(5)])
                ray.kill(c)
            ray.get([square.remote(i) for i in range(100)])
            del c
            gc.collect()
            living = [("state", "=", "ALIVE"), ("class_name", "=", "Counter")]
            wait_for_condition(lambda: not list_actors(filters=living))
            wait_for_condition(lambda: ray.available_resources()["CPU"] == 4)
            return [len(os.listdir('/proc/self/fd')), ray.available_resources()]
        """)
        self.assertEqual(got[1], before[1])
        self.assertLessEqual(got[0], before[0] + 3)
        figures = call(s.dashboard, "/metrics").text
        self.assertIn('deployment="actors"', figures)
        self.assertNotIn("ray:", figures, "no series for each actor")
        self.assertEqual(s.stop(), 0)


class TwoNodes(CoreTest):
    def begin(self) -> Server:
        port, dashboard, join = free_port(), free_port(), free_port()
        self.write_app(CODE)
        head = self.spawn("head", "--num-cpus", "2", "--host", "127.0.0.1", "--port", str(port),
                          "--dashboard-port", str(dashboard), "--listen", "127.0.0.1:%d" % join)
        head.port, head.dashboard, head.join = port, dashboard, join
        head.wait_rest()
        answer = head.rest("PUT", {"applications": [{
            "name": "app", "route_prefix": "/", "import_path": "served:app",
            "rserve": {"app_dir": self.folder}}]})
        self.assertEqual(answer.status, 200, answer.text)
        head.wait_apps()
        return head

    def worker(self, head: Server) -> Server:
        return self.spawn("worker", "--address", "127.0.0.1:%d" % head.join, "--num-cpus", "2",
                          "--resources", '{"far": 4}', "--host", "127.0.0.1", "--port", "0")

    def test_another_node(self) -> None:
        head = self.begin()
        pending = self.run_code(head, """
            global far
            far = Counter.options(resources={"far": 1}, max_restarts=5, name="far").remote()
            return [error(lambda: ray.get(far.add.remote(), timeout=0.2))[0]]
        """)
        self.assertEqual(pending, ["GetTimeoutError"])
        worker = self.worker(head)
        got = self.run_code(head, """
            far = ray.get_actor("far")
            here = ray.get_runtime_context().get_node_id()
            first = ray.get(far.add.remote(), timeout=30)
            there = ray.get(far.where.remote())
            @ray.remote(resources={"far": 1})
            def where(value):
                return ray.get_runtime_context().get_node_id(), value
            big = ray.put(bytes(300000))
            pinned = Counter.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(there, soft=False)).remote()
            spread = placement_group([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_SPREAD")
            table = placement_group_table
            both = [spread.wait(20), len(set(table(spread)["bundles_to_node_id"].values()))]
            remove_placement_group(spread)
            by_task, value = ray.get(where.remote(big), timeout=30)
            return [first, there != here, by_task == there, len(value),
                    ray.get(pinned.where.remote(), timeout=30) == there, both, len(ray.nodes())]
        """)
        self.assertEqual(got, [2, True, True, 300000, True, [True, 2], 2])
        # the node dies: what may start again does so where there is room
        worker.send(signal.SIGKILL)
        worker.wait_exit()
        self.worker(head)
        self.assertEqual(self.run_code(head, """
            far = ray.get_actor("far")
            def answers():
                return ray.get(far.add.remote(), timeout=5) >= 1
            wait_for_condition(answers, timeout=40)
            return [ray.util.state.get_actor(far._actor_id.hex()).num_restarts]
        """), [1])


SHARED = '''
import os
import ray
from ray import serve
from ray.serve.config import DeploymentActorConfig

@ray.remote
class Store:
    def __init__(self, start, step=1):
        if start < 0:
            raise ValueError("below zero")
        self.n, self.step = start, step
    def add(self):
        self.n += self.step
        return self.n
    def pid(self):
        return os.getpid()
    def whose(self):
        c = serve.get_deployment_actor_context()
        return [c.app_name, c.deployment, c.actor_name]

@serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 0}, deployment_actors=[
    DeploymentActorConfig(name="store", actor_class=Store, init_args=(START,),
                          init_kwargs={"step": 2})])
class Users:
    async def __call__(self, request):
        store = serve.get_deployment_actor("store")
        try:
            serve.get_deployment_actor("other")
        except ValueError as e:
            assert "has no deployment actor named 'other'" in str(e)
        return [os.getpid(), await store.add.remote(), await store.pid.remote(),
                await store.whose.remote()]

app = Users.bind()
'''


class DeploymentActors(ServeTest):
    def test_replicas_share_one_until_a_new_version(self) -> None:
        s = self.serve_code(SHARED.replace("START", "10"))
        pids, last, actor = set(), 10, 0
        while len(pids) < 2:
            pid, n, actor, whose = s.call().json()
            self.assertEqual([n, whose], [last + 2, ["app", "Users", "store"]])
            pids.add(pid)
            last = n
        os.kill(actor, signal.SIGKILL)  # it is started anew
        again = wait_until("it answers again", lambda: (
            lambda answer: answer.json() if answer.status == 200 else None)(s.call()))
        self.assertEqual(again[1], 12, "it counts from the start")
        now = again[2]
        self.assertNotEqual(now, actor)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)  # it outlives replicas
        wait_until("there are new replicas", lambda: len(s.pids("app", "Users") - pids) == 2)
        self.assertEqual(s.call().json()[2], now)
        self.write("app.yaml", "applications:\n- name: app\n  route_prefix: /\n"
                   "  import_path: served:app\n  deployments:\n  - name: Users\n"
                   "    deployment_actors:\n    - {name: store, actor_class: 'served:Store', "
                   "init_args: [100]}\n")
        with open(os.path.join(self.folder, "app.yaml"), encoding="utf-8") as f:
            text = f.read().replace("route_prefix", "rserve: {app_dir: '%s'}\n  route_prefix"
                                    % self.folder)
        self.assertEqual(s.rest("PUT", text.encode()).status, 200)
        wait_until("the new version has one of its own", lambda: s.call().json()[1] > 100)
        wait_until("the old one is gone", lambda: read_process(now) is None)
        new = s.call().json()[2]
        s.rest("PUT", {"applications": []})
        wait_until("it ends with its deployment", lambda: read_process(new) is None)

    def test_one_that_cannot_start(self) -> None:
        self.write_app(SHARED.replace("START", "-1"),
                       "- {name: Users, max_constructor_retry_count: 2}")
        s = self.start(os.path.join(self.folder, "app.yaml"))
        s.wait_apps("DEPLOY_FAILED", timeout=40)
        self.assertIn("ValueError: below zero",
                      s.app("app")["deployments"]["Users"]["message"])


SCRIPT = '''
import os
import ray

@ray.remote
class Counter:
    def __init__(self):
        self.n = 0
    def add(self):
        self.n += 1
        return self.n
    def pid(self):
        return os.getpid()

@ray.remote
def plus(x):
    return x + OFFSET

OFFSET = 10
ray.init(num_cpus=2)
c = Counter.remote()
print(ray.get([plus.remote(i) for i in range(3)]), ray.get([c.add.remote() for _ in range(3)]))
print("PID", ray.get(c.pid.remote()), flush=True)
'''


class Programs(ServeTest):
    def test_a_program_of_its_own(self) -> None:
        path = self.write("program.py", SCRIPT)
        env = dict(os.environ, XDG_STATE_HOME=os.path.join(self.folder, "state"))
        for name in ("RAY_ADDRESS", "RSERVE_ADDRESS", "RAY_DASHBOARD_ADDRESS"):
            env.pop(name, None)
        done = subprocess.run([RSERVE, "python", path], env=env, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=60 * SLOW, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = done.stdout.splitlines()
        self.assertEqual(lines[0], "[10, 11, 12] [1, 2, 3]")
        pid = int(lines[1].split()[1])
        wait_until("its actor ends with it", lambda: read_process(pid) is None)


if __name__ == "__main__":
    main()
