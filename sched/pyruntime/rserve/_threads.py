"""The thread pool that synchronous user code runs in.

Work is handed in from the event loop's thread only. A thread is added when all others are busy, up
to the limit (`max_ongoing_requests`), so the pool is never the reason for a request to wait.

Handing over must not cost more than the work. So at most one thread at a time is woken to look
for work; before it runs what it found it wakes the next one, if there is more. Work that is done
at once is thus done by one thread in a row, while what blocks lets the others come up one after
the other. For the same reason answers are not written one by one: they wait until the thread that
made them has nothing to do, or the one that was woken gets to run, which is as soon as user code
waits for anything, or after an interval of the interpreter's (5 ms).
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Callable, Deque, List, Sized, Tuple

Work = Tuple[Callable[..., None], Tuple[Any, ...]]


class _Worker(threading.Thread):
    def __init__(self, pool: "ThreadPool", number: int) -> None:
        super().__init__(name=f"serve-sync-{number}", daemon=True)
        self._pool = pool
        self.wake = threading.Lock()
        self.wake.acquire()

    def run(self) -> None:
        pool = self._pool
        unsent, flush = pool._unsent, pool._flush
        work = pool._work
        while True:
            pool._woken = False  # before the look at `unsent`: who saw it true leaves that to us
            while True:
                if unsent:
                    flush()
                try:
                    function, args = work.popleft()
                except IndexError:
                    break
                while True:
                    if work and not pool._woken:
                        pool._wake()
                    if unsent and not pool._woken:
                        flush()
                    try:
                        function(*args)
                    finally:
                        del function, args
                    try:
                        function, args = work.popleft()
                    except IndexError:
                        break
            if pool._rest(self):
                self.wake.acquire()


class ThreadPool:
    """Runs functions that handle their own errors. `flush` sends what they leave in `unsent`."""

    def __init__(
        self, limit: int, unsent: Sized = (), flush: Callable[[], None] = lambda: None
    ) -> None:
        self.limit = max(1, limit)
        self._unsent = unsent
        self._flush = flush
        self._work: "Deque[Work]" = deque()
        self._workers: List[_Worker] = []
        self._idle: List[_Worker] = []
        self._lock = threading.Lock()
        self._woken = False  # a worker is about to look for work

    def submit(self, function: Callable[..., None], *args: Any) -> None:
        self._work.append((function, args))
        if not self._woken:
            self._wake()

    def _wake(self) -> None:
        """Lets one more worker look for work. If all are busy, the first that is done will."""
        with self._lock:
            if self._woken:
                return
            if self._idle:
                self._woken = True
                self._idle.pop().wake.release()
                return
            if len(self._workers) >= self.limit:
                return
            self._woken = True
            worker = _Worker(self, len(self._workers))
            self._workers.append(worker)
        worker.start()

    def _rest(self, worker: _Worker) -> bool:
        """Nothing was left to do for this worker; false: something is, after all."""
        with self._lock:
            if self._work:
                return False
            self._idle.append(worker)
            return True
