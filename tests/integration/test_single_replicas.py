#!/usr/bin/env python3
"""Broadcasts to all replicas of a deployment, and slots that are reserved before the call."""

import os
import signal
import threading

from harness import ServeTest, free_port, main, wait_until

CODE = '''
import asyncio, os, threading, time
from ray import serve
from ray.serve import exceptions

@serve.deployment(num_replicas=3, max_ongoing_requests=1, max_queued_requests=2,
                  ray_actor_options={"num_cpus": 0.1})
class Worker:
    def __init__(self):
        self.value = 0
        self.gate = asyncio.Event()
    async def set(self, value):
        self.value = value
        return os.getpid()
    async def get(self):
        return self.value
    async def wait(self):
        await self.gate.wait()
        return "released"
    async def release(self):
        self.gate.set()
    async def fail(self, pid):
        if os.getpid() == pid:
            raise KeyError(pid)
        return pid
    async def pid(self, *args):
        return [os.getpid(), *args]
    async def items(self):
        for i in range(3):
            yield i

@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Other:
    async def pid(self):
        return os.getpid()

@serve.deployment(max_ongoing_requests=20, ray_actor_options={"num_cpus": 0.1})
class Front:
    def __init__(self, worker, other):
        self.worker, self.other = worker, other
        self.blocked = []

    async def __call__(self, request):
        return await getattr(self, request.query_params["do"])(request.query_params)

    async def broadcast(self, q):
        return sorted(await self.worker.broadcast("set", 7).results_async())

    async def values(self, q):
        return await self.worker.broadcast("get").results_async(timeout_s=20)

    async def values_now(self, q):
        got = await self.worker.broadcast("get").results_async(
            timeout_s=20, return_exceptions=True)
        return [g for g in got if isinstance(g, int)]

    async def in_thread(self, q):
        def work():
            return self.worker.broadcast("get").results(timeout_s=20)
        return await asyncio.to_thread(work)

    async def busy(self, q):
        """Every slot is taken, and the queue is full: a broadcast does not mind."""
        self.blocked = [self.worker.wait.remote() for _ in range(5)]
        await asyncio.sleep(0.05)
        await self.worker.broadcast("release").results_async()
        return await asyncio.gather(*self.blocked)

    async def failing(self, q):
        pids = sorted(await self.worker.broadcast("set", 7).results_async())
        got = await self.worker.broadcast("fail", pids[0]).results_async(return_exceptions=True)
        try:
            await self.worker.broadcast("fail", pids[0]).results_async()
        except KeyError as e:
            raised = type(e).__name__
        try:
            await self.worker.broadcast("get").results_async(timeout_s=-1)
        except ValueError as e:
            negative = str(e)
        return [sum(isinstance(g, KeyError) for g in got), len(got), raised, negative]

    async def choose(self, q):
        """Three are reserved: each replica has one slot; then calls go where they were reserved."""
        choose = self.worker.choose_replica
        async with choose() as a, choose() as b, choose() as c:
            ids = {s.replica_id for s in (a, b, c)}
            late = self.worker.pid.remote("late")
            await asyncio.sleep(0.05)
            assert not late._done
            pids = await asyncio.gather(*[
                self.worker.pid.dispatch(s, s.replica_id) for s in (a, b, c)])
            stream = []
        async with self.worker.choose_replica() as a:
            async for item in self.worker.items.options(stream=True).dispatch(a):
                stream.append(item)
        return [sorted(ids) == sorted(p[1] for p in pids), len({p[0] for p in pids}),
                (await late)[1], stream]

    async def refused(self, q):
        texts = []
        async with self.worker.choose_replica() as a:
            for use in (lambda: self.other.pid.dispatch(a), lambda: self.worker.pid.dispatch(7),
                        lambda: self.worker.pid.dispatch(a), lambda: self.worker.pid.dispatch(a)):
                try:
                    await use()
                    texts.append("fine")
                except ValueError as e:
                    texts.append(str(e))
        async with self.worker.choose_replica() as a:
            pass
        try:
            self.worker.pid.dispatch(a)
        except ValueError as e:
            texts.append(str(e))
        return texts

    async def abandon(self, q):
        """Slots that were not used, and choices that were given up, come back."""
        for _ in range(5):
            held = [self.worker.choose_replica() for _ in range(3)]
            for h in held:
                await h.__aenter__()
            try:
                await asyncio.wait_for(self.worker.choose_replica().__aenter__(), 0.02)
            except asyncio.TimeoutError:
                pass
            for h in held:
                await h.__aexit__(None, None, None)
        return len({(await self.worker.pid.remote())[0] for _ in range(9)})

    async def vanish(self, q):
        async with self.worker.choose_replica() as a:
            open(os.path.join(os.path.dirname(__file__), "chosen"), "w").write(a.replica_id)
            while not os.path.exists(os.path.join(os.path.dirname(__file__), "killed")):
                await asyncio.sleep(0.01)
            while not a._question._error:
                await asyncio.sleep(0.01)
            try:
                await self.worker.pid.dispatch(a)
            except exceptions.ReplicaUnavailableError as e:
                return str(e) == f"Replica {a.replica_id} is unavailable."

    async def hold(self, q):
        self.selection = self.worker.choose_replica()
        await self.selection.__aenter__()
        return ["held"]

app = Front.bind(Worker.bind(), Other.bind())
'''


