"""What the benchmark compares: rserve, nginx, HAProxy, uvicorn."""

import argparse
import json
import os
import subprocess
import time
from typing import Any, Dict, List, Optional, Tuple

from processes import Processes, family, fetch, free_port, pss, say

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


class Rserve:
    def __init__(self, args: argparse.Namespace, procs: Processes, name: str, config: str,
                 *more: str) -> None:
        self.procs, self.name = procs, name
        self.port, self.dashboard = free_port(), free_port()
        self.began = time.monotonic()
        self.process = procs.start(name, [
            args.rserve, "run", config, "--host", "127.0.0.1", "--port", str(self.port),
            "--dashboard-port", str(self.dashboard)] + list(more),
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


def start_four(args: argparse.Namespace, procs: Processes) -> Tuple[Rserve, float]:
    """The four applications, started `rounds` times; the last one stays. Median of seconds."""
    seconds = []
    for n in range(args.rounds):
        if n:
            procs.end("four")
        r = Rserve(args, procs, "four", os.path.join(HERE, "apps", "four.yaml"))
        seconds.append(r.ready_s)
        say("four applications run after %.2f s" % r.ready_s)
    return r, sorted(seconds)[len(seconds) // 2]


def start_programs(args: argparse.Namespace, procs: Processes, name: str,
                   stage: Dict[str, Any]) -> Rserve:
    """One application of one replica that is a program."""
    path = os.path.join(procs.folder, name + ".json")
    with open(path, "w") as f:
        json.dump({"applications": [{"name": name, "route_prefix": "/", "deployments": [{
            "name": "Stage", "max_ongoing_requests": 100, "health_check_period_s": 600,
            "ray_actor_options": {"num_cpus": 0.1}, "rserve": stage}]}]}, f)
    return Rserve(args, procs, name, path)


# --- proxies and servers -------------------------------------------------------------------------

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

ANSWERS = 'default_type text/plain; return 200 "ok";'

HAPROXY = """\
global
    maxconn %(connections)d
    nbthread %(threads)d
defaults
    mode http
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    http-reuse always
frontend f
    bind 127.0.0.1:%(port)d
    default_backend b
backend b
    server s 127.0.0.1:%(backend)d
"""


def nginx_command(procs: Processes, name: str, port: int, workers: int, location: str,
                  extra: str = "") -> List[str]:
    path = os.path.join(procs.folder, name + ".conf")
    with open(path, "w") as f:
        f.write(NGINX % {"workers": workers, "folder": procs.folder, "name": name, "port": port,
                         "location": location, "extra": extra})
    return ["nginx", "-e", os.path.join(procs.folder, name + ".log"), "-c", path,
            "-p", procs.folder]


def nginx(procs: Processes, name: str, workers: int, location: str, extra: str = "") -> int:
    port = free_port()
    p = procs.start(name, nginx_command(procs, name, port, workers, location, extra))
    procs.wait(name, "http://127.0.0.1:%d/" % port, p)
    return port


def nginx_proxy(procs: Processes, name: str, backend: int) -> int:
    upstream = ("upstream u { server 127.0.0.1:%d; keepalive 128; "
                "keepalive_requests 1000000000; }" % backend)
    return nginx(procs, name, os.cpu_count() or 1, "proxy_pass http://u; proxy_http_version 1.1; "
                 'proxy_set_header Connection "";', upstream)


def haproxy(procs: Processes, backend: int, connections: int) -> Tuple[int, int]:
    """Its port and process."""
    port = free_port()
    path = os.path.join(procs.folder, "haproxy.cfg")
    with open(path, "w") as f:
        f.write(HAPROXY % {"threads": os.cpu_count() or 1, "port": port, "backend": backend,
                           "connections": connections + 500})
    p = procs.start("haproxy", ["haproxy", "-f", path, "-db"])
    procs.wait("haproxy", "http://127.0.0.1:%d/" % port, p)
    return port, p.pid


def uvicorn(args: argparse.Namespace, procs: Processes) -> int:
    port = free_port()
    p = procs.start("uvicorn", [
        args.python, "-m", "uvicorn", "asgi:app", "--host", "127.0.0.1", "--port", str(port),
        "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"],
        cwd=os.path.join(HERE, "apps"), env={"PYTHONDONTWRITEBYTECODE": "1"})
    procs.wait("uvicorn", "http://127.0.0.1:%d/noop" % port, p)
    return port


def has_fastapi(args: argparse.Namespace) -> bool:
    probe = subprocess.run([args.python, "-c", "import fastapi, httptools, uvicorn, uvloop"],
                           stderr=subprocess.DEVNULL, check=False)
    if probe.returncode != 0:
        say("FastAPI is left out: %s has no uvicorn, uvloop, httptools, fastapi" % args.python)
    return probe.returncode == 0


# --- programs in C -------------------------------------------------------------------------------


def compiled(procs: Processes, name: str, source: str, *flags: str) -> Optional[str]:
    out = os.path.join(procs.folder, name)
    r = subprocess.run([os.environ.get("CC", "cc"), "-O2", "-w", "-pthread", "-o", out, source]
                       + list(flags), stderr=subprocess.PIPE, check=False, universal_newlines=True)
    if r.returncode != 0:
        say("%s is left out: it does not compile: %s" % (name, r.stderr.splitlines()[0]))
        return None
    return out


def c_stage(args: argparse.Namespace, procs: Processes) -> Optional[str]:
    """The echo in C, ready made or from its source."""
    if args.c_echo:
        return os.path.abspath(args.c_echo)
    return compiled(procs, "echo", os.path.join(ROOT, "testdata", "apps", "c-stage", "echo.c"),
                    "-I", os.path.join(ROOT, "sched"))


def load_program(procs: Processes) -> str:
    """What wrk cannot do: load.c."""
    program = compiled(procs, "load", os.path.join(HERE, "load.c"))
    if not program:
        raise SystemExit("bench: tests/bench/load.c does not compile")
    return program
