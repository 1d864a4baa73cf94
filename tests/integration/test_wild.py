#!/usr/bin/env python3
"""HTTP as it is in the wild: testdata/wild holds requests by the status that they deserve. What is
refused is answered, ends its connection, and reaches no replica, nor does what was hidden in it."""

import gzip
import json
import os
import re
import socket
import struct
import threading
from typing import Any, List, Tuple

from harness import SLOW, SOURCE, Server, ServeTest, main, wait_until

CORPUS = os.path.join(SOURCE, "testdata", "wild")

ECHO = """\
    from ray import serve
    from starlette.requests import Request

    seen = []

    @serve.deployment(max_ongoing_requests=100)
    class Echo:
        async def __call__(self, request: Request):
            if request.url.path == "/-seen":
                return seen
            body = await request.body()
            seen.append(request.method + " " + request.url.path)
            scope = request.scope
            def text(pairs):
                return [[k.decode("latin1"), v.decode("latin1")] for k, v in pairs]
            return {"method": request.method, "path": scope["path"],
                    "raw": scope["raw_path"].decode("latin1"),
                    "query": scope["query_string"].decode("latin1"),
                    "body": body.decode("latin1"), "headers": text(scope["headers"]),
                    "version": scope["http_version"], "client": scope["client"],
                    "scheme": scope["scheme"]}

    app = Echo.bind()
    """


def read(name: str) -> bytes:
    with open(os.path.join(CORPUS, name), "rb") as f:
        return f.read()


def answers(data: bytes) -> int:
    return len(re.findall(rb"HTTP/1\.1 \d\d\d ", data))


