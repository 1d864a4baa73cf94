#!/usr/bin/env python3
"""Replicas that go and come under load, and by the clock: schedules, and what a head remembers."""

import os
import signal
import socket
import threading
import time
from typing import Any, Dict, List

from harness import Load, Server, ServeTest, call, free_port, main, rserve, wait_until

APP = """\
    import asyncio, os
    from ray import serve

    @serve.deployment(max_ongoing_requests=4, graceful_shutdown_wait_loop_s=0.05)
    class A:
        async def __call__(self, request):
            await asyncio.sleep(float(request.query_params.get("s", 0)))
            while "until" in request.query_params and not os.path.exists("go"):
                await asyncio.sleep(0.02)
            return {"pid": os.getpid()}

    app = A.bind()
    """

FAST = """\
    - name: A
      autoscaling_config: {%s, target_ongoing_requests: 2, look_back_period_s: 0.3,
        metrics_interval_s: 0.1, upscale_delay_s: 0, downscale_delay_s: 0.3}
      rserve: {autoscaling: {%s}}
    """


def running(s: Server) -> int:
    return len(s.replicas("app", "A"))


def target(s: Server) -> int:
    return int(s.app("app")["deployments"]["A"]["target_num_replicas"])


def why(s: Server) -> str:
    details = s.rest(path="/api/serve/applications/?extended=1").json()
    return str(details["applications"]["app"]["deployments"]["A"]["rserve"]["autoscaling"])


class Long:
    """A request that takes its time."""

    def __init__(self, s: Server, query: str) -> None:
        self.answer: List[Any] = []
        self.thread = threading.Thread(target=self.work, args=(s.port, query), daemon=True)
        self.thread.start()

    def work(self, port: int, query: str) -> None:
        self.answer.append(call(port, f"/?{query}", timeout=60))

    def done(self) -> Any:
        self.thread.join(60)
        return self.answer[0]


class Down(ServeTest):
    def busy_pids(self, s: Server) -> Dict[int, int]:
        details = s.rest(path="/api/serve/applications/?extended=1").json()
        replicas = details["applications"]["app"]["deployments"]["A"]["replicas"]
        return {r["pid"]: r["rserve"]["in_flight"] for r in replicas if r["state"] == "RUNNING"}

    def test_those_that_are_idle_go(self) -> None:
        path = self.write_app(APP, FAST % ("min_replicas: 4, max_replicas: 4", ""))
        s = self.serve(path, "--num-cpus", "8")
        busy = Long(s, "until=go")
        wait_until("it is at work", lambda: 1 in self.busy_pids(s).values())
        self.write_app(APP, FAST % ("min_replicas: 1, max_replicas: 4", ""))
        address = "http://127.0.0.1:%d" % s.dashboard
        self.assertEqual(rserve("deploy", path, "--address", address).returncode, 0)
        wait_until("one is left", lambda: running(s) == 1)
        self.write("go", "")
        answer = busy.done()
        self.assertEqual(answer.status, 200)
        self.assertEqual(s.pids("app", "A"), {answer.json()["pid"]})

    def test_nothing_is_lost(self) -> None:
        """Up and down all the time, and some of them are killed on the way."""
        s = self.serve_code(APP, "--num-cpus", "8", deployments=FAST % (
            "min_replicas: 1, max_replicas: 6", ""))
        load = Load(s.port, "/?s=0.01", threads=2)
        for turn in range(3):
            many = [Long(s, "s=0.4") for _ in range(12)]
            wait_until("it grows", lambda: running(s) >= 4)
            if turn == 1:
                os.kill(sorted(s.pids("app", "A"))[0], signal.SIGKILL)
            self.assertEqual({m.done().status for m in many}, {200})
            wait_until("it shrinks", lambda: running(s) <= 2)
        self.assertEqual(set(load.stop()), {200})


