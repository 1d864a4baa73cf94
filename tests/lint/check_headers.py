#!/usr/bin/env python3
"""Every header compiles alone, and no two declare the same name: the linker would take one of
their functions for both. check_headers.py SOURCE_ROOT BUILD_ROOT [CC ARG...]"""

import concurrent.futures
import os
import re
import subprocess
import sys
from typing import Dict, List

LAYERS = ("core", "gpu", "sched", "net", "kube", "cmd", "tests")


def headers(root: str) -> List[str]:
    found = []
    for layer in LAYERS:
        for folder, _, files in os.walk(os.path.join(root, layer)):
            found += [os.path.join(folder, f) for f in files if f.endswith(".h")]
    return sorted(os.path.relpath(h, root) for h in found)


def declared_twice(root: str, names: List[str]) -> List[str]:
    seen: Dict[str, str] = {}
    bad = []
    for header in names:
        with open(os.path.join(root, header), encoding="utf-8") as f:
            text = re.sub(r"/\*.*?\*/|^[ ]*#(?:[^\n]*\\\n)*[^\n]*", "", f.read(), flags=re.S | re.M)
        for name in set(re.findall(r"^[a-z][\w\s*]*?\b(rs_\w+)\s*\([^;{]*;", text, flags=re.M)):
            other = seen.setdefault(name, header)
            if other != header:
                bad.append("%s: %s is declared in %s too" % (header, name, other))
    return bad


def main(root: str, build: str, compiler: List[str]) -> int:
    def compiles(header: str) -> str:
        run = subprocess.run(
            compiler + ["-std=gnu17", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wno-unused-parameter",
                        "-Werror", "-fsyntax-only", "-I", build, "-I", root,
                        "-include", header, "-x", "c", os.devnull],
            cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
        return run.stdout if run.returncode else ""

    names = headers(root)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        said = list(pool.map(compiles, names))
    for name, output in zip(names, said):
        if output:
            print("%s does not compile alone:\n%s" % (name, output))
    twice = declared_twice(root, [n for n in names if not n.startswith("tests/")])
    print("\n".join(twice))
    bad = sum(1 for s in said if s) + len(twice)
    print("%d passed, %d failed" % (len(names) - bad, bad))
    return 1 if bad or not names else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
