#!/usr/bin/env python3
"""Clients of every sort: many, slow, half open, gone, very large."""

import hashlib
import http.client
import os
import resource
import socket
import threading
import time
from typing import List

from harness import SLOW, ServeTest, call, main, wait_until

ECHO = """\
    import asyncio, hashlib
    from ray import serve

    running = []

    @serve.deployment(max_ongoing_requests=100)
    class Echo:
        async def __call__(self, request):
            path = request.url.path
            if path == "/digest":
                body = await request.body()
                return {"length": len(body), "sha256": hashlib.sha256(body).hexdigest()}
            if path == "/stream":
                n, digest = 0, hashlib.sha256()
                async for part in request.stream():
                    n += len(part)
                    digest.update(part)
                return {"length": n, "sha256": digest.hexdigest()}
            if path == "/running":
                return running
            if path == "/sleep":
                running.append("in")
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    running.append("cancelled")
                    raise
            return {"path": path}

    app = Echo.bind()
    """


class Clients(ServeTest):
    def test_thousand_connections(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard < 4096:
            self.skipTest("at most %d open files are permitted" % hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
        s = self.serve_code(ECHO)
        request = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
        conns: List[socket.socket] = []
        try:
            for _ in range(1000):
                conns.append(socket.create_connection(("127.0.0.1", s.port), timeout=20 * SLOW))
            for turn in range(2):  # all of them stay open, and answer again
                for c in conns:
                    c.sendall(request)
                for c in conns:
                    self.assertIn(b'{"path":"/x"}', self.read_answer(c), turn)
        finally:
            for c in conns:
                c.close()
        self.assertEqual(s.call("/after").status, 200)

    def read_answer(self, c: socket.socket) -> bytes:
        data = b""
        while b"}" not in data:
            part = c.recv(65536)
            if not part:
                raise AssertionError("closed after %r" % data)
            data += part
        self.assertTrue(data.startswith(b"HTTP/1.1 200 OK\r\n"), data)
        return data

    def test_body_of_100_mb(self) -> None:
        s = self.serve_code(ECHO)
        block, blocks = os.urandom(1 << 20), 100
        whole = hashlib.sha256()
        for _ in range(blocks):
            whole.update(block)
        wanted = {"length": blocks << 20, "sha256": whole.hexdigest()}
        for path in ("/stream", "/digest"):
            conn = http.client.HTTPConnection("127.0.0.1", s.port, timeout=25 * SLOW)
            conn.putrequest("POST", path)
            conn.putheader("content-length", str(blocks << 20))
            conn.endheaders()
            for _ in range(blocks):
                conn.send(block)
            r = conn.getresponse()
            import json
            self.assertEqual((r.status, json.loads(r.read())), (200, wanted), path)
            conn.close()
        with open("/proc/%d/status" % s.pid, encoding="utf-8") as f:
            peak = [int(x.split()[1]) for x in f if x.startswith("VmHWM")][0]
        self.assertLess(peak, 100 << 10 if SLOW == 1 else 1 << 20, "kB: it is passed on, not kept")

    def test_chunked_body(self) -> None:
        s = self.serve_code(ECHO)
        conn = http.client.HTTPConnection("127.0.0.1", s.port, timeout=20 * SLOW)
        conn.request("POST", "/digest", iter([b"one ", b"two ", b"x" * 300000]),
                     encode_chunked=True, headers={"transfer-encoding": "chunked"})
        body = b"one two " + b"x" * 300000
        import json
        self.assertEqual(json.loads(conn.getresponse().read()),
                         {"length": len(body), "sha256": hashlib.sha256(body).hexdigest()})
        conn.close()

    def test_half_open_clients_hold_nothing(self) -> None:
        """Requests that never finish, and clients that closed their half, do not block others."""
        s = self.serve_code(ECHO, deployments="- {name: Echo, max_ongoing_requests: 1}\n")
        started = (b"GET /x HTTP/1.1\r\nHost", b"POST /digest HTTP/1.1\r\nHost: h\r\n"
                   b"Content-Length: 100\r\n\r\nhalf", b"", b"POST /digest HTTP/1.1\r\nHost: h\r\n"
                   b"Transfer-Encoding: chunked\r\n\r\n5\r\nab")
        conns = []
        for text in started * 10:
            c = socket.create_connection(("127.0.0.1", s.port), timeout=20)
            c.sendall(text)
            conns.append(c)
        for _ in range(20):
            self.assertEqual(s.call("/x").status, 200)
        for c in conns:
            c.close()
        # who shuts down its half is taken for gone, as by uvicorn and nginx; its slot is free again
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", s.port), timeout=20 * SLOW) as c:
                c.sendall(b"GET /sleep HTTP/1.1\r\nHost: h\r\n\r\n")
                c.shutdown(socket.SHUT_WR)
                self.assertEqual(c.recv(65536), b"")
        self.assertEqual(s.call("/x").status, 200)

    def test_client_that_goes_cancels_the_work(self) -> None:
        s = self.serve_code(ECHO)
        c = socket.create_connection(("127.0.0.1", s.port), timeout=20)
        c.sendall(b"GET /sleep HTTP/1.1\r\nHost: h\r\n\r\n")
        wait_until("it runs", lambda: s.call("/running").json() == ["in"])
        c.close()
        wait_until("it is cancelled", lambda: s.call("/running").json() == ["in", "cancelled"])

    def test_refusals(self) -> None:
        s = self.serve_code(ECHO)
        cases = (
            (b"GET /x HTTP/1.1\r\nHost: h\r\nX: %s\r\n\r\n" % (b"a" * 200000), b" 431 "),
            (b"GET /x HTTP/1.1\r\nHost h\r\n\r\n", b" 400 "),
            (b"GET /x HTTP/1.1\r\n\r\n", b" 400 "),
            (b"GET /x HTTP/1.1\r\nHost: h\r\nContent-Length: abc\r\n\r\n", b" 400 "),
        )
        for text, wanted in cases:
            with self.subTest(wanted=wanted):
                with socket.create_connection(("127.0.0.1", s.port), timeout=10 * SLOW) as c:
                    try:
                        c.sendall(text)
                    except ConnectionError:
                        pass  # answered and closed before it was all sent
                    try:
                        first = c.recv(200).split(b"\r\n")[0]
                    except ConnectionResetError:
                        first = wanted  # refused, and the answer lost to what was still unread
                self.assertIn(wanted, first)
        self.assertEqual(s.call("/x").status, 200)

    def test_expect_continue(self) -> None:
        s = self.serve_code(ECHO)
        with socket.create_connection(("127.0.0.1", s.port), timeout=10 * SLOW) as c:
            c.sendall(b"POST /digest HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n"
                      b"Expect: 100-continue\r\n\r\n")
            self.assertTrue(c.recv(200).startswith(b"HTTP/1.1 100 "))
            c.sendall(b"ab")
            data = b""
            while b"}" not in data:
                data += c.recv(65536)
            self.assertIn(b'"length":2', data)

    def test_one_connection_many_requests(self) -> None:
        s = self.serve_code(ECHO)
        conn = http.client.HTTPConnection("127.0.0.1", s.port, timeout=20 * SLOW)
        conn.connect()
        sock = conn.sock
        for i in range(200):
            conn.request("GET", "/%d" % i)
            self.assertEqual(conn.getresponse().read(), b'{"path":"/%d"}' % i)
            self.assertIs(conn.sock, sock)
        conn.close()

    def test_slow_reader_gets_everything(self) -> None:
        s = self.serve_code("""\
            from ray import serve
            from starlette.responses import StreamingResponse

            @serve.deployment
            class Flood:
                async def parts(self):
                    for i in range(200):
                        yield b"%07d\\n" % i * 8192

                async def __call__(self, request):
                    return StreamingResponse(self.parts(), media_type="text/plain")

            app = Flood.bind()
            """)
        with socket.create_connection(("127.0.0.1", s.port), timeout=20 * SLOW) as c:
            c.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            time.sleep(0.5)  # nothing is read meanwhile: what is under way must stay bounded
            memory = []
            reader = threading.Thread(target=lambda: memory.append(self.drain(c)))
            reader.start()
            reader.join(20 * SLOW)
        self.assertGreaterEqual(memory[0], 200 * 8192 * 8)

    def drain(self, c: socket.socket) -> int:
        total = 0
        while True:
            part = c.recv(65536)
            if not part:
                return total
            total += len(part)


class Limits(ServeTest):
    def test_queue_is_exact(self) -> None:
        """max_ongoing_requests 2, max_queued_requests 3: of 10 at once, 5 are refused at once."""
        s = self.serve_code("""\
            import asyncio
            from ray import serve

            gate = asyncio.Event()
            peak = {"now": 0, "most": 0}

            @serve.deployment(max_ongoing_requests=2, max_queued_requests=3)
            class Gate:
                async def __call__(self, request):
                    peak["now"] += 1
                    peak["most"] = max(peak["most"], peak["now"])
                    await asyncio.sleep(1.5)
                    peak["now"] -= 1
                    return peak["most"]

            app = Gate.bind()
            """)
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(call(s.port)))
                   for _ in range(10)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(sorted(a.status for a in answers), [200] * 5 + [503] * 5)
        for a in answers:
            if a.status == 503:
                self.assertEqual(a.text, "Request dropped due to backpressure "
                                 "(num_queued_requests=3, max_queued_requests=3).")
                self.assertIn("retry-after", a.headers)
            else:
                self.assertLessEqual(a.json(), 2)


if __name__ == "__main__":
    main()
