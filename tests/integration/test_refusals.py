#!/usr/bin/env python3
"""What cannot be run is refused, or fails, with one clear line for the user."""

import os
import socket
import unittest

from harness import RSERVE, ServeTest, Server, free_port, main, rserve, wait_until

HELLO = """\
    from ray import serve

    @serve.deployment
    def hello(request):
        return "hello"

    app = hello.bind()
    """


class BeforeItRuns(ServeTest):
    """These end at once."""

    def refuse(self, *args: str, code: int = 1) -> str:
        env = {"XDG_STATE_HOME": os.path.join(self.folder, "state")}
        ports = ("--port", str(free_port()), "--dashboard-port", str(free_port()))
        r = rserve("run", *args, *(() if "--port" in args else ports), env=env, cwd=self.folder)
        self.assertEqual(r.returncode, code, r.stderr + r.stdout)
        return r.stdout + r.stderr

    def test_no_such_file(self) -> None:
        self.assertOneLine(self.refuse("absent.yaml", code=2), "absent.yaml", "No such file")

    def test_unreadable_file(self) -> None:
        path = self.write("app.yaml", "applications: []\n", 0)
        if os.access(path, os.R_OK):
            os.unlink(path)
            os.mkdir(path)  # nothing else is unreadable for root
        self.assertOneLine(self.refuse("app.yaml", code=2), "app.yaml")

    def test_broken_yaml(self) -> None:
        self.write("app.yaml", "applications:\n - name: [\n")
        self.assertOneLine(self.refuse("app.yaml", code=2), "app.yaml:")

    def test_invalid_file(self) -> None:
        self.write("app.yaml", """\
            applications:
            - name: a
              import_path: served:app
              deployments:
              - {name: x, num_replicas: two}
              - {name: y, max_ongoing_requests: 0}
            """)
        text = self.refuse("app.yaml", code=2)
        self.assertIn("app.yaml:5:29: applications[0].deployments[0].num_replicas: expected", text)
        self.assertIn('got "two"', text)
        self.assertIn("applications[0].deployments[1].max_ongoing_requests", text)

    def test_port_in_use(self) -> None:
        self.write_app(HELLO)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            s.listen()
            port = s.getsockname()[1]
            text = self.refuse("app.yaml", "--port", str(port), "--dashboard-port",
                               str(free_port()))
        self.assertOneLine(text, "port %d" % port, "in use", "pid %d" % os.getpid())

    def test_second_run_names_the_first(self) -> None:
        first = self.serve_code(HELLO)
        text = self.refuse("app.yaml", "--port", str(first.port), "--dashboard-port",
                           str(free_port()))
        self.assertOneLine(text, str(first.port), "pid %d" % first.pid, "rserve")
        text = self.refuse("app.yaml", "--port", str(free_port()), "--dashboard-port",
                           str(first.dashboard))
        self.assertOneLine(text, str(first.dashboard), "pid %d" % first.pid)
        self.assertEqual(first.call().text, "hello")

    def test_port_that_is_not_ours_to_take(self) -> None:
        if os.geteuid() == 0:
            self.skipTest("root may take any port")
        self.write_app(HELLO)
        self.assertOneLine(self.refuse("app.yaml", "--port", "80", "--dashboard-port",
                                       str(free_port())), ":80", "ermission denied")

    def test_not_an_import_path(self) -> None:
        self.assertOneLine(self.refuse("nothing", code=2), "nothing")


class WhileItRuns(ServeTest):
    """An application that cannot be deployed is a status; the server goes on."""

    def line(self, s: Server, *parts: str) -> str:
        """The one line of the output that is about the failure."""
        s.wait_apps("DEPLOY_FAILED")

        def found() -> str:
            lines = [x for x in s.output().splitlines() if all(p in x for p in parts)]
            return lines[0] if lines else ""
        return wait_until("a line with %s" % (parts,), found)

    def test_missing_module(self) -> None:
        s = self.start(self.write("app.yaml", """\
            applications:
            - {name: app, route_prefix: /, import_path: "absent:app"}
            """))
        self.line(s, "No module named 'absent'")
        self.assertIn("No module named 'absent'", s.app("app")["message"])

    def test_missing_pip_package(self) -> None:
        s = self.start(self.write_app("import no_such_package_of_pip\n" + "app = None\n"))
        self.line(s, "No module named 'no_such_package_of_pip'")
        self.assertIn("served.py", s.app("app")["message"])

    def test_syntax_error(self) -> None:
        s = self.start(self.write_app("def broken(:\n    pass\n"))
        self.line(s, "SyntaxError")
        message = s.app("app")["message"]
        self.assertIn("served.py", message)
        self.assertIn("line 1", message)

    def test_missing_attribute(self) -> None:
        self.write_app(HELLO)
        s = self.start(self.write("other.yaml", """\
            applications:
            - {name: app, route_prefix: /, import_path: "served:absent"}
            """))
        self.line(s, "absent")

    def test_missing_interpreter(self) -> None:
        self.write_app(HELLO)
        s = self.start(self.write("other.yaml", """\
            applications:
            - name: app
              route_prefix: /
              import_path: served:app
              rserve: {python: python9.99}
            """))
        self.line(s, "python9.99")

    def test_missing_program(self) -> None:
        s = self.start(self.write("other.yaml", """\
            applications:
            - name: app
              route_prefix: /
              deployments:
              - name: A
                rserve: {kind: exec, command: [./absent-program]}
            """))
        self.line(s, "absent-program")

    def test_unknown_deployment(self) -> None:
        s = self.start(self.write_app(HELLO, deployments="- {name: helo, num_replicas: 2}\n"))
        s.wait_apps("DEPLOY_FAILED")
        self.assertIn("Deployment 'helo' does not exist. Available: ['hello']",
                      s.app("app")["message"])

    def test_does_not_fit(self) -> None:
        s = self.start(self.write_app(HELLO, deployments="""\
            - name: hello
              ray_actor_options: {num_cpus: 1, num_gpus: 1}
            """), "--num-cpus", "1", "--num-gpus", "0")
        s.wait_rest()
        wait_until("the reason", lambda: "needs 1 GPU; node has 0" in str(s.details()))
        status = rserve("status", "--address", "http://127.0.0.1:%d" % s.dashboard).stdout
        self.assertIn("needs 1 GPU; node has 0", status)


class WithoutPython(ServeTest):
    def test_no_interpreter_on_path(self) -> None:
        self.write_app(HELLO)
        empty = os.path.join(self.folder, "empty")
        os.mkdir(empty)
        s = self.start(os.path.join(self.folder, "app.yaml"), env={"PATH": empty})
        s.wait_apps("DEPLOY_FAILED")
        self.assertIn("python3", s.app("app")["message"])


@unittest.skipUnless(os.path.exists(RSERVE), "no rserve")
class WrongWords(unittest.TestCase):
    cases = (
        (("rnu", "app.yaml"), "did you mean 'run'?"),
        (("run", "--num-cpu", "2", "app.yaml"), "did you mean '--num-cpus'?"),
        (("head", "--dashbord-port", "1"), "did you mean '--dashboard-port'?"),
        (("worker", "--adress", "x:1"), "did you mean '--address'?"),
        (("status", "--jsn"), "did you mean '--json'?"),
    )

    def test_nearest(self) -> None:
        for args, wanted in self.cases:
            with self.subTest(args=args):
                r = rserve(*args)
                self.assertEqual((r.returncode, r.stdout), (2, ""))
                self.assertEqual(len(r.stderr.splitlines()), 1, r.stderr)
                self.assertIn(wanted, r.stderr)


if __name__ == "__main__":
    main()
