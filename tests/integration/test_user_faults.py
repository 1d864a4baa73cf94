#!/usr/bin/env python3
"""User code that does what it should not: nothing hangs, and what it took comes back.

Each test counts before and after: descriptors and memfds of rserve and of the replicas that stay,
processes, and slots (that as many requests as before can run at once).
"""

import os
import signal
import socket
import threading
import time
from typing import Any, Dict, List

from harness import Server, ServeTest, call, descendants, main, wait_until

CODE = '''
import asyncio, os, signal, sys, threading, time
from ray import serve

threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()  # at import

@serve.deployment(max_ongoing_requests=8, graceful_shutdown_timeout_s=0.5,
                  ray_actor_options={"num_cpus": 0.1})
class Back:
    async def items(self, n=10 ** 9):
        for i in range(n):
            yield i
    def sync_items(self, n=10 ** 9):
        for i in range(n):
            yield i
    async def wait(self, s=3600):
        await asyncio.sleep(s)
    async def lock(self):
        return threading.Lock()
    async def frame(self):
        return sys._getframe()
    async def big(self, data):
        return data
    async def odd_error(self):
        class Local(Exception):
            def __reduce__(self):
                raise RuntimeError("this cannot be pickled")
            def __str__(self):
                raise RuntimeError("nor shown")
        raise Local()
    async def ok(self):
        return "ok"
    async def exit(self, how):
        if how == "sys.exit":
            sys.exit(3)
        if how == "os._exit":
            os._exit(3)
        if how == "abort":
            os.abort()
        if how == "stack":
            sys.setrecursionlimit(10 ** 8)
            def f(): return f()
            f()
        if how == "kill":
            os.kill(os.getpid(), signal.SIGSEGV)

@serve.deployment(max_ongoing_requests=100, ray_actor_options={"num_cpus": 0.1})
class Front:
    def __init__(self, back):
        self.back = back
        self.kept = []

    async def __call__(self, request):
        q = request.query_params
        try:
            return await getattr(self, q["do"])(**{k: v for k, v in q.items() if k != "do"})
        except Exception as e:
            return [type(e).__name__]

    async def pid(self):
        return os.getpid()

    async def unpicklable(self):
        names = []
        for method in ("lock", "frame", "odd_error"):
            try:
                await getattr(self.back, method).remote()
            except Exception as e:
                names.append(type(e).__name__)
        return names

    async def abandon(self, method):
        for _ in range(20):
            stream = getattr(self.back, method).options(stream=True).remote()
            async for item in stream:
                if item == 100:
                    break
            stream.cancel()
        return await self.back.ok.remote()

    async def dropped(self):
        """A stream that nobody cancels: its credit runs out, and it ends with this request."""
        self.kept = [self.back.options(stream=True).items.remote() for _ in range(4)]
        return [await s.__anext__() for s in self.kept]

    async def undo(self):
        for s in self.kept:
            s.cancel()
        self.kept = []
        return await self.back.ok.remote()

    async def storm(self, n):
        """Calls that are cancelled while they wait, while they run, and when they are over."""
        n = int(n)
        for start in range(0, n, 500):
            calls = [(self.back.ok if i % 3 == 0 else self.back.wait).remote() for i in range(500)]
            if start % 1000:
                await asyncio.sleep(0)
            for c in calls:
                c.cancel()
            done = await asyncio.gather(*calls, return_exceptions=True)
            assert len(done) == 500
        return await self.back.ok.remote()

    async def bodies(self):
        data = b"x" * 300_000
        for _ in range(20):
            calls = [self.back.big.remote(data) for _ in range(4)]
            calls[0].cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        return "ok"

    async def full(self):
        """As many as there are slots run at once."""
        calls = [self.back.wait.remote(0.2) for _ in range(8)]
        await asyncio.gather(*calls)
        return "ok"

    async def exits(self, how):
        await self.back.exit.remote(how)

    async def forks(self):
        pids = []
        for _ in range(5):
            pid = os.fork()
            if pid == 0:
                sys.exit(0)  # raises in the middle of our own code
            pids.append(pid)
        for pid in pids:
            os.waitpid(pid, 0)
        return "ok"

    async def threads(self):
        for _ in range(20):
            threading.Thread(target=lambda: self.back.ok.remote().result()).start()
        return "ok"

    async def leak(self):
        self.memory = b"x" * (1 << 62)

app = Front.bind(Back.bind())
'''


