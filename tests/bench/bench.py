#!/usr/bin/env python3
"""rserve beside uvicorn, nginx and HAProxy, all in one run with the same load; see NOTES.md.

    make bench                     # short: SECONDS=3 ROUNDS=3
    make bench SECONDS=10 ROUNDS=5
    bench.py --rserve build/rserve --c-echo build-test/tests/c-stage [--update-readme] [--strict]

Standard library only. Needs wrk; what else is missing is left out, which the table says.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
QUESTION = "/rag?question=why+do+cats+purr"
BODY = bytes(range(32, 112)) * 128  # 10 KB

# Ray Serve 2.60 with every fast flag on, and what stands beside it, on a machine with 2 cores.
RAY = {"noop": 4571.0, "echo": 818.0, "rag": 233.0, "stream": 136.0, "start": 28.0,
       "memory": 1.96e9}
BAR = {"noop": 3.0, "echo": 3.0, "rag": 3.0, "stream": 3.0}  # times Ray's figure
START_BAR, MEMORY_BAR = 1.5, 200e6


class Target(NamedTuple):
    key: str
    what: str
    path: str
    connections: int
    body: Optional[bytes]
    expect: Callable[[bytes], bool]
    port: int


class Result(NamedTuple):
    rate: float  # per second
    p50: float  # milliseconds
    p99: float


def say(text: str) -> None:
    print("bench: " + text, file=sys.stderr, flush=True)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def fetch(url: str, body: Optional[bytes] = None, timeout: float = 10) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=timeout) as r:
        return r.read()


class Processes:
    """What was started, with its logs; all of it is ended at the end."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.running: List[Tuple[str, subprocess.Popen]] = []

    def start(self, name: str, command: List[str], cwd: Optional[str] = None,
              env: Optional[Dict[str, str]] = None) -> subprocess.Popen:
        with open(os.path.join(self.folder, name + ".log"), "ab") as log:
            p = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                 cwd=cwd or self.folder, env=dict(os.environ, **(env or {})),
                                 start_new_session=True)
        self.running.append((name, p))
        return p

    def wait(self, name: str, url: str, process: subprocess.Popen, timeout: float = 30) -> None:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fetch(url, timeout=2)
                return
            except urllib.error.HTTPError:
                return
            except OSError:
                pass
            if process.poll() is not None or time.monotonic() > deadline:
                with open(os.path.join(self.folder, name + ".log"), errors="replace") as f:
                    raise SystemExit("bench: %s does not answer:\n%s" % (name, f.read()[-2000:]))
            time.sleep(0.01)

    def end(self, name: str) -> None:
        for entry in [e for e in self.running if e[0] == name]:
            self.running.remove(entry)
            p = entry[1]
            p.send_signal(signal.SIGTERM)
            try:
                p.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(p.pid, signal.SIGKILL)
                p.wait()

    def end_all(self) -> None:
        for name in {n for n, _ in self.running}:
            self.end(name)


# --- memory ------------------------------------------------------------------------------------


