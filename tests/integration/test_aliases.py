#!/usr/bin/env python3
"""The names people type: links to rserve, and its group `serve`."""

import json
import os
import pty
import signal
import subprocess

from aliases import ONE, AliasTest
from harness import RSERVE, SLOW, Server, free_port, main, wait_until

class Links(AliasTest):
    def link(self, name: str) -> str:
        return os.path.join(self.bin, name)

    def test_they_are_made_once(self) -> None:
        first = self.assertDone(self.cmd("install-links", self.bin))
        for name in ("ray", "serve"):
            self.assertEqual(os.path.realpath(self.link(name)), os.path.realpath(RSERVE))
            self.assertIn("%s -> " % self.link(name), first)
        again = self.assertDone(self.cmd("install-links", self.bin))
        self.assertEqual(again.count("was there already"), 2)

    def test_another_program_is_not_replaced(self) -> None:
        self.write("bin/serve", "#!/bin/sh\n", 0o755)
        r = self.cmd("install-links", self.bin)
        self.assertEqual((r.returncode, r.stdout), (1, ""))
        self.assertOneLine(r.stderr, self.link("serve"), "another program", "--force")
        self.assertEqual(os.listdir(self.bin), ["serve"])
        self.assertIn("replaced", self.assertDone(self.cmd("install-links", "--force", self.bin)))
        self.assertTrue(os.path.islink(self.link("serve")))

    def test_a_link_to_something_else_is_named(self) -> None:
        os.symlink("/bin/true", self.link("serve"))
        r = self.cmd("install-links", self.bin)
        self.assertEqual(r.returncode, 1)
        self.assertOneLine(r.stderr, "a link to /bin/true")

    def test_a_folder_is_never_replaced(self) -> None:
        os.mkdir(self.link("serve"))
        r = self.cmd("install-links", "--force", self.bin)
        self.assertEqual(r.returncode, 1)
        self.assertOneLine(r.stderr, "is a folder")

    def test_no_folder(self) -> None:
        r = self.cmd("install-links", os.path.join(self.folder, "absent"))
        self.assertEqual(r.returncode, 1)
        self.assertOneLine(r.stderr, "absent", "No such file")

    def test_a_link_answers_as_its_name_says(self) -> None:
        self.assertDone(self.cmd("install-links", self.bin))
        serve = self.link("serve")
        self.assertIn("Usage: rserve serve VERB", self.assertDone(self.cmd("--help",
                                                                           program=serve)))
        self.assertTrue(self.assertDone(self.cmd("--version", program=serve))
                        .startswith("serve, version 2."))
        for args in (["--help"], ["deploy", "--help"]):
            self.assertEqual(self.assertDone(self.cmd(*args, program=serve)),
                             self.assertDone(self.cmd("serve", *args)))
        r = self.cmd("depoly", program=serve)
        self.assertEqual(r.returncode, 2)
        self.assertOneLine(r.stderr, "serve: unknown verb 'depoly'; did you mean 'deploy'?")
        self.assertEqual(self.cmd(program=serve).returncode, 2)


class Nobody(AliasTest):
    """Nothing runs."""

    def test_one_line_says_what_was_tried(self) -> None:
        address = "http://127.0.0.1:%d" % free_port()
        self.write("served.py", ONE)
        config = self.write_app(ONE)
        for args in (["status"], ["config"], ["shutdown", "-y"], ["controller-health"],
                     ["deploy", config], ["deploy", "served:app"]):
            with self.subTest(args=args):
                r = self.cmd("serve", *args, "-a", address)
                self.assertEqual((r.returncode, r.stdout), (1, ""))
                self.assertOneLine(r.stderr, "serve %s: nothing answers on %s" % (args[0], address),
                                   "--address", "start it with")

    def test_where_the_address_is_from(self) -> None:
        here = "http://127.0.0.1:%d" % free_port()
        for name in ("RAY_DASHBOARD_ADDRESS", "RSERVE_ADDRESS", "RAY_ADDRESS"):
            r = self.cmd("serve", "status", **{name: here})
            self.assertEqual(r.returncode, 1)
            self.assertOneLine(r.stderr, here, "$" + name)

    def test_addresses_that_are_none(self) -> None:
        for address in ("ray://127.0.0.1:10001", "ftp://x"):
            r = self.cmd("serve", "status", "-a", address)
            self.assertEqual(r.returncode, 2)
            self.assertOneLine(r.stderr, "expected the address of the REST API", address)


