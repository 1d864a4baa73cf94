"""Less time, or another priority, for some of the calls that a piece of code makes.

    import rserve

    with rserve.limits(timeout_s=0.2, priority=9):
        answer = await handle.remote(question)  # TimeoutError after 0.2 s

Without it a call has the time that is left to the request on whose behalf it is made, and its
priority. What is called calls on under the same limits: the node sees to it.
"""

from __future__ import annotations

import contextlib
import math
import time
from contextvars import ContextVar
from typing import Iterator, NamedTuple, Optional

from rserve import _wire as w

#: Whether there was ever a limit in this process: calls look no further if not.
used = False

_MOST_MS = 0xFFFFFFFF


class _Limits(NamedTuple):
    until: Optional[float]  # by time.monotonic
    priority: Optional[int]


_current: "ContextVar[Optional[_Limits]]" = ContextVar("rserve_limits", default=None)


@contextlib.contextmanager
def limits(
    *, timeout_s: Optional[float] = None, priority: Optional[int] = None
) -> Iterator[None]:
    """Calls that begin in the block end at the latest `timeout_s` seconds after it was entered.

    They are as urgent as `priority` says: 0 to 9, 9 is the most. A block inside another one can
    only have less time; its priority goes over that of the outer one. Not in Ray Serve.
    """
    global used
    if timeout_s is not None and not timeout_s > 0:
        raise ValueError(f"timeout_s must be above 0, got {timeout_s}.")
    if priority is not None and (not isinstance(priority, int) or not 0 <= priority <= 9):
        raise ValueError(f"priority must be an integer from 0 to 9, got {priority!r}.")
    outer = _current.get() or _Limits(None, None)
    until = outer.until
    if timeout_s is not None:
        until = min(time.monotonic() + timeout_s, math.inf if until is None else until)
    used = True
    token = _current.set(_Limits(until, outer.priority if priority is None else priority))
    try:
        yield
    finally:
        _current.reset(token)


def fields() -> bytes:
    """The metadata fields that say so for a call that begins now."""
    now = _current.get()
    if now is None:
        return b""
    parts = b""
    if now.until is not None:
        left = math.ceil((now.until - time.monotonic()) * 1000)
        parts += w.field_u32(w.T_TIMEOUT_MS, min(max(1, left), _MOST_MS))
    if now.priority is not None:
        parts += w.field_u8(w.T_PRIORITY, now.priority)
    return parts
