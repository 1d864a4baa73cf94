#!/usr/bin/env python3
"""No request is lost while replicas die, deployments roll and configurations change."""

import os
import random
import signal
import socket
import sys

from harness import ServeTest, main, wait_until
from open_loop import HTTP_SERVER, OpenLoop

WORKER = """\
    import asyncio, os
    from ray import serve

    @serve.deployment(num_replicas=4, max_ongoing_requests=5)
    class Worker:
        async def __call__(self, request):
            await asyncio.sleep(0.02)
            return request.query_params["n"]

    app = Worker.bind()
    """


class LossTest(ServeTest):
    def killing(self, s, app: str, deployment: str, load: OpenLoop, kills: int,
                how: int = signal.SIGKILL) -> None:
        """Ends one replica after the other; there is always one more."""
        dice = random.Random(1)
        for _ in range(kills):
            there = wait_until("a replica runs", lambda: s.pids(app, deployment))
            try:
                os.kill(dice.choice(sorted(there)), how)
            except ProcessLookupError:
                pass
            before = load.sent
            wait_until("more requests", lambda b=before: load.sent >= b + 30)

    def assertNoneLost(self, load: OpenLoop) -> None:
        outcomes = load.stop()
        self.assertEqual([o for o in outcomes if o.status != 200][:5], [])
        self.assertEqual(sorted(o.number for o in outcomes), list(range(load.sent)))
        self.assertEqual([o for o in outcomes if o.text != str(o.number)][:5], [])


class Killed(LossTest):
    def test_python_replicas(self) -> None:
        s = self.serve_code(WORKER, "--num-cpus", "4")
        load = OpenLoop(s.port, 150)
        self.killing(s, "app", "Worker", load, 20)
        self.assertNoneLost(load)
        s.wait_apps()
        self.assertIn('rserve_interrupted_requests_total{deployment="Worker",application="app",'
                      'outcome="again"}', s.rest(path="/metrics").text)
        self.assertNoZombies(s)

    def test_replicas_that_are_asked_to_end(self) -> None:
        """SIGTERM ends Python at once, with what it works on."""
        s = self.serve_code(WORKER, "--num-cpus", "4")
        load = OpenLoop(s.port, 150)
        self.killing(s, "app", "Worker", load, 8, signal.SIGTERM)
        self.assertNoneLost(load)

    def test_http_replicas(self) -> None:
        self.write("server.py", HTTP_SERVER)
        s = self.serve(self.write("app.yaml", """\
            applications:
            - name: app
              route_prefix: /
              deployments:
              - name: Server
                num_replicas: 3
                max_ongoing_requests: 5
                rserve: {kind: http, command: [%s, server.py, "{port}"], ready_path: /}
            """ % sys.executable), "--num-cpus", "4")
        load = OpenLoop(s.port, 60)
        self.killing(s, "app", "Server", load, 6)
        self.assertNoneLost(load)

    def test_posts_with_a_key(self) -> None:
        s = self.serve_code(WORKER, "--num-cpus", "4")
        load = OpenLoop(s.port, 100, method="POST", body=b"x" * 1000,
                        headers={"idempotency-key": "k"})
        self.killing(s, "app", "Worker", load, 6)
        self.assertNoneLost(load)

    def test_routes_that_say_so(self) -> None:
        """Declared idempotent; the long bodies travel as memfds, and are sent again."""
        self.write_app(WORKER)
        s = self.serve(self.write("app.yaml", """\
            applications:
            - name: app
              route_prefix: /
              import_path: served:app
              rserve: {idempotent: true}
            """), "--num-cpus", "4")
        load = OpenLoop(s.port, 60, method="POST", body=b"x" * 100_000)
        self.killing(s, "app", "Worker", load, 6)
        self.assertNoneLost(load)

    def test_posts_are_not_run_twice(self) -> None:
        """Each is run once at most; its client knows whether it may have been."""
        s = self.serve_code("""\
            import asyncio, os
            from ray import serve

            runs = os.open(os.path.join(os.path.dirname(__file__), "runs"),
                           os.O_WRONLY | os.O_APPEND | os.O_CREAT)

            @serve.deployment(num_replicas=4, max_ongoing_requests=5)
            class Worker:
                async def __call__(self, request):
                    n = request.query_params["n"]
                    os.write(runs, n.encode() + b"\\n")
                    await asyncio.sleep(0.02)
                    return n

            app = Worker.bind()
            """, "--num-cpus", "4")
        load = OpenLoop(s.port, 150, method="POST")
        self.killing(s, "app", "Worker", load, 10)
        outcomes = load.stop()
        with open(os.path.join(self.folder, "runs"), encoding="utf-8") as f:
            runs = [int(line) for line in f]
        self.assertEqual(len(runs), len(set(runs)), "some were run twice")
        self.assertEqual({o.status for o in outcomes} - {200, 502}, set())
        self.assertEqual({o.number for o in outcomes if o.status == 200} - set(runs), set())
        for o in outcomes:
            if o.status == 502:
                self.assertRegex(o.text, r"^Request [-0-9a-f]{36} failed: replica \w+ of "
                                 r"deployment 'Worker' \(application 'app'\) died while it "
                                 r"worked on the request, after \d+\.\d{3} s: its process was "
                                 r"killed by SIGKILL")


