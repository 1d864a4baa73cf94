"""A program outside of rserve: finds a node or starts one, and connects to it.

The connection is a `NodeLink` like a replica's, whose event loop runs in a background thread. One
process has at most one. A node that was started here ends with this process.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from typing import Any, Deque, Dict, List, Optional, Tuple

from rserve import _node
from rserve import _wire as w

_lock = threading.RLock()
_link: Optional["DriverLink"] = None
_after_fork = False

#: How long a node may take to answer, in seconds.
_PATIENCE_S = 30.0


class NoNode(Exception):
    """There is no node to connect to, or it cannot be started. One line."""


class DriverLink(_node.NodeLink):
    """The connection of this program. `init` is what the node said of itself."""

    def __init__(self, sock: socket.socket, process: "Optional[subprocess.Popen[bytes]]") -> None:
        super().__init__(sock)
        self.process = process
        self.init: Dict[str, Any] = {}
        self.gone = ""
        self._thread = threading.Thread(target=self._main, name="rserve-driver", daemon=True)
        self._up = threading.Event()

    @property
    def owned(self) -> bool:
        """Whether the node was started for this program."""
        return self.process is not None

    def open(self) -> None:
        """Says who we are, and waits for the node's answer."""
        self.sock.settimeout(_PATIENCE_S)
        hello = {"protocol": w.PROTOCOL, "kind": "driver", "pid": os.getpid()}
        inbox: Deque[w.Frame] = deque()
        try:
            w.send_json(self.sock, w.HELLO, hello)
            frame = w.read_frame(self._reader, inbox)
            if frame.type == w.FAILED:
                self.sock.close()
                raise NoNode(str(w.parse_json(frame).get("error")))
            if frame.type != w.INIT:
                raise w.ProtocolError(f"message {frame.type} came before INIT")
            self.init = w.parse_json(frame)
        except (w.HangUp, w.ProtocolError, OSError) as e:
            self.sock.close()
            raise NoNode(f"the node did not answer: {e or 'it hung up'}") from None
        self.replica_id = str(self.init.get("driver_id") or "")
        self._thread.start()
        self._up.wait()

    def _main(self) -> None:
        loop = asyncio.new_event_loop()
        self.start(loop)
        self._up.set()
        try:
            loop.run_forever()
        finally:
            loop.close()

    def lost(self, why: str) -> None:
        """The node is gone: what waits for it fails, and the program goes on."""
        from ray.serve.exceptions import RayServeException

        if self.gone:
            return
        self.gone = why or "the node has ended"
        self.loop.remove_reader(self.sock.fileno())
        self.loop.remove_writer(self.sock.fileno())
        if _node.current() is self:
            _node.set_current(None)
        pending, self._pending = self._pending, {}
        for call in pending.values():
            call.on_error(RayServeException(f"The connection to rserve is lost: {self.gone}."))
        askers, self._askers = self._askers, {}
        for told in askers.values():
            told({"error": f"The connection to rserve is lost: {self.gone}."})

    def question(self, kind: int, message: Dict[str, Any]) -> Dict[str, Any]:
        if self.gone:
            return {"error": f"The connection to rserve is lost: {self.gone}."}
        return super().question(kind, message)

    def close(self) -> None:
        """Ends the connection, and the node if it is ours. Blocks until that has ended."""

        def stop() -> None:
            self.flush()
            self.lost("it was closed")
            self.loop.stop()

        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(stop)
            self._thread.join(5)
        self.sock.close()
        if self.process is not None:
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


# --- where a node is ----------------------------------------------------------------------------


def _can_be_written(folder: str, name: str) -> bool:
    path = os.path.join(folder, name)
    return os.access(path if os.path.exists(path) else folder, os.W_OK | os.X_OK)


def _state_dirs() -> List[str]:
    """Where instances of this user keep their files: see sched/supervise/statedir.h."""
    home = os.environ.get("XDG_STATE_HOME")
    if home and os.path.isabs(home):
        base = os.path.join(home, "rserve")
    elif os.geteuid() == 0 and _can_be_written("/var/lib", "rserve"):
        base = "/var/lib/rserve"
    elif os.environ.get("HOME"):
        base = os.path.join(os.environ["HOME"], ".local", "state", "rserve")
    else:
        base = f"/tmp/rserve-{os.getuid()}"
    return [os.path.join(base, name) for name in ("main", *(f"main-{i}" for i in range(2, 9)))]


def _connect_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if len(os.fsencode(path)) < 108:
            sock.connect(path)
            return sock
        folder = os.open(os.path.dirname(path), getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY)
        try:
            sock.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
        finally:
            os.close(folder)
        return sock
    except OSError:
        sock.close()
        raise


def _running_here() -> Optional[socket.socket]:
    """A connection to an instance of this user on this machine, the first that there is."""
    for folder in _state_dirs():
        try:
            return _connect_unix(os.path.join(folder, "run", "node.sock"))
        except OSError:
            continue
    return None


def _at_rest(address: str) -> socket.socket:
    """A connection to the node whose REST API is at `address`; it must be on this machine."""
    url = address if "://" in address else f"http://{address}"
    url = url.rstrip("/") + "/api/version"
    import urllib.request  # heavy, and rarely needed

    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=_PATIENCE_S) as answer:
            facts = json.loads(answer.read())
    except (OSError, ValueError) as e:  # URLError is an OSError
        reason = getattr(e, "reason", None) or e
        raise NoNode(f"no rserve answers at {address}: {reason}") from None
    path = facts.get("driver_socket")
    if not path:
        raise NoNode(f"what answers at {address} is not an rserve that programs can connect to")
    try:
        return _connect_unix(str(path))
    except OSError as e:
        raise NoNode(
            f"the rserve at {address} cannot be reached over {path} ({e.strerror}): programs "
            "connect on the machine of the node, as the same user"
        ) from None


