#!/usr/bin/env python3
"""Replicas that are brought into each state of ill health: what is said of them, with which
figures, and what becomes of them and of their requests. And the leak guard, which replaces those
that are well."""

import os
import shutil
import signal
import subprocess
import threading
import unittest
from typing import Any, Dict, List, Optional

from harness import SLOW, Load, Server, ServeTest, call, free_port, main, wait_until

C_STUCK = os.environ.get("RSERVE_C_STUCK", "")

CODE = """\
    import os, sys, time
    from ray import serve

    HERE = os.path.dirname(os.path.abspath(__file__))

    def told(what):
        return os.path.exists(os.path.join(HERE, "%s-%d" % (what, os.getpid())))

    @serve.deployment
    class A:
        def __init__(self):
            self.kept = []

        def check_health(self):
            if told("sick"):
                raise RuntimeError("the model is gone")

        def __call__(self, request):
            do = request.query_params.get("do", "")
            if do == "stick":
                while not told("go"):
                    pass
            if do == "end":
                print("last words", file=sys.stderr, flush=True)
                os._exit(7)
            if do == "leak":
                self.kept.append(bytearray(os.urandom(1 << 20) * 16))
            time.sleep(0.2 if told("slow") else 0.001)
            return os.getpid()

    app = A.bind()
    """

FAST_CHECKS = "  health_check_period_s: 0.2\n  health_check_timeout_s: 30\n"


def health_of(replica: Dict[str, Any]) -> Dict[str, Any]:
    return replica["rserve"]["health"] or {}


class HealthTest(ServeTest):
    def begin(self, n: int, health: str, more: str = "", options: str = "") -> Server:
        deployments = ("- name: A\n  num_replicas: %d\n  graceful_shutdown_timeout_s: 2\n"
                       "  ray_actor_options: {num_cpus: 0.1}\n%s"
                       "  rserve: {health: {%s}%s}\n" % (n, options, health, more))
        return self.serve_code(CODE, "--num-cpus", "2", deployments=deployments)

    def deployment(self, s: Server) -> Dict[str, Any]:
        return s.rest(path="/api/serve/applications/?extended=1").json()[
            "applications"]["app"]["deployments"]["A"]

    def find(self, s: Server, which: str, pid: int, condition: str) -> Optional[Dict[str, Any]]:
        """What is said of the replica with this pid, if it is this; `which` list it is in."""
        for r in self.deployment(s)[which]:
            if r["pid"] == pid and health_of(r).get("condition") == condition:
                return r
        return None

    def wait_for(self, s: Server, which: str, pid: int, condition: str,
                 timeout: float = 20) -> Dict[str, Any]:
        return wait_until("%d in %s is %s" % (pid, which, condition),
                          lambda: self.find(s, which, pid, condition), timeout)

    def wait_replaced(self, s: Server, n: int, *pids: int) -> None:
        wait_until("%s are replaced" % (pids,), lambda: len(s.pids("app", "A")) == n
                   and not s.pids("app", "A") & set(pids))

    def events(self, s: Server, kind: str, status: str) -> List[Dict[str, Any]]:
        answer = s.rest(path="/api/v1/events").json()
        return [e for e in answer["events"] if e["kind"] == kind and e["status"] == status]

    def wait_event(self, s: Server, kind: str, status: str) -> Dict[str, Any]:
        return wait_until("an event %s %s" % (kind, status),
                          lambda: self.events(s, kind, status))[-1]

    def later(self, s: Server, path: str, body: Optional[bytes] = None) -> List[Any]:
        """A request that may take long; its answer, or what was raised, comes into the list."""
        answers: List[Any] = []

        def work() -> None:
            try:
                answers.append(call(s.port, path, body=body, timeout=60))
            except OSError as e:
                answers.append(e)
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return answers

    def warm(self, s: Server, requests: int = 40) -> None:
        for _ in range(requests):
            self.assertEqual(s.call().status, 200)