class NotBegun(LossTest):
    """What a replica has read, or could have read, and not begun: its method was never called."""

    BLOCKS = """\
        import os, time
        from ray import serve

        here = os.path.dirname(__file__)

        @serve.deployment(num_replicas=1, max_ongoing_requests=10, health_check_period_s=%g,
                          health_check_timeout_s=%g, graceful_shutdown_timeout_s=%g)
        class Worker:
            async def __call__(self, request):
                with open(os.path.join(here, "runs"), "a") as f:
                    f.write(request.query_params["n"] + "\\n")
                if request.query_params["n"] == "0":
                    while not os.path.exists(os.path.join(here, "go")):
                        time.sleep(0.01)
                return request.query_params["n"]

        app = Worker.bind()
        """

    def block(self, period: float, timeout: float, grace: float):
        """One request blocks the replica's loop, nine others are with it: POSTs, all of them."""
        s = self.serve_code(self.BLOCKS % (period, timeout, grace))
        first = OpenLoop(s.port, 100, method="POST", most=1)
        wait_until("it is blocked", lambda: self.runs())
        others = [OpenLoop(s.port, 100, path="/other", method="POST", most=1, first=n)
                  for n in range(1, 10)]
        self.wait_ongoing(s, 10)
        return s, first, others

    def wait_ongoing(self, s, n: int) -> None:
        def reached() -> bool:
            return any(line.startswith("ray_serve_replica_processing_queries{")
                       and float(line.rsplit(" ", 1)[1]) == n
                       for line in s.rest(path="/metrics").text.splitlines())
        wait_until("%d are with the replica" % n, reached)

    def runs(self):
        try:
            with open(os.path.join(self.folder, "runs"), encoding="utf-8") as f:
                return f.read().split()
        except FileNotFoundError:
            return []

    def check(self, first: OpenLoop, others) -> str:
        for load in others:
            self.assertEqual([(o.status, o.text) for o in load.join()],
                             [(200, str(load.outcomes[0].number))])
        (lost,) = first.join()
        self.assertEqual(lost.status, 502, lost)
        self.assertEqual(sorted(self.runs()), [str(n) for n in range(10)])  # each once
        return lost.text

    def test_of_one_that_is_killed(self) -> None:
        s, first, others = self.block(10, 30, 20)
        os.kill(s.pids("app", "Worker").pop(), signal.SIGKILL)
        text = self.check(first, others)
        self.assertIn("nothing says that it is idempotent", text)

    def test_of_one_that_hangs(self) -> None:
        """They move away when it is found ill, long before it is killed."""
        s, first, others = self.block(0.1, 0.2, 600)
        for load in others:
            load.join()
        self.assertFalse(first.done)
        os.kill(int(s.replicas("app", "Worker", "STOPPING")[0]["pid"]), signal.SIGKILL)
        self.check(first, others)

    def test_of_one_that_is_stopped(self) -> None:
        """SIGSTOP: it reads nothing, and answers nothing."""
        s, first, others = self.block(0.1, 0.2, 0.5)
        os.kill(s.pids("app", "Worker").pop(), signal.SIGSTOP)
        self.check(first, others)

    def test_of_one_that_goes_on_after_all(self) -> None:
        """What was taken back is not begun when the loop is free again."""
        s, first, others = self.block(0.1, 0.2, 600)
        for load in others:
            load.join()
        self.write("go", "")
        self.assertEqual([o.status for o in first.join()], [200])
        wait_until("it is gone", lambda: not s.replicas("app", "Worker", "STOPPING"))
        self.assertEqual(sorted(self.runs()), [str(n) for n in range(10)])


