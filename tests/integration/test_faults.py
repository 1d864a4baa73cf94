#!/usr/bin/env python3
"""Replicas that die, hang, lie or never start: what the others and the clients see of it."""

import os
import signal
import sys
import unittest

from harness import C_ECHO, Load, Server, ServeTest, main, read_process, wait_until

WORKER = """\
    import asyncio, os
    from ray import serve

    @serve.deployment(num_replicas=2, max_ongoing_requests=4)
    class Worker:
        async def __call__(self, request):
            await asyncio.sleep(0.01)
            return {"pid": os.getpid()}

    app = Worker.bind()
    """


class Killed(ServeTest):
    def kill_under_load(self, s, app: str, deployment: str, path: str = "/", body=None,
                        most_lost: int = 8, in_pieces: bool = False) -> None:
        """Kills one of two replicas; only what it worked on may fail, and it is replaced."""
        before = s.pids(app, deployment)
        self.assertEqual(len(before), 2)
        load = Load(s.port, path, threads=6, body=body)
        load.wait(50)
        victim = sorted(before)[0]
        os.kill(victim, signal.SIGKILL)
        load.wait(100)
        wait_until("the replica is replaced", lambda: len(s.pids(app, deployment)) == 2
                   and victim not in s.pids(app, deployment))
        load.wait(50)
        counts = load.stop()
        lost = sum(n for status, n in counts.items() if status != 200)
        self.assertLessEqual(lost, most_lost, counts)
        # 0: it died after the head of its answer had gone out, and the connection was cut
        self.assertLessEqual(set(counts), {200} | ({502} if body else set())
                             | ({0} if in_pieces else set()),
                             [r for r in load.results if r[0] != 200][:3])
        for status, text in load.results:
            if status == 502:
                self.assertIn("died while it worked on the request", text)
                self.assertIn("was killed by SIGKILL (9)", text)
        s.wait_apps()
        self.assertNoZombies(s)

    def test_python_replica(self) -> None:
        s = self.serve_code(WORKER, "--num-cpus", "2")
        self.kill_under_load(s, "app", "Worker")

    def test_run_of_an_import_path_goes_on(self) -> None:
        """It ends when the first deploy fails, not when something that ran dies."""
        self.write_app(WORKER)
        s = self.serve("served:app", "--num-cpus", "2", cwd=self.folder)
        for _ in range(2):
            victim = sorted(s.pids("default", "Worker"))[0]
            os.kill(victim, signal.SIGKILL)
            wait_until("the replica is replaced",
                       lambda v=victim: len(s.pids("default", "Worker")) == 2
                       and v not in s.pids("default", "Worker"))
            self.assertEqual(s.call().status, 200)

    @unittest.skipUnless(C_ECHO, "the C stage was not built")
    def test_exec_replica(self) -> None:
        s = self.serve(self.copy_app("c-stage"), "--num-cpus", "1")
        self.kill_under_load(s, "c-stage", "Echo", body=b"x")

    def test_http_replica(self) -> None:
        s = self.serve(self.copy_app("http-stage"), "--num-cpus", "1")
        self.kill_under_load(s, "http-stage", "Files", "/menu.txt", in_pieces=True)

    def test_zygote(self) -> None:
        """Without its zygote an application goes on, and can still replace a replica."""
        s = self.serve_code(WORKER, "--num-cpus", "2")
        pids = s.pids("app", "Worker")
        from harness import descendants
        others = [p for p in descendants(s.pid) if p.pid not in pids and p.command != "rserve"
                  and "python" in p.command]
        for p in others:
            os.kill(p.pid, signal.SIGKILL)
        self.assertEqual(s.call().status, 200)
        self.assertTrue(others, "no zygote was found")
        victim = sorted(pids)[0]
        os.kill(victim, signal.SIGKILL)
        wait_until("the replica is replaced", lambda: len(s.pids("app", "Worker")) == 2
                   and victim not in s.pids("app", "Worker"))
        self.assertEqual(s.call().status, 200)
        self.assertNoZombies(s)

    def test_unread_requests_survive(self) -> None:
        """What was written to a replica that had died is not lost either."""
        s = self.serve_code("""\
            import os
            from ray import serve

            @serve.deployment
            class One:
                def __call__(self, request):
                    return {"pid": os.getpid()}

            app = One.bind()
            """)
        for _ in range(3):
            victim = s.call().json()["pid"]
            os.kill(victim, signal.SIGKILL)
            answer = s.call()
            self.assertEqual(answer.status, 200, answer.text)
            self.assertNotEqual(answer.json()["pid"], victim)

    def test_waiting_requests_survive(self) -> None:
        """The only replica dies: what waits in the queue is answered by its successor."""
        s = self.serve_code("""\
            import asyncio, os
            from ray import serve

            @serve.deployment(max_ongoing_requests=1)
            class One:
                async def __call__(self, request):
                    await asyncio.sleep(float(request.query_params.get("s", 0)))
                    return {"pid": os.getpid()}

            app = One.bind()
            """)
        victim = s.call().json()["pid"]
        blocker = Load(s.port, "/?s=30", threads=1, body=b"not to be run twice")
        self.wait_queue(s, in_flight=1)
        waiting = Load(s.port, "/", threads=4)
        blocker.going = waiting.going = False
        self.wait_queue(s, in_flight=1, queued=4)
        os.kill(victim, signal.SIGKILL)
        self.assertEqual(blocker.stop(), {502: 1})
        self.assertEqual(waiting.stop(), {200: 4})

    def wait_queue(self, s, in_flight: int, queued: int = 0) -> None:
        def reached() -> bool:
            text = s.rest(path="/metrics").text
            now = {"ray_serve_deployment_queued_queries": 0.0,
                   "ray_serve_replica_processing_queries": 0.0}
            for line in text.splitlines():
                name = line.partition("{")[0]
                if name in now:
                    now[name] += float(line.rsplit(" ", 1)[1])
            return list(now.values()) == [queued, in_flight]
        wait_until("%d in flight and %d queued" % (in_flight, queued), reached)


