#!/usr/bin/env python3
"""Deployments that grow and shrink with their load, sleep at zero, and are scaled from outside."""

import os
import signal
import threading
from typing import Any, Dict, List

from harness import (RSERVE, Answer, Load, Server, ServeTest, call, free_port, main, rserve,
                     wait_until)

APP = """\
    import asyncio, os
    from ray import serve

    @serve.deployment(max_ongoing_requests=4, graceful_shutdown_wait_loop_s=0.05)
    class A:
        async def __call__(self, request):
            await asyncio.sleep(float(request.query_params.get("s", 0)))
            return {"pid": os.getpid()}

    app = A.bind()
    """

SCALES = """\
    - name: A
      autoscaling_config:
        min_replicas: %d
        max_replicas: 3
        target_ongoing_requests: 1
        look_back_period_s: 0.5
        metrics_interval_s: 0.1
        upscale_delay_s: %g
        downscale_delay_s: %g
    """


def deployment(s: Server) -> Dict[str, Any]:
    return s.app("app")["deployments"]["A"]


def in_flight(s: Server) -> int:
    details = s.rest(path="/api/serve/applications/?extended=1").json()
    return details["applications"]["app"]["deployments"]["A"]["rserve"]["in_flight"]


class Many:
    """Requests that are under way at the same time."""

    def __init__(self, s: Server, n: int, path: str) -> None:
        self.answers: List[Answer] = []
        self.threads = [threading.Thread(target=self.work, args=(s.port, path), daemon=True)
                        for _ in range(n)]
        for t in self.threads:
            t.start()

    def work(self, port: int, path: str) -> None:
        self.answers.append(call(port, path, timeout=60))

    def join(self) -> List[int]:
        for t in self.threads:
            t.join(60)
        return [a.status for a in self.answers]


class Scales(ServeTest):
    def test_up_and_down(self) -> None:
        s = self.serve_code(APP, "--num-cpus", "4", deployments=SCALES % (1, 0.2, 0.3))
        self.assertEqual(deployment(s)["target_num_replicas"], 1)
        many = Many(s, 8, "/?s=3")
        wait_until("three replicas", lambda: len(s.replicas("app", "A")) == 3)
        self.assertEqual(s.app("app")["status"], "RUNNING")
        self.assertEqual(many.join(), [200] * 8)
        wait_until("one replica", lambda: len(s.replicas("app", "A")) == 1
                   and deployment(s)["status"] == "HEALTHY")
        d = deployment(s)
        self.assertEqual(d["status_trigger"], "DOWNSCALE_COMPLETED")
        self.assertEqual(d["autoscaling_detail"]["scaling_status"], "STABLE")
        decisions = d["autoscaling_detail"]["decisions"]
        self.assertEqual([x["curr_num_replicas"] for x in decisions][0::len(decisions) - 1], [3, 1])
        self.assertRegex(s.output(), r"Upscaling Deployment\(name='A', app='app'\) from 1 to 3 "
                         r"replicas\. Current ongoing requests: \d+\.\d\d, current running "
                         r"replicas: 1\.")
        status = rserve("status", "--address", "http://127.0.0.1:%d" % s.dashboard)
        self.assertIn("wanted per replica", status.stdout + status.stderr)

    def test_nothing_is_lost_while_it_goes_up_and_down(self) -> None:
        s = self.serve_code(APP, "--num-cpus", "4", deployments=SCALES % (0, 0, 0.1))
        load = Load(s.port, "/?s=0.02", threads=8)
        load.wait(200)
        for _ in range(3):
            many = Many(s, 8, "/?s=0.5")
            load.wait(30)
            self.assertEqual(set(many.join()), {200})
        counts = load.stop()
        self.assertEqual(set(counts), {200})
        wait_until("asleep", lambda: not s.replicas("app", "A"))
        self.assertEqual(call(s.port, "/").status, 200)

    def test_a_request_wakes_it_at_once(self) -> None:
        """No delay counts at zero; requests wait meanwhile."""
        s = self.serve_code(APP, "--num-cpus", "4", deployments=SCALES % (0, 600, 600))
        self.assertEqual(s.replicas("app", "A"), [])
        self.assertEqual(deployment(s)["target_num_replicas"], 0)
        self.assertEqual(deployment(s)["status"], "HEALTHY")
        self.assertEqual(Many(s, 5, "/").join(), [200] * 5)
        self.assertEqual(deployment(s)["target_num_replicas"], 1)

    def test_the_replica_that_wakes_dies(self) -> None:
        s = self.serve_code(APP, "--num-cpus", "4", deployments=SCALES % (0, 600, 600))
        many = Many(s, 1, "/?s=3")
        pid = wait_until("a replica works", lambda: s.pids("app", "A")).pop()
        wait_until("it has the request", lambda: in_flight(s) == 1)
        os.kill(pid, signal.SIGKILL)
        # it is a GET, so another replica takes it
        self.assertEqual(many.join(), [200])
        self.assertEqual(call(s.port, "/").status, 200)


