"""Synchronous code off the event loop."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from typing import Any, AsyncIterator, Callable, Iterable, TypeVar

T = TypeVar("T")


async def run_in_threadpool(func: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    context = contextvars.copy_context()
    call = functools.partial(context.run, func, *args, **kwargs)
    result: T = await asyncio.get_running_loop().run_in_executor(None, call)
    return result


class _End(Exception):
    pass


def _next(iterator: Any) -> Any:
    try:
        return next(iterator)
    except StopIteration:
        raise _End from None  # StopIteration cannot pass through a future


async def iterate_in_threadpool(iterator: Iterable[T]) -> AsyncIterator[T]:
    as_iterator = iter(iterator)
    while True:
        try:
            yield await run_in_threadpool(_next, as_iterator)
        except _End:
            return