class Instance(AliasTest):
    """Against a head that runs."""

    def test_deploy_status_config_shutdown(self) -> None:
        config = self.write_app(ONE, deployments="""
            - name: One
              num_replicas: 2
            """)
        head = self.empty_head()
        # found without an address: it is the head of this user on this machine
        self.assertEqual(self.assertDone(self.cmd("serve", "config")),
                         "No configuration was found.\n")
        out = self.assertDone(self.cmd("serve", "deploy", config))
        self.assertIn("Sent deploy request successfully.", out)
        self.assertIn("`serve status`", out)
        head.wait_apps()
        self.assertEqual(head.call("/").text, "one")
        status = self.assertDone(self.cmd("serve", "status"))
        for line in ("proxies:", "  app:", "    status: RUNNING", "          RUNNING: 2",
                     "target_capacity: null"):
            self.assertIn(line + "\n", status)
        one = self.assertDone(self.cmd("serve", "status", "-n", "app"))
        self.assertTrue(one.startswith("status: RUNNING\n"), one)
        text = self.assertDone(self.cmd("serve", "config"))
        self.assertIn("import_path: served:app\n", text)
        self.assertEqual(text, self.assertDone(self.cmd("serve", "config", "--name", "app")))
        health = self.assertDone(self.cmd("serve", "controller-health", "--json"))
        self.assertIsInstance(json.loads(health), dict)
        out = self.assertDone(self.cmd("serve", "shutdown", "-y"))
        self.assertEqual(out, "Sent shutdown request; applications will be deleted "
                              "asynchronously.\n")
        wait_until("they are deleted", lambda: not head.details()["applications"])
        self.assertIn("applications: {}", self.assertDone(self.cmd("serve", "status")))

    def test_what_is_not_there(self) -> None:
        self.empty_head()
        r = self.cmd("serve", "status", "-n", "absent")
        self.assertEqual((r.returncode, r.stdout), (0, ""))  # as Ray; see docs/differences.md
        self.assertOneLine(r.stderr, 'Application "absent" does not exist.')
        r = self.cmd("serve", "config", "-n", "absent")
        self.assertEqual((r.returncode, r.stdout), (1, ""))
        self.assertOneLine(r.stderr, 'No config has been deployed for application "absent".')
        r = self.cmd("serve", "deploy", "absent.yaml")
        self.assertEqual((r.returncode, r.stdout), (1, ""))
        self.assertOneLine(r.stderr, "absent.yaml: cannot be read: No such file or directory")

    def test_import_path_with_arguments(self) -> None:
        self.write("served.py", ONE)
        head = self.empty_head()
        self.assertDone(self.cmd("serve", "deploy", "served:build", "word=two", "--name", "mine",
                                 "--runtime-env-json", '{"env_vars": {"A": "1"}}'))
        head.wait_apps({"mine": "RUNNING"})
        self.assertEqual(head.call("/").text, "two")
        self.assertIn("A: '1'", self.assertDone(self.cmd("serve", "config")))

    def test_what_is_refused(self) -> None:
        self.write("served.py", ONE)
        garbage = self.write("garbage.yaml", "applications: [\n")
        schema = self.write("schema.yaml", "applications: [{name: 3, import_path: 4}]\n")
        head = self.empty_head()
        cases = ((["served:build", "word"], 2, "must be of the form '<key>=<val>'"),
                 ([garbage], 1, "garbage.yaml:2"),
                 ([schema], 1, "schema.yaml:1"),
                 (["served:app", "--runtime-env-json", "{", ], 2, "--runtime-env-json"),
                 (["served:app", "--runtime-env-json", "[]", ], 2, "expected a mapping"),
                 (["served:app", "--runtime-env", "absent.yaml"], 1, "absent.yaml"),
                 (["served:app", "--working-dir", "absent"], 1, "absent"),
                 (["served:app", "--runtime-env", "a", "--runtime-env-json", "{}"], 2, "Only one"),
                 (["served"], 2, "module:app"))
        for args, status, text in cases:
            with self.subTest(args=args):
                r = self.cmd("serve", "deploy", *args)
                self.assertEqual((r.returncode, r.stdout), (status, ""), r.stderr)
                self.assertIn(text, r.stderr)
                self.assertNotIn("Traceback", r.stderr)
        self.assertEqual(head.details()["applications"], {})

    def test_head_killed_before_the_deploy(self) -> None:
        config = self.write_app(ONE)
        head = self.empty_head()
        address = "http://127.0.0.1:%d" % head.dashboard
        head.send(signal.SIGKILL)
        head.wait_exit()
        r = self.cmd("serve", "deploy", config, "-a", address)
        self.assertEqual(r.returncode, 1)
        self.assertOneLine(r.stderr, "nothing answers on " + address)
        # what it left is not taken for a running one
        r = self.cmd("serve", "status")
        self.assertNotIn(address, r.stdout + r.stderr)
        self.assertEqual(self.instances("head"), [])

    def test_head_killed_during_the_deploy(self) -> None:
        config = self.write_app(ONE)
        head = self.empty_head()
        os.kill(head.control_pid(), signal.SIGSTOP)  # it says nothing
        deploy = subprocess.Popen([RSERVE, "serve", "deploy", config], env=self.env(),
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  universal_newlines=True)
        self.addCleanup(deploy.kill)
        wait_until("it waits for the answer", lambda: self.has_connection(deploy.pid))
        head.send(signal.SIGKILL)
        out, err = deploy.communicate(timeout=30 * SLOW)
        self.assertEqual((deploy.returncode, out), (1, ""))
        self.assertOneLine(err, "serve deploy: ")

    def has_connection(self, pid: int) -> bool:
        fds = "/proc/%d/fd" % pid
        return any(os.readlink(os.path.join(fds, fd)).startswith("socket:")
                   for fd in os.listdir(fds) if os.path.lexists(os.path.join(fds, fd)))