def _is_local(host: str) -> bool:
    return host in ("", "localhost", "::1", "0.0.0.0", "127.0.0.1") or host.startswith("127.")


def _find(address: Optional[str]) -> Optional[socket.socket]:
    """A connection to the node that `address` or the environment names; None: start one."""
    environ = os.environ
    explicit = address or environ.get("RSERVE_ADDRESS")
    if explicit and explicit not in ("auto", "local"):
        if explicit.startswith("ray://"):
            explicit = explicit[len("ray://") :]
        host, _, port = explicit.rpartition(":")
        if "://" not in explicit and port in ("6379", "10001") and _is_local(host):
            explicit = "auto"  # Ray's own ports: the head of this machine is meant
        else:
            return _at_rest(explicit)
    if explicit == "local":
        return None
    if not explicit and environ.get("RAY_DASHBOARD_ADDRESS"):
        return _at_rest(environ["RAY_DASHBOARD_ADDRESS"])
    ray_address = environ.get("RAY_ADDRESS", "")
    if not explicit and ray_address and ray_address != "auto":
        return None if ray_address == "local" else _find(ray_address)
    sock = _running_here()
    if sock is None and (explicit == "auto" or ray_address == "auto"):
        raise NoNode(
            "no rserve of this user runs on this machine: start one with `rserve head`, or leave "
            "the address out to have one started"
        )
    return sock


# --- starting one -------------------------------------------------------------------------------


def _binary() -> str:
    name = os.environ.get("RSERVE_BIN")
    if name and os.access(name, os.X_OK):
        return name
    beside = os.path.join(os.path.dirname(os.path.abspath(sys.executable)), "rserve")
    if os.access(beside, os.X_OK):
        return beside
    found = shutil.which("rserve")
    if found is None:
        raise NoNode(
            "the program `rserve` is not found: put it on PATH, name it in RSERVE_BIN, or start "
            "this program with `rserve python`"
        )
    return found


def _dashboard_port() -> int:
    """Ray's, so that `rserve status` finds the node, or any free one if that is taken."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 8265))
        except OSError:
            return 0
    return 8265


def _start(options: Dict[str, Any]) -> Tuple[socket.socket, "subprocess.Popen[bytes]"]:
    binary = _binary()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    command = [binary, "instance", "--fd", str(theirs.fileno()), "--quiet"]
    command += ["--python", sys.executable or "python3"]
    command += ["--dashboard-port", str(options.get("dashboard_port") or _dashboard_port())]
    if options.get("dashboard_host"):
        command += ["--dashboard-host", str(options["dashboard_host"])]
    for name in ("num_cpus", "num_gpus", "memory"):
        if options.get(name) is not None:
            command += ["--" + name.replace("_", "-"), str(options[name])]
    if options.get("resources"):
        command += ["--resources", json.dumps(options["resources"])]
    environ = dict(os.environ)
    environ["PYTHONPATH"] = _without_library(environ.get("PYTHONPATH", ""))
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=2,  # the program's stdout is its own
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
            env=environ,
        )
    except OSError as e:
        ours.close()
        raise NoNode(f"cannot run {command[0]}: {e.strerror}") from None
    finally:
        theirs.close()
    return ours, process


def _without_library(path: str) -> str:
    """PYTHONPATH without the entry that `rserve python` added: the node adds its own."""
    parts = [p for p in path.split(os.pathsep) if p]
    return os.pathsep.join(p for p in parts if not os.path.basename(p).startswith("rserve-"))


# --- the connection of this process -------------------------------------------------------------


def link() -> Optional[DriverLink]:
    """The connection of this program, or None."""
    return _link if _link is not None and not _link.gone else None


def open_link(address: Optional[str] = None, **options: Any) -> DriverLink:
    """Connects to a node, or starts one with `options` (num_cpus, num_gpus, memory, resources,
    dashboard_host, dashboard_port). Raises NoNode. From any thread.
    """
    global _link
    with _lock:
        if _after_fork:
            raise NoNode("this process was forked from one that is connected to rserve")
        if _link is not None and not _link.gone:
            return _link
        sock = _find(address)
        process = None
        if sock is None:
            sock, process = _start(options)
        fresh = DriverLink(sock, process)
        try:
            fresh.open()
        except NoNode:
            if process is not None:
                status = process.wait(10)
                raise NoNode(f"rserve ended with status {status} when it was started") from None
            raise
        _link = fresh
        return fresh


def close_link() -> None:
    """Disconnects. A node that was started here ends. Nothing happens without a connection."""
    global _link
    with _lock:
        old, _link = _link, None
    if old is not None:
        old.close()


def connect(what: str) -> _node.NodeLink:
    """See `_node.require`."""
    from ray.serve.exceptions import RayServeException

    try:
        return open_link()
    except NoNode as e:
        raise RayServeException(f"{what}: {e}") from None


def _forked() -> None:
    """A child has no thread that reads the connection; it must not use it, nor end it."""
    global _after_fork, _link
    if _link is not None:
        _after_fork = True
        _link = None
        _node.set_current(None)


atexit.register(close_link)
os.register_at_fork(after_in_child=_forked)


def wait_until(check: Any, timeout_s: Optional[float]) -> bool:
    """Calls `check` until it is true, soon at first and then less often; false after the time."""
    give_up = None if timeout_s is None else time.monotonic() + timeout_s
    pause = 0.005
    while not check():
        if give_up is not None and time.monotonic() >= give_up:
            return False
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)
    return True