class Ill(HealthTest):
    def test_stopped_process(self) -> None:
        """Its frames are not read: others take its requests, then it is killed and replaced."""
        limit = int(4 * SLOW)  # the other one must answer within that on any machine
        s = self.begin(2, "not_answering_s: %d" % limit, options=FAST_CHECKS)
        victim = min(s.pids("app", "A"))
        load = Load(s.port, threads=2)
        load.wait(20)
        os.kill(victim, signal.SIGSTOP)
        ill = self.wait_for(s, "replicas", victim, "not_answering")["rserve"]["health"]
        self.assertEqual((ill["unit"], ill["limit"]), ("s", limit))
        self.assertGreater(ill["value"], 0)
        load.wait(50)  # the other one goes on
        dead = health_of(self.wait_for(s, "recent_dead_replicas", victim, "not_answering"))
        self.assertGreaterEqual(dead["value"], dead["limit"])
        self.assertEqual((dead["action"], dead["signal"]), ("kill", signal.SIGKILL))
        self.assertIn("process is stopped (state T)", "".join(
            r["rserve"]["message"] for r in self.deployment(s)["recent_dead_replicas"]))
        self.wait_replaced(s, 2, victim)
        load.wait(20)
        counts = load.stop()
        self.assertLessEqual(sum(n for status, n in counts.items() if status != 200), 2, counts)
        self.assertEqual(self.wait_event(s, "health", "SILENT")["cause"], "not_answering")
        s.wait_apps()

    def stuck(self, s: Server, answers: List[Any], victim: int, n: int) -> None:
        ill = health_of(self.wait_for(s, "recent_dead_replicas", victim, "stuck"))
        self.assertEqual((ill["action"], ill["unit"]), ("end", "s"))
        self.assertGreaterEqual(ill["value"], ill["limit"])
        self.assertGreater(ill["usual_s"], 0)
        self.assertEqual(ill["waiting"], 1)
        self.wait_replaced(s, n, victim)
        wait_until("the request ended", lambda: answers)
        self.assertEqual(answers[0].status, 502)
        self.assertIn("stuck: it has 1 request", answers[0].text)
        self.assertEqual(self.wait_event(s, "health", "STUCK")["data"]["condition"], "stuck")
        self.assertEqual(s.call(body=b"x").status, 200)
        s.wait_apps()

    def test_endless_loop(self) -> None:
        s = self.begin(1, "stuck_after_s: 3, stuck_min_requests: 10")
        victim = min(s.pids("app", "A"))
        self.warm(s)
        self.stuck(s, self.later(s, "/?do=stick", b"x"), victim, 1)

    @unittest.skipUnless(C_STUCK, "needs the replica in C of the build")
    def test_program_that_never_answers(self) -> None:
        shutil.copy(C_STUCK, os.path.join(self.folder, "stuck"))
        path = self.write("c.yaml", """\
            applications:
            - name: app
              route_prefix: /
              rserve: {ingress: A}
              deployments:
              - name: A
                graceful_shutdown_timeout_s: 2
                ray_actor_options: {num_cpus: 0.1}
                rserve:
                  kind: exec
                  command: [./stuck]
                  health: {stuck_after_s: 3, stuck_min_requests: 10}
            """)
        s = self.serve(path, "--num-cpus", "2")
        victim = min(s.pids("app", "A"))
        self.warm(s)
        self.stuck(s, self.later(s, "/", b"stick"), victim, 1)

    def test_a_long_request_is_not_stuck(self) -> None:
        """It may take that long: somebody said so."""
        s = self.begin(1, "stuck_after_s: 0.2, stuck_min_requests: 5", ", request_timeout_s: 100")
        pid = min(s.pids("app", "A"))
        self.warm(s, 20)
        answers = self.later(s, "/?do=stick")
        wait_until("it is at work", lambda: self.deployment(s)["rserve"]["in_flight"] == 1)
        since = s.details()["controller_health_metrics"]["uptime_s"]
        wait_until("some time passes", lambda: s.details()[
            "controller_health_metrics"]["uptime_s"] > since + 2)
        self.write("go-%d" % pid, "")
        wait_until("it is through", lambda: answers)
        self.assertEqual(answers[0].status, 200)
        self.assertEqual(s.pids("app", "A"), {pid})

    def test_check_health(self) -> None:
        s = self.begin(2, "", options=FAST_CHECKS)
        victim = min(s.pids("app", "A"))
        self.write("sick-%d" % victim, "")
        dead = self.wait_for(s, "recent_dead_replicas", victim, "check_failed")
        self.assertEqual((health_of(dead)["value"], health_of(dead)["limit"],
                          health_of(dead)["unit"]), (3, 3, "failures"))
        self.assertIn("health check failed 3 times: RuntimeError: the model is gone",
                      dead["rserve"]["message"])
        self.wait_replaced(s, 2, victim)
        self.assertEqual(self.wait_event(s, "health", "CHECK_FAILED")["who"], "health")

    def test_dead(self) -> None:
        s = self.begin(2, "")
        victim = s.call("/?do=pid").json()
        answers = self.later(s, "/?do=end", b"x")
        wait_until("somebody died", lambda: [
            r for r in self.deployment(s)["recent_dead_replicas"] if health_of(r)])
        dead = [r for r in self.deployment(s)["recent_dead_replicas"] if health_of(r)][0]
        self.assertEqual((health_of(dead)["condition"], health_of(dead)["exit_code"],
                          health_of(dead)["asked"]), ("dead", 7, False))
        self.assertIn("last words", health_of(dead)["stderr"])
        wait_until("the request ended", lambda: answers)
        self.wait_replaced(s, 2, dead["pid"])
        victim = min(s.pids("app", "A"))
        os.kill(victim, signal.SIGSEGV)
        ended = health_of(self.wait_for(s, "recent_dead_replicas", victim, "dead"))
        self.assertEqual((ended["signal"], ended["asked"]), (signal.SIGSEGV, False))
        self.assertEqual(len({e["replica"] for e in wait_until(
            "two deaths are told", lambda: len(self.events(s, "health", "DEAD")) == 2
            and self.events(s, "health", "DEAD"))}), 2)

    def test_killed_by_a_person_is_no_want_of_memory(self) -> None:
        s = self.begin(1, "")
        victim = min(s.pids("app", "A"))
        os.kill(victim, signal.SIGKILL)
        ended = health_of(wait_until("it is dead", lambda: [
            r for r in self.deployment(s)["recent_dead_replicas"] if r["pid"] == victim])[0])
        # somebody else's process may run out of memory on this machine meanwhile
        if ended["condition"] != "out_of_memory" or ended["certain"]:
            self.assertEqual((ended["condition"], ended["signal"]), ("dead", signal.SIGKILL))

    def memory_cgroup(self, limit: int) -> List[str]:
        """What starts a command in a cgroup of this size; skips the test where that cannot be."""
        with open("/proc/self/cgroup", encoding="ascii") as f:
            lines = [line.rstrip("\n").split(":", 2) for line in f]
        for _, controllers, path in lines:
            v1 = "memory" in controllers.split(",")
            if controllers and not v1:
                continue
            top = "/sys/fs/cgroup" + ("/memory" if v1 else "") + path.rstrip("/")
            name = os.path.join(top, "rserve-test-%d" % os.getpid())
            file = "memory.limit_in_bytes" if v1 else "memory.max"
            try:
                os.mkdir(name)
                self.addCleanup(os.rmdir, name)
                self.addCleanup(self.end_servers)  # before that
                with open(os.path.join(name, file), "w", encoding="ascii") as f:
                    f.write(str(limit))
                if not v1:
                    with open(os.path.join(name, "memory.swap.max"), "w", encoding="ascii") as f:
                        f.write("0")
            except OSError:
                continue

            return ["sh", "-c", "echo $$ > %s/cgroup.procs && exec \"$@\"" % name, "sh"]
        raise unittest.SkipTest("no cgroup may be made here")

    def test_out_of_memory(self) -> None:
        prefix = self.memory_cgroup(400 << 20)
        s = self.serve_code(CODE, "--num-cpus", "1", prefix=prefix)
        victim = min(s.pids("app", "A"))
        for _ in range(60):
            answers = self.later(s, "/?do=leak", b"x")
            wait_until("it answers", lambda: answers)
            if not isinstance(answers[0], OSError) and answers[0].status != 200:
                break
        ended = health_of(self.wait_for(s, "recent_dead_replicas", victim, "out_of_memory"))
        self.assertEqual(ended["signal"], signal.SIGKILL)
        self.assertGreaterEqual(ended["oom_kills"], 1)
        self.assertIn("want of memory", ended["evidence"])
        self.wait_event(s, "health", "OOM")