class FromOutside(ServeTest):
    PATH = "/api/v1/applications/app/deployments/A/scale"

    def scale(self, s: Server, n: Any) -> Answer:
        return s.rest("POST", {"target_num_replicas": n}, self.PATH)

    def test_scale(self) -> None:
        self.write_app(APP)
        path = self.write("app.yaml", "applications:\n- name: app\n  route_prefix: /\n"
                          "  import_path: served:app\n  external_scaler_enabled: true\n")
        s = self.serve(path, "--num-cpus", "4")
        self.assertEqual(self.scale(s, 3).status, 200)
        wait_until("three replicas", lambda: len(s.replicas("app", "A")) == 3)
        wait_until("healthy", lambda: deployment(s)["status_trigger"] == "UPSCALE_COMPLETED")
        busy = Many(s, 1, "/?s=1")
        wait_until("it works", lambda: in_flight(s) == 1)
        self.assertEqual(self.scale(s, 0).status, 200)
        wait_until("no replica", lambda: not s.replicas("app", "A", "RUNNING"))
        self.assertEqual(busy.join(), [200])
        waits = Many(s, 1, "/")
        self.assertEqual(self.scale(s, 1).status, 200)
        self.assertEqual(waits.join(), [200])
        for bad in (-1, "2", None, 1.5):
            self.assertEqual(self.scale(s, bad).status, 400)
        self.assertEqual(s.rest("POST", None, self.PATH).status, 400)


POLICIES = """\
    import asyncio, os, time
    from ray import serve
    from ray.serve.config import AutoscalingConfig, AutoscalingContext

    def wanted():
        with open(os.path.join(os.path.dirname(__file__), "wanted")) as f:
            return f.read().split()

    class FromFile:
        def __init__(self, factor=1):
            self.factor = factor
            self.calls = 0

        def __call__(self, ctx):
            assert ctx.deployment_name == "A" and ctx.app_name == "app", ctx
            assert ctx.total_running_requests <= ctx.total_num_requests
            self.calls += 1
            word = wanted()[0]
            if word == "hang":
                time.sleep(60)
            if word == "raise":
                raise ValueError("no idea")
            if word == "nonsense":
                return "many"
            state = {"pid": os.getpid(), "n": ctx.policy_state.get("n", 0) + 1}
            with open(os.path.join(os.path.dirname(__file__), "pid"), "w") as f:
                f.write(str(os.getpid()))
            return float(word) * self.factor, state

    def of_application(contexts):
        return {d: int(wanted()[0]) for d in contexts if d.name != "Other"}, None

    def by_stats(ctx):
        figures = ctx.aggregated_metrics.get("wishes", {})
        raw = ctx.raw_metrics.get("wishes", {})
        assert set(figures) <= set(raw)
        return max([1, *figures.values()]), {}

    @serve.deployment(graceful_shutdown_wait_loop_s=0.05, %s)
    class A:
        def __init__(self):
            self.wishes = 1

        async def __call__(self, request):
            self.wishes = int(request.query_params.get("wishes", 1))
            await asyncio.sleep(float(request.query_params.get("s", 0)))
            return {"pid": os.getpid()}

        def record_autoscaling_stats(self):
            return {"wishes": self.wishes}

    @serve.deployment(autoscaling_config=AutoscalingConfig(min_replicas=1, max_replicas=4))
    class Other:
        pass

    app = A.bind(%s)
    """

