"""A process that works on tasks, or is an actor.

Its connection has an event loop in a thread of its own, so that user code may block: synchronous
code runs in the main thread (an actor with `max_concurrency` has a pool of threads), methods of
an asynchronous actor on an event loop in the main thread.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import inspect
import os
import pickle
import queue
import signal
import sys
import threading
from typing import Any, Callable, Dict, List, Optional, Tuple

from ray.exceptions import RayTaskError

from rserve import _core, _objects, _process, _values
from rserve import _wire as w
from rserve._arguments import CannotLookUp, cloudpickled, unpack_arguments
from rserve._call import Call
from rserve._errors import one_line, pack_error, user_traceback
from rserve._graph import add_app_dir
from rserve._node import NodeLink, leave
from rserve._threads import ThreadPool

#: Functions that were unpickled, by their hash: {hash: function}.
_functions: Dict[bytes, Any] = {}
_FUNCTIONS_KEPT = 1000


class Job:
    """A call that this process works on."""

    __slots__ = (
        "call",
        "task_id",
        "name",
        "rest",
        "running",
        "thread",
        "task",
        "cancelled",
        "held",
    )

    def __init__(self, call: Call) -> None:
        self.call = call
        held = _objects.adopt(call.fields)
        self.task_id, self.name, *self.rest = pickle.loads(call.body)
        self.held = held  # the references that came along, until the arguments are unpickled
        call.body = b""
        self.running = False
        self.thread = 0
        self.task: Any = None
        self.cancelled = False


class _ActorExit(BaseException):
    """`ray.actor.exit_actor()` was called."""


class Worker:
    def __init__(self, link: NodeLink, init: Dict[str, Any]) -> None:
        self.link = link
        self.core: Dict[str, Any] = init["core"]
        self.is_actor = self.core.get("kind") == "actor"
        self.max_ongoing = int((init.get("config") or {}).get("max_ongoing_requests") or 1)
        self.instance: Any = None
        self.is_async = False
        self.jobs: Dict[int, Job] = {}
        self.main: "queue.SimpleQueue[Optional[Callable[[], None]]]" = queue.SimpleQueue()
        self.loop: Optional[asyncio.AbstractEventLoop] = None
        self.pool: Optional[ThreadPool] = None
        self.current: Optional[Job] = None  # in the main thread
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve_link, name="rserve-link", daemon=True)
        self._up = threading.Event()
        self._stopping = False

    # --- the link's thread

    def _serve_link(self) -> None:
        loop = asyncio.new_event_loop()
        self.link.on_control = self._on_control
        self.link.on_request = self._on_request
        self.link.start(loop)
        self._up.set()
        loop.call_soon(self.link._dispatch)
        loop.run_forever()

    def _on_control(self, frame: w.Frame) -> None:
        if frame.type == w.PING:
            self.link.send_json(w.PONG, {"ok": True}, frame.stream)
        elif frame.type == w.RECONFIGURE:
            self._ready()
        elif frame.type == w.STOP:
            self._stop()
        elif frame.type == w.CORE_REPLY:
            self._on_order(w.parse_json(frame))
        else:
            raise w.ProtocolError(f"message {frame.type} was not expected")

    def _on_order(self, order: Dict[str, Any]) -> None:
        if order.get("order") == "end_task":
            wanted = order.get("task_id")
            current = self.current
            if current is not None and current.task_id == wanted:
                leave(1)

    def _ready(self) -> None:
        self.link.send_json(
            w.READY,
            {
                "methods": [],
                "asgi": False,
                "docs_path": None,
                "has_check_health": False,
                "has_reconfigure": False,
            },
        )

    def _stop(self) -> None:
        self._stopping = True
        self.main.put(None)
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self.loop.stop)

    def _on_request(self, call: Call) -> None:
        if not call.ended:
            self.link.loop.create_task(self._read_on(call))
            return
        try:
            job = Job(call)
        except Exception as e:
            self._refuse(call, e)
            return
        call.task = _Canceller(self, job)  # type: ignore[assignment]
        self._dispatch(job)

    async def _read_on(self, call: Call) -> None:
        await call.read_all()
        if not call.cancelled:
            self._on_request(call)

    def _refuse(self, call: Call, e: BaseException) -> None:
        trace = user_traceback(e)
        self.link.reply_error(
            call, pack_error(call.stream, w.E_USER, type(e).__name__, one_line(e), trace)
        )

    def _dispatch(self, job: Job) -> None:
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self._start_async, job)
        elif self.pool is not None:
            self.pool.submit(self._run_sync, job, False)
        else:
            self.main.put(lambda: self._run_sync(job, True))

    def cancel(self, job: Job) -> None:
        """The caller does not want it any more. On the link's thread."""
        with self._lock:
            job.cancelled = True
            running, task, thread = job.running, job.task, job.thread
        if task is not None and self.loop is not None:
            self.loop.call_soon_threadsafe(task.cancel)
        elif running and thread == threading.main_thread().ident:
            signal.pthread_kill(thread, signal.SIGINT)  # KeyboardInterrupt, also out of a sleep

    # --- finding what to run

    def _prepare(self, job: Job) -> Tuple[Callable[..., Any], Tuple[Any, ...], Dict[str, Any]]:
        if self.is_actor:
            (num_returns, data, values) = job.rest
            function: Any = self._method(job.call.method)
        else:
            (num_returns, key, pickled, data, values) = job.rest
            function = _functions.get(key)
            if function is None:
                if len(_functions) >= _FUNCTIONS_KEPT:
                    _functions.clear()
                function = _functions[key] = pickle.loads(pickled)
        job.rest = [num_returns]
        args, kwargs = unpack_arguments(data, values)
        job.held = []
        return function, args, kwargs

    def _method(self, name: str) -> Callable[..., Any]:
        if name == "__ray_ready__":
            return lambda: True
        if name == "__ray_call__":
            instance = self.instance
            return lambda function, *args, **kwargs: function(instance, *args, **kwargs)
        if name == "__ray_terminate__":
            return _raise_exit
        method = getattr(self.instance, name, None)
        if method is None:
            raise AttributeError(
                f"'{type(self.instance).__name__}' object has no attribute '{name}'"
            )
        return method  # type: ignore[no-any-return]

    # --- running; in the main thread, or in one of the pool

    def _run_sync(self, job: Job, in_main: bool) -> None:
        with self._lock:
            if job.cancelled:
                return
            job.running = True
            job.thread = threading.get_ident()
        if in_main:
            self.current = job
        context = contextvars.copy_context()
        try:
            try:
                context.run(self._work, job)
            finally:
                with self._lock:
                    job.running = False
                if in_main:
                    self.current = None
        except KeyboardInterrupt:
            if not job.cancelled:
                self._failed(job, KeyboardInterrupt())
        except BaseException as e:
            self._failed(job, e)

    def _work(self, job: Job) -> None:
        _core.task_id.set(job.task_id)
        function, args, kwargs = self._prepare(job)
        value = function(*args, **kwargs)
        if inspect.iscoroutine(value):
            value = asyncio.run(_await(value))
        if w.number(job.call.fields, w.T_STREAM):
            self._stream_sync(job, value)
        else:
            self._answer(job, value)

    def _start_async(self, job: Job) -> None:
        with self._lock:
            if job.cancelled:
                return
            assert self.loop is not None
            context = contextvars.copy_context()
            job.task = context.run(self.loop.create_task, self._work_async(job))

    async def _work_async(self, job: Job) -> None:
        _core.task_id.set(job.task_id)
        try:
            await self._await_job(job)
        except asyncio.CancelledError:
            if not job.cancelled:
                self._cancelled(job)
        except BaseException as e:
            self._failed(job, e)

    async def _await_job(self, job: Job) -> None:
        function, args, kwargs = self._prepare(job)
        value = function(*args, **kwargs)
        if inspect.isawaitable(value):
            value = await value
        if w.number(job.call.fields, w.T_STREAM):
            await self._stream_async(job, value)
        else:
            self._answer(job, value)

    # --- answers; from any thread

    def _answer(self, job: Job, value: Any) -> None:
        num_returns = job.rest[0]
        meta = _values.F_PICKLE
        if num_returns == 1:
            meta, body = _values.encode(value)
        elif num_returns == 0:
            body = b""
        else:
            values = list(value)
            if len(values) != num_returns:
                raise ValueError(
                    f"Task returned {len(values)} objects, but num_returns={num_returns}."
                )
            body = pickle.dumps([cloudpickled(v) for v in values], 5)
            meta += _values.take_ids()
        self.link.reply(job.call, meta, body)
        if len(meta) > len(_values._F_PICKLE5):  # references travel: before they are given back
            _flush(self.link)

    def _stream_sync(self, job: Job, value: Any) -> None:
        if not hasattr(value, "__next__"):
            value = iter(value)
        self._on_link(self._open, job)
        for item in value:
            self._on_link(self._item, job, _values.dumps(item))
            if job.cancelled:
                value.close()
                return
        self._on_link(self._close, job)

    async def _stream_async(self, job: Job, value: Any) -> None:
        self._on_link(self._open, job)
        if hasattr(value, "__anext__") or hasattr(value, "__aiter__"):
            async for item in value:
                await asyncio.wrap_future(self._soon(self._item, job, _values.dumps(item)))
        else:
            for item in value:
                await asyncio.wrap_future(self._soon(self._item, job, _values.dumps(item)))
        self._on_link(self._close, job)

    def _soon(self, function: Callable[..., Any], *args: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(function(*args), self.link.loop)

    def _on_link(self, function: Callable[..., Any], *args: Any) -> None:
        self._soon(function, *args).result()

    async def _open(self, job: Job) -> None:
        job.call.open_answer(_ITEMS)

    async def _item(self, job: Job, data: bytes) -> None:
        await job.call.send_body(data)

    async def _close(self, job: Job) -> None:
        job.call.end_answer()

    def _cancelled(self, job: Job) -> None:
        call = job.call
        self.link.reply_error(
            call, pack_error(call.stream, w.E_CANCELLED, "CancelledError", "It was cancelled.")
        )

    def _failed(self, job: Job, error: BaseException) -> None:
        call = job.call
        if isinstance(error, _ActorExit) or (isinstance(error, SystemExit) and self.is_actor):
            self._exit_actor()
            return
        if isinstance(error, SystemExit):
            leave(error.code if isinstance(error.code, int) else 1)
        if isinstance(error, CannotLookUp):
            self.link.reply_error(
                call, pack_error(call.stream, w.E_PROTOCOL, "ByValue", "not known on this node")
            )
            return
        trace = user_traceback(error)
        name = f"ray::{job.name}"
        cause = error.cause if isinstance(error, RayTaskError) else error
        body = _pickled_error(RayTaskError(name, trace, cause, pid=os.getpid()), name, trace)
        if len(body) > w.MEMFD_FROM:
            body = pickle.dumps(RayTaskError(name, trace, None, pid=os.getpid()), 5)
        self.link.reply_error(
            call,
            pack_error(call.stream, w.E_USER, type(cause).__name__, one_line(error), trace, body),
        )

    def _exit_actor(self) -> None:
        """Tells the head first, so that whoever called hears that it was meant."""
        try:
            _core.call("exit_actor", "exit_actor", actor_id=self.core["actor_id"])
        finally:
            _run_atexit()
            leave(0)

    # --- life

    def run(self) -> int:
        self._thread.start()
        self._up.wait()
        signal.signal(signal.SIGINT, self._on_interrupt)
        if self.is_actor:
            try:
                self._construct()
            except BaseException as e:
                self._say_failed(e)
                return 1
        self._ready()
        if self.loop is not None:
            self.loop.run_forever()
        else:
            self._main_loop()
        return 0

    def _on_interrupt(self, number: int, frame: Any) -> None:
        """SIGINT is sent by `cancel` alone, and may come a little late."""
        current = self.current
        if current is not None and current.running and current.cancelled:
            raise KeyboardInterrupt

    def _main_loop(self) -> None:
        while True:
            try:
                item = self.main.get()
                if item is None:
                    return
                item()
            except KeyboardInterrupt:
                pass  # for a job that has just ended

    def _say_failed(self, e: BaseException) -> None:
        message = {
            "phase": "constructor",
            "kind": type(e).__name__,
            "error": one_line(e),
            "traceback": user_traceback(e),
        }
        self.link.send_json(w.FAILED, message)
        _flush(self.link)

    def _construct(self) -> None:
        answer = _core.call("the actor", "spec", actor_id=self.core["actor_id"])
        spec = pickle.loads(_core.from_text(answer["spec"]))
        cls = pickle.loads(spec["class"])
        args, kwargs = unpack_arguments(spec["args"], spec["values"])
        self.is_async = spec["async"]
        threads = int(spec.get("max_concurrency") or 1)
        if self.is_async:
            self.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self.loop)
        elif threads > 1:
            self.pool = ThreadPool(threads)
        _core.task_id.set(_core.new_id())
        instance = cls.__new__(cls)
        self.instance = instance
        value = instance.__init__(*args, **kwargs)
        if inspect.iscoroutine(value):
            assert self.loop is not None
            self.loop.run_until_complete(value)
        _process.set_name(f"ray::{cls.__name__}")


