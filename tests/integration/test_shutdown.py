#!/usr/bin/env python3
"""How rserve ends: it drains and says what it waits for, or stops now, and leaves no process."""

import os
import signal
import threading
import time
from typing import List

from harness import (Answer, ServeTest, Server, call, descendants, main, still_runs, wait_until)

SLEEPER = """\
    import asyncio, os, subprocess
    from ray import serve

    @serve.deployment(num_replicas=2, graceful_shutdown_timeout_s=20)
    class Sleeper:
        def __init__(self):
            self.child = subprocess.Popen(["sleep", "1000"])

        async def __call__(self, request):
            await asyncio.sleep(float(request.query_params.get("s", 0)))
            return {"pid": os.getpid()}

        def __del__(self):
            with open(os.path.join(os.path.dirname(__file__), "goodbye"), "a") as f:
                f.write("bye\\n")

    app = Sleeper.bind()
    """


class Shutdown(ServeTest):
    def sleep_in_background(self, s: Server, seconds: float) -> "tuple":
        answers: List[Answer] = []

        def ask() -> None:
            try:
                answers.append(call(s.port, "/?s=%g" % seconds, timeout=40))
            except OSError:
                pass
        t = threading.Thread(target=ask, daemon=True)
        t.start()
        wait_until("the request runs", lambda: self.in_flight(s) == 1)
        return t, answers

    def in_flight(self, s: Server) -> int:
        total = 0.0
        for line in s.rest(path="/metrics").text.splitlines():
            if line.startswith("ray_serve_replica_processing_queries{"):
                total += float(line.rsplit(" ", 1)[1])
        return int(total)

    def assertNothingLeft(self, family: list) -> None:
        wait_until("every process is gone", lambda: not any(still_runs(p) for p in family), 10)

    def test_ctrl_c_drains(self) -> None:
        s = self.serve_code(SLEEPER, "--num-cpus", "2")
        family = descendants(s.pid)
        t, answers = self.sleep_in_background(s, 1.5)
        s.send(signal.SIGINT)
        s.wait_output("waiting for 1 request")
        self.assertRaises(OSError, call, s.port, "/", timeout=2)
        t.join(20)
        self.assertEqual([a.status for a in answers], [200])
        self.assertEqual(s.wait_exit(), 0)
        self.assertNothingLeft(family)
        with open(os.path.join(self.folder, "goodbye"), encoding="utf-8") as f:
            self.assertEqual(f.read(), "bye\n" * 2, "__del__ ran in both replicas")

    def test_second_ctrl_c_stops_now(self) -> None:
        s = self.serve_code(SLEEPER, "--num-cpus", "2")
        family = descendants(s.pid)
        self.sleep_in_background(s, 30)
        s.send(signal.SIGINT)
        s.wait_output("waiting for 1 request")
        began = time.monotonic()
        s.send(signal.SIGINT)
        s.wait_exit(5)
        self.assertLess(time.monotonic() - began, 4)
        self.assertNothingLeft(family)

    def test_sigterm_drains_too(self) -> None:
        s = self.serve_code(SLEEPER, "--num-cpus", "2")
        t, answers = self.sleep_in_background(s, 1)
        s.send(signal.SIGTERM)
        t.join(20)
        self.assertEqual([a.status for a in answers], [200])
        self.assertEqual(s.wait_exit(), 0)

    def test_idle_stop_is_quick(self) -> None:
        s = self.serve_code(SLEEPER, "--num-cpus", "2")
        began = time.monotonic()
        self.assertEqual(s.stop(), 0)
        self.assertLess(time.monotonic() - began, 5)

    def test_kill_9_leaves_nothing(self) -> None:
        s = self.serve_code(SLEEPER, "--num-cpus", "2")
        family = descendants(s.pid)
        self.assertGreaterEqual(len(family), 4)  # two replicas and the child of each
        s.send(signal.SIGKILL)
        s.wait_exit()
        self.assertNothingLeft(family)

    def test_kill_9_while_starting(self) -> None:
        s = self.start(self.write_app("import time\ntime.sleep(60)\n"))
        wait_until("the module is imported", lambda: descendants(s.pid))
        s.wait_rest()
        family = descendants(s.pid)
        s.send(signal.SIGKILL)
        s.wait_exit()
        self.assertNothingLeft(family)

    def test_ctrl_c_while_starting(self) -> None:
        s = self.start(self.write_app("import time\ntime.sleep(60)\n"))
        s.wait_rest()
        wait_until("the module is imported", lambda: descendants(s.pid))
        family = descendants(s.pid)
        s.send(signal.SIGINT)
        s.wait_exit(10)
        self.assertNothingLeft(family)

    def test_stubborn_replica_is_killed(self) -> None:
        s = self.serve_code("""\
            import signal, time
            from ray import serve

            @serve.deployment(graceful_shutdown_timeout_s=1)
            class Stubborn:
                def __init__(self):
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)

                def __call__(self, request):
                    return "here"

                def __del__(self):
                    time.sleep(60)

            app = Stubborn.bind()
            """)
        self.assertEqual(s.call().text, "here")
        family = descendants(s.pid)
        s.send(signal.SIGINT)
        s.wait_exit(15)
        self.assertNothingLeft(family)


if __name__ == "__main__":
    main()
