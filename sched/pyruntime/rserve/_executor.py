"""Works on the requests of a replica: finds the method, runs it where it belongs, answers."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import logging
import os
import threading
import time
from typing import Any, Callable, Coroutine, Dict, List, Optional, Set, Tuple

from ray.exceptions import RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException

from rserve import _http, _values, _wired
from rserve import _wire as w
from rserve._call import Call, request_context
from rserve._drive import Driver
from rserve._errors import one_line, pack_error, pack_user_error, user_traceback
from rserve._http import ANSWERED
from rserve._node import NodeLink
from rserve._objects import resolve, sent_along
from rserve._threads import ThreadPool

logger = logging.getLogger("ray.serve")

_WEBSOCKET = bytes([w.KIND_WEBSOCKET])

ASYNC, SYNC, AGEN, GEN = "async", "sync", "async generator", "generator"


class Method:
    """A method of the user's object, and how it wants to be run."""

    __slots__ = ("function", "kind", "takes_argument")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        bare = function
        while isinstance(bare, functools.partial):
            bare = bare.func
        if not (inspect.isroutine(bare) or inspect.isclass(bare)):
            bare = getattr(type(bare), "__call__", bare)
        if inspect.iscoroutinefunction(bare):
            self.kind = ASYNC
        elif inspect.isasyncgenfunction(bare):
            self.kind = AGEN
        elif inspect.isgeneratorfunction(bare):
            self.kind = GEN
        else:
            self.kind = SYNC
        try:
            self.takes_argument = bool(inspect.signature(function).parameters)
        except (TypeError, ValueError):
            self.takes_argument = True