class _Canceller:
    """What `Call.cancel` finds as its task."""

    def __init__(self, worker: Worker, job: Job) -> None:
        self._worker = worker
        self._job = job

    def cancel(self) -> None:
        self._worker.cancel(self._job)


def _raise_exit() -> None:
    raise _ActorExit


def _pickled_error(error: RayTaskError, name: str, trace: str) -> bytes:
    for dumps in (pickle.dumps, cloudpickled):
        try:
            data: bytes = dumps(error)
            pickle.loads(data)
            return data
        except Exception:
            continue
    return pickle.dumps(RayTaskError(name, trace, None, pid=os.getpid()), 5)


async def _await(value: Any) -> Any:
    return await value


def _run_atexit() -> None:
    try:
        atexit._run_exitfuncs()
    except BaseException as e:
        print(user_traceback(e), file=sys.stderr)


_ITEMS = w.field_u8(w.T_ITEMS, 1) + w.field(w.T_CONTENT_TYPE, w.PICKLE)


def run(link: NodeLink, init: Dict[str, Any]) -> int:
    """Works until told to stop; the exit status. `init` came over the link's socket."""
    core = init["core"]
    link.deployment = str(init.get("deployment") or "")
    link.app = str(init.get("app") or "")
    link.replica_id = str(init.get("replica_id") or "")
    link.node_id = str(init.get("node_id") or "")
    _core.identity.update(core)
    _core.identity["node_id"] = link.node_id
    _core.identity["config"] = init.get("config") or {}
    args = init.get("args") or {}
    add_app_dir(init.get("app_dir"))
    add_paths(args)
    _process.set_name(f"ray::{core.get('class_name') or 'IDLE'}")
    status = Worker(link, init).run()
    _flush(link)
    _run_atexit()
    return status


def add_paths(args: Dict[str, Any]) -> None:
    """Where a program outside imports from; its workers do too."""
    paths: List[str] = args.get("sys_path") or []
    for path in paths:
        if path not in sys.path:
            sys.path.append(path)


def _flush(link: NodeLink) -> None:
    done = threading.Event()

    def flush() -> None:
        link.flush()
        done.set()

    link.loop.call_soon_threadsafe(flush)
    done.wait(2)

