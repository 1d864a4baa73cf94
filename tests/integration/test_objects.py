#!/usr/bin/env python3
"""Values between processes: large ones without copies, objects in the node's store, calls that wait
for calls, and what is left when processes die or the store is full."""

import os
import re
import signal
import threading
import unittest
from typing import Any, Dict, List

from harness import C_ECHO, Server, ServeTest, call, free_port, main, wait_until

APP = """\
    import asyncio, gc, os, pickle
    from ray import serve
    from ray.exceptions import RayError
    from rserve import _objects as objects

    MB = 1 << 20


    class Array:
        '''As an array of numpy's: its memory stays out of the pickle.'''

        def __init__(self, data):
            self.data = data

        def __reduce_ex__(self, protocol):
            return Array, (pickle.PickleBuffer(self.data),)


    def memory(what):
        with open("/proc/self/status") as f:
            return next(int(line.split()[1]) // 1024 for line in f if line.startswith(what + ":"))


    def descriptors():
        return len(os.listdir("/proc/self/fd"))


    @serve.deployment(max_ongoing_requests=100)
    class Make:
        def __init__(self):
            self.cancelled = 0

        def __call__(self, mb):
            return Array(bytearray(b"x") * (mb * MB))

        async def slowly(self, value, seconds):
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            return value

        def fail(self):
            raise ValueError("made nothing")

        def exit(self):
            os._exit(3)

        def was_cancelled(self):
            return self.cancelled


    @serve.deployment(max_ongoing_requests=100)
    class Use:
        def __call__(self, array):
            before = memory("RssAnon")
            view = memoryview(array.data)
            pages = sum(view[::4096])
            view[0] = 7  # its own copy, and nobody else's
            return {"size": view.nbytes, "pages": pages, "kind": type(view.obj).__name__,
                    "grown": memory("RssAnon") - before, "pid": os.getpid()}

        async def hang(self, array):
            await asyncio.sleep(600)

        def add(self, a, b=0):
            return a + b

        def inside(self, box):
            return objects.get(box["ref"])

        def back(self, value):
            return [objects.put(value)]

        def descriptors(self):
            return descriptors()

        def pid(self):
            return os.getpid()


    @serve.deployment(max_ongoing_requests=100)
    class Front:
        def __init__(self, make, use):
            self.make, self.use = make, use
            self.kept = []

        async def __call__(self, request):
            body = await request.json()
            try:
                return await getattr(self, body.pop("do"))(**body)
            except Exception as e:
                return {"error": [c.__name__ for c in type(e).__mro__], "text": str(e)}

        async def hop(self, mb):
            data = bytearray(b"x") * (mb * MB)
            before = memory("VmHWM")
            answer = await self.use.remote(Array(data))
            return dict(answer, caller=memory("VmHWM") - before)

        async def chain(self, mb):
            before = memory("VmHWM")
            first = self.make.remote(mb)
            answer = await self.use.remote(first)
            return dict(answer, caller=memory("VmHWM") - before)

        async def awaited_later(self):
            first = self.make.slowly.remote(3, 0.1)
            second = self.use.add.remote(first, b=self.make.slowly.remote(4, 0.05))
            third = self.use.add.remote(second, first)
            return [await third, await first, await first, await second,
                    await self.use.add.remote(first, b=await second)]

        async def fail(self, method):
            second = self.use.add.remote(getattr(self.make, method).remote())
            return await self.use.add.remote(second)

        async def hang(self, mb):
            return await self.use.hang.remote(Array(bytearray(mb * MB)))

        async def cancel(self):
            second = self.use.add.remote(self.make.slowly.remote(1, 600))
            await asyncio.sleep(0.2)
            second.cancel()
            try:
                await second
            except RayError as e:
                return type(e).__name__

        async def was_cancelled(self):
            return await self.make.was_cancelled.remote()

        async def put(self, mb):
            ref = objects.put(Array(bytearray(mb * MB)))
            array = await ref
            return {"size": memoryview(array.data).nbytes}

        async def refs(self):
            ref = objects.put("inner")
            box = {"ref": ref}
            outer = objects.put(box)
            del ref, box
            first = await self.use.inside.remote(outer)
            (back,) = await self.use.back.remote("made there")
            loop = asyncio.get_running_loop()
            in_thread = await loop.run_in_executor(None, objects.get, back)
            from_response = await self.use.add.remote(1, b=2)._to_object_ref()
            ready, rest = objects.wait([back, outer], num_returns=2, timeout=10)
            return [first, objects.get(back), in_thread, await back, objects.get(from_response),
                    await self.use.add.remote(back, " and here"), len(ready), len(rest)]

        async def blocking(self):
            # On the loop's own thread, for what only arrives there.
            response = self.make.slowly.remote("late", 0.3)
            return objects.get(response._to_object_ref_sync(_allow_running_in_asyncio_loop=True))

        async def timeout(self):
            return objects.get(await self.make.slowly.remote(1, 600)._to_object_ref(), timeout=0.1)

        async def lost(self):
            return await objects.ObjectRef(os.urandom(16))

        async def by_value(self):
            class Local:
                def __init__(self, x):
                    self.x = x

                def __add__(self, other):
                    return Local(self.x + other)

            return (await self.use.add.remote(Local(1), b=2)).x

        async def churn(self, count, mb):
            before = descriptors(), await self.use.descriptors.remote()
            for i in range(count):
                refs = [objects.put(i) for _ in range(10)]
                large = objects.put(Array(bytearray(mb * MB // 8)))
                if i % 10 == 0:
                    await self.use.remote(large)
                    await self.use.remote(self.make.remote(mb))
                assert await refs[3] == i
            del refs, large
            await asyncio.sleep(0.1)
            return {"own": [before[0], descriptors()],
                    "other": [before[1], await self.use.descriptors.remote()]}

        async def keep(self, count):
            self.kept = [objects.put(bytearray(10)) for _ in range(count)]

        async def collect(self):
            gc.collect()  # exceptions and the frames that they name are circles

        async def pid(self):
            return [os.getpid(), await self.use.pid.remote()]


    app = Front.bind(Make.bind(), Use.bind())
    """


