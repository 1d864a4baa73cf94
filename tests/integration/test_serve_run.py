#!/usr/bin/env python3
"""`serve run` and `serve start`: in this process, in the background, on a cluster; --reload."""

import os
import signal
import subprocess
from typing import Any, Dict

from aliases import ONE, AliasTest
from harness import Server, call, descendants, free_port, main, still_runs, wait_until

PORTS = ("--port=0", "--dashboard-port=0")


class RunTest(AliasTest):
    def setUp(self) -> None:
        super().setUp()
        self.write("served.py", ONE)

    def run_here(self, *args: str, **kwargs: Any) -> Server:
        """`serve run`, as a process that stays."""
        s = self.spawn("serve", "run", *args, env=self.env(), cwd=self.folder, **kwargs)
        return s

    def where(self, s: Server, kind: str = "run") -> Server:
        """With its ports filled in."""
        found = wait_until("it says where it is", lambda: self.instances(kind))[-1]
        s.dashboard, s.port = self.ports(found)
        return s

    def ports(self, found: Dict[str, Any]) -> Any:
        return (int(found[k].rpartition(":")[2] or 0) for k in ("dashboard", "http"))

    def ray_head(self) -> Server:
        """A head of `ray start` in the background; what is returned is only a place to ask."""
        self.assertDone(self.cmd("ray", "start", "--head", "--port=0", "--dashboard-port=0",
                                 "--http-port=0"))
        s = Server.__new__(Server)
        s.dashboard, s.port = self.ports(self.instances("head")[-1])
        return s

    def ending(self, s: Server, number: int = signal.SIGINT) -> int:
        s.send(number)
        return s.wait_exit()


class Here(RunTest):
    """Nothing runs: the process serves itself."""

    def test_import_path(self) -> None:
        s = self.run_here("served:build", "word=two", "--route-prefix=/w", "--name=w", *PORTS)
        self.where(s).wait_apps({"w": "RUNNING"})
        self.assertEqual(s.call("/w").text, "two")
        self.assertIn("Running import path: 'served:build'.", s.output())
        # it is found by the other verbs, but nothing is deployed to it: the next is one of its own
        self.assertIn("RUNNING", self.assertDone(self.cmd("serve", "status")))
        other = self.run_here("served:app", *PORTS)
        wait_until("both run", lambda: len(self.instances("run")) == 2)
        self.where(other).wait_apps({"default": "RUNNING"})
        self.assertNotEqual(s.port, other.port)
        self.assertEqual((self.ending(s), self.ending(other)), (0, 0))

    def test_file_and_modules_from_the_working_directory(self) -> None:
        self.write("config/app.yaml", "applications: [{name: a, import_path: 'served:app'}]\n")
        s = self.run_here("config/app.yaml", "k=v", *PORTS)
        self.where(s).wait_apps({"a": "RUNNING"})
        self.assertIn("Running config file: 'config/app.yaml'.", s.output())
        self.assertIn("k=v is ignored", s.output())
        self.assertEqual(self.ending(s), 0)

    def test_runtime_env(self) -> None:
        self.write("envs.py", """
            import os
            from ray import serve

            @serve.deployment
            class Env:
                def __call__(self, request):
                    return os.environ["OF_FILE"] + os.path.basename(os.getcwd())

            app = Env.bind()
            """)
        self.write("env.yaml", "env_vars: {OF_FILE: 'seen '}\n")
        s = self.run_here("envs:app", "--runtime-env=env.yaml", *PORTS)
        self.where(s).wait_apps()
        self.assertTrue(s.call("/").text.startswith("seen "))
        self.assertEqual(self.ending(s), 0)

    def test_what_fails(self) -> None:
        self.write("broken.py", "raise RuntimeError('at import')\n")
        for args, status, text in ((["absent:app"], 1, "absent"),
                                   (["broken:app"], 1, "at import"),
                                   (["absent.yaml"], 1, "absent.yaml: cannot be read"),
                                   (["served:app", "k"], 2, "<key>=<val>"),
                                   (["served:app", "--reload", "--non-blocking"], 2, "--reload"),
                                   (["served:app", "--reload", "-d", "absent"], 1, "'absent'"),
                                   (["served:app", "-a", "ftp://x"], 2, "ftp")):
            with self.subTest(args=args):
                r = self.cmd("serve", "run", *args, *PORTS)
                self.assertEqual(r.returncode, status, r.stdout + r.stderr)
                self.assertIn(text, r.stdout + r.stderr)
        self.assertEqual(self.instances("run"), [])

    def test_an_address_that_nobody_answers(self) -> None:
        r = self.cmd("serve", "run", "served:app",
                     RAY_ADDRESS="http://127.0.0.1:%d" % free_port())
        self.assertEqual(r.returncode, 1)
        self.assertOneLine(r.stderr, "nothing answers on", "$RAY_ADDRESS")


