#!/usr/bin/env python3
"""A head that is started anew has what it was told before, and takes over what runs."""

import os
import signal
import sqlite3
import subprocess
from typing import Any, Dict, List

from harness import RSERVE, Load, Server, ServeTest, free_port, main, rserve, wait_until

CODE = '''
import asyncio, os, time
from ray import serve

@serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 0.1})
class A:
    async def __call__(self, request):
        await asyncio.sleep(float(request.query_params.get("s", 0)))
        return str(os.getpid())

@serve.deployment(ray_actor_options={"num_cpus": 0.1}, autoscaling_config={
    "min_replicas": 1, "max_replicas": 5, "target_ongoing_requests": 1, "upscale_delay_s": 0,
    "downscale_delay_s": 600, "metrics_interval_s": 0.1, "look_back_period_s": 0.2})
class Scaled:
    async def __call__(self, request):
        await asyncio.sleep(0.5)
        return str(os.getpid())

app = A.bind()
scaled = Scaled.bind()
'''

PROGRAM = '''
from ray import serve

class Local:
    """Known to this program only."""
    answer = "by value"

@serve.deployment(ray_actor_options={"num_cpus": 0.1})
def f(request):
    return Local.answer

serve.run(f.bind(), name="program", route_prefix="/program")
'''