class Memory(LossTest):
    def held(self, s) -> dict:
        """{kind: bytes}, over all lanes."""
        found: dict = {}
        for line in s.rest(path="/metrics").text.splitlines():
            if line.startswith("rserve_buffered_bytes{"):
                kind = line.split('kind="')[1].split('"')[0]
                found[kind] = found.get(kind, 0) + int(float(line.rsplit(" ", 1)[1]))
        return found

    def test_new_requests_are_refused_at_the_bound(self) -> None:
        """Those that are there go on; room that they make is given to others."""
        s = self.serve_code("""\
            import asyncio, os
            from ray import serve

            here = os.path.dirname(__file__)

            @serve.deployment(max_ongoing_requests=2)
            class Slow:
                async def __call__(self, request):
                    body = await request.body()
                    while not os.path.exists(os.path.join(here, "go")):
                        await asyncio.sleep(0.01)
                    return len(body)

            app = Slow.bind()
            """, "--buffer-memory", "2M", "--lanes", "1")
        self.assertIn("rserve_buffered_limit_bytes 2097152.0", s.rest(path="/metrics").text)
        size = 500_000
        loads = []
        for n in range(5):  # one after the other: the bound is looked at when a request begins
            loads.append(OpenLoop(s.port, 100, method="POST", body=b"x" * size, most=1, first=n))
            wait_until("it is there", lambda: sum(self.held(s).values()) == len(loads) * size)
        self.assertEqual(self.held(s), {"replay": 2 * size, "waiting": 3 * size, "answer": 0})
        refused = s.call("/", method="POST", body=b"one more")
        self.assertEqual(refused.status, 503)
        self.assertRegex(refused.text, r"^Request refused: the node holds \d+ bytes for requests "
                         r"under way, its limit is 2097152 \(--buffer-memory\)\.$")
        self.assertEqual(s.call("/-/healthz").status, 200)
        self.write("go", "")
        for load in loads:
            self.assertEqual([(o.status, o.text) for o in load.join()], [(200, str(size))])
        self.assertEqual(s.call("/", method="POST", body=b"fits").status, 200)
        wait_until("nothing is held", lambda: not any(self.held(s).values()))

    def test_answers_that_nobody_takes_count(self) -> None:
        s = self.serve_code("""\
            from ray import serve
            from starlette.responses import StreamingResponse

            async def endless():
                while True:
                    yield b"x" * 10000

            @serve.deployment
            class Endless:
                async def __call__(self, request):
                    return StreamingResponse(endless())

            app = Endless.bind()
            """, "--lanes", "1")
        with socket.create_connection(("127.0.0.1", s.port), timeout=20) as c:
            c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            c.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_until("it is held", lambda: self.held(s)["answer"] > 100_000)
            # the window of credit bounds it: one is 256 KiB, and may be overrun by one piece
            self.assertLess(self.held(s)["answer"], 400_000)
        wait_until("nothing is held", lambda: not any(self.held(s).values()))


class Poison(LossTest):
    def test_one_request_that_kills(self) -> None:
        """Whoever takes it dies; it ends, and the others do not notice."""
        s = self.serve_code("""\
            import asyncio, os
            from ray import serve

            @serve.deployment(num_replicas=2, max_ongoing_requests=5)
            class Worker:
                async def __call__(self, request):
                    if request.url.path == "/poison":
                        os._exit(9)
                    await asyncio.sleep(0.01)
                    return request.query_params["n"]

            app = Worker.bind()
            """, "--num-cpus", "2")
        load = OpenLoop(s.port, 50)
        answer = s.call("/poison")
        self.assertEqual(answer.status, 502, answer.text)
        self.assertIn("its process exited with status 9", answer.text)
        self.assertIn("it was not run again: it was run too often already", answer.text)
        self.assertNoneLost(load)
        wait_until("both are back", lambda: len(s.pids("app", "Worker")) == 2)


if __name__ == "__main__":
    main()