class Nodes(HealthTest):
    def test_a_silent_node(self) -> None:
        """It is named while it says nothing; then it is lost, others take over; it comes back."""
        port, dashboard, join = free_port(), free_port(), free_port()
        head = self.spawn("head", "--num-cpus", "2", "--host", "127.0.0.1", "--port", str(port),
                          "--dashboard-port", str(dashboard), "--listen", "127.0.0.1:%d" % join)
        head.port, head.dashboard = port, dashboard
        head.wait_rest()
        worker = self.spawn("worker", "--address", "127.0.0.1:%d" % join, "--num-cpus", "2",
                            "--host", "127.0.0.1", "--port", "0", "--node-name", "quiet")

        def extra() -> Dict[str, Any]:
            return head.rest(path="/api/serve/applications/?extended=1").json()["rserve"]

        def quiet() -> Dict[str, Any]:
            return {n["name"]: n for n in extra()["nodes"].values()}.get("quiet", {})
        wait_until("the worker has joined", quiet)
        self.write_app(CODE)
        head.rest("PUT", {"applications": [{
            "name": "app", "route_prefix": "/", "import_path": "served:app",
            "rserve": {"app_dir": self.folder},
            "deployments": [{"name": "A", "num_replicas": 2, "max_replicas_per_node": 1,
                             "ray_actor_options": {"num_cpus": 0.5}}]}]})
        head.wait_apps()
        worker.send(signal.SIGSTOP)
        try:
            ill = wait_until("it is named", lambda: quiet().get("health"))
            self.assertEqual((ill["condition"], ill["limit"], ill["unit"]),
                             ("not_answering", 10, "s"))
            self.assertGreaterEqual(ill["value"], 3)
            lost = wait_until("it is lost", lambda: extra()["lost_nodes"], 30)[-1]
            self.assertEqual((lost["name"], lost["cause"], lost["limit"], lost["replicas"]),
                             ("quiet", "silent", 10, 1))
            self.assertGreaterEqual(lost["value"], 10)
            self.assertIn("Node 'quiet' left with 1 running replica: nothing was heard of it for",
                          head.app("app")["deployments"]["A"]["message"]
                          + head.output())
            self.assertEqual(self.wait_event(head, "node", "LEFT")["cause"], "silent")
        finally:
            worker.send(signal.SIGCONT)
        wait_until("it is back", lambda: quiet() and not quiet()["health"])
        head.wait_apps()
        worker.stop()
        lost = wait_until("it left", lambda: extra()["lost_nodes"][1:])[-1]
        self.assertEqual(lost["cause"], "drained")


