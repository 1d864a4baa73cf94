"""A replica's one connection to its node: reads and sorts frames, writes answers, makes calls.

Frames that come together are read together, and what one turn of the loop writes leaves in one
system call. Everything belongs to the event loop's thread except the methods that say otherwise.

User code may block that thread. Then another one (_watch.py) reads in its place: answers to calls
of threads are passed on, pings answered, cancellations noted; what only the loop can do waits for
it in the inbox. That is why reading is done under a lock, and why no user code runs while frames
lie in the inbox: requests are started after everything that came with them was looked at.
"""

from __future__ import annotations

import asyncio
import itertools
import mmap
import os
import select
import socket
import sys
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional, Tuple

from rserve import _wire as w
from rserve._call import Call

#: Messages that answer a `question`, by its stream number.
ANSWERS = frozenset((w.FOUND, w.ANSWER, w.CORE_REPLY))

#: Messages that always are about a call of this process.
_TO_CALLS = frozenset((w.RESPONSE, w.ERROR, w.RESERVED))

#: Fields of the ERROR that ends a call that was cancelled.
_ENDED = w.field_u8(w.T_ERROR_CODE, w.E_CANCELLED)

_current: Optional["NodeLink"] = None


def current() -> Optional["NodeLink"]:
    """The connection of this process; None in a program outside that has not connected (yet)."""
    return _current


def require(what: str) -> "NodeLink":
    """The connection of this process. A program outside connects to a node, or starts one, now.

    `what` is what the user called, for the error. Raises RayServeException when there is no node.
    From any thread.
    """
    if _current is not None:
        return _current
    from rserve import _driver

    return _driver.connect(what)


def set_current(link: "Optional[NodeLink]") -> None:
    """Makes `link` the connection of this process; None: there is none any more."""
    global _current
    _current = link


_forks_watched = False


def _watch_forks() -> None:
    """Once: a child that user code forks gets no share in the connection, which is its parent's."""
    global _forks_watched
    if not _forks_watched:
        _forks_watched = True
        os.register_at_fork(after_in_child=_forked)


def _forked() -> None:
    link = _current
    fd = -1 if link is None else link.sock.fileno()
    if fd >= 0:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, fd, inheritable=False)
        os.close(null)


class PendingCall:
    """A call that this replica made; the handle's response object derives from it.

    All three are called on the loop's thread.
    """

    def on_answer(self, frame: w.Frame) -> None:
        raise NotImplementedError

    def on_error(self, error: BaseException) -> None:
        raise NotImplementedError


