#!/usr/bin/env python3
"""User code that blocks the event loop of its replica."""

import os
import threading

from harness import ServeTest, call, main, wait_until

CODE = '''
import os, time
from ray import serve

@serve.deployment(max_ongoing_requests=10, health_check_period_s=0.1)
class A:
    async def __call__(self, request):
        here = os.path.dirname(__file__)
        what = request.query_params.get("do", "")
        if what == "block":
            open(os.path.join(here, "blocked"), "w").close()
            while not os.path.exists(os.path.join(here, "go")):
                time.sleep(0.01)
        return os.getpid()

app = A.bind()
'''


class BlockedLoop(ServeTest):
    def begin(self, deployments: str):
        s = self.serve_code(CODE, deployments=deployments)
        pid = s.call().json()
        self.answers: list = []
        thread = threading.Thread(
            target=lambda: self.answers.append(
                call(s.port, "/?do=block", method="POST", timeout=60)),
            daemon=True)
        thread.start()
        self.addCleanup(thread.join, 30)
        wait_until("it is blocked", lambda: os.path.exists(os.path.join(self.folder, "blocked")))
        return s, pid

    def release(self) -> None:
        self.write("go", "")

    def test_it_is_healthy_within_its_timeout(self) -> None:
        s, pid = self.begin("- name: A\n  health_check_timeout_s: 30\n")
        # by then it was asked often; the line says who blocks, and where
        s.wait_output("the event loop has been blocked for")
        self.assertRegex(s.output(), r"in served\.py:\d+ \(__call__\)")
        self.assertEqual(s.pids("app", "A"), {pid})
        self.assertEqual(s.app("app")["status"], "RUNNING")
        self.release()
        wait_until("it goes on", lambda: self.answers)
        self.assertEqual([a.json() for a in self.answers], [pid])
        self.assertEqual(s.call().json(), pid)

    def test_it_is_replaced_after_its_timeout(self) -> None:
        s, pid = self.begin("- name: A\n  health_check_timeout_s: 0.5\n"
                            "  graceful_shutdown_timeout_s: 0.2\n")
        wait_until("another replica took its place", lambda: (
            lambda pids: len(pids) == 1 and pid not in pids)(s.pids("app", "A")))
        self.assertNotEqual(s.call().json(), pid)
        wait_until("the request ended", lambda: self.answers)
        self.assertEqual(self.answers[0].status, 502)
        self.assertIn("health check failed 3 times", self.answers[0].text)
        self.assertRegex(s.output(), r"health check failed 3 times: the event loop has been "
                         r"blocked for .* s in served\.py:\d+ \(__call__\)")

    def test_it_is_killed_when_it_does_not_stop(self) -> None:
        s, pid = self.begin("- name: A\n  graceful_shutdown_timeout_s: 0.3\n")
        self.assertEqual(s.stop(), 0)
        self.assertFalse(os.path.exists("/proc/%d" % pid))


if __name__ == "__main__":
    main()
