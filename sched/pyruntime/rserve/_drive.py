"""Runs the coroutines of requests without a task for each.

Most handlers wait for nothing, or for a call and little else. Making an asyncio task for each of
them costs more than many of them do, so each step runs directly in the callback that has the news:
the first one in that which read the request. Code in it must still find itself in a task (timeouts,
task groups and anyio ask for the current one), so a parked task is lent to it: a task that waits on
a future of its own. Whoever cancels that task wakes it, and then it takes the coroutine over and
runs it as any task would. Else it is as fresh as before when the coroutine has ended, and serves
the next request, unless somebody kept a reference to it.

Each request has its own contextvars context, which every step of its coroutine is run in.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import types
from collections import deque
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Callable, Coroutine, Deque, Generator, List, Optional, Tuple

from rserve._call import Call

if TYPE_CHECKING:
    from rserve._node import NodeLink

    _Future = asyncio.Future[None]
else:
    _Future = asyncio.Future

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
    """A task that waits to be needed, and the coroutine that it is lent to."""

    __slots__ = ("driver", "task", "future", "refs", "call", "coro", "context", "waiting", "turn")

    def __init__(
        self, driver: "Driver", task: "asyncio.Task[Any]", future: "asyncio.Future[None]"
    ) -> None:
        self.driver = driver
        self.task = task
        self.future = future
        self.refs = 0  # references to the task while nobody has it
        self.call: Optional[Call] = None
        self.coro: Optional[Coroutine[Any, Any, Any]] = None
        self.context: Optional[Context] = None
        self.waiting: Any = None  # what the coroutine waits for; None: the next turn of the loop
        self.turn = 0

    def on_done(self, future: Any) -> None:
        """What the coroutine waited for is there."""
        if self.waiting is not future or self.future.done():
            return  # the task has taken over, or is about to
        error: Optional[BaseException] = None
        try:
            future.result()
        except BaseException as e:
            error = e
        self.driver._go_on(self, error)

    def on_turn(self, turn: int) -> None:
        """The coroutine gave the others a turn, and that is over."""
        if self.turn == turn and self.coro is not None and not self.future.done():
            self.driver._go_on(self, None)


class News(_Future):
    """Done when there is news of a call of this process. What waits for it under a `Driver` goes on
    in the turn in which the news is read."""

    __slots__ = ("_link", "_thread", "parked")

    def __init__(self, link: "NodeLink", loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._link = link
        self._thread = threading.get_ident()
        self.parked: Optional[_Parked] = None

    def wake(self) -> None:
        """From any thread."""
        if threading.get_ident() != self._thread:
            try:
                self.get_loop().call_soon_threadsafe(self.wake)
            except RuntimeError:
                pass  # that loop was closed: nobody waits any more
        elif not self.done():
            self.set_result(None)
            parked, self.parked = self.parked, None
            if parked is not None:
                self._link.resume(parked.on_done, self)


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
        self._context = copy_context()  # no request's
        if _enter_task is not None:
            self._refill(2)

    def start(self, call: Call, coro: Coroutine[Any, Any, Any], context: Context) -> None:
        """Begins to work on `call`. Must be called outside of any task."""
        if not self._free or _enter_task is None:
            self._waiting.append((call, coro, context))
            self._spawn(self._park())
            if _enter_task is not None:
                self._refill(2)
            return
        parked = self._free[-1]
        loop = self._loop
        if not parked.refs:
            parked.refs = sys.getrefcount(parked.task)
        more: Optional[Coroutine[Any, Any, Any]] = coro
        while more is not None:
            coro = more
            _enter_task(loop, parked.task)
            try:
                waiting = context.run(coro.send, None)
            except StopIteration as stop:
                _leave_task(loop, parked.task)
                more = self._done(call, stop.value)
            except BaseException as e:
                _leave_task(loop, parked.task)
                self._failed(call, e)
                more = None
            else:
                _leave_task(loop, parked.task)
                self._free.pop()
                call.task = parked.task
                parked.call, parked.coro, parked.context = call, coro, context
                self._wait(parked, waiting)
                if len(self._free) + self._starting < 2:
                    self._refill(8)
                return
        if parked.future.done():  # the code cancelled "its" task in its only step
            self._free.pop()
            self._refill(1)

    def _wait(self, parked: _Parked, waiting: Any) -> None:
        """The coroutine has yielded `waiting`."""
        parked.waiting = waiting
        if parked.future.done():  # it was cancelled in this step: its task is about to take over
            return
        kind = type(waiting)
        if kind is News:
            waiting._asyncio_future_blocking = False
            waiting.parked = parked
        elif waiting is None:
            parked.turn += 1
            self._loop.call_soon(parked.on_turn, parked.turn, context=self._context)
        elif (
            getattr(waiting, "_asyncio_future_blocking", False)
            and waiting is not parked.task
            and (kind is asyncio.Future or hasattr(waiting, "get_loop"))
            and waiting.get_loop() is self._loop
        ):
            waiting._asyncio_future_blocking = False
            waiting.add_done_callback(parked.on_done, context=self._context)
        else:  # a task knows what to say to that
            parked.future.set_result(None)

    def _go_on(self, parked: _Parked, error: Optional[BaseException]) -> None:
        """The next step of a coroutine, outside of any task."""
        call, context, loop = parked.call, parked.context, self._loop
        more = parked.coro
        assert call is not None and context is not None
        while more is not None:
            coro = parked.coro = more
            _enter_task(loop, parked.task)
            try:
                if error is None:
                    waiting = context.run(coro.send, None)
                else:
                    waiting = context.run(coro.throw, error)
            except StopIteration as stop:
                _leave_task(loop, parked.task)
                more = self._done(call, stop.value)
            except BaseException as e:
                _leave_task(loop, parked.task)
                self._failed(call, e)
                more = None
            else:
                _leave_task(loop, parked.task)
                self._wait(parked, waiting)
                return
            finally:
                error = None
        call.task = parked.call = parked.coro = parked.context = parked.waiting = None
        if parked.future.done():
            pass  # it was cancelled in its last step: it ends
        elif len(self._free) < PARKED and sys.getrefcount(parked.task) <= parked.refs:
            self._free.append(parked)
        else:
            parked.future.set_result(None)

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
        parked = _Parked(self, task, self._loop.create_future())
        self._free.append(parked)
        error: Optional[BaseException] = None
        try:
            await parked.future
        except asyncio.CancelledError as e:
            error = e
        call_, coro_, context_ = parked.call, parked.coro, parked.context
        waiting, parked.waiting = parked.waiting, None
        parked.coro = None
        if call_ is None or coro_ is None or context_ is None:
            if parked in self._free:
                self._free.remove(parked)
            return
        if type(waiting) is News:
            waiting.parked = None
        is_future = hasattr(waiting, "_asyncio_future_blocking")
        if error is not None and waiting is not None:
            if is_future and waiting.cancel():
                error = None  # its cancellation reaches the coroutine when it is waited for
            else:  # it is there already: the coroutine gets ours
                waiting = None
        if is_future and waiting is not None:
            waiting._asyncio_future_blocking = True  # as it was when the coroutine yielded it
        await self._finish(call_, coro_, context_, waiting, error)

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