class NodeLink:
    """See the module. `on_request` and `on_control` are set by the replica before `start`."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.app = ""
        self.deployment = ""
        self.replica_id = ""
        self.node_id = ""
        self.loop: asyncio.AbstractEventLoop = None  # type: ignore[assignment]
        self.thread_id = threading.get_ident()
        self.calls: Dict[int, Call] = {}
        self.on_request: Callable[[Call], None] = lambda call: None
        self.on_control: Callable[[w.Frame], None] = lambda frame: None
        #: Answers a PING in the loop's place (stream, seconds it was blocked); false: it must wait.
        self.on_blocked_ping: Callable[[int, float], bool] = lambda stream, blocked_s: False
        #: Grows whenever the loop gets to its socket.
        self.turns = 0
        #: Memory in which the node sees what was begun; see PROTOCOL.md, "Replica".
        self.starts: Optional[memoryview] = None
        self._reading = threading.Lock()
        self._reader = w.Reader(sock)
        self._inbox: Deque[w.Frame] = deque()
        self._fresh: Deque[Call] = deque()
        self._resumed: Deque[Tuple[Callable[[Any], None], Any]] = deque()
        self._dispatching = False
        self._out: Deque[bytes] = deque()
        #: Frames that have not been handed to the socket; for those who flush.
        self.unsent = self._out
        self._flush_due = False
        self._lock = threading.Lock()
        self._backlog: Deque[Tuple[memoryview, int]] = deque()
        self._pending: Dict[int, PendingCall] = {}
        self._streams = itertools.count(1, 2)
        self._answers: Dict[int, Dict[str, Any]] = {}
        self._askers: "Dict[int, Callable[[Dict[str, Any]], None]]" = {}

    def share_starts(self, fd: int) -> None:
        """The descriptor that came with INIT; taken."""
        try:
            self.starts = memoryview(mmap.mmap(fd, 16 * w.STARTS)).cast("Q")
        finally:
            os.close(fd)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Joins the event loop; makes this the connection of the process."""
        self.loop = loop
        self.thread_id = threading.get_ident()
        self.sock.setblocking(False)
        loop.add_reader(self.sock.fileno(), self._on_readable)
        set_current(self)
        _watch_forks()

    def lost(self, why: str) -> None:
        """The node is gone, or (with a reason) does not keep to the protocol: a replica ends."""
        if why:
            print(f"rserve: the node's connection broke: {why}", file=sys.stderr, flush=True)
        leave(1 if why else 0)

    # --- in

    def _on_readable(self) -> None:
        self.turns += 1
        try:
            with self._reading:
                self._reader.read(self._inbox)
        except (BlockingIOError, InterruptedError):
            pass
        except w.HangUp:
            self.lost("")
            return
        except (w.ProtocolError, OSError) as e:
            self.lost(str(e))
            return
        self._flush_due = True  # nobody needs to schedule it: it comes right after
        self._dispatch()
        self.flush()

    def _dispatch(self) -> None:
        self._dispatching = True
        try:
            self._dispatch_all()
        finally:
            self._dispatching = False

    def _dispatch_all(self) -> None:
        inbox = self._inbox
        while inbox:
            frame = inbox.popleft()
            kind = frame[0]
            try:
                if kind == w.REQUEST:
                    self._on_request(frame)
                elif kind in _TO_CALLS or (kind == w.BODY and frame.stream & 1):
                    self._on_answer(frame)
                elif kind == w.BODY:
                    call = self.calls.get(frame.stream)
                    if call is not None:
                        call.feed(frame.body, frame.flags & w.END)
                elif kind == w.CANCEL:
                    call = self.calls.pop(frame.stream, None)
                    if call is not None:
                        call.cancel()
                elif kind == w.WINDOW:
                    call = self.calls.get(frame.stream)
                    if call is not None:
                        call.add_credit(w.number(w.parse_fields(frame.meta), w.T_CREDIT))
                elif kind in ANSWERS and frame.stream:
                    self._on_told(frame)
                else:
                    self.on_control(frame)
            except w.ProtocolError as e:
                self.lost(str(e))
                return
        self._go_on()
        fresh = self._fresh
        starts = self.starts
        while fresh:
            call = fresh.popleft()
            if call.cancelled:
                self.tell_end(call)
                continue
            if starts is not None:
                stream = call.stream
                place = (stream >> 1) % w.STARTS
                starts[place] = stream
                if starts[place + w.STARTS] == stream:  # the node takes it back
                    starts[place] = stream - 1
                    self.calls.pop(stream, None)
                    # It may have seen our mark meanwhile, and have left it here after all.
                    self.send(w.pack(w.CANCEL, 0, stream, b""))
                    continue
            self.on_request(call)

    def resume(self, function: Callable[[Any], None], argument: Any) -> None:
        """Calls this as soon as everything was looked at that came with what is looked at now."""
        self._resumed.append((function, argument))
        if not self._dispatching:
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        resumed = self._resumed
        while resumed:
            function, argument = resumed.popleft()
            function(argument)

    def _dispatch_answers(self) -> None:
        """The answers alone: what handles them runs no user code. The rest stays where it is."""
        left = []
        while self._inbox:
            frame = self._inbox.popleft()
            kind = frame[0]
            if kind in _TO_CALLS or (kind == w.BODY and frame.stream & 1):
                self._on_answer(frame)
            elif kind in ANSWERS and frame.stream:
                self._on_told(frame)
            else:
                left.append(frame)
        self._inbox.extend(left)

    def _on_request(self, frame: w.Frame) -> None:
        _, flags, stream, meta, body, _ = frame
        if stream & 1 or stream == 0 or stream in self.calls:
            raise w.ProtocolError(f"a request cannot have stream number {stream}")
        fields = w.parse_fields(meta)
        call = Call(self, stream, fields, body, flags & w.END)
        if w.T_OBJECTS in fields:
            from rserve._objects import adopt

            call.refs = adopt(fields)
        self.calls[stream] = call
        self._fresh.append(call)

    # --- in, while the loop is blocked; on the watching thread

    def stand_in(self, blocked_s: float) -> None:
        """Reads what has come and does with it what can be done without the loop."""
        frames: Deque[w.Frame] = deque()
        with self._reading:
            try:
                self._reader.read(frames)
                for frame in frames:
                    if not self._stand_in_for(frame, blocked_s):
                        self._inbox.append(frame)
            except (BlockingIOError, InterruptedError):
                pass
            except w.HangUp:
                self.lost("")
            except (w.ProtocolError, OSError) as e:
                self.lost(str(e))
        with self._lock:
            self._gather()
            self._write()
        if frames:
            self.loop.call_soon_threadsafe(self._resume)

    def _stand_in_for(self, frame: w.Frame, blocked_s: float) -> bool:
        kind, stream = frame.type, frame.stream
        if kind == w.REQUEST:
            self._on_request(frame)
            return True
        if kind == w.PING:
            return self.on_blocked_ping(stream, blocked_s)
        if kind == w.CANCEL:
            call = self.calls.get(stream)
            if call is not None and (call.threaded or call in self._fresh):
                call.cancelled = True  # it need not be started; the loop does the rest
            return False
        mine = kind in _TO_CALLS or (kind == w.BODY and stream & 1)
        if not mine and (kind not in ANSWERS or not stream):
            return False
        if any(f.stream == stream for f in list(self._inbox)):
            return False
        if mine:
            self._on_answer(frame)
        else:
            self._on_told(frame)
        return True

    def _resume(self) -> None:
        """The loop is back."""
        self.turns += 1
        self._flush_due = True
        self._dispatch()
        self.flush()

    def wants_to_write(self) -> bool:
        """Whether the socket was full. From any thread."""
        return bool(self._backlog)

    def send_now(self, data: bytes) -> None:
        """Sends a frame without waiting for the loop. From any thread but the loop's."""
        self._send_now(data, -1)

    def _on_answer(self, frame: w.Frame) -> None:
        if frame.flags & w.END or frame.type == w.ERROR:
            pending = self._pending.pop(frame.stream, None)
        else:
            pending = self._pending.get(frame.stream)
        if pending is not None:
            pending.on_answer(frame)

    # --- out

    def send(self, data: bytes) -> None:
        """Queues a frame that holds no descriptor; it leaves at the end of this turn.

        From another thread (one that stands in for the loop) it leaves at once.
        """
        if threading.get_ident() != self.thread_id:
            self._send_now(data, -1)
            return
        self._out.append(data)
        if not self._flush_due:
            self._flush_due = True
            self.loop.call_soon(self.flush)

    def send_frame(self, kind: int, flags: int, stream: int, meta: bytes, body: Any) -> None:
        """Queues a frame; a long body goes by memfd."""
        if len(body) <= w.MEMFD_FROM:
            self.send(w.pack(kind, flags, stream, meta, body))
            return
        self._send_fd(*w.pack_memfd(kind, flags, stream, meta, body))

    def _send_fd(self, data: bytes, fd: int) -> None:
        if threading.get_ident() != self.thread_id:
            self._send_now(data, fd)
            return
        with self._lock:
            self._gather()
            self._backlog.append((memoryview(data), fd))
            self._push()

    def send_json(self, kind: int, message: Dict[str, Any], stream: int = 0) -> None:
        self.send(w.pack_json(kind, message, stream))

    def reply(self, call: Call, meta: bytes, body: Any) -> None:
        """The whole answer of a call in one frame. From any thread."""
        if self.calls.pop(call.stream, None) is None:
            return
        call.answered = True
        if call.threaded and len(body) <= w.MEMFD_FROM:
            self._leave(w.pack(w.RESPONSE, w.END, call.stream, meta, body))
        else:
            self.send_from_any(w.RESPONSE, w.END, call.stream, meta, body)

    def tell_end(self, call: Call) -> None:
        """The work for a call that was cancelled has ended: its slot is free. From any thread."""
        self.send_from_any(w.ERROR, w.END, call.stream, _ENDED, b"")

    def reply_error(self, call: Call, frame: bytes) -> None:
        """Ends a call with an ERROR frame. From any thread."""
        if self.calls.pop(call.stream, None) is None:
            return
        call.answered = True
        if call.threaded:
            self._leave(frame)
        else:
            self.send(frame)

    def _leave(self, frame: bytes) -> None:
        """Queues an answer of a call that a thread works on: that thread flushes, soon."""
        if threading.get_ident() == self.thread_id:
            self.send(frame)
        else:
            self._out.append(frame)

    def send_from_any(self, kind: int, flags: int, stream: int, meta: bytes, body: Any) -> None:
        if threading.get_ident() == self.thread_id:
            if len(body) <= w.MEMFD_FROM:
                self._out.append(
                    w.pack_header(len(meta), kind, flags, 0, stream, len(body)) + meta + body
                )
                if not self._flush_due:
                    self._flush_due = True
                    self.loop.call_soon(self.flush)
            else:
                self.send_frame(kind, flags, stream, meta, body)
        elif len(body) <= w.MEMFD_FROM:
            self._send_now(w.pack(kind, flags, stream, meta, body), -1)
        else:
            data, fd = w.pack_memfd(kind, flags, stream, meta, body)
            self._send_now(data, fd)

    def _send_now(self, data: bytes, fd: int) -> None:
        """From another thread: behind what the loop has queued, at once unless the socket is full.

        So a frame that names an object comes behind the one that makes it, whoever sent that.
        """
        with self._lock:
            first = not self._backlog
            self._gather()
            self._backlog.append((memoryview(data), fd))
            blocked = first and not self._write()  # else a writer is already registered
        if blocked:
            self.loop.call_soon_threadsafe(self._want_write)

    def flush(self) -> None:
        """Writes what is queued."""
        self._flush_due = False
        with self._lock:
            self._gather()
            self._push()

    def flush_now(self) -> None:
        """The same from any thread but the loop's."""
        with self._lock:
            first = not self._backlog
            self._gather()
            blocked = first and not self._write()
        if blocked:
            self.loop.call_soon_threadsafe(self._want_write)

    def _gather(self) -> None:
        """Others may add to `_out` meanwhile. The lock is held."""
        out = self._out
        count = len(out)
        if count == 1:
            self._backlog.append((memoryview(out.popleft()), -1))
        elif count:
            self._backlog.append((memoryview(b"".join([out.popleft() for _ in range(count)])), -1))

    def _push(self) -> None:
        if not self._write():
            self.loop.add_writer(self.sock.fileno(), self._on_writable)

    def _want_write(self) -> None:
        with self._lock:
            self._push()

    def _on_writable(self) -> None:
        with self._lock:
            if self._write():
                self.loop.remove_writer(self.sock.fileno())

    def _write(self) -> bool:
        """Writes the backlog; false when the socket is full. The lock is held."""
        backlog = self._backlog
        while backlog:
            data, fd = backlog[0]
            try:
                if fd < 0:
                    sent = self.sock.send(data)
                else:
                    sent = w.send_with_fds(self.sock, data, [fd])
                    os.close(fd)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError:
                backlog.clear()
                self.lost("")
                return True
            if sent == len(data):
                backlog.popleft()
            else:
                backlog[0] = (data[sent:], -1)
        return True

    # --- calls that this replica makes

    def open_call(self, pending: PendingCall, meta: bytes, body: Any) -> int:
        """Sends a handle call; returns its stream number."""
        stream = next(self._streams)
        self._pending[stream] = pending
        size = len(body)
        if size <= w.MEMFD_FROM and threading.get_ident() == self.thread_id:
            self._out.append(
                w.pack_header(len(meta), w.REQUEST, w.END, 0, stream, size) + meta + body
            )
            if not self._flush_due:
                self._flush_due = True
                self.loop.call_soon(self.flush)
        else:
            self.send_from_any(w.REQUEST, w.END, stream, meta, body)
        return stream

    def open_call_memfd(self, pending: PendingCall, meta: bytes, size: int, fd: int) -> int:
        """The same with a body that lies in a memfd, which is taken. It leaves at once."""
        stream = next(self._streams)
        self._pending[stream] = pending
        data = w.pack_header(len(meta), w.REQUEST, w.END | w.MEMFD, 1, stream, size) + meta
        self._send_fd(data, fd)
        return stream

    def hand_over(self, stream: int, pending: PendingCall) -> bool:
        """What is told on `stream` goes to `pending` from now on; false: it has ended."""
        if stream not in self._pending:
            return False
        self._pending[stream] = pending
        return True

    def belongs_to(self, stream: int, pending: PendingCall) -> bool:
        return self._pending.get(stream) is pending

    def cancel_call(self, stream: int) -> None:
        """Tells the node that an answer is no longer wanted, unless it has come."""
        if self._pending.pop(stream, None) is not None:
            self.send(w.pack(w.CANCEL, 0, stream, b""))

    def give_credit(self, stream: int, size: int) -> None:
        if stream in self._pending:
            self.send(w.pack(w.WINDOW, 0, stream, w.field_u32(w.T_CREDIT, size)))

    # --- questions

    def lookup(self, app: str, deployment: Optional[str]) -> Dict[str, Any]:
        """Asks the node whether something exists; blocks. From any thread."""
        return self.question(w.LOOKUP, {"app": app, "deployment": deployment})

    def ask(self, message: Dict[str, Any]) -> Dict[str, Any]:
        """Asks the head; blocks. Raises the error that it answers with. From any thread."""
        answer = self.question(w.ASK, message)
        error = answer.get("error")
        if error is not None:
            raise _ask_error(str(answer.get("kind") or ""), str(error))
        return answer

    def question(self, kind: int, message: Dict[str, Any]) -> Dict[str, Any]:
        """Sends a JSON message and waits for the one of ANSWERS with its number. From any thread.

        On the loop's own thread nothing else can run meanwhile, so the socket is read here until
        the answer has come; other frames that come with it wait in the inbox.
        """
        stream = next(self._streams)
        if threading.get_ident() == self.thread_id:
            self.send_json(kind, message, stream)
            while stream not in self._answers:
                self._wait_blocking()
            return self._answers.pop(stream)
        done = threading.Event()
        answers: List[Dict[str, Any]] = []

        def told(value: Dict[str, Any]) -> None:
            answers.append(value)
            done.set()

        self._askers[stream] = told
        self.send_json(kind, message, stream)
        done.wait()
        return answers[0]

    def inquire(
        self, kind: int, message: Dict[str, Any], told: Callable[[Dict[str, Any]], None]
    ) -> None:
        """Sends a JSON message; `told` gets the one of ANSWERS with its number, on whichever thread
        reads it. From any thread."""
        stream = next(self._streams)
        self._askers[stream] = told
        self.send_json(kind, message, stream)

    def wait_for(self, done: Callable[[], bool], until: Optional[float] = None) -> bool:
        """Blocks the loop's own thread until `done` says so; false at `until` (monotonic seconds).

        Meanwhile the socket is read and answers are handled; requests wait for the loop.
        """
        self._dispatch_answers()
        while not done():
            left = 1.0 if until is None else until - time.monotonic()
            if left <= 0:
                return False
            self._wait_blocking(left)
            self._dispatch_answers()
        return True

    def _on_told(self, frame: w.Frame) -> None:
        told = self._askers.pop(frame.stream, None)
        if told is not None:
            told(w.parse_json(frame))
        else:  # the loop's own thread looks for it here
            self._answers[frame.stream] = w.parse_json(frame)

    def _wait_blocking(self, most_s: float = 1.0) -> None:
        self.flush()
        events = select.POLLIN | (select.POLLOUT if self._backlog else 0)
        poller = select.poll()
        poller.register(self.sock.fileno(), events)
        # not for long: the watching thread may have read what is waited for
        poller.poll(max(1, min(50, int(most_s * 1000))))
        self.turns += 1
        if self._backlog:
            with self._lock:
                self._write()
        fresh: Deque[w.Frame] = deque()
        try:
            with self._reading:
                self._reader.read(fresh)
        except (BlockingIOError, InterruptedError):
            pass
        except (w.HangUp, w.ProtocolError, OSError) as e:
            self.lost(str(e) or "it hung up")
        for frame in fresh:
            if frame.type in ANSWERS and frame.stream:
                self._on_told(frame)
            else:
                self._inbox.append(frame)
        if self._inbox:
            self.loop.call_soon(self._dispatch)


def _ask_error(kind: str, text: str) -> Exception:
    from ray.serve.exceptions import RayServeException

    kinds: Dict[str, Any] = {
        "ValueError": ValueError,
        "RuntimeError": RuntimeError,
        "TimeoutError": TimeoutError,
    }
    error: Exception = kinds.get(kind, RayServeException)(text)
    return error


def leave(status: int) -> None:
    """Ends the process at once, without the cleanup of a normal exit."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)
