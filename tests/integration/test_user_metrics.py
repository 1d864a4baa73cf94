#!/usr/bin/env python3
"""What user code counts, in the node's /metrics."""

import os
import re
import signal
from typing import Dict

from harness import Server, ServeTest, main, wait_until

CODE = '''
import os
from ray import serve
from ray.serve import metrics
from ray.util import metrics as plain

@serve.deployment(num_replicas=2, max_ongoing_requests=50)
class A:
    def __init__(self):
        self.calls = metrics.Counter("calls", "how many", tag_keys=("kind",))
        self.level = metrics.Gauge("level")
        self.size = metrics.Histogram("size", boundaries=[1, 10], tag_keys=("route",))
        self.plain = plain.Counter("plain_total")

    async def __call__(self, request):
        kind = request.query_params.get("kind", "x")
        if kind == "many":
            for i in range(6000):
                self.calls.inc(tags={"kind": str(i)})
        else:
            self.calls.inc(tags={"kind": kind})
        self.level.set(float("nan") if kind == "nan" else 2.5)
        self.size.observe(5)
        self.plain.inc()
        return os.getpid()

app = A.bind()
'''


class UserMetrics(ServeTest):
    def figures(self, s: Server, name: str) -> Dict[str, float]:
        """{labels as they stand: value} of one name."""
        text = s.rest(path="/metrics").text
        return {m[1]: float(m[2]) for m in re.finditer(r"^%s\{(.*)\} (\S+)$" % name, text, re.M)}

    def call_both(self, s: Server, path: str = "/") -> set:
        pids: set = set()
        wait_until("both replicas answer",
                   lambda: pids.add(s.call(path).json()) or len(pids) == 2)
        return pids

    def test_from_two_replicas(self) -> None:
        s = self.serve_code(CODE)
        pids = self.call_both(s, "/?kind=a%22b")
        calls = wait_until("both replicas' counters are there", lambda: (
            lambda f: f if len(f) == 2 else None)(self.figures(s, "ray_calls_total")))
        ids = {r["replica_id"] for r in s.replicas("app", "A")}
        self.assertEqual(set(calls), {
            'application="app",deployment="A",kind="a\\"b",replica="%s"' % i for i in ids})
        self.assertEqual(set(self.figures(s, "ray_level").values()), {2.5})
        for labels, count in self.figures(s, "ray_size_bucket").items():
            self.assertIn('route="/"', labels)
            self.assertEqual(count > 0, 'le="1.0"' not in labels)
        self.assertEqual(len(self.figures(s, "ray_plain_total")), 2, "two processes, two series")
        # what a replica counted goes with it
        victim = s.replicas("app", "A")[0]
        self.assertIn(victim["pid"], pids)
        os.kill(victim["pid"], signal.SIGKILL)
        wait_until("its series are gone", lambda: not any(
            victim["replica_id"] in f for f in self.figures(s, "ray_calls_total")))
        self.assertEqual(len(self.figures(s, "ray_calls_total")), 1)

    def test_a_tag_with_too_many_values(self) -> None:
        s = self.serve_code(CODE, deployments="- name: A\n  num_replicas: 1\n")
        s.call("/?kind=many")
        found = wait_until("they are there", lambda: self.figures(s, "ray_calls_total"))
        self.assertEqual(len(found), 2000)
        self.assertIn("a tag with too many values?", s.output())
        # it goes on, with figures that JSON does not know
        self.assertEqual(s.call("/?kind=nan").status, 200)
        wait_until("NaN is shown", lambda: "ray_level{" in s.rest(path="/metrics").text
                   and all(v != v for v in self.figures(s, "ray_level").values()))
        self.assertEqual(len(s.replicas("app", "A")), 1)


if __name__ == "__main__":
    main()