class SingleReplicas(ServeTest):
    def do(self, s, what: str):
        answer = s.call("/?do=" + what, timeout=30)
        self.assertEqual(answer.status, 200, answer.text)
        return answer.json()

    def test_broadcast(self) -> None:
        s = self.serve_code(CODE)
        self.assertEqual(set(self.do(s, "broadcast")), s.pids("app", "Worker"))
        self.assertEqual(self.do(s, "values"), [7, 7, 7])
        self.assertEqual(self.do(s, "in_thread"), [7, 7, 7])
        self.assertEqual(self.do(s, "busy"), ["released"] * 5)
        self.assertEqual(self.do(s, "failing"), [
            1, 3, "RayTaskError(KeyError)", "timeout_s must be non-negative or None, got -1."])

    def test_choose_and_dispatch(self) -> None:
        s = self.serve_code(CODE)
        self.assertEqual(self.do(s, "choose"), [True, 3, "late", [0, 1, 2]])
        other, seven, fine, again, outside = self.do(s, "refused")
        for text in (other, seven):
            self.assertIn("Cannot dispatch a selection created for a different deployment", text)
        self.assertEqual(fine, "fine")
        for text in (again, outside):
            self.assertIn("Cannot dispatch a selection that was dispatched before", text)
        self.assertEqual(self.do(s, "abandon"), 3)

    def test_the_replica_that_was_chosen_dies(self) -> None:
        s = self.serve_code(CODE)
        got: list = []
        thread = threading.Thread(target=lambda: got.append(self.do(s, "vanish")))
        thread.start()
        chosen = os.path.join(self.folder, "chosen")
        wait_until("one is chosen", lambda: os.path.exists(chosen) and open(chosen).read())
        replica_id = open(chosen).read()
        pid = [r["pid"] for r in s.replicas("app", "Worker") if r["replica_id"] == replica_id][0]
        os.kill(pid, signal.SIGKILL)
        self.write("killed", "")
        thread.join(30)
        self.assertEqual(got, [True])
        # a caller that dies with a slot in its hand gives it back
        wait_until("all run", lambda: len(s.pids("app", "Worker")) == 3)
        self.do(s, "hold")
        os.kill(s.pids("app", "Front").pop(), signal.SIGKILL)
        wait_until("all run", lambda: len(s.pids("app", "Front")) == 1)
        self.assertEqual(self.do(s, "abandon"), 3)

    def test_broadcast_over_nodes(self) -> None:
        port, dashboard, join = free_port(), free_port(), free_port()
        head = self.spawn("head", "--num-cpus", "1", "--host", "127.0.0.1", "--port", str(port),
                          "--dashboard-port", str(dashboard), "--listen", "127.0.0.1:%d" % join)
        head.port, head.dashboard = port, dashboard
        head.wait_rest()
        workers = [self.spawn("worker", "--address", "127.0.0.1:%d" % join, "--num-cpus", "2",
                              "--host", "127.0.0.1", "--port", "0") for _ in range(2)]
        self.write("served.py", CODE)
        answer = head.rest("PUT", {"applications": [{
            "name": "app", "route_prefix": "/", "import_path": "served:app",
            "rserve": {"app_dir": self.folder},
            "deployments": [{"name": "Worker", "num_replicas": 3, "max_replicas_per_node": 1}]}]})
        self.assertEqual(answer.status, 200, answer.text)
        head.wait_apps()
        pids = {r["pid"]: r["node_id"] for r in head.replicas("app", "Worker")}
        self.assertEqual(len(set(pids.values())), 3)
        wait_until("all nodes are known where the caller is",
                   lambda: set(self.do(head, "broadcast")) == set(pids))
        self.assertEqual(self.do(head, "in_thread"), [7, 7, 7])
        # a node that dies is left out, and what is called there meanwhile ends
        workers[0].send(signal.SIGKILL)
        workers[0].wait_exit()

        def others_answer() -> bool:
            answer = head.call("/?do=values_now", timeout=60)
            return answer.status == 200 and len(answer.json()) == 2
        wait_until("the others answer", others_answer)


if __name__ == "__main__":
    main()
