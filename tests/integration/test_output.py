#!/usr/bin/env python3
"""What rserve prints, and what replicas print: on the terminal, in files, and on a full disk."""

import glob
import json
import os
import subprocess
import unittest

from harness import ServeTest, Server, main, wait_until

TALKER = """\
    import sys
    from ray import serve

    @serve.deployment
    class Talker:
        def __init__(self):
            print("constructed")

        def __call__(self, request):
            n = int(request.query_params.get("n", 1))
            for i in range(n):
                print("line %d" % i)
            print("to stderr", file=sys.stderr)
            return n

    app = Talker.bind()
    """


class Output(ServeTest):
    def log_files(self, s: Server) -> list:
        return glob.glob(os.path.join(s.state, "rserve", "*", "logs", "*.log"))

    def test_lines_of_replicas(self) -> None:
        s = self.serve_code(TALKER)
        s.call("/?n=2")
        replica = s.replicas("app", "Talker")[0]["replica_id"]
        s.wait_output("(app#Talker#%s) line 1" % replica)
        s.wait_output("(app#Talker#%s) to stderr" % replica)
        self.assertIn("(app#Talker#%s) constructed" % replica, s.output())
        path = s.replicas("app", "Talker")[0]["log_file_path"]
        wait_until("the file has it", lambda: "line 1" in self.read(path))
        self.assertIn("constructed", self.read(path))

    def read(self, path: str) -> str:
        with open(path, encoding="utf-8") as f:
            return f.read()

    def test_plain_lines_without_a_terminal(self) -> None:
        s = self.serve_code(TALKER)
        text = s.wait_output("ready: app")
        self.assertNotIn("\x1b", text)
        self.assertNotIn("\r", text)
        self.assertRegex(text, r"ready: app +http://127\.0\.0\.1:%d/ +1 deployment, 1 replica, "
                               r"\d+\.\d+ s" % s.port)

    def test_quiet(self) -> None:
        s = self.serve_code(TALKER, "-q")
        self.assertEqual(s.call().status, 200)
        self.assertNotIn("ready:", s.output())

    def test_json(self) -> None:
        s = self.serve_code(TALKER, "--log-format", "json")
        s.call("/?n=1")
        s.wait_output("line 0")
        lines = [json.loads(x) for x in s.output().splitlines()]
        self.assertTrue(lines)
        for line in lines:
            self.assertIsInstance(line, dict)

    def test_a_flood_is_bounded(self) -> None:
        s = self.serve_code(TALKER)
        self.assertEqual(s.call("/?n=300000").status, 200)
        self.assertEqual(s.call("/?n=1").status, 200)
        total = sum(os.path.getsize(p) for p in self.log_files(s))
        self.assertLess(total, 80 << 20)

    def test_full_disk_does_not_stop_serving(self) -> None:
        small = os.path.join(self.folder, "small")
        os.mkdir(small)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "rserve-test", small],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        if mounted.returncode != 0:
            self.skipTest("no tmpfs can be mounted here")
        self.addCleanup(subprocess.run, ["umount", "-l", small], check=False)
        s = self.serve_code(TALKER, env={"XDG_STATE_HOME": small})
        with open(os.path.join(small, "filler"), "wb", buffering=0) as f:
            try:
                while True:
                    f.write(b"x" * 4096)
            except OSError:
                pass
        for _ in range(20):
            self.assertEqual(s.call("/?n=1000").status, 200)
        s.wait_output("No space left")
        warnings = [x for x in s.output().splitlines() if "No space left" in x]
        self.assertLessEqual(len(warnings), 3, "it says so once, not for each line")
        victim = sorted(s.pids("app", "Talker"))[0]
        os.kill(victim, 9)
        wait_until("a new replica starts all the same", lambda: s.pids("app", "Talker")
                   and victim not in s.pids("app", "Talker"))
        self.assertEqual(s.call().status, 200)

    @unittest.skipUnless(os.path.exists("/dev/full"), "no /dev/full")
    def test_standard_output_that_is_full(self) -> None:
        s = self.serve_code(TALKER, prefix=["sh", "-c", 'exec "$@" >/dev/full 2>&1', "sh"])
        for _ in range(5):
            self.assertEqual(s.call("/?n=100").status, 200)


if __name__ == "__main__":
    main()
