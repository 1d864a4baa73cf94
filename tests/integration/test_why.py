#!/usr/bin/env python3
"""`rserve status --why` and `--events`, and the same over REST, against what really happens."""

import concurrent.futures
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import threading
import urllib.parse
from typing import Any, Dict, List, Optional, Set

from harness import RSERVE, Server, ServeTest, call, free_port, main, rserve, wait_until

APP = '''
import asyncio, os
from ray import serve

@serve.deployment(ray_actor_options={"num_cpus": 1})
class A:
    async def __call__(self, request):
        await asyncio.sleep(float(request.query_params.get("s", 0)))
        if "fail" in request.query_params:
            raise ValueError("on purpose")
        return str(os.getpid())

app = A.bind()
'''

CRASH = '''
from ray import serve

@serve.deployment(ray_actor_options={"num_cpus": 0})
class C:
    def __init__(self):
        raise ValueError("no model at /models/x")

app = C.bind()
'''


def is_free(port: int) -> bool:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
            s.listen()
        except OSError:
            return False
    return True


class Asks(ServeTest):
    def status(self, s: Server, *args: str) -> "subprocess.CompletedProcess[str]":
        return rserve("status", "--address", "http://127.0.0.1:%d" % s.dashboard, *args,
                      env={"COLUMNS": "80"})

    def text(self, s: Server, *args: str) -> str:
        r = self.status(s, *args)
        self.assertEqual(r.returncode, 0, r.stderr)
        for line in r.stdout.splitlines():
            self.assertLessEqual(len(line), 80, line)
        return " ".join(r.stdout.split())

    def reasons(self, s: Server, app: str = "app", deployment: str = "") -> Dict[str, Any]:
        """{cause: reason} of an application, or of one of its deployments."""
        path = "/api/v1/applications/" + app
        path += "/deployments/%s/why" % deployment if deployment else "/why"
        answer = s.rest(path=path)
        if answer.status == 404:  # it is not built yet
            return {}
        self.assertEqual(answer.status, 200, answer.text)
        of = answer.json()["applications"][app]
        return {r["cause"]: r for r in
                (of["deployments"][deployment] if deployment else of)["reasons"]}

    def wait_reason(self, s: Server, cause: str, app: str = "app", deployment: str = "",
                    timeout: float = 30) -> Dict[str, Any]:
        wait_until("the reason %s is given" % cause,
                   lambda: cause in self.reasons(s, app, deployment), timeout)
        return self.reasons(s, app, deployment)[cause]

    def events(self, s: Server, **query: Any) -> Dict[str, Any]:
        answer = s.rest(path="/api/v1/events?" + urllib.parse.urlencode(query))
        self.assertEqual(answer.status, 200, answer.text)
        return answer.json()


