#!/usr/bin/env python3
"""What `make test` prints last is the sum of what the programs told. test_count.py SOURCE_ROOT"""

import contextlib
import importlib.util
import io
import json
import os
import sys
import tempfile
import unittest
from typing import List

ROOT = sys.argv.pop(1)
spec = importlib.util.spec_from_file_location("count", os.path.join(ROOT, ".ci", "count.py"))
assert spec and spec.loader
count = importlib.util.module_from_spec(spec)
spec.loader.exec_module(count)


class Cases(unittest.TestCase):
    def test_what_programs_tell(self) -> None:
        for text, want in (
                ("Running suite(s): a\n95%: Checks: 24, Failures: 1, Errors: 0\n", (23, 1)),
                ("100%: Checks: 2, Failures: 0, Errors: 0\n0%: Checks: 1, Failures: 0, Errors: 1\n",
                 (2, 1)),
                ("ok a\n69 passed, 1 failed\n", (69, 1)),
                ("1 passed, 0 failed\nmore\n3 passed, 2 failed\n", (3, 2)),
                ("Ran 7 tests in 0.1s\n\nOK\n", (7, 0)),
                ("Ran 7 tests in 0.1s\n\nOK (skipped=2)\n", (5, 0)),
                ("Ran 7 tests in 0.1s\n\nFAILED (failures=2, errors=1, skipped=1)\n", (3, 3)),
                ("anything", (0, 0))):
            self.assertEqual(count.cases(text), want, text)

    def test_what_they_skip(self) -> None:
        text = ("test_a (__main__.T.test_a) ... ok\n"
                "test_b (__main__.T.test_b) ... skipped 'no terminal'\n"
                "skipped: asgi-raw: starlette is not installed\n")
        self.assertEqual(count.skips(text),
                         ["test_b: no terminal", "asgi-raw: starlette is not installed"])


    def test_why_they_fail(self) -> None:
        rule, line = "=" * 70 + "\n", "-" * 70 + "\n"
        block = (rule + "FAIL: test_a (__main__.T.test_a)\n" + line
                 + "Traceback (most recent call last):\n"
                 + "  File \"a.py\", line 3, in test_a\n    self.assertTrue(x)\n"
                 + "AssertionError: False is not true\n\n")
        text = block + block.replace("test_a", "test_b") + line + "Ran 7 tests in 0.1s\n"
        told = count.reasons(text)
        self.assertEqual(len(told), 2)
        self.assertTrue(told[1].startswith(
            "FAIL: test_b (__main__.T.test_b) | File \"a.py\", line 3, in test_b"), told[1])
        self.assertTrue(told[0].endswith("AssertionError: False is not true"), told[0])
        line = "../tests/unit/core/test_buf.c:12:F:core:test_grow:0: Assertion 'a == b' failed"
        self.assertEqual(count.reasons("Running\n%s\n50%%: Checks: 2" % line), [line])
        self.assertEqual(count.reasons("a\n\nb\nc\nd\n"), ["b", "c", "d"])


class Folders(unittest.TestCase):
    def setUp(self) -> None:
        quiet = contextlib.redirect_stdout(io.StringIO())
        quiet.__enter__()
        self.addCleanup(quiet.__exit__, None, None, None)

    def run_count(self, *tests: dict) -> List[object]:
        with tempfile.TemporaryDirectory() as folder:
            os.mkdir(os.path.join(folder, "meson-logs"))
            with open(os.path.join(folder, "meson-logs", "testlog.json"), "w") as f:
                for test in tests:
                    f.write(json.dumps({"name": "t", "stdout": "", **test}) + "\n")
            bad: List[str] = []
            return [*count.count(folder, bad), sum(not b.startswith("  ") for b in bad)]

    def test_silent_programs_count_once(self) -> None:
        self.assertEqual(self.run_count({"result": "OK"}, {"result": "FAIL"}), [1, 1, 1])

    def test_a_crash_after_good_cases_is_a_failure(self) -> None:
        told = "100%: Checks: 2, Failures: 0, Errors: 0"
        got = self.run_count({"result": "ERROR", "stdout": told})
        self.assertEqual(got, [2, 1, 1])

    def test_a_timeout_is_a_failure_and_a_skip_is_neither(self) -> None:
        self.assertEqual(self.run_count({"result": "TIMEOUT"}, {"result": "SKIP"}), [0, 1, 1])

    def test_no_results_fail(self) -> None:
        self.assertEqual(count.main(0, ["/nonexistent"]), 1)

    def test_a_run_that_broke_off_fails(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            os.mkdir(os.path.join(folder, "meson-logs"))
            with open(os.path.join(folder, "meson-logs", "testlog.json"), "w") as f:
                f.write(json.dumps({"name": "t", "stdout": "", "result": "OK"}) + "\n")
            self.assertEqual(count.main(0, [folder]), 0)
            self.assertEqual(count.main(1, [folder]), 1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