class Slow(HealthTest):
    def make_slow(self, s: Server) -> int:
        victim = min(s.pids("app", "A"))
        self.write("slow-%d" % victim, "")
        return victim

    def test_fewer_requests_until_it_recovers(self) -> None:
        s = self.begin(4, "slow_window_s: 1, slow_min_requests: 5, slow_replace_after_s: null")
        before = s.pids("app", "A")
        load = Load(s.port, threads=6)
        victim = self.make_slow(s)
        ill = wait_until("it gets fewer requests", lambda: health_of(
            self.wait_for(s, "replicas", victim, "slow")).get("share_percent") == 10 and health_of(
                self.wait_for(s, "replicas", victim, "slow")), 60)
        self.assertEqual(ill["siblings"], 3)
        self.assertGreater(ill["value"], ill["limit"])
        self.assertGreater(ill["limit"], ill["usual_s"])
        at = len(load.results)
        load.wait(300, 60)
        of = [text for status, text in load.results[at:] if status == 200]
        # a fair share is a quarter; a slow one had perhaps a tenth of that by itself
        self.assertLess(of.count(str(victim)), len(of) / 8)
        os.unlink(os.path.join(self.folder, "slow-%d" % victim))
        wait_until("it is well again", lambda: [
            r for r in self.deployment(s)["replicas"]
            if r["pid"] == victim and not r["rserve"]["health"]], 60)
        self.assertEqual(set(load.stop()), {200})
        self.assertEqual(s.pids("app", "A"), before)
        self.wait_event(s, "health", "SLOW")
        self.assertEqual(self.wait_event(s, "health", "WELL")["before"], "SLOW")

    def test_replaced_when_it_stays(self) -> None:
        s = self.begin(4, "slow_window_s: 1, slow_min_requests: 5, slow_replace_after_s: 1")
        load = Load(s.port, threads=6)
        victim = self.make_slow(s)
        wait_until("it is gone", lambda: victim not in s.pids("app", "A"), 60)
        self.wait_replaced(s, 4, victim)
        self.assertEqual(set(load.stop()), {200})
        dead = wait_until("it has ended", lambda: self.deployment(s)["recent_dead_replicas"])
        self.assertIn("replaced: slow", dead[0]["rserve"]["message"])
        self.assertEqual(self.deployment(s)["rserve"]["deaths"], 0)
        self.assertEqual(s.app("app")["status"], "RUNNING")

    def test_all_are_slow(self) -> None:
        """Then it is not the replicas."""
        s = self.begin(4, "slow_window_s: 1, slow_min_requests: 3, slow_replace_after_s: 1")
        before = s.pids("app", "A")
        for pid in before:
            self.write("slow-%d" % pid, "")
        load = Load(s.port, threads=6)
        load.wait(150, 60)
        self.assertEqual(set(load.stop()), {200})
        self.assertEqual(s.pids("app", "A"), before)
        self.assertEqual(self.events(s, "health", "SLOW"), [])