class Why(Asks):
    def test_no_room(self) -> None:
        self.write_app(APP, "- {name: A, num_replicas: 3}\n")
        s = self.start(os.path.join(self.folder, "app.yaml"), "--num-cpus", "2")
        s.wait_rest()
        reason = self.wait_reason(s, "no_room", deployment="A")
        wait_until("two run", lambda: len(s.pids("app", "A")) == 2)
        self.assertEqual((reason["missing"], reason["wanted"]), (1, 3))
        self.assertEqual(len(reason["nodes"]), 1)
        lack = reason["nodes"][0]["lacks"][0]
        self.assertEqual({k: lack[k] for k in ("resource", "asked", "free", "total", "more",
                                               "never")},
                         {"resource": "CPU", "asked": 1, "free": 0, "total": 2, "more": 1,
                          "never": False})
        self.assertEqual(lack["held_by"], [{"who": "app#A", "amount": 2}])
        text = self.text(s, "app#A", "--why")
        self.assertIn("1 of 3 replicas waits for a place: no node has room for 1 CPU.", text)
        self.assertIn("CPU asked 1, free 0 of 2: fits when 1 more is free (app#A holds 2)", text)
        self.assertIn("--why", self.text(s), "the first screen tells where reasons are")
        # the reason goes with what it is about
        self.write_app(APP, "- {name: A, num_replicas: 2}\n")
        config = {"applications": [{"name": "app", "import_path": "served:app",
                                    "rserve": {"app_dir": self.folder},
                                    "deployments": [{"name": "A", "num_replicas": 2}]}]}
        self.assertEqual(s.rest("PUT", config).status, 200)
        s.wait_apps()
        wait_until("all is well", lambda: "well" in self.reasons(s, deployment="A"))
        self.assertNotIn("no_room", self.reasons(s, deployment="A"))

    def test_what_cannot_start(self) -> None:
        self.write("served.py", CRASH)
        path = self.write("app.yaml", """\
            applications:
            - {name: crash, route_prefix: /crash, import_path: 'served:app'}
            - {name: absent, route_prefix: /absent, import_path: 'absent:app'}
            """)
        s = self.spawn("head", path, "--host", "127.0.0.1", "--port", "0", "--listen",
                       "127.0.0.1:0", "--dashboard-port", str(free_port()))
        s.dashboard = int(s.args[-1])
        s.wait_apps({"crash": "DEPLOY_FAILED", "absent": "DEPLOY_FAILED"})
        given_up = self.reasons(s, "crash", "C")["start_given_up"]
        self.assertIn("ValueError: no model at /models/x", given_up["error"])
        self.assertEqual(given_up["failures"], given_up["limit"])
        failed = self.reasons(s, "absent")["build_failed"]
        self.assertIn("No module named 'absent'", failed["error"])
        text = self.text(s, "--why")
        self.assertIn("crash#C is DEPLOY_FAILED: 0 of 1 run", text)
        self.assertIn("> Correct it and deploy again", text)
        # repeats are one event, and name their replicas
        events = self.events(s, app="crash", kind="replica")["events"]
        ended = [e for e in events if e["status"] == "STOPPED"]
        self.assertTrue(ended)
        self.assertIn("ValueError: no model at /models/x", ended[-1]["text"])
        self.assertLess(len(events), 3 * given_up["failures"], "each has three states at least")
        dead = ended[-1]["replica"]
        self.assertIn("Replica %s on " % dead, self.text(s, "crash#C#" + dead, "--why"))

    def test_refused(self) -> None:
        s = self.serve_code(APP, "--num-cpus", "2", deployments="""\
            - {name: A, max_ongoing_requests: 1, max_queued_requests: 1}
            """)
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            statuses = [f.result().status
                        for f in [pool.submit(s.call, "/?s=1") for _ in range(12)]]
        self.assertEqual(set(statuses), {200, 503})
        self.assertEqual(s.call("/?fail=1").status, 500)
        wait_until("the refusals are known", lambda: "exception" in self.reasons(s).get(
            "http_refused", {}).get("causes", {}))
        causes = self.reasons(s)["http_refused"]["causes"]
        self.assertEqual(causes["queue_full"]["total"], statuses.count(503))
        self.assertEqual(sum(causes["queue_full"]["minutes"]), statuses.count(503))
        self.assertEqual(causes["exception"]["total"], 1)
        calls = self.reasons(s, deployment="A")["calls_refused"]
        self.assertEqual(calls["causes"]["queue_full"]["total"], statuses.count(503))
        self.assertEqual((calls["max_queued_requests"], calls["max_ongoing_requests"]), (1, 1))
        self.assertIn("%d queue_full: 503" % statuses.count(503), self.text(s, "app", "--why"))

    def test_too_late(self) -> None:
        self.write_app(APP)
        path = self.write("app.yaml", """\
            http_options: {request_timeout_s: 0.5}
            applications:
            - {name: app, route_prefix: /, import_path: 'served:app'}
            """)
        s = self.serve(path, "--num-cpus", "2")
        self.assertEqual(s.call("/?s=30").status, 408)
        self.assertEqual(self.wait_reason(s, "http_refused")["causes"]["timeout"]["total"], 1)

    def test_autoscaler_delay(self) -> None:
        s = self.serve_code(APP, "--num-cpus", "4", deployments="""\
            - name: A
              num_replicas: null
              autoscaling_config: {min_replicas: 1, max_replicas: 3, upscale_delay_s: 600,
                                   target_ongoing_requests: 1, look_back_period_s: 1}
            """)
        stop = threading.Event()

        def keep_busy() -> None:
            while not stop.is_set():
                s.call("/?s=0.5")

        threads = [threading.Thread(target=keep_busy) for _ in range(6)]
        for t in threads:
            t.start()
        try:
            reason = self.wait_reason(s, "scale_waits", deployment="A")
            self.assertEqual((reason["from"], reason["delay"], reason["delay_s"]),
                             (1, "upscale_delay_s", 600))
            self.assertGreater(reason["to"], 1)
            wait_until("less of it is left", lambda: self.reasons(s, deployment="A").get(
                "scale_waits", reason)["left_s"] < reason["left_s"])
            self.assertIn("(upscale_delay_s is 600)", self.text(s, "app#A", "--why"))
        finally:
            stop.set()
            for t in threads:
                t.join()

    def test_who_is_not_there(self) -> None:
        s = self.serve_code(APP, "--num-cpus", "2")
        for what, error in (("absent", "no application 'absent'"),
                            ("app#B", "has no deployment 'B'"),
                            ("app#A#zzz", "no replica 'zzz' of 'app#A'")):
            r = self.status(s, what, "--why")
            self.assertEqual(r.returncode, 1)
            self.assertOneLine(r.stderr, error)
        for path, status in (("/api/v1/events?after=-1", 400), ("/api/v1/events?limit=0", 400),
                             ("/api/v1/events?wait=61", 400), ("/api/v1/events?after=x", 400),
                             ("/api/v1/why?deployment=A", 400), ("/api/v1/why?app=%FF", 404),
                             ("/api/v1/events?app=%FF&kind=%00", 200)):
            self.assertEqual(s.rest(path=path).status, status, path)
        for args in (("--why", "--events"), ("--follow",), ("--events", "--yaml")):
            self.assertEqual(self.status(s, *args).returncode, 2, args)


