"""What rserve does when there is nothing to do: nothing. No timer polls, no thread looks whether
there is something, and connections that only stay open take next to no memory."""

import http.client
import os
import time
import unittest
from typing import Dict, List

from harness import SLOW, Server, ServeTest, descendants, wait_until

APP = """\
    from ray import serve

    @serve.deployment(health_check_period_s=600)
    class Inner:
        async def __call__(self) -> str:
            return "inner"

    @serve.deployment(health_check_period_s=600)
    class Outer:
        def __init__(self, inner):
            self.inner = inner

        async def __call__(self, request) -> str:
            return await self.inner.remote()

    app = Outer.bind(Inner.bind())
    """
WINDOW_S = 3.0


def wakeups(server: Server) -> Dict[str, int]:
    """How often each thread of rserve and of what it started went to sleep so far."""
    found = {}
    for pid in [server.pid] + [p.pid for p in descendants(server.pid)]:
        for task in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/status" % (pid, task)) as f:
                fields = dict(line.split(":", 1) for line in f if ":" in line)
            found["%s %s" % (fields["Name"].strip(), task)] = int(
                fields["voluntary_ctxt_switches"])
    return found


def memory(pid: int) -> int:
    """Resident bytes that are its own."""
    with open("/proc/%d/smaps_rollup" % pid) as f:
        return sum(int(line.split()[1]) * 1024 for line in f if line.startswith("Private_"))


@unittest.skipIf(SLOW != 1, "a sanitizer has threads and memory of its own")
class Idle(ServeTest):
    def connect(self, s: Server, n: int) -> List[http.client.HTTPConnection]:
        held = []
        for _ in range(n):
            c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=20)
            c.request("GET", "/")
            self.assertEqual(c.getresponse().read(), b"inner")
            self.addCleanup(c.close)
            held.append(c)
        return held

    def test_nothing_wakes_up(self) -> None:
        s = self.serve_code(APP)
        self.connect(s, 20)
        last: Dict[str, int] = {}

        def is_quiet() -> bool:
            before = wakeups(s)
            time.sleep(WINDOW_S)
            after = wakeups(s)
            last.clear()
            last.update({k: v - before.get(k, 0) for k, v in after.items() if v != before.get(k)})
            return not last

        try:
            wait_until("%g s in which nothing wakes up" % WINDOW_S, is_quiet, timeout=60)
        except AssertionError as e:
            self.fail("%s: %s" % (e, last))
        self.assertEqual(s.call().text, "inner")  # and it wakes up when it is asked

    def test_idle_connections_take_little(self) -> None:
        s = self.serve_code(APP)
        few, many = 50, 1050
        held = self.connect(s, few)
        wait_until("memory at rest", lambda: self.is_steady(s), timeout=30)
        before = memory(s.pid)
        held += self.connect(s, many - few)
        # libmicrohttpd's own pools alone would be 32 KiB of each
        wait_until("under 3 KiB for each of %d connections" % (many - few),
                   lambda: memory(s.pid) - before < 3072 * (many - few), timeout=30)
        for c in held[::100]:  # those whose memory was given back are as good as new
            c.request("GET", "/")
            self.assertEqual(c.getresponse().read(), b"inner")

    @staticmethod
    def is_steady(s: Server) -> bool:
        before = memory(s.pid)
        time.sleep(0.5)
        return memory(s.pid) == before


if __name__ == "__main__":
    unittest.main()
