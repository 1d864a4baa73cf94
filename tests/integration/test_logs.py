#!/usr/bin/env python3
"""`rserve logs`: what replicas print, on all nodes, of those that died too, as they come and go."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
from typing import Any, Dict, List, Optional

from harness import RSERVE, SLOW, Server, ServeTest, call, free_port, main, rserve, wait_until

CODE = """\
    import os, sys
    from ray import serve

    @serve.deployment(ray_actor_options={"num_cpus": 0.1}, graceful_shutdown_wait_loop_s=0.05)
    class Talker:
        def __init__(self):
            print("constructed", flush=True)

        def __call__(self, request):
            n = int(request.query_params.get("n", 1))
            word = request.query_params.get("word", "line")
            for i in range(n):
                print("%s %d" % (word, i))
            print(flush=True)
            if "die" in request.query_params:
                print("last words", file=sys.stderr, flush=True)
                os._exit(7)
            return n

    app = Talker.bind()
    """


class Follower:
    """A command that goes on: its lines as they come."""

    def __init__(self, *args: str, env: Dict[str, str]) -> None:
        self.process = subprocess.Popen([RSERVE, *args], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        universal_newlines=True, env=dict(os.environ, **env))
        self.lines: List[str] = []
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def wait(self, text: str, times: int = 1) -> None:
        try:
            wait_until("%r is shown" % text,
                       lambda: sum(text in x for x in list(self.lines)) >= times, 20)
        except AssertionError as e:
            raise AssertionError("%s; it showed %s" % (e, self.lines[-20:])) from None

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(20 * SLOW)
        self.reader.join(10)
        assert self.process.stdout
        self.process.stdout.close()
        return code


class Logs(ServeTest):
    def env(self, s: Server) -> Dict[str, str]:
        return {"RSERVE_ADDRESS": "http://127.0.0.1:%d" % s.dashboard}

    def shown(self, s: Server, *args: str) -> List[str]:
        done = rserve("logs", *args, env=self.env(s))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout.splitlines()

    def follow(self, s: Server, *args: str) -> Follower:
        f = Follower("logs", "-f", *args, env=self.env(s))
        self.addCleanup(f.process.kill)
        return f

    def one(self, s: Server) -> str:
        return s.replicas("app", "Talker")[0]["replica_id"]

    def test_lines(self) -> None:
        s = self.serve_code(CODE)
        replica = self.one(s)
        s.call("/?n=3&word=a")
        prefix = "(app#Talker#%s) " % replica
        wait_until("all is there", lambda: prefix + "a 2" in self.shown(s, "app"))
        self.assertEqual(self.shown(s, "app"), [prefix + x for x in (
            "constructed", "a 0", "a 1", "a 2", "")])
        self.assertEqual(self.shown(s, "app", "-n2", "--no-prefix"), ["a 2", ""])
        self.assertEqual(self.shown(s, "app", "-n0"), [])
        self.assertEqual(self.shown(s, "app#Talker#" + replica, "-n", "2"),
                         [prefix + "a 2", prefix])
        self.assertEqual(self.shown(s, "app#Other"), [])
        self.assertEqual(self.shown(s, "-n1", "--since", "1h"), [prefix])
        self.assertEqual(self.shown(s, "app", "--previous"), [])
        timed = self.shown(s, "app", "-t", "-n2")[0]
        self.assertRegex(timed, r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} " + re.escape(prefix))
        nobody = rserve("logs", "nobody", env=self.env(s))
        self.assertEqual(nobody.returncode, 1)
        self.assertOneLine(nobody.stderr, "no application 'nobody'")
        for wrong in (["#x"], ["app", "-n", "-1"], ["app", "--since", "soon"], ["a", "b"]):
            self.assertOneLine(rserve("logs", *wrong, env=self.env(s)).stderr, "rserve logs: ")

    def test_what_the_dead_said(self) -> None:
        s = self.serve_code(CODE)
        first = self.one(s)
        s.call("/?die=1", method="POST")  # which is not run again
        wait_until("another one runs", lambda: s.replicas("app", "Talker") and
                   self.one(s) != first)
        prefix = "(app#Talker#%s) " % first
        wait_until("the end is told", lambda: self.shown(s, "app", "-p")[-1:] ==
                   [prefix + "-- exited with status 7"])
        told = self.shown(s, "app", "--previous")
        self.assertIn(prefix + "last words", told)
        self.assertTrue(all(x.startswith(prefix) for x in told), told)
        both = self.shown(s, "app")
        self.assertIn("(app#Talker#%s) constructed" % self.one(s), both)
        self.assertIn(prefix + "last words", both)

    def test_an_import_that_fails(self) -> None:
        self.write_app("print('about to fail', flush=True)\nraise RuntimeError('no weights')\n")
        s = self.start(os.path.join(self.folder, "app.yaml"))
        s.wait_apps("DEPLOY_FAILED")
        self.assertIn("(app) about to fail", self.shown(s, "app"))

    def test_follow(self) -> None:
        """A replica that is killed meanwhile, its successor, and not a line twice."""
        s = self.serve_code(CODE)
        f = self.follow(s, "app")
        f.wait("constructed")
        for i in range(20):
            s.call("/?n=5&word=w%d" % i)
        f.wait("w19 4")
        os.kill(s.replicas("app", "Talker")[0]["pid"], signal.SIGKILL)
        f.wait("-- killed by signal 9")
        f.wait("constructed", 2)
        wait_until("it answers again", lambda: s.call("/?n=1&word=after").status == 200)
        f.wait("after 0")
        self.assertEqual(f.end(), -signal.SIGINT)
        said = [x.split(") ", 1)[1] for x in f.lines if re.search(r"w\d+ \d", x)]
        self.assertEqual(said, ["w%d %d" % (i, k) for i in range(20) for k in range(5)])

    def test_a_flood_that_nobody_reads(self) -> None:
        """Clients that are stopped, or never read, cost the server nothing but their page."""
        s = self.serve_code(CODE)
        stopped = self.follow(s, "app")
        stopped.wait("constructed")
        stopped.process.send_signal(signal.SIGSTOP)
        deaf = []
        for _ in range(8):
            c = socket.create_connection(("127.0.0.1", s.dashboard), timeout=20)
            c.sendall(b"GET /api/v1/logs?target=app&lines=100000 HTTP/1.1\r\n"
                      b"Host: localhost\r\n\r\n")
            deaf.append(c)
        self.addCleanup(lambda: [c.close() for c in deaf])
        before = self.memory(s)
        for i in range(20):
            self.assertEqual(s.call("/?n=20000&word=%s" % ("x" * 60)).status, 200)
        self.assertLess(self.memory(s) - before, (64 if SLOW == 1 else 512) << 20)
        s.call("/?n=1&word=the-end")
        stopped.process.send_signal(signal.SIGCONT)
        stopped.wait("the-end 0")
        stopped.wait("not shown")  # it says that it could not keep up
        stopped.end()

    def memory(self, s: Server) -> int:
        with open("/proc/%d/status" % s.pid, encoding="utf-8") as f:
            found = re.search(r"VmRSS:\s+(\d+) kB", f.read())
        assert found
        return int(found[1]) << 10

    def test_rest(self) -> None:
        s = self.serve_code(CODE)
        path = "/api/v1/logs?target=app"
        page = call(s.dashboard, path).json()
        self.assertEqual([x["text"] for x in page["lines"]], ["constructed"])
        line = page["lines"][0]
        self.assertEqual((line["app"], line["deployment"], line["replica"], line["stream"]),
                         ("app", "Talker", self.one(s), "stdout"))
        # who waits is answered by the line
        answers: List[Any] = []
        waits = threading.Thread(target=lambda: answers.append(call(
            s.dashboard, path + "&wait_s=30&cursor=" + page["cursor"], timeout=60).json()))
        waits.start()
        s.call("/?n=1&word=now")
        waits.join(40 * SLOW)
        self.assertIn("now 0", [x["text"] for x in answers[0]["lines"]])
        again = call(s.dashboard, path + "&cursor=" + answers[0]["cursor"]).json()
        self.assertEqual([x for x in again["lines"] if x["text"] == "now 0"], [])
        for wrong in ("&lines=-1", "&lines=1e3", "&wait_s=31", "&previous=2", "&since_s=x"):
            self.assertEqual(call(s.dashboard, path + wrong).status, 400, wrong)
        for cursor in ("x", ":", "x:", "a:b", ",,,", "x:-5", "x:99999999999999999999", "%00:1"):
            self.assertEqual(call(s.dashboard, path + "&cursor=" + cursor).status, 200, cursor)

    def test_many_followers(self) -> None:
        """Beyond its bound it says so; those that wait do not take the API from the others."""
        s = self.serve_code(CODE)
        cursor = call(s.dashboard, "/api/v1/logs?target=app").json()["cursor"]
        waiting = []
        for _ in range(32):
            c = http.client.HTTPConnection("127.0.0.1", s.dashboard, timeout=60 * SLOW)
            c.request("GET", "/api/v1/logs?target=app&wait_s=30&cursor=" + cursor)
            waiting.append(c)

        def refused() -> bool:
            return call(s.dashboard, "/api/v1/logs?target=app").status == 507
        wait_until("the bound is met", refused)
        self.assertEqual(s.rest().status, 200)
        s.call("/?n=1")
        for c in waiting:
            body = json.loads(c.getresponse().read())
            self.assertTrue(body["lines"])
            c.close()
        self.assertEqual(call(s.dashboard, "/api/v1/logs?target=app").status, 200)

    def test_a_cluster_and_a_head_that_restarts(self) -> None:
        self.write("served.py", CODE)
        app = {"name": "app", "route_prefix": "/", "import_path": "served:app",
               "rserve": {"app_dir": self.folder},
               "deployments": [{"name": "Talker", "num_replicas": 2, "ray_actor_options":
                                {"num_cpus": 1, "resources": {"slot": 1}}}]}
        dashboard, join = free_port(), free_port()

        def head() -> Server:
            h = self.spawn("head", "--listen", "127.0.0.1:%d" % join, "--port", "0",
                           "--dashboard-port", str(dashboard), "--num-cpus", "1",
                           "--resources", '{"slot": 1}',
                           env={"XDG_STATE_HOME": os.path.join(self.folder, "state")})
            h.dashboard = dashboard
            h.wait_rest()
            return h
        first = head()
        worker_port = free_port()
        worker = self.spawn("worker", "--address", "127.0.0.1:%d" % join, "--port",
                            str(worker_port), "--num-cpus", "1", "--resources", '{"slot": 1}',
                            "--node-name", "other")
        wait_until("two nodes", lambda: len(
            call(dashboard, "/api/v1/nodes").json()["nodes"]) == 2)
        self.assertEqual(first.rest("PUT", {"applications": [app]}).status, 200)
        first.wait_apps()
        nodes = {x["node"] for x in call(dashboard, "/api/v1/logs?target=app").json()["lines"]
                 if x["text"] == "constructed"}
        self.assertEqual(len(nodes), 2)
        self.assertIn("other", nodes)
        f = self.follow(first, "app")
        f.wait("constructed", 2)
        # a node that does not answer: the others do, and it is named
        worker.send(signal.SIGSTOP)
        told = call(dashboard, "/api/v1/logs?target=app", timeout=60).json()
        self.assertTrue(told["lines"])
        self.assertEqual({x["node"] for x in told["lines"]} & {"other"}, set())
        worker.send(signal.SIGCONT)
        first.process.kill()
        first.wait_exit()
        f.wait("waiting for it")
        second = head()
        f.wait("the head is back")
        second.wait_apps()
        wait_until("it answers", lambda: call(worker_port, "/?n=1&word=fresh").status == 200)
        f.wait("fresh 0")
        f.end()


if __name__ == "__main__":
    main()
