"""Watches over the event loop: user code may block it, and the node must not wait for that.

A thread looks every TICK_S whether the loop gets to its socket. When there is something to read
and nobody reads it, the thread does so in the loop's place until the loop is back
(`NodeLink.stand_in`). A replica without work costs nothing: the thread then sleeps in the kernel
until something comes.

Code that blocks without giving up the interpreter's lock (a long call into C) stops this thread
too; such a replica does not answer, and the node finds it unhealthy.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from typing import Optional

from rserve._errors import is_library
from rserve._node import NodeLink

#: How often it looks, in seconds.
TICK_S = 0.1
#: How long the loop may leave its socket unread, once it was seen so, until this thread reads it:
#: what came just before a look is no sign of anything.
PATIENCE_S = 0.05
#: After so many ticks without traffic the thread sleeps until there is some.
QUIET_TICKS = 10
#: A loop that is blocked for this long is worth a line in the log, in seconds.
WARN_AFTER_S = 5.0

_STDLIB = os.path.dirname(os.__file__) + os.sep


class Watch(threading.Thread):
    """One per replica; started when it is ready."""

    def __init__(self, link: NodeLink) -> None:
        super().__init__(name="serve-watch", daemon=True)
        self._link = link

    def run(self) -> None:
        link = self._link
        poller = select.poll()
        poller.register(link.sock.fileno(), select.POLLIN)
        quiet = 0
        while True:
            seen = link.turns
            if quiet >= QUIET_TICKS:
                poller.poll()
                quiet = 0
            time.sleep(TICK_S)
            if link.turns != seen:
                quiet = 0
            elif poller.poll(0) or link.wants_to_write():
                since = time.monotonic()
                time.sleep(PATIENCE_S)
                if link.turns == seen:
                    self._stand_in(seen, since)
                quiet = 0
            else:
                quiet += 1

    def _stand_in(self, seen: int, since: float) -> None:
        link = self._link
        warned = False
        poller = select.poll()
        try:
            link.loop.call_soon_threadsafe(link._resume)  # tells that the loop is back
            while link.turns == seen:
                events = select.POLLIN | (select.POLLOUT if link.wants_to_write() else 0)
                poller.register(link.sock.fileno(), events)
                poller.poll(TICK_S * 1000)
                if link.turns != seen:
                    return
                blocked_s = time.monotonic() - since
                link.stand_in(blocked_s)
                if blocked_s >= WARN_AFTER_S and not warned:
                    warned = True
                    print(
                        f"rserve: the event loop has been blocked for {blocked_s:.0f} s"
                        f"{where(link.thread_id)}: requests of this replica wait. Use 'await', "
                        "'asyncio.to_thread' or a plain 'def' method",
                        file=sys.stderr,
                        flush=True,
                    )
        except RuntimeError:
            pass  # the loop was closed: this process is about to end


def where(thread_id: int) -> str:
    """` in FILE:LINE (function)`: where user code of a thread is; "" if it is not known."""
    frame = sys._current_frames().get(thread_id)
    last: Optional[str] = None
    while frame is not None:
        code = frame.f_code
        name = code.co_filename
        if not is_library(name) and not (name.startswith(_STDLIB) and "-packages" not in name):
            last = f" in {os.path.basename(code.co_filename)}:{frame.f_lineno} ({code.co_name})"
            break
        frame = frame.f_back
    return last or ""
