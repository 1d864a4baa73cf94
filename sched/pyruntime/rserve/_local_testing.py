"""Local testing mode: an application inside the program that runs it, for unit tests.

`serve.run(app, _local_testing_mode=True)`, or RAY_SERVE_FORCE_LOCAL_TESTING_MODE=1. Every
deployment is one object with an event loop in a thread of its own; calls go from thread to thread,
and only their arguments are pickled and back, as if they had travelled. No node is needed and none
is started, so there is no HTTP, no replica context, and no runtime_env.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import inspect
import logging
import os
import pickle
import threading
import uuid
from collections import deque
from typing import Any, AsyncIterator, Callable, Deque, Dict, Iterator, List, Optional, Set, Tuple

from ray.serve.context import _RequestContext
from ray.serve.deployment import Deployment
from ray.serve.exceptions import RayServeException, RequestCancelledError
from ray.serve.handle import (
    DEFAULT,
    DeploymentHandle,
    DeploymentResponse,
    DeploymentResponseGenerator,
)

from rserve import _values
from rserve._call import request_context
from rserve._errors import BuildError
from rserve._executor import AGEN, ASYNC, GEN, Method
from rserve._graph import Node, build, ingress_of
from rserve._threads import ThreadPool

logger = logging.getLogger("ray.serve")

#: Threads that one deployment's plain methods may use, and items that a stream may be ahead.
MAX_THREADS = 100
MAX_AHEAD = 64
#: How long `serve.delete` and `serve.shutdown` wait for a deployment's hooks, in seconds.
STOP_TIMEOUT_S = 10.0

#: Running applications: their deployments by name, and the name of the ingress.
_apps: Dict[str, Tuple[Dict[str, "LocalReplica"], str]] = {}

#: The calls that the request that runs has made; they are cancelled with it.
_children: "contextvars.ContextVar[Optional[Set[Any]]]" = contextvars.ContextVar(
    "serve_local_children", default=None
)


def run(target: Any) -> DeploymentHandle[Any]:
    """Runs an application (a RunTarget) in this process; the handle of its ingress.

    Raises what a constructor raises.
    """
    app = str(target.name)
    delete(app)
    try:
        graph = build(app, target.target, LocalHandle)
    except BuildError as e:
        raise RayServeException(str(e).partition(": ")[2] or str(e)) from None
    for warning in graph.warnings:
        logger.warning("%s", warning)
    replicas: Dict[str, LocalReplica] = {}
    _apps[app] = (replicas, graph.ingress)
    try:
        for node in graph.nodes.values():
            replicas[node.name] = LocalReplica(app, node)
    except BaseException:
        delete(app)
        raise
    return LocalHandle(graph.ingress, app)


def app_handle(app: str) -> Optional[DeploymentHandle[Any]]:
    """The handle of a local application's ingress; None if there is no such application."""
    return LocalHandle(_apps[app][1], app) if app in _apps else None


def has(app: str, deployment: str) -> bool:
    """Whether a local application has this deployment."""
    return app in _apps and deployment in _apps[app][0]


def delete(app: str) -> bool:
    """Ends a local application; false if there is none of that name."""
    replicas, _ = _apps.pop(app, ({}, ""))
    for replica in reversed(list(replicas.values())):
        replica.stop()
    return bool(replicas)


def shutdown() -> bool:
    """Ends all local applications; false if there were none."""
    return any([delete(app) for app in list(_apps)])


def status() -> Dict[str, Any]:
    """Names of the local applications with those of their deployments."""
    return {app: list(replicas) for app, (replicas, _) in _apps.items()}


def _round_trip(value: Any) -> Any:
    return pickle.loads(_values.dumps(value))


# --- a deployment -------------------------------------------------------------------------------


