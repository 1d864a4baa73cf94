#!/usr/bin/env python3
"""docs/differences.md names every difference that tests and tables know.

    check_differences.py SOURCE_ROOT

Golden cases where our answer is not Ray's, cases that do not pass yet, keys of configuration files
that are not acted upon.
"""

import glob
import os
import re
import sys


def known(root):
    for path in glob.glob(os.path.join(root, "tests/golden/cases/*/ours.json")):
        yield os.path.basename(os.path.dirname(path)), "tests/golden/cases"
    with open(os.path.join(root, "tests/golden/expected-failures.txt"), encoding="utf-8") as f:
        for line in f:
            if line.strip() and not line.startswith("#"):
                yield line.partition(":")[0], "tests/golden/expected-failures.txt"
    with open(os.path.join(root, "docs/config.md"), encoding="utf-8") as f:
        for line in f:
            if "Not acted upon yet" in line:
                yield re.match(r"\| `([^`]+)`", line).group(1), "docs/config.md, not acted upon"


def main(root):
    with open(os.path.join(root, "docs/differences.md"), encoding="utf-8") as f:
        page = f.read()
    words = set(re.findall(r"[\w-]+", page))
    missing = [(name, where) for name, where in known(root) if name not in words]
    for name, where in sorted(missing):
        print("docs/differences.md does not name %s (%s)" % (name, where))
    cases = {os.path.basename(p) for p in glob.glob(os.path.join(root, "tests/golden/cases/*"))}
    for case in re.findall(r"\[([a-z][a-z-]+)\](?!\()", page):
        if case not in cases:
            missing.append((case, ""))
            print("docs/differences.md names a golden case that does not exist: %s" % case)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
