#!/usr/bin/env python3
"""Overload: what comes out when 1, 2, 5, 10 and 20 times as much goes in as the replicas can do.

    python3 tests/bench/overload.py [--rserve build/rserve] [--slow build-test/tests/slow-stage]

Replicas sleep, so the result tells of the queue and not of the machine. Goodput is what was
answered in time; "urgent" is every 40th request (x-request-priority: 9). The cases: nothing is set,
so the queue grows without limit; max_queued_requests; a time limit of 1 s; shedding at 0.5 s;
shedding with a time limit. Exits 1 if one of the cases with a bound falls below 90 % of what the
replicas can do, or lets the urgent wait more than 2.5 times as long as requests take without load.
The last rows ask more of this client than a busy machine may have.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from typing import Any, Dict, List, Tuple

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))

LOADS = (1, 2, 5, 10, 20)
SERVICE_MS, REPLICAS, SLOTS = 40, 4, 2

#: name: deployment's options, deployment's `rserve`, application's `rserve`; is it bounded?
CASES: Dict[str, Tuple[Dict[str, Any], Dict[str, Any], Dict[str, Any], bool]] = {
    "nothing set": ({}, {}, {}, False),
    "max_queued_requests 40": ({"max_queued_requests": 40}, {}, {}, True),
    "time limit 1 s": ({}, {}, {"request_timeout_s": 1}, True),
    "shed at 0.5 s": ({}, {"shed": {"target_delay_s": 0.5, "interval_s": 0.2}}, {}, True),
    "shed, time limit": ({}, {"shed": {"target_delay_s": 0.5, "interval_s": 0.2}},
                         {"request_timeout_s": 1}, True),
}


def config() -> Dict[str, Any]:
    apps = []
    for i, (options, rserve, policy, _) in enumerate(CASES.values()):
        deployment = {
            "name": "Slow", "num_replicas": REPLICAS, "max_ongoing_requests": SLOTS,
            "ray_actor_options": {"num_cpus": 0.01},
            "rserve": {"kind": "exec", "command": ["./slow", str(SERVICE_MS)], **rserve}, **options}
        apps.append({"name": "case%d" % i, "route_prefix": "/case%d" % i,
                     "rserve": {"max_priority": 9, **policy}, "deployments": [deployment]})
    return {"applications": apps}


def percent(n: float, of: float) -> str:
    return "%.0f %%" % (100 * n / of)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rserve", default=os.path.join(ROOT, "build", "rserve"))
    parser.add_argument("--slow", default=os.path.join(ROOT, "build-test", "tests", "slow-stage"))
    parser.add_argument("--seconds", type=float, default=5, help="of each load")
    args = parser.parse_args()
    os.environ["RSERVE"], os.environ["RSERVE_SOURCE"] = os.path.abspath(args.rserve), ROOT
    os.environ["RSERVE_TEST_SLOW"] = "10"  # a run takes minutes
    from harness import Server, free_port  # they read the environment
    from offered_load import Reply, get, offer, quantile, rate_of, saturate

    def mixed(path: str) -> Any:
        return lambda i: (get("urgent", path, x_request_priority="9") if i % 40 == 0 else
                          get("plain", path))

    failed = False
    with tempfile.TemporaryDirectory(prefix="rserve-bench-") as folder:
        shutil.copy(args.slow, os.path.join(folder, "slow"))
        with open(os.path.join(folder, "app.yaml"), "w", encoding="utf-8") as f:
            json.dump(config(), f)
        port, dashboard = free_port(), free_port()
        s = Server(folder, ["run", os.path.join(folder, "app.yaml"), "--num-cpus", "1", "--host",
                            "127.0.0.1", "--port", str(port), "--dashboard-port", str(dashboard)])
        s.port, s.dashboard = port, dashboard
        try:
            s.wait_apps()
            ideal = REPLICAS * SLOTS * 1000 / SERVICE_MS
            capacity = rate_of(saturate(port, 4 * REPLICAS * SLOTS, args.seconds,
                                        lambda i: get("plain", "/case0")))
            idle = quantile(saturate(port, 1, 2, lambda i: get("plain", "/case0")), 0.99, "plain")
            print("%d slots of %d ms: %.0f/s; measured %.0f/s; p99 without load %.0f ms" % (
                REPLICAS * SLOTS, SERVICE_MS, ideal, capacity, idle * 1000))
            print("| case | load | goodput | p50 | p99 | urgent p50 | urgent p99 | 503 | 408 |")
            print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
            for i, (name, case) in enumerate(CASES.items()):
                for load in LOADS:
                    if not case[3] and load > 2:
                        continue  # it would only be longer
                    replies: List[Reply] = offer(port, load * capacity, args.seconds,
                                                 mixed("/case%d" % i))
                    goodput = rate_of(replies)
                    urgent = quantile(replies, 0.99, "urgent")
                    print("| %s | %gx | %s | %s |" % (
                        name, load, percent(goodput, capacity), " | ".join(
                            ["%.0f ms" % (1000 * quantile(replies, q, kind))
                             for kind in ("plain", "urgent") for q in (0.5, 0.99)] +
                            [percent(len([r for r in replies if r.status == code]), len(replies))
                             for code in (503, 408)])), flush=True)
                    if case[3] and load > 1 and (goodput < 0.9 * capacity or urgent > 2.5 * idle):
                        failed = True
        finally:
            s.dispose()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
