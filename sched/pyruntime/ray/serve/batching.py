"""`@serve.batch`: many callers with one item each, one call of the function with all of them."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import time
from collections import deque
from contextvars import Context, ContextVar
from typing import Any, AsyncIterator, Callable, Deque, Dict, List, Optional, Tuple, TypeVar

from rserve._call import request_context

from ray.serve._private.constants import (  # noqa: F401  (as in Ray)
    BATCH_EXECUTION_TIME_BUCKETS_MS,
    BATCH_SIZE_BUCKETS,
    BATCH_UTILIZATION_BUCKETS_PERCENT,
    BATCH_WAIT_TIME_BUCKETS_MS,
    SERVE_LOGGER_NAME,
)
from ray.serve.context import _get_internal_replica_context, _RequestContext
from ray.serve.exceptions import RayServeException

logger = logging.getLogger("ray.serve")

#: The request contexts of the items of the batch that runs.
batch_contexts: "ContextVar[List[Any]]" = ContextVar("serve_batch_contexts", default=[])

R = TypeVar("R")
T = TypeVar("T")
SelfType = TypeVar("SelfType", contravariant=True)

#: An item's value that says that its stream is over.
USER_CODE_STREAMING_SENTINELS = [StopIteration, StopAsyncIteration]


class _END:
    """What ends a stream of results. A class: the wrappers below travel by value with the user's
    class, and only what can be imported stays the same then."""


_STOPS = tuple(USER_CODE_STREAMING_SENTINELS)


class _Item:
    """One caller's arguments, and where the result goes."""

    __slots__ = ("arguments", "future", "results", "context", "gone")

    def __init__(self, arguments: Dict[str, Any], streaming: bool) -> None:
        self.arguments = arguments
        self.future: "asyncio.Future[Any]" = asyncio.get_running_loop().create_future()
        self.results: "Optional[asyncio.Queue[Any]]" = asyncio.Queue() if streaming else None
        self.context = request_context.get()
        self.gone = False  # the caller no longer waits

    @property
    def wanted(self) -> bool:
        return not self.gone and not self.future.done()

    @property
    def model_id(self) -> str:
        return getattr(self.context, "multiplexed_model_id", "")

    def give(self, value: Any) -> None:
        if self.results is not None:
            self.results.put_nowait((value, None))
        elif not self.future.done():
            self.future.set_result(value)

    def fail(self, error: BaseException) -> None:
        if self.results is not None:
            self.results.put_nowait((None, error))
        elif not self.future.done():
            self.future.set_exception(error)

    def end(self) -> None:
        if self.results is not None:
            self.results.put_nowait((_END, None))


class _Settings:
    """What may be changed while batches run."""

    def __init__(self, size: int, wait_s: float, concurrent: int, size_fn: Any) -> None:
        self.size = size
        self.wait_s = wait_s
        self.concurrent = concurrent
        self.size_fn = size_fn