class Kept(Asks):
    """A head whose process may die, and a worker."""

    def setUp(self) -> None:
        super().setUp()
        self.port, self.dashboard, self.join = free_port(), free_port(), free_port()
        self.state = os.path.join(self.folder, "kept")
        self.write("served.py", APP)

    def head(self) -> Server:
        for port in (self.port, self.dashboard, self.join):
            wait_until("what an earlier head left has ended", lambda p=port: is_free(p))
        s = self.spawn("head", "--num-cpus", "0", "--host", "127.0.0.1", "--port", str(self.port),
                       "--dashboard-port", str(self.dashboard), "--listen",
                       "127.0.0.1:%d" % self.join, "--state-dir", self.state)
        s.port, s.dashboard = self.port, self.dashboard
        s.wait_rest()
        return s

    def worker(self) -> Server:
        return self.spawn("worker", "--address", "127.0.0.1:%d" % self.join, "--num-cpus", "2",
                          "--host", "127.0.0.1", "--port", "0")

    def deploy(self, head: Server, replicas: int) -> None:
        config = {"applications": [{
            "name": "app", "import_path": "served:app", "rserve": {"app_dir": self.folder},
            "deployments": [{"name": "A", "num_replicas": replicas}]}]}
        self.assertEqual(head.rest("PUT", config).status, 200)

    def test_killed_node(self) -> None:
        head = self.head()
        self.worker()
        lost = self.worker()
        self.deploy(head, 4)
        wait_until("four run", lambda: len(head.pids("app", "A")) == 4)
        head.wait_apps()
        lost.send(signal.SIGKILL)
        reason = self.wait_reason(head, "node_left", deployment="A")
        self.assertIn("left with 2 running replicas", reason["message"])
        pending = self.wait_reason(head, "no_room", deployment="A")
        self.assertEqual([n["lacks"][0]["total"] for n in pending["nodes"]], [2, 0],
                         "the nearest first")
        self.assertEqual(self.events(head, kind="node")["events"][-1]["status"], "LEFT")
        text = self.text(head, "app", "--why")
        self.assertIn("A node left with replicas of it; 2 of 4 serve now.", text)
        self.assertIn("CPU asked 1, free 0 of 2", text)

    def listed(self, head: Server) -> Set[int]:
        """Those that are there; what happens again keeps its id."""
        return {e["id"] for e in self.events(head)["events"]}

    def test_history_outlives_the_head(self) -> None:
        """Those that were seen are there again after kill -9, and no number is given twice."""
        head = self.head()
        worker = self.worker()
        self.deploy(head, 2)
        head.wait_apps()
        seen = 0
        for _ in range(3):
            # What is older than a batch is on the disk: a node that joins is an event, and the
            # batch with it was not the one with the events before it.
            before = self.listed(head)
            last = self.events(head)["last"]
            self.assertGreater(last, seen)
            seen = last
            extra = self.worker()
            wait_until("it has joined", lambda t=last: self.events(
                head, after=t, kind="node")["events"])
            wait_until("what was there is on the disk", lambda b=before: self.on_disk(b), 40)
            head.send(signal.SIGKILL)
            head.wait_exit()
            head = self.head()
            self.assertGreaterEqual(self.listed(head), before)
            self.assertGreater(self.events(head)["last"], last)
            wait_until("the nodes are there again", lambda t=last: len(
                [e for e in self.events(head, after=t, kind="node")["events"]
                 if e["status"] == "JOINED"]) >= 1)
            extra.send(signal.SIGKILL)
            extra.wait_exit()
        self.assertIsNone(worker.process.poll())
        orders = [e for e in self.events(head)["events"] if e["kind"] == "deploy"]
        self.assertEqual(orders[0]["status"], "APPLY")
        self.assertTrue(orders[0]["who"])

    def on_disk(self, events: Set[int]) -> bool:
        """Asks a copy: the head holds the lock of its own."""
        copy = os.path.join(self.folder, "copy.db")
        try:
            for end in ("", "-wal"):
                shutil.copyfile(os.path.join(self.state, "head", "head.db" + end), copy + end)
            db = sqlite3.connect(copy)
            rows = [json.loads(data) for (data,) in db.execute(
                "SELECT data FROM records WHERE kind = 'event'")]
            db.close()
        except (OSError, sqlite3.DatabaseError):  # copied while it was written
            return False
        return {e["id"] for e in rows} >= events

    def test_follow(self) -> None:
        """-f shows what happens, once, also across the end of the head."""
        head = self.head()
        self.worker()
        path = os.path.join(self.folder, "followed")
        with open(path, "wb") as out:
            p = subprocess.Popen([RSERVE, "status", "app", "--events", "-f", "--json", "--address",
                                  "127.0.0.1:%d" % self.dashboard], stdout=out,
                                 stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)

        def lines() -> List[Dict[str, Any]]:
            with open(path, encoding="utf-8") as f:
                return [json.loads(line) for line in f if line.endswith("\n")]

        def shows(status: str, after: int = 0) -> bool:
            return any(e["seq"] > after and e["kind"] == "app" and e["status"] == status
                       for e in lines())

        self.deploy(head, 1)
        wait_until("it shows that the application runs", lambda: shows("RUNNING"))
        last = lines()[-1]["seq"]
        head.send(signal.SIGKILL)
        head.wait_exit()
        head = self.head()
        head.wait_apps()
        self.assertEqual(head.rest("DELETE").status, 200)
        wait_until("it shows that the application goes", lambda: shows("DELETED", last))
        seqs = [e["seq"] for e in lines()]
        self.assertEqual(seqs, sorted(set(seqs)), "each once, in their order")
        self.assertEqual({e.get("app") for e in lines()}, {"app"})
        self.assertIsNone(p.poll())

    def test_many_followers(self) -> None:
        """Of those that wait there is a bound; others are answered at once, all are in the end."""
        head = self.head()
        last = self.events(head)["last"]
        done: List[Optional[Dict[str, Any]]] = []

        def wait_for_one() -> None:
            done.append(call(self.dashboard, "/api/v1/events?wait=60&after=%d" % last,
                             timeout=90).json())

        threads = [threading.Thread(target=wait_for_one) for _ in range(80)]
        for t in threads:
            t.start()
        wait_until("those beyond the bound are answered", lambda: len(done) == 80 - 64)
        self.assertEqual({len(d["events"]) for d in done if d}, {0})
        self.worker()
        for t in threads:
            t.join()
        self.assertEqual([len(d["events"]) > 0 for d in done if d].count(True), 64)


if __name__ == "__main__":
    main()
