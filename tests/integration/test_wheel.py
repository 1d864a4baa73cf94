"""pip install rserve: the wheel in an environment of its own, without a network."""

import glob
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import unittest

from harness import RSERVE, SLOW, SOURCE, free_port

PROGRAM = """
    import os, sys, urllib.request
    import ray
    from ray import serve

    @serve.deployment
    class Hello:
        def __call__(self, request):
            return sys.prefix

    serve.start(http_options={"port": int(os.environ["PORT"])})
    serve.run(Hello.bind())
    url = "http://127.0.0.1:%s/" % os.environ["PORT"]
    print(urllib.request.urlopen(url).read().decode() == sys.prefix)
    print(os.path.dirname(ray.__file__).startswith(sys.prefix))
"""


class Wheel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="rserve-wheel-")
        cls.addClassCleanup(shutil.rmtree, cls.folder, True)
        wheel = os.path.join(SOURCE, "sched", "pyruntime", "wheel.py")
        cls.wheel = subprocess.run(
            [sys.executable, wheel, "--binary", RSERVE, "--version", "0.1.0", "--out", cls.folder],
            check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        cls.venv = os.path.join(cls.folder, "venv")
        subprocess.run([sys.executable, "-m", "venv", cls.venv], check=True)
        pip = [os.path.join(cls.venv, "bin", "pip"), "install", "-q", "--no-index",
               "--disable-pip-version-check"]
        subprocess.run([*pip, cls.wheel], check=True)

    def run_in(self, *command):
        env = {k: v for k, v in os.environ.items()
               if k not in ("PYTHONPATH", "RSERVE_BIN", "RAY_ADDRESS", "RSERVE_ADDRESS",
                            "RAY_DASHBOARD_ADDRESS")}
        env.update(PORT=str(free_port()), HOME=self.folder,
                   XDG_STATE_HOME=os.path.join(self.folder, "state"))
        p = subprocess.run(command, cwd=self.folder, env=env, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True, timeout=60 * SLOW)
        self.assertEqual(p.returncode, 0, p.stdout + p.stderr)
        return p.stdout

    def test_program(self):
        with open(os.path.join(self.folder, "program.py"), "w", encoding="utf-8") as f:
            f.write(textwrap.dedent(PROGRAM))
        out = self.run_in(os.path.join(self.venv, "bin", "python"), "program.py")
        self.assertEqual(out.splitlines(), ["True", "True"])

    def test_binary_is_on_the_path_of_the_environment(self):
        out = self.run_in(os.path.join(self.venv, "bin", "rserve"), "--version")
        self.assertIn("0.1.0", out)

    def test_built_again_it_is_the_same(self):
        with open(self.wheel, "rb") as f:
            first = f.read()
        again = os.path.join(self.folder, "again")
        wheel = os.path.join(SOURCE, "sched", "pyruntime", "wheel.py")
        subprocess.run([sys.executable, wheel, "--binary", RSERVE, "--version", "0.1.0",
                        "--out", again], check=True, stdout=subprocess.DEVNULL)
        with open(glob.glob(os.path.join(again, "*.whl"))[0], "rb") as f:
            self.assertTrue(f.read() == first)


if __name__ == "__main__":
    unittest.main()