def family(pid: int) -> List[int]:
    parents: Dict[int, List[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name) as f:
                    text = f.read()
                parent = int(text[text.rindex(")") + 2:].split()[1])
                parents.setdefault(parent, []).append(int(name))
            except OSError:
                pass
    found, todo = [], [pid]
    while todo:
        p = todo.pop()
        found.append(p)
        todo += parents.get(p, [])
    return found


def pss(pid: int) -> int:
    """Bytes, each shared page divided among those who share it."""
    try:
        with open("/proc/%d/smaps_rollup" % pid) as f:
            for line in f:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


# --- systems -----------------------------------------------------------------------------------


class Rserve:
    def __init__(self, args: argparse.Namespace, procs: Processes, name: str, config: str) -> None:
        self.procs, self.name = procs, name
        self.port, self.dashboard = free_port(), free_port()
        self.began = time.monotonic()
        self.process = procs.start(name, [
            args.rserve, "run", config, "--host", "127.0.0.1", "--port", str(self.port),
            "--dashboard-port", str(self.dashboard)],
            env={"XDG_STATE_HOME": os.path.join(procs.folder, "state-" + name)})
        self.ready_s = self.wait_running()

    def applications(self) -> Dict[str, Any]:
        url = "http://127.0.0.1:%d/api/serve/applications/" % self.dashboard
        return json.loads(fetch(url, timeout=5))["applications"]

    def wait_running(self) -> float:
        """Seconds from the start of the process until every application runs."""
        while True:
            try:
                apps = self.applications()
                if apps and all(a["status"] == "RUNNING" for a in apps.values()):
                    return time.monotonic() - self.began
                failed = [a for a in apps.values() if a["status"] == "DEPLOY_FAILED"]
                if failed:
                    raise SystemExit("bench: %s: %s" % (failed[0]["name"], failed[0]["message"]))
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() - self.began > 60:
                path = os.path.join(self.procs.folder, self.name + ".log")
                with open(path, errors="replace") as f:
                    raise SystemExit("bench: rserve does not get ready:\n" + f.read()[-2000:])
            time.sleep(0.005)

    def memory(self) -> Tuple[int, List[int]]:
        """PSS of everything, and of each replica."""
        replicas = [r["pid"] for a in self.applications().values()
                    for d in a["deployments"].values() for r in d["replicas"]]
        return sum(pss(p) for p in family(self.process.pid)), [pss(p) for p in replicas]


NGINX = """\
worker_processes %(workers)d;
daemon off;
pid %(folder)s/%(name)s.pid;
error_log %(folder)s/%(name)s.error.log;
worker_rlimit_nofile 4096;
events { worker_connections 2048; }
http {
    access_log off;
    client_body_temp_path %(folder)s/%(name)s-body;
    proxy_temp_path %(folder)s/%(name)s-proxy;
    fastcgi_temp_path %(folder)s/%(name)s-fcgi;
    uwsgi_temp_path %(folder)s/%(name)s-uwsgi;
    scgi_temp_path %(folder)s/%(name)s-scgi;
    keepalive_requests 1000000000;
    %(extra)s
    server { listen 127.0.0.1:%(port)d; location / { %(location)s } }
}
"""

HAPROXY = """\
global
    maxconn 4096
    nbthread %(threads)d
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    http-reuse always
frontend f
    bind 127.0.0.1:%(port)d
    default_backend b
backend b
    server s 127.0.0.1:%(backend)d
"""


def nginx(procs: Processes, name: str, workers: int, location: str, extra: str = "") -> int:
    port = free_port()
    path = os.path.join(procs.folder, name + ".conf")
    with open(path, "w") as f:
        f.write(NGINX % {"workers": workers, "folder": procs.folder, "name": name, "port": port,
                         "location": location, "extra": extra})
    p = procs.start(name, ["nginx", "-e", os.path.join(procs.folder, name + ".log"), "-c", path,
                           "-p", procs.folder])
    procs.wait(name, "http://127.0.0.1:%d/" % port, p)
    return port


def nginx_proxy(procs: Processes, name: str, backend: int) -> int:
    upstream = ("upstream u { server 127.0.0.1:%d; keepalive 128; "
                "keepalive_requests 1000000000; }" % backend)
    return nginx(procs, name, os.cpu_count() or 1, "proxy_pass http://u; proxy_http_version 1.1; "
                 'proxy_set_header Connection "";', upstream)


def haproxy(procs: Processes, backend: int) -> int:
    port = free_port()
    path = os.path.join(procs.folder, "haproxy.cfg")
    with open(path, "w") as f:
        f.write(HAPROXY % {"threads": os.cpu_count() or 1, "port": port, "backend": backend})
    p = procs.start("haproxy", ["haproxy", "-f", path, "-db"])
    procs.wait("haproxy", "http://127.0.0.1:%d/" % port, p)
    return port


def uvicorn(args: argparse.Namespace, procs: Processes) -> Optional[int]:
    probe = subprocess.run([args.python, "-c", "import fastapi, httptools, uvicorn, uvloop"],
                           stderr=subprocess.DEVNULL, check=False)
    if probe.returncode != 0:
        say("uvicorn is left out: %s has no uvicorn, uvloop, httptools, fastapi" % args.python)
        return None
    port = free_port()
    p = procs.start("uvicorn", [
        args.python, "-m", "uvicorn", "asgi:app", "--host", "127.0.0.1", "--port", str(port),
        "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"],
        cwd=os.path.join(HERE, "apps"), env={"PYTHONDONTWRITEBYTECODE": "1"})
    procs.wait("uvicorn", "http://127.0.0.1:%d/noop" % port, p)
    return port


# --- load --------------------------------------------------------------------------------------


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
            say("round %d/%d  %-40s %9.0f/s  p50 %7.2f ms  p99 %7.2f ms"
                % (n + 1, rounds, t.what, r.rate, r.p50, r.p99))
    return {key: Result(*(statistics.median(r[i] for r in results) for i in range(3)))
            for key, results in seen.items()}


# --- the table ---------------------------------------------------------------------------------


def number(x: float) -> str:
    return "{:,.0f}".format(x)


def row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def report(found: Dict[str, Result], figures: Dict[str, float], about: str) -> Tuple[str, bool]:
    met = True
    lines = [row("", "rserve", "Ray Serve 2.60", "ratio", "first bar"),
             row("---", "---:", "---:", "---:", "---")]
    for key, what in (("noop", "no-op Python replica, requests/s"),
                      ("echo", "two hops of 10 KB, requests/s"),
                      ("rag", "rag, 4 deployments, requests/s"),
                      ("stream", "two hops, stream of 50 chunks, streams/s")):
        ratio = found[key].rate / RAY[key]
        ok = ratio >= BAR[key]
        met = met and ok
        lines.append(row(what, number(found[key].rate), number(RAY[key]), "%.1f×" % ratio,
                         "≥ %g×: %s" % (BAR[key], "met" if ok else "**missed**")))
    for key, what, bar, form in (
            ("start", "four applications: from nothing to running", START_BAR,
             lambda x: "%.2f s" % x),
            ("memory", "the same: memory (PSS) of all processes", MEMORY_BAR,
             lambda x: "%s MB" % number(x / 1e6))):
        ok = figures[key] < bar
        met = met and ok
        lines.append(row(what, form(figures[key]), form(RAY[key]),
                         "%.0f× less" % (RAY[key] / figures[key]),
                         "< %s: %s" % (form(bar), "met" if ok else "**missed**")))
    lines += ["", row("side by side, measured in this run", "requests/s", "p50", "p99",
                      "rserve against it"), row("---", "---:", "---:", "---:", "---:")]

    def other(key: str, what: str, ours: Optional[str] = None) -> None:
        if key not in found:
            lines.append(row(what, "not run", "", "", ""))
            return
        r = found[key]
        ratio = ""
        if ours and ours in found:
            times = found[ours].rate / r.rate
            ratio = "%.2f×%s" % (times, "" if times >= 1 else " (slower)")
        lines.append(row(what, number(r.rate), "%.2f ms" % r.p50, "%.2f ms" % r.p99, ratio))
    other("c", "rserve → C echo replica")
    other("nginx", "nginx → HTTP backend in C", "c")
    other("haproxy", "HAProxy → HTTP backend in C", "c")
    other("noop", "rserve → no-op Python replica")
    other("uvicorn", "uvicorn + FastAPI, no-op", "noop")
    other("nginx-uvicorn", "nginx → uvicorn + FastAPI, no-op", "noop")
    other("direct", "rserve → Python replica, stream of 50 chunks")
    other("uvicorn-stream", "uvicorn + FastAPI, stream of 50 chunks", "direct")
    lines += ["", "Memory per replica (PSS, median): Python %.1f MB%s." % (
        figures["replica"] / 1e6,
        ", C %.2f MB" % (figures["c_replica"] / 1e6) if "c_replica" in figures else ""), about]
    return "\n".join(lines) + "\n", met


def update_readme(table: str) -> None:
    path = os.path.join(ROOT, "README.md")
    with open(path, encoding="utf-8") as f:
        text = f.read()
    new, n = re.subn(r"(?s)<!-- bench -->\n.*?<!-- /bench -->",
                     lambda m: "<!-- bench -->\n%s<!-- /bench -->" % table, text)
    if n != 1:
        raise SystemExit("bench: README.md: expected one pair of bench markers, got %d" % n)
    with open(path, "w", encoding="utf-8") as f:
        f.write(new)
    say("README.md is up to date")


# --- main --------------------------------------------------------------------------------------


def build_echo(args: argparse.Namespace, folder: str) -> Optional[str]:
    """The C stage, ready made or from its source."""
    if args.c_echo:
        return os.path.abspath(args.c_echo)
    out = os.path.join(folder, "echo")
    r = subprocess.run([os.environ.get("CC", "cc"), "-O2", "-w", "-pthread",
                        "-I", os.path.join(ROOT, "sched"), "-o", out,
                        os.path.join(ROOT, "testdata", "apps", "c-stage", "echo.c")],
                       stderr=subprocess.PIPE, check=False, universal_newlines=True)
    if r.returncode != 0:
        say("the C replica is left out: it does not compile: " + r.stderr.splitlines()[0])
        return None
    return out


def starts(args: argparse.Namespace, procs: Processes, rounds: int) -> Tuple[Rserve, float]:
    """The four applications, started `rounds` times; the last one stays."""
    config = os.path.join(HERE, "apps", "four.yaml")
    seconds = []
    for n in range(rounds):
        r = Rserve(args, procs, "four", config)
        seconds.append(r.ready_s)
        say("four applications run after %.2f s" % r.ready_s)
        if n < rounds - 1:
            procs.end("four")
    return r, statistics.median(seconds)


def targets_of(args: argparse.Namespace, procs: Processes, four: Rserve,
               figures: Dict[str, float]) -> List[Target]:
    def is_ok(b: bytes) -> bool:
        return b == b"ok"

    def is_stream(b: bytes) -> bool:
        return b.count(b"\n\n") == 50
    targets = [
        Target("noop", "rserve: no-op", "/noop", 64, None, is_ok, four.port),
        Target("echo", "rserve: two hops, 10 KB", "/echo", 64, BODY, lambda b: b == BODY,
               four.port),
        Target("rag", "rserve: rag", QUESTION, 64, None, lambda b: b"purr" in b, four.port),
        Target("stream", "rserve: 50 chunks, two hops", "/stream", 32, None, is_stream, four.port),
        Target("direct", "rserve: 50 chunks", "/stream/direct", 32, None, is_stream, four.port),
    ]
    echo = build_echo(args, procs.folder)
    if echo:
        config = os.path.join(procs.folder, "c.json")
        with open(config, "w") as f:
            json.dump({"applications": [{"name": "c", "route_prefix": "/", "deployments": [{
                "name": "Echo", "max_ongoing_requests": 100,
                "ray_actor_options": {"num_cpus": 0.1},
                "rserve": {"kind": "exec", "command": [echo]}}]}]}, f)
        c = Rserve(args, procs, "c", config)
        figures["c_replica"] = statistics.median(c.memory()[1])
        targets.append(Target("c", "rserve: C echo replica", "/", 64, None,
                              lambda b: b == b"", c.port))
    port = uvicorn(args, procs)
    if port:
        targets.append(Target("uvicorn", "uvicorn + FastAPI: no-op", "/noop", 64, None, is_ok,
                              port))
        targets.append(Target("uvicorn-stream", "uvicorn + FastAPI: 50 chunks", "/stream", 32,
                              None, is_stream, port))
    if shutil.which("nginx"):
        backend = nginx(procs, "backend", 1, 'default_type text/plain; return 200 "ok";')
        targets.append(Target("nginx", "nginx -> HTTP backend", "/", 64, None, is_ok,
                              nginx_proxy(procs, "nginx", backend)))
        if port:
            targets.append(Target("nginx-uvicorn", "nginx -> uvicorn: no-op", "/noop", 64, None,
                                  is_ok, nginx_proxy(procs, "nginx-uvicorn", port)))
        if shutil.which("haproxy"):
            targets.append(Target("haproxy", "HAProxy -> HTTP backend", "/", 64, None, is_ok,
                                  haproxy(procs, backend)))
    return targets


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--rserve", default=os.path.join(ROOT, "build", "rserve"))
    p.add_argument("--c-echo", help="the built C stage (default: compiled here)")
    p.add_argument("--python", default=sys.executable, help="interpreter that has uvicorn")
    p.add_argument("--seconds", type=int, default=int(os.environ.get("SECONDS") or 3))
    p.add_argument("--rounds", type=int, default=int(os.environ.get("ROUNDS") or 3))
    p.add_argument("--only", nargs="*", help="keys of targets: noop echo rag stream c ...")
    p.add_argument("--update-readme", action="store_true")
    p.add_argument("--strict", action="store_true", help="exit 1 if a first bar is missed")
    args = p.parse_args()
    args.rserve = os.path.abspath(args.rserve)
    return args


def main() -> int:
    args = arguments()
    if not shutil.which("wrk"):
        raise SystemExit("bench: wrk is not installed: run .ci/setup bench")
    folder = tempfile.mkdtemp(prefix="rserve-bench-")
    os.chmod(folder, 0o755)  # nginx's workers may be another user
    procs = Processes(folder)
    figures: Dict[str, float] = {}
    try:
        four, figures["start"] = starts(args, procs, args.rounds)
        total, replicas = four.memory()
        figures["memory"], figures["replica"] = total, statistics.median(replicas)
        targets = targets_of(args, procs, four, figures)
        if args.only:
            targets = [t for t in targets if t.key in args.only]
        found = measure(targets, args.seconds, args.rounds, folder)
    finally:
        procs.end_all()
        shutil.rmtree(folder, ignore_errors=True)
    if args.only:
        return 0
    about = ("%d cores, wrk -t1 with 64 connections (32 for streams), median of %d rounds of %d s; "
             "Ray's figures were measured on another machine with 2 cores, on which uvicorn + "
             "FastAPI did 10,280 no-op requests/s, nginx 32,100 and HAProxy 49,900."
             % (os.cpu_count() or 1, args.rounds, args.seconds))
    table, met = report(found, figures, about)
    print(table, end="")
    if args.update_readme:
        update_readme(table)
    return 1 if args.strict and not met else 0


if __name__ == "__main__":
    sys.exit(main())
