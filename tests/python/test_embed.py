"""The archive that goes into the binary."""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "sched/pyruntime"
sys.path.insert(0, str(SOURCE))

import embed  # noqa: E402


class Embed(unittest.TestCase):
    def files(self) -> "list[str]":
        folders = ("ray", "rserve", "vendor")
        return [str(p) for d in folders for p in (SOURCE / d).rglob("*.py")]

    def test_order_does_not_matter(self) -> None:
        files = self.files()
        one = embed.pack(embed.collect(files))
        self.assertEqual(one, embed.pack(embed.collect(files[::-1])))
        names = zipfile.ZipFile(io.BytesIO(one)).namelist()
        self.assertEqual(names, sorted(names))
        self.assertIn("rserve/zygote.py", names)
        self.assertIn("rserve/zygote.pyc", names)
        self.assertIn("vendor/starlette/requests.py", names)

    def test_every_file_is_listed_for_the_build(self) -> None:
        listed = (SOURCE / "meson.build").read_text()
        for path in self.files():
            self.assertIn(f"'{Path(path).relative_to(SOURCE)}'", listed)

    def test_c_source(self) -> None:
        text = embed.to_c("some_name", bytes(range(50)))
        self.assertIn("const unsigned char some_name[] = {\n\t0,1,2,", text)
        self.assertIn("const size_t some_name_size = sizeof(some_name);", text)

    def test_imports_from_the_archive(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "lib.zip"
            archive.write_bytes(embed.pack(embed.collect(self.files())))
            code = (
                "import rserve.zygote, rserve.replica, ray.serve, rserve; "
                "print(rserve.ROOT, rserve.zygote.__file__)"
            )
            command = [sys.executable, "-W", "error", "-c", code]
            done = subprocess.run(
                command, env={"PYTHONPATH": str(archive)}, capture_output=True, text=True, cwd="/"
            )
            self.assertEqual(done.returncode, 0, done.stderr)
            root, module = done.stdout.split()
            self.assertEqual(root, str(archive))
            self.assertTrue(module.startswith(str(archive)))


if __name__ == "__main__":
    unittest.main()