class Behind(RunTest):
    """--non-blocking without a cluster."""

    def test_it_stays_until_ray_stop(self) -> None:
        out = self.assertDone(self.cmd("serve", "run", "served:app", "--non-blocking", *PORTS))
        self.assertIn("Deployed app 'default' successfully.", out)
        node = self.running()[0]
        _, port = self.ports(node)
        self.assertEqual(call(port).text, "one")
        self.assertEqual(self.assertDone(self.cmd("ray", "stop")),
                         "Stopped all 1 Ray processes.\n")
        self.assertEqual(self.running(), [])

    def test_one_that_fails_leaves_nothing(self) -> None:
        self.write("broken.py", """
            from ray import serve

            @serve.deployment
            class Broken:
                def __init__(self):
                    raise RuntimeError("in the constructor")

            app = Broken.bind()
            """)
        r = self.cmd("serve", "run", "broken:app", "--non-blocking", *PORTS)
        self.assertEqual(r.returncode, 1)
        self.assertOneLine(r.stderr, "application 'default' is DEPLOY_FAILED")
        wait_until("nothing is left", lambda: not self.running())


class There(RunTest):
    """On a cluster that `ray start` left running."""

    def test_beside_what_runs_there(self) -> None:
        head = self.ray_head()
        self.assertDone(self.cmd("serve", "run", "served:build", "word=two", "--name=two",
                                 "--route-prefix=/two", "--non-blocking"))
        pids = head.pids("two", "One")
        s = self.run_here("served:app")
        s.wait_output("Deployed app 'default' successfully.")
        self.assertNotIn("'two'", s.output())
        self.assertEqual((head.call("/").text, head.call("/two").text), ("one", "two"))
        self.assertEqual(head.pids("two", "One"), pids)  # it was not touched
        self.assertEqual(self.ending(s), 0)
        self.assertIn("Got KeyboardInterrupt, shutting down...", s.output())
        wait_until("everything is deleted", lambda: not head.details()["applications"])
        self.assertEqual(len(self.running()), 1)

    def test_modules_of_the_folder_of_the_command(self) -> None:
        head = self.ray_head()
        self.write("elsewhere/other.py", ONE)
        self.write("elsewhere/app.yaml", "applications: [{import_path: 'other:app'}]\n")
        folder = os.path.join(self.folder, "elsewhere")
        out = self.assertDone(self.cmd("serve", "run", "app.yaml", "--non-blocking", cwd=folder))
        self.assertIn("Submitted deploy config successfully.", out)
        wait_until("it runs", lambda: head.app("default")["status"] == "RUNNING")

    def test_the_head_dies(self) -> None:
        self.ray_head()
        s = self.run_here("served:app")
        s.wait_output("Deployed app 'default' successfully.")
        os.kill(self.running()[0]["pid"], signal.SIGKILL)
        self.assertEqual(s.wait_exit(), 1)
        self.assertIn("serve run: the cluster is gone: nothing answers on", s.output())

    def test_it_fails_there(self) -> None:
        head = self.ray_head()
        self.write("broken.py", "raise RuntimeError('at import')\n")
        r = self.cmd("serve", "run", "broken:app")
        self.assertEqual(r.returncode, 1)
        self.assertOneLine(r.stderr, "application 'default' is DEPLOY_FAILED", "at import")
        self.assertEqual(head.app("default")["status"], "DEPLOY_FAILED")


