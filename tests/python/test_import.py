"""`from ray import serve` costs little: what it needs is imported when it is needed."""

from __future__ import annotations

import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).parents[2] / "sched/pyruntime"


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        check=True,
        universal_newlines=True,
    )
    return done.stdout.strip()


class Import(unittest.TestCase):
    def test_what_is_heavy_is_left_for_later(self) -> None:
        heavy = "asyncio logging inspect dataclasses ssl socket subprocess json pickle".split()
        code = f"import sys; from ray import serve; print([m for m in {heavy} if m in sys.modules])"
        self.assertEqual(run(code), "[]")

    def test_the_decorator_stays_the_decorator(self) -> None:
        """`ray.serve.deployment` is a module too, and its import must not put it in the way."""
        self.assertEqual(
            run(
                "from ray import serve\n"
                "import ray.serve.deployment, ray.serve.handle, sys\n"
                "from ray.serve.deployment import Application\n"
                "from ray.serve import deployment\n"
                "@serve.deployment\n"
                "class A: pass\n"
                "print(A.name, deployment is serve.deployment, type(A.bind()) is Application,\n"
                "      sys.modules['ray.serve.deployment'].Application is serve.Application)"
            ),
            "A True True True",
        )

    def test_it_is_a_module_like_others(self) -> None:
        self.assertEqual(
            run(
                "import pickle, ray\n"
                "from ray import serve\n"
                "from ray.serve import *\n"
                "assert pickle.loads(pickle.dumps(serve)) is serve is ray.serve\n"
                "assert set(serve.__all__) <= set(dir(serve))\n"
                "print(serve.handle.__name__, serve.context.__name__, batch is serve.batch,\n"
                "      hasattr(serve, 'nothing'), hasattr(serve, 'llm_not_there'))"
            ),
            "ray.serve.handle ray.serve.context True False False",
        )


if __name__ == "__main__":
    unittest.main()