class Prompt(AliasTest):
    """`serve shutdown` asks."""

    def ask(self, head: Server) -> "subprocess.Popen[bytes]":
        own, other = pty.openpty()
        self.addCleanup(os.close, own)
        process = subprocess.Popen([RSERVE, "serve", "shutdown"], env=self.env(), stdin=other,
                                   stdout=other, stderr=subprocess.PIPE, start_new_session=True)
        os.close(other)
        assert process.stderr
        self.addCleanup(process.stderr.close)
        text = b""
        while b"[y/N]: " not in text:
            text += os.read(own, 1000)
        self.assertIn(b"http://127.0.0.1:%d" % head.dashboard, text)
        self.own = own
        return process

    def running_head(self) -> Server:
        self.write("served.py", ONE)
        head = self.empty_head()
        self.assertDone(self.cmd("serve", "deploy", "served:app"))
        head.wait_apps()
        return head

    def test_yes(self) -> None:
        head = self.running_head()
        process = self.ask(head)
        os.write(self.own, b"y\n")
        self.assertEqual(process.wait(20 * SLOW), 0)
        wait_until("they are deleted", lambda: not head.details()["applications"])

    def test_no_end_of_input_and_interrupt(self) -> None:
        head = self.running_head()
        for answer in (b"n\n", b"\n", b"\x04", signal.SIGINT):
            with self.subTest(answer=answer):
                process = self.ask(head)
                if isinstance(answer, bytes):
                    os.write(self.own, answer)
                else:
                    process.send_signal(answer)
                self.assertEqual(process.wait(20 * SLOW), 1)
                assert process.stderr
                self.assertEqual(process.stderr.read(), b"Aborted!\n")
        self.assertEqual(head.app("default")["status"], "RUNNING")

    def test_no_terminal(self) -> None:
        self.running_head()
        r = self.cmd("serve", "shutdown")
        self.assertEqual((r.returncode, r.stderr), (1, "Aborted!\n"))
        self.assertDone(self.cmd("serve", "shutdown", stdin="yes\n"))


class Build(AliasTest):
    def test_the_file_serves(self) -> None:
        self.write("served.py", "print('imported')\n" + "\n".join(
            line[4:] for line in ONE.splitlines()))
        r = self.cmd("serve", "build", "served:app", "-o", "out.yaml",
                     "--grpc-servicer-functions", "a.b", "--grpc-disable-reflection")
        self.assertEqual((r.returncode, r.stdout), (0, ""), r.stderr)
        self.assertIn("imported", r.stderr)
        with open(os.path.join(self.folder, "out.yaml"), encoding="utf-8") as f:
            text = f.read()
        self.assertTrue(text.startswith("# This file was generated using the `serve build` "))
        self.assertIn("  - a.b\n  enable_reflection: false\n", text)
        server = self.serve(os.path.join(self.folder, "out.yaml"))
        self.assertEqual(server.call("/").text, "one")

    def test_app_dir(self) -> None:
        self.write("deep/served.py", ONE)
        out = self.assertDone(self.cmd("serve", "build", "-d", "deep", "served:app"))
        self.assertIn("import_path: served:app\n", out)

    def test_what_cannot_be_built(self) -> None:
        self.write("served.py", ONE)
        self.write("exits.py", "import os\nos._exit(7)\n")
        self.write("raises.py", "raise RuntimeError('at import')\n")
        cases = ((["served:absent"], 1, "no attribute 'absent'"),
                 (["absent:app"], 1, "no module named 'absent'"),
                 (["served:build"], 1, "builder"),
                 (["exits:app"], 1, "exited with status 7"),
                 (["raises:app"], 1, "at import"),
                 (["served:app", "--python", "no-such-python"], 1, "no-such-python"),
                 (["served:app", "-o", "out.txt"], 2, ".yaml"),
                 (["served:app", "-o", "absent/out.yaml"], 1, "absent/out.yaml"),
                 ([], 2, "IMPORT_PATH"))
        for args, status, text in cases:
            with self.subTest(args=args):
                r = self.cmd("serve", "build", *args)
                self.assertEqual((r.returncode, r.stdout), (status, ""), r.stderr)
                self.assertIn(text, r.stderr)


if __name__ == "__main__":
    main()