class _Queue:
    """The items of one function (of one object) that wait for their batch."""

    def __init__(self, call: Callable[..., Any], settings: _Settings, streaming: bool) -> None:
        self._call = call
        self._settings = settings
        self._streaming = streaming
        self._waiting: Deque[_Item] = deque()
        self._news = asyncio.Event()
        self._slots = asyncio.Semaphore(settings.concurrent)
        self._tasks: "set[asyncio.Task[Any]]" = set()
        self.started_at: Dict["asyncio.Task[Any]", float] = {}
        self.loop = asyncio.get_running_loop()
        # Not in the context of the request that happened to come first.
        self.task = Context().run(self.loop.create_task, self._run())

    def put(self, item: _Item) -> None:
        self._waiting.append(item)
        self._news.set()

    async def _run(self) -> None:
        while True:
            await self._slots.acquire()
            try:
                batch = await self._next_batch()
            except BaseException:
                self._slots.release()
                raise
            task = self.loop.create_task(self._run_batch(batch))
            self._tasks.add(task)
            self.started_at[task] = time.time()
            task.add_done_callback(self._batch_done)

    def _batch_done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        self.started_at.pop(task, None)
        self._slots.release()

    def _size(self, batch: List[_Item]) -> int:
        size_fn = self._settings.size_fn
        if size_fn is None:
            return len(batch)
        return int(size_fn([next(iter(i.arguments.values())) for i in batch]))

    async def _next_batch(self) -> List[_Item]:
        """At least one item that somebody still waits for."""
        batch: List[_Item] = []
        deadline = 0.0
        while True:
            while self._waiting and (not batch or self._size(batch) < self._settings.size):
                item = self._waiting.popleft()
                if not item.wanted:
                    continue
                if self._settings.size_fn is not None and not self._fits(batch, item):
                    if batch:
                        return batch
                    continue
                if not batch:
                    deadline = self.loop.time() + self._settings.wait_s
                batch.append(item)
            left = deadline - self.loop.time()
            if batch and (self._size(batch) >= self._settings.size or left <= 0):
                return batch
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), left if batch else None)
            except asyncio.TimeoutError:
                pass

    def _fits(self, batch: List[_Item], item: _Item) -> bool:
        """Whether an item may join; puts it back, or refuses it for good, if not."""
        try:
            size = self._size([*batch, item])
        except Exception as e:
            item.fail(e)
            return False
        if size <= self._settings.size:
            return True
        if batch:
            self._waiting.append(item)
        else:
            item.fail(
                RuntimeError(
                    "Size of item is greater than max_batch_size. Please increase the "
                    "max_batch_size or check the implementation of the batch_size_fn."
                )
            )
        return False

    async def _run_batch(self, batch: List[_Item]) -> None:
        by_model: Dict[str, List[_Item]] = {}
        for item in batch:
            if item.wanted:
                by_model.setdefault(item.model_id, []).append(item)
        await asyncio.gather(*[self._run_items(items) for items in by_model.values()])

    async def _run_items(self, items: List[_Item]) -> None:
        first = items[0].context
        request_context.set(
            _RequestContext(
                route=getattr(first, "route", ""),
                request_id=getattr(first, "request_id", ""),
                app_name=getattr(first, "app_name", ""),
                multiplexed_model_id=items[0].model_id,
            )
        )
        batch_contexts.set([i.context for i in items])
        try:
            names = items[0].arguments.keys()
            if any(i.arguments.keys() != names for i in items):
                raise TypeError("the calls of one batch pass different parameters")
            lists = {name: [i.arguments[name] for i in items] for name in names}
            if self._streaming:
                await self._stream(items, self._call(**lists))
            else:
                results = await self._call(**lists)
                _check_length(items, results)
                for item, result in zip(items, results):
                    item.give(result)
        except asyncio.CancelledError as e:
            for item in items:
                item.fail(e)
            raise
        except BaseException as e:
            for item in items:
                item.fail(e)

    async def _stream(self, items: List[_Item], generator: Any) -> None:
        open_items: List[Optional[_Item]] = list(items)
        async for results in generator:
            _check_length(items, results)
            for at, result in enumerate(results):
                item = open_items[at]
                if item is None:
                    continue
                if result in _STOPS or isinstance(result, _STOPS):
                    item.end()
                    open_items[at] = None
                else:
                    item.give(result)
            if all(i is None or i.gone for i in open_items):
                break
        for item in open_items:
            if item is not None:
                item.end()


def _check_length(items: List[_Item], results: Any) -> None:
    if len(results) != len(items):
        raise RayServeException(
            "Batched function doesn't preserve batch size. The input list has length "
            f"{len(items)} but the returned list has length {len(results)}."
        )


def _check_size(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"max_batch_size must be integer >= 1, got {value}")
    if value < 1:
        raise ValueError(f"max_batch_size must be an integer >= 1, got {value}")
    return value


def _check_wait(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (float, int)):
        raise TypeError(f"batch_wait_timeout_s must be a float >= 0, got {value}")
    if value < 0:
        raise ValueError(f"batch_wait_timeout_s must be a float >= 0, got {value}")
    return float(value)


