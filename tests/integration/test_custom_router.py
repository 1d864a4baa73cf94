#!/usr/bin/env python3
"""Deployments whose own Python code chooses the replica for each request."""

import json
import os
import signal
import threading
import time
from typing import Any, Dict, List

from harness import (RSERVE, SLOW, Load, Server, ServeTest, call, free_port, main, rserve,
                     wait_until)

# On a busy machine 100 ms pass soon. Where a test is about who is chosen, the router has time.
PATIENT = {"RSERVE_ROUTER_TIMEOUT_S": "%g" % (15 * SLOW)}

APP = """\
    import asyncio, json, os, time
    from ray import serve
    from ray.serve.config import RequestRouterConfig
    from ray.serve.request_router import (
        FIFOMixin, LocalityMixin, MultiplexMixin, PendingRequest, ReplicaID, ReplicaResult,
        RequestRouter, RunningReplica,
    )

    FOLDER = os.path.dirname(__file__)

    def mode():
        with open(os.path.join(FOLDER, "mode")) as f:
            return f.read().strip()

    class Choose(FIFOMixin, MultiplexMixin, LocalityMixin, RequestRouter):
        def initialize_state(self, which="max"):
            self.which = which
            self.log = []

        def note(self, *what):
            self.log.append(what)
            mine = os.path.join(FOLDER, "log~" + str(os.getpid()))  # each node has a router
            with open(mine, "w") as f:
                json.dump({"pid": os.getpid(), "log": self.log[-200:]}, f)
            os.replace(mine, os.path.join(FOLDER, "log"))

        async def choose_replicas(self, candidate_replicas, pending_request=None):
            how = mode()
            meta = pending_request.metadata
            self.note("choose", meta.session_id, meta.call_method, meta.multiplexed_model_id,
                      len(candidate_replicas), pending_request.args)
            if how == "hang":
                time.sleep(60)
            if how == "slow":
                await asyncio.sleep(60)
            if how == "raise":
                raise ValueError("which one?")
            if how == "exit":
                os._exit(3)
            if how == "nobody":
                return []
            if how == "strangers":
                return [["nobody"], []]
            if how == "stats":
                best = [r for r in candidate_replicas if r.routing_stats.get("best")]
                return [best, candidate_replicas]
            if how == "locality":
                return self.rank_replicas_via_locality(candidate_replicas)
            order = sorted(candidate_replicas, key=lambda r: r.replica_id.unique_id)
            if self.which == "max":
                order.reverse()
            return [[order[0]]] if how == "one" else [[r] for r in order]

        def on_request_routed(self, pending_request, replica_id, result):
            self.note("routed", replica_id.unique_id, pending_request.metadata.request_id)

        def on_request_completed(self, replica_id, internal_request_id):
            self.note("completed", replica_id.unique_id, internal_request_id)

    @serve.deployment(num_replicas=3, max_ongoing_requests=2, graceful_shutdown_wait_loop_s=0.05,
        request_router_config=RequestRouterConfig(
            request_router_class=Choose, request_routing_stats_period_s=0.1,
            request_router_kwargs={%s}))
    class A:
        def __init__(self):
            self.best = False

        async def __call__(self, request):
            if "best" in request.query_params:
                self.best = True
            while "gate" in request.query_params and not os.path.exists(
                    os.path.join(FOLDER, "gate")):
                await asyncio.sleep(0.01)
            await asyncio.sleep(float(request.query_params.get("s", 0)))
            return serve.get_replica_context().replica_id.unique_id

        def record_routing_stats(self):
            return {"best": self.best}

    @serve.deployment
    class Plain:
        async def __call__(self, request):
            return "plain"

    app = A.bind()
    plain = Plain.bind()
    """