class Start(RunTest):
    def test_it_opens_the_listener(self) -> None:
        self.assertDone(self.cmd("ray", "start", "--head", "--port=0", "--dashboard-port=0"))
        found = self.instances("head")[0]
        self.assertEqual(found["http"], "")
        port = free_port()
        out = self.assertDone(self.cmd("serve", "start", "--http-port", str(port)))
        self.assertIn("http://" + found["dashboard"], out)
        self.assertEqual(call(port, "/-/healthz").status, 503)  # no routes yet
        self.assertDone(self.cmd("serve", "run", "served:app", "--non-blocking"))
        r = self.cmd("serve", "start", "--http-port", str(free_port()))
        self.assertEqual(r.returncode, 0)
        self.assertOneLine(r.stderr, "Serve listens on 127.0.0.1:%d already" % port)
        self.assertEqual(call(port, "/").text, "one")  # it is still there

    def test_the_first_configuration_says_where(self) -> None:
        self.assertDone(self.cmd("ray", "start", "--head", "--port=0", "--dashboard-port=0"))
        port = free_port()
        config = self.write_app(ONE)
        with open(config, "a", encoding="utf-8") as f:
            f.write("http_options: {host: 127.0.0.1, port: %d}\n" % port)
        self.assertDone(self.cmd("serve", "deploy", config))
        wait_until("it answers", lambda: call(port).text == "one")

    def test_a_port_that_is_taken(self) -> None:
        head = self.ray_head()
        self.assertDone(self.cmd("ray", "stop"))
        self.assertDone(self.cmd("ray", "start", "--head", "--port=0", "--dashboard-port=0"))
        taken = subprocess.Popen(["python3", "-m", "http.server", str(head.port), "--bind",
                                  "127.0.0.1"], cwd=self.folder, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        self.addCleanup(taken.wait)
        self.addCleanup(taken.kill)

        def answers() -> bool:
            try:
                return call(head.port).status == 200
            except OSError:
                return False
        wait_until("the port is taken", answers)
        r = self.cmd("serve", "start", "--http-port", str(head.port))
        self.assertEqual((r.returncode, r.stdout), (1, ""))
        self.assertOneLine(r.stderr, str(head.port))


class Reload(RunTest):
    def setUp(self) -> None:
        super().setUp()
        self.write("src/served.py", ONE)

    def change(self, word: str, name: str = "src/served.py") -> None:
        """As editors do: a new file takes the place of the old one."""
        self.write(name + ".new", ONE.replace('"one"', '"%s"' % word))
        os.rename(os.path.join(self.folder, name + ".new"), os.path.join(self.folder, name))

    def answers(self, s: Server, word: str) -> None:
        wait_until("it answers %s" % word, lambda: s.call("/").text == word)

    def test_here(self) -> None:
        s = self.run_here("served:app", "--reload", "--app-dir=src", *PORTS)
        self.where(s).wait_apps()
        self.answers(s, "one")
        self.write("src/notes.txt", "nothing to do with it")
        self.write("src/.hidden/x.py", "")
        for word in ("two", "three"):
            self.change(word)
            self.answers(s, word)
        before = s.output().count("deploying anew")
        self.assertEqual(before, 2)
        # a broken one leaves what runs, and is said; the next one is taken
        self.write("src/served.py", "raise RuntimeError('half written')\n")
        s.wait_output("half written")
        self.answers(s, "three")
        self.change("four")
        self.answers(s, "four")
        s.wait_apps()
        self.assertEqual(self.ending(s), 0)

    def test_folders_made_later(self) -> None:
        self.change("one", "src/deep.py")
        s = self.run_here("deep:app", "--app-dir=src", "-r", *PORTS)
        self.where(s).wait_apps()
        self.write("src/new/helper.py", "")
        s.wait_output("deploying anew")
        self.change("two", "src/deep.py")
        self.answers(s, "two")
        self.assertEqual(self.ending(s), 0)

    def test_there(self) -> None:
        head = self.ray_head()
        s = self.run_here("served:app", "--reload", "--app-dir=src")
        s.wait_output("Deployed app 'default' successfully.")
        self.change("two")
        s.wait_output("served.py has changed, deploying anew")
        self.answers(head, "two")
        old = descendants(self.running()[0]["pid"])
        self.assertEqual(self.ending(s), 0)
        wait_until("everything is deleted", lambda: not head.details()["applications"])
        self.assertTrue(any(still_runs(p) for p in old) or not old)


if __name__ == "__main__":
    main()
