"""User code in the control path: what the processes for policies and for request routers share.

The zygote forks them, or they start as a fresh interpreter and import the application themselves.
They answer the node's questions in the order in which they come; a question may be answered by a
coroutine, and others meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections import deque
from typing import Any, Awaitable, Callable, Deque, Dict, Optional, Set

from rserve import _log, _process
from rserve import _wire as w
from rserve._errors import one_line, user_traceback

#: A handler takes a message and returns what to answer, or an awaitable of it; None: no answer.
Handler = Callable[[Dict[str, Any]], Any]


class Helper:
    """The connection to the node: reads questions, runs their handlers, writes the answers."""

    def __init__(self, sock: socket.socket, answer_type: int) -> None:
        self._sock = sock
        self._reader = w.Reader(sock)
        self._inbox: Deque[w.Frame] = deque()
        self._answer_type = answer_type
        self._out = bytearray()
        self._tasks: Set["asyncio.Task[None]"] = set()
        self._handlers: Dict[int, Handler] = {}
        self._loop: asyncio.AbstractEventLoop = None  # type: ignore[assignment]
        self._done: "asyncio.Future[None]" = None  # type: ignore[assignment]

    def read_init(self) -> Dict[str, Any]:
        """The first message of the node, on the still blocking socket."""
        frame = w.read_frame(self._reader, self._inbox)
        if frame.type != w.INIT:
            raise w.ProtocolError(f"message {frame.type} came before INIT")
        return w.parse_json(frame)

    async def run(self, handlers: Dict[int, Handler]) -> None:
        """Until the node hangs up."""
        self._loop = asyncio.get_running_loop()
        self._done = self._loop.create_future()
        self._handlers = handlers
        self._sock.setblocking(False)
        self._loop.add_reader(self._sock.fileno(), self._read)
        self._take()
        await self._done

    def _read(self) -> None:
        try:
            self._reader.read(self._inbox)
        except BlockingIOError:
            return
        except (w.HangUp, w.ProtocolError, OSError):
            self._end()
            return
        self._take()

    def _end(self) -> None:
        self._loop.remove_reader(self._sock.fileno())
        if not self._done.done():
            self._done.set_result(None)

    def _take(self) -> None:
        while self._inbox:
            frame = self._inbox.popleft()
            handler = self._handlers.get(frame.type)
            if handler is None:
                self._end()
                return
            message = w.parse_json(frame)
            try:
                result = handler(message)
            except BaseException as e:
                self._failed(frame.stream, e)
                continue
            if asyncio.iscoroutine(result) or isinstance(result, asyncio.Future):
                task = self._loop.create_task(self._wait(frame.stream, result))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            elif result is not None:
                self._answer(frame.stream, result)

    async def _wait(self, stream: int, result: Awaitable[Any]) -> None:
        try:
            value = await result
        except BaseException as e:
            self._failed(stream, e)
        else:
            if value is not None:
                self._answer(stream, value)

    def _failed(self, stream: int, error: BaseException) -> None:
        print(user_traceback(error), file=sys.stderr)
        self._answer(stream, {"error": one_line(error)})

    def _answer(self, stream: int, message: Dict[str, Any]) -> None:
        if not stream:
            return
        try:
            data = w.pack_json(self._answer_type, message, stream)
        except (ValueError, TypeError) as e:
            data = w.pack_json(self._answer_type, {"error": one_line(e)}, stream)
        waiting = bool(self._out)
        self._out += data
        if not waiting:
            self._write()

    def _write(self) -> None:
        try:
            sent = self._sock.send(self._out)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._end()
            return
        del self._out[:sent]
        if self._out:
            self._loop.add_writer(self._sock.fileno(), self._write)
        else:
            self._loop.remove_writer(self._sock.fileno())


def serve(
    sock: socket.socket,
    graph: Optional[Any],
    role: str,
    answer_type: int,
    handlers: Callable[[Any, Dict[str, Any]], Dict[int, Handler]],
) -> int:
    """The life of a helper; its exit status. `handlers` makes them from the application's graph."""
    _process.ignore_interrupts()
    _process.line_buffered_output()
    sock.setblocking(True)
    w.send_json(sock, w.HELLO, {"protocol": w.PROTOCOL, "kind": role, "pid": os.getpid()})
    helper = Helper(sock, answer_type)
    try:
        init = helper.read_init()
    except (w.HangUp, OSError):
        return 0
    except w.ProtocolError as e:
        print(f"rserve: {e}", file=sys.stderr)
        return 1
    app = str(init.get("app") or "default")
    _process.set_name(f"rs:{role}")
    _log.configure(app, role, str(os.getpid()))
    if graph is None:
        from rserve._graph import load

        try:
            graph = load(
                app,
                str(init.get("import_path") or ""),
                init.get("app_dir"),
                init.get("args") or {},
            )
        except BaseException as e:
            print(user_traceback(e), file=sys.stderr)
            return 1
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(helper.run(handlers(graph, init)))
    return 0


def main(run: Callable[[socket.socket, Optional[Any]], int]) -> None:
    """Entry of a fresh interpreter."""
    fd = w.fd_from_environment()
    if fd is None:
        print("this is started by rserve; RSERVE_FD is not set", file=sys.stderr)
        sys.exit(2)
    os.environ.pop("RSERVE_FD", None)
    os.set_inheritable(fd, False)
    _process.hold_environment()
    _process.die_with_parent()
    sys.exit(run(socket.socket(fileno=fd), None))


def same_object(value: Any, path: str) -> bool:
    """Is `value`, given in code, what the node calls `path`?"""
    from ray.serve.config import import_path_of

    return value is not None and not isinstance(value, str) and import_path_of(value) == path


def import_callable(path: str) -> Any:
    """The function or class that an import path names."""
    import importlib

    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    if not module or not name:
        raise ImportError(f"'{path}' is not of the form 'module:name' or 'module.name'")
    value: Any = importlib.import_module(module)
    for part in name.split("."):
        value = getattr(value, part)
    return value
