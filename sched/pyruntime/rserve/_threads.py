"""The thread pool that synchronous user code runs in.

Work is handed in from the event loop's thread only. A thread is added when all others are busy, up
to the limit (`max_ongoing_requests`), so the pool is never the reason for a request to wait.
"""

from __future__ import annotations

import queue
import threading
from typing import Any, Callable, List, Tuple

Work = Tuple[Callable[..., None], Tuple[Any, ...]]


class _Worker(threading.Thread):
    def __init__(self, work: "queue.SimpleQueue[Any]", number: int) -> None:
        super().__init__(name=f"serve-sync-{number}", daemon=True)
        self._work = work
        self.finished = 0

    def run(self) -> None:
        get = self._work.get
        while True:
            item = get()
            if item is None:
                return
            function, args = item
            try:
                function(*args)
            finally:
                del item, function, args
                self.finished += 1


class ThreadPool:
    """Runs functions that handle their own errors."""

    def __init__(self, limit: int) -> None:
        self.limit = max(1, limit)
        self._work: "queue.SimpleQueue[Any]" = queue.SimpleQueue()
        self._workers: List[_Worker] = []
        self._submitted = 0

    def submit(self, function: Callable[..., None], *args: Any) -> None:
        workers = self._workers
        count = len(workers)
        if count < self.limit:
            running = self._submitted - sum([wk.finished for wk in workers])
            if running >= count:
                worker = _Worker(self._work, count)
                workers.append(worker)
                worker.start()
        self._submitted += 1
        self._work.put((function, args))