class Loaded(HealthTest):
    def test_a_loaded_machine_makes_nobody_ill(self) -> None:
        """With the defaults, and far more work than there are processors."""
        s = self.begin(4, "slow_window_s: 1", options="  health_check_period_s: 0.5\n")
        before = s.pids("app", "A")
        hogs = [subprocess.Popen(["sh", "-c", "while :; do :; done"])
                for _ in range(2 * (os.cpu_count() or 2))]
        try:
            load = Load(s.port, threads=16)
            load.wait(600, 120)
            t = s.details()["controller_health_metrics"]["uptime_s"]
            wait_until("some windows are over", lambda: s.details()[
                "controller_health_metrics"]["uptime_s"] > t + 5, 60)
            self.assertEqual(set(load.stop()), {200})
        finally:
            for hog in hogs:
                hog.kill()
                hog.wait()
        self.assertEqual(s.pids("app", "A"), before)
        self.assertEqual(self.deployment(s)["rserve"]["deaths"], 0)


class Replaced(HealthTest):
    def guard(self, replace: str, path: str, condition: str, n: int = 2) -> None:
        """Under load each replica is replaced in its turn, and no request is lost."""
        s = self.begin(n, "", ", replace: {%s}" % replace)
        before = s.pids("app", "A")
        fewest = [n]
        load = Load(s.port, path, threads=3)

        def gone() -> bool:
            now = s.pids("app", "A")
            fewest[0] = min(fewest[0], len(now))
            return not now & before
        wait_until("all of them are replaced", gone, 60)
        self.assertEqual(set(load.stop()), {200})
        self.assertEqual(fewest[0], n)
        event = self.wait_event(s, "replace", condition)
        self.assertEqual(event["who"], "health")
        self.assertGreaterEqual(event["data"]["value"], event["data"]["limit"])
        wait_until("it has ended", lambda: event["replica"] in [
            r["replica_id"] for r in self.deployment(s)["recent_dead_replicas"]])
        self.assertEqual(self.deployment(s)["rserve"]["deaths"], 0)
        s.wait_apps()

    def test_requests(self) -> None:
        self.guard("requests: 150", "/", "REQUESTS")

    def test_age(self) -> None:
        self.guard("age_s: 3", "/", "AGE")

    def test_memory(self) -> None:
        self.guard("memory: 200MiB", "/?do=leak", "MEMORY")

    def test_no_room_for_another_one(self) -> None:
        """Then the old one goes first, and says so; requests wait."""
        s = self.serve_code(CODE, "--num-cpus", "1", deployments=(
            "- name: A\n  graceful_shutdown_timeout_s: 2\n"
            "  rserve: {replace: {requests: 30}}\n"))
        before = s.pids("app", "A")
        load = Load(s.port, threads=2)
        wait_until("it is replaced", lambda: len(s.pids("app", "A")) == 1
                   and not s.pids("app", "A") & before)
        self.assertEqual(set(load.stop()), {200})
        self.assertIn("there is no room for another one beside it", wait_until(
            "it has ended", lambda: self.deployment(s)["recent_dead_replicas"])[0]["rserve"][
                "message"])


if __name__ == "__main__":
    main()