CONFIG = """AutoscalingConfig(min_replicas=1, max_replicas=5, upscale_delay_s=0,
        downscale_delay_s=0, look_back_period_s=0.4, metrics_interval_s=0.1,
        target_ongoing_requests=1, %s)"""


class Policies(ServeTest):
    def want(self, text: Any) -> None:
        path = os.path.join(self.folder, "wanted")
        with open(path + "~", "w", encoding="utf-8") as f:
            f.write(str(text))
        os.replace(path + "~", path)

    def serve_policy(self, config: str, *more: str, text: str = "") -> Server:
        code = POLICIES % ("autoscaling_config=" + CONFIG % config, ", ".join(more))
        self.write("served.py", code)
        path = self.write("app.yaml", "applications:\n- name: app\n  route_prefix: /\n"
                          "  import_path: served:app\n" + text)
        return self.serve(path, "--num-cpus", "8")

    def wait_replicas(self, s: Server, n: int) -> None:
        wait_until("%d replicas" % n, lambda: len(s.replicas("app", "A")) == n
                   and deployment(s)["target_num_replicas"] == n)

    def errors(self, s: Server) -> List[str]:
        return deployment(s)["autoscaling_detail"]["errors"]

    def helper(self) -> int:
        with open(os.path.join(self.folder, "pid"), encoding="utf-8") as f:
            return int(f.read() or 0)  # it may be written just now

    def test_a_class_in_code(self) -> None:
        """Instantiated with its arguments; its number counts, within the bounds."""
        self.want(1)
        s = self.serve_policy('policy={"policy_function": FromFile, '
                              '"policy_kwargs": {"factor": 2}}')
        self.wait_replicas(s, 2)
        self.want(1.1)
        self.wait_replicas(s, 3)
        self.want(50)
        self.wait_replicas(s, 5)
        self.want(0)
        self.wait_replicas(s, 1)
        self.assertEqual(self.errors(s), [])
        self.assertIn("served:FromFile", s.details()["applications"]["app"]["deployments"]["A"]
                      ["autoscaling_detail"]["decisions"][0]["policy"])

    def test_raises(self) -> None:
        """The number stays; status says what it raised."""
        self.want(3)
        s = self.serve_policy('policy={"policy_function": FromFile}')
        self.wait_replicas(s, 3)
        for word, error in (("raise", "ValueError: no idea"), ("nonsense", "must return a tuple")):
            self.want(word)
            wait_until("the error shows", lambda e=error: any(e in x for x in self.errors(s)))
            status = rserve("status", "--address", "http://127.0.0.1:%d" % s.dashboard).stdout
            self.assertIn("the number stays", " ".join(status.split()))
            self.assertEqual(deployment(s)["target_num_replicas"], 3)
        self.want(2)
        self.wait_replicas(s, 2)
        wait_until("all is well", lambda: self.errors(s) == [])
        self.assertIn("answers again", s.output())

    def test_killed(self) -> None:
        """The built-in policy decides meanwhile; it comes back by itself."""
        self.want(3)
        s = self.serve_policy('policy={"policy_function": FromFile}')
        self.wait_replicas(s, 3)
        first = self.helper()
        self.assertNotIn(first, s.pids("app", "A"))
        load = Load(s.port, "/", threads=2)
        os.kill(first, signal.SIGKILL)
        wait_until("another process", lambda: self.helper() not in (0, first))
        self.want(4)
        self.wait_replicas(s, 4)
        self.assertEqual(set(load.stop()), {200})
        self.assertNoZombies(s)

    def test_hangs(self) -> None:
        self.want(3)
        s = self.serve_policy('policy={"policy_function": FromFile}')
        self.wait_replicas(s, 3)
        first = self.helper()
        self.want("hang")
        wait_until("it is noticed", lambda: "no answer within 1 s" in self.errors(s))
        self.wait_replicas(s, 1)  # by load, of which there is none
        many = Many(s, 4, "/?s=2")
        self.wait_replicas(s, 4)
        self.assertEqual(many.join(), [200] * 4)
        self.want(2)
        wait_until("it was replaced", lambda: self.helper() != first, 25)
        self.wait_replicas(s, 2)

    def test_of_the_application(self) -> None:
        """It goes over those of the deployments, and may leave one out."""
        self.want(3)
        s = self.serve_policy('policy={"policy_function": FromFile}', text=(
            "  autoscaling_policy: {policy_function: 'served:of_application'}\n"))
        self.wait_replicas(s, 3)
        self.want(1)
        self.wait_replicas(s, 1)

    def test_by_what_replicas_tell(self) -> None:
        s = self.serve_policy('policy={"policy_function": by_stats}')
        self.wait_replicas(s, 1)
        self.assertEqual(s.call("/?wishes=3").status, 200)
        self.wait_replicas(s, 3)

    def test_no_such_policy(self) -> None:
        """The application runs; the reason is told."""
        s = self.serve_policy('policy={"policy_function": "nowhere:policy"}')
        wait_until("the error shows", lambda: any("nowhere" in x for x in self.errors(s)))
        self.assertEqual(s.call("/").status, 200)


