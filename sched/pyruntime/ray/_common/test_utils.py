"""Helpers of tests: actors that make others wait, and waiting for conditions."""

from __future__ import annotations

import asyncio
import inspect
import time
import traceback
from typing import Any, Callable

import ray


@ray.remote(num_cpus=0)
class SignalActor:
    """Others wait until it is sent."""

    def __init__(self) -> None:
        self.ready_event = asyncio.Event()
        self.num_waiters = 0

    def send(self, clear: bool = False) -> None:
        self.ready_event.set()
        if clear:
            self.ready_event.clear()

    async def wait(self, should_wait: bool = True) -> None:
        if should_wait:
            self.num_waiters += 1
            await self.ready_event.wait()
            self.num_waiters -= 1

    async def cur_num_waiters(self) -> int:
        return self.num_waiters


@ray.remote(num_cpus=0)
class Semaphore:
    """A semaphore that processes share."""

    def __init__(self, value: int = 1) -> None:
        self._sema = asyncio.Semaphore(value=value)

    async def acquire(self) -> None:
        await self._sema.acquire()

    async def release(self) -> None:
        self._sema.release()

    async def locked(self) -> bool:
        return self._sema.locked()


def wait_for_condition(
    condition_predictor: Callable[..., bool],
    timeout: float = 10,
    retry_interval_ms: float = 100,
    raise_exceptions: bool = False,
    **kwargs: Any,
) -> None:
    """Until the predicate is true. Raises RuntimeError after `timeout` seconds."""
    start = time.time()
    last = None
    while time.time() - start <= timeout:
        try:
            if condition_predictor(**kwargs):
                return
        except Exception:
            if raise_exceptions:
                raise
            last = traceback.format_exc()
        time.sleep(retry_interval_ms / 1000.0)
    _give_up(last)


async def async_wait_for_condition(
    condition_predictor: Callable[..., Any],
    timeout: float = 10,
    retry_interval_ms: float = 100,
    **kwargs: Any,
) -> None:
    """The same in asyncio; the predicate may be a coroutine function."""
    start = time.time()
    last = None
    while time.time() - start <= timeout:
        try:
            result = condition_predictor(**kwargs)
            if inspect.isawaitable(result):
                result = await result
            if result:
                return
        except Exception:
            last = traceback.format_exc()
        await asyncio.sleep(retry_interval_ms / 1000.0)
    _give_up(last)


def _give_up(last: Any) -> None:
    message = "The condition wasn't met before the timeout expired."
    if last is not None:
        message += f" Last exception: {last}"
    raise RuntimeError(message)