class LocalReplica:
    """The one instance of a deployment, and the thread of its event loop."""

    def __init__(self, app: str, node: Node) -> None:
        self.name = node.name
        self.app = app
        self.is_function = inspect.isfunction(node.target())
        self.servable: Any = None
        self.pool = ThreadPool(MAX_THREADS)
        self.sync_in_pool = os.environ.get("RAY_SERVE_RUN_SYNC_IN_THREADPOOL", "1") != "0"
        self._lifespan: Any = None
        _warn(node.deployment)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._run, name=f"serve-local-{app}-{node.name}", daemon=True
        )
        self._thread.start()
        logger.info("Initializing local replica class for %s#%s.", app, node.name)
        try:
            asyncio.run_coroutine_threadsafe(self._start(node), self.loop).result()
        except BaseException:
            self._end_loop()
            raise

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.close()

    async def _start(self, node: Node) -> None:
        target = node.target()
        user_config = node.deployment.user_config
        if self.is_function:
            self.servable = target
            if user_config is not None:
                raise ValueError("deployment_def must be a class to use user_config or rank")
            return
        args, kwargs = _round_trip((node.args, node.kwargs))
        instance = target.__new__(target)
        self.servable = instance
        pending = instance.__init__(*args, **kwargs)
        if inspect.isawaitable(pending):
            await pending
        found = ingress_of(target)
        if found is not None:
            from rserve._asgi import Lifespan, bind_views

            lifespan = Lifespan(bind_views(found, target, instance))
            await lifespan.startup()
            self._lifespan = lifespan
        if user_config is None:
            return
        method = getattr(instance, "reconfigure", None)
        if method is None:
            raise AttributeError(
                f"user_config was set, but class {type(instance).__name__} of deployment "
                f"'{self.name}' has no method 'reconfigure'"
            )
        pending = method(user_config)
        if inspect.isawaitable(pending):
            await pending

    def stop(self) -> None:
        """Cancels what runs, runs the hooks of shutting down, and ends the thread."""
        try:
            asyncio.run_coroutine_threadsafe(self._stop(), self.loop).result(STOP_TIMEOUT_S)
        except Exception as e:
            logger.warning("Local deployment '%s' did not shut down well: %s", self.name, e)
        self._end_loop()

    async def _stop(self) -> None:
        tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        if self._lifespan is not None:
            await self._lifespan.shutdown()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        servable, self.servable = self.servable, None
        destructor = getattr(servable, "__del__", None)
        if destructor is not None and not self.is_function:
            pending = destructor()  # as in a replica: whoever else holds the object
            if inspect.isawaitable(pending):
                await pending

    def _end_loop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(STOP_TIMEOUT_S)

    # --- requests; on the loop's thread

    def method(self, name: str) -> Method:
        """The method that handles call `name`; RayServeException if there is none."""
        if self.is_function and name == "__call__":
            return Method(self.servable)
        if name == "__call__":
            found = callable(self.servable)
        else:
            found = not self.is_function and hasattr(self.servable, name)
        if not found:
            names = [] if self.is_function else dir(type(self.servable))
            public = sorted(
                n for n in names if not n.startswith("__") and callable(getattr(self.servable, n))
            )
            raise RayServeException(
                f"Tried to call a method '{name}' that does not exist. Available methods: {public}."
            )
        return Method(self.servable if name == "__call__" else getattr(self.servable, name))

    async def call(self, name: str, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
        """Runs a method that gives one result."""
        method = self.method(name)
        if method.kind in (GEN, AGEN):
            raise _must_stream(name)
        if method.kind is ASYNC or not self.sync_in_pool:
            value = method.function(*args, **kwargs)
        else:
            value = await self._in_pool(method.function, *args, **kwargs)
        if inspect.isawaitable(value):
            value = await value
        if hasattr(value, "__anext__") or (hasattr(value, "__next__") and hasattr(value, "send")):
            raise _must_stream(name)
        return value

    async def stream(
        self, name: str, args: Tuple[Any, ...], kwargs: Dict[str, Any]
    ) -> AsyncIterator[Any]:
        """Runs a method that gives many results."""
        method = self.method(name)
        value: Any = method.function
        if method.kind in (ASYNC, AGEN, GEN) or not self.sync_in_pool:
            value = method.function(*args, **kwargs)
        else:
            value = await self._in_pool(method.function, *args, **kwargs)
        if inspect.isawaitable(value):
            value = await value
        if hasattr(value, "__anext__"):
            try:
                async for item in value:
                    yield item
            finally:
                if hasattr(value, "aclose"):
                    await value.aclose()
            return
        if not hasattr(value, "__next__"):
            raise TypeError(
                f"Called method '{name}' with `handle.options(stream=True)` but it did not return "
                "a generator."
            )
        end = object()
        while True:
            if self.sync_in_pool:
                item = await self._in_pool(next, value, end)
            else:
                item = next(value, end)
            if item is end:
                return
            yield item

    def _in_pool(
        self, function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> "asyncio.Future[Any]":
        future: "asyncio.Future[Any]" = self.loop.create_future()
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
            value, error = None, None
            try:
                value = context.run(function, *args, **kwargs)
            except BaseException as e:
                error = e
            try:
                self.loop.call_soon_threadsafe(settle, value, error)
            except RuntimeError:
                pass  # the application was deleted meanwhile

        self.pool.submit(work)
        return future


def _must_stream(name: str) -> TypeError:
    return TypeError(
        f"Method '{name}' returned a generator. You must use `handle.options(stream=True)` to "
        "call generators on a deployment."
    )


def _warn(deployment: Deployment) -> None:
    options = deployment.ray_actor_options or {}
    if "runtime_env" in options:
        logger.warning("runtime_env of %s has no effect in local testing mode.", deployment)
    if options.get("num_gpus"):
        logger.warning("CUDA_VISIBLE_DEVICES is not set for %s in local testing mode.", deployment)


# --- handles ------------------------------------------------------------------------------------


class LocalHandle(DeploymentHandle[Any]):
    """The handle of a deployment in this process. Shown as what it stands in for."""

    @property
    def is_initialized(self) -> bool:
        return True

    def options(
        self,
        *,
        method_name: str = DEFAULT,
        multiplexed_model_id: str = DEFAULT,
        session_id: str = DEFAULT,
        stream: bool = DEFAULT,
        _prefer_local_routing: bool = DEFAULT,
        _by_reference: bool = DEFAULT,
        request_serialization: str = DEFAULT,
        response_serialization: str = DEFAULT,
    ) -> "DeploymentHandle[Any]":
        """A copy with some options changed."""
        other = super().options(
            method_name=method_name,
            multiplexed_model_id=multiplexed_model_id,
            session_id=session_id,
            stream=stream,
            _prefer_local_routing=_prefer_local_routing,
            _by_reference=_by_reference,
            request_serialization=request_serialization,
            response_serialization=response_serialization,
        )
        return LocalHandle(other.deployment_name, other.app_name, **other._state())

    def __reduce__(self) -> Tuple[Any, ...]:
        return _rebuild, (self._deployment_name, self._app_name, self._state())

    def _replica(self) -> LocalReplica:
        replicas, _ = _apps.get(self._app_name, ({}, ""))
        if self._deployment_name not in replicas:
            raise RayServeException(
                f"{self!r} cannot be called: the application is not running in this process."
            )
        return replicas[self._deployment_name]

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Starts a call; returns at once."""
        parent = request_context.get()
        context = _RequestContext(
            route=getattr(parent, "route", ""),
            request_id=getattr(parent, "request_id", "") or str(uuid.uuid4()),
            _internal_request_id=str(uuid.uuid4()),
            app_name=self._app_name,
            multiplexed_model_id=self._model_id,
            session_id=self._session_id,
        )
        kind: Any = LocalGenerator if self._stream else LocalResponse
        response = kind(self, context)
        siblings = _children.get()
        if siblings is not None:
            siblings.add(response)
        response._begin(self, args, kwargs)
        return response

    def broadcast(self, method_name: str, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("broadcast is not available in local testing mode.")

    def choose_replica(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("choose_replica is not available in local testing mode.")

    def dispatch(self, selection: Any, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("dispatch is not available in local testing mode.")


LocalHandle.__name__ = LocalHandle.__qualname__ = "DeploymentHandle"


def _rebuild(deployment_name: str, app_name: str, state: Dict[str, Any]) -> LocalHandle:
    return LocalHandle(deployment_name, app_name, **state)


def _is_response(value: Any) -> bool:
    return isinstance(value, (DeploymentResponse, DeploymentResponseGenerator))


async def _arguments(
    args: Tuple[Any, ...], kwargs: Dict[str, Any]
) -> Tuple[Tuple[Any, ...], Dict[str, Any]]:
    """The arguments with the responses among them replaced by their values."""

    async def value(argument: Any) -> Any:
        if isinstance(argument, DeploymentResponse):
            return _round_trip(await argument)
        return argument

    return (
        tuple([await value(a) for a in args]),
        {k: await value(v) for k, v in kwargs.items()},
    )


def _travelled(args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Tuple[Any, Any]:
    """The arguments as they arrive at the other side; responses are left for `_arguments`."""
    if any(isinstance(a, DeploymentResponseGenerator) for a in (*args, *kwargs.values())):
        raise RuntimeError(
            "Streaming deployment handle results cannot be passed to downstream handle calls. If "
            "you have a use case requiring this feature, please file a feature request on GitHub."
        )
    if not any(_is_response(a) for a in (*args, *kwargs.values())):
        arrived: Tuple[Any, Any] = _round_trip((args, kwargs))
        return arrived
    return (
        tuple(a if _is_response(a) else _round_trip(a) for a in args),
        {k: v if _is_response(v) else _round_trip(v) for k, v in kwargs.items()},
    )


OBJ_REF_NOT_SUPPORTED_ERROR = RuntimeError(
    "Converting DeploymentResponses to ObjectRefs is not supported in local testing mode."
)


class _LocalCall:
    """What the two kinds of response share. Its state is guarded by `_lock`."""

    _handle: Any

    def _prepare(self, handle: LocalHandle, context: _RequestContext) -> None:
        self._handle = handle
        self._context = context
        self._lock = threading.Lock()
        self._task: "Optional[concurrent.futures.Future[Any]]" = None
        self._told_later: List[Callable[[], None]] = []
        self._over = False
        self._error: Optional[BaseException] = None
        self._cancelled = False

    @property
    def request_id(self) -> str:
        return self._context.request_id

    @property
    def by_reference(self) -> bool:
        return bool(self._handle._by_reference)

    def cancelled(self) -> bool:
        """Whether `cancel` was called before the result was there."""
        return self._cancelled

    def cancel(self) -> None:
        """Gives the call up, and the calls that it made."""
        with self._lock:
            if self._over:
                return
            self._cancelled = True
            task = self._task
        if task is not None:
            task.cancel()
        self._finish(RequestCancelledError(self.request_id))

    def _begin(self, handle: LocalHandle, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> None:
        try:
            replica = handle._replica()
            arguments = _travelled(args, kwargs)
            work = self._work(replica, handle._method, *arguments)
        except BaseException as e:
            self._finish(e)
            return
        task = asyncio.run_coroutine_threadsafe(self._guarded(work), replica.loop)
        with self._lock:
            self._task = task

    async def _work(self, replica: LocalReplica, method: str, args: Any, kwargs: Any) -> None:
        raise NotImplementedError

    async def _guarded(self, work: Any) -> None:
        children: Set[Any] = set()
        _children.set(children)
        request_context.set(self._context)
        try:
            await work
        except asyncio.CancelledError:
            for child in children:
                child.cancel()
            self._finish(RequestCancelledError(self.request_id))
        except BaseException as e:
            self._finish(e)

    def _finish(self, error: Optional[BaseException]) -> None:
        with self._lock:
            if self._over:
                return
            self._over = True
            self._error = error
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            wakers, self._told_later = self._told_later, []
        for waker in wakers:
            waker()

    def _ready(self) -> bool:
        return self._over

    async def _wait(self) -> None:
        """Until there is news, in whichever event loop this runs."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()

        def set_result() -> None:
            if not future.done():
                future.set_result(None)

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(set_result)
            except RuntimeError:
                pass  # that loop was closed: nobody waits any more

        with self._lock:
            if self._ready():
                return
            self._told_later.append(wake)
        try:
            await future
        except asyncio.CancelledError:
            if self._cancelled:
                raise RequestCancelledError(self.request_id) from None
            raise

    def _wait_in_thread(self, timeout_s: Optional[float]) -> bool:
        event = threading.Event()
        with self._lock:
            if self._ready():
                return True
            self._told_later.append(event.set)
        return event.wait(timeout_s)


def _not_in_event_loop(instead: str = "`await response`") -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "Sync methods should not be called from within an `asyncio` event loop. Use "
        f"{instead} instead."
    )


class LocalResponse(_LocalCall, DeploymentResponse[Any]):
    """The result of a local call."""

    def __init__(self, handle: LocalHandle, context: _RequestContext) -> None:
        self._prepare(handle, context)
        self._value: Any = None

    async def _work(self, replica: LocalReplica, method: str, args: Any, kwargs: Any) -> None:
        args, kwargs = await _arguments(args, kwargs)
        self._value = await replica.call(method, args, kwargs)
        self._finish(None)

    def _result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value

    def __await__(self) -> Any:
        if not self._over:
            yield from self._wait().__await__()
        return self._result()

    def result(
        self, *, timeout_s: Optional[float] = None, _skip_asyncio_check: bool = False
    ) -> Any:
        """The result, waited for in this thread. The built-in TimeoutError after `timeout_s`."""
        if not _skip_asyncio_check:
            _not_in_event_loop()
        if not self._over and not self._wait_in_thread(timeout_s):
            raise TimeoutError("Timed out waiting for result.")
        return self._result()

    async def _to_object_ref(self) -> Any:
        raise OBJ_REF_NOT_SUPPORTED_ERROR

    def _to_object_ref_sync(self, *args: Any, **kwargs: Any) -> Any:
        raise OBJ_REF_NOT_SUPPORTED_ERROR


class LocalGenerator(_LocalCall, DeploymentResponseGenerator[Any]):
    """The items of a local streaming call."""

    def __init__(self, handle: LocalHandle, context: _RequestContext) -> None:
        self._prepare(handle, context)
        self._found: Deque[Any] = deque()
        self._room: Optional[asyncio.Event] = None
        self._loop: Optional[asyncio.AbstractEventLoop] = None

    async def _work(self, replica: LocalReplica, method: str, args: Any, kwargs: Any) -> None:
        self._loop, self._room = replica.loop, asyncio.Event()
        args, kwargs = await _arguments(args, kwargs)
        stream = replica.stream(method, args, kwargs)
        try:
            async for item in stream:
                self._found.append(item)
                self._wake()
                while len(self._found) >= MAX_AHEAD:
                    self._room.clear()
                    await self._room.wait()
        finally:
            await stream.aclose()  # type: ignore[attr-defined]
        self._finish(None)

    def _ready(self) -> bool:
        return self._over or bool(self._found)

    def _take(self) -> Any:
        item = self._found.popleft()
        if self._loop is not None and self._room is not None and not self._over:
            try:
                self._loop.call_soon_threadsafe(self._room.set)
            except RuntimeError:
                pass  # the application was deleted meanwhile
        return item

    async def __anext__(self) -> Any:
        while not self._found:
            if self._over:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            await self._wait()
        return self._take()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        _not_in_event_loop("`async for` or `await response.__anext__()`")
        while not self._found:
            if self._over:
                if self._error is not None:
                    raise self._error
                raise StopIteration
            self._wait_in_thread(None)
        return self._take()

    async def _to_object_ref_gen(self) -> Any:
        raise OBJ_REF_NOT_SUPPORTED_ERROR

    def _to_object_ref_gen_sync(self, *args: Any, **kwargs: Any) -> Any:
        raise OBJ_REF_NOT_SUPPORTED_ERROR
