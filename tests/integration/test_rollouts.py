#!/usr/bin/env python3
"""A new version takes the place of the old one, or it does not and the old one serves on."""

import json
import os
import signal
import sys
from typing import Any, Dict, List, Set

from harness import C_ECHO, ServeTest, Server, call, free_port, main, rserve, wait_until
from open_loop import HTTP_SERVER, OpenLoop

APP = """\
    import asyncio, os, time
    from ray import serve

    @serve.deployment(num_replicas=4, ray_actor_options={"num_cpus": 1})
    class A:
        def __init__(self, version, fault):
            self.version, self.fault = version, fault
            if fault == "constructor":
                raise ValueError("this version is broken")
            if fault == "hangs":
                time.sleep(3600)

        def check_health(self):
            if self.fault == "check":
                raise RuntimeError("this version is not well")

        async def __call__(self, request):
            await asyncio.sleep(0.01)
            return self.version

    def build(args):
        return A.bind(str(args["version"]), args.get("fault", ""))
    """


class RolloutTest(ServeTest):
    server: Server

    def begin_head(self) -> None:
        """With a control plane that is a process of its own."""
        self.write("served.py", APP)
        port, dashboard = free_port(), free_port()
        s = self.spawn("head", "--num-cpus", "8", "--host", "127.0.0.1", "--port", str(port),
                       "--dashboard-port", str(dashboard), "--listen",
                       "127.0.0.1:%d" % free_port(), "--state-dir",
                       os.path.join(self.folder, "kept"))
        s.port, s.dashboard, self.server = port, dashboard, s
        s.wait_rest()
        self.put(1)
        s.wait_apps()

    def kill_control(self) -> None:
        before = wait_until("a control plane", self.server.control_pid)
        os.kill(before, signal.SIGKILL)
        wait_until("another one", lambda: self.server.control_pid() not in (0, before))
        self.server.wait_rest()

    def begin(self, cpus: int = 8) -> None:
        self.write("served.py", APP)
        self.write("app.yaml", """\
            applications:
              - name: app
                route_prefix: /
                import_path: served:build
                args: {version: 1, fault: ""}
            """)
        self.server = self.start("--num-cpus", str(cpus), os.path.join(self.folder, "app.yaml"))
        self.server.wait_apps()

    def put(self, version: int, fault: str = "", **rollout: Any) -> None:
        answer = self.server.rest("PUT", {"applications": [{
            "name": "app", "route_prefix": "/", "import_path": "served:build",
            "args": {"version": version, "fault": fault},
            "deployments": [{"name": "A", "rserve": {"rollout": rollout}}],
            "rserve": {"app_dir": self.folder}}]})
        self.assertEqual(answer.status, 200, answer.text)

    def deployment(self) -> Dict[str, Any]:
        details = self.server.rest(path="/api/serve/applications/?extended=1").json()
        apps: Dict[str, Any] = details.get("applications", {})
        result: Dict[str, Any] = apps.get("app", {}).get("deployments", {}).get("A", {})
        return result  # empty while a head that starts anew builds it

    def roll(self) -> Dict[str, Any]:
        result: Dict[str, Any] = self.deployment().get("rserve", {}).get("rollout")
        return result or {"phase": "", "why": "", "new_up": -1, "old_up": -1}  # while it is built

    def wait_phase(self, phase: str, why: str = "", timeout: float = 60) -> None:
        wait_until("%s %s" % (phase, why), lambda: (self.roll()["phase"], self.roll()["why"]) == (
            phase, why), timeout)

    def answers(self, n: int = 12) -> Set[str]:
        return {self.server.call("/").text for _ in range(n)}

    def wait_running(self, n: int = 4) -> None:
        wait_until("%d replicas and no others" % n, lambda: [
            r["state"] for r in self.deployment()["replicas"]] == ["RUNNING"] * n, 60)


class Rolls(RolloutTest):
    def test_no_request_is_lost(self) -> None:
        self.begin()
        load = OpenLoop(self.server.port, 150, method="POST")
        before = self.server.pids("app", "A")
        self.put(2)
        wait_until("all are new", lambda: not before & self.server.pids("app", "A"), 60)
        self.wait_running()
        sent = load.sent
        wait_until("more requests", lambda: load.sent > sent + 50)
        outcomes = load.stop()
        self.assertEqual([o for o in outcomes if o.status != 200][:5], [])
        self.assertEqual({o.text for o in outcomes}, {"1", "2"})
        self.assertEqual(outcomes[-1].text, "2")
        self.assertEqual(self.roll()["phase"], "done")

    def test_no_room(self) -> None:
        """The room is for four: one goes first, or nothing does."""
        self.begin(cpus=4)
        self.put(2, when_full="wait")
        self.wait_phase("surging", "no_room")
        self.assertEqual(self.answers(), {"1"})
        self.assertIn("waits for room", self.deployment()["message"])
        load = OpenLoop(self.server.port, 100, method="POST")
        self.put(2, when_full="stop_first")
        self.wait_phase("done")
        self.assertEqual([o for o in load.stop() if o.status != 200][:5], [])
        self.assertEqual(self.answers(), {"2"})

    def test_pause_and_resume(self) -> None:
        self.begin()
        self.put(2, pause_after="50%")
        self.wait_phase("paused", "pause_after")
        self.assertEqual(self.roll()["new_up"], 2)
        self.assertEqual(self.roll()["old_up"], 2)
        self.assertIn("rserve deploy --resume app", self.deployment()["message"])
        at = "http://127.0.0.1:%d" % self.server.dashboard
        r = rserve("deploy", "--resume", "app", "--address", at, timeout=60)
        self.assertEqual(r.returncode, 0, r.stderr)
        self.wait_phase("done")
        self.assertEqual(self.answers(), {"2"})
        r = rserve("deploy", "--resume", "app", "--address", at)
        self.assertEqual(r.returncode, 1)
        self.assertOneLine(r.stderr, "nothing of application 'app' is paused or stopped")

    def test_pause_and_abort(self) -> None:
        self.begin()
        load = OpenLoop(self.server.port, 100, method="POST")
        self.put(2, pause_after=1)
        self.wait_phase("paused", "pause_after")
        path = "/api/v1/applications/app/deployments/A/rollout"
        answer = call(self.server.dashboard, path, "POST", {"action": "hope"})
        self.assertEqual(answer.status, 400)
        answer = call(self.server.dashboard, path, "POST", {"action": "abort"})
        self.assertEqual(answer.status, 200, answer.text)
        wait_until("all are old", lambda: self.roll()["old_up"] == 4 and self.roll()["new_up"] == 0)
        self.assertEqual([o for o in load.stop() if o.status != 200][:5], [])
        self.assertEqual(self.answers(), {"1"})
        self.assertEqual(self.server.app("app")["status"], "DEPLOY_FAILED")


