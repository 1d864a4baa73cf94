#!/usr/bin/env python3
"""`rserve deploy` and `rserve delete` change what runs, and tell what comes of it."""

import os
import signal
import subprocess
import threading
from typing import Any

from harness import RSERVE, Load, Server, ServeTest, call, main, rserve, wait_until

CODE = '''
import asyncio, os, sys
from ray import serve

@serve.deployment(ray_actor_options={"num_cpus": 0.1}, graceful_shutdown_wait_loop_s=0.05)
class A:
    def __init__(self):
        if os.path.exists(os.path.join(os.path.dirname(__file__), "broken")):
            raise RuntimeError("no weights in the model's folder")
    async def __call__(self, request):
        await asyncio.sleep(float(request.query_params.get("s", 0)))
        return os.environ.get("WORD", "one")

app = A.bind()
'''

APP = """\
- name: {0}
  route_prefix: /{2}
  import_path: served:app
  runtime_env: {{env_vars: {{WORD: {1}}}}}
"""


class Deploy(ServeTest):
    def setUp(self) -> None:
        super().setUp()
        self.write("served.py", CODE)

    def file(self, name: str, *apps: str) -> str:
        words = [a.split("=") if "=" in a else (a, "one") for a in apps]
        return self.write(name, "applications:\n" + "".join(
            APP.format(n, word, n.replace(" ", "_")) for n, word in words))

    def started(self) -> Server:
        return self.serve(self.file("first.yaml", "a"))

    def cmd(self, s: Server, *args: str, timeout: float = 60) -> "subprocess.CompletedProcess[str]":
        return rserve(*args, timeout=timeout,
                      env={"RSERVE_ADDRESS": "http://127.0.0.1:%d" % s.dashboard})

    def done(self, s: Server, *args: str) -> str:
        done = self.cmd(s, *args)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        return done.stdout

    def test_deploy(self) -> None:
        s = self.started()
        pids = s.pids("a", "A")
        told = self.done(s, "deploy", self.file("two.yaml", "a", "b=two"))
        self.assertIn("ready: b  http://127.0.0.1:%d/b  1 deployment, 1 replica" % s.port, told)
        self.assertEqual(s.call("/b").text, "two")
        self.assertEqual(s.pids("a", "A"), pids)  # what did not change is left alone
        self.assertEqual(self.done(s, "deploy", "-q", self.file("two.yaml", "a", "b=two")), "")
        self.assertEqual(s.pids("a", "A"), pids)
        # another one beside them, and then it alone
        self.done(s, "deploy", "--add", self.file("c.yaml", "c=three"))
        self.assertEqual([s.call("/" + n).text for n in "abc"], ["one", "two", "three"])
        self.done(s, "deploy", self.file("c.yaml", "c=four"))
        self.assertEqual(s.call("/c").text, "four")
        self.assertEqual(list(s.details()["applications"]), ["c"])
        self.done(s, "deploy", "--no-wait", "served:app", "--name=d", "--route-prefix=/d",
                  "--app-dir", self.folder)
        wait_until("it answers", lambda: s.call("/d").text == "one")

    def test_failures(self) -> None:
        """The version before goes on; what is wrong is said, and in the exit status."""
        s = self.started()
        load = Load(s.port, "/a")
        self.write("broken", "")
        done = self.cmd(s, "deploy", self.file("next.yaml", "a=two"))
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("no weights in the model's folder", done.stdout)
        load.wait(20)
        self.assertEqual(set(load.stop()), {200})
        self.assertEqual({text for _, text in load.results}, {"one"})
        os.remove(os.path.join(self.folder, "broken"))
        self.done(s, "deploy", self.file("next.yaml", "a=three"))
        self.assertEqual(s.call("/a").text, "three")
        # nothing of a file that is wrong is deployed
        path = self.write("wrong.yaml", "applications:\n- {name: b, import_path: 'served:app', "
                          "route_prefix: b}\n")
        done = self.cmd(s, "deploy", path)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertRegex(done.stderr, r"wrong\.yaml:2:\d+: .*route_prefix")
        self.assertEqual(list(s.details()["applications"]), ["a"])
        done = self.cmd(s, "deploy", os.path.join(self.folder, "absent.yaml"))
        self.assertEqual(done.returncode, 2, done.stderr)

    def test_nothing_runs(self) -> None:
        done = rserve("deploy", self.file("first.yaml", "a"), "--address",
                      "http://127.0.0.1:1")
        self.assertEqual(done.returncode, 1)
        self.assertIn("nothing answers on http://127.0.0.1:1", done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1)

    def test_dies_meanwhile(self) -> None:
        s = self.started()
        path = self.write("slow.yaml", "applications:\n- {name: s, import_path: 'slow:app'}\n")
        self.write("slow.py", "import time\ntime.sleep(600)\n")
        got: Any = []
        t = threading.Thread(target=lambda: got.append(self.cmd(s, "deploy", path)))
        t.start()
        wait_until("it is under way", lambda: "s" in s.details()["applications"])
        s.send(signal.SIGKILL)
        t.join(60)
        self.assertEqual(got[0].returncode, 1)
        # it asks again and again: the end may come before, or in the middle of an answer
        self.assertRegex(got[0].stderr, "nothing answers on|the answer of|closed the connection")
        self.assertIn("127.0.0.1:%d" % s.dashboard, got[0].stderr)
        self.assertEqual(len(got[0].stderr.splitlines()), 1, got[0].stderr)

    def test_delete(self) -> None:
        s = self.serve(self.file("three.yaml", "a", "b", "c c"))
        slow: Any = []
        t = threading.Thread(target=lambda: slow.append(call(s.port, "/a?s=1")))
        t.start()
        wait_until("it is at work", lambda: any(
            r["rserve"]["in_flight"] for r in s.rest(
                path="/api/serve/applications/?extended=1").json()["applications"]["a"][
                    "deployments"]["A"]["replicas"]))
        self.assertIn("a: deleted", self.done(s, "delete", "a"))
        t.join(60)
        self.assertEqual((slow[0].status, slow[0].text), (200, "one"))  # it was finished first
        self.assertEqual(s.call("/a").status, 404)
        again = self.cmd(s, "delete", "a")
        self.assertEqual(again.returncode, 1)
        self.assertIn("there is no application 'a'", again.stderr)
        self.done(s, "delete", "c c")
        self.assertEqual(list(s.details()["applications"]), ["b"])
        for args in (("delete",), ("delete", "b", "--all")):
            self.assertEqual(self.cmd(s, *args).returncode, 2)
        self.done(s, "delete", "--all", "--quiet")
        self.assertEqual(s.details()["applications"], {})
        self.assertEqual(self.done(s, "delete", "--all"), "")


if __name__ == "__main__":
    assert RSERVE
    main()
