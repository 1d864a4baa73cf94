"""What the tests of the real rserve share: start it, wait for it, talk to it, leave nothing behind.

Every server runs in a temporary folder of its own, with its state there, on free ports. Waiting is
for a condition, never for a time. When a test fails, what its servers wrote is shown.
"""

import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unittest
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple, Union

RSERVE = os.environ["RSERVE"]
SOURCE = os.environ["RSERVE_SOURCE"]
APPS = os.path.join(SOURCE, "testdata", "apps")
C_ECHO = os.environ.get("RSERVE_C_ECHO", "")
SLOW = float(os.environ.get("RSERVE_TEST_SLOW", "1"))  # sanitizers: how much more time to allow
# A run that a test did not expect to end must end by itself some day.
LIFE_LIMIT = float(os.environ.get("RSERVE_TEST_LIFE_S", 120 * SLOW))

SANITIZER = re.compile(r"(?:Address|Leak|Thread|UndefinedBehavior)Sanitizer.*|runtime error: .*")

given: Set[int] = set()


def free_port() -> int:
    """A port that nothing listens on and that this program was not given before: below those that
    the kernel gives to connections, which may take one before it is listened on."""
    while True:
        port = random.randrange(12000, 32000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in given:
            given.add(port)
            return port


def wait_until(what: str, check: Callable[[], Any], timeout: float = 15,
               every: float = 0.02) -> Any:
    """The first true answer of `check`; an AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout * SLOW
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError("not within %g s: %s" % (timeout * SLOW, what))
        time.sleep(every)


class Process(NamedTuple):
    pid: int
    parent: int
    state: str
    started: int  # clock ticks since boot: tells a pid from a later one with the same number
    command: str


def read_process(pid: int) -> Optional[Process]:
    try:
        with open("/proc/%d/stat" % pid, encoding="utf-8", errors="replace") as f:
            text = f.read()
    except OSError:
        return None
    name, rest = text[text.index("(") + 1:text.rindex(")")], text[text.rindex(")") + 2:].split()
    return Process(pid, int(rest[1]), rest[0], int(rest[19]), name)


def all_processes() -> Iterator[Process]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            p = read_process(int(name))
            if p:
                yield p


def descendants(pid: int) -> List[Process]:
    everyone = list(all_processes())
    found, parents = [], {pid}
    while parents:
        children = [p for p in everyone if p.parent in parents]
        found += children
        parents = {p.pid for p in children}
    return found


def still_runs(p: Process) -> bool:
    now = read_process(p.pid)
    return now is not None and now.started == p.started and now.state not in "ZX"


class Answer(NamedTuple):
    status: int
    headers: Dict[str, str]  # names in lower case; the last one of several
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        return json.loads(self.body)


def call(port: int, path: str = "/", method: Optional[str] = None, body: Any = None,
         headers: Optional[Dict[str, str]] = None, timeout: float = 20) -> Answer:
    """One HTTP request on a connection of its own. Bodies that are not bytes are sent as JSON."""
    sent = dict(headers or {})
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        sent.setdefault("content-type", "application/json")
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout * SLOW)
    try:
        conn.request(method or ("GET" if body is None else "POST"), path, body, sent)
        r = conn.getresponse()
        return Answer(r.status, {k.lower(): v for k, v in r.getheaders()}, r.read())
    finally:
        conn.close()


def rserve(*args: str, timeout: float = 30, env: Optional[Dict[str, str]] = None,
           cwd: Optional[str] = None) -> "subprocess.CompletedProcess[str]":
    """Runs a command of rserve to its end."""
    return subprocess.run([RSERVE, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True, check=False, cwd=cwd,
                          timeout=timeout * SLOW, env=dict(os.environ, **(env or {})))


class Server:
    """One rserve process: `run`, `head` or `worker`."""

    def __init__(self, folder: str, args: List[str], cwd: Optional[str] = None,
                 env: Optional[Dict[str, str]] = None, prefix: Optional[List[str]] = None) -> None:
        self.folder, self.args = folder, args
        self.port = self.dashboard = self.join = 0
        self.log = os.path.join(folder, "rserve.log")
        self.state = os.path.join(folder, "state")
        # Folders of our own: nothing of the user's is read or written.
        environ = dict(os.environ, XDG_STATE_HOME=self.state, PYTHONDONTWRITEBYTECODE="1",
                       RSERVE_ENV_DIR=os.path.join(self.state, "envs"))
        environ.pop("NO_COLOR", None)
        environ.update(env or {})
        with open(self.log, "ab") as out:
            self.process = subprocess.Popen(
                [*(prefix or []), RSERVE, *args], cwd=cwd or folder, env=environ,
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                start_new_session=True)
        self.watchdog = threading.Timer(LIFE_LIMIT, self.process.kill)
        self.watchdog.daemon = True
        self.watchdog.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def control_pid(self) -> int:
        """The control plane of a head; 0: there is none at this moment."""
        try:
            with open("/proc/%d/task/%d/children" % (self.pid, self.pid)) as f:
                children = f.read().split()
        except OSError:
            return 0
        for pid in children:
            try:
                with open("/proc/%s/comm" % pid) as f:
                    if f.read().strip() == "rserve-control":
                        return int(pid)
            except OSError:
                pass
        return 0

    def output(self) -> str:
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def call(self, path: str = "/", **kwargs: Any) -> Answer:
        return call(self.port, path, **kwargs)

    def rest(self, method: str = "GET", body: Any = None,
             path: str = "/api/serve/applications/") -> Answer:
        return call(self.dashboard, path, method=method, body=body)

    def details(self) -> Dict[str, Any]:
        return self.rest().json()

    def app(self, name: str) -> Dict[str, Any]:
        return self.details()["applications"][name]

    def replicas(self, app: str, deployment: str, state: str = "RUNNING") -> List[Dict[str, Any]]:
        known = self.details()["applications"].get(app, {}).get("deployments", {})
        return [r for r in known.get(deployment, {}).get("replicas", []) if r["state"] == state]

    def pids(self, app: str, deployment: str) -> Set[int]:
        return {r["pid"] for r in self.replicas(app, deployment)}

    def wait_output(self, text: str, timeout: float = 20) -> str:
        def look() -> bool:
            if text in self.output():
                return True
            if self.process.poll() is not None and text not in self.output():
                raise AssertionError("rserve ended with %s before it wrote %r; it wrote:\n%s"
                                     % (self.process.returncode, text, self.output()))
            return False
        wait_until("rserve writes %r" % text, look, timeout)
        return self.output()

    def wait_rest(self, timeout: float = 20) -> None:
        def answers() -> bool:
            if self.process.poll() is not None:
                raise AssertionError("rserve ended with %s; it wrote:\n%s"
                                     % (self.process.returncode, self.output()))
            try:
                return self.rest().status == 200
            except OSError:
                return False
        wait_until("the REST API answers", answers, timeout)

    def wait_apps(self, wanted: Union[str, Dict[str, str]] = "RUNNING",
                  timeout: float = 25) -> None:
        """Until every application has this status, or those of {name: status} theirs."""
        self.wait_rest(timeout)

        def reached() -> bool:
            apps = self.details()["applications"]
            if isinstance(wanted, dict):
                return all(apps.get(n, {}).get("status") == s for n, s in wanted.items())
            return bool(apps) and all(a["status"] == wanted for a in apps.values())
        try:
            wait_until("applications are %s" % (wanted,), reached, timeout)
        except AssertionError as e:
            apps = self.details()["applications"]
            raise AssertionError("%s; they are %s" % (e, {
                n: (a["status"], a["message"], {
                    d: (i["status"], i["message"]) for d, i in a["deployments"].items()})
                for n, a in apps.items()})) from None

    def wait_exit(self, timeout: float = 20) -> int:
        try:
            return self.process.wait(timeout * SLOW)
        except subprocess.TimeoutExpired:
            raise AssertionError("rserve does not end; it wrote:\n" + self.output()) from None

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        self.send(signal.SIGTERM)
        return self.wait_exit()

    def dispose(self) -> List[str]:
        """Ends it the hard way if need be; tells what it left running."""
        family = descendants(self.pid) if self.process.poll() is None else []
        if self.process.poll() is None:
            self.send(signal.SIGINT)
            self.send(signal.SIGTERM)  # the second one means now
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.watchdog.cancel()
        deadline = time.monotonic() + 5
        while any(still_runs(p) for p in family) and time.monotonic() < deadline:
            time.sleep(0.02)
        left = [p for p in family if still_runs(p)]
        for p in left:
            try:
                os.kill(p.pid, signal.SIGCONT)
                os.kill(p.pid, signal.SIGKILL)
            except OSError:
                pass
        return ["%s %d" % (p.command, p.pid) for p in left]


class Load:
    """Threads that send one request after the other until they are told to stop."""

    def __init__(self, port: int, path: str = "/", threads: int = 4, body: Any = None) -> None:
        self.results: List[Tuple[int, str]] = []  # status (0: no answer) and body or error
        self.going = True
        self.port, self.path, self.body = port, path, body
        self.threads = [threading.Thread(target=self.work, daemon=True) for _ in range(threads)]
        for t in self.threads:
            t.start()

    def work(self) -> None:
        while self.going:
            try:
                answer = call(self.port, self.path, body=self.body)
                self.results.append((answer.status, answer.text))
            except (OSError, http.client.HTTPException) as e:
                self.results.append((0, repr(e)))

    def wait(self, more: int, timeout: float = 20) -> None:
        goal = len(self.results) + more
        wait_until("%d more answers" % more, lambda: len(self.results) >= goal, timeout)

    def stop(self) -> Dict[int, int]:
        """{status: how many}"""
        self.going = False
        for t in self.threads:
            t.join(30 * SLOW)
        counts: Dict[int, int] = {}
        for status, _ in self.results:
            counts[status] = counts.get(status, 0) + 1
        return counts


class ServeTest(unittest.TestCase):
    """Keeps the servers of a test, ends them after it, and shows their output if it failed."""

    maxDiff = None

    def setUp(self) -> None:
        self.servers: List[Server] = []
        self.folder = tempfile.mkdtemp(prefix="rserve-test-")
        os.chmod(self.folder, 0o755)
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.addCleanup(self.end_servers)

    def run(self, result: Optional[unittest.TestResult] = None) -> Any:
        before = len(result.failures) + len(result.errors) if result else 0
        self.logs: List[str] = []
        done = super().run(result)
        if result and len(result.failures) + len(result.errors) > before:
            for text in self.logs:
                print("--- %s\n%s" % (self.id(), text), file=sys.stderr)
        return done

    def end_servers(self) -> None:
        left = []
        for s in reversed(self.servers):
            left += s.dispose()
            self.logs.append("rserve %s\n%s" % (" ".join(s.args), s.output()[-6000:]))
        self.servers.clear()
        if left:
            self.fail("left running: %s" % ", ".join(left))
        for text in self.logs:
            found = SANITIZER.search(text)
            if found:
                self.fail("a sanitizer speaks: %s" % found[0])

    def write(self, name: str, text: str, mode: int = 0o644) -> str:
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(textwrap.dedent(text))
        os.chmod(path, mode)
        return path

    def start(self, *args: str, **kwargs: Any) -> Server:
        """`rserve run ARGS` on free ports; does not wait."""
        port, dashboard = free_port(), free_port()
        if "--lanes" not in args:  # requests that cross from one to another are to be tested too
            args += ("--lanes", "2")
        s = self.spawn("run", *args, "--host", "127.0.0.1", "--port", str(port),
                       "--dashboard-port", str(dashboard), **kwargs)
        s.port, s.dashboard = port, dashboard
        return s

    def spawn(self, *args: str, **kwargs: Any) -> Server:
        folder = os.path.join(self.folder, "server%d" % len(self.servers))
        os.mkdir(folder)
        s = Server(folder, list(args), **kwargs)
        self.servers.append(s)
        return s

    def serve(self, *args: str, **kwargs: Any) -> Server:
        """The same, until everything runs."""
        s = self.start(*args, **kwargs)
        s.wait_apps()
        return s

    def serve_code(self, code: str, *args: str, deployments: str = "", **kwargs: Any) -> Server:
        """One application named `app` at /, from the Python text of its module."""
        self.write_app(code, deployments)
        return self.serve(os.path.join(self.folder, "app.yaml"), *args, **kwargs)

    def write_app(self, code: str, deployments: str = "") -> str:
        self.write("served.py", code)
        text = "applications:\n- name: app\n  route_prefix: /\n  import_path: served:app\n"
        if deployments:
            text += "  deployments:\n" + textwrap.indent(textwrap.dedent(deployments), "  ")
        return self.write("app.yaml", text)

    def copy_app(self, name: str) -> str:
        """A sample in the test's folder; its app.yaml is the answer."""
        target = os.path.join(self.folder, name)
        shutil.copytree(os.path.join(APPS, name), target)
        if C_ECHO:
            shutil.copy(C_ECHO, os.path.join(target, "echo"))
        return os.path.join(target, "app.yaml")

    def assertOneLine(self, text: str, *parts: str) -> None:
        """One line for the user that holds all of these."""
        self.assertEqual(len(text.strip().splitlines()), 1, text)
        for part in parts:
            self.assertIn(part, text)

    def assertNoZombies(self, s: Server) -> None:
        wait_until("no zombie", lambda: not [p for p in descendants(s.pid) if p.state == "Z"], 5)


def main() -> None:
    """As unittest.main, but a run in which everything was skipped tells Meson so."""
    result = unittest.main(verbosity=2, exit=False).result
    if result.testsRun and len(result.skipped) == result.testsRun:
        sys.exit(77)
    sys.exit(not result.wasSuccessful())
