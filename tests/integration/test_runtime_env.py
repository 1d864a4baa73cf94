#!/usr/bin/env python3
"""runtime_env: what is built before an application starts, by a real pip from wheels made here.

Nothing here needs the internet; RSERVE_TEST_PYPI=1 adds a test that asks PyPI.
"""

import http.server
import os
import signal
import sys
import threading
import unittest
import zipfile
from pathlib import Path
from typing import Any, Dict, List, Optional

from harness import (SOURCE, ServeTest, Server, descendants, free_port, main, rserve, still_runs,
                     wait_until)

sys.path.insert(0, os.path.join(SOURCE, "tests", "python"))

import wheels  # noqa: E402

CODE = """
import os, sys
from ray import serve

def facts():
    import tiny
    return {"version": tiny.V, "python": sys.executable, "cwd": os.getcwd(),
            "secret": os.environ.get("SECRET")}

@serve.deployment(ray_actor_options={"num_cpus": 0})
class A:
    def __call__(self, request):
        return facts()

app = A.bind()
"""


class Index:
    """A package index on loopback; while `open` is cleared it takes requests and says nothing."""

    def __init__(self, folder: Path) -> None:
        self.open = threading.Event()
        self.asked: List[str] = []
        index = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.asked.append(self.path)
                index.open.wait(60)
                name = os.path.basename(self.path.rstrip("/"))
                if name.endswith((".whl", ".zip")):
                    body = (folder / name).read_bytes()
                else:
                    files = sorted(p.name for p in folder.glob(name + "-*.whl"))
                    body = "".join(f'<a href="/{f}">{f}</a>\n' for f in files).encode()
                try:
                    self.send_response(200)
                    self.send_header("Content-Type", "text/html")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    pass  # who asked was killed

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.open.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class RuntimeEnv(ServeTest):
    def setUp(self) -> None:
        super().setUp()
        self.files = Path(self.folder) / "files"
        self.files.mkdir()
        self.cache = os.path.join(self.folder, "cache")
        for version in ("1.0", "2.0"):
            wheels.make(self.files, "tiny", version)
        self.write("served.py", CODE)

    def index(self) -> Index:
        index = Index(self.files)
        self.addCleanup(index.close)
        return index

    def env(self, **more: str) -> Dict[str, str]:
        return dict({"RSERVE_ENV_DIR": self.cache, "PIP_CONFIG_FILE": os.devnull}, **more)

    def config(self, *apps: str) -> str:
        text = "".join(
            f"- name: {a.split(':', 1)[0]}\n  route_prefix: /{a.split(':', 1)[0]}\n"
            f"  import_path: served:app\n  runtime_env: {a.split(':', 1)[1]}\n"
            for a in apps
        )
        return self.write("app.yaml", "applications:\n" + text)

    def pip(self, what: str, index: Optional[Index] = None) -> str:
        """A runtime_env in YAML."""
        if index is None:
            return f'{{pip: ["--no-index", "--find-links {self.files}", "{what}"]}}'
        return f'{{pip: ["--index-url {index.url}/simple", "{what}"]}}'

    def ended(self, *args: str, **kwargs: Any) -> Server:
        s = self.start(*args, **kwargs)
        s.wait_rest()
        return s

    def environments(self) -> List[str]:
        return sorted(n for n in os.listdir(self.cache)
                      if os.path.exists(os.path.join(self.cache, n, ".complete")))

    def builders(self, s: Server) -> List[Any]:
        def command(pid: int) -> str:
            try:
                with open(f"/proc/{pid}/cmdline", encoding="utf-8") as f:
                    return f.read()
            except OSError:
                return ""
        return [p for p in descendants(s.pid) if "env_build" in command(p.pid)]

    def test_conflicting_versions_and_the_cache(self) -> None:
        config = self.config("one: " + self.pip("tiny==1.0"), "two: " + self.pip("tiny==2.0"))
        s = self.serve(config, env=self.env())
        one, two = s.call("/one").json(), s.call("/two").json()
        self.assertEqual([one["version"], two["version"]], ["1.0", "2.0"])
        self.assertTrue(one["python"].startswith(self.cache + "/pip-"), one["python"])
        self.assertEqual(len(self.environments()), 2)
        built = {n: os.stat(os.path.join(self.cache, n, ".complete")).st_mtime_ns
                 for n in self.environments()}
        self.assertEqual(s.stop(), 0)
        # Again, with wheels that no pip could install any more.
        for wheel in self.files.glob("*.whl"):
            wheel.write_text("")
        s = self.serve(config, env=self.env())
        self.assertEqual(s.call("/one").json(), one)
        self.assertNotIn("installing", s.output())
        self.assertEqual(built, {n: os.stat(os.path.join(self.cache, n, ".complete")).st_mtime_ns
                                 for n in self.environments()})

    def test_progress_and_requirements_file(self) -> None:
        index = self.index()
        self.write("requirements.txt",
                   f"# what it needs\n--index-url {index.url}/simple\ntiny==2.0\n")
        s = self.start(self.config("one: {pip: requirements.txt}"), env=self.env())
        s.wait_rest()
        wait_until("pip asks", lambda: index.asked)
        wait_until("the status says what is done",
                   lambda: "Setting up the runtime environment: installing tiny==2.0 with pip"
                   in s.app("one")["message"])
        self.assertEqual(s.app("one")["status"], "DEPLOYING")
        status = rserve("status", "--address", f"http://127.0.0.1:{s.dashboard}").stdout
        self.assertIn("installing tiny==2.0 with pip", status)
        s.wait_output("Setting up the runtime environment: installing tiny==2.0 with pip")
        index.open.set()
        s.wait_apps()
        self.assertEqual(s.call("/one").json()["version"], "2.0")
        self.assertEqual(s.app("one")["message"], "")

    def test_code_from_zips_and_folders(self) -> None:
        index = self.index()
        index.open.set()
        with zipfile.ZipFile(self.files / "code.zip", "w") as z:
            z.writestr("code-main/zipped.py", CODE.replace("import tiny", "import tiny, near"))
            z.writestr("code-main/data.txt", "x")
        with zipfile.ZipFile(os.path.join(self.folder, "more.zip"), "w") as z:
            z.writestr("more/x.py", "")
            z.writestr("tiny.py", "V = 'zipped'\n")
        self.write("libs/near/__init__.py", "")
        self.write("app.yaml", f"""\
            applications:
            - name: one
              import_path: zipped:app
              runtime_env:
                working_dir: {index.url}/code.zip
                py_modules: [libs/near, more.zip]
            """)
        s = self.serve(os.path.join(self.folder, "app.yaml"), env=self.env())
        got = s.call("/").json()
        self.assertEqual(got["version"], "zipped")
        self.assertTrue(os.path.exists(os.path.join(got["cwd"], "data.txt")))
        self.assertTrue(got["cwd"].startswith(self.cache), got["cwd"])

    def test_a_requirement_that_does_not_exist(self) -> None:
        config = self.config("bad: " + self.pip("tiny==7.0"), "good: " + self.pip("tiny==1.0"))
        s = self.start(config, env=self.env())
        s.wait_apps({"bad": "DEPLOY_FAILED", "good": "RUNNING"})
        message = s.app("bad")["message"]
        self.assertIn("Runtime env setup for app 'bad' failed:", message)
        self.assertIn("ERROR: No matching distribution found for tiny==7.0", message)
        s.wait_output("ERROR: No matching distribution found for tiny==7.0")
        self.assertEqual(s.call("/good").json()["version"], "1.0")
        status = rserve("status", "--address", f"http://127.0.0.1:{s.dashboard}")
        self.assertIn("No matching distribution", status.stdout)
        self.assertEqual(len(self.environments()), 1)

    def test_the_builder_is_killed(self) -> None:
        index = self.index()
        s = self.start(self.config("one: " + self.pip("tiny==1.0", index)), env=self.env())
        s.wait_rest()
        wait_until("pip asks", lambda: index.asked)
        first = self.builders(s)
        os.kill(first[0].pid, signal.SIGKILL)
        wait_until("the status tells", lambda: "was killed by SIGKILL" in s.app("one")["message"])
        wait_until("pip ended with its builder", lambda: not any(still_runs(p) for p in first))
        self.assertEqual(self.environments(), [])
        index.open.set()
        s.wait_apps()
        self.assertEqual(s.call("/one").json()["version"], "1.0")
        self.assertNoZombies(s)

    def test_rserve_is_killed_while_it_builds(self) -> None:
        index = self.index()
        config = self.config("one: " + self.pip("tiny==1.0", index))
        s = self.start(config, env=self.env())
        wait_until("pip asks", lambda: index.asked)
        family = descendants(s.pid)
        s.send(signal.SIGKILL)
        s.wait_exit()
        wait_until("nothing of it is left", lambda: not any(still_runs(p) for p in family))
        self.assertEqual(self.environments(), [])
        index.open.set()
        s = self.serve(config, env=self.env())
        self.assertEqual(s.call("/one").json()["version"], "1.0")

    def test_two_at_once_build_one(self) -> None:
        index = self.index()
        config = self.config("one: " + self.pip("tiny==1.0", index))
        first = self.start(config, env=self.env())
        wait_until("pip asks", lambda: index.asked)
        second = self.start(config, env=self.env())
        second.wait_rest()
        wait_until("the second waits", lambda: "waiting for another process that builds the same"
                   in second.app("one")["message"])
        index.open.set()
        for s in (first, second):
            s.wait_apps()
            self.assertEqual(s.call("/one").json()["version"], "1.0")
        self.assertEqual(len([a for a in index.asked if a.endswith(".whl")]), 1)

    def test_it_takes_too_long(self) -> None:
        index = self.index()
        env = self.pip("tiny==1.0", index)[:-1] + ", config: {setup_timeout_seconds: 1}}"
        s = self.start(self.config("one: " + env), env=self.env())
        s.wait_apps("DEPLOY_FAILED")
        self.assertIn("not finished after 1 s (config.setup_timeout_seconds); it was at: "
                      "installing tiny==1.0 with pip", s.app("one")["message"])
        wait_until("the builder is gone", lambda: not self.builders(s))
        # The same file once more is another try.
        index.open.set()
        config = {"applications": [{
            "name": "one", "import_path": "served:app", "rserve": {"app_dir": self.folder},
            "runtime_env": {"pip": [f"--index-url {index.url}/simple", "tiny==1.0"]}}]}
        self.assertEqual(s.rest("PUT", config).status, 200)
        s.wait_apps()

    def test_what_is_unused_is_collected(self) -> None:
        greedy = self.env(RSERVE_ENV_MAX_GB="0", RSERVE_ENV_GRACE_S="0")
        one = self.serve(self.config("one: " + self.pip("tiny==1.0")), env=greedy)
        first = self.environments()
        self.assertEqual(len(first), 1)
        two = self.serve(self.config("two: " + self.pip("tiny==2.0")), env=greedy)
        self.assertEqual(len(self.environments()), 2)  # the first one is in use
        self.assertEqual(one.stop(), 0)
        self.assertEqual(two.call("/two").json()["version"], "2.0")
        answer = two.rest("PUT", {"applications": [
            {"name": "two", "route_prefix": "/two", "import_path": "served:app",
             "rserve": {"app_dir": self.folder},
             "runtime_env": {"pip": ["--no-index", f"--find-links {self.files}", "tiny==2.0"],
                             "env_vars": {"A": "b"}}}]})
        self.assertEqual(answer.status, 200, answer.text)
        wait_until("the first one is gone", lambda: first[0] not in self.environments())
        wait_until("the new replica answers", lambda: two.call("/two").status == 200)
        self.assertEqual(two.call("/two").json()["version"], "2.0")

    def test_deployments_with_their_own(self) -> None:
        links = f'"--no-index", "--find-links {self.files}"'
        self.write("graph.py", f"""\
            from ray import serve
            from ray.runtime_env import RuntimeEnv
            from served import facts

            def of(version):
                env = RuntimeEnv(pip=[{links}, "tiny==" + version])
                return {{"num_cpus": 0, "runtime_env": env}}

            @serve.deployment(ray_actor_options=of("1.0"))
            class Old:
                def __call__(self): return facts()

            @serve.deployment(ray_actor_options=of("2.0"))
            class New:
                def __call__(self): return facts()

            @serve.deployment(ray_actor_options={{"num_cpus": 0}})
            class Both:
                def __init__(self, *parts): self.parts = parts
                async def __call__(self, request):
                    return [await p.remote() for p in self.parts]

            app = Both.bind(Old.bind(), New.bind())
            """)
        for start in ("fork", "spawn"):
            self.write("app.yaml", f"""\
                applications:
                - name: one
                  import_path: graph:app
                  runtime_env: {{env_vars: {{SECRET: all}}}}
                  rserve: {{start: {start}}}
                """)
            s = self.serve(os.path.join(self.folder, "app.yaml"), env=self.env())
            got = s.call("/").json()
            self.assertEqual([g["version"] for g in got], ["1.0", "2.0"], start)
            self.assertEqual([g["secret"] for g in got], ["all", "all"])
            self.assertEqual(s.stop(), 0)

    def test_interpreter_and_setup_hook(self) -> None:
        """A wrapper that does not exec: the zygote is a grandchild."""
        self.write("py", """\
            #!/bin/sh
            RUN_BY="wrapper $1"; export RUN_BY; shift; python3 "$@"
            """, 0o755)
        self.write("hooks.py", """\
            import os
            def start(): os.environ["HOOKED"] = "before the application"
            def bad(): raise ValueError("no hook")
            """)
        self.write("hooked.py", """\
            import os
            from ray import serve
            seen = os.environ.get("HOOKED")

            @serve.deployment(ray_actor_options={"num_cpus": 0})
            class A:
                def __call__(self, request):
                    return [seen, os.environ["RUN_BY"], os.getpid()]

            app = A.bind()
            """)
        for start in ("fork", "spawn"):
            self.write("app.yaml", f"""\
                applications:
                - name: one
                  import_path: hooked:app
                  runtime_env: {{py_executable: ./py -x, worker_process_setup_hook: hooks.start}}
                  rserve: {{start: {start}}}
                - name: two
                  route_prefix: /two
                  import_path: hooked:app
                  runtime_env: {{worker_process_setup_hook: hooks.bad}}
                """)
            s = self.start(os.path.join(self.folder, "app.yaml"), env=self.env())
            s.wait_apps({"one": "RUNNING", "two": "DEPLOY_FAILED"})
            got = s.call("/").json()
            self.assertEqual(got[:2], ["before the application", "wrapper -x"], start)
            message = s.app("two")["message"]
            self.assertIn("worker_process_setup_hook hooks.bad failed:\nTraceback", message)
            self.assertIn("ValueError: no hook", message)
            os.kill(got[2], signal.SIGKILL)
            wait_until("another one answers", lambda: s.call("/").status == 200)
            self.assertEqual(s.stop(), 0)

    def test_policies_run_in_it(self) -> None:
        """User code in the control path sees the environment, forked or not."""
        for threads in ("", "import threading, time\n"
                        "threading.Thread(target=time.sleep, args=(99,), daemon=True).start()\n"):
            self.write("served.py", threads + CODE + """
def policy(ctx):
    import tiny
    assert os.environ["SECRET"] == "s", os.environ
    return float(tiny.V), {}

app = A.options(autoscaling_config={
    "min_replicas": 1, "max_replicas": 4, "upscale_delay_s": 0, "metrics_interval_s": 0.1,
    "look_back_period_s": 0.4, "policy": {"policy_function": policy}}).bind()
""")
            env = self.pip("tiny==2.0")[:-1] + ", env_vars: {SECRET: s}}"
            s = self.serve(self.config("one: " + env), env=self.env())
            wait_until("two replicas", lambda: len(s.replicas("one", "A")) == 2)
            self.assertEqual(s.app("one")["deployments"]["A"]["autoscaling_detail"]["errors"], [])
            self.assertEqual(s.stop(), 0)

    def test_a_program_that_brings_its_environment(self) -> None:
        self.write("program.py", f"""\
            import ray
            from ray import serve

            ray.init("local", num_cpus=2, runtime_env={{
                "pip": ["--no-index", "--find-links=files", "tiny==1.0"],
                "env_vars": {{"SECRET": "x${{HOME}}"}}}})

            serve.start(http_options={{"port": 0}})

            @serve.deployment
            class A:
                def __call__(self):
                    import os, tiny
                    return tiny.V, os.environ["SECRET"]

            print("got", *serve.run(A.bind()).remote().result())

            @ray.remote
            def task():
                import os, tiny
                return tiny.V, os.environ["SECRET"]

            @ray.remote(runtime_env={{"pip": ["--no-index", "--find-links=files", "tiny==2.0"]}})
            class Actor:
                def get(self):
                    import os, tiny
                    return tiny.V, os.environ["SECRET"]

            print("task", *ray.get(task.remote()))
            print("actor", *ray.get(Actor.remote().get.remote()))
            other = task.options(runtime_env={{"env_vars": {{"SECRET": "own"}}}})
            print("other", *ray.get(other.remote()))
            print(ray.get_runtime_context().runtime_env["pip"][-1])
            """)
        done = rserve("python", "program.py", cwd=self.folder, timeout=60,
                      env=self.env(HOME=self.folder, XDG_STATE_HOME=self.folder))
        self.assertEqual(
            done.stdout,
            f"got 1.0 x{self.folder}\ntask 1.0 x{self.folder}\nactor 2.0 x{self.folder}\n"
            "other 1.0 own\ntiny==1.0\n", done.stderr)

    def test_values_of_env_vars_are_not_written_down(self) -> None:
        secret = "hunter2-hunter2"
        env = self.pip("tiny==7.0")[:-1] + f", env_vars: {{SECRET: {secret}}}}}"
        good = self.pip("tiny==1.0")[:-1] + f", env_vars: {{SECRET: {secret}}}}}"
        s = self.start("-v", self.config("bad: " + env, "good: " + good), env=self.env())
        s.wait_apps({"bad": "DEPLOY_FAILED", "good": "RUNNING"})
        self.assertEqual(s.call("/good").json()["secret"], secret)
        s.stop()
        done = rserve("run", "--check", "-v", self.config("good: " + good),
                      env=self.env(XDG_STATE_HOME=os.path.join(self.folder, "check")))
        self.assertIn('"SECRET":"***"', done.stdout, done.stderr)
        self.assertNotIn(secret, done.stdout + done.stderr)
        for folder, _, names in os.walk(self.folder):
            for name in names:
                path = os.path.join(folder, name)
                if name != "app.yaml" and os.path.isfile(path):
                    with open(path, "rb") as f:
                        self.assertNotIn(secret.encode(), f.read(), path)

    def test_a_folder_that_is_not_there(self) -> None:
        s = self.start(self.config("one: {working_dir: none}"), env=self.env())
        s.wait_apps("DEPLOY_FAILED")
        message = s.app("one")["message"]
        self.assertIn(f"working_dir: {self.folder}/none does not exist on node '", message)
        for name, status in (("none", 400), (f"{self.folder}/none", 400), (self.folder, 200)):
            answer = s.rest("PUT", {"applications": [{
                "name": "one", "import_path": "served:app", "runtime_env": {"working_dir": name}}]})
            self.assertEqual(answer.status, status, answer.text)
            if status == 400:
                self.assertIn("support only remote URIs in working_dir and py_modules", answer.text)

    def test_a_worker_without_the_folder(self) -> None:
        """The head's node imports the application, which takes the folder away."""
        self.write("gone/__init__.py", "")
        self.write("served.py", "import shutil\nshutil.rmtree(%r, ignore_errors=True)\n%s"
                   % (os.path.join(self.folder, "gone"), CODE))
        port, dashboard, join = free_port(), free_port(), free_port()
        head = self.spawn("head", "--num-cpus", "0", "--host", "127.0.0.1", "--port", str(port),
                          "--dashboard-port", str(dashboard), "--listen", f"127.0.0.1:{join}",
                          env=self.env())
        head.port, head.dashboard = port, dashboard
        head.wait_rest()
        self.spawn("worker", "--address", f"127.0.0.1:{join}", "--num-cpus", "2", "--host",
                   "127.0.0.1", "--port", "0", "--node-name", "second", env=self.env())
        answer = head.rest("PUT", {"applications": [{
            "name": "one", "import_path": "served:app", "rserve": {"app_dir": self.folder},
            "runtime_env": {"py_modules": [os.path.join(self.folder, "gone")]},
            "deployments": [{"name": "A", "ray_actor_options": {"num_cpus": 1}}]}]})
        self.assertEqual(answer.status, 200, answer.text)
        head.wait_apps("DEPLOY_FAILED")
        self.assertIn(f"py_modules[0]: {self.folder}/gone does not exist on node 'second'",
                      head.app("one")["deployments"]["A"]["message"])

    def test_check(self) -> None:
        config = self.config("one: {image_uri: x, pipp: [a]}", "two: " + self.pip("tiny==7.0"))
        done = rserve("run", "--check", config, env=self.env(XDG_STATE_HOME=self.folder))
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("app.yaml:5:18: applications[0].runtime_env.image_uri: not allowed here: "
                      "rserve does not start containers", done.stderr)
        self.assertIn('runtime_env.pipp: unknown key; did you mean "pip"?', done.stderr)
        config = self.config("two: " + self.pip("tiny==7.0"))
        done = rserve("run", "--check", config, env=self.env(XDG_STATE_HOME=self.folder))
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("No matching distribution found for tiny==7.0", done.stderr)

    @unittest.skipUnless(os.environ.get("RSERVE_TEST_PYPI"), "asks PyPI: RSERVE_TEST_PYPI=1")
    def test_pypi(self) -> None:
        self.write("served.py", CODE.replace("import tiny", "import six as tiny; tiny.V = 1"))
        s = self.start(self.config("one: {pip: ['six==1.16.0']}"), env=self.env())
        s.wait_apps(timeout=100)
        self.assertIn("/pip-", s.call("/one").json()["python"])


if __name__ == "__main__":
    main()