class Stopped(ServeTest):
    def test_sigstop(self) -> None:
        """A frozen replica fails its health checks and is replaced; the other one serves on."""
        s = self.serve_code(WORKER, "--num-cpus", "2", deployments="""\
            - name: Worker
              health_check_period_s: 0.5
              health_check_timeout_s: 1
              graceful_shutdown_timeout_s: 1
            """)
        victim = sorted(s.pids("app", "Worker"))[0]
        os.kill(victim, signal.SIGSTOP)
        wait_until("it is replaced", lambda: len(s.pids("app", "Worker")) == 2
                   and victim not in s.pids("app", "Worker"), 20)
        wait_until("it is gone", lambda: read_process(victim) is None, 15)
        self.assertEqual({s.call().status for _ in range(20)}, {200})
        s.wait_apps()


class NeverStarts(ServeTest):
    def fails(self, s, deployment: str = "A") -> str:
        s.wait_apps("DEPLOY_FAILED")
        app = s.app("app")
        return app["message"] + app["deployments"].get(deployment, {}).get("message", "")

    def test_constructor_throws(self) -> None:
        s = self.start(self.write_app("""\
            from ray import serve

            def load_the_model():
                raise RuntimeError("no such model: tiny-9b")

            @serve.deployment(max_constructor_retry_count=3)
            class A:
                def __init__(self):
                    load_the_model()

                def __call__(self, request):
                    return "never"

            app = A.bind()
            """))
        message = self.fails(s)
        self.assertIn("RuntimeError: no such model: tiny-9b", message)
        self.assertIn("in load_the_model", message)
        self.assertEqual(s.app("app")["deployments"]["A"]["status"], "DEPLOY_FAILED")
        answer = s.call()
        self.assertEqual(answer.status, 503)
        self.assertEqual(answer.text, "Deployment(name='A', app='app') is unavailable because it "
                                      "failed to deploy.")
        output = s.output()
        self.assertIn("no such model: tiny-9b", output)
        self.assertIn("served.py", output)
        self.assertNoZombies(s)

    def test_constructor_throws_twice(self) -> None:
        s = self.serve_code("""\
            import os
            from ray import serve

            @serve.deployment
            class A:
                def __init__(self):
                    path = os.path.join(os.path.dirname(__file__), "tries")
                    with open(path, "a") as f:
                        f.write("x")
                    self.tries = os.path.getsize(path)
                    if self.tries < 3:
                        raise OSError("not yet")

                def __call__(self, request):
                    return self.tries

            app = A.bind()
            """)
        self.assertEqual(s.call().json(), 3)

    def test_module_exits_at_import(self) -> None:
        s = self.start(self.write_app("import sys\nprint('so long')\nsys.exit(3)\n"))
        message = self.fails(s)
        self.assertIn("SystemExit", message)
        self.assertEqual(s.call().status, 404)

    def test_module_kills_its_process(self) -> None:
        s = self.start(self.write_app("import os\nos._exit(7)\n"))
        self.assertIn("7", self.fails(s))

    def test_a_good_application_beside_a_broken_one(self) -> None:
        self.write_app(WORKER)
        self.write("broken.py", "raise ValueError('broken on purpose')\n")
        s = self.start(self.write("app.yaml", """\
            applications:
            - {name: good, route_prefix: /good, import_path: "served:app"}
            - {name: bad, route_prefix: /bad, import_path: "broken:app"}
            """), "--num-cpus", "2")
        s.wait_apps({"good": "RUNNING", "bad": "DEPLOY_FAILED"})
        self.assertIn("ValueError: broken on purpose", s.app("bad")["message"])
        self.assertEqual(s.call("/good").status, 200)
        self.assertEqual(s.call("/bad").status, 404)


