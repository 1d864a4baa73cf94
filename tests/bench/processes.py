"""Processes of the benchmark: started, waited for, measured, and ended with it."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Dict, List, NamedTuple, Optional, Tuple


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


# --- memory, time, wake-ups --------------------------------------------------------------------


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


class Activity(NamedTuple):
    cpu_s: float
    wakeups: int


def activity(pid: int) -> Activity:
    """What a process and all below it have done so far: time on a core, and how often a thread went
    to sleep, which is how often one was woken."""
    ticks = wakeups = 0
    for p in family(pid):
        try:
            for task in os.listdir("/proc/%d/task" % p):
                base = "/proc/%d/task/%s/" % (p, task)
                with open(base + "stat") as f:
                    text = f.read()
                fields = text[text.rindex(")") + 2:].split()
                ticks += int(fields[11]) + int(fields[12])
                with open(base + "status") as f:
                    wakeups += sum(int(line.split()[1]) for line in f
                                   if line.startswith("voluntary_ctxt_switches"))
        except OSError:
            pass
    return Activity(ticks / os.sysconf("SC_CLK_TCK"), wakeups)
