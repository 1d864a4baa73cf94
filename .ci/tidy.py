#!/usr/bin/env python3
"""clang-tidy over the C files of a build folder: tidy.py BUILD [FILE...]

One file per process, as many as there are cores. What passed is remembered by a hash of the
preprocessed file, the settings and the version, so that only what changed is looked at again.
"""

import concurrent.futures
import hashlib
import json
import os
import shlex
import subprocess
import sys
from typing import Dict, List

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LAYERS = ("core", "gpu", "sched", "net", "kube", "cmd")
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"),
                     "rserve", "tidy")


def settings() -> bytes:
    version = subprocess.run(["clang-tidy", "--version"], stdout=subprocess.PIPE, check=True).stdout
    with open(os.path.join(ROOT, ".clang-tidy"), "rb") as f:
        return version + f.read()


def preprocessed(entry: Dict[str, str]) -> bytes:
    args: List[str] = []
    words = iter(shlex.split(entry["command"]))
    for word in words:
        if word in ("-o", "-MF", "-MQ", "-MT"):
            next(words)
        elif word not in ("-c", "-MD", "ccache"):
            args.append(word)
    return subprocess.run(args + ["-E"], cwd=entry["directory"], stdout=subprocess.PIPE,
                          check=True).stdout


def check(build: str, entry: Dict[str, str], salt: bytes) -> str:
    """"" if the file is clean, else what clang-tidy said."""
    path = os.path.normpath(os.path.join(entry["directory"], entry["file"]))
    try:
        key = hashlib.sha256(salt + preprocessed(entry)).hexdigest()
    except subprocess.CalledProcessError:
        return "%s: does not compile\n" % os.path.relpath(path, ROOT)
    done = os.path.join(CACHE, key)
    if os.path.exists(done):
        os.utime(done)
        return ""
    run = subprocess.run(["clang-tidy", "-p", build, "--quiet", "--warnings-as-errors=*", path],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    if run.returncode == 0:
        with open(done, "w", encoding="utf-8"):
            pass
        return ""
    return run.stdout or run.stderr


def main(argv: List[str]) -> int:
    build, only = argv[0], [os.path.abspath(f) for f in argv[1:]]
    os.makedirs(CACHE, exist_ok=True)
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as f:
        entries = {os.path.normpath(os.path.join(e["directory"], e["file"])): e
                   for e in json.load(f)}
    chosen = [e for path, e in sorted(entries.items())
              if os.path.relpath(path, ROOT).split(os.sep)[0] in LAYERS
              and (not only or path in only)]
    salt = settings()
    bad = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for said in pool.map(lambda e: check(build, e, salt), chosen):
            if said:
                bad += 1
                print(said.strip())
    print("%d files, %d with warnings" % (len(chosen), bad))
    return 1 if bad or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
