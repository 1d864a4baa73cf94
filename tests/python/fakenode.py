"""Plays the node for tests of the Python runtime: starts zygotes, forks replicas, routes their
calls.

Everything happens in the test's own thread: each operation reads from all sockets until what it
waits for has come, or fails after TIMEOUT seconds.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import deque
from pathlib import Path
from typing import Any, Callable, Deque, Dict, List, Optional, Tuple

ROOT = Path(os.environ.get("RSERVE_PYRUNTIME") or Path(__file__).parents[2] / "sched/pyruntime")
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from fakeobjects import Objects  # noqa: E402
from rserve import _wire as w  # noqa: E402

PYTHON = os.environ.get("RSERVE_TEST_PYTHON", sys.executable)
TIMEOUT = 30.0
HAS_FASTAPI = (
    subprocess.run([PYTHON, "-c", "import fastapi"], stderr=subprocess.DEVNULL).returncode == 0
)
#: Warnings are errors, unless they may come from packages that are not ours.
WARNINGS = "default" if HAS_FASTAPI else "error"

ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: forked replicas become ours


class Answer:
    """What came back on a stream."""

    def __init__(self) -> None:
        self.fields: Dict[int, bytes] = {}
        self.error: Optional[Dict[int, bytes]] = None
        self.error_body = b""
        self.parts: List[bytes] = []
        self.frames = 0
        self.ended = False
        self.started = False

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)

    @property
    def status(self) -> int:
        return w.number(self.fields, w.T_STATUS)

    @property
    def headers(self) -> List[Tuple[bytes, bytes]]:
        return w.unpack_headers(self.fields.get(w.T_HEADERS, b""))

    def header(self, name: str) -> Optional[str]:
        for n, v in self.headers:
            if n.decode() == name:
                return v.decode("latin-1")
        return None

    @property
    def code(self) -> int:
        return w.number(self.error or {}, w.T_ERROR_CODE)

    @property
    def message(self) -> str:
        return w.text(self.error or {}, w.T_MESSAGE)

    def value(self) -> Any:
        from rserve._values import decode_value

        assert self.error is None, (self.code, self.message, w.text(self.error, w.T_TRACEBACK))
        return decode_value(self.fields.get(w.T_CONTENT_TYPE, b""), self.body)


class Peer:
    """The node's end of one connection."""

    def __init__(self, node: "FakeNode", sock: socket.socket, name: str) -> None:
        self.node = node
        self.sock = sock
        self.name = name
        self.reader = w.Reader(sock)
        self.inbox: Deque[w.Frame] = deque()
        self.control: Deque[w.Frame] = deque()
        self.gone = False
        self.pid = 0
        self.ready: Dict[str, Any] = {}
        self.next_stream = 2
        self.answers: Dict[int, Answer] = {}
        #: stream of ours -> (caller's Peer, caller's stream) for routed calls
        self.routed: Dict[int, Tuple["Peer", int]] = {}
        #: caller's stream -> (callee's Peer, callee's stream)
        self.outgoing: Dict[int, Tuple["Peer", int]] = {}
        #: streams of its calls that wait for objects
        self.waiting: "set[int]" = set()
        self.credit: List[Tuple[int, int]] = []
        self.auto_window = True
        self.out_path = ""
        self.err_path = ""

    def stream(self) -> int:
        self.next_stream += 2
        return self.next_stream - 2

    def send(self, kind: int, flags: int, stream: int, meta: bytes = b"", body: Any = b"") -> None:
        self.sock.setblocking(True)
        w.send_frame(self.sock, kind, flags, stream, meta, body)

    def send_json(self, kind: int, message: Dict[str, Any], stream: int = 0) -> None:
        self.sock.setblocking(True)
        w.send_json(self.sock, kind, message, stream)

    def stdout(self) -> str:
        return Path(self.out_path).read_text()

    def stderr(self) -> str:
        return Path(self.err_path).read_text()

    # --- HTTP

    def open_http(
        self,
        path: str = "/",
        method: str = "GET",
        query: str = "",
        headers: Optional[List[Tuple[str, str]]] = None,
        body: bytes = b"",
        root_path: str = "",
        end: bool = True,
        request_id: str = "test-request-id",
        kind: int = w.KIND_HTTP,
    ) -> int:
        block = b"".join(
            n.lower().encode() + b"\0" + v.encode("latin-1") + b"\0" for n, v in headers or []
        )
        meta = (
            w.field_u8(w.T_KIND, kind)
            + w.field_str(w.T_REQUEST_ID, request_id)
            + w.field_str(w.T_APP, self.node.app)
            + w.field_str(w.T_ROUTE, root_path or "/")
            + w.field_str(w.T_HTTP_METHOD, method)
            + w.field(w.T_PATH, path.encode())
            + w.field(w.T_QUERY, query.encode())
            + w.field(w.T_HEADERS, block)
            + w.field_str(w.T_ROOT_PATH, root_path)
            + w.field_str(w.T_CLIENT, "127.0.0.1:50000")
            + w.field_str(w.T_SERVER, "127.0.0.1:8000")
            + w.field_str(w.T_SCHEME, "http")
            + w.field_str(w.T_HTTP_VERSION, "1.1")
        )
        stream = self.stream()
        self.answers[stream] = Answer()
        self.send(w.REQUEST, w.END if end else 0, stream, meta, body)
        return stream

    def http(self, path: str = "/", **kwargs: Any) -> Answer:
        return self.wait(self.open_http(path, **kwargs))

    # --- handle calls

    def open_call(
        self, method: str = "__call__", *args: Any, stream: bool = False, **kwargs: Any
    ) -> int:
        meta = (
            w.field_u8(w.T_KIND, w.KIND_CALL)
            + w.field_str(w.T_REQUEST_ID, "test-call-id")
            + w.field_str(w.T_METHOD, method)
            + w.field(w.T_CONTENT_TYPE, w.PICKLE)
        )
        if stream:
            meta += w.field_u8(w.T_STREAM, 1)
        number = self.stream()
        self.answers[number] = Answer()
        self.send(w.REQUEST, w.END, number, meta, pickle.dumps((args, kwargs), 5))
        return number

    def call(self, method: str = "__call__", *args: Any, **kwargs: Any) -> Answer:
        return self.wait(self.open_call(method, *args, **kwargs))

    def wait(self, stream: int) -> Answer:
        answer = self.answers[stream]
        self.node.pump(lambda: answer.ended or self.gone, f"an answer on stream {stream}")
        if not answer.ended:
            raise AssertionError(f"{self.name} hung up; stderr:\n{self.stderr()}")
        return answer

    def cancel(self, stream: int) -> None:
        self.answers.pop(stream, None)
        self.send(w.CANCEL, 0, stream)

    # --- control

    def expect(self, *kinds: int) -> w.Frame:
        def there() -> bool:
            return any(f.type in kinds for f in self.control) or self.gone

        self.node.pump(there, f"message {kinds} from {self.name}")
        for frame in list(self.control):
            if frame.type in kinds:
                self.control.remove(frame)
                return frame
        errors = self.stderr() if self.err_path else ""
        raise AssertionError(f"{self.name} hung up before message {kinds}; stderr:\n{errors}")

    def expect_json(self, *kinds: int) -> Dict[str, Any]:
        return w.parse_json(self.expect(*kinds))

    def ping(self) -> Dict[str, Any]:
        stream = self.stream()
        self.send(w.PING, 0, stream)
        frame = self.expect(w.PONG)
        assert frame.stream == stream
        return w.parse_json(frame)

    def stop(self, wait_loop_s: float = 0.1) -> None:
        self.send_json(w.STOP, {"wait_loop_s": wait_loop_s})

    def wait_gone(self) -> None:
        self.node.pump(lambda: self.gone, f"{self.name} to hang up")

    def exit_status(self) -> int:
        self.wait_gone()
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return status