class HeadState(ServeTest):
    def setUp(self) -> None:
        super().setUp()
        self.port, self.dashboard, self.join = free_port(), free_port(), free_port()
        self.state = os.path.join(self.folder, "kept")
        self.write("served.py", CODE)

    def head(self, *args: str) -> Server:
        s = self.spawn("head", "--num-cpus", "0", "--host", "127.0.0.1", "--port", str(self.port),
                       "--dashboard-port", str(self.dashboard), "--listen",
                       "127.0.0.1:%d" % self.join, "--state-dir", self.state, *args)
        s.port, s.dashboard = self.port, self.dashboard
        return s

    def started(self, *args: str) -> Server:
        s = self.head(*args)
        s.wait_rest()
        return s

    def worker(self) -> Server:
        port = free_port()
        s = self.spawn("worker", "--address", "127.0.0.1:%d" % self.join, "--num-cpus", "4",
                       "--host", "127.0.0.1", "--port", str(port))
        s.port = port
        return s

    def config(self, *apps: str, **more: Any) -> Dict[str, Any]:
        return {"applications": [
            dict({"name": n, "route_prefix": "/" + n, "import_path": "served:" + n,
                  "rserve": {"app_dir": self.folder}}, **more) for n in apps]}

    def put(self, head: Server, config: Dict[str, Any]) -> None:
        answer = head.rest("PUT", config)
        self.assertEqual(answer.status, 200, answer.text)

    def db(self) -> str:
        return os.path.join(self.state, "head", "head.db")

    def test_killed_under_load(self) -> None:
        """Nothing is lost, and the same processes go on."""
        head = self.started()
        worker = self.worker()
        self.put(head, self.config("app"))
        head.wait_apps()
        pids = head.pids("app", "A")
        self.assertEqual(len(pids), 2)
        wait_until("the worker serves it", lambda: worker.call("/app").status == 200)
        load = Load(worker.port, "/app?s=0.01")
        for number in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
            load.wait(20)
            head.send(number)
            head.wait_exit()
            load.wait(20)
            head = self.started()
            head.wait_apps()
            wait_until("they are the same processes", lambda h=head: h.pids("app", "A") == pids)
        load.wait(20)
        self.assertEqual(set(load.stop()), {200})
        self.assertLessEqual({int(text) for _, text in load.results}, pids)

    def test_what_is_kept(self) -> None:
        head = self.started()
        self.worker()
        self.put(head, self.config("app", "scaled"))
        head.wait_apps()
        program = self.write("program.py", PROGRAM)
        env = dict(os.environ, RAY_ADDRESS="127.0.0.1:%d" % self.join, XDG_STATE_HOME=head.state,
                   RAY_DASHBOARD_ADDRESS="127.0.0.1:%d" % self.dashboard)
        done = subprocess.run([RSERVE, "python", program], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=120, check=False,
                              env=env)
        self.assertEqual(done.returncode, 0, done.stdout)
        wait_until("it answers", lambda: head.call("/program").text == "by value")
        # it is deleted, and stays deleted; the autoscaled one has become larger
        load = Load(self.port, "/scaled", threads=4)
        wait_until("it has grown", lambda: len(head.pids("scaled", "Scaled")) >= 3, 40)
        load.stop()

        def all_run() -> bool:
            d = head.app("scaled")["deployments"]["Scaled"]
            return bool(len(d["replicas"]) == d["target_num_replicas"] == len(
                head.pids("scaled", "Scaled")))

        wait_until("all that are wanted run", all_run)
        grown = len(head.pids("scaled", "Scaled"))
        self.put(head, self.config("scaled"))
        wait_until("one is deleted", lambda: "app" not in head.details()["applications"])
        head.send(signal.SIGKILL)
        head.wait_exit()
        head = self.started()
        head.wait_apps({"scaled": "RUNNING", "program": "RUNNING"})
        self.assertEqual(sorted(head.details()["applications"]), ["program", "scaled"])
        self.assertEqual(len(head.pids("scaled", "Scaled")), grown)
        wait_until("it answers", lambda: head.call("/program").text == "by value")
        # all of it can be deleted
        self.assertEqual(head.rest("DELETE").status, 200)
        wait_until("all are gone", lambda: not head.details()["applications"])
        head.send(signal.SIGKILL)
        head.wait_exit()
        head = self.started()
        self.assertEqual(head.details()["applications"], {})

    def test_file_and_forget(self) -> None:
        """A file goes over what was kept; --forget begins anew."""
        first = self.write("first.yaml", "applications:\n- {name: one, route_prefix: /one, "
                           "import_path: 'served:app'}\n")
        second = self.write("second.yaml", "applications:\n- {name: two, route_prefix: /two, "
                            "import_path: 'served:app'}\n")
        for args, names in (((first,), ["one"]), ((), ["one"]), ((second,), ["two"]),
                            ((), ["two"]), (("--forget",), []), ((), [])):
            head = self.started(*args)
            self.assertEqual(sorted(head.details()["applications"]), names, args)
            self.assertEqual(head.stop(), 0)

    def test_files_that_are_of_no_use(self) -> None:
        """They are moved aside and told of; one of a newer version stops the head."""
        def garble(path: str) -> None:
            with open(path, "r+b") as f:
                f.seek(4096)
                f.write(os.urandom(2048))

        def nonsense(path: str) -> None:
            with open(path, "wb") as f:
                f.write(b"this is no database" * 100)

        def foreign(path: str) -> None:
            os.remove(path)
            with sqlite3.connect(path) as db:
                db.execute("CREATE TABLE mine (x)")
            db.close()

        head = self.started()
        path = self.db()
        expected: List[str] = []
        for harm, word in ((garble, "damaged"), (nonsense, "damaged"), (foreign, "foreign")):
            self.put(head, self.config("app"))
            self.assertEqual(head.stop(), 0)
            harm(path)
            head = self.started()
            aside = "%s.%s-%d" % (path, word, 1 + expected.count(word))
            expected.append(word)
            head.wait_output(aside)
            self.assertTrue(os.path.exists(aside))
            self.assertEqual(head.details()["applications"], {}, harm.__name__)
        self.assertEqual(head.stop(), 0)
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA user_version = 99")
        db.close()
        head = self.head()
        self.assertNotEqual(head.wait_exit(), 0)
        self.assertIn("has format 99, this rserve knows 1", head.output())
        self.assertTrue(os.path.exists(path))

    def test_two_heads(self) -> None:
        head = self.started()
        again = rserve("head", "--port", "0", "--dashboard-port", "0", "--listen", "127.0.0.1:0",
                       "--state-dir", self.state)
        self.assertNotEqual(again.returncode, 0)
        self.assertIn("is used by another rserve (pid %d)" % head.pid, again.stderr)
        self.assertEqual(len(again.stderr.strip().splitlines()), 1, again.stderr)


if __name__ == "__main__":
    main()