class ByTheClock(ServeTest):
    def test_schedule(self) -> None:
        path = self.write_app(APP, FAST % ("min_replicas: 1, max_replicas: 4",
                                           "schedule: [{cron: '@daily', min_replicas: 3}]"))
        s = self.serve(path, "--num-cpus", "8", env={"TZ": "Asia/Tokyo"})
        wait_until("as many as since midnight", lambda: running(s) == 3)
        address = "http://127.0.0.1:%d" % s.dashboard
        self.assertIn("at least 3: schedule[0] (@daily, UTC) asks for 3", why(s))
        # it is gone from the configuration: they go by the load
        self.write_app(APP, FAST % ("min_replicas: 1, max_replicas: 4", ""))
        self.assertEqual(rserve("deploy", path, "--address", address).returncode, 0)
        wait_until("one is enough", lambda: running(s) == 1)
        self.assertEqual(call(s.port, "/").status, 200)

    def test_a_zone_that_is_not_there(self) -> None:
        path = self.write_app(APP, FAST % (
            "max_replicas: 4",
            "schedule: [{cron: '@daily', timezone: Atlantis/Main, min_replicas: 3}]"))
        r = rserve("run", path, "--check", "--no-import")
        self.assertEqual(r.returncode, 2)
        self.assertOneLine(r.stderr, "app.yaml:9:", "schedule[0].timezone", "Atlantis/Main",
                           "or use UTC")

    def test_files_that_are_no_zones(self) -> None:
        zones = os.path.join(self.folder, "zones")
        os.makedirs(zones)
        for name, data in (("Empty", b""), ("Cut", b"TZif2" + bytes(15) + b"\xff" * 10),
                           ("Huge", bytes(300 << 10)), ("Text", b"Europe/Berlin\n" * 10)):
            with open(os.path.join(zones, name), "wb") as f:
                f.write(data)
            path = self.write_app(APP, FAST % (
                "max_replicas: 4",
                f"schedule: [{{cron: '@daily', timezone: {name}, min_replicas: 3}}]"))
            r = rserve("run", path, "--check", "--no-import", env=dict(os.environ, TZDIR=zones))
            self.assertEqual(r.returncode, 2, r.stderr)
            self.assertOneLine(r.stderr, "schedule[0].timezone", os.path.join("zones", name))


class Remembers(ServeTest):
    """Ten seconds are a day here."""

    def head(self) -> Server:
        s = self.spawn("head", "--num-cpus", "8", "--host", "127.0.0.1", "--port",
                       str(self.port), "--dashboard-port", str(self.dashboard), "--listen",
                       "127.0.0.1:%d" % self.join, "--state-dir", self.state)
        s.port, s.dashboard = self.port, self.dashboard
        s.wait_rest()
        return s

    def expects(self, s: Server) -> bool:
        return "are expected, as in the last" in why(s)

    def test_what_was_there_a_period_ago(self) -> None:
        self.port, self.dashboard, self.join = free_port(), free_port(), free_port()
        self.state = os.path.join(self.folder, "kept")
        path = self.write_app(APP, FAST % ("min_replicas: 0, max_replicas: 6",
                                           "predict: {period: 10, ahead: 5, periods: 9}"))
        s = self.head()
        address = "http://127.0.0.1:%d" % self.dashboard
        self.assertEqual(rserve("deploy", path, "--address", address).returncode, 0)
        wait_until("it answers", lambda: call(s.port, "/").status == 200)
        load = Load(s.port, "/?s=0.3", threads=8)
        time.sleep(12)  # a whole period of it, whenever that began
        self.assertEqual(set(load.stop()), {200})
        wait_until("the next period expects it", lambda: self.expects(s), 30)
        time.sleep(1)  # it is over, and its replicas stay
        self.assertGreaterEqual(running(s), 1)
        os.kill(s.pid, signal.SIGKILL)
        s.wait_exit()
        again = self.head()
        again.wait_apps()
        wait_until("the next head expects it, too", lambda: self.expects(again), 30)


class ByQueue(ServeTest):
    """A policy that asks a broker; the broker is a few lines of Redis's protocol."""

    def setUp(self) -> None:
        super().setUp()
        self.length = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listener.close)
        threading.Thread(target=self.work, daemon=True).start()

    def work(self) -> None:
        while True:
            try:
                line = self.listener.accept()[0]
            except OSError:
                return
            with line:
                line.recv(4096)
                answer = b":%d\r\n:0\r\n:0\r\n:0\r\n" % self.length
                line.sendall(answer if self.length >= 0 else b"nonsense\r\n")

    def test_tasks_that_wait(self) -> None:
        port = self.listener.getsockname()[1]
        s = self.serve_code(APP, "--num-cpus", "8", deployments=FAST % (
            "min_replicas: 0, max_replicas: 4, policy: {policy_function: "
            "'ray.serve.async_inference_autoscaling_policy:AsyncInferenceAutoscalingPolicy', "
            f"policy_kwargs: {{broker_url: 'redis://127.0.0.1:{port}', queue_name: tasks, "
            "poll_interval_s: 0.1}}", ""))
        self.assertEqual(running(s), 0)
        self.length = 6
        wait_until("three replicas", lambda: running(s) == 3)
        self.length = -1  # it cannot be asked: its last answer counts
        self.assertEqual(call(s.port, "/?s=1").status, 200)
        self.assertIn(running(s), (3, 4))  # the request counts, too
        self.length = 0
        wait_until("none", lambda: running(s) == 0)
        self.assertEqual(call(s.port, "/").status, 200)  # a request wakes it all the same


if __name__ == "__main__":
    main()
