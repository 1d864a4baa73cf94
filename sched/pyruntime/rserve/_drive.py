"""Runs the coroutines of requests: the first step at once, the rest as a task.

Most handlers finish without waiting for anything. Making an asyncio task for each of them costs
more than many of them do, so the first step runs directly in the callback that read the request.
Code in it must still find itself in a task (timeouts, task groups and anyio ask for the current
one), so a parked task is lent to it: a task that waits on a future of its own. If the coroutine
finishes, the parked task is as fresh as before and serves the next request. If it waits for
something, the parked task takes it over.

Each request has its own contextvars context, which every step of its coroutine is run in,
whichever task that happens in.
"""

from __future__ import annotations

import asyncio
import types
from collections import deque
from contextvars import Context
from typing import Any, Callable, Coroutine, Deque, Generator, List, Optional, Tuple

from rserve._call import Call

#: Takes a result; may return a further coroutine that belongs to the request (streaming an answer).
Done = Callable[[Call, Any], Optional[Coroutine[Any, Any, Any]]]
Failed = Callable[[Call, BaseException], None]

PARKED = 64

try:
    from asyncio.tasks import _enter_task, _leave_task
except ImportError:  # they are not public: without them every coroutine starts as a task
    _enter_task = _leave_task = None  # type: ignore[assignment]


@types.coroutine
def _run(
    coro: Coroutine[Any, Any, Any], context: Context, waiting: Any, error: Optional[BaseException]
) -> Generator[Any, Any, Any]:
    """Drives `coro` to its end from within a task. `waiting` is what it already waits for."""
    value: Any = None
    first = waiting is None
    while True:
        if not first:
            try:
                value, error = (yield waiting), None
            except BaseException as e:
                error = e
        first = False
        try:
            if error is None:
                waiting = context.run(coro.send, value)
            else:
                waiting = context.run(coro.throw, error)
        except StopIteration as stop:
            return stop.value
        finally:
            error = None


class _Parked:
    """A task that waits to be given work."""

    __slots__ = ("task", "future", "job")

    def __init__(self, task: "asyncio.Task[Any]", future: "asyncio.Future[None]") -> None:
        self.task = task
        self.future = future
        self.job: Optional[Tuple[Call, Coroutine[Any, Any, Any], Context, Any]] = None


class Driver:
    """Runs coroutines for requests on one event loop; all methods belong to its thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, done: Done, failed: Failed) -> None:
        self._loop = loop
        self._done = done
        self._failed = failed
        self._free: List[_Parked] = []
        self._waiting: Deque[Tuple[Call, Coroutine[Any, Any, Any], Context]] = deque()
        self._starting = 0
        self._tasks: "set[asyncio.Task[Any]]" = set()
        if _enter_task is not None:
            self._refill(2)

    def start(self, call: Call, coro: Coroutine[Any, Any, Any], context: Context) -> None:
        """Begins to work on `call`. Must be called outside of any task."""
        if not self._free or _enter_task is None:
            self._waiting.append((call, coro, context))
            self._spawn(self._park())
            return
        parked = self._free[-1]
        loop, task = self._loop, parked.task
        more: Optional[Coroutine[Any, Any, Any]] = coro
        while more is not None:
            coro = more
            _enter_task(loop, task)
            try:
                waiting = context.run(coro.send, None)
            except StopIteration as stop:
                _leave_task(loop, task)
                more = self._done(call, stop.value)
            except BaseException as e:
                _leave_task(loop, task)
                self._failed(call, e)
                more = None
            else:
                _leave_task(loop, task)
                self._free.pop()
                parked.job = (call, coro, context, waiting)
                call.task = task
                if not parked.future.done():
                    parked.future.set_result(None)
                if len(self._free) + self._starting < 2:
                    self._refill(8)
                return
        if parked.future.done():  # the code cancelled "its" task in its only step
            self._free.pop()
            self._refill(1)

    def _refill(self, count: int) -> None:
        for _ in range(min(count, PARKED - len(self._free) - self._starting)):
            self._spawn(self._park())

    def _spawn(self, coro: Coroutine[Any, Any, None]) -> None:
        self._starting += 1
        task = self._loop.create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _park(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._starting -= 1
        if self._waiting:
            call, coro, context = self._waiting.popleft()
            if call.cancelled:
                coro.close()
                self._failed(call, asyncio.CancelledError())
            else:
                call.task = task
                await self._finish(call, coro, context, None, None)
            return
        parked = _Parked(task, self._loop.create_future())
        self._free.append(parked)
        error: Optional[BaseException] = None
        try:
            await parked.future
        except asyncio.CancelledError as e:
            if parked.job is None:
                if parked in self._free:
                    self._free.remove(parked)
                return
            error = e
        job, parked.job = parked.job, None
        assert job is not None
        call, coro, context, waiting = job
        if error is not None and waiting is not None:
            if waiting.cancel():  # its cancellation reaches the coroutine when it is waited for
                error = None
            else:  # it is there already: the coroutine gets ours
                waiting = None
        await self._finish(call, coro, context, waiting, error)

    async def _finish(
        self,
        call: Call,
        coro: Coroutine[Any, Any, Any],
        context: Context,
        waiting: Any,
        error: Optional[BaseException],
    ) -> None:
        more: Optional[Coroutine[Any, Any, Any]] = coro
        while more is not None:
            try:
                result = await _run(more, context, waiting, error)
            except BaseException as e:
                self._failed(call, e)
                return
            waiting = error = None
            more = self._done(call, result)