class Cluster(ServeTest):
    """A head without CPUs and two workers: what is decided and routed crosses nodes."""

    def head(self) -> Server:
        port, dashboard, join = free_port(), free_port(), free_port()
        s = self.spawn("head", "--num-cpus", "0", "--host", "127.0.0.1", "--port", str(port),
                       "--dashboard-port", str(dashboard), "--listen", "127.0.0.1:%d" % join)
        s.port, s.dashboard, s.join = port, dashboard, join
        s.wait_rest()
        return s

    def worker(self, head: Server) -> Server:
        return self.spawn("worker", "--address", "127.0.0.1:%d" % head.join, "--num-cpus", "2",
                          "--host", "127.0.0.1", "--port", "0")

    def deploy(self, head: Server, code: str, deployments: List[Any]) -> None:
        self.write("served.py", code)
        answer = head.rest("PUT", {"applications": [{
            "name": "app", "route_prefix": "/", "import_path": "served:app",
            "rserve": {"app_dir": self.folder}, "deployments": deployments}]})
        self.assertEqual(answer.status, 200, answer.text)
        head.wait_apps()

    def test_load_elsewhere(self) -> None:
        """Requests that wait at the head's ingress start replicas on workers, from zero."""
        head = self.head()
        self.worker(head)
        self.worker(head)
        self.deploy(head, APP, [{"name": "A", "autoscaling_config": {
            "min_replicas": 0, "max_replicas": 4, "target_ongoing_requests": 1,
            "look_back_period_s": 0.5, "upscale_delay_s": 0.1, "downscale_delay_s": 0.2}}])
        self.assertEqual(head.replicas("app", "A"), [])
        many = Many(head, 8, "/?s=2")
        wait_until("four replicas", lambda: len(head.replicas("app", "A")) == 4)
        self.assertEqual(len({r["node_id"] for r in head.replicas("app", "A")}), 2)
        self.assertEqual(many.join(), [200] * 8)
        wait_until("asleep", lambda: not head.replicas("app", "A"))
        self.assertEqual(head.call("/").status, 200)

    def test_the_node_of_a_policy_dies(self) -> None:
        with open(os.path.join(self.folder, "wanted"), "w", encoding="utf-8") as f:
            f.write("2")
        head = self.head()
        workers = [self.worker(head), self.worker(head)]
        self.deploy(head, POLICIES % ("autoscaling_config=" + CONFIG
                                      % 'policy={"policy_function": FromFile}', ""), [])
        wait_until("two replicas", lambda: len(head.replicas("app", "A")) == 2)
        workers[0].send(signal.SIGKILL)
        workers[0].wait_exit()
        with open(os.path.join(self.folder, "wanted"), "w", encoding="utf-8") as f:
            f.write("1")
        wait_until("one replica", lambda: len(head.replicas("app", "A")) == 1, 30)


if __name__ == "__main__":
    assert RSERVE
    main()