def descriptors(pid: int) -> Dict[str, int]:
    """{kind: how many} of a process, without log files, which begin with the first line."""
    counts: Dict[str, int] = {}
    for fd in os.listdir("/proc/%d/fd" % pid):
        try:
            target = os.readlink("/proc/%d/fd/%s" % (pid, fd))
        except OSError:
            continue
        if target.endswith(".log"):
            continue
        kind = "memfd" if target.startswith("/memfd:") else target.split(":")[0]
        kind = kind if kind in ("memfd", "socket", "pipe", "anon_inode") else "file"
        counts[kind] = counts.get(kind, 0) + 1
    return counts


class UserFaults(ServeTest):
    def do(self, s: Server, what: str, **args: Any) -> Any:
        query = "&".join(["do=" + what, *("%s=%s" % a for a in args.items())])
        answer = s.call("/?" + query, timeout=60)
        self.assertEqual(answer.status, 200, answer.text)
        return answer.json() if answer.text[:1] in "[0123456789" else answer.text

    def count(self, s: Server) -> Dict[str, Any]:
        return {"rserve": descriptors(s.pid), "processes": len(descendants(s.pid)),
                **{p.command: descriptors(p.pid) for p in descendants(s.pid)
                   if p.command.startswith("rs:")}}

    def begin(self) -> Server:
        s = self.serve_code(CODE)
        for _ in range(2):  # what is made once is made
            self.do(s, "storm", n=500)
            self.do(s, "bodies")
            self.assertEqual(self.do(s, "full"), "ok")
        wait_until("its connections are closed", lambda: self.count(s) == (
            time.sleep(0.1) or self.count(s)))
        return s

    def assertAsBefore(self, s: Server, before: Dict[str, Any]) -> None:
        self.assertEqual(self.do(s, "full"), "ok")
        seen: List[Any] = []

        def same() -> bool:
            seen[:] = [self.count(s)]
            return seen[0] == before
        try:
            wait_until("all came back", same, 10)
        except AssertionError:
            self.assertEqual(seen[0], before)

    def test_values_and_errors_that_cannot_travel(self) -> None:
        s = self.begin()
        before = self.count(s)
        for _ in range(10):
            names = self.do(s, "unpicklable")
            self.assertEqual(names[:2], ["RayTaskError(TypeError)"] * 2)
            self.assertEqual(names[2], "RayTaskError")
        self.assertEqual(self.do(s, "leak"), ["MemoryError"])
        self.assertAsBefore(s, before)

    def test_generators_left_half_way(self) -> None:
        s = self.begin()
        before = self.count(s)
        for method in ("items", "sync_items"):
            self.assertEqual(self.do(s, "abandon", method=method), "ok")
        self.assertEqual(self.do(s, "dropped"), [0, 0, 0, 0])
        self.assertEqual(self.do(s, "undo"), "ok")
        self.assertAsBefore(s, before)

    def test_a_storm_of_cancels(self) -> None:
        s = self.begin()
        before = self.count(s)
        pid = self.do(s, "pid")
        self.assertEqual(self.do(s, "storm", n=10000), "ok")
        self.assertEqual(self.do(s, "bodies"), "ok")
        # clients that hang up, 1,000 of them
        for _ in range(20):
            socks = []
            for _ in range(50):
                sock = socket.create_connection(("127.0.0.1", s.port))
                sock.sendall(b"GET /?do=dropped HTTP/1.1\r\nhost: x\r\n\r\n")
                socks.append(sock)
            for sock in socks:
                sock.close()
        self.assertEqual(self.do(s, "undo"), "ok")
        self.assertEqual(self.do(s, "pid"), pid)
        self.assertAsBefore(s, before)

    def test_forks_and_threads(self) -> None:
        s = self.begin()
        before = self.count(s)
        for what in ("forks", "threads"):
            self.assertEqual(self.do(s, what), "ok")
        self.assertAsBefore(s, before)

    def test_exits(self) -> None:
        s = self.begin()
        before = self.count(s)
        for how in ("sys.exit", "os._exit", "abort", "kill"):
            pids = s.pids("app", "Back")
            got = self.do(s, "exits", how=how)
            if how == "sys.exit":  # an exception like others
                self.assertEqual(got, ["RayTaskError(SystemExit)"])
                self.assertEqual(s.pids("app", "Back"), pids)
                continue
            self.assertEqual(got, ["ActorDiedError"])
            wait_until("another one runs", lambda old=pids: s.pids("app", "Back")
                       and not s.pids("app", "Back") & old)
            self.assertEqual(self.do(s, "full"), "ok")
        self.do(s, "bodies")
        self.assertAsBefore(s, before)

    def test_two_applications_with_the_same_names(self) -> None:
        self.write("served.py", CODE)
        s = self.serve(self.write("app.yaml", """
            applications:
            - {name: app, route_prefix: /, import_path: "served:app"}
            - {name: other, route_prefix: /other, import_path: "served:app"}
            """))
        self.assertFalse(s.pids("app", "Back") & s.pids("other", "Back"))
        answers = [call(s.port, path + "?do=pid").json() for path in ("/", "/other")]
        self.assertEqual({answers[0]}, s.pids("app", "Front"))
        self.assertEqual({answers[1]}, s.pids("other", "Front"))
        self.assertEqual(call(s.port, "/other?do=exits&how=os._exit").json(), ["ActorDiedError"])
        for path in ("/", "/other"):
            self.assertEqual(call(s.port, path + "?do=full").text, "ok")


