#!/usr/bin/env python3
"""How fast a deployment grows when its load triples: from the step to 12 replicas that take
requests, and what requests feel of it, as a ratio to the time before.

    scale.py --rserve build/rserve [--rounds 5] [--look-back 0.5] [--how mean] [--python PYTHON]

The load is open: requests come at their times, whatever became of the earlier ones. 80 a second of
0.1 s each keep 4 replicas at their target of 2; then 240 a second ask for 12. Standard library
only.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from typing import Any, Dict, List, Tuple

from processes import free_port

APP = """\
import asyncio
from ray import serve

@serve.deployment(max_ongoing_requests=5)
class A:
    async def __call__(self, request):
        await asyncio.sleep(0.1)
        return "ok"

app = A.bind()
"""

CONFIG = """\
applications:
- name: app
  route_prefix: /
  import_path: scaled:app
  deployments:
  - name: A
    ray_actor_options: {num_cpus: 0}
    autoscaling_config: {min_replicas: 4, max_replicas: 12, target_ongoing_requests: 2,
      look_back_period_s: %g, metrics_interval_s: 0.1, aggregation_function: %s,
      upscale_delay_s: 0, downscale_delay_s: 600}
"""


class Rserve:
    def __init__(self, args: argparse.Namespace, folder: str) -> None:
        with open(os.path.join(folder, "scaled.py"), "w", encoding="utf-8") as f:
            f.write(APP)
        with open(os.path.join(folder, "app.yaml"), "w", encoding="utf-8") as f:
            f.write(CONFIG % (args.look_back, args.how))
        self.log = open(os.path.join(folder, "log"), "wb")
        self.port, self.dashboard = free_port(), free_port()
        more = ["--python", args.python] if args.python else []
        self.process = subprocess.Popen(
            [args.rserve, "run", "app.yaml", "--port", str(self.port), "--dashboard-port",
             str(self.dashboard), "--state-dir", os.path.join(folder, "state"), *more],
            cwd=folder, stdout=self.log, stderr=self.log)
        until = time.monotonic() + 60
        while self.running() < 4:
            if time.monotonic() > until or self.process.poll() is not None:
                with open(os.path.join(folder, "log"), encoding="utf-8") as f:
                    raise SystemExit("rserve does not get ready:\n" + f.read()[-2000:])
            time.sleep(0.05)

    def deployment(self) -> Dict[str, Any]:
        url = f"http://127.0.0.1:{self.dashboard}/api/serve/applications/"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                apps = json.load(answer)["applications"]
            return apps["app"]["deployments"]["A"]  # type: ignore[no-any-return]
        except (OSError, KeyError):
            return {}

    def running(self) -> int:
        return sum(r["state"] == "RUNNING" for r in self.deployment().get("replicas", []))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.log.close()


class Clients:
    """Connections that are kept; a request takes one that is free, or a new one."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.free: List[Tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.latencies: List[Tuple[float, float]] = []  # (when it came, how long it took)
        self.failed = 0
        self.tasks: List["asyncio.Task[None]"] = []

    async def one(self, came: float) -> None:
        try:
            line = self.free.pop() if self.free else await asyncio.open_connection(
                "127.0.0.1", self.port)
            line[1].write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            head = await line[0].readuntil(b"\r\n\r\n")
            size = [h for h in head.lower().split(b"\r\n") if h.startswith(b"content-length:")]
            await line[0].readexactly(int(size[0].split(b":")[1]))
            self.failed += not head.startswith(b"HTTP/1.1 200")
            self.free.append(line)
        except (OSError, EOFError, IndexError):
            self.failed += 1
        self.latencies.append((came, time.monotonic() - came))

    async def load(self, rate: float, seconds: float) -> None:
        start = time.monotonic()
        for i in range(int(rate * seconds)):
            due = start + i / rate
            pause = due - time.monotonic()
            if pause > 0:
                await asyncio.sleep(pause)
            self.tasks.append(asyncio.create_task(self.one(due)))

    async def end(self) -> None:
        await asyncio.gather(*self.tasks)
        for _, writer in self.free:
            writer.close()

    def p99(self, since: float, until: float) -> float:
        took = sorted(t for came, t in self.latencies if since <= came < until)
        return took[int(len(took) * 0.99)]


async def watch(server: Rserve, start: float) -> float:
    """Seconds from `start` until 12 replicas run; asked in a thread, so that the load goes on."""
    loop = asyncio.get_running_loop()
    while time.monotonic() < start + 60:
        if await loop.run_in_executor(None, server.running) >= 12:
            return time.monotonic() - start
        await asyncio.sleep(0.01)
    return 60.0


async def one_round(args: argparse.Namespace, folder: str) -> Tuple[float, float, int]:
    server = Rserve(args, folder)
    try:
        clients = Clients(server.port)
        await clients.load(80, 1)  # connections are made, code is warm
        before = time.monotonic()
        await clients.load(80, 4)
        step = time.monotonic()
        watcher = asyncio.create_task(watch(server, step))
        await clients.load(240, 4)
        took = await watcher
        await clients.end()
        return took, clients.p99(step, step + 4) / clients.p99(before, step), clients.failed
    finally:
        server.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rserve", default="build/rserve")
    parser.add_argument("--python")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--look-back", type=float, default=0.5)
    parser.add_argument("--how", default="mean", choices=("mean", "max", "min"))
    args = parser.parse_args()
    args.rserve = os.path.abspath(args.rserve)
    rounds = []
    for i in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            rounds.append(asyncio.run(one_round(args, folder)))
        print("%d: 12 replicas after %.3f s, p99 %.2f times that of before, %d failed" % (
            i + 1, *rounds[-1]), flush=True)
    print(f"median: {statistics.median(r[0] for r in rounds):.3f} s, "
          f"p99 x {statistics.median(r[1] for r in rounds):.2f}, "
          f"{sum(r[2] for r in rounds)} failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
