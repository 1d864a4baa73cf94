#!/usr/bin/env python3
"""How many requests are lost, and how long they take, while replicas are killed all the time.

    kill.py --rserve build/rserve                        # 100,000 requests, about 12 minutes
    kill.py --rserve build/rserve --requests 5000 --every 0.5

Starts rserve with 4 replicas that work 20 ms on a request, sends requests at fixed times (waiting
counts), first undisturbed, then with kill -9 of a replica every 200 ms. Standard library only.
Exit status 1 if a request was lost, or p99 is more than 10 times the undisturbed one.
"""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from typing import Any, Dict, List

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "integration"))

from open_loop import OpenLoop, Outcome, summary  # noqa: E402

APP = """\
import asyncio, os
from ray import serve

@serve.deployment(num_replicas=%d, max_ongoing_requests=%d)
class Worker:
    async def __call__(self, request):
        await asyncio.sleep(%g)
        return "%%s %%d" %% (request.query_params["n"], os.getpid())

app = Worker.bind()
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def pids(port: int) -> List[int]:
    url = "http://127.0.0.1:%d/api/serve/applications/" % port
    with urllib.request.urlopen(url, timeout=10) as r:
        details: Dict[str, Any] = json.load(r)
    return [replica["pid"] for app in details["applications"].values()
            for deployment in app["deployments"].values()
            for replica in deployment["replicas"] if replica["state"] == "RUNNING"]


def kill_all_the_time(load: OpenLoop, dashboard: int, every: float, dice: random.Random) -> int:
    killed, due = 0, time.monotonic() + every
    while not load.done:
        time.sleep(max(0.0, due - time.monotonic()))
        due += every
        there = pids(dashboard)
        if not there:
            continue
        try:
            os.kill(dice.choice(there), signal.SIGKILL)
            killed += 1
        except ProcessLookupError:
            pass
    return killed


def check(outcomes: List[Outcome], n: int) -> None:
    """Each has its own answer, once."""
    assert sorted(o.number for o in outcomes) == list(range(n))
    for o in outcomes:
        if o.status == 200:
            assert o.text.split()[0] == str(o.number), o


def show(what: str, outcomes: List[Outcome]) -> Dict[str, float]:
    s = summary(outcomes)
    print("%-22s %8d requests %5d lost   p50 %7.1f ms   p99 %7.1f ms   p99.9 %7.1f ms   "
          "max %7.1f ms" % (what, s["requests"], s["lost"], s["p50"], s["p99"], s["p99.9"],
                            s["max"]), flush=True)
    return s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rserve", default=os.environ.get("RSERVE", "build/rserve"))
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=150, help="requests per second")
    parser.add_argument("--every", type=float, default=0.2, help="seconds between kills")
    parser.add_argument("--work", type=float, default=0.02, help="seconds of work per request")
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--max-ongoing", type=int, default=5)
    parser.add_argument("--method", default="GET")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    port, dashboard = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="rserve-kill-") as folder:
        with open(os.path.join(folder, "served.py"), "w", encoding="utf-8") as f:
            f.write(APP % (args.replicas, args.max_ongoing, args.work))
        with open(os.path.join(folder, "log"), "wb") as log:
            node = subprocess.Popen(
                [os.path.abspath(args.rserve), "run", "served:app", "--port", str(port),
                 "--dashboard-port", str(dashboard), "--num-cpus", str(args.replicas),
                 "--state-dir", os.path.join(folder, "state")],
                cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            return measure(args, port, dashboard)
        finally:
            node.terminate()
            node.wait()
            if os.environ.get("KILL_LOG"):
                os.rename(os.path.join(folder, "log"), os.environ["KILL_LOG"])


def measure(args: argparse.Namespace, port: int, dashboard: int) -> int:
    for _ in range(600):
        try:
            if len(pids(dashboard)) == args.replicas:
                break
        except OSError:
            pass
        time.sleep(0.1)
    quiet = max(500, min(args.requests // 10, 10_000))
    outcomes = OpenLoop(port, args.rate, method=args.method, most=quiet).join()
    check(outcomes, quiet)
    before = show("undisturbed", outcomes)
    load = OpenLoop(port, args.rate, method=args.method, most=args.requests)
    killed = kill_all_the_time(load, dashboard, args.every, random.Random(args.seed))
    outcomes = load.join()
    check(outcomes, args.requests)
    after = show("%d kills" % killed, outcomes)
    for o in [o for o in outcomes if o.status != 200][:5]:
        print("lost: %s" % (o,))
    ratio = after["p99"] / before["p99"]
    print("p99 is %.1f times the undisturbed one" % ratio)
    return 1 if after["lost"] or ratio > 10 else 0


if __name__ == "__main__":
    sys.exit(main())
