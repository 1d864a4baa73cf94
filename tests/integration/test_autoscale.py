#!/usr/bin/env python3
"""Deployments that grow and shrink with their load, sleep at zero, and are scaled from outside."""

import os
import signal
import threading
from typing import Any, Dict, List

from harness import RSERVE, Answer, Load, Server, ServeTest, call, main, rserve, wait_until

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
        many = Many(s, 1, "/?s=30")
        pid = wait_until("a replica works", lambda: s.pids("app", "A")).pop()
        wait_until("it has the request", lambda: in_flight(s) == 1)
        os.kill(pid, signal.SIGKILL)
        self.assertEqual(many.join(), [500])
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


if __name__ == "__main__":
    assert RSERVE
    main()