class Client:
    """A connection, and what of its answers was read but not used."""

    def __init__(self, s: Server) -> None:
        self.socket = socket.create_connection(("127.0.0.1", s.port), timeout=20 * SLOW)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.data = b""

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: Any) -> None:
        self.socket.close()

    def send(self, data: bytes, by_byte: bool = False) -> None:
        try:
            for i in range(len(data) if by_byte else 1):
                self.socket.sendall(data[i:i + 1] if by_byte else data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was refused before it was complete

    def more(self) -> bool:
        part = self.socket.recv(65536)
        self.data += part
        return bool(part)

    def rest(self) -> bytes:
        """All that comes until the connection ends."""
        while self.more():
            pass
        return self.data

    def answer(self) -> Tuple[int, bytes]:
        """The next one, those with 1xx left out."""
        while True:
            end = self.data.find(b"\r\n\r\n")
            if end < 0:
                if not self.more():
                    raise AssertionError("ended after %r" % self.data)
                continue
            head, self.data = self.data[:end].lower(), self.data[end + 4:]
            if not head.startswith(b"http/1.1 1"):
                break
        length = re.search(rb"\r\ncontent-length: *(\d+)", head)
        assert length, head
        n = int(length[1])
        while len(self.data) < n:
            if not self.more():
                raise AssertionError("ended after %r" % self.data)
        body, self.data = self.data[:n], self.data[n:]
        return int(head.split()[1]), body


class Wild(ServeTest):
    def check_refused(self, s: Server, name: str, by_byte: bool) -> None:
        with Client(s) as c:
            c.send(read(name), by_byte)
            data = c.rest()
        self.assertTrue(data.startswith(b"HTTP/1.1 %s " % name[:3].encode()), (name, data[:200]))
        self.assertEqual(answers(data), 1, (name, data))

    def test_refused(self) -> None:
        s = self.serve_code(ECHO)
        for name in sorted(os.listdir(CORPUS)):
            if name.startswith(("4", "5")) and not name.startswith("405"):
                with self.subTest(name):
                    self.check_refused(s, name, False)
                    if len(read(name)) < 1000:
                        self.check_refused(s, name, True)
        self.assertEqual(s.call("/-seen").json(), [])

    def test_refused_in_its_turn(self) -> None:
        """Good requests that came before it on the connection are served first."""
        s = self.serve_code(ECHO)
        good = b"POST /good HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
        for name in ("400-bare-lf-header", "400-chunk-too-short", "400-te-cl", "431-header-large",
                     "400-target-relative", "400-trailer-no-colon"):
            with self.subTest(name), Client(s) as c:
                c.send(good + good + read(name))
                for _ in range(2):
                    self.assertEqual(c.answer()[0], 200)
                data = c.rest()
                self.assertTrue(data.startswith(b"HTTP/1.1 %s " % name[:3].encode()), data)
                self.assertEqual(answers(data), 1, data)
        self.assertEqual(set(s.call("/-seen").json()), {"POST /good"})

    def test_accepted(self) -> None:
        s = self.serve_code(ECHO)
        for name in sorted(os.listdir(CORPUS)):
            data = read(name)
            if not name.startswith("200"):
                continue
            for by_byte in (False, True):
                with self.subTest(name, by_byte=by_byte), Client(s) as c:
                    c.send(data, by_byte)
                    self.assertEqual(c.answer()[0], 200)
                    if b"HTTP/1.0" in data and b"keep-alive" not in data:
                        self.assertEqual(c.rest(), b"")
                        continue
                    c.send(b"GET /second HTTP/1.1\r\nHost: x\r\n\r\n")
                    status, body = c.answer()
                    self.assertEqual((status, b'"/second"' in body), (200, True))
        with Client(s) as c:
            c.send(read("405-connect"))
            self.assertEqual(c.answer()[0], 405)

    def test_what_the_application_sees(self) -> None:
        """As uvicorn hands it over."""
        s = self.serve_code(ECHO)
        with Client(s) as c:
            c.send(b"POST http://y:1/a%20b/%2Fc/../d//e?x=%20&y=+ HTTP/1.1\r\nHost: h\r\n"
                   b"X-A: 1\r\nx-a:  2 \r\nCookie: a=b\r\nCookie: c=d\r\n"
                   b"Content-Length: 3\r\n\r\nabc")
            got = json.loads(c.answer()[1])
        self.assertEqual((got["method"], got["path"], got["raw"], got["query"], got["body"]),
                         ("POST", "/a b//c/../d//e", "/a%20b/%2Fc/../d//e", "x=%20&y=+", "abc"))
        self.assertEqual([h for h in got["headers"] if h[0] in ("host", "x-a", "cookie")],
                         [["host", "h"], ["x-a", "1"], ["x-a", "2"], ["cookie", "a=b"],
                          ["cookie", "c=d"]])
        self.assertEqual((got["version"], got["scheme"], got["client"][0]),
                         ("1.1", "http", "127.0.0.1"))

    def test_trailers_are_no_headers(self) -> None:
        s = self.serve_code(ECHO)
        with Client(s) as c:
            c.send(read("200-trailers"))
            status, body = c.answer()
        self.assertEqual((status, b"checksum" in body), (200, False))
        self.assertIn(b'"body":"hello"', body)

    def test_encodings_are_left_alone(self) -> None:
        """Nothing is packed or unpacked on the way, in either direction."""
        s = self.serve_code("""\
            import gzip
            from ray import serve
            from starlette.requests import Request
            from starlette.responses import Response

            @serve.deployment
            class Gzip:
                async def __call__(self, request: Request):
                    assert request.headers["accept-encoding"] == "gzip, br;q=0.5"
                    body = await request.body()
                    assert gzip.decompress(body) == b"hello" * 1000
                    return Response(body, headers={"content-encoding": "gzip"})

            app = Gzip.bind()
            """)
        packed = gzip.compress(b"hello" * 1000)
        answer = s.call("/", body=packed, headers={"content-encoding": "gzip",
                                                   "accept-encoding": "gzip, br;q=0.5"})
        self.assertEqual((answer.status, answer.headers["content-encoding"], answer.body),
                         (200, "gzip", packed))
        self.assertEqual(answer.headers["content-length"], str(len(packed)))

    def test_expect_continue(self) -> None:
        s = self.serve_code(ECHO)
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n"
        with Client(s) as c:
            c.send(head)
            while b"\r\n\r\n" not in c.data:
                self.assertTrue(c.more())
            self.assertTrue(c.data.startswith(b"HTTP/1.1 100 "), c.data)
            c.send(b"hello")
            self.assertEqual(c.answer()[0], 200)
        with Client(s) as c:  # told at once, before the body, and without 100
            c.send(b"POST / HTTP/1.1\r\nHost: x\r\nHost: y\r\nContent-Length: 5\r\n"
                   b"Expect: 100-continue\r\n\r\n")
            self.assertTrue(c.rest().startswith(b"HTTP/1.1 400 "))
        with Client(s) as c:  # an expectation that nobody knows is no obstacle, as under uvicorn
            c.send(b"GET / HTTP/1.1\r\nHost: x\r\nExpect: the-unexpected\r\n\r\n")
            self.assertEqual(c.answer()[0], 200)

    def test_other_upgrades_are_not_made(self) -> None:
        """The request is served as HTTP, and so is what follows on the connection."""
        s = self.serve_code(ECHO)
        upgrade = (b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n")
        for protocol in (b"h2c", b"TLS/1.0", b"websockets-not", b"foo/2, bar"):
            with self.subTest(protocol), Client(s) as c:
                c.send(upgrade % protocol)
                self.assertEqual(c.answer()[0], 200)
                c.send(b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n")
                self.assertIn(b'"/b"', c.answer()[1])

    def test_pipelining(self) -> None:
        """A hundred requests in one write, with and without bodies, are answered in order."""
        s = self.serve_code(ECHO)
        requests = b"".join(
            b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % i if i % 3 else
            b"POST /%d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n0\r\n\r\n" % i
            for i in range(100))
        with Client(s) as c:
            c.send(requests + b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            paths = re.findall(rb'"path":"/(\w+)"', c.rest())
        self.assertEqual(paths, [b"%d" % i for i in range(100)] + [b"last"])

    def test_answers_survive_what_is_not_read(self) -> None:
        """A client that goes on sending after it was refused still gets its answer."""
        s = self.serve_code(ECHO)
        for _ in range(20):
            with Client(s) as c:
                c.send(b"GET / HTTP/1.1\nHost: x\r\n\r\n" + b"x" * 200000)
                self.assertTrue(c.rest().startswith(b"HTTP/1.1 400 "))

    def test_refused_clients_that_stay_are_let_go(self) -> None:
        s = self.serve_code(ECHO)
        conns: List[Client] = []
        for _ in range(50):
            conns.append(Client(s))
            conns[-1].send(read("400-obs-fold"))
        for c in conns:  # answered and shut down on one side at once, dropped a little later
            self.assertTrue(c.rest().startswith(b"HTTP/1.1 400 "))
        fds = "/proc/%d/fd" % s.pid
        before = len(os.listdir(fds))
        for c in conns:
            c.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            c.socket.close()
        self.wait_until_fewer(fds, before)

    def wait_until_fewer(self, fds: str, before: int) -> None:
        wait_until("the descriptors are given back", lambda: len(os.listdir(fds)) <= before - 40
                   or len(os.listdir(fds)) < 60)

    def test_refused_under_load(self) -> None:
        """Refused and good requests from many sides at once: none is lost, none is mixed up."""
        s = self.serve_code(ECHO)
        failures: List[str] = []

        def good(n: int) -> None:
            with Client(s) as c:
                for i in range(50):
                    c.send(b"POST /%d-%d HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
                           b"body" % (n, i))
                    status, body = c.answer()
                    if status != 200 or b'"/%d-%d"' % (n, i) not in body:
                        failures.append("%s %r" % (status, body))

        def bad() -> None:
            for name in ("400-cl-te", "400-te-cl", "400-bare-lf-everywhere", "400-chunk-end-none"):
                for _ in range(5):
                    with Client(s) as c:
                        c.send(read(name))
                        if not c.rest().startswith(b"HTTP/1.1 400 "):
                            failures.append(name)

        threads = [threading.Thread(target=good, args=(n,)) for n in range(6)]
        threads += [threading.Thread(target=bad) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(failures, [])
        self.assertFalse([x for x in s.call("/-seen").json() if "smuggled" in x])


if __name__ == "__main__":
    main()
