"""`rserve.limits`: what calls say of their time and their urgency."""

from __future__ import annotations

import json
import time
import unittest
from typing import Any, Dict, List, Tuple
from unittest import mock

import fakenode  # puts the library on the path
import rserve
from fakenode import FakeNode, w
from rserve import _limits

CODE = """
import asyncio, rserve
from ray import serve

@serve.deployment
class Back:
    async def value(self, x): return x

@serve.deployment
class Front:
    def __init__(self, back): self.back = back
    async def __call__(self, request):
        v = self.back.value
        await v.remote("plain")
        with rserve.limits(timeout_s=100, priority=9):
            await v.remote("both")
            with rserve.limits(timeout_s=500):
                await v.remote("inner")
            with rserve.limits(timeout_s=50, priority=0):
                await v.remote("less")
            async def other(): await v.remote("task")
            await asyncio.create_task(other())
        with rserve.limits(priority=3):
            await v.remote("priority")
        await v.remote("after")
        return "done"

app = Front.bind(Back.bind())
"""


class Calls(unittest.TestCase):
    def test_what_they_say(self) -> None:
        seen: List[Tuple[int, int]] = []
        node = FakeNode(CODE)
        self.addCleanup(node.close)

        def look(name: str, fields: Dict[int, bytes]) -> Any:
            seen.append((w.number(fields, w.T_TIMEOUT_MS), w.number(fields, w.T_PRIORITY, 99)))
            return None

        node.refuse = look
        answer = node.serve().http()
        self.assertIsNone(answer.error)
        self.assertEqual([p for _, p in seen], [99, 9, 9, 0, 9, 3, 99])
        # "inner" has no more time than the block around it
        for (ms, _), most in zip(seen, (0, 100, 100, 50, 100, 0, 0)):
            self.assertLessEqual(ms, most * 1000)
            self.assertGreaterEqual(ms, most * 500)


class Blocks(unittest.TestCase):
    def fields(self) -> Dict[int, bytes]:
        return w.parse_fields(_limits.fields())

    def test_time_goes_by(self) -> None:
        now = 1000.0
        with mock.patch.object(time, "monotonic", lambda: now):
            with rserve.limits(timeout_s=2):
                now += 0.5
                self.assertEqual(w.number(self.fields(), w.T_TIMEOUT_MS), 1500)
                now += 1.4999
                self.assertEqual(w.number(self.fields(), w.T_TIMEOUT_MS), 1)
                now += 5
                self.assertEqual(w.number(self.fields(), w.T_TIMEOUT_MS), 1)
            with rserve.limits(timeout_s=1e12):
                self.assertEqual(w.number(self.fields(), w.T_TIMEOUT_MS), 0xFFFFFFFF)
        self.assertEqual(_limits.fields(), b"")

    def test_wrong_ones(self) -> None:
        for wrong in (
            {"timeout_s": 0},
            {"timeout_s": -1},
            {"timeout_s": float("nan")},
            {"priority": 10},
            {"priority": -1},
            {"priority": 1.5},
            {"priority": "5"},
        ):
            with self.subTest(wrong=wrong), self.assertRaises(ValueError):
                with rserve.limits(**wrong):  # type: ignore[arg-type]
                    pass

    def test_an_exception_ends_it(self) -> None:
        with self.assertRaises(KeyError), rserve.limits(priority=1):
            raise KeyError
        self.assertEqual(_limits.fields(), b"")


if __name__ == "__main__":
    unittest.main()
