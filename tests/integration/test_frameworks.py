#!/usr/bin/env python3
"""Applications of real frameworks, and the same application in each way to run one."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import unittest
from typing import Any, Dict, List

from harness import RSERVE, SLOW, SOURCE, ServeTest, free_port, main

PROGRAMS = os.path.join(SOURCE, "tests", "integration", "apps")
NODE_NAMES = ("RAY_ADDRESS", "RSERVE_ADDRESS", "RAY_DASHBOARD_ADDRESS", "PYTHONPATH", "RSERVE_BIN")


def has(*modules: str) -> bool:
    return all(importlib.util.find_spec(m) is not None for m in modules)


def heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Modes(ServeTest):
    """`rserve run`, `rserve python`, python with the wheel, local testing mode: the same answers."""

    wheel_folder = ""

    @classmethod
    def venv(cls) -> str:
        """An interpreter that has the wheel and nothing else; made when first asked for."""
        if not cls.wheel_folder:
            cls.wheel_folder = tempfile.mkdtemp(prefix="rserve-frameworks-")
            cls.addClassCleanup(shutil.rmtree, cls.wheel_folder, True)
            builder = os.path.join(SOURCE, "sched", "pyruntime", "wheel.py")
            wheel = subprocess.run(
                [sys.executable, builder, "--binary", RSERVE, "--version", "0.1.0",
                 "--out", cls.wheel_folder],
                check=True, stdout=subprocess.PIPE, universal_newlines=True).stdout.strip()
            venv = os.path.join(cls.wheel_folder, "venv")
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
            subprocess.run([os.path.join(venv, "bin", "pip"), "install", "-q", "--no-index",
                            "--disable-pip-version-check", wheel], check=True)
        return os.path.join(cls.wheel_folder, "venv", "bin", "python")

    def setUp(self) -> None:
        super().setUp()
        shutil.copytree(PROGRAMS, os.path.join(self.folder, "apps"))

    def program(self, name: str, mode: str, *command: str, **more: str) -> Dict[str, Any]:
        """What the program printed, run by `command`."""
        env = {k: v for k, v in os.environ.items() if k not in NODE_NAMES}
        env.update(dict({"PORT": str(free_port())}, **more), MODE=mode, HOME=self.folder,
                   PYTHONDONTWRITEBYTECODE="1", XDG_STATE_HOME=os.path.join(self.folder, "state"))
        if name == "modern":
            env["FACTS"] = "heavy"
        p = subprocess.Popen([*command, name + ".py"], cwd=os.path.join(self.folder, "apps"),
                             env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             universal_newlines=True, preexec_fn=heed_interrupts)
        try:
            out, err = p.communicate(timeout=90 * SLOW)
        finally:
            if p.poll() is None:
                p.kill()
                p.communicate()
        self.assertEqual(p.returncode, 0, out + err)
        self.logs.append("%s %s: %s" % (command, mode, err[-4000:]))
        return json.loads(out.splitlines()[-1])

    def all_modes(self, name: str) -> List[Dict[str, Any]]:
        config = self.write("app.yaml", """\
            applications:
            - name: default
              route_prefix: /
              import_path: %s:app
              rserve: {app_dir: apps}
            """ % name)
        s = self.serve(config)
        address = "http://127.0.0.1:%d" % s.dashboard
        run = self.program(name, "attach", RSERVE, "python", PORT=str(s.port),
                           RAY_DASHBOARD_ADDRESS=address)
        self.assertEqual(s.stop(), 0)
        script = self.program(name, "run", RSERVE, "python")
        packages = sysconfig.get_path("purelib")  # the wheel brings no framework
        wheel = self.program(name, "run", self.venv(), PYTHONPATH=packages)
        local = self.program(name, "local", RSERVE, "python")
        for mode in (run, script, wheel):
            for answer in mode["http"]:
                self.forget_pickling(answer)
        for other in (script, wheel):
            self.assertEqual(run["http"], other["http"])
        for other in (script, wheel, local):
            self.assertEqual(run["handle"], other["handle"])
        return [run, script, wheel]

    def forget_pickling(self, answer: List[Any]) -> None:
        """FastAPI's mark for "no example" is another object once pickled, under Ray Serve too."""
        if isinstance(answer[2], dict) and "openapi" in answer[2]:
            for operation in answer[2]["paths"]["/score"].values():
                for parameter in operation["parameters"]:
                    self.assertEqual(parameter.pop("example", {}), {})

    def test_standard_library(self) -> None:
        answers = self.all_modes("plain")[0]
        counted = {"the": 3, "cat": 2, "and": 1, "dog,": 1}
        want = {"counted": counted, "loud": "THE CAT AND THE DOG, THE CAT!",
                "lengths": [3, 3, 3, 3, 4, 3, 3]}
        self.assertEqual(answers["handle"],
                         [want, {"counted": {}, "loud": "!", "lengths": []}, [True, True]])
        self.assertEqual(answers["http"][0], [200, "application/json", want])
        self.assertEqual(answers["http"][1][2]["counted"], {"bcd": 1})
        self.assertEqual(answers["http"][2][0], 500)

    @unittest.skipUnless(has("fastapi", "pydantic", "numpy"), "FastAPI or numpy is not installed")
    def test_frameworks(self) -> None:
        modes = self.all_modes("modern")
        answers = modes[0]
        self.assertEqual([a[0] for a in answers["http"]],
                         [200, 200, 422, 422, 422, 200, 422, 200, 404])
        self.assertEqual(answers["http"][0][2], {"score": 3.0, "kind": "mean"})
        self.assertEqual(answers["http"][1][2], {"score": 14.0, "kind": "dot", "note": "n"})
        self.assertEqual(answers["http"][5][1:], ["text/plain; charset=utf-8", "0\n1\n2\n"])
        self.assertIn("/score", answers["http"][7][2]["paths"])
        self.assertEqual(answers["handle"][2:], ["float32", 100000, 9999900000.0])
        for mode in modes:
            pss = mode["pss"]
            self.assertEqual(len(pss), 4, pss)
            # Each has 300 MB of one import in it. Only one copy of that is there.
            self.assertLess(sum(pss.values()), 500 << 20, pss)


if __name__ == "__main__":
    main()