# The replica protocol spoken by hand. A request to /garbage is answered by noise.
BY_HAND = """\
    import json, os, socket, struct, time

    sock = socket.socket(fileno=int(os.environ["RSERVE_FD"]))
    REQUEST, RESPONSE, HELLO, INIT, READY, PING, PONG, STOP = 1, 3, 16, 17, 18, 20, 21, 23

    def send(kind, stream, meta=b"", body=b"", flags=0):
        sock.sendall(struct.pack("<IBBHQQ", len(meta), kind, flags, 0, stream, len(body))
                     + meta + body)

    def exactly(n):
        data = b""
        while len(data) < n:
            part = sock.recv(n - len(data))
            if not part:
                raise SystemExit(0)
            data += part
        return data

    def fields(meta):
        found, at = {}, 0
        while at < len(meta):
            tag, size = struct.unpack_from("<BI", meta, at)
            found[tag] = meta[at + 5:at + 5 + size]
            at += 5 + size
        return found

    send(HELLO, 0, json.dumps({"protocol": 1, "kind": "exec", "pid": os.getpid()}).encode())
    while True:
        size, kind, flags, fds, stream, length = struct.unpack("<IBBHQQ", exactly(24))
        meta, body = exactly(size), exactly(length)
        if kind == INIT:
            send(READY, stream, json.dumps({"methods": ["__call__"], "asgi": False}).encode())
        elif kind == PING:
            send(PONG, stream, b'{"ok": true}')
        elif kind == STOP:
            raise SystemExit(0)
        elif kind == REQUEST:
            path = fields(meta)[11]
            if path == b"/garbage":
                sock.sendall(b"GET / HTTP/1.1 this is no frame at all " * 20)
            elif path == b"/huge":
                sock.sendall(struct.pack("<IBBHQQ", 0xffffffff, RESPONSE, 0, 0, stream, 2 ** 63))
            elif path == b"/wrong":
                send(77, stream)
            elif path == b"/close":
                sock.close()
                time.sleep(1000)
            elif path == b"/hang":
                time.sleep(1000)
            elif path == b"/half":
                sock.sendall(struct.pack("<IBBHQQ", 50, RESPONSE, 1, 0, stream, 0) + b"cut")
                os._exit(0)
            else:
                send(RESPONSE, stream, struct.pack("<BIH", 23, 2, 200), b"fine", 1)
    """


class Garbage(ServeTest):
    def serve_replica(self) -> Server:
        return self.serve(self.write("app.yaml", """\
            applications:
            - name: app
              route_prefix: /
              deployments:
              - name: Noise
                health_check_period_s: 0.2
                health_check_timeout_s: 0.3
                graceful_shutdown_timeout_s: 0.2
                rserve: {kind: exec, command: [%s, replica.py]}
            """ % sys.executable))

    def test_on_the_replica_socket(self) -> None:
        self.write("replica.py", BY_HAND)
        s = self.serve_replica()
        self.assertEqual(s.call().text, "fine")
        for path in ("/garbage", "/huge", "/wrong", "/half", "/close", "/hang"):
            with self.subTest(path=path):
                before = s.pids("app", "Noise")
                answer = s.call(path, method="POST")
                self.assertEqual(answer.status, 502, answer.text)
                self.assertIn("died while it worked on the request", answer.text)
                # the replica is replaced, and what comes meanwhile waits for the next one
                self.assertEqual(s.call().text, "fine")
                wait_until("a new replica", lambda b=before: s.pids("app", "Noise")
                           and not b & s.pids("app", "Noise"))
        s.wait_apps()
        self.assertNoZombies(s)

    def test_what_is_safe_survives_all_of_that(self) -> None:
        """The same, once each: who comes next answers."""
        folder = self.folder
        self.write("replica.py", BY_HAND.replace(
            "path = fields(meta)[11]",
            "path = fields(meta)[11]; at = os.path.join(%r, path[1:].decode() + '.done'); "
            "path = b'/' if os.path.exists(at) else path; open(at, 'w').close()" % folder))
        s = self.serve_replica()
        for path in ("/garbage", "/huge", "/wrong", "/half", "/close", "/hang"):
            with self.subTest(path=path):
                answer = s.call(path)
                self.assertEqual((answer.status, answer.text), (200, "fine"))

    def test_an_exec_that_speaks_something_else(self) -> None:
        s = self.start(self.write("app.yaml", """\
            applications:
            - name: app
              route_prefix: /
              deployments:
              - name: Cat
                max_constructor_retry_count: 2
                rserve: {kind: exec, command: [echo, hello]}
            """))
        s.wait_apps("DEPLOY_FAILED")
        self.assertIn("exited with status 0 before it was ready",
                      s.app("app")["deployments"]["Cat"]["message"])


if __name__ == "__main__":
    main()
