"""Load on one target, and what it measures."""

import json
import os
import re
import resource
import statistics
import subprocess
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from processes import activity, family, fetch, pss, say


class Target(NamedTuple):
    key: str
    what: str
    port: int
    path: str
    expect: Callable[[bytes], bool]
    connections: int = 64
    body: Optional[bytes] = None


class Result(NamedTuple):
    rate: float  # per second
    p50: float  # milliseconds
    p99: float


# --- wrk: closed loop ----------------------------------------------------------------------------


def milliseconds(text: str) -> float:
    m = re.match(r"([\d.]+)(us|ms|s|m)$", text)
    if not m:
        raise ValueError("a latency of wrk: %r" % text)
    return float(m[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}[m[2]]


def load(target: Target, seconds: int, folder: str) -> Result:
    command = ["wrk", "-t", "1", "-c", str(target.connections), "-d", "%ds" % seconds, "--latency",
               "--timeout", "10s"]
    if target.body is not None:
        script = os.path.join(folder, target.key + ".lua")
        with open(script, "w") as f:
            f.write('wrk.method = "POST"\nwrk.body = %s\n' % json.dumps(target.body.decode()))
        command += ["-s", script]
    command.append("http://127.0.0.1:%d%s" % (target.port, target.path))
    out = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True,
                         universal_newlines=True, timeout=seconds + 30).stdout
    for bad in ("Non-2xx or 3xx responses", "Socket errors"):
        if bad in out:
            say("%s: %s" % (target.what, re.search(bad + ".*", out)[0]))
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])
    p50 = milliseconds(re.search(r"(?m)^\s+50%\s+(\S+)", out)[1])
    p99 = milliseconds(re.search(r"(?m)^\s+99%\s+(\S+)", out)[1])
    return Result(rate, p50, p99)


def check(target: Target) -> None:
    got = fetch("http://127.0.0.1:%d%s" % (target.port, target.path), target.body)
    if not target.expect(got):
        raise SystemExit("bench: %s answers %r" % (target.what, got[:200]))


def measure(targets: List[Target], seconds: int, rounds: int, folder: str) -> Dict[str, Result]:
    """Medians; the targets take turns, so that a slow minute of the machine meets all of them."""
    for t in targets:
        check(t)
        load(t, 1, folder)  # warm
    seen: Dict[str, List[Result]] = {t.key: [] for t in targets}
    for n in range(rounds):
        for t in targets:
            r = load(t, seconds, folder)
            seen[t.key].append(r)
            say("round %d/%d  %-44s %9.0f/s  p50 %7.3f ms  p99 %7.2f ms"
                % (n + 1, rounds, t.what, r.rate, r.p50, r.p99))
    return {key: Result(*(statistics.median(r[i] for r in results) for i in range(3)))
            for key, results in seen.items()}


# --- load.c --------------------------------------------------------------------------------------


def ask(command: List[str], timeout: float) -> Dict[str, Any]:
    r = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
                       universal_newlines=True, timeout=timeout)
    if r.returncode != 0:
        raise SystemExit("bench: %s: %s" % (" ".join(command), r.stderr.strip()))
    return json.loads(r.stdout)


def tails(program: str, targets: List[Target], rates: Dict[str, float], seconds: int,
          rounds: int) -> Dict[str, float]:
    """p99.9 in ms at these constant rates, latency counted from when a request was due. Medians."""
    seen: Dict[str, List[float]] = {t.key: [] for t in targets}
    for n in range(rounds):
        for t in targets:
            r = ask([program, "open", str(t.port), t.path, "%.1f" % rates[t.key], "256",
                     str(seconds)], seconds + 30)
            if r["errors"]:
                say("%s: %d of %d failed" % (t.what, r["errors"], r["wanted"]))
            seen[t.key].append(r["p999_ms"])
            say("round %d/%d  %-44s %9.0f/s  p99.9 %6.2f ms"
                % (n + 1, rounds, t.what + ", open loop", r["rate"], r["p999_ms"]))
    return {key: statistics.median(ms) for key, ms in seen.items()}


def large_bodies(program: str, target: Target, size: int, rounds: int) -> Dict[str, float]:
    """ms for a body of `size` in and out: through a target, and by copying alone, between two
    processes. Medians."""
    seen: Dict[str, List[float]] = {"large": [], "unix": [], "tcp": []}
    for n in range(rounds):
        seen["large"].append(ask([program, "post", str(target.port), target.path, str(size), "20"],
                                 120)["p50_ms"])
        for how in ("unix", "tcp"):
            seen[how].append(ask([program, "echo", how, str(size), "20"], 120)["p50_ms"])
        say("round %d/%d  %d MB in and out: %.2f ms; copied alone: Unix socket %.2f ms, TCP %.2f ms"
            % (n + 1, rounds, size >> 20, *(seen[k][-1] for k in ("large", "unix", "tcp"))))
    return {key: statistics.median(ms) for key, ms in seen.items()}


# --- idle ----------------------------------------------------------------------------------------


def open_files() -> int:
    """How many connections may be held: 10,000 where that many files may be open, of which HAProxy
    sets two aside for each."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, 24000), max(hard, 24000)))
    except (OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return min(10000, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 1500) // 2)


class Idle(NamedTuple):
    connections: int
    memory: int  # PSS, of the process and all below it
    cpu: float  # of one core
    wakeups: int


def idle(program: str, target: Target, pid: int, connections: int, seconds: float) -> Idle:
    """With so many keep-alive connections that have had a request each and do nothing."""
    holder = subprocess.Popen([program, "hold", str(target.port), target.path, str(connections)],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        if not holder.stdout or not holder.stdin or not holder.stdout.readline():
            raise SystemExit("bench: %s does not hold %d connections" % (target.what, connections))
        time.sleep(8)  # what the last requests left to do: memory, reports to the head
        before = activity(pid)
        time.sleep(seconds)
        after = activity(pid)
        memory = sum(pss(p) for p in family(pid))
    finally:
        holder.kill()
        holder.wait()
    r = Idle(connections, memory, (after.cpu_s - before.cpu_s) / seconds,
             after.wakeups - before.wakeups)
    say("%s: %d idle connections: %.1f MB, %.2f %% of a core, %d wake-ups in %g s"
        % (target.what, r.connections, r.memory / 1e6, r.cpu * 100, r.wakeups, seconds))
    return r
