#!/usr/bin/env python3
"""Sums the test cases of build folders: count.py STATUS BUILD...

Reads what the last `meson test` of each left in meson-logs/testlog.json. A program that tells how
many cases it ran (Check, unittest, "N passed, N failed") counts with these, any other as one. A
report that a sanitizer wrote to meson-logs/sanitizer-report.PID is a failure, and so is a STATUS
of `meson test` other than 0 that nothing explains: it broke off. What was skipped is named. The
last line is `N passed, N failed`; the exit status is 1 if a test failed or there are no results.
"""

import glob
import json
import os
import re
import sys
from typing import List, Tuple

CHECK = re.compile(r"^\d+%: Checks: (\d+), Failures: (\d+), Errors: (\d+)$", re.M)
SUMMED = re.compile(r"^(\d+) passed, (\d+) failed\b", re.M)
UNITTEST = re.compile(r"^Ran (\d+) tests? in ", re.M)
UNITTEST_BAD = re.compile(r"\b(?:failures|errors)=(\d+)")
UNITTEST_BLOCK = re.compile(r"^={70}\n((?:FAIL|ERROR): .*?)(?=^={70}$|^-{70}\nRan |\Z)",
                            re.M | re.S)
CHECK_BAD = re.compile(r"^.+:[FE]:[^:]+:[^:]+:\d+: .+$", re.M)
UNITTEST_SKIPPED = re.compile(r"\bskipped=(\d+)")
SKIPPED = re.compile(r"^(?:skipped: (.+)|(\w+) \(.*\.\.\. skipped (.+))$", re.M)
REPORT_LINES = 25
REASONS = 8
FAILING = ("FAIL", "ERROR", "TIMEOUT", "INTERRUPT", "UNEXPECTEDPASS")


def cases(text: str) -> Tuple[int, int]:
    """(passed, failed) as the program told, or (0, 0)."""
    passed = failed = 0
    for m in CHECK.finditer(text):
        bad = int(m[2]) + int(m[3])
        passed, failed = passed + int(m[1]) - bad, failed + bad
    if not passed + failed:
        ran = UNITTEST.search(text)
        if ran:
            tail = text[ran.end():]
            failed = sum(int(n) for n in UNITTEST_BAD.findall(tail))
            skipped = sum(int(n) for n in UNITTEST_SKIPPED.findall(tail))
            passed = max(0, int(ran[1]) - failed - skipped)
    if not passed + failed:
        told = SUMMED.findall(text)
        if told:
            passed, failed = int(told[-1][0]), int(told[-1][1])
    return passed, failed


def skips(text: str) -> List[str]:
    """What the program says that it left out, and why."""
    return [m[1] or "%s: %s" % (m[2], m[3].strip("'")) for m in SKIPPED.finditer(text)]


def reasons(text: str) -> List[str]:
    """What the program says of its failures, a line each: the last part of the output of make test
    must tell what went wrong, since it may be all that someone gets to see."""
    told = []
    for m in UNITTEST_BLOCK.finditer(text):
        lines = [line.strip() for line in m[1].strip().splitlines()]
        where = [line for line in lines if line.startswith("File ")][-1:]
        told.append(" | ".join([lines[0], *where, *lines[-2:]]))
    told = told or CHECK_BAD.findall(text) or [x for x in text.splitlines() if x.strip()][-3:]
    return [line[:400] for line in told[:REASONS]]


def count(folder: str, bad: List[str]) -> Tuple[int, int]:
    passed = failed = 0
    path = os.path.join(folder, "meson-logs", "testlog.json")
    with open(path, encoding="utf-8") as f:
        for line in f:
            test = json.loads(line)
            text = test.get("stdout", "") + "\n" + test.get("stderr", "")
            p, n = cases(text)
            for why in skips(text):
                print("skipped: %s: %s: %s" % (folder, test["name"], why))
            if test["result"] in FAILING:
                n = max(n, 1)
                bad.append("%s: %s (%s)" % (folder, test["name"], test["result"].lower()))
                bad.extend("  " + line for line in reasons(text))
            elif test["result"] == "SKIP":
                print("skipped: %s: %s" % (folder, test["name"]))
            elif not p + n and not skips(text):
                p = 1
            passed, failed = passed + p, failed + n
    for report in sorted(glob.glob(os.path.join(folder, "meson-logs", "sanitizer-report.*"))):
        failed += 1
        with open(report, encoding="utf-8", errors="replace") as f:
            bad.append("%s:\n%s" % (report, "".join(f.readlines()[:REPORT_LINES])))
    return passed, failed


def main(status: int, folders: List[str]) -> int:
    passed = failed = 0
    bad: List[str] = []
    for folder in folders:
        try:
            p, n = count(folder, bad)
        except (OSError, ValueError, KeyError) as e:
            p, n = 0, 1
            bad.append("%s: no test results: %s" % (folder, e))
        passed, failed = passed + p, failed + n
    if status != 0 and failed == 0:
        failed = 1
        bad.append("meson test ended with status %d" % status)
    for line in bad:
        print(line if line.startswith("  ") else "failed: " + line)
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