class CustomRouter(ServeTest):
    def mode(self, text: str) -> None:
        path = os.path.join(self.folder, "mode")
        with open(path + "~", "w", encoding="utf-8") as f:
            f.write(text)
        os.replace(path + "~", path)

    def log(self) -> Dict[str, Any]:
        try:
            with open(os.path.join(self.folder, "log"), encoding="utf-8") as f:
                return json.load(f)
        except FileNotFoundError:
            return {"pid": 0, "log": []}

    def events(self, kind: str) -> List[Any]:
        return [e for e in self.log()["log"] if e[0] == kind]

    def start_routed(self, mode: str = "order", kwargs: str = "",
                     patient: bool = True) -> Server:
        self.mode(mode)
        s = self.serve_code(APP % kwargs, "--num-cpus", "8", env=PATIENT if patient else {})
        self.ids = sorted(r["replica_id"] for r in s.replicas("app", "A"))
        return s

    def extra(self, s: Server) -> Dict[str, Any]:
        details = s.rest(path="/api/serve/applications/?extended=1").json()
        return details["applications"]["app"]["deployments"]["A"]["rserve"]

    def text(self, s: Server, path: str = "/") -> str:
        answer = s.call(path, timeout=60)
        self.assertEqual(answer.status, 200, answer.text)
        return answer.text

    def test_it_chooses(self) -> None:
        s = self.start_routed()
        for _ in range(20):
            self.assertEqual(self.text(s), self.ids[-1])
        self.assertEqual(self.extra(s)["router_fallbacks"], 0)
        self.assertIsNone(self.extra(s)["router"])
        choices = self.events("choose")
        self.assertEqual(choices[-1], ["choose", "", "__call__", "", 3, []])
        wait_until("it is told", lambda: len(self.events("completed")) == 20)
        self.assertEqual({e[1] for e in self.events("routed")}, {self.ids[-1]})
        self.assertEqual(len({e[2] for e in self.events("completed")}), 20)

    def test_its_arguments_and_metadata(self) -> None:
        s = self.start_routed(kwargs='"which": "min"')
        answer = s.call("/", headers={"x-session-id": "s1",
                                      "serve_multiplexed_model_id": "m1"}, timeout=60)
        self.assertEqual(answer.text, self.ids[0])
        self.assertEqual(self.events("choose")[-1][1:4], ["s1", "__call__", "m1"])

    def test_busy_replicas(self) -> None:
        """The first group with a free slot; then it waits, although others are free."""
        s = self.start_routed()
        answers: List[str] = []
        threads = [threading.Thread(target=lambda: answers.append(self.text(s, "/?gate=1")))
                   for _ in range(4)]
        for t in threads:
            t.start()
        wait_until("each has its replica", lambda: len(self.events("routed")) == 4)
        self.write("gate", "")
        for t in threads:
            t.join(60)
        self.assertEqual(sorted(answers), sorted(self.ids[-2:] * 2))
        self.mode("one")
        answers.clear()
        threads = [threading.Thread(target=lambda: answers.append(self.text(s, "/?s=0.3")))
                   for _ in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(60)
        self.assertEqual(answers, [self.ids[-1]] * 6)
        self.assertEqual(self.extra(s)["router_fallbacks"], 0)

    def test_the_zygote_dies_while_it_forks_it(self) -> None:
        self.mode("order")
        s = self.serve_code(APP % "" + """
    forks, once = [], os.path.join(FOLDER, "died")

    def end_once():
        forks.append(1)
        if len(forks) == 4 and not os.path.exists(once):
            open(once, "w").close()
            os._exit(9)  # after the three replicas: the router's process is not told of

    os.register_at_fork(after_in_parent=end_once)
    """, "--num-cpus", "8")
        wait_until("it came to that",
                   lambda: self.text(s) and os.path.exists(os.path.join(self.folder, "died")))
        wait_until("the router chooses", lambda: self.text(s) and self.events("choose"))
        wait_until("it is told", lambda: self.text(s) and self.extra(s)["router"] is None)

    def test_raises(self) -> None:
        s = self.start_routed("raise")
        for _ in range(5):
            self.assertIn(self.text(s), self.ids)
        wait_until("it is told", lambda: "which one?" in (self.extra(s)["router"] or ""))
        wait_until("they are counted", lambda: self.extra(s)["router_fallbacks"] == 5)
        status = rserve("status", "--address", "http://127.0.0.1:%d" % s.dashboard).stdout
        self.assertIn("the built-in choice takes its place", " ".join(status.split()))
        metrics = call(s.dashboard, "/metrics").text
        self.assertRegex(metrics, r'rserve_router_fallbacks_total\{deployment="A",'
                         r'application="app"\} 5')
        self.mode("order")
        self.assertEqual(self.text(s), self.ids[-1])
        wait_until("all is well", lambda: self.extra(s)["router"] is None)

    def test_nonsense(self) -> None:
        """Unknown replicas and no groups: the request waits until the router knows better."""
        s = self.start_routed("strangers")
        got: List[str] = []
        for mode in ("strangers", "nobody"):
            self.mode(mode)
            n = len(self.events("choose"))
            t = threading.Thread(target=lambda: got.append(self.text(s)))
            t.start()
            wait_until("it is asked again and again",
                       lambda m=n: len(self.events("choose")) > m + 3)
            self.assertTrue(t.is_alive())
            self.mode("order")
            t.join(20)
        self.assertEqual(got, [self.ids[-1]] * 2)

    def test_slow(self) -> None:
        s = self.start_routed("slow", patient=False)
        started = time.monotonic()
        for _ in range(3):
            self.assertIn(self.text(s), self.ids)
        self.assertLess(time.monotonic() - started, 30)
        wait_until("it is told", lambda: "100 ms" in (self.extra(s)["router"] or ""))
        wait_until("they are counted", lambda: self.extra(s)["router_fallbacks"] == 3)
        self.mode("order")
        wait_until("all is well", lambda: self.text(s) == self.ids[-1]
                   and self.extra(s)["router"] is None, 60)

    def test_hangs_and_comes_back(self) -> None:
        s = self.start_routed(patient=False)
        wait_until("it was asked", lambda: self.text(s) and self.log()["pid"])
        first = self.log()["pid"]
        self.assertNotIn(first, s.pids("app", "A"))
        self.mode("hang")
        self.assertIn(self.text(s), self.ids)
        load = Load(s.port, "/", threads=2)
        load.wait(5)
        self.mode("order")
        wait_until("another process", lambda: self.log()["pid"] not in (0, first), 60)
        load.wait(20)
        self.assertEqual(set(load.stop()), {200})
        wait_until("it chooses again", lambda: self.text(s) == self.ids[-1], 60)

    def test_dies_under_load(self) -> None:
        s = self.start_routed()
        load = Load(s.port, "/", threads=4)
        for _ in range(3):
            load.wait(50)
            pid = self.log()["pid"]
            os.kill(pid, signal.SIGKILL)
            wait_until("another process", lambda p=pid: self.log()["pid"] != p)
        load.wait(50)
        self.assertEqual(set(load.stop()), {200})
        self.mode("exit")
        self.assertIn(self.text(s), self.ids)
        self.assertNoZombies(s)

    def test_a_replica_dies(self) -> None:
        s = self.start_routed()
        self.assertEqual(self.text(s), self.ids[-1])
        victim = [r["pid"] for r in s.replicas("app", "A") if r["replica_id"] == self.ids[-1]]
        os.kill(victim[0], signal.SIGKILL)
        wait_until("it is replaced", lambda: len(s.replicas("app", "A")) == 3
                   and self.ids[-1] not in [r["replica_id"] for r in s.replicas("app", "A")])
        self.assertEqual(self.text(s), max(r["replica_id"] for r in s.replicas("app", "A")))

    def test_statistics_of_replicas(self) -> None:
        s = self.start_routed()
        best = self.text(s, "/?best=1")
        self.mode("stats")
        wait_until("its statistics count", lambda: self.text(s) == best)

        def always() -> bool:
            return all(self.text(s) == best for _ in range(10))
        wait_until("for every request", always)

    def test_locality(self) -> None:
        s = self.start_routed("locality")
        self.assertIn(self.text(s), self.ids)
        self.assertEqual(self.extra(s)["router_fallbacks"], 0)

    def test_no_such_router(self) -> None:
        self.mode("order")
        self.write("served.py", APP % "")
        path = self.write("app.yaml", "applications:\n- name: app\n  route_prefix: /\n"
                          "  import_path: served:app\n  deployments:\n  - name: A\n"
                          "    request_router_config: {request_router_class: 'nowhere:Router'}\n")
        s = self.serve(path, "--num-cpus", "8")
        self.text(s)
        wait_until("it is told", lambda: "nowhere" in (self.extra(s)["router"] or ""))


class Cluster(ServeTest):
    """At the head each worker is one candidate; there its own router chooses among its replicas."""

    def test_two_workers(self) -> None:
        with open(os.path.join(self.folder, "mode"), "w", encoding="utf-8") as f:
            f.write("order")
        port, dashboard, join = free_port(), free_port(), free_port()
        head = self.spawn("head", "--num-cpus", "0", "--host", "127.0.0.1", "--port", str(port),
                          "--dashboard-port", str(dashboard), "--listen", "127.0.0.1:%d" % join,
                          env=PATIENT)
        head.port, head.dashboard = port, dashboard
        head.wait_rest()
        for _ in range(2):
            self.spawn("worker", "--address", "127.0.0.1:%d" % join, "--num-cpus", "2", "--host",
                       "127.0.0.1", "--port", "0", env=PATIENT)
        self.write("served.py", APP % "")
        answer = head.rest("PUT", {"applications": [{
            "name": "app", "route_prefix": "/", "import_path": "served:app",
            "rserve": {"app_dir": self.folder},
            "deployments": [{"name": "A", "num_replicas": 4}]}]})
        self.assertEqual(answer.status, 200, answer.text)
        head.wait_apps()
        replicas = head.replicas("app", "A")
        node = max(r["node_id"] for r in replicas)
        best = max(r["replica_id"] for r in replicas if r["node_id"] == node)

        def always() -> bool:
            return all(head.call("/").text == best for _ in range(20))
        wait_until("both workers are known at the head, and all routers answer", always)


if __name__ == "__main__":
    assert RSERVE
    main()
