#!/usr/bin/env python3
"""The library and the samples with every Python from 3.9 on that this machine has."""

import glob
import json
import os
import re
import shutil
import subprocess
import unittest
from typing import Dict, List, Tuple

from harness import RSERVE, SLOW, SOURCE, ServeTest, free_port, main

VERSION = "import sys; print('%d.%d.%d' % sys.version_info[:3])"
OLDEST = (3, 9)


def version_of(python: str) -> Tuple[int, ...]:
    """() for what does not run, such as a shim of a version that is not chosen."""
    try:
        p = subprocess.run([python, "-c", VERSION], stdout=subprocess.PIPE,
                           stderr=subprocess.DEVNULL, universal_newlines=True, check=False,
                           timeout=20 * SLOW)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.match(r"(\d+)\.(\d+)\.(\d+)$", p.stdout.strip())
    return tuple(int(n) for n in found.groups()) if found and p.returncode == 0 else ()


def interpreters() -> Dict[str, str]:
    """{"3.9": path}, one of each minor version: those on PATH, those of pyenv and of uv."""
    home = os.path.expanduser("~")
    roots = [os.environ.get("PYENV_ROOT", os.path.join(home, ".pyenv")) + "/versions/3.*",
             os.path.join(home, ".local/share/uv/python/cpython-3.*")]
    paths: List[str] = []
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        paths += glob.glob(os.path.join(folder, "python3.*"))
    for root in roots:
        paths += glob.glob(os.path.join(root, "bin", "python3.*"))
    found: Dict[str, str] = {}
    for path in paths:
        name = re.match(r"python(3\.\d+)$", os.path.basename(path))
        if name and name[1] not in found:
            version = version_of(path)
            if version[:2] >= OLDEST and "%d.%d" % version[:2] == name[1]:
                found[name[1]] = path
    return found


class Versions(ServeTest):
    found: Dict[str, str] = {}

    @classmethod
    def setUpClass(cls) -> None:
        cls.found = interpreters()
        print("Python versions: " + ", ".join(sorted(cls.found, key=lambda v: int(v[2:]))),
              flush=True)

    def test_sample(self) -> None:
        """`rserve run --python`."""
        config = self.copy_app("rag")
        for version, python in self.found.items():
            with self.subTest(version):
                s = self.serve(config, "--python", python)
                answer = s.call("/?question=why+do+cats+purr")
                self.assertEqual((answer.status, answer.json()["sources"][0]["title"]),
                                 (200, "cats"))
                pid = s.pids("rag", "RagPipeline").pop()
                with open("/proc/%d/maps" % pid, encoding="utf-8") as f:
                    self.assertIn("/python%s/" % version, f.read())
                self.assertEqual(s.stop(), 0)

    def test_program(self) -> None:
        """`rserve python`, over HTTP and in local testing mode."""
        folder = os.path.join(self.folder, "apps")
        shutil.copytree(os.path.join(SOURCE, "tests", "integration", "apps"), folder)
        with open(os.path.join(folder, "plain.py"), encoding="utf-8") as f:
            self.write("apps/versioned.py",
                       "import sys\nprint('%d.%d' % sys.version_info[:2])\n" + f.read())
        answers = {}
        for version, python in self.found.items():
            # `rserve python` runs the python3 that is first on PATH.
            bin_folder = os.path.join(self.folder, "bin-" + version)
            os.mkdir(bin_folder)
            self.write(os.path.join("bin-" + version, "python3"),
                       '#!/bin/sh\nexec "%s" "$@"\n' % python, 0o755)
            for mode in ("run", "local"):
                env = {k: v for k, v in os.environ.items()
                       if k not in ("RAY_ADDRESS", "RSERVE_ADDRESS", "RAY_DASHBOARD_ADDRESS")}
                env.update(PATH=bin_folder + os.pathsep + env["PATH"], MODE=mode, HOME=self.folder,
                           PORT=str(free_port()), PYTHONDONTWRITEBYTECODE="1",
                           XDG_STATE_HOME=os.path.join(self.folder, "state"))
                p = subprocess.run([RSERVE, "python", "versioned.py"], cwd=folder, env=env,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
                                   universal_newlines=True, timeout=60 * SLOW)
                with self.subTest(version, mode=mode):
                    self.assertEqual(p.returncode, 0, p.stdout + p.stderr)
                    lines = p.stdout.splitlines()
                    self.assertEqual(lines[0], version)
                    answers[version, mode] = json.loads(lines[-1])["handle"]
        self.assertTrue(answers)
        first = next(iter(answers.values()))
        self.assertEqual(first[0]["loud"], "THE CAT AND THE DOG, THE CAT!")
        for other in answers.values():
            self.assertEqual(other, first)


if __name__ == "__main__":
    main()