def _check_concurrent(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise TypeError(f"max_concurrent_batches must be an integer >= 1, got {value}")
    return value


def batch(
    _func: Optional[Callable[..., Any]] = None,
    /,
    max_batch_size: int = 10,
    batch_wait_timeout_s: float = 0.01,
    max_concurrent_batches: int = 1,
    batch_size_fn: Optional[Callable[[List[Any]], int]] = None,
) -> Callable[..., Any]:
    """Makes a function of lists callable with single items."""
    if _func is not None and not callable(_func):
        raise TypeError("@serve.batch can only be used to decorate functions or methods.")
    if batch_size_fn is not None and not callable(batch_size_fn):
        raise TypeError(f"batch_size_fn must be a callable or None, got {type(batch_size_fn)}")
    settings = _Settings(
        _check_size(max_batch_size),
        _check_wait(batch_wait_timeout_s),
        _check_concurrent(max_concurrent_batches),
        batch_size_fn,
    )

    def decorate(func: Callable[..., Any]) -> Callable[..., Any]:
        streaming = inspect.isasyncgenfunction(func)
        if not streaming and not inspect.iscoroutinefunction(func):
            raise TypeError("Functions decorated with @serve.batch must be 'async def'")
        return _decorate(func, settings, streaming)

    return decorate(_func) if _func is not None else decorate


def _decorate(func: Callable[..., Any], settings: _Settings, streaming: bool) -> Callable[..., Any]:
    signature = inspect.signature(func)
    parameters = list(signature.parameters)
    is_method = bool(parameters) and parameters[0] == "self"
    attribute = f"_serve_batch_queue_{func.__name__}"
    own: Dict[str, _Queue] = {}

    def put(args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> _Item:
        arguments = dict(signature.bind(*args, **kwargs).arguments)
        instance = arguments.pop("self") if is_method else None
        store: Any = own if instance is None else instance.__dict__
        found = store.get(attribute)
        if found is None or found.loop is not asyncio.get_running_loop():
            call = func if instance is None else functools.partial(func, instance)
            found = store[attribute] = _Queue(call, settings, streaming)
            own["last"] = found
            _warn_if_never_full(settings)
        item = _Item(arguments, streaming)
        found.put(item)
        return item

    if streaming:

        @functools.wraps(func)
        async def stream(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            item = put(args, kwargs)
            assert item.results is not None
            try:
                while True:
                    value, error = await item.results.get()
                    if error is not None:
                        raise error
                    if value is _END:
                        return
                    yield value
            finally:
                item.gone = True

        wrapper: Any = stream
    else:

        @functools.wraps(func)
        async def one(*args: Any, **kwargs: Any) -> Any:
            return await put(args, kwargs).future

        wrapper = one

    def set_max_batch_size(value: int) -> None:
        settings.size = _check_size(value)

    def set_batch_wait_timeout_s(value: float) -> None:
        settings.wait_s = _check_wait(value)

    def last() -> Any:
        return own.get("last")

    wrapper.set_max_batch_size = set_max_batch_size
    wrapper.set_batch_wait_timeout_s = set_batch_wait_timeout_s
    wrapper._get_max_batch_size = lambda: settings.size
    wrapper._get_batch_wait_timeout_s = lambda: settings.wait_s
    wrapper._get_curr_iteration_start_times = lambda: dict(getattr(last(), "started_at", {}))
    wrapper._is_batching_task_alive = lambda: last() is not None and not last().task.done()
    wrapper._get_handling_task_stack = lambda: None
    return wrapper  # type: ignore[no-any-return]


def _warn_if_never_full(settings: _Settings) -> None:
    context = _get_internal_replica_context()
    config = getattr(context, "_deployment_config", None)
    if not isinstance(config, dict):
        return
    ongoing = config.get("max_ongoing_requests") or 5
    if ongoing < settings.size * settings.concurrent:
        logger.warning(
            "`max_ongoing_requests` (%s) is less than `max_batch_size` * `max_concurrent_batches` "
            "(%s * %s): batches can never be full. Raise `max_ongoing_requests`.",
            ongoing,
            settings.size,
            settings.concurrent,
        )