def figures(s: Server) -> Dict[str, float]:
    text = call(s.dashboard, "/metrics").text
    found = {}
    for line in text.splitlines():
        if line.startswith("ray_object_store_"):
            name, value = line.split()
            found[name[len("ray_object_store_"):]] = float(value)
    return found


def memfds(pid: int) -> List[str]:
    found = []
    for fd in os.listdir("/proc/%d/fd" % pid):
        try:
            target = os.readlink("/proc/%d/fd/%s" % (pid, fd))
        except OSError:
            continue
        if target.startswith("/memfd:"):
            found.append(target)
    return found


def maps(pid: int) -> str:
    with open("/proc/%d/maps" % pid, encoding="utf-8") as f:
        return f.read()


class Objects(ServeTest):
    def serve_objects(self, *args: str) -> Server:
        s = self.serve_code(APP, "--num-cpus", "8", *args)
        self.ask(s, "pid")
        return s

    def ask(self, s: Server, do: str, **more: Any) -> Any:
        answer = s.call(body=dict(more, do=do), timeout=60)
        self.assertEqual(answer.status, 200, answer.text)
        return answer.json() if "json" in answer.headers["content-type"] else answer.text

    def assertEmpty(self, s: Server) -> None:
        """The store is, and no body is left anywhere."""
        self.ask(s, "collect")
        wait_until("the store is empty", lambda: figures(s)["num_local_objects"] == 0)
        self.assertEqual(figures(s)["used_memory"], 0)
        pids = [s.pid, *self.ask(s, "pid")]
        wait_until("no body is left", lambda: not [m for p in pids for m in memfds(p)
                                                   if "rserve-starts" not in m])

    def test_large_values_are_not_copied(self) -> None:
        s = self.serve_objects()
        a = self.ask(s, "hop", mb=100)
        self.assertEqual((a["size"], a["kind"]), (100 << 20, "mmap"))
        self.assertEqual(a["pages"], 25600 * ord("x"))
        self.assertLess(a["grown"], 20)
        self.assertLess(a["caller"], 30)
        self.assertEmpty(s)

    def test_a_chain_does_not_pass_its_caller(self) -> None:
        s = self.serve_objects()
        a = self.ask(s, "chain", mb=100)
        self.assertEqual((a["size"], a["kind"]), (100 << 20, "mmap"))
        self.assertLess(a["caller"], 20)
        self.assertEqual(self.ask(s, "awaited_later"), [10, 3, 3, 7, 10])
        self.assertEmpty(s)

    def test_what_fails_first(self) -> None:
        s = self.serve_objects()
        error = self.ask(s, "fail", method="fail")
        self.assertEqual(error["error"][:2], ["RayTaskError(ValueError)", "RayTaskError"])
        self.assertIn("Make.fail", error["text"])
        self.assertIn("ValueError: made nothing", error["text"])
        error = self.ask(s, "fail", method="exit")
        self.assertEqual(error["error"][0], "RayServeException")
        self.assertIn("because an upstream actor died", error["text"])
        self.assertEqual(self.ask(s, "cancel"), "RequestCancelledError")
        wait_until("the first is cancelled too", lambda: self.ask(s, "was_cancelled") == 1)
        self.assertEmpty(s)

    def test_references(self) -> None:
        s = self.serve_objects()
        self.assertEqual(self.ask(s, "refs"), ["inner", "made there", "made there", "made there", 3,
                                               "made there and here", 2, 0])
        self.assertEqual(self.ask(s, "blocking"), "late")
        self.assertEqual(self.ask(s, "timeout")["error"][0], "GetTimeoutError")
        self.assertEqual(self.ask(s, "lost")["error"][0], "ObjectLostError")
        self.assertEqual(self.ask(s, "by_value"), 3)
        wait_until("one call is left", lambda: figures(s)["num_local_objects"] <= 1)

    def test_a_full_store_says_so(self) -> None:
        s = self.serve_objects("--object-store-memory", "10M")
        for do in ("put", "chain"):
            error = self.ask(s, do, mb=20)
            self.assertIn("ObjectStoreFullError", error["error"][:2], error)
            self.assertRegex(error["text"],
                             r"no room for 20\d+ bytes: \d+ of 10485760 bytes are used")
        self.assertEqual(self.ask(s, "put", mb=5)["size"], 5 << 20)
        self.assertEqual(self.ask(s, "chain", mb=5)["size"], 5 << 20)
        self.assertEmpty(s)

    def test_a_replica_dies_with_a_large_argument(self) -> None:
        s = self.serve_objects()
        for _ in range(2):
            pid = self.ask(s, "pid")[1]
            answers: List[Any] = []
            t = threading.Thread(target=lambda: answers.append(self.ask(s, "hang", mb=100)))
            t.start()
            wait_until("the argument is there",
                       lambda p=pid: re.search("/memfd:rserve-(body|object)", maps(p)))
            os.kill(pid, signal.SIGKILL)
            t.join(30)
            self.assertEqual(answers[0]["error"][0], "ActorDiedError")
            wait_until("it is replaced", lambda p=pid: s.pids("app", "Use") not in (set(), {p}))
        self.assertEmpty(s)

    def test_nothing_is_left(self) -> None:
        s = self.serve_objects()
        before = len(os.listdir("/proc/%d/fd" % s.pid))
        for _ in range(2):
            a = self.ask(s, "churn", count=200, mb=1)
            self.assertLessEqual(a["own"][1], a["own"][0] + 2)
            self.assertLessEqual(a["other"][1], a["other"][0] + 2)
        self.assertEmpty(s)
        wait_until("its descriptors are as before",
                   lambda: len(os.listdir("/proc/%d/fd" % s.pid)) <= before + 2)
        # What a process that is killed referred to goes with it.
        self.ask(s, "keep", count=2000)
        self.assertEqual(figures(s)["num_local_objects"], 2000)
        os.kill(self.ask(s, "pid")[0], signal.SIGKILL)
        wait_until("the store is empty", lambda: figures(s)["num_local_objects"] == 0)


