#!/usr/bin/env python3
"""rserve run --simulate: what it predicts comes of it, a log is a trace, errors have their line."""

import json
import os
import random
import threading
import time
from typing import Any, Dict, List, NamedTuple

from harness import Server, ServeTest, call, main, rserve, wait_until
from open_loop import percentile

APP = """\
    import asyncio
    from ray import serve

    @serve.deployment
    class A:
        async def __call__(self, request):
            await asyncio.sleep(float(request.query_params["s"]))
            return "done"

    app = A.bind()
    """

DEPLOYMENT = """\
    - name: A
      max_ongoing_requests: 2
      autoscaling_config:
        min_replicas: 1
        max_replicas: 4
        target_ongoing_requests: 1
        look_back_period_s: 1
        upscale_delay_s: 1
        downscale_delay_s: 60
    """

EXEC = """\
    applications:
    - name: %s
      route_prefix: /
      deployments:
      - name: Echo
        max_ongoing_requests: 1
        max_queued_requests: 2
        rserve: {kind: exec, command: [./echo]}
    """


class Sent(NamedTuple):
    t: float  # seconds
    service_s: float
    latency_s: float


class Real:
    """Requests at their times, whatever becomes of those before; the most replicas meanwhile."""

    def __init__(self, s: Server, arrivals: List[Sent]) -> None:
        self.server, self.replicas, self.failed = s, 0, 0
        self.sent: List[Sent] = []
        self.began = time.monotonic()
        threads = [threading.Thread(target=self.one, args=(a,), daemon=True) for a in arrivals]
        for t in threads:
            t.start()
        while any(t.is_alive() for t in threads):
            self.replicas = max(self.replicas, len(s.replicas("app", "A")))
            time.sleep(0.1)

    def one(self, a: Sent) -> None:
        time.sleep(max(0.0, self.began + a.t - time.monotonic()))
        at = time.monotonic()
        answer = call(self.server.port, "/?s=%g" % a.service_s, timeout=60)
        if answer.status == 200:
            self.sent.append(Sent(at - self.began, a.service_s, time.monotonic() - at))
        else:
            self.failed += 1


def a_step(seed: int) -> List[Sent]:
    """Two requests a second, then seven."""
    draw = random.Random(seed)
    t, arrivals = 0.0, []
    while t < 14:
        t += draw.expovariate(2 if t < 5 else 7)
        arrivals.append(Sent(t, draw.uniform(0.3, 0.6), 0))
    return arrivals


class Predicts(ServeTest):
    def simulate(self, trace: str, config: str, *args: str) -> Dict[str, Any]:
        r = rserve("run", "--simulate", trace, "--json", "--num-cpus", "4", *args, config)
        self.assertEqual((r.returncode, r.stderr), (0, ""), r.stderr)
        return json.loads(r.stdout)

    def differences(self, seed: int) -> List[str]:
        """What the prediction of a load and the load itself do not agree upon."""
        s = self.serve_code(APP, "--num-cpus", "4", deployments=DEPLOYMENT)
        real = Real(s, a_step(seed))
        self.assertEqual(real.failed, 0)
        s.stop()
        rows = [json.dumps({"t": x.t, "app": "app", "service_s": x.service_s}) for x in real.sent]
        trace = self.write("trace.jsonl", "\n".join(rows) + "\n")
        told = self.simulate(trace, os.path.join(self.folder, "app.yaml"))
        predicted, wrong = told["applications"]["app"], []
        self.assertEqual(predicted["ends"]["answered"], len(real.sent))
        for p in (50, 90):
            was = percentile([x.latency_s for x in real.sent], p)
            is_ = predicted["latency_s"]["p%d" % p]
            if abs(is_ - was) > 0.15 * was:
                wrong.append("p%d: predicted %.3f s, was %.3f s" % (p, is_, was))
        most = told["deployments"][0]["replicas"]["max"]
        if abs(most - real.replicas) > 1:
            wrong.append("replicas: predicted %d, were %d" % (most, real.replicas))
        return wrong

    def test_as_in_a_real_run(self) -> None:
        wrong = [self.differences(1)]
        while wrong[-1] and len(wrong) < 3:  # the machine may have had something else to do
            wrong.append(self.differences(1))
        self.assertEqual(wrong[-1], [], wrong)

    def test_a_log_is_a_trace(self) -> None:
        log = os.path.join(self.folder, "access.log")
        self.write_app(APP, "- {name: A, max_ongoing_requests: 4}")
        path = os.path.join(self.folder, "app.yaml")
        with open(path, encoding="utf-8") as f:
            text = f.read()
        options = "http_options: {rserve: {access_log: %s, access_log_format: JSON}}\n" % log
        self.write("app.yaml", options + text)
        s = self.serve(path)
        for _ in range(5):
            self.assertEqual(s.call("/?s=0.05").status, 200)

        def logged() -> bool:
            if not os.path.exists(log):
                return False
            with open(log, encoding="utf-8") as f:
                return len(f.readlines()) == 5
        wait_until("five lines", logged)
        s.stop()
        told = self.simulate(log, path)
        self.assertEqual(told["requests"], 5)
        self.assertEqual(told["applications"]["app"]["ends"]["answered"], 5)
        self.assertGreaterEqual(told["applications"]["app"]["latency_s"]["p50"], 0.05)
        self.assertIn("access log", told["notes"][0])

    def test_who_finds_no_room(self) -> None:
        config = self.write("exec.yaml", EXEC % "e")
        rows = '{"t": 0, "service_s": 1}\n' * 5
        told = self.simulate(self.write("t.jsonl", rows), config)
        self.assertEqual(told["applications"]["e"]["ends"]["answered"], 3)
        self.assertEqual(told["applications"]["e"]["ends"]["queue_full"], 2)
        self.assertEqual(told["applications"]["e"]["latency_s"]["max"], 3)
        table = rserve("run", "--simulate", os.path.join(self.folder, "t.jsonl"), config).stdout
        self.assertIn("max_queued_requests", table)
        self.assertLessEqual(max(len(line) for line in table.splitlines()), 80, table)

    def test_errors(self) -> None:
        config = self.write("exec.yaml", EXEC % "e")
        for row, where, what in (
                ('{"t": "soon", "service_s": 1}', ":2:", '"t": expected a number'),
                ('{"t": 1, "service_s": -1}', ":2:", '"service_s": expected a number'),
                ('{"t": 1}', ":2:", '"service_s": expected seconds'),
                ("nonsense", ":2:", "expected a JSON object"),
                ('{"t": 1, "app": "x", "service_s": 1}', ":2:", "expected an application"),
                ('{"t": 1, "service_s": {"Echo": 1, "B": 1}}', ":2:", "expected a deployment")):
            trace = self.write("bad.jsonl", '{"t": 0, "service_s": 1}\n%s\n' % row)
            r = rserve("run", "--simulate", trace, config)
            self.assertEqual(r.returncode, 2, r.stderr)
            self.assertOneLine(r.stderr, "bad.jsonl" + where, what)


if __name__ == "__main__":
    main()
