#!/usr/bin/env python3
"""Golden cases: runs small Serve applications and compares every answer with the recorded one.

A case is a folder with an application, a list of steps and the answers that Ray Serve gave to them;
README.md tells the format. Standard library only, Python >= 3.9.
"""

import argparse
import concurrent.futures
import difflib
import importlib.util
import json
import os
import sys
import time
from typing import Any, Dict, List, Optional, Tuple

from case import Case
from systems import Ray, Rserve

HERE = os.path.dirname(os.path.abspath(__file__))
RUN = ("%s run {config} --host 127.0.0.1 --port {port} --dashboard-port {dashboard_port} "
       "--num-cpus 16 --num-gpus 8")


def dump(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def load(path: str, default: Any = None) -> Any:
    if not os.path.exists(path):
        return default
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def place(value: Any, path: List[str], new: Any) -> Any:
    """Puts `new` where `path` leads; returns what stood there. A wrong path is a KeyError."""
    for n, part in enumerate(path):
        key: Any = int(part) if isinstance(value, list) else part
        last = n == len(path) - 1
        if isinstance(value, list) and not 0 <= key < len(value) or not last and (
                isinstance(value, dict) and key not in value):
            raise KeyError("/".join(path))
        if last:
            old = value[key] if isinstance(value, list) else value.get(key)
            value[key] = new
            return old
        value = value[key]
    raise KeyError("empty path")


def override(expected: Any, ours: List[Dict[str, Any]]) -> None:
    """Where Ray's answer is a defect, ours.json says what is right, and why.

    Each entry is {"at": "STEP/key/key", "is": value, "why": text}; step 0 is the start. A value of
    "<any>" stands for one that is another each time.
    """
    for entry in ours:
        if not entry.get("why"):
            raise ValueError("ours.json: %s: expected a reason under 'why'" % entry.get("at"))
        if place(expected, entry["at"].split("/"), entry["is"]) == entry["is"]:
            raise ValueError("ours.json: %s: Ray's answer is the same; remove the entry"
                             % entry["at"])


def take_any(results: Any, ours: List[Dict[str, Any]]) -> None:
    for entry in ours:
        if entry["is"] == "<any>":
            place(results, entry["at"].split("/"), "<any>")


def expected_failures(path: str, names: List[str]) -> Dict[str, str]:
    """{case: reason} of the lines `case: reason`."""
    listed: Dict[str, str] = {}
    if not os.path.exists(path):
        return listed
    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            name, _, reason = line.partition(":")
            if name not in names or not reason.strip() or name in listed:
                raise SystemExit("%s:%d: expected 'CASE: REASON' with the name of a case, once; "
                                 "got '%s'" % (path, number, line))
            listed[name] = reason.strip()
    return listed


def lacking(folder: str) -> List[str]:
    """Third-party packages that the case imports and this interpreter does not have."""
    known = ("fastapi", "starlette", "pydantic", "numpy")
    found = set()
    for name in os.listdir(folder):
        if name.endswith(".py"):
            with open(os.path.join(folder, name), encoding="utf-8") as f:
                text = f.read()
            found.update(p for p in known if "import " + p in text or "from " + p in text)
    if found == {"starlette"}:  # rserve brings what plain handlers use of it
        return []
    return sorted(p for p in found if importlib.util.find_spec(p) is None)


class Outcome:
    def __init__(self, trouble: Optional[str], took: float, doubts: List[str]) -> None:
        self.trouble, self.took, self.doubts = trouble, took, doubts


def run_case(name: str, args: argparse.Namespace, system: Any = None,
             quick: bool = False) -> Outcome:
    """`quick`: the first difference is enough."""
    began = time.monotonic()
    folder = os.path.join(args.cases, name)
    system = system or Rserve(args)
    case = Case(folder, system, args)
    trouble = None
    try:
        ours: List[Dict[str, Any]] = []
        expected = load(os.path.join(folder, "expected.json"))
        if args.system != "ray":
            ours = load(os.path.join(folder, "ours.json"), [])
            override(expected, ours)
        case.until = expected if quick else None
        results = json.loads(json.dumps(case.run()))
        if ours:
            take_any(results, ours)
        if args.results:
            with open(os.path.join(args.results, name + ".json"), "w", encoding="utf-8") as f:
                f.write(dump(results))
        if args.record:
            with open(os.path.join(folder, "expected.json"), "w", encoding="utf-8") as f:
                f.write(dump(results))
        elif expected != results:
            trouble = "\n".join(difflib.unified_diff(
                dump(expected).splitlines(), dump(results).splitlines(), "expected", "got",
                n=4, lineterm=""))
    except Exception as e:  # a broken case must not stop the others
        trouble = "%s: %s" % (type(e).__name__, e)
        if isinstance(system, Ray):
            system.end(True)
    return Outcome(trouble, time.monotonic() - began, case.doubts)


class Report:
    """One line per case, and the sums."""

    def __init__(self, listed: Dict[str, str], args: argparse.Namespace) -> None:
        self.listed, self.args = listed, args
        self.passed = self.failed = self.known = 0

    def fail(self, name: str, took: float, text: str) -> None:
        self.failed += 1
        indented = "\n".join("     " + line for line in text.splitlines())
        print("FAIL %s (%.1fs)\n%s" % (name, took, indented), flush=True)

    def add(self, name: str, o: Outcome) -> None:
        if o.trouble and name in self.listed:
            self.known += 1
            print("listed %s (%.1fs): %s" % (name, o.took, self.listed[name]), flush=True)
            if self.args.verbose:
                print("\n".join("     " + line for line in o.trouble.splitlines()), flush=True)
        elif o.trouble:
            self.fail(name, o.took, o.trouble)
        elif name in self.listed and not self.args.record:
            self.fail(name, o.took, "passes now: remove it from expected-failures.txt")
        else:
            self.passed += 1
            print("ok   %s (%.1fs)" % (name, o.took), flush=True)
        for d in o.doubts if self.args.record else []:
            print("     ? " + d.replace("\n", "\n       "), flush=True)

    def end(self) -> int:
        print("%d passed, %d failed" % (self.passed, self.failed))
        return 1 if self.failed else 0


def arguments() -> argparse.Namespace:
    rserve = os.environ.get("RSERVE", "rserve")
    p = argparse.ArgumentParser(description="Runs golden cases.")
    p.add_argument("--system", choices=["rserve", "ray"], default="rserve")
    p.add_argument("--run", default=RUN % rserve, help="command that starts rserve; placeholders "
                   "{config} {port} {dashboard_port} {metrics_port} {folder}")
    p.add_argument("--serve-cli", default=rserve + " serve", help="command of the serve CLI")
    p.add_argument("--script", default=rserve + " python",
                   help="command that runs a Python program against the system")
    p.add_argument("--metrics", default="http://127.0.0.1:{dashboard_port}/metrics",
                   help="where rserve tells its metrics")
    p.add_argument("--ray-bin", default="", help="folder with ray, serve and python of Ray")
    p.add_argument("--cases", default=os.path.join(HERE, "cases"), help="folder of cases")
    p.add_argument("--record", action="store_true", help="write expected.json, do not compare")
    p.add_argument("--keep", action="store_true", help="keep the working folders")
    p.add_argument("--start-timeout", type=float, default=30, help="seconds until the REST API")
    p.add_argument("--results", help="also write the answers of each case into this folder")
    p.add_argument("--jobs", type=int, default=2, help="cases that run at the same time")
    p.add_argument("--all", action="store_true",
                   help="also run the cases of expected-failures.txt: one that passes is a failure")
    p.add_argument("--listed", action="store_true", help="run only these")
    p.add_argument("--verbose", action="store_true", help="show the differences of these too")
    p.add_argument("case", nargs="*", help="names or prefixes of names (default: all)")
    return p.parse_args()


def choose(args: argparse.Namespace) -> Tuple[List[str], Dict[str, str]]:
    names = sorted(n for n in os.listdir(args.cases)
                   if os.path.exists(os.path.join(args.cases, n, "steps.json")))
    listed = expected_failures(os.path.join(HERE, "expected-failures.txt"), names)
    if args.case:
        names = [n for n in names if any(n == c or n.startswith(c) for c in args.case)]
    if args.system == "ray":
        return names, {}
    if args.listed:
        names = [n for n in names if n in listed]
    elif not args.case and not args.all:
        for n in names:
            if n in listed:
                print("not run: %s: %s" % (n, listed[n]))
        names = [n for n in names if n not in listed]
    for n in list(names):
        missing = lacking(os.path.join(args.cases, n))
        if missing:
            print("skipped: %s: %s is not installed" % (n, ", ".join(missing)))
            names.remove(n)
    return names, listed


def main() -> int:
    args = arguments()
    names, listed = choose(args)
    report = Report(listed, args)
    if args.results:
        os.makedirs(args.results, exist_ok=True)
    if args.system == "ray":
        system = Ray(args)
        try:
            system.open()
            for name in names:
                report.add(name, run_case(name, args, system))
        finally:
            system.close()
        return report.end()
    with concurrent.futures.ThreadPoolExecutor(max(1, args.jobs)) as pool:
        runs = {pool.submit(run_case, name, args, None, name in listed and not args.case): name
                for name in names}
        for done in concurrent.futures.as_completed(runs):
            report.add(runs[done], done.result())
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