class FakeNode:
    """One application in one temporary folder."""

    def __init__(self, source: str = "", app: str = "default", **files: str) -> None:
        self.app = app
        self._folder = tempfile.TemporaryDirectory(prefix="rserve-test-")
        self.folder = Path(self._folder.name)
        if source:
            (self.folder / "app.py").write_text(textwrap.dedent(source))
        for name, text in files.items():
            (self.folder / f"{name}.py").write_text(textwrap.dedent(text))
        self.selector = selectors.DefaultSelector()
        self.zygote: Optional[Peer] = None
        self.process: Optional[subprocess.Popen[bytes]] = None
        self.spawned: "List[subprocess.Popen[bytes]]" = []
        self.replicas: Dict[str, Peer] = {}
        self.apps: Dict[str, Dict[str, Any]] = {}
        self.graph: Dict[str, Any] = {}
        self.calls: List[Dict[int, bytes]] = []
        #: environment variables of the replicas that are started next
        self.env: Dict[str, str] = {}
        self.objects = Objects(self)
        #: (deployment, fields) -> an ERROR frame's fields instead of routing, or None
        self.refuse: Callable[[str, Dict[int, bytes]], Optional[bytes]] = lambda d, f: None

    def __enter__(self) -> "FakeNode":
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()

    def close(self) -> None:
        for peer in [*self.replicas.values(), *([self.zygote] if self.zygote else [])]:
            peer.sock.close()
            if peer.pid and peer is not self.zygote:
                try:
                    os.kill(peer.pid, signal.SIGKILL)
                    os.waitpid(peer.pid, 0)
                except (ProcessLookupError, ChildProcessError):
                    pass
        for process in self.spawned:
            process.poll()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.selector.close()
        self._folder.cleanup()

    def environment(self, fd: int) -> Dict[str, str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "RSERVE"))}
        env["PYTHONPATH"] = str(ROOT)
        env["RSERVE_FD"] = str(fd)
        return env

    def _popen(
        self, module: str, sock: socket.socket, environment: Dict[str, str], name: str
    ) -> "subprocess.Popen[bytes]":
        with (
            open(self.folder / f"{name}.out", "wb") as out,
            open(self.folder / f"{name}.err", "wb") as err,
        ):
            process = subprocess.Popen(
                [PYTHON, "-W", WARNINGS, "-m", module],
                pass_fds=[sock.fileno()],
                env=environment,
                cwd=self.folder,
                stdout=out,
                stderr=err,
            )
        sock.close()
        return process

    # --- zygote

    def start_zygote(self, **env: str) -> Dict[str, Any]:
        ours, theirs = socket.socketpair()
        environment = self.environment(theirs.fileno())
        environment.update(env)
        self.process = self._popen("rserve.zygote", theirs, environment, "zygote")
        self.zygote = self._peer(ours, "zygote")
        self.zygote.err_path = str(self.folder / "zygote.err")
        self.zygote.out_path = str(self.folder / "zygote.out")
        return self.zygote.expect_json(w.HELLO)

    def build(
        self, import_path: str = "app:app", args: Optional[Dict[str, Any]] = None
    ) -> Dict[str, Any]:
        """GRAPH, or FAILED."""
        if self.zygote is None:
            self.start_zygote()
        assert self.zygote is not None
        self.zygote.send_json(
            w.BUILD,
            {
                "app": self.app,
                "import_path": import_path,
                "app_dir": str(self.folder),
                "args": args or {},
                "runtime_env": {},
            },
        )
        message = self.zygote.expect_json(w.GRAPH, w.FAILED)
        if "deployments" in message:
            self.graph = message
            self.apps[self.app] = message
        return message

    # --- replicas

    def fork(self, deployment: str, start: bool = True, **config: Any) -> Peer:
        """A forked replica, READY unless `start` is false."""
        assert self.zygote is not None
        ours, theirs = socket.socketpair()
        number = len(self.replicas)
        out, err = self.folder / f"r{number}.out", self.folder / f"r{number}.err"
        with open(out, "wb") as o, open(err, "wb") as e:
            self.zygote.sock.setblocking(True)
            w.send_frame(
                self.zygote.sock,
                w.FORK,
                meta=b'{"replica_id": "abcd%04d"}' % number,
                fds=(theirs.fileno(), o.fileno(), e.fileno()),
            )
        theirs.close()
        message = self.zygote.expect_json(w.FORKED, w.FAILED)
        assert "pid" in message, message
        peer = self._peer(ours, deployment)
        peer.pid = message["pid"]
        peer.out_path, peer.err_path = str(out), str(err)
        self.replicas[f"{deployment}/{number}"] = peer
        return self._init(peer, deployment, number, start, config)

    def spawn(
        self, deployment: str, import_path: str = "app:app", start: bool = True, **config: Any
    ) -> Peer:
        """A replica in an interpreter of its own."""
        ours, theirs = socket.socketpair()
        number = len(self.replicas)
        out, err = self.folder / f"r{number}.out", self.folder / f"r{number}.err"
        environment = self.environment(theirs.fileno())
        process = self._popen("rserve.replica", theirs, environment, f"r{number}")
        self.spawned.append(process)
        peer = self._peer(ours, deployment)
        peer.pid = process.pid
        peer.out_path, peer.err_path = str(out), str(err)
        self.replicas[f"{deployment}/{number}"] = peer
        return self._init(peer, deployment, number, start, config, import_path)

    def _init(
        self,
        peer: Peer,
        deployment: str,
        number: int,
        start: bool,
        config: Dict[str, Any],
        import_path: Optional[str] = None,
    ) -> Peer:
        hello = peer.expect_json(w.HELLO)
        assert hello == {"protocol": 1, "kind": "python", "pid": peer.pid, "starts": True}, hello
        peer.send_json(
            w.INIT,
            {
                "app": self.app,
                "deployment": deployment,
                "replica_id": f"abcd{number:04d}",
                "node_id": "node1",
                "rank": number,
                "world_size": 1,
                "ingress": deployment == self.graph.get("ingress"),
                "route_prefix": "/",
                "import_path": import_path,
                "app_dir": str(self.folder),
                "args": {},
                "config": config,
                "env": self.env,
            },
        )
        if start:
            message = peer.expect_json(w.READY, w.FAILED)
            assert "methods" in message, message
            peer.ready = message
        return peer

    def serve(self, source_import: str = "app:app", **config: Any) -> Peer:
        """Builds, forks one replica of each deployment, gives the ingress."""
        graph = self.build(source_import)
        assert "deployments" in graph, graph
        ingress = None
        for node in graph["deployments"]:
            peer = self.fork(node["name"], **{**node["options"], **config})
            if node["name"] == graph["ingress"]:
                ingress = peer
        assert ingress is not None
        return ingress

    # --- the loop

    def _peer(self, sock: socket.socket, name: str) -> Peer:
        peer = Peer(self, sock, name)
        self.selector.register(sock, selectors.EVENT_READ, peer)
        return peer

    def pump(self, until: Callable[[], bool], what: str = "") -> None:
        deadline = time.monotonic() + TIMEOUT
        while not until():
            left = deadline - time.monotonic()
            if left <= 0:
                errors = "".join(p.stderr()[-2000:] for p in self.replicas.values() if p.err_path)
                raise AssertionError(f"timed out waiting for {what}; stderr:\n{errors}")
            for key, _ in self.selector.select(left):
                self._read(key.data)

    def eventually(self, get: Callable[[], Any], good: Callable[[Any], bool]) -> Any:
        """What `get` gives once it is good, or after TIMEOUT seconds."""
        deadline = time.monotonic() + TIMEOUT
        value = get()
        while not good(value) and time.monotonic() < deadline:
            self.pump_for(0.02)
            value = get()
        return value

    def pump_for(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for key, _ in self.selector.select(max(0.0, until - time.monotonic())):
                self._read(key.data)

    def _read(self, peer: Peer) -> None:
        peer.sock.setblocking(False)
        try:
            peer.reader.read(peer.inbox)
        except BlockingIOError:
            return
        except (w.HangUp, ConnectionError):
            peer.gone = True
            self.selector.unregister(peer.sock)
        while peer.inbox:
            self._on_frame(peer, peer.inbox.popleft())

    def _on_frame(self, peer: Peer, frame: w.Frame) -> None:
        stream = frame.stream
        if self.objects.on_frame(peer, frame):
            return
        if frame.type == w.LOOKUP:
            self._on_lookup(peer, frame)
        elif frame.type == w.REQUEST:
            self._route(peer, frame)
        elif frame.type in (w.RESPONSE, w.BODY, w.ERROR) and not stream & 1:
            self._on_answer(peer, frame)
        elif frame.type == w.CANCEL:
            peer.waiting.discard(stream)
            target = peer.outgoing.pop(stream, None)
            if target is not None:
                target[0].routed.pop(target[1], None)
                target[0].send(w.CANCEL, 0, target[1])
        elif frame.type == w.WINDOW:
            size = w.number(w.parse_fields(frame.meta), w.T_CREDIT)
            peer.credit.append((stream, size))
            target = peer.outgoing.get(stream)
            if target is not None:
                target[0].send(w.WINDOW, 0, target[1], frame.meta)
        else:
            peer.control.append(frame)

    def _on_answer(self, peer: Peer, frame: w.Frame) -> None:
        back = peer.routed.get(frame.stream)
        if back is not None:
            caller, stream = back
            if frame.type != w.BODY and frame.flags & w.END:
                self.objects.answer(caller, stream, frame.type, frame.meta, frame.body)
            else:
                caller.send(frame.type, frame.flags & w.END, stream, frame.meta, frame.body)
            if frame.flags & w.END or frame.type == w.ERROR:
                peer.routed.pop(frame.stream, None)
                caller.outgoing.pop(stream, None)
            return
        answer = peer.answers.get(frame.stream)
        if answer is None:
            return
        answer.frames += 1
        if frame.type == w.ERROR:
            answer.error = w.parse_fields(frame.meta)
            answer.error_body = frame.body
            answer.ended = True
            return
        if frame.type == w.RESPONSE:
            answer.fields = w.parse_fields(frame.meta)
            answer.started = True
        if frame.body or w.T_ITEMS in answer.fields and frame.type == w.BODY and not frame.flags:
            answer.parts.append(frame.body)
        if frame.flags & w.END:
            answer.ended = True
        elif peer.auto_window and frame.body:
            peer.send(w.WINDOW, 0, frame.stream, w.field_u32(w.T_CREDIT, len(frame.body)))

    def _route(self, caller: Peer, frame: w.Frame) -> None:
        self.calls.append(w.parse_fields(frame.meta))
        if not self.objects.before_route(caller, frame, lambda: self._send(caller, frame)):
            self._send(caller, frame)

    def _send(self, caller: Peer, frame: w.Frame) -> None:
        fields = w.parse_fields(frame.meta)
        name = w.text(fields, w.T_DEPLOYMENT)
        refused = self.refuse(name, fields)
        if refused is not None:
            caller.send(w.ERROR, w.END, frame.stream, refused)
            return
        for callee in self.replicas.values():
            if callee.name == name and not callee.gone:
                stream = callee.stream()
                callee.routed[stream] = (caller, frame.stream)
                caller.outgoing[frame.stream] = (callee, stream)
                self.objects.grant(callee, frame.meta)
                callee.send(w.REQUEST, frame.flags & w.END, stream, frame.meta, frame.body)
                return
        raise AssertionError(f"no replica of {name}")

    def _on_lookup(self, peer: Peer, frame: w.Frame) -> None:
        message = w.parse_json(frame)
        graph = self.apps.get(message["app"])
        names = [d["name"] for d in graph["deployments"]] if graph else []
        peer.send_json(
            w.FOUND,
            {
                "app_exists": graph is not None,
                "ingress": graph["ingress"] if graph else None,
                "exists": message["deployment"] in names,
                "deployments": names,
            },
            frame.stream,
        )
