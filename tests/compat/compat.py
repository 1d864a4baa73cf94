#!/usr/bin/env python3
"""The same applications under Ray Serve and under rserve, answers compared: `make compat-ray`.

    compat.py --ray-bin FOLDER [CASE...]

Every golden case and the samples of samples.json are run under Ray first, which records what it
answers now, into a temporary copy; then rserve ($RSERVE) has to answer the same, but for what
ours.json of a case says. FOLDER has Ray's `ray`, `serve` and `python`. Takes some 15 minutes.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(os.path.dirname(HERE))
GOLDEN = os.path.join(SOURCE, "tests", "golden")


def add_sample(cases, name, requests):
    """A case out of a folder of testdata/apps, whose app.yaml gets the port of the run."""
    folder = os.path.join(cases, "sample-" + name)
    shutil.copytree(os.path.join(SOURCE, "testdata", "apps", name), folder)
    path = os.path.join(folder, "app.yaml")
    with open(path, encoding="utf-8") as f:
        text = re.sub(r"(?m)^http_options:\n(?:[ ].*\n)+", "", f.read())
    with open(path, "w", encoding="utf-8") as f:
        f.write("http_options:\n  host: 127.0.0.1\n  port: ${PORT}\n" + text)
    with open(os.path.join(folder, "steps.json"), "w", encoding="utf-8") as f:
        json.dump([dict(r, do="http") for r in requests], f)


def golden(*args):
    return subprocess.run([sys.executable, os.path.join(GOLDEN, "golden.py"), *args]).returncode


def main():
    p = argparse.ArgumentParser(usage=__doc__)
    p.add_argument("--ray-bin", required=True)
    p.add_argument("case", nargs="*")
    given = p.parse_args()
    folder = tempfile.mkdtemp(prefix="compat-")
    try:
        cases = os.path.join(folder, "cases")
        shutil.copytree(os.path.join(GOLDEN, "cases"), cases)
        with open(os.path.join(HERE, "samples.json"), encoding="utf-8") as f:
            for name, requests in json.load(f).items():
                add_sample(cases, name, requests)
        print("--- Ray Serve answers", flush=True)
        golden("--cases", cases, "--system", "ray", "--ray-bin", given.ray_bin, "--record",
               *given.case)
        print("--- rserve is compared", flush=True)
        return golden("--cases", cases, *given.case)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