class Stops(RolloutTest):
    """The old version goes on with all of its replicas, whatever happens to those."""

    def stops(self, fault: str, why: str, says: str, **rollout: Any) -> None:
        self.begin()
        before = self.server.pids("app", "A")
        load = OpenLoop(self.server.port, 50, method="POST")
        self.put(2, fault, **rollout)
        self.wait_phase("stopped", why, 120)
        wait_until("none of the new version is left", lambda: self.roll()["new_up"] == 0
                   and self.server.pids("app", "A") == before)
        self.assertEqual([o for o in load.stop() if (o.status, o.text) != (200, "1")][:5], [])
        message = self.deployment()["message"]
        self.assertIn(says, message)
        self.assertIn("rserve deploy --rollback app", message)
        self.assertEqual(self.server.app("app")["status"], "DEPLOY_FAILED")
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        wait_until("another one in its place", lambda: victim not in self.server.pids("app", "A")
                   and len(self.server.pids("app", "A")) == 4, 60)
        self.assertEqual(self.answers(), {"1"})
        self.assertEqual(self.roll()["phase"], "stopped")

    def test_constructor(self) -> None:
        self.stops("constructor", "start_failed", "this version is broken")
        kept = self.server.pids("app", "A")
        self.put(1)  # back
        self.server.wait_apps()
        self.assertEqual(self.server.pids("app", "A"), kept)

    def test_hangs(self) -> None:
        self.stops("hangs", "no_progress", "was ready for 2 s", deadline_s=2)
        self.put(3)  # on
        self.server.wait_apps()
        self.wait_running()
        self.assertEqual(self.answers(), {"3"})

    def test_health_check(self) -> None:
        self.stops("check", "start_failed", "this version is not well")


class Heads(RolloutTest):
    def test_killed_while_it_rolls(self) -> None:
        self.begin_head()
        before = self.server.pids("app", "A")
        load = OpenLoop(self.server.port, 50, method="POST")
        self.put(2)
        wait_until("some are new", lambda: len(self.server.pids("app", "A") - before) > 0)
        self.kill_control()
        wait_until("all are new", lambda: len(self.server.pids("app", "A") - before) == 4, 60)
        wait_until("no old one is left", lambda: not self.server.pids("app", "A") & before, 60)
        self.wait_running()
        self.assertEqual([o for o in load.stop() if o.status != 200][:5], [])
        self.assertEqual(self.answers(), {"2"})

    def test_killed_while_it_is_stopped(self) -> None:
        self.begin_head()
        before = self.server.pids("app", "A")
        self.put(2, "constructor")
        self.wait_phase("stopped", "start_failed", 120)
        self.kill_control()
        self.wait_phase("stopped", "start_failed")
        wait_until("the same processes", lambda: self.server.pids("app", "A") == before)
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        wait_until("another one in its place", lambda: victim not in self.server.pids("app", "A")
                   and len(self.server.pids("app", "A")) == 4, 60)
        self.assertEqual(self.answers(), {"1"})
        self.assertEqual(self.server.app("app")["status"], "DEPLOY_FAILED")


class Programs(ServeTest):
    def rolls(self, kind: str, command: List[str]) -> None:
        def config(version: int) -> Dict[str, Any]:
            return {"applications": [{"name": "app", "route_prefix": "/", "deployments": [{
                "name": "P", "num_replicas": 4, "max_ongoing_requests": 20,
                "rserve": {"kind": kind, "command": command, "env": {"V": str(version)}}}]}]}
        s = self.serve(self.write("app.yaml", json.dumps(config(1))), "--num-cpus", "8")
        before = s.pids("app", "P")
        load = OpenLoop(s.port, 150, method="POST")
        self.assertEqual(s.rest("PUT", config(2)).status, 200)
        wait_until("all are new", lambda: not before & s.pids("app", "P") and [
            r["state"] for r in s.app("app")["deployments"]["P"]["replicas"]] == ["RUNNING"] * 4,
            60)
        sent = load.sent
        wait_until("more requests", lambda: load.sent > sent + 30)
        self.assertEqual([o for o in load.stop() if o.status != 200][:5], [])

    def test_http(self) -> None:
        self.write("server.py", HTTP_SERVER)
        self.rolls("http", [sys.executable, os.path.join(self.folder, "server.py"), "{port}"])

    def test_exec(self) -> None:
        if not C_ECHO:
            self.skipTest("the C stage was not built")
        self.rolls("exec", [C_ECHO])


if __name__ == "__main__":
    main()
