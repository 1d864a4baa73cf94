#!/usr/bin/env python3
"""The release binary needs nothing: static, stripped, small, and at home in an empty root."""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from typing import Optional

BINARY = os.environ["RSERVE_RELEASE"]
LIMIT = 12 * 1000 * 1000  # two thirds of it are OpenSSL, which is not linked by function
CONFIG = """\
applications:
  - name: app
    route_prefix: /
    import_path: app:app
"""


def output(*args: str) -> str:
    return subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          universal_newlines=True, check=False).stdout


@unittest.skipUnless(os.path.exists(BINARY), "no release binary: run make")
class Static(unittest.TestCase):
    def test_size(self) -> None:
        self.assertLess(os.path.getsize(BINARY), LIMIT)

    def test_needs_no_library(self) -> None:
        dynamic = output("readelf", "-d", BINARY)
        self.assertNotIn("NEEDED", dynamic)
        self.assertNotIn("INTERP", output("readelf", "-l", BINARY))

    def test_is_position_independent(self) -> None:
        self.assertRegex(output("readelf", "-h", BINARY), r"Type: +DYN")

    def test_is_stripped(self) -> None:
        sections = output("readelf", "-S", "-W", BINARY)
        self.assertIn(".text", sections)
        self.assertNotIn(".symtab", sections)
        self.assertNotIn(".debug_info", sections)


@unittest.skipUnless(os.path.exists(BINARY), "no release binary: run make")
class EmptyRoot(unittest.TestCase):
    def setUp(self) -> None:
        self.root = tempfile.mkdtemp(prefix="rserve-root-")
        self.addCleanup(shutil.rmtree, self.root)
        shutil.copy(BINARY, os.path.join(self.root, "rserve"))
        self.enter = [] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user"]
        probe = self.run_inside("/rserve", "--version")
        if probe is None:
            self.skipTest("chroot is not permitted here")

    def run_inside(self, *args: str) -> Optional[subprocess.CompletedProcess]:
        program = ("import os, sys; os.chroot(sys.argv[1]); os.chdir('/'); "
                   "os.execve(sys.argv[2], sys.argv[2:], {})")
        try:
            run = subprocess.run(
                [*self.enter, sys.executable, "-I", "-c", program, self.root, *args],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                universal_newlines=True, timeout=30, check=False)
        except FileNotFoundError:
            return None
        return None if "Operation not permitted" in run.stderr else run

    def test_version(self) -> None:
        run = self.run_inside("/rserve", "--version")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertRegex(run.stdout, r"^rserve \d+\.\d+\.\d+\n")

    def test_check(self) -> None:
        with open(os.path.join(self.root, "app.yaml"), "w", encoding="utf-8") as f:
            f.write(CONFIG)
        run = self.run_inside("/rserve", "run", "--check", "--no-import", "app.yaml")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("app", run.stdout)

    def test_check_refuses(self) -> None:
        with open(os.path.join(self.root, "app.yaml"), "w", encoding="utf-8") as f:
            f.write(CONFIG + "    deployments:\n      - name: d\n        num_replicas: two\n")
        run = self.run_inside("/rserve", "run", "--check", "--no-import", "app.yaml")
        self.assertEqual(run.returncode, 2, run.stderr)
        self.assertIn("app.yaml:7:", run.stderr)
        self.assertIn("num_replicas", run.stderr)


if __name__ == "__main__":
    result = unittest.main(verbosity=2, exit=False).result
    if len(result.skipped) == result.testsRun:
        sys.exit(77)  # Meson shows it as skipped
    sys.exit(not result.wasSuccessful())
