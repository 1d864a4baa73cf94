#!/usr/bin/env python3
"""A new version that gets a share of the requests: promoted, rolled back, killed."""

import json
import os
import signal
from typing import Any, Dict, List, Optional

from harness import ServeTest, Server, call, free_port, main, rserve, wait_until
from open_loop import OpenLoop

APP = """\
    import asyncio, os
    from ray import serve
    from starlette.responses import PlainTextResponse

    @serve.deployment(max_ongoing_requests=50)
    class A:
        def __init__(self):
            self.version = os.environ.get("V", "old")
            self.fails = int(os.environ.get("FAILS", "0"))
            self.pause = float(os.environ.get("PAUSE", "0.01"))
            self.n = 0

        async def __call__(self, request):
            await asyncio.sleep(self.pause)
            self.n += 1
            if self.n * self.fails % 100 < self.fails:
                return PlainTextResponse(self.version, status_code=500)
            return PlainTextResponse(self.version)

    app = A.bind()
    """

# Nothing here is to be found slow because the machine is.
TOLERANT = {"max_p99_ratio": 1000}


class Canary(ServeTest):
    def config(self, rollout: Dict[str, Any], env: Dict[str, str], num_cpus: float = 0.1,
               num_replicas: int = 2) -> Dict[str, Any]:
        return {"applications": [{
            "name": "app", "route_prefix": "/", "import_path": "served:app",
            "rserve": {"app_dir": self.folder},
            "deployments": [{
                "name": "A", "num_replicas": num_replicas,
                "ray_actor_options": {"num_cpus": num_cpus, "runtime_env": {"env_vars": env}},
                "rserve": {"rollout": rollout}}]}]}

    def put(self, canary: Dict[str, Any], **env: str) -> None:
        self.deploy({"canary": canary}, env)

    def deploy(self, rollout: Dict[str, Any], env: Dict[str, str], **kwargs: Any) -> None:
        answer = self.s.rest("PUT", self.config(rollout, env, **kwargs))
        self.assertEqual(answer.status, 200, answer.text)

    def begin(self, canary: Dict[str, Any], **env: str) -> None:
        self.start_with({"canary": canary}, dict(env, V="old"))

    def start_with(self, rollout: Dict[str, Any], env: Dict[str, str]) -> None:
        self.write_app(APP)
        config = self.write("old.yaml", json.dumps(self.config(rollout, env)))
        self.s: Server = self.start("--num-cpus", "2", config)
        self.s.wait_apps()
        self.load = OpenLoop(self.s.port, 80, method="POST")
        self.addCleanup(self.load.stop)

    def seen(self, version: str) -> int:
        return sum(o.text == version for o in list(self.load.outcomes))

    def extended(self) -> Dict[str, Any]:
        details = self.s.rest(path="/api/serve/applications/?extended=1").json()
        return details["applications"]["app"]["deployments"]["A"]

    def canary(self) -> Optional[Dict[str, Any]]:
        return self.extended()["rserve"].get("canary")

    def events(self) -> List[Dict[str, Any]]:
        got = call(self.s.dashboard, "/api/v1/events?limit=1000").json()["events"]
        return [e for e in got if e["kind"] == "canary"]

    def statuses(self) -> List[str]:
        return [e["status"] for e in self.events()]

    def assertOnlyOld(self) -> None:
        """The old version has all replicas, and all requests from here on."""
        wait_until("the new version is gone", lambda: "ROLLED_BACK" in self.statuses(), 40)
        wait_until("the old version has all its replicas",
                   lambda: len(self.s.pids("app", "A")) == 2, 30)
        before, seen = self.load.sent, self.seen("new")
        wait_until("more requests", lambda: self.load.sent > before + 60)
        self.assertEqual(self.seen("new"), seen)

    def test_a_good_version_takes_over(self) -> None:
        self.begin(dict(TOLERANT, steps=["20%", "60%"], each="1s", min_requests=10))
        old = self.s.pids("app", "A")
        weights = set()
        self.put(dict(TOLERANT, steps=["20%", "60%"], each="1s", min_requests=10), V="new")

        def over() -> bool:
            canary = self.canary()
            if canary:
                weights.add(canary["weight"])
            return "PASSED" in self.statuses() and not old & self.s.pids("app", "A")
        wait_until("it passed, and only new replicas are left", over, 60)
        self.assertEqual(self.statuses()[:3], ["STARTED", "STEP", "PASSED"])
        self.assertTrue({0.2, 0.6} & weights, weights)
        wait_until("it is well", lambda: self.s.app("app")["status"] == "RUNNING", 30)
        before = self.seen("old")
        wait_until("only the new version answers", lambda: self.seen("new") > 100)
        self.assertLess(self.seen("old") - before, 20)
        self.assertEqual([o for o in self.load.stop() if o.status != 200][:3], [])
        step = self.events()[1]
        self.assertEqual((step["before"], step["after"]), ("20%", "60%"))
        self.assertRegex(step["text"], r"new version: \d+ requests, 0 errors .*old version: \d+")

    def test_one_that_fails_is_rolled_back(self) -> None:
        self.begin(dict(TOLERANT, steps=["10%", "50%"], each="300s"))
        old = self.s.pids("app", "A")
        self.put(dict(TOLERANT, steps=["10%", "50%"], each="300s"), V="new", FAILS="30")
        wait_until("harm is found", lambda: "FAILED" in self.statuses(), 60)
        self.assertOnlyOld()
        self.assertTrue(old & self.s.pids("app", "A"), "the old replicas were there all the time")
        # A tenth of the requests, and a generous bound for so few.
        new = self.seen("new")
        self.assertGreater(new, 5)
        self.assertLess(new, 20 + len(self.load.outcomes) * 0.25)
        bad = [o for o in self.load.outcomes if o.status != 200]
        self.assertEqual({o.text for o in bad}, {"new"})
        failed = [e for e in self.events() if e["status"] == "FAILED"][0]
        self.assertEqual((failed["cause"], failed["before"], failed["after"]),
                         ("errors", "10%", "0%"))
        self.assertRegex(failed["text"], r"fails more often .*step 1 of 2.*new version: \d+ "
                         r"requests, \d+ errors.*old version: \d+ requests, 0 errors")
        message = self.s.app("app")["deployments"]["A"]["message"]
        self.assertIn("fails more often than the old one", message)
        # The same once more is nothing new; the next version is.
        self.put(dict(TOLERANT, steps=["10%", "50%"], each="1s", min_requests=5), V="new2")
        wait_until("the next version passed", lambda: self.statuses()[-1] == "PASSED", 60)

    def test_one_that_is_slow_is_rolled_back(self) -> None:
        canary = {"steps": ["20%"], "each": "300s", "max_p99_ratio": 5}
        self.begin(canary, PAUSE="0.05")
        wait_until("the old version is known", lambda: self.seen("old") > 200, 30)
        self.put(canary, V="new", PAUSE="2")
        wait_until("harm is found", lambda: "FAILED" in self.statuses(), 90)
        self.assertEqual([e["cause"] for e in self.events() if e["status"] == "FAILED"], ["slow"])
        self.assertOnlyOld()
        self.assertEqual([o for o in self.load.stop() if o.status != 200][:3], [])

    def test_a_killed_replica_is_no_verdict(self) -> None:
        canary = dict(TOLERANT, steps=["30%"], each="4s", min_requests=30)
        self.begin(canary)
        old = self.s.pids("app", "A")
        self.put(canary, V="new")
        wait_until("the new version is asked", lambda: self.seen("new") > 5, 40)
        victim = (self.s.pids("app", "A") - old).pop()
        os.kill(victim, signal.SIGKILL)
        before = self.load.sent  # while there is none of it, the old version takes its share
        wait_until("it passed", lambda: "PASSED" in self.statuses(), 60)
        self.assertNotIn("FAILED", self.statuses())
        self.assertGreater(self.load.sent, before)
        wait_until("only new replicas are left", lambda: not old & self.s.pids("app", "A"), 40)
        bad = [o for o in self.load.stop() if o.status != 200]
        self.assertLessEqual(len(bad), 50, "what the killed one was working on")
        self.assertEqual([o for o in bad if o.status == 0], [])

    def test_a_session_stays_on_its_version(self) -> None:
        canary = dict(TOLERANT, steps=["50%"], each="300s")
        self.begin(canary)
        self.put(canary, V="new")
        wait_until("half of the requests", lambda: (self.canary() or {}).get("weight") == 0.5, 40)

        def ask(session: int) -> str:
            return self.s.call(headers={"x-session-id": "s%d" % session}).text
        first = [ask(i) for i in range(24)]
        self.assertEqual(set(first), {"old", "new"})
        for _ in range(3):
            self.assertEqual([ask(i) for i in range(24)], first)
        why = rserve("status", "app#A", "--why", "--address", "127.0.0.1:%d" % self.s.dashboard)
        self.assertIn("tried on 50 % of the requests: step 1 of 1", why.stdout, why.stderr)

    def test_nodes_share_alike(self) -> None:
        """The same session goes to the same version, whichever node it asks."""
        ports = {name: free_port() for name in ("http", "dashboard", "join", "worker")}
        self.s = self.spawn("head", "--num-cpus", "1", "--host", "127.0.0.1", "--port",
                            str(ports["http"]), "--dashboard-port", str(ports["dashboard"]),
                            "--listen", "127.0.0.1:%d" % ports["join"])
        self.s.port, self.s.dashboard = ports["http"], ports["dashboard"]
        self.s.wait_rest()
        self.spawn("worker", "--address", "127.0.0.1:%d" % ports["join"], "--num-cpus", "1",
                   "--host", "127.0.0.1", "--port", str(ports["worker"]))
        wait_until("both nodes are there", lambda: len(
            call(self.s.dashboard, "/api/v1/nodes").json()["nodes"]) == 2, 30)
        self.write_app(APP)
        rollout = {"canary": dict(TOLERANT, steps=["50%"], each="300s")}
        self.deploy(rollout, {"V": "old"}, num_cpus=0.4, num_replicas=4)
        self.s.wait_apps()

        def ask(port: int, session: int) -> str:
            return call(port, headers={"x-session-id": "s%d" % session}).text
        wait_until("the worker serves", lambda: ask(ports["worker"], 0) == "old", 30)
        self.deploy(dict(rollout, when_full="stop_first"), {"V": "new"}, num_cpus=0.4,
                    num_replicas=4)
        wait_until("half of the requests", lambda: (self.canary() or {}).get("weight") == 0.5, 60)
        first: List[str] = []

        def settled() -> bool:
            first[:] = [ask(ports["http"], i) for i in range(16)]
            return [ask(ports["worker"], i) for i in range(16)] == first and len(set(first)) == 2
        wait_until("both nodes send the same sessions to the same version", settled, 30)
        # Each of both passes was 16 requests, and the head adds up what its nodes counted.
        wait_until("all are counted", lambda: sum(
            (self.canary() or {})[version]["requests"] for version in ("old", "new")) >= 32, 30)

    def test_analysis_takes_an_ordinary_roll_back(self) -> None:
        rollout = {"analysis": dict(TOLERANT, min_requests=10), "pause_after": 1}
        self.start_with(rollout, {"V": "old"})
        self.deploy(rollout, {"V": "new", "FAILS": "100"})
        wait_until("harm is found", lambda: "FAILED" in self.statuses(), 60)
        self.assertOnlyOld()

    def test_analysis_ends_a_pause(self) -> None:
        rollout = {"analysis": dict(TOLERANT, min_requests=10), "pause_after": 1}
        self.start_with(rollout, {"V": "old"})
        old = self.s.pids("app", "A")
        self.deploy(rollout, {"V": "new"})
        wait_until("only new replicas are left", lambda: not old & self.s.pids("app", "A"), 60)
        self.assertIn("PASSED", self.statuses())


if __name__ == "__main__":
    main()
