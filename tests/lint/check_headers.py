#!/usr/bin/env python3
"""Every header compiles alone. check_headers.py SOURCE_ROOT BUILD_ROOT [CC ARG...]"""

import concurrent.futures
import os
import subprocess
import sys
from typing import List

LAYERS = ("core", "gpu", "sched", "net", "kube", "cmd", "tests")


def headers(root: str) -> List[str]:
    found = []
    for layer in LAYERS:
        for folder, _, files in os.walk(os.path.join(root, layer)):
            found += [os.path.join(folder, f) for f in files if f.endswith(".h")]
    return sorted(os.path.relpath(h, root) for h in found)


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
    bad = sum(1 for s in said if s)
    print("%d passed, %d failed" % (len(names) - bad, bad))
    return 1 if bad or not names else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
