"""What the tests of `serve` and `ray` share: commands that find nothing of the user's."""

import json
import os
import signal
import subprocess
from typing import Any, Dict, List, Optional

from harness import (RSERVE, SANITIZER, SLOW, ServeTest, Server, read_process, still_runs,
                     wait_until)

ONE = """
    from ray import serve

    @serve.deployment
    class One:
        def __init__(self, word="one"):
            self.word = word

        def __call__(self, request):
            return self.word

    app = One.bind()

    def build(args):
        return One.bind(args["word"])
"""


class AliasTest(ServeTest):
    """Commands that see a state folder of the test, and nothing of the user's environment."""

    def setUp(self) -> None:
        super().setUp()
        self.state = os.path.join(self.folder, "own-state")
        self.bin = os.path.join(self.folder, "bin")
        os.mkdir(self.bin)

    def env(self, **more: str) -> Dict[str, str]:
        env = {k: v for k, v in os.environ.items()
               if k not in ("RAY_ADDRESS", "RAY_DASHBOARD_ADDRESS", "RSERVE_ADDRESS")}
        env.update(XDG_STATE_HOME=self.state, PYTHONDONTWRITEBYTECODE="1", **more)
        return env

    def cmd(self, *args: str, stdin: str = "", cwd: Optional[str] = None, program: str = RSERVE,
            **env: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([program, *args], input=stdin, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, universal_newlines=True, check=False,
                              cwd=cwd or self.folder, timeout=60 * SLOW, env=self.env(**env))

    def assertDone(self, r: "subprocess.CompletedProcess[str]") -> str:
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)
        return r.stdout

    def empty_head(self) -> Server:
        """A head without applications, whose modules are in the folder of the test."""
        s = self.spawn("head", "--host", "127.0.0.1", "--port", "0", "--dashboard-port", "0",
                       "--listen", "127.0.0.1:0", cwd=self.folder, env=self.env())
        found = wait_until("the head says where it is", lambda: self.instances("head"))
        s.dashboard = int(found[-1]["dashboard"].rpartition(":")[2])
        s.port = int(found[-1]["http"].rpartition(":")[2])
        s.join = int(found[-1]["join"].rpartition(":")[2])
        return s

    def instances(self, kind: str) -> List[Dict[str, Any]]:
        folder = os.path.join(self.state, "rserve", "instances")
        found = []
        for name in os.listdir(folder) if os.path.isdir(folder) else []:
            if name.startswith("."):
                continue
            try:
                with open(os.path.join(folder, name), encoding="utf-8") as f:
                    found.append(json.load(f))
            except FileNotFoundError:  # that one ends just now
                pass
        return sorted((i for i in found if i["kind"] == kind), key=lambda i: i["started"])

    def tearDown(self) -> None:
        """What was started in the background ends with the test."""
        left = [p for p in (read_process(i["pid"]) for i in self.running()) if p]
        for p in left:
            try:
                os.kill(p.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        wait_until("the background is empty", lambda: not any(still_runs(p) for p in left))
        logs = os.path.join(self.state, "rserve", "logs")
        for name in os.listdir(logs) if os.path.isdir(logs) else []:
            with open(os.path.join(logs, name), encoding="utf-8", errors="replace") as f:
                found = SANITIZER.search(f.read())
            self.assertIsNone(found, "a sanitizer speaks in %s" % name)
        super().tearDown()

    def running(self) -> List[Dict[str, Any]]:
        """Nodes of this test that run, with the pid that the kernel names for their lock."""
        found = []
        for one in self.instances("head") + self.instances("worker"):
            path = os.path.join(self.state, "rserve", "instances", one["node_id"] + ".json")
            pid = lock_holder(path)
            if pid:
                found.append(dict(one, pid=pid))
        return found


def lock_holder(path: str) -> int:
    """The process that holds the fcntl lock of a file; 0: none."""
    try:
        inode = os.stat(path).st_ino
        with open("/proc/locks", encoding="utf-8") as f:
            for line in f:
                words = line.split()
                if words[1] == "POSIX" and words[5].endswith(":%d" % inode):
                    return int(words[4])
    except OSError:
        pass
    return 0