class Executor:
    """One per replica. All of it belongs to the loop's thread but what worker threads call."""

    def __init__(
        self,
        link: NodeLink,
        loop: asyncio.AbstractEventLoop,
        servable: Any,
        is_function: bool,
        max_ongoing: int,
    ) -> None:
        self.link = link
        self.loop = loop
        self.servable = servable
        self.is_function = is_function
        self.asgi_app: Any = None
        self.asgi_state: Dict[str, Any] = {}
        self.access_log = False
        self.pool = ThreadPool(max_ongoing, link.unsent, link.flush_now)
        self.sync_in_pool = os.environ.get("RAY_SERVE_RUN_SYNC_IN_THREADPOOL", "1") != "0"
        self._methods: Dict[str, Method] = {}
        self._warned: Set[str] = set()  # methods that run on the loop although they are not async
        self._driver = Driver(loop, self._done, self._failed)
        self._base = contextvars.copy_context()
        self._started = 0
        self._finished = 0
        self._finished_in_threads = 0
        self._lock = threading.Lock()
        self._idle: Optional["asyncio.Event"] = None

    # --- counting

    @property
    def ongoing(self) -> int:
        return self._started - self._finished - self._finished_in_threads

    async def drain(self, report_s: float) -> None:
        """Until no request is left; says every `report_s` what it waits for."""
        self._idle = asyncio.Event()
        while self.ongoing > 0:
            try:
                await asyncio.wait_for(self._idle.wait(), max(report_s, 2.0))
            except asyncio.TimeoutError:
                logger.info(
                    "Waiting to shut down because there are %d ongoing requests.",
                    self.ongoing,
                )
            self._idle.clear()

    def _finish(self, call: Call) -> None:
        if call.cancelled:
            self.link.tell_end(call)
        if threading.get_ident() == self.link.thread_id:
            self._finished += 1
            if self._idle is not None:
                self._idle.set()
        else:
            with self._lock:
                self._finished_in_threads += 1
            if self._idle is not None:
                self.loop.call_soon_threadsafe(self._idle.set)
        if self.access_log:
            self._log_access(call)

    def _log_access(self, call: Call) -> None:
        took = (time.perf_counter() - call.started_at) * 1000
        if call.http:
            verb = w.text(call.fields, w.T_HTTP_METHOD, "GET")
            if call.fields.get(w.T_KIND) == _WEBSOCKET:
                verb = "WS"
            logger.info("%s %s %.1fms", verb, call.route or "/", took)
        else:
            state = "CANCELLED" if call.cancelled else "OK"
            logger.info("CALL %s %s %.1fms", call.method, state, took)

    # --- finding the method

    def method_names(self) -> List[str]:
        """What handles can call, without the names that Python reserves."""
        if self.is_function:
            return []
        names = []
        for name in dir(type(self.servable)):
            if not name.startswith("__") and callable(getattr(self.servable, name, None)):
                names.append(name)
        return sorted(names)

    def callable_names(self) -> List[str]:
        """The same, and `__call__` where there is one: what READY tells the node."""
        return self.method_names() + (["__call__"] if self._has("__call__") else [])

    def method(self, name: str) -> Method:
        method = self._methods.get(name)
        if method is None:
            if self.is_function and name == "__call__":
                method = Method(self.servable)
            elif not self.is_function and self._has(name):
                found = getattr(self.servable, name)
                if not callable(found):
                    raise TypeError(f"{found!r} is not a callable object")
                method = Method(found)
            else:
                raise RayServeException(
                    f"Tried to call a method '{name}' that does not exist. Available methods: "
                    f"{self.method_names()}."
                )
            self._methods[name] = method
        return method

    def _has(self, name: str) -> bool:
        if name == "__call__":  # every class has a __call__ of its own metaclass
            return callable(self.servable)
        return hasattr(self.servable, name)

    # --- requests

    def on_request(self, call: Call) -> None:
        self._started += 1
        if self.access_log:
            call.started_at = time.perf_counter()
        context = self._base.copy()
        context.run(request_context.set, call)
        try:
            if not call.http:
                self._start_call(call, context)
            elif call.fields.get(w.T_KIND) == _WEBSOCKET:
                self._driver.start(call, self._start_websocket(call), context)
            elif self.asgi_app is not None:
                scope = _http.make_scope(call, self.asgi_state)
                self._driver.start(call, _http.run_asgi(call, self.asgi_app, scope), context)
            else:
                self._start_http(call, context)
        except BaseException as e:
            self._failed(call, e)

    def _start_websocket(self, call: Call) -> Coroutine[Any, Any, Any]:
        from rserve import _websocket

        return _websocket.run(call, self.asgi_app, _websocket.make_scope(call, self.asgi_state))

    def _start_http(self, call: Call, context: contextvars.Context) -> None:
        try:
            method = self._methods.get("__call__") or self.method("__call__")
        except RayServeException as e:
            self.link.reply_error(
                call, pack_error(call.stream, w.E_NOT_FOUND, "RayServeException", str(e))
            )
            self._finish(call)
            return
        kind = method.kind
        args = (_http.request_class()(call),) if method.takes_argument else ()
        if kind is ASYNC:
            self._driver.start(call, method.function(*args), context)
        elif kind is SYNC:
            self._run_sync(call, context, method.function, args, {})
        else:
            _http.refuse_generator(call)
            self._finish(call)

    def _start_call(self, call: Call, context: contextvars.Context) -> None:
        if call.chunks is not None:
            if not call.ended:
                self._driver.start(call, self._call_later(call, context), context)
                return
            call.body, call.chunks = b"".join(call.chunks), None
        method = self.method(call.method)
        args, kwargs = _values.decode_arguments(call.fields.get(w.T_CONTENT_TYPE, b""), call.body)
        call.body = b""
        if w.T_AWAIT_OBJECTS in call.fields:
            here = sent_along(call.fields, args, kwargs)
            if here is None:
                later = self._with_objects(call, context, method, args, kwargs)
                self._driver.start(call, later, context)
                return
            args, kwargs = here
        self._start_method(call, context, method, args, kwargs)

    def _start_method(
        self,
        call: Call,
        context: contextvars.Context,
        method: Method,
        args: Tuple[Any, ...],
        kwargs: Dict[str, Any],
    ) -> None:
        kind = method.kind
        if w.T_STREAM in call.fields and w.number(call.fields, w.T_STREAM):
            self._driver.start(call, self._stream(call, context, method, args, kwargs), context)
        elif kind is ASYNC:
            self._driver.start(call, method.function(*args, **kwargs), context)
        elif kind is SYNC:
            self._run_sync(call, context, method.function, args, kwargs)
        else:
            raise TypeError(
                f"Method '{call.method}' returned a generator. You must use "
                "`handle.options(stream=True)` to call generators on a deployment."
            )

    async def _with_objects(
        self,
        call: Call,
        context: contextvars.Context,
        method: Method,
        args: Tuple[Any, ...],
        kwargs: Dict[str, Any],
    ) -> Any:
        """A call with objects as arguments: those that are not inside others become values."""
        values, named = await resolve(self.link, args, kwargs)
        if not call.cancelled:
            self._started += 1
            self.loop.call_soon(self._start_resolved, call, context, method, values, named)
        return ANSWERED

    def _start_resolved(
        self,
        call: Call,
        context: contextvars.Context,
        method: Method,
        args: Tuple[Any, ...],
        kwargs: Dict[str, Any],
    ) -> None:
        try:
            self._start_method(call, context.copy(), method, args, kwargs)
        except BaseException as e:
            self._failed(call, e)

    async def _call_later(self, call: Call, context: contextvars.Context) -> Any:
        """A call whose arguments come in several frames."""
        await call.read_all()
        if not call.cancelled:
            self._started += 1
            self.loop.call_soon(self._restart, call, context)
        return ANSWERED

    def _restart(self, call: Call, context: contextvars.Context) -> None:
        try:
            self._start_call(call, context.copy())
        except BaseException as e:
            self._failed(call, e)

    # --- synchronous code

    def _run_sync(
        self,
        call: Call,
        context: contextvars.Context,
        function: Callable[..., Any],
        args: Tuple[Any, ...],
        kwargs: Dict[str, Any],
    ) -> None:
        if self.sync_in_pool:
            call.threaded = True
            self.pool.submit(self._in_thread, call, context, function, args, kwargs)
            return
        if call.method not in self._warned:
            self._warned.add(call.method)
            logger.warning(
                "Calling sync method '%s' directly on the asyncio loop because "
                "RAY_SERVE_RUN_SYNC_IN_THREADPOOL=0. This can block other requests. Make the "
                "method `async def`, or set RAY_SERVE_RUN_SYNC_IN_THREADPOOL=1.",
                call.method,
            )
        self._driver.start(call, _call_sync(function, args, kwargs), context)

    def _in_thread(
        self,
        call: Call,
        context: contextvars.Context,
        function: Callable[..., Any],
        args: Tuple[Any, ...],
        kwargs: Dict[str, Any],
    ) -> None:
        try:
            if call.cancelled:
                self._finish(call)
                return
            value = context.run(function, *args, **kwargs)
            if type(value) not in _PLAIN and inspect.isawaitable(value):
                self.loop.call_soon_threadsafe(
                    self._driver.start, call, _await(value), context.copy()
                )
                return
            more = self._answer(call, value)
        except BaseException as e:
            try:
                context.run(self._failed, call, e)
            except RuntimeError:  # the context is in use by a generator of the user's
                self._failed(call, e)
            return
        if more is None:
            self._finish(call)
        else:
            self.loop.call_soon_threadsafe(self._driver.start, call, more, context.copy())

    # --- answers

    def _answer(self, call: Call, value: Any) -> Optional[Coroutine[Any, Any, Any]]:
        """Sends a result. A coroutine given back has the rest to do. From any thread."""
        if value is ANSWERED:
            return None
        if call.http:
            return _http.answer(call, value)
        if hasattr(value, "__anext__") or (hasattr(value, "__next__") and hasattr(value, "send")):
            raise TypeError(
                f"Method '{call.method}' returned a generator. You must use "
                "`handle.options(stream=True)` to call generators on a deployment."
            )
        meta, body = _values.encode_value(value, call.fields.get(w.T_CONTENT_TYPE, b""))
        self.link.reply(call, meta, body)
        return None

    def _done(self, call: Call, value: Any) -> Optional[Coroutine[Any, Any, Any]]:
        try:
            more = self._answer(call, value)
        except BaseException as e:
            self._failed(call, e)
            return None
        if more is None:
            self._finish(call)
        return more

    def _failed(self, call: Call, error: BaseException) -> None:
        """Answers with an error, and logs it. From any thread."""
        try:
            if isinstance(error, asyncio.CancelledError):
                if not call.cancelled:
                    self.link.reply_error(
                        call,
                        pack_error(
                            call.stream,
                            w.E_CANCELLED,
                            "CancelledError",
                            "The request was cancelled.",
                        ),
                    )
            elif call.http and isinstance(error, (BackPressureError, DeploymentUnavailableError)):
                code = w.E_BACKPRESSURE if isinstance(error, BackPressureError) else w.E_UNAVAILABLE
                text = error.message
                cause = error.cause if isinstance(error, RayTaskError) else error
                self.link.reply_error(
                    call, pack_error(call.stream, code, type(cause).__name__, text)
                )
            else:
                self._user_error(call, error)
        finally:
            self._finish(call)

    def _user_error(self, call: Call, error: BaseException) -> None:
        trace = user_traceback(error)
        token = request_context.set(call)
        try:
            logger.error("Request failed.\n%s", trace.rstrip())
        finally:
            request_context.reset(token)
        if call.http:
            frame = pack_error(call.stream, w.E_USER, type(error).__name__, one_line(error), trace)
        else:
            frame = pack_user_error(call.stream, error, trace, self.link.deployment, call.method)
        self.link.reply_error(call, frame)

    # --- streams of items

    async def _stream(
        self,
        call: Call,
        context: contextvars.Context,
        method: Method,
        args: Tuple[Any, ...],
        kwargs: Dict[str, Any],
    ) -> Any:
        value: Any
        if method.kind is SYNC and self.sync_in_pool:
            value = await self._call_in_pool(method.function, args, kwargs)
        else:
            value = method.function(*args, **kwargs)
        if not hasattr(value, "__anext__") and inspect.isawaitable(value):
            value = await value
        if hasattr(value, "__anext__"):
            opened = _wired.returned(call, value, _ITEMS)
            try:
                async for item in value:
                    if not opened:
                        opened = True
                        call.open_answer(_ITEMS)
                    data = _values.dumps(item)
                    if not call.try_send(data):
                        await call.send_body(data)
            finally:
                close = getattr(value, "aclose", None)
                if close is not None:
                    await close()
        elif hasattr(value, "__next__"):
            opened = await self._stream_sync(call, value)
        else:
            raise TypeError(
                f"Called method '{call.method}' with `handle.options(stream=True)` but it did not "
                "return a generator."
            )
        if not opened:
            call.open_answer(_ITEMS)
        call.end_answer()
        return ANSWERED

    def _call_in_pool(
        self, function: Callable[..., Any], args: Tuple[Any, ...], kwargs: Dict[str, Any]
    ) -> "asyncio.Future[Any]":
        """Runs a function in the pool, in a copy of the current context."""
        loop = self.loop
        future: "asyncio.Future[Any]" = loop.create_future()
        context = contextvars.copy_context()

        def settle(value: Any, error: Optional[BaseException]) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(value)
            elif isinstance(error, StopIteration):
                future.set_exception(RuntimeError("the method raised StopIteration"))
            else:
                future.set_exception(error)

        def work() -> None:
            try:
                value, error = context.run(function, *args, **kwargs), None
            except BaseException as e:
                value, error = None, e
            loop.call_soon_threadsafe(settle, value, error)

        self.pool.submit(work)
        return future

    async def _stream_sync(self, call: Call, generator: Any) -> bool:
        """Iterates a synchronous generator in a thread, some items at a time."""
        opened = False

        def some() -> Tuple[List[bytes], bool, Optional[BaseException]]:
            items: List[bytes] = []
            until = time.monotonic() + 0.002
            size = 0
            try:
                for item in generator:
                    items.append(_values.dumps(item))
                    size += len(items[-1])
                    if size >= w.INITIAL_CREDIT // 4 or time.monotonic() >= until:
                        return items, False, None
            except BaseException as e:
                return items, True, e
            return items, True, None

        try:
            while True:
                if self.sync_in_pool:
                    items, ended, error = await self._call_in_pool(some, (), {})
                else:
                    items, ended, error = some()
                for item in items:
                    if not opened:
                        opened = True
                        call.open_answer(_ITEMS)
                    if not call.try_send(item):
                        await call.send_body(item)
                if error is not None:
                    raise error
                if ended or call.cancelled:
                    return opened
                await asyncio.sleep(0)
        finally:
            close = getattr(generator, "close", None)
            if close is not None:
                try:
                    close()
                except ValueError:
                    pass  # still running in its thread: it ends there


_ITEMS = w.field_u8(w.T_ITEMS, 1) + w.field(w.T_CONTENT_TYPE, w.PICKLE)


#: What is not awaitable, without a closer look.
_PLAIN = frozenset((str, bytes, dict, list, tuple, int, float, bool, type(None)))


async def _await(value: Any) -> Any:
    return await value


async def _call_sync(
    function: Callable[..., Any], args: Tuple[Any, ...], kwargs: Dict[str, Any]
) -> Any:
    value = function(*args, **kwargs)
    return await value if inspect.isawaitable(value) else value