HOOKS = '''
import os
from ray import serve

BAD = os.environ.get("BAD", "")

def fail(where):
    if BAD == where:
        raise RuntimeError("the user's " + where)

@serve.deployment(health_check_period_s=0.1, health_check_timeout_s=1,
                  graceful_shutdown_timeout_s=1, max_constructor_retry_count=1)
class A:
    def __init__(self):
        fail("constructor")
        self.healthy = 1
    def reconfigure(self, config):
        fail("reconfigure")
    def check_health(self):
        if BAD == "check_health" and os.path.exists(__file__ + ".sick"):
            fail("check_health")
    def record_routing_stats(self):
        fail("record_routing_stats")
        return {"x": float("nan"), 7: object()}
    def record_autoscaling_stats(self):
        fail("record_autoscaling_stats")
        return {"x": float("inf")}
    def __del__(self):
        fail("__del__")
    async def __call__(self, request):
        return os.getpid()

app = A.options(user_config={"x": 1}, autoscaling_config={"min_replicas": 1, "max_replicas": 2}
                if "autoscaling" in BAD else None).bind()
'''

LIFESPAN = '''
import os
from ray import serve

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        if os.environ["BAD"] == "startup":
            raise RuntimeError("the user's startup")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise RuntimeError("the user's shutdown")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"1"})

@serve.deployment(graceful_shutdown_timeout_s=1, max_constructor_retry_count=1)
@serve.ingress(asgi)
class A:
    pass

app = A.bind()
'''


class Hooks(ServeTest):
    def begin(self, bad: str, code: str = HOOKS) -> Server:
        return self.start(self.write_app(code), env={"BAD": bad})

    def test_before_it_serves(self) -> None:
        for bad, code in (("constructor", HOOKS), ("reconfigure", HOOKS), ("startup", LIFESPAN)):
            s = self.begin(bad, code)
            s.wait_apps({"app": "DEPLOY_FAILED"})
            self.assertIn("the user's " + bad, s.app("app")["deployments"]["A"]["message"]
                          + s.app("app")["message"] + s.output())
            s.send(signal.SIGTERM)
            self.assertIn(s.wait_exit(), (0, 1))

    def test_while_it_serves(self) -> None:
        for bad in ("record_routing_stats", "record_autoscaling_stats"):
            s = self.begin(bad)
            s.wait_apps()
            pid = s.call().json()
            time.sleep(0.3)  # it is asked now and then
            self.assertEqual(s.call().json(), pid, bad)
            self.assertEqual(s.stop(), 0)

    def test_when_it_is_asked_whether_it_is_well(self) -> None:
        s = self.begin("check_health")
        s.wait_apps()
        pid = s.call().json()
        sick = self.write("served.py.sick", "")
        wait_until("it is found out", lambda: pid not in s.pids("app", "A"))
        self.assertIn("the user's check_health", s.output())
        os.unlink(sick)
        wait_until("another one serves", lambda: s.pids("app", "A") - {pid})
        self.assertEqual(s.call().status, 200)
        self.assertEqual(s.stop(), 0)

    def test_when_it_ends(self) -> None:
        for bad, code in (("__del__", HOOKS), ("shutdown", LIFESPAN)):
            s = self.begin(bad, code)
            s.wait_apps()
            self.assertEqual(s.call().status, 200)
            self.assertEqual(s.stop(), 0)
            if bad == "__del__":
                self.assertIn("the user's __del__", s.output())


if __name__ == "__main__":
    main()
