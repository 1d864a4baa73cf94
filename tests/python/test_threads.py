"""The pool of synchronous code: nothing is lost, nothing waits for a thread that blocks."""

from __future__ import annotations

import os
import sys
import threading
import unittest
from collections import deque
from pathlib import Path
from typing import Any, Deque, List

sys.path.insert(
    0, os.environ.get("RSERVE_PYRUNTIME") or str(Path(__file__).parents[2] / "sched/pyruntime")
)
from rserve._threads import ThreadPool  # noqa: E402

TIMEOUT = 30.0


class Sink:
    """Plays the connection: `unsent` holds what was not flushed."""

    def __init__(self) -> None:
        self.unsent: Deque[Any] = deque()
        self.sent: List[Any] = []
        self.changed = threading.Condition()

    def flush(self) -> None:
        with self.changed:
            for _ in range(len(self.unsent)):
                self.sent.append(self.unsent.popleft())
            self.changed.notify_all()

    def wait(self, count: int) -> List[Any]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.sent) >= count, TIMEOUT), self.sent
            return list(self.sent)


class Pool(unittest.TestCase):
    def setUp(self) -> None:
        self.sink = Sink()

    def pool(self, limit: int) -> ThreadPool:
        return ThreadPool(limit, self.sink.unsent, self.sink.flush)

    def test_all_is_done_once(self) -> None:
        for limit in (1, 2, 7):
            with self.subTest(limit):
                self.setUp()
                pool = self.pool(limit)
                for i in range(3000):
                    pool.submit(self.sink.unsent.append, i)
                    if i % 100 == 0:
                        self.sink.wait(i // 2)  # let it run dry now and then
                self.assertEqual(sorted(self.sink.wait(3000)), list(range(3000)))
                self.assertEqual(len(self.sink.unsent), 0)
                self.assertLessEqual(len(pool._workers), limit)

    def test_from_several_threads(self) -> None:
        pool = self.pool(4)

        def hand_in(start: int) -> None:
            for i in range(start, start + 500):
                pool.submit(self.sink.unsent.append, i)

        threads = [threading.Thread(target=hand_in, args=(n * 500,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(self.sink.wait(2000)), list(range(2000)))

    def test_as_many_at_once_as_the_limit_says(self) -> None:
        for limit in (1, 3, 20):
            with self.subTest(limit):
                self.setUp()
                pool = self.pool(limit)
                together = threading.Barrier(limit)
                lock = threading.Lock()
                running = [0, 0]

                def work() -> None:
                    with lock:
                        running[0] += 1
                        running[1] = max(running)
                    together.wait(TIMEOUT)  # all of them, or none goes on
                    with lock:
                        running[0] -= 1
                    self.sink.unsent.append(None)

                for _ in range(limit * 5):
                    pool.submit(work)
                self.sink.wait(limit * 5)
                self.assertEqual(running, [0, limit])

    def test_a_thread_more_than_before(self) -> None:
        pool = self.pool(1)
        both = threading.Barrier(2)
        pool.limit = 2

        def work() -> None:
            both.wait(TIMEOUT)
            self.sink.unsent.append(None)

        pool.submit(work)
        pool.submit(work)
        self.sink.wait(2)

    def test_answers_do_not_wait_for_work_that_blocks(self) -> None:
        """Each second piece of work blocks until the answer before it was sent."""
        for limit in (1, 2, 5):
            with self.subTest(limit):
                self.setUp()
                pool = self.pool(limit)

                def blocks(i: int) -> None:
                    sent = self.sink.wait(0)
                    with self.sink.changed:
                        good = self.sink.changed.wait_for(lambda: i - 1 in self.sink.sent, TIMEOUT)
                    self.sink.unsent.append(i if good else ("not sent", i, sent))

                for i in range(200):
                    pool.submit(blocks if i % 2 else self.sink.unsent.append, i)
                self.assertEqual(sorted(self.sink.wait(200)), list(range(200)))

    def test_a_thread_that_fails_is_not_waited_for(self) -> None:
        """It should not, but then the others go on."""
        pool = self.pool(3)
        old = threading.excepthook
        self.addCleanup(setattr, threading, "excepthook", old)
        failed = threading.Event()
        threading.excepthook = lambda args: failed.set()

        def fail() -> None:
            raise ValueError

        pool.submit(fail)
        self.assertTrue(failed.wait(TIMEOUT))
        for i in range(10):
            pool.submit(self.sink.unsent.append, i)
        self.sink.wait(10)


if __name__ == "__main__":
    unittest.main()
