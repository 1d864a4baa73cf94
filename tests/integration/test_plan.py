#!/usr/bin/env python3
"""`rserve deploy --plan`, `--no-restart`, `--rollback`: what would happen, and back to what ran."""

import json
import os
import signal
import subprocess
from typing import Any, Dict, List

from harness import Load, Server, ServeTest, free_port, main, rserve, wait_until

CODE = '''
import os
from ray import serve

@serve.deployment(ray_actor_options={"num_cpus": 0.1}, graceful_shutdown_wait_loop_s=0.05)
class A:
    def __init__(self, *inner):
        pass
    async def __call__(self, request):
        return os.environ.get("WORD", "one")

@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class B:
    pass

@serve.deployment(name="A", ray_actor_options={"num_cpus": 0.1})
class Broken:
    def __init__(self):
        raise RuntimeError("no weights in the model's folder")

app = A.bind()
two = A.bind(B.bind())
broken = Broken.bind()
'''
HANGS = '''
import time

def wait_for_a_lock():
    time.sleep(1000)

wait_for_a_lock()
'''


class Plans(ServeTest):
    def setUp(self) -> None:
        super().setUp()
        self.write("served.py", CODE)
        self.write("hangs.py", HANGS)

    def file(self, name: str, *apps: str) -> str:
        return self.write(name, "applications:\n" + "".join("- {%s}\n" % a for a in apps))

    def cmd(self, s: Server, *args: str) -> "subprocess.CompletedProcess[str]":
        return rserve(*args, timeout=120,
                      env={"RSERVE_ADDRESS": "http://127.0.0.1:%d" % s.dashboard})

    def done(self, s: Server, *args: str) -> str:
        done = self.cmd(s, *args)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        return done.stdout

    def plan(self, s: Server, path: str) -> Dict[str, Dict[str, Any]]:
        """{"app#deployment": ..} of the plan as JSON."""
        plan = json.loads(self.done(s, "deploy", "--plan", "--json", path))
        self.assertEqual(plan["state"], "ready")
        found = {a["name"]: a for a in plan["applications"]}
        found.update({a["name"] + "#" + d["name"]: d for a in plan["applications"]
                      for d in a["deployments"]})
        return found

    def zygotes(self) -> List[str]:
        """And what is forked from them."""
        return [n for n in os.listdir("/proc") if n.isdigit() and self.is_zygote(n)]

    def is_zygote(self, pid: str) -> bool:
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as f:
                line = f.read()
            with open("/proc/%s/environ" % pid, "rb") as f:
                return b"rserve.zygote" in line and self.folder.encode() in f.read()
        except OSError:
            return False

    def test_plan(self) -> None:
        s = self.serve(self.file("a.yaml", "name: a, route_prefix: /a, import_path: 'served:app'",
                                 "name: b, route_prefix: /b, import_path: 'served:app'"),
                       "--num-cpus", "4")
        pids = s.pids("a", "A") | s.pids("b", "A")
        before = s.details()["applications"]
        path = self.file(
            "next.yaml",
            "name: a, route_prefix: /a, import_path: 'served:two', "
            "deployments: [{name: A, num_replicas: 2}]",
            "name: c, route_prefix: /c, import_path: 'served:nothing'")
        load = Load(s.port, "/a")
        plan = self.plan(s, path)
        self.assertEqual({n: p["change"] for n, p in plan.items()}, {
            "a": "deployed", "b": "removed", "c": "failed", "a#A": "rolling", "a#B": "new",
            "b#A": "removed"})
        self.assertEqual([(f["field"], f["old"], f["new"]) for f in plan["a#A"]["fields"]], [
            ("import_path", "served:app", "served:two"), ("num_replicas", 1, 2)])
        self.assertIn("has no attribute 'nothing'", plan["c"]["error"])
        text = self.done(s, "deploy", "--plan", path)
        self.assertLessEqual(max(map(len, text.splitlines())), 80, text)
        self.assertIn("  ! A                      rolling, 1 -> 2 replicas, 1 restarts", text)
        self.assertIn("Sum: 1 new, 1 rolling, 1 removed, 1 failed.", text)
        # nothing of it happened
        load.wait(20)
        self.assertEqual(set(load.stop()), {200})
        self.assertEqual(s.details()["applications"], before)
        self.assertEqual(s.pids("a", "A") | s.pids("b", "A"), pids)
        self.done(s, "deploy", "--plan", self.file("a.yaml", "name: a, import_path: 'served:app'"))
        refused = self.cmd(s, "deploy", "--plan", "--no-restart", path)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("it would restart 1 replica", refused.stderr)

    def test_an_import_that_hangs(self) -> None:
        """It ends in time, with the place where it hung; others are built meanwhile."""
        s = self.serve(self.file("a.yaml", "name: a, route_prefix: /a, import_path: 'served:app'"))
        path = self.file(
            "next.yaml", "name: a, route_prefix: /a, import_path: 'hangs:app', "
            "rserve: {build_timeout_s: 3}", "name: b, route_prefix: /b, import_path: 'served:app'")
        plan = self.plan(s, path)
        self.assertEqual((plan["a"]["change"], plan["b#A"]["change"]), ("failed", "new"))
        self.assertIn("importing 'hangs:app' did not end within 3 s", plan["a"]["error"])
        self.assertIn("in wait_for_a_lock", plan["a"]["error"])
        done = self.cmd(s, "deploy", path)
        self.assertEqual(done.returncode, 1)
        self.assertIn("ready: b", done.stdout)
        self.assertIn("importing 'hangs:app' did not end within 3 s", done.stdout)
        self.assertIn("rserve deploy --rollback a\n", done.stdout)
        self.assertEqual(s.call("/a").text, "one")  # the version before goes on
        # one that hangs for long does not stand in the way of the next deploy, or of its own end
        self.done(s, "deploy", "--no-wait", self.file(
            "long.yaml", "name: a, route_prefix: /a, import_path: 'hangs:app', rserve: {revision: "
            "'2'}", "name: h, route_prefix: /h, import_path: 'hangs:app'"))
        wait_until("both hang", lambda: {"a", "h"} <= {
            n for n, a in s.details()["applications"].items() if a["status"] == "DEPLOYING"})
        self.done(s, "deploy", self.file(
            "a.yaml", "name: a, route_prefix: /a, import_path: 'served:app', "
            "runtime_env: {env_vars: {WORD: two}}"))
        self.assertEqual(s.call("/a").text, "two")
        wait_until("what hung is gone", lambda: list(s.details()["applications"]) == ["a"]
                   and len(self.zygotes()) == 2)

    def test_no_restart(self) -> None:
        s = self.serve(self.file("a.yaml", "name: a, route_prefix: /a, import_path: 'served:app'"))
        pids, before = s.pids("a", "A"), s.details()["applications"]
        for more in ("runtime_env: {env_vars: {WORD: two}}",
                     "deployments: [{name: A, ray_actor_options: {num_cpus: 0.2}}]"):
            path = self.file(
                "next.yaml", "name: a, route_prefix: /new, import_path: 'served:app', " + more,
                "name: b, route_prefix: /b, import_path: 'served:app'")
            done = self.cmd(s, "deploy", "--no-restart", path)
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertRegex(done.stderr, "^rserve deploy: nothing was deployed: 1 replica of "
                             "deployment 'A' of application 'a' would be restarted, because "
                             "(runtime_env|ray_actor_options.num_cpus) changes from .*\n$")
            self.assertEqual(s.details()["applications"], before)
        self.done(s, "deploy", "--no-restart", self.file(
            "next.yaml", "name: a, route_prefix: /new, import_path: 'served:app', deployments: "
            "[{name: A, max_ongoing_requests: 9}]"))
        self.assertEqual((s.pids("a", "A"), s.call("/new").text), (pids, "one"))

    def word(self, s: Server, word: str) -> None:
        self.done(s, "deploy", self.file(
            "next.yaml", "name: a, route_prefix: /a, import_path: 'served:app', "
            "runtime_env: {env_vars: {WORD: %s}}" % word))
        self.assertEqual(s.call("/a").text, word)

    def test_rollback(self) -> None:
        s = self.serve(self.file("a.yaml", "name: a, route_prefix: /a, import_path: 'served:app'"))
        nothing = self.cmd(s, "deploy", "--rollback", "a")
        self.assertEqual(nothing.returncode, 1)
        self.assertIn("there is nothing to go back to", nothing.stderr)
        self.word(s, "two")
        # a deploy that fails: its own advice leads back, and nothing was restarted
        pids = s.pids("a", "A")
        done = self.cmd(s, "deploy", self.file(
            "next.yaml", "name: a, route_prefix: /a, import_path: 'served:broken'"))
        self.assertEqual(done.returncode, 1)
        advice = done.stdout.splitlines()[-1].split()
        self.assertEqual(advice, ["rserve", "deploy", "--rollback", "a"])
        self.assertEqual(s.call("/a").text, "two")
        self.assertIn("back to revision 2", self.done(s, *advice[1:]))
        self.assertEqual((s.app("a")["status"], s.pids("a", "A")), ("RUNNING", pids))
        # from one that runs to the one before it, and forth
        self.done(s, "deploy", "--rollback", "a")
        self.assertEqual(s.call("/a").text, "one")
        self.done(s, "deploy", "--rollback", "a")
        self.assertEqual(s.call("/a").text, "two")
        told = self.done(s, "deploy", "--history", "a").splitlines()
        self.assertEqual([line.split()[0] for line in told[1:]], ["4", "3", "2", "1"])
        self.assertIn("current", told[1])
        self.done(s, "deploy", "--rollback", "a", "--to", "1")
        self.assertEqual(s.call("/a").text, "one")
        wrong = self.cmd(s, "deploy", "--rollback", "a", "--to", "77")
        self.assertEqual(wrong.returncode, 1)
        self.assertIn("has no revision 77", wrong.stderr)
        # one that was deleted comes back
        self.done(s, "delete", "a")
        self.assertEqual(s.call("/a").status, 404)
        self.done(s, "deploy", "--rollback", "a")
        self.assertEqual(s.call("/a").text, "one")

    def test_history_outlives_the_head(self) -> None:
        port, dashboard, join = free_port(), free_port(), free_port()

        def head() -> Server:
            s = self.spawn("head", "--host", "127.0.0.1", "--port", str(port), "--dashboard-port",
                           str(dashboard), "--listen", "127.0.0.1:%d" % join, "--state-dir",
                           os.path.join(self.folder, "kept"))
            s.port, s.dashboard = port, dashboard
            s.wait_rest()
            return s
        s = head()
        self.word(s, "two")
        self.word(s, "three")
        s.send(signal.SIGKILL)
        s.wait_exit()
        s = head()
        s.wait_apps({"a": "RUNNING"})
        self.done(s, "deploy", "--rollback", "a")
        self.assertEqual(s.call("/a").text, "two")


if __name__ == "__main__":
    main()