SPREAD = """\
    from ray import serve

    @serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 1})
    class Twice:
        def __call__(self, value):
            return value * 2

    @serve.deployment(ray_actor_options={"num_cpus": 0})
    class Front:
        def __init__(self, twice):
            self.twice = twice

        async def __call__(self, request):
            to = request.query_params["to"]
            if to == "stage":
                stage = serve.get_app_handle("c-stage")
                return (await stage.remote(self.twice.remote(b"ab"))).decode()
            response = self.twice.remote("x" * (int(to) << 20))
            for _ in range(3):
                response = self.twice.remote(response)
            return len(await self.twice.remote(response)) >> 20

    app = Front.bind(Twice.bind())
    """


class TakesValues(ServeTest):
    """Deployments that cannot ask this node for an object get the values."""

    def test_another_node(self) -> None:
        port, dashboard, join = free_port(), free_port(), free_port()
        head = self.spawn("head", "--num-cpus", "0", "--host", "127.0.0.1", "--port", str(port),
                          "--dashboard-port", str(dashboard), "--listen", "127.0.0.1:%d" % join)
        head.port, head.dashboard = port, dashboard
        head.wait_rest()
        for _ in range(2):
            self.spawn("worker", "--address", "127.0.0.1:%d" % join, "--num-cpus", "1",
                       "--host", "127.0.0.1", "--port", "0")
        self.write("served.py", SPREAD)
        answer = head.rest("PUT", {"applications": [
            {"name": "app", "route_prefix": "/", "import_path": "served:app",
             "rserve": {"app_dir": self.folder}}]})
        self.assertEqual(answer.status, 200, answer.text)
        head.wait_apps("RUNNING")
        self.assertEqual(len({r["node_id"] for r in head.replicas("app", "Twice")}), 2)
        for mb in (0, 1):
            answer = head.call("/?to=%d" % mb, timeout=40)
            self.assertEqual((answer.status, answer.text), (200, str(mb * 32)))

    @unittest.skipUnless(C_ECHO, "the C stage was not built")
    def test_a_stage_in_c(self) -> None:
        folder = os.path.dirname(self.copy_app("c-stage"))
        self.write("served.py", SPREAD)
        self.write("app.yaml", """\
            applications:
            - {name: app, route_prefix: /, import_path: "served:app"}
            - name: c-stage
              route_prefix: /c
              deployments:
              - name: Echo
                rserve: {kind: exec, command: [%s/echo]}
            """ % folder)
        s = self.serve(os.path.join(self.folder, "app.yaml"), "--num-cpus", "8")
        for _ in range(3):
            answer = s.call("/?to=stage")
            self.assertEqual((answer.status, answer.text), (200, "abab"))
        wait_until("the store is empty", lambda: figures(s)["num_local_objects"] == 0)


if __name__ == "__main__":
    main()
