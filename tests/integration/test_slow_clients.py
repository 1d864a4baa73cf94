#!/usr/bin/env python3
"""Clients that take their time, by accident or to do harm: others are served meanwhile, memory
stays bounded, and what never becomes a request ends."""

import os
import re
import resource
import socket
import threading
import time
import unittest
from typing import Any, List

from harness import SLOW, Load, Server, ServeTest, call, main, wait_until
from raw_client import Cut, RawClient, held

REPLICA = os.environ.get("RSERVE_LOAD_REPLICA", "")


@unittest.skipUnless(REPLICA, "the replica for load was not built")
class Slow(ServeTest):
    def load_app(self, *args: str, prefix: Any = None, **deployment: Any) -> Server:
        options = dict({"num_replicas": 1, "max_ongoing_requests": 8}, **deployment)
        path = self.write("app.yaml", """\
            applications:
            - name: app
              route_prefix: /
              deployments:
              - name: C
                num_replicas: %d
                max_ongoing_requests: %d
                rserve: {kind: exec, command: [%s, %s/log, "8"]}
            """ % (options["num_replicas"], options["max_ongoing_requests"], REPLICA,
                   self.folder))
        return self.serve(path, *args, prefix=prefix)

    def ongoing(self, s: Server) -> float:
        found = re.findall(r"(?m)^ray_serve_num_ongoing_http_requests\{[^}]*\} (\S+)$",
                           call(s.dashboard, "/metrics").text)
        return sum(float(x) for x in found)

    def test_a_header_in_drops(self) -> None:
        """For ever: 408, though the connection is never idle. What came before counts."""
        s = self.load_app("--header-timeout", "1")
        for before in (b"", b"GET /?id=a&n=5 HTTP/1.1\r\nHost: h\r\n\r\n"):
            c = RawClient(s.port)
            c.send(before)
            if before:
                self.assertEqual(c.reply().body, b"a|a|a")
            going = True

            def drip() -> None:
                c.send(b"GET / HTTP/1.1\r\n")
                while going:
                    c.send(b"x-a: b\r\n")
                    time.sleep(0.1)
            t = threading.Thread(target=drip, daemon=True)
            t.start()
            answer = c.reply()
            going = False
            t.join()
            self.assertEqual((answer.status, answer.close), (408, True), answer)
            self.assertIn("did not come in time", answer.body.decode())
            with self.assertRaises(Cut):
                c.reply()
        self.assertEqual(call(s.port, "/?id=b&n=3").text, "b|b")
        wait_until("nothing is left", lambda: self.ongoing(s) == 0)

    def test_many_headers_in_drops(self) -> None:
        """A crowd of them; who asks properly is answered as ever, and all are gone in the end."""
        s = self.load_app("--header-timeout", "3")
        base = held(s.pid)
        crowd: List[socket.socket] = []
        for _ in range(300):
            c = socket.create_connection(("127.0.0.1", s.port), timeout=20 * SLOW)
            c.sendall(b"POST /?id=x HTTP/1.1\r\nHost: h\r\nx-filler: " + b"y" * 1000)
            crowd.append(c)
        load = Load(s.port, "/?id=b&n=3", threads=3)
        load.wait(50)
        self.assertLess(held(s.pid).rss_kb - base.rss_kb, 300 * 40 if SLOW == 1 else 1 << 20)
        for c in crowd:
            data = b""
            while b"\r\n\r\n" not in data:
                part = c.recv(1000)
                self.assertTrue(part, data)
                data += part
            self.assertTrue(data.startswith(b"HTTP/1.1 408 "), data)
            c.close()
        self.assertEqual(set(load.stop()), {200})
        wait_until("their descriptors are back", lambda: held(s.pid).files <= base.files + 1)
        self.assertEqual(self.ongoing(s), 0)

    def test_half_a_request_and_gone(self) -> None:
        """Its end comes together with what was sent last: that must not be overlooked."""
        s = self.load_app()
        base = held(s.pid)
        for data in (b"GET /?id=1 HTTP/1.1\r\nHo", b"GE", b"\r\n",
                     b"POST /?id=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nhalf",
                     b"POST /?id=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3000000\r\n\r\n"
                     + b"h" * 2000000,
                     b"POST /?id=1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                     b"5\r\nab",
                     b"GET /?id=1&n=5 HTTP/1.1\r\nHost: h\r\n\r\nGET /?id=2&n=5 HTTP/1.1\r\nH",
                     b"GET /?id=1&n=5&ms=200 HTTP/1.1\r\nHost: h\r\n\r\n"):
            for _ in range(5):
                c = RawClient(s.port)
                c.send(data)
                c.close()
        wait_until("their descriptors are back", lambda: held(s.pid).files <= base.files + 1)
        wait_until("nothing is under way", lambda: self.ongoing(s) == 0)
        self.assertEqual(call(s.port, "/?id=b&n=3").text, "b|b")

    def test_bodies_in_drops_hold_no_slot(self) -> None:
        s = self.load_app(max_ongoing_requests=1)
        crowd = []
        for _ in range(50):
            c = RawClient(s.port)
            c.send(b"POST /?id=x HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nsome")
            crowd.append(c)
        wait_until("all are there", lambda: self.ongoing(s) == 50)
        for _ in range(20):
            self.assertEqual(call(s.port, "/?id=b&n=3").text, "b|b")
        for c in crowd:
            c.close()
        wait_until("nothing is under way", lambda: self.ongoing(s) == 0)

    def test_readers_that_do_not_read(self) -> None:
        """What waits for them is bounded by their credit, not by what they asked for."""
        s = self.load_app()
        crowd = []
        base = held(s.pid)
        for i in range(6):
            c = RawClient(s.port, receive_buffer=4096)
            c.send(b"GET /?id=%d&n=1000&chunks=2000000 HTTP/1.1\r\nHost: h\r\n\r\n" % i)
            crowd.append(c)
        wait_until("they wait", lambda: self.ongoing(s) == 6)
        s2 = Load(s.port, "/?id=b&n=3", threads=2)
        s2.wait(100)
        now = held(s.pid)
        self.assertEqual(set(s2.stop()), {200})
        self.assertLess(now.rss_kb - base.rss_kb, 6 * 2048, "kB")
        for c in crowd:
            c.close(reset=True)
        wait_until("nothing is under way", lambda: self.ongoing(s) == 0)

    def used(self, s: Server) -> float:
        """CPU seconds."""
        with open("/proc/%d/stat" % s.pid, encoding="utf-8") as f:
            ticks = f.read().rsplit(")", 1)[1].split()[11:13]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    def assertRests(self, s: Server) -> None:
        """It waits for better times, and does not ask for them all the time."""
        before = self.used(s)
        time.sleep(1)
        self.assertLess(self.used(s) - before, 0.4)

    def ask_all(self, crowd: List[RawClient]) -> None:
        for c in crowd:
            c.send(b"GET /?id=b&n=3 HTTP/1.1\r\nHost: h\r\n\r\n")
        for c in crowd:
            self.assertEqual(c.reply().body, b"b|b")

    def test_more_connections_than_descriptors(self) -> None:
        """Those that find no room wait until others leave; the rest of the node works."""
        s = self.load_app("--lanes", "2",
                          prefix=["sh", "-c", "ulimit -n 128; exec \"$@\"", "sh"])
        crowd = [RawClient(s.port) for _ in range(200)]
        s.wait_output("are open, the most for a lane")
        self.assertRests(s)
        self.assertEqual(s.rest().status, 200)
        self.assertNotIn("Too many open files", s.output())
        for c in crowd[:150]:
            c.close()
        self.ask_all(crowd[150:])
        self.assertEqual(call(s.port, "/?id=b&n=3").text, "b|b")
        for c in crowd[150:]:
            c.close()

    def test_no_descriptors_left(self) -> None:
        """It says so once, rests, and goes on when there are some, whoever gave them back."""
        s = self.load_app("--lanes", "2")
        limits = resource.prlimit(s.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(s.pid, resource.RLIMIT_NOFILE, (held(s.pid).files + 10, limits[1]))
        crowd = [RawClient(s.port) for _ in range(40)]
        s.wait_output("Too many open files")
        self.assertRests(s)
        self.assertLessEqual(s.output().count("connections have to wait"), 3)
        resource.prlimit(s.pid, resource.RLIMIT_NOFILE, limits)
        self.ask_all(crowd)  # though none has ended
        for c in crowd:
            c.close()

    def test_many_idle_connections(self) -> None:
        s = self.load_app()
        base = held(s.pid)
        crowd = [socket.create_connection(("127.0.0.1", s.port), timeout=20 * SLOW)
                 for _ in range(500)]
        for _ in range(20):
            self.assertEqual(call(s.port, "/?id=b&n=3").text, "b|b")
        wait_until("all are accepted", lambda: held(s.pid).files >= base.files + 490)
        grown = held(s.pid).rss_kb - base.rss_kb
        self.assertLess(grown, 500 * (20 if SLOW == 1 else 400), "kB")
        for c in crowd:
            c.close()
        wait_until("their descriptors are back", lambda: held(s.pid).files <= base.files + 1)


if __name__ == "__main__":
    main()
