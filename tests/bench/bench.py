#!/usr/bin/env python3
"""rserve beside uvicorn, nginx and HAProxy, all in one run with the same load; see NOTES.md.

    make bench                     # short: SECONDS=3 ROUNDS=3
    make bench SECONDS=10 ROUNDS=5
    bench.py --rserve build/rserve --c-echo build-test/tests/c-stage [--update-readme] [--strict]
    bench.py --only noop c large   # some of it, and no table

Standard library only. Needs wrk and a C compiler; what else is missing is left out, which the table
says.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from typing import Any, Dict, List

import systems
from loads import Target, idle, large_bodies, measure, open_files, tails
from processes import Processes, say
from table import Found, report, update_readme

QUESTION = "/rag?question=why+do+cats+purr"
BODY = bytes(range(32, 112)) * 128  # 10 KB
LARGE = 10 << 20
PHASES = ("tail", "large", "idle")  # beside the targets of wrk


class Bench:
    def __init__(self, args: argparse.Namespace, folder: str) -> None:
        self.args, self.folder = args, folder
        self.procs = Processes(folder)
        self.found = Found({}, {}, {}, {}, {})
        self.connections = open_files()
        self.pids: Dict[str, int] = {}
        self.targets: Dict[str, Target] = {}

    def wants(self, *keys: str) -> bool:
        return not self.args.only or any(k in self.args.only for k in keys)

    def add(self, key: str, what: str, port: int, path: str, expect: Any, **more: Any) -> None:
        self.targets[key] = Target(key, what, port, path, expect, **more)

    # --- what is started ------------------------------------------------------------------------

    def start_python(self) -> None:
        def is_stream(b: bytes) -> bool:
            return b.count(b"\n\n") == 50
        if self.wants("noop", "echo", "rag", "rag1", "stream", "direct", "idle"):
            four, self.found.figures["start"] = systems.start_four(self.args, self.procs)
            total, replicas = four.memory()
            self.found.figures["memory"] = total
            self.found.figures["replica"] = statistics.median(replicas)
            self.pids["four"] = four.process.pid
            self.add("noop", "rserve: no-op", four.port, "/noop", lambda b: b == b"ok")
            self.add("echo", "rserve: two hops, 10 KB", four.port, "/echo", lambda b: b == BODY,
                     body=BODY)
            self.add("rag", "rserve: rag", four.port, QUESTION, lambda b: b"purr" in b)
            self.add("rag1", "rserve: rag, 1 connection", four.port, QUESTION,
                     lambda b: b"purr" in b, connections=1)
            self.add("stream", "rserve: 50 chunks, two hops", four.port, "/stream", is_stream,
                     connections=32)
            self.add("direct", "rserve: 50 chunks", four.port, "/stream/direct", is_stream,
                     connections=32)
        if not self.wants("fastapi-echo", "uvicorn", "uvicorn-echo", "uvicorn-stream",
                          "nginx-uvicorn") or not systems.has_fastapi(self.args):
            return
        echo = systems.Rserve(
            self.args, self.procs, "fastapi",
            os.path.join(systems.HERE, "apps", "fastapi_echo.yaml"), "--python", self.args.python)
        self.add("fastapi-echo", "rserve: two hops, 10 KB, FastAPI in front", echo.port, "/",
                 lambda b: b == BODY, body=BODY)
        port = systems.uvicorn(self.args, self.procs)
        self.add("uvicorn", "uvicorn + FastAPI: no-op", port, "/noop", lambda b: b == b"ok")
        self.add("uvicorn-echo", "uvicorn + FastAPI: 10 KB", port, "/echo", lambda b: b == BODY,
                 body=BODY)
        self.add("uvicorn-stream", "uvicorn + FastAPI: 50 chunks", port, "/stream", is_stream,
                 connections=32)
        if shutil.which("nginx"):
            proxy = systems.nginx_proxy(self.procs, "nginx-uvicorn", port)
            self.add("nginx-uvicorn", "nginx -> uvicorn: no-op", proxy, "/noop",
                     lambda b: b == b"ok")

    def start_c(self) -> None:
        echo = systems.c_stage(self.args, self.procs)
        if not echo:
            return
        c = systems.start_programs(self.args, self.procs, "c", {"kind": "exec", "command": [echo]})
        self.found.figures["c_replica"] = statistics.median(c.memory()[1])
        self.pids["c"] = c.process.pid
        self.add("c", "rserve: C echo replica", c.port, "/", lambda b: b == b"")
        self.add("c1", "rserve: C echo replica, 1 connection", c.port, "/", lambda b: b == b"",
                 connections=1)

    def start_proxies(self) -> None:
        def is_ok(b: bytes) -> bool:
            return b == b"ok"
        if not shutil.which("nginx"):
            say("nginx is not installed: what it is compared with is left out")
            return
        if self.wants("http"):
            port = systems.free_port()
            http = systems.start_programs(self.args, self.procs, "http", {
                "kind": "http", "port": port, "ready": {"path": "/"},
                "command": systems.nginx_command(self.procs, "replica", port, 1,
                                                 systems.ANSWERS)})
            self.add("http", "rserve: http replica", http.port, "/", is_ok)
        backend = systems.nginx(self.procs, "backend", 1, systems.ANSWERS)
        proxy = systems.nginx_proxy(self.procs, "nginx", backend)
        self.add("nginx", "nginx -> HTTP server", proxy, "/", is_ok)
        self.add("nginx1", "nginx -> HTTP server, 1 connection", proxy, "/", is_ok, connections=1)
        if not shutil.which("haproxy"):
            say("HAProxy is not installed: what it is compared with is left out")
            return
        port, self.pids["haproxy"] = systems.haproxy(self.procs, backend, self.connections)
        self.add("haproxy", "HAProxy -> HTTP server", port, "/", is_ok)
        self.add("haproxy1", "HAProxy -> HTTP server, 1 connection", port, "/", is_ok,
                 connections=1)

    # --- what is measured -----------------------------------------------------------------------

    def idle(self, program: str) -> None:
        """Before the others: memory that a load has left is not part of it."""
        for key, name in (("c", "rserve"), ("haproxy", "haproxy")):
            if key in self.targets:
                self.found.idle[name] = idle(program, self.targets[key], self.pids[key],
                                             self.connections, 5)
        if "noop" in self.targets:
            self.found.idle["four"] = idle(program, self.targets["noop"], self.pids["four"], 1, 5)

    def tail(self, program: str) -> None:
        both = [self.targets[k] for k in ("c", "haproxy") if k in self.targets]
        missing = [t for t in both if t.key not in self.found.closed]
        self.found.closed.update(measure(missing, self.args.seconds, 1, self.folder))
        rates = {t.key: 0.7 * self.found.closed[t.key].rate for t in both}
        self.found.tails.update(tails(program, both, rates, self.args.seconds, self.args.rounds))

    def run(self) -> None:
        args = self.args
        program = systems.load_program(self.procs)
        self.start_c()
        self.start_proxies()
        self.start_python()
        if self.wants("idle"):
            self.idle(program)
        chosen = [t for t in self.targets.values() if self.wants(t.key)]
        self.found.closed.update(measure(chosen, args.seconds, args.rounds, self.folder))
        if self.wants("tail"):
            self.tail(program)
        if self.wants("large") and "c" in self.targets:
            self.found.large.update(large_bodies(program, self.targets["c"], LARGE, args.rounds))


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--rserve", default=os.path.join(systems.ROOT, "build", "rserve"))
    p.add_argument("--c-echo", help="the built C stage (default: compiled here)")
    p.add_argument("--python", default=sys.executable, help="interpreter that has uvicorn")
    p.add_argument("--seconds", type=int, default=int(os.environ.get("SECONDS") or 3))
    p.add_argument("--rounds", type=int, default=int(os.environ.get("ROUNDS") or 3))
    p.add_argument("--only", nargs="*",
                   help="keys of targets (noop echo rag stream c haproxy ...), or of " +
                   ", ".join(PHASES))
    p.add_argument("--update-readme", action="store_true")
    p.add_argument("--strict", action="store_true", help="exit 1 if a goal is missed")
    args = p.parse_args()
    args.rserve = os.path.abspath(args.rserve)
    return args


def main() -> int:
    args = arguments()
    if not shutil.which("wrk"):
        raise SystemExit("bench: wrk is not installed: run .ci/setup bench")
    folder = tempfile.mkdtemp(prefix="rserve-bench-")
    os.chmod(folder, 0o755)  # nginx's workers may be another user
    bench = Bench(args, folder)
    try:
        bench.run()
    finally:
        bench.procs.end_all()
        shutil.rmtree(folder, ignore_errors=True)
    if args.only:
        return 0
    about = ("%d cores, shared with the load: wrk -t1 with 64 connections (32 for streams) if not "
             "told otherwise, median of %d rounds of %d s. Ray's figures were measured on another "
             "machine with 2 cores, on which uvicorn + FastAPI did 10,280 no-op requests/s, nginx "
             "32,100 and HAProxy 49,900." % (os.cpu_count() or 1, args.rounds, args.seconds))
    table, met = report(bench.found, about)
    print(table, end="")
    if args.update_readme:
        update_readme(table)
    return 1 if args.strict and not met else 0


if __name__ == "__main__":
    sys.exit(main())
