#!/usr/bin/env python3
"""The Python library, and a program that uses it, pass mypy --strict. check_types.py SOURCE_ROOT

Skipped (77) where mypy is not installed for this Python; tests/requirements.txt has it.
"""

import importlib.util
import os
import subprocess
import sys


def main(root: str) -> int:
    if importlib.util.find_spec("mypy") is None:
        print("mypy is not installed")
        return 77
    cache = os.path.join(os.environ.get("MESON_BUILD_ROOT") or root, ".mypy_cache")
    library = os.path.join(root, "sched/pyruntime")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", os.path.join(root, "tests/lint/mypy.ini"),
         "--cache-dir", cache, os.path.join(library, "ray"), os.path.join(library, "rserve"),
         os.path.join(root, "testdata/types/program.py")],
        cwd=library)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
