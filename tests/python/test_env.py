"""Environments: what is read, where it is kept, how it is fetched and installed."""

from __future__ import annotations

import collections
import contextlib
import fcntl
import http.server
import io
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unittest
import zipfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple
from unittest import mock

import wheels
from fakenode import ROOT, w

from rserve import _env_fetch as fetch
from rserve import _env_install as installer
from rserve import _env_run as run
from rserve import _env_spec as spec
from rserve import _env_store as store
from rserve import env_build

HAS_PIP = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True)


class Folder(unittest.TestCase):
    """A folder for the test, and a cache in it."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name).resolve()
        self.cache = self.folder / "cache"
        patch = mock.patch.dict(os.environ, {"RSERVE_ENV_DIR": str(self.cache)})
        patch.start()
        self.addCleanup(patch.stop)
        self.said: List[str] = []
        self.reporter = run.Reporter(self.said.append, gap_s=0)

    def build(self, **env: Any) -> Dict[str, Any]:
        return env_build.build(env, str(self.folder), "n1", self.reporter)

    def fails(self, **env: Any) -> spec.EnvError:
        with self.assertRaises(spec.EnvError) as caught:
            self.build(**env)
        return caught.exception

    def zip(self, name: str, **files: str) -> Path:
        path = self.folder / name
        with zipfile.ZipFile(path, "w") as z:
            for file, text in files.items():
                z.writestr(file.replace("__dot__", ".").replace("__in__", "/"), text)
        return path


class Spec(Folder):
    def packages(self, **env: Any) -> List[str]:
        got = spec.parse(env, str(self.folder)).packages
        assert got is not None
        return got.packages

    def test_requirements(self) -> None:
        here = str(self.folder)
        (self.folder / "r.txt").write_text(
            "# all of it\na==1  # one\n\n-r more.txt\n./local.whl\nb \\\n >=2\n"
            "--index-url https://h/simple\n-e git+https://h/x\n"
        )
        want = [
            "a==1",
            f"-r {here}/more.txt",
            f"{here}/local.whl",
            "b   >=2",
            "--index-url https://h/simple",
            "-e git+https://h/x",
        ]
        self.assertEqual(self.packages(pip="r.txt"), want)
        self.assertEqual(self.packages(uv={"packages": str(self.folder / "r.txt")}), want)
        up = self.folder.parent
        self.assertEqual(self.packages(pip=["-c ../c.txt", "a"]), [f"-c {up}/c.txt", "a"])
        self.assertEqual(self.packages(pip=["--find-links=w"]), [f"--find-links {here}/w"])

    def test_dictionary(self) -> None:
        got = spec.parse(
            {
                "pip": {
                    "packages": ["a"],
                    "pip_check": True,
                    "pip_version": "23.1",
                    "pip_install_options": ["--no-deps"],
                }
            },
            "/",
        ).packages
        self.assertEqual(got, spec.Packages("pip", ["a"], True, "==23.1", ["--no-deps"]))

    def test_refusals(self) -> None:
        self.assertIn("pip and conda exclude each other", self.fails(pip=["a"], conda="b").message)
        self.assertIn("s3:// is not supported", self.fails(working_dir="s3://b/z.zip").message)
        self.assertIn("cannot read the requirements file", self.fails(pip="none.txt").message)
        self.assertIn("unknown key 'version'", self.fails(pip={"version": 1}).message)
        self.assertIn("expected a list", self.fails(py_modules="x").message)

    def test_key(self) -> None:
        def key(*packages: str, options: Tuple[str, ...] = (), **env: str) -> str:
            p = spec.Packages("pip", list(packages), False, "", list(options))
            return spec.packages_key(p, env)

        same = key("a", "b")
        self.assertEqual(same, key("b", "a", HOME="/x"))
        self.assertNotEqual(same, key("a"))
        self.assertNotEqual(same, key("a", "b", PIP_INDEX_URL="https://h"))
        self.assertNotEqual(same, key("a", "b", options=("--no-deps",)))
        path = self.folder / "r.txt"
        path.write_text("a==1\n")
        before = key(f"-r {path}")
        listed = key("x", options=("-r", str(path)))
        path.write_text("a==2\n")
        self.assertNotEqual(before, key(f"-r {path}"))
        self.assertNotEqual(listed, key("x", options=("-r", str(path))))
        # An index is what it is at the time: like one on the network it is not part of the key.
        before = key(f"--find-links {self.folder}")
        (self.folder / "new").write_text("")
        self.assertEqual(before, key(f"--find-links {self.folder}"))


class Store(Folder):
    def acquire(self, key: str = "k") -> store.Entry:
        entry = store.acquire(key, lambda: self.said.append("waits"))
        self.addCleanup(entry.close)
        return entry

    def made(self, key: str, size: int = 0, age: float = 0) -> str:
        entry = self.acquire(key)
        os.makedirs(entry.path)
        Path(entry.path, "data").write_bytes(b"x" * size)
        entry.finish(key)
        entry.close()
        at = time.time() - age
        os.utime(entry.lock_path, (at, at))
        return entry.path

    def test_build_and_find(self) -> None:
        entry = self.acquire()
        self.assertFalse(entry.ready)
        os.makedirs(entry.path)
        entry.finish("what")
        entry.close()
        again = self.acquire()
        self.assertTrue(again.ready)
        self.assertEqual((store.facts_of(str(self.cache), "k") or {})["what"], "what")

    def test_what_was_not_finished_is_not_there(self) -> None:
        entry = self.acquire()
        os.makedirs(entry.path)
        Path(entry.path, "half").write_text("")
        entry.close()  # as a kill -9 does
        again = self.acquire()
        self.assertFalse(again.ready)
        self.assertFalse(os.path.exists(again.path))

    def test_one_builds_and_the_other_waits(self) -> None:
        first = self.acquire()
        got: List[store.Entry] = []
        thread = threading.Thread(target=lambda: got.append(self.acquire()))
        thread.start()
        while not self.said:
            time.sleep(0.001)
        self.assertEqual(self.said, ["waits"])
        os.makedirs(first.path)
        first.finish()
        thread.join(10)
        self.assertTrue(got[0].ready)

    def test_collect_by_age(self) -> None:
        old = self.made("old", age=2000)
        young = self.made("young")
        self.assertEqual(store.collect(max_age_s=1000, grace_s=0), ["old"])
        self.assertFalse(os.path.exists(old))
        self.assertFalse(os.path.exists(old + ".lock"))
        self.assertTrue(os.path.exists(young))

    def test_collect_by_size_takes_the_longest_unused(self) -> None:
        for i in range(4):
            self.made(f"e{i}", size=1 << 20, age=100 - i)
        self.assertEqual(store.collect(max_bytes=5 << 19, grace_s=10), ["e0", "e1"])

    def test_collect_leaves_what_is_in_use_or_young(self) -> None:
        used = self.made("used", age=2000)
        fds = store.hold([used + ".lock"])
        self.assertEqual(len(fds), 1)
        self.assertEqual(store.collect(max_age_s=1000, grace_s=0), [])
        # That counts as a use.
        self.assertLess(time.time() - os.stat(used + ".lock").st_mtime, 100)
        os.close(fds[0])
        self.made("young", age=50)
        self.assertEqual(store.collect(max_bytes=0, grace_s=100), [])

    def test_a_fork_holds_it_too(self) -> None:
        used = self.made("used", age=2000)
        fds = store.hold([used + ".lock"])
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(0)
        os.close(fds[0])
        try:
            self.assertEqual(store.collect(max_age_s=1000, grace_s=0), [])
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.utime(used + ".lock", (1, 1))
        self.assertEqual(store.collect(max_age_s=1000, grace_s=0), ["used"])

    def test_collect_takes_what_was_never_finished(self) -> None:
        entry = self.acquire("half")
        os.makedirs(entry.path)
        at = time.time() - 1000
        os.utime(entry.lock_path, (at, at))
        self.assertEqual(store.collect(grace_s=100), [])  # it is being built
        entry.close()
        os.utime(entry.lock_path, (at, at))
        self.assertEqual(store.collect(grace_s=100), ["half"])
        self.assertFalse(os.path.exists(entry.path))

    def test_collect_sweeps(self) -> None:
        gone = self.cache / "k.gone-1-2"
        gone.mkdir(parents=True)
        (gone / "x").write_text("")
        store.collect()
        self.assertFalse(gone.exists())

    def test_acquire_survives_collection(self) -> None:
        """The lock file that was opened is removed before it is locked."""
        path = self.made("k", age=2000) + ".lock"
        real = store._open_lock
        calls: List[int] = []

        def racing(name: str) -> int:
            fd = real(name)
            if not calls:
                calls.append(1)
                self.assertEqual(store.collect(max_age_s=1000, grace_s=0), ["k"])
            return fd

        with mock.patch.object(store, "_open_lock", racing):
            entry = self.acquire()
        self.assertFalse(entry.ready)
        self.assertEqual(os.fstat(entry.fd).st_ino, os.stat(path).st_ino)


class Excludes(unittest.TestCase):
    def test_matcher(self) -> None:
        cases = [
            (["*.log"], "a.log", False, True),
            (["*.log"], "x/y/a.log", False, True),
            (["*.log"], "a.txt", False, False),
            (["/a.log"], "x/a.log", False, False),
            (["/a.log"], "a.log", False, True),
            (["data/"], "data", True, True),
            (["data/"], "data", False, False),
            (["x/*.bin"], "x/y.bin", False, True),
            (["x/*.bin"], "x/z/y.bin", False, False),
            (["x/**/y"], "x/a/b/y", False, True),
            (["*.log", "!keep.log"], "keep.log", False, False),
            (["# comment", ""], "a", False, False),
            (["[ab].txt"], "b.txt", False, True),
            (["[!ab].txt"], "b.txt", False, False),
            (["?.txt"], "ab.txt", False, False),
        ]
        for patterns, path, folder, want in cases:
            self.assertEqual(fetch.matcher(patterns)(path, folder), want, (patterns, path))


class Fetch(Folder):
    def test_working_dir(self) -> None:
        (self.folder / "code").mkdir()
        (self.folder / "code" / "m.py").write_text("")
        (self.folder / "code" / "big.bin").write_text("")
        ready = self.build(working_dir="code")
        self.assertEqual(ready["cwd"], str(self.folder / "code"))
        self.assertEqual(ready["path"], [str(self.folder / "code"), str(self.folder)])
        copy = self.build(working_dir="code", excludes=["*.bin"])
        self.assertEqual(sorted(os.listdir(copy["cwd"])), [store.COMPLETE, "m.py"])
        self.assertEqual(copy["cwd"], self.build(working_dir="code", excludes=["*.bin"])["cwd"])
        (self.folder / "code" / "m.py").write_text("changed = True")
        self.assertNotEqual(copy["cwd"], self.build(working_dir="code", excludes=["*.bin"])["cwd"])

    def test_a_folder_that_is_not_there(self) -> None:
        e = self.fails(working_dir="none")
        self.assertIn(f"{self.folder}/none does not exist on node 'n1'", e.message)
        self.assertFalse(e.retry)
        self.assertIn("py_modules[1]: ", self.fails(py_modules=[".", "none"]).message)

    def test_zip(self) -> None:
        self.zip("flat.zip", m__dot__py="", n__dot__py="")
        self.zip("top.zip", top__in__m__dot__py="")
        flat = self.build(working_dir="flat.zip")
        self.assertTrue(os.path.exists(flat["cwd"] + "/m.py"))
        self.assertEqual(flat["locks"], [flat["cwd"] + ".lock"])
        top = self.build(working_dir=f"file://{self.folder}/top.zip")
        self.assertTrue(os.path.exists(top["cwd"] + "/m.py"))
        self.assertEqual(os.path.basename(top["cwd"]), "top")
        self.assertEqual(os.stat(self.cache).st_mode & 0o777, 0o700)

    def test_py_modules(self) -> None:
        (self.folder / "libs" / "one").mkdir(parents=True)
        (self.folder / "libs" / "one" / "__init__.py").write_text("X = 1")
        (self.folder / "libs" / "other.py").write_text("X = 2")
        (self.folder / "two.py").write_text("X = 3")
        wheels.make(self.folder, "three", "4.0")
        ready = self.build(py_modules=["libs/one", "two.py", "three-4.0-py3-none-any.whl"])
        code = "import one, two, three; print(one.X, two.X, three.V)\nimport other"
        env = dict(os.environ, PYTHONPATH=":".join(ready["path"]))
        got = subprocess.run([sys.executable, "-c", code], env=env, cwd="/", capture_output=True)
        self.assertEqual(got.stdout.decode(), "1 3 4.0\n")
        self.assertIn(b"No module named 'other'", got.stderr)  # its neighbour was not named
        (self.folder / "libs" / "one" / "notes.log").write_text("")
        ready = self.build(py_modules=["libs/one"], excludes=["*.log"])
        self.assertEqual(os.listdir(ready["path"][0] + "/one"), ["__init__.py"])

    def test_bad_zips(self) -> None:
        (self.folder / "text.zip").write_text("not a zip")
        self.assertIn("cannot be unpacked", self.fails(working_dir="text.zip").message)
        self.zip("up.zip", __dot____dot____in__evil="x")
        self.assertIn("would lie outside", self.fails(working_dir="up.zip").message)
        self.assertFalse((self.cache / "evil").exists())
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        with zipfile.ZipFile(self.folder / "link.zip", "w") as z:
            z.writestr(link, "/etc/passwd")
        self.assertIn("symbolic link", self.fails(working_dir="link.zip").message)
        left = [n for n in os.listdir(self.cache) if n.startswith("zip-") and ".lock" not in n]
        self.assertEqual(left, [])

    def test_modes(self) -> None:
        info = zipfile.ZipInfo("run.sh")
        info.external_attr = (stat.S_IFREG | 0o755) << 16
        with zipfile.ZipFile(self.folder / "x.zip", "w") as z:
            z.writestr(info, "#!/bin/sh\n")
            z.writestr("plain", "")
        cwd = self.build(working_dir="x.zip")["cwd"]
        self.assertTrue(os.access(cwd + "/run.sh", os.X_OK))
        self.assertFalse(os.stat(cwd + "/plain").st_mode & 0o111)


class Handler(http.server.BaseHTTPRequestHandler):
    body = b""
    etag = ""
    status = 200
    asked: List[Tuple[int, str]] = []

    def do_GET(self) -> None:
        cls = type(self)
        status = cls.status
        if status == 200 and cls.etag and self.headers.get("If-None-Match") == cls.etag:
            status = 304
        cls.asked.append((status, self.headers.get("Authorization") or ""))
        self.send_response(status)
        self.send_header("ETag", cls.etag)
        self.send_header("Content-Length", str(len(cls.body) if status == 200 else 0))
        self.end_headers()
        if status == 200:
            self.wfile.write(cls.body)

    def log_message(self, *args: Any) -> None:
        pass


@contextlib.contextmanager
def serve_http(handler: Any) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Urls(Folder):
    def setUp(self) -> None:
        super().setUp()
        Handler.body = self.zip("a.zip", m__dot__py="A = 1").read_bytes()
        Handler.etag, Handler.status, Handler.asked = '"1"', 200, []

    def test_is_fetched_once_and_asked_again(self) -> None:
        with serve_http(Handler) as url:
            first = self.build(working_dir=url + "/code.zip")
            self.assertEqual(self.build(working_dir=url + "/code.zip"), first)
            self.assertEqual([s for s, _ in Handler.asked], [200, 304])
            Handler.body = self.zip("b.zip", m__dot__py="A = 2").read_bytes()
            Handler.etag = '"2"'
            self.assertNotEqual(self.build(working_dir=url + "/code.zip")["cwd"], first["cwd"])
        # Nobody there: what was fetched last will do.
        last = self.build(working_dir=url + "/code.zip")
        self.assertEqual(Path(last["cwd"], "m.py").read_text(), "A = 2")
        self.assertIn("using what it gave before", self.said[-1])
        self.assertEqual([n for n in os.listdir(self.cache) if n.startswith(".part")], [])

    def test_errors(self) -> None:
        with serve_http(Handler) as url:
            for status, retry in ((404, False), (503, True), (429, True)):
                Handler.status = status
                e = self.fails(working_dir=url + "/x.zip")
                self.assertIn(f"GET {url}/x.zip: status {status}", e.message)
                self.assertEqual(e.retry, retry)
        e = self.fails(working_dir=url + "/x.zip")
        self.assertIn("Connection refused", e.message)
        self.assertTrue(e.retry)

    def test_user_and_password(self) -> None:
        with serve_http(Handler) as url:
            self.build(working_dir=url.replace("//", "//me:secret@") + "/x.zip")
        self.assertEqual(Handler.asked, [(200, "Basic bWU6c2VjcmV0")])
        self.assertNotIn("secret", "".join(self.said))


class Run(Folder):
    def runner(self) -> run.Runner:
        fd = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT)
        self.addCleanup(os.close, fd)
        return run.Runner(self.reporter, dict(os.environ), str(self.folder / "log"), fd)

    def test_lines_and_log(self) -> None:
        got = self.runner().run("doing", ["sh", "-c", "echo one; echo two >&2"])
        self.assertEqual(got, ["one", "two"])
        self.assertEqual(self.said, ["doing"])
        self.assertIn("one\ntwo\n", (self.folder / "log").read_text())

    def test_failure(self) -> None:
        script = "echo noise; echo 'ERROR: no such thing'; echo detail; exit 3"
        with self.assertRaises(spec.EnvError) as caught:
            self.runner().run("installing x", ["sh", "-c", script])
        self.assertEqual(caught.exception.message, "installing x failed (sh ended with status 3)")
        self.assertEqual(caught.exception.lines, ["ERROR: no such thing", "detail"])
        self.assertFalse(caught.exception.retry)

    def test_network(self) -> None:
        for text in (
            "Retrying after connection broken by 'NewConnectionError(...)'",
            "error: Failed to fetch: dns error",
            "Temporary failure in name resolution",
        ):
            with self.assertRaises(spec.EnvError) as caught:
                self.runner().run("x", ["sh", "-c", 'echo "$1"; exit 1', "sh", text])
            self.assertTrue(caught.exception.retry, text)
            script = 'echo "$1"; echo "ERROR: no such package"; exit 1'
            with self.assertRaises(spec.EnvError) as caught:
                self.runner().run("x", ["sh", "-c", script, "sh", text])
            self.assertEqual(caught.exception.lines, [text, "ERROR: no such package"])

    def test_no_program(self) -> None:
        with self.assertRaises(spec.EnvError) as caught:
            self.runner().run("x", ["/nonexistent/pip"])
        self.assertIn("cannot run /nonexistent/pip: No such file", caught.exception.message)

    def test_secrets(self) -> None:
        self.reporter.hide(["s3cr3t-value", "abc"])
        self.reporter.say("with s3cr3t-value and https://u:p@host/x abc")
        self.assertEqual(self.said, ["with *** and https://***@host/x abc"])

    def test_what_outlives_the_builder_keeps_the_lock(self) -> None:
        fd = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(fd, fcntl.LOCK_EX)
        tool = subprocess.Popen(["sleep", "60"], pass_fds=(fd,))
        os.close(fd)
        other = os.open(self.folder / "lock", os.O_RDWR)
        try:
            with self.assertRaises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            tool.kill()
            tool.wait()
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(other)

    def test_progress_of(self) -> None:
        cases = {
            "Collecting torch>=2": "resolving torch",
            "  Downloading x-2.1-cp311.whl (800 MB)": "downloading x-2.1-cp311.whl (800 MB)",
            "  Downloading https://h/p/torch-2.1.whl (1 kB)": "downloading torch-2.1.whl (1 kB)",
            "  Building wheel for x (setup.py): started": "building x",
            "Installing collected packages: a, b": "installing a, b",
            "Resolved 3 packages in 5ms": "resolved 3 packages in 5ms",
            "Requirement already satisfied: pip": None,
            "WARNING: Retrying (Retry(total=4)) after connection broken by 'X'": (
                "the package index cannot be reached; trying again"
            ),
        }
        for line, want in cases.items():
            self.assertEqual(run.progress_of(line), want, line)


@unittest.skipIf(HAS_PIP.returncode != 0, "no pip")
class Pip(Folder):
    def setUp(self) -> None:
        super().setUp()
        for version in ("1.0", "2.0"):
            wheels.make(self.folder, "tiny", version)
        wheels.make(self.folder, "asks", "1.0", requires="tiny>=3")
        self.links = ["--no-index", f"--find-links {self.folder}"]

    def version_in(self, ready: Dict[str, Any]) -> str:
        got = subprocess.run(
            [*ready["python"], "-c", "import tiny; print(tiny.V)"],
            capture_output=True,
            env=dict(os.environ, **ready["env"]),
        )
        return got.stdout.decode().strip()

    def test_two_versions_and_the_cache(self) -> None:
        one = self.build(pip=[*self.links, "tiny==1.0"])
        two = self.build(pip=[*self.links, "tiny==2.0"])
        self.assertEqual([self.version_in(one), self.version_in(two)], ["1.0", "2.0"])
        self.assertIn("installing tiny==1.0 with pip", self.said)
        self.said.clear()
        self.assertEqual(self.build(pip=["tiny==1.0", *self.links]), one)
        self.assertEqual(self.said, [])  # found, not built
        self.assertEqual(one["env"]["VIRTUAL_ENV"], str(Path(one["python"][0]).parents[1]))

    def test_the_interpreters_packages_are_seen(self) -> None:
        ready = self.build(pip=[*self.links, "tiny"])
        got = subprocess.run([*ready["python"], "-c", "import pip; print(pip.__file__)"],
                             capture_output=True)
        self.assertNotIn(ready["env"]["VIRTUAL_ENV"], got.stdout.decode())
        self.assertEqual(got.returncode, 0)

    def test_failure(self) -> None:
        e = self.fails(pip=[*self.links, "tiny==7"])
        self.assertIn("installing tiny==7 with pip failed", e.message)
        self.assertIn("No matching distribution found for tiny==7", "\n".join(e.lines))
        self.assertEqual([n for n in os.listdir(self.cache) if n.startswith("pip-")
                          and not n.endswith(".lock")], [])

    def test_check(self) -> None:
        asked = {"packages": ["asks"], "pip_install_options": [
            "--no-deps", "--no-index", "--find-links", str(self.folder)]}
        self.build(pip=asked)
        e = self.fails(pip=dict(asked, pip_check=True))
        self.assertIn("checking the packages with pip failed", e.message)
        self.assertIn("asks 1.0 requires tiny", "\n".join(e.lines))

    def test_uv(self) -> None:
        """A uv that hands over to pip, and notes what it was asked."""
        fake = self.folder / "bin" / "uv"
        fake.parent.mkdir()
        fake.write_text(textwrap.dedent(f"""\
            #!/bin/sh
            echo "$@" >> {self.folder}/asked
            [ "$2" = install ] || exit 0
            python=$4; shift 4
            exec "$python" -m pip install "$@"
            """))
        fake.chmod(0o755)
        with mock.patch.dict(os.environ, PATH=f"{fake.parent}:{os.environ['PATH']}"):
            ready = self.build(uv={"packages": [*self.links, "tiny==1.0"], "uv_check": True})
        self.assertEqual(self.version_in(ready), "1.0")
        asked = (self.folder / "asked").read_text()
        self.assertIn("pip install --python ", asked)
        self.assertIn("pip check --python ", asked)

    def test_no_pip(self) -> None:
        """Neither pip nor ensurepip: what to install."""
        said = spec.EnvError("x", ["/x/python: No module named pip"])
        with mock.patch.object(run.Runner, "run", side_effect=said):
            e = self.fails(pip=["tiny"])
        self.assertIn("pip is not there for", e.message)
        self.assertIn("python3-pip", e.message)


class Conda(Folder):
    def fake(self, script: str) -> Any:
        tool = self.folder / "bin" / "conda"
        tool.parent.mkdir(exist_ok=True)
        tool.write_text("#!/bin/sh\n" + textwrap.dedent(script))
        tool.chmod(0o755)
        path = f"{tool.parent}:/usr/bin:/bin"
        return mock.patch.dict(os.environ, {"PATH": path, "CONDA_EXE": ""})

    def test_by_name(self) -> None:
        prefix = self.folder / "envs" / "mine"
        listing = json.dumps({"envs": ["/opt/base", str(prefix)]})
        with self.fake(f"echo '{listing}'"):
            ready = self.build(conda="mine")
            self.assertEqual(ready["python"], [str(prefix / "bin" / "python")])
            self.assertEqual(ready["env"]["CONDA_PREFIX"], str(prefix))
            e = self.fails(conda="other")
        self.assertEqual(e.message, "conda: there is no environment 'other'; there are: base, mine")

    def test_create(self) -> None:
        script = """\
            while [ $# -gt 0 ]; do
                [ "$1" = --prefix ] && mkdir -p "$2/bin" && ln -s /bin/true "$2/bin/python"
                [ "$1" = --file ] && cat "$2"
                shift
            done
            """
        with self.fake(script):
            asked = {"name": "x", "dependencies": ["python=3.11"]}
            self.assertEqual(self.build(conda=asked), self.build(conda=asked))
        self.assertEqual(self.said, ["creating a conda environment"])
        log = next((self.cache / "log").iterdir()).read_text()
        self.assertIn('{"dependencies": ["python=3.11"]}', log)

    def test_no_tool(self) -> None:
        with mock.patch.dict(os.environ, {"PATH": str(self.folder), "CONDA_EXE": ""}):
            self.assertIn("none of conda, mamba", self.fails(conda="x").message)


class Executable(Folder):
    def test_words(self) -> None:
        ready = self.build(py_executable="sh -e")
        self.assertEqual(os.path.basename(ready["python"][0]), "sh")
        self.assertEqual(ready["python"][1:], ["-e"])
        self.assertIn("is not there on node 'n1'", self.fails(py_executable="no-such-py").message)


class Builder(Folder):
    """The process, as the node runs it."""

    def talk(self, env: Dict[str, Any]) -> List[Tuple[int, Dict[str, Any]]]:
        ours, theirs = socket.socketpair()
        process = subprocess.Popen(
            [sys.executable, "-m", "rserve.env_build"],
            env=dict(os.environ, PYTHONPATH=str(ROOT), RSERVE_FD=str(theirs.fileno())),
            pass_fds=(theirs.fileno(),),
            cwd="/",
        )
        theirs.close()
        with ours, process:
            ask = {"runtime_env": env, "base_dir": str(self.folder), "node": "n"}
            w.send_json(ours, w.BUILD, ask)
            reader, inbox = w.Reader(ours), collections.deque()
            got: List[Tuple[int, Dict[str, Any]]] = []
            with contextlib.suppress(w.HangUp):
                while True:
                    frame = w.read_frame(reader, inbox)
                    got.append((frame.type, w.parse_json(frame)))
            reader.close()
            self.assertEqual(process.wait(10), 0)
        return got

    def test_ready(self) -> None:
        (self.folder / "m.py").write_text("")
        got = self.talk({"py_modules": ["m.py"]})
        self.assertEqual(got[-1][0], w.ENV_READY)
        self.assertEqual(len(got[-1][1]["path"]), 1)

    def test_failed(self) -> None:
        got = self.talk({"working_dir": "none"})
        self.assertEqual(got[-1][0], w.FAILED)
        self.assertEqual(got[-1][1]["phase"], "environment")
        self.assertIn("does not exist on node 'n'", got[-1][1]["traceback"])

    def test_a_cache_that_cannot_be_written(self) -> None:
        self.cache.write_text("a file")
        self.zip("a.zip", m__dot__py="")
        got = self.talk({"working_dir": "a.zip"})
        self.assertEqual(got[-1][0], w.FAILED)
        self.assertIn(str(self.cache), got[-1][1]["error"])

    def test_by_hand(self) -> None:
        (self.folder / "m.py").write_text("")
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            self.assertEqual(env_build._by_hand(['{"working_dir": "none"}', str(self.folder)]), 1)
            self.assertEqual(env_build._by_hand(['{"py_modules": ["m.py"]}', str(self.folder)]), 0)
        self.assertIn("does not exist", err.getvalue())
        self.assertIn("path", json.loads(out.getvalue()))


class Class(unittest.TestCase):
    """ray.runtime_env."""

    def test_fields(self) -> None:
        from ray.runtime_env import RuntimeEnv, RuntimeEnvConfig

        env = RuntimeEnv(
            pip=["a"],
            env_vars={"A": "b"},
            working_dir=Path("/x"),
            config=RuntimeEnvConfig(setup_timeout_seconds=5),
            worker_process_setup_hook=textwrap.dedent,
        )
        self.assertEqual(
            env,
            {
                "pip": ["a"],
                "env_vars": {"A": "b"},
                "working_dir": "/x",
                "config": {"setup_timeout_seconds": 5, "eager_install": True},
                "worker_process_setup_hook": "textwrap.dedent",
            },
        )
        self.assertTrue(env.has_pip() and env.has_working_dir() and not env.has_conda())
        self.assertEqual(RuntimeEnv.deserialize(env.serialize()), env)
        import copy
        import pickle

        self.assertIsInstance(pickle.loads(pickle.dumps(env)), RuntimeEnv)
        self.assertEqual(copy.deepcopy(env), env)

    def test_refusals(self) -> None:
        from ray.runtime_env import RuntimeEnv, RuntimeEnvConfig

        cases: List[Tuple[Any, Dict[str, Any], str]] = [
            (ValueError, {"pip": ["a"], "conda": "b"}, "cannot both be specified"),
            (ValueError, {"pip": ["a"], "uv": ["b"]}, "cannot both be specified"),
            (ValueError, {"image_uri": "x"}, "does not start containers"),
            (ValueError, {"nonsense": 1}, "unknown field 'nonsense'"),
            (TypeError, {"env_vars": {"A": 1}}, "Dict[str, str]"),
            (TypeError, {"pip": 7}, "str, list or dict"),
            (TypeError, {"py_modules": "x"}, "must be a list"),
            (TypeError, {"worker_process_setup_hook": lambda: None}, "can be imported"),
            (ValueError, {"pip": {"x": 1}}, "must include field 'packages'"),
            (ValueError, {"config": {"setup_timeout_seconds": 0}}, "greater than zero"),
        ]
        for kind, given, text in cases:
            with self.assertRaises(kind) as caught:
                RuntimeEnv(**given)
            self.assertIn(text, str(caught.exception))
        self.assertEqual(RuntimeEnv(nonsense=1, _validate=False), {"nonsense": 1})
        with self.assertRaises(TypeError):
            RuntimeEnvConfig(setup_timeout_seconds="5")  # type: ignore[arg-type]

    def test_modules_by_object(self) -> None:
        from ray.runtime_env import RuntimeEnv

        env = RuntimeEnv(py_modules=[json, textwrap])
        self.assertEqual(env["py_modules"], [os.path.dirname(json.__file__), textwrap.__file__])


if __name__ == "__main__":
    unittest.main()
