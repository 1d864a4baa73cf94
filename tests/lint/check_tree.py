#!/usr/bin/env python3
"""What every text file of the tree keeps to. check_tree.py SOURCE_ROOT

No tabs in sources, no trailing blanks, a newline at the end, no conflict markers, no paths of
somebody's machine, no source over 1,000 lines (tests: 1,200), no file over 400 kB. Python is Python
3.9 within 100 columns, and C keeps to the names and the types of the house style.
"""

import ast
import os
import re
import subprocess
import sys
from typing import Iterator, List

# Recorded or generated elsewhere, or a licence: kept as they are.
EXEMPT = ("tests/golden/cases/", "testdata/fuzz/", "LICENSE")
TEXT = (".c", ".h", ".def", ".py", ".md", ".yaml", ".yml", ".json", ".build", ".txt", ".sh", ".in")
MACHINE_PATH = re.compile(r"(?<![\w.$}/-])/(?:root|work)/")
GUARD = re.compile(r"^#(?:pragma once|ifndef)", re.M)
# What sched/join_header.py makes one header of.
PARTS = ("sched/rserve_replica_",)
CONFLICT = re.compile(r"^(?:<{7} |>{7} |={7}$)")
TYPEDEF = re.compile(r"^\s*typedef\s+(?:struct|union|enum)\b")
LONGEST, LONGEST_TEST, LARGEST, COLUMNS = 1000, 1200, 400_000, 100


def tracked(root: str) -> List[str]:
    """Files of the repository, or of the folder when it is an unpacked release."""
    run = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                         cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    names = [n for n in run.stdout.decode().split("\0") if n]
    if run.returncode != 0 or not names:
        names = [os.path.relpath(os.path.join(d, f), root)
                 for d, _, files in os.walk(root) for f in files]
    return sorted(n for n in names if os.path.isfile(os.path.join(root, n)))


def lines_of(name: str, lines: List[str]) -> Iterator[str]:
    code = name.endswith((".c", ".h", ".py"))
    for number, line in enumerate(lines, 1):
        at = "%s:%d: " % (name, number)
        if line != line.rstrip():
            yield at + "blanks at the end of the line"
        if code and "\t" in line:
            yield at + "a tab"
        if CONFLICT.match(line):
            yield at + "a conflict marker"
        if MACHINE_PATH.search(line):
            yield at + "a path of somebody's machine"
        if name.endswith(".py") and len(line) > COLUMNS:
            yield at + "%d columns, at most %d" % (len(line), COLUMNS)
        if name.endswith((".c", ".h")) and TYPEDEF.match(line):
            yield at + "a typedef of a struct, union or enum"


def check(root: str, name: str) -> Iterator[str]:
    path = os.path.join(root, name)
    if os.path.getsize(path) > LARGEST:
        yield "%s: larger than %d bytes" % (name, LARGEST)
    if not name.endswith(TEXT):
        return
    with open(path, encoding="utf-8", newline="") as f:
        text = f.read()
    lines = text.split("\n")
    if text and not text.endswith("\n"):
        yield "%s: no newline at the end" % name
    if "\r" in text:
        yield "%s: a carriage return" % name
    most = LONGEST_TEST if name.startswith("tests/") else LONGEST
    if name.endswith((".c", ".h", ".py")) and len(lines) > most + 1:
        yield "%s: %d lines, at most %d" % (name, len(lines) - 1, most)
    if name.endswith(".h") and not GUARD.search(text) and not name.startswith(PARTS):
        yield "%s: no #pragma once" % name
    if name.endswith(".py"):
        try:
            ast.parse(text, name, feature_version=(3, 9))
        except SyntaxError as e:
            yield "%s:%d: not Python 3.9: %s" % (name, e.lineno or 0, e.msg)
    yield from lines_of(name, lines)


def main(root: str) -> int:
    names = [n for n in tracked(root) if not n.startswith(EXEMPT)]
    wrong = [line for name in names for line in check(root, name)]
    print("\n".join(wrong) or "%d files: ok" % len(names))
    return 1 if wrong or not names else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
