#!/usr/bin/env python3
"""Streams that are passed straight through: what a client sees is what it would see if every item
went through the outer replica, but none does."""

import http.client
import os
import signal
import socket
import unittest
from typing import Any, Dict, List

from harness import ServeTest, Server, main, wait_until

try:
    import fastapi  # noqa: F401
    HAS_FASTAPI = True
except ImportError:
    HAS_FASTAPI = False

INNER = '''
import asyncio, os
from typing import Any
from ray import serve
from ray.serve.handle import DeploymentResponseGenerator
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import StreamingResponse

HERE = os.path.dirname(__file__)

def note(text):
    with open(os.path.join(HERE, "notes"), "a") as f:
        f.write(text + chr(10))

def has(name):
    return os.path.exists(os.path.join(HERE, name))

async def until(name):
    while not has(name):
        await asyncio.sleep(0.01)

class Odd:
    pass

@serve.deployment(ray_actor_options={"num_cpus": 0.1}, max_ongoing_requests=10)
class Inner:
    def __init__(self):
        self.made = 0
    def pid(self):
        return os.getpid()
    def count(self):
        return self.made
    async def words(self):
        self.made = 0
        for item in ("one ", b"two ", "", "drei \\u00e4\\u00f6 ", "x" * 200, b"y" * 200000,
                     "z" * 300000, "\\U0001f600", b"\\xff\\x00", "end"):
            yield item
    def threaded(self):
        for i in range(100):
            yield "%d " % i
    async def late_odd(self):
        yield "before "
        yield Odd()
        yield "after"
    async def surrogate(self):
        yield "before "
        yield "\\ud800"
    async def fails(self, after):
        for i in range(after):
            yield "%d " % i
        raise ValueError("as it was told")
    async def slowly(self):
        yield "first"
        await until("go")
        yield " second"
    async def forever(self):
        try:
            note("began")
            while True:
                yield "tick"
                await asyncio.sleep(0.01)
        finally:
            note("closed")
    async def much(self):
        for i in range(3000):
            self.made = i + 1
            yield "%04d" % i * 2560
    async def objects(self):
        for item in (1, None, {"a": [1, 2]}, "text", b"bytes", 2.5):
            yield item

@serve.deployment(ray_actor_options={"num_cpus": 0.1}, max_ongoing_requests=10)
class Middle:
    """Gives on what Inner gives."""
    def __init__(self, inner):
        self.inner = inner.options(stream=True)
    def plain(self, method):
        return getattr(self.inner, method).remote()
    async def awaited(self, method):
        await asyncio.sleep(0)
        return getattr(self.inner, method).remote()
    async def fails(self, after):
        return self.inner.fails.remote(int(after))

seen = [0]
taken = DeploymentResponseGenerator._next_item

def counting(self):
    seen[0] += 1
    return taken(self)

DeploymentResponseGenerator._next_item = counting

def streaming(inner, middle, query, path):
    inner = inner.options(stream=True)
    method = query.get("method", "words")
    args = (int(query["after"]),) if "after" in query else ()
    if "through" in query:
        items = getattr(middle.options(stream=True), query["through"]).remote(method, *args)
    else:
        items = getattr(inner, method).remote(*args)
    done = BackgroundTask(note, "background of " + path)
    return StreamingResponse(items, media_type=query.get("type"), background=done)
'''

PLAIN = INNER + '''
@serve.deployment(ray_actor_options={"num_cpus": 0.1}, max_ongoing_requests=10)
class Front:
    def __init__(self, inner, middle):
        self.inner, self.middle = inner, middle
    async def __call__(self, request: Request):
        path, query = request.url.path, dict(request.query_params)
        if path == "/seen":
            count, seen[0] = seen[0], 0
            return count
        if path == "/pid":
            return await self.inner.pid.remote()
        if path == "/count":
            return await self.inner.count.remote()
        if path == "/collect":
            handle = getattr(self.middle.options(stream=True), query["through"])
            items = [repr(i) async for i in handle.remote(query["method"])]
            return items
        if path == "/peek":
            items = self.inner.options(stream=True).slowly.remote()
            first = await items.__anext__()
            note("peeked")
            return StreamingResponse(items, headers={"x-first": first})
        return streaming(self.inner, self.middle, query, path)

inner = Inner.bind()
app = Front.bind(inner, Middle.bind(inner))
'''

FAST = INNER + '''
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware

api = FastAPI()
if has("with_cors"):
    api.add_middleware(CORSMiddleware, allow_origins=["*"])
if has("with_gzip"):
    api.add_middleware(GZipMiddleware, minimum_size=1)
if has("with_function"):
    @api.middleware("http")
    async def shout(request, call_next):
        response = await call_next(request)
        async def loud():
            async for chunk in response.body_iterator:
                yield chunk.upper()
        return StreamingResponse(loud(), response.status_code)

@serve.deployment(ray_actor_options={"num_cpus": 0.1}, max_ongoing_requests=10)
@serve.ingress(api)
class Front:
    def __init__(self, inner, middle):
        self.inner, self.middle = inner, middle
    @api.get("/seen")
    async def seen(self):
        count, seen[0] = seen[0], 0
        return count
    @api.get("/")
    async def root(self, request: Request):
        return streaming(self.inner, self.middle, dict(request.query_params), "/")
    @api.get("/sync")
    def sync(self, request: Request):
        return streaming(self.inner, self.middle, dict(request.query_params), "/sync")

inner = Inner.bind()
app = Front.bind(inner, Middle.bind(inner))
'''

WORDS = ("one two drei äö ".encode() + b"x" * 200 + b"y" * 200000 + b"z" * 300000
         + "\U0001f600".encode() + b"\xff\x00end")


class Wired(ServeTest):
    def notes(self) -> List[str]:
        try:
            with open(os.path.join(self.folder, "notes"), encoding="utf-8") as f:
                return f.read().split("\n")[:-1]
        except FileNotFoundError:
            return []

    def read(self, s: Server, path: str) -> Dict[str, Any]:
        """The body as far as it came, and whether it ended as it should."""
        conn = http.client.HTTPConnection("127.0.0.1", s.port, timeout=30)
        try:
            conn.request("GET", path, headers={"origin": "http://elsewhere"})
            r = conn.getresponse()
            try:
                body, whole = r.read(), True
            except http.client.IncompleteRead as e:
                body, whole = e.partial, False
            except (ConnectionError, http.client.HTTPException):
                body, whole = b"", False
            headers = {k.lower(): v for k, v in r.getheaders()}
            return {"status": r.status, "body": body, "whole": whole, "headers": headers}
        finally:
            conn.close()

    def assertStream(self, s: Server, path: str, body: bytes, items: int, whole: bool = True,
                     status: int = 200) -> Dict[str, Any]:
        """This body, of which so many items went through the outer replica."""
        s.call("/seen")
        got = self.read(s, path)
        self.assertEqual(len(got["body"]), len(body))
        self.assertEqual((got["status"], got["body"], got["whole"]), (status, body, whole))
        self.assertEqual(s.call("/seen").json(), items)
        return got

    def test_items_do_not_visit_the_outer_replica(self) -> None:
        s = self.serve_code(PLAIN)
        got = self.assertStream(s, "/a?type=text/event-stream", WORDS, 0)
        self.assertEqual(got["headers"]["content-type"], "text/event-stream; charset=utf-8")
        wait_until("the background task ran", lambda: "background of /a" in self.notes())
        self.assertNotIn("content-type", self.assertStream(s, "/b", WORDS, 0)["headers"])
        numbers = b"".join(b"%d " % i for i in range(100))
        self.assertStream(s, "/?method=threaded", numbers, 0)
        # somebody took an item before: only that one came
        s.call("/seen")
        with socket.create_connection(("127.0.0.1", s.port)) as sock:
            sock.sendall(b"GET /peek HTTP/1.0\r\nhost: x\r\n\r\n")
            got = b""
            while b"x-first: first" not in got:  # the head: the node was told before
                got += sock.recv(4096)
            self.write("go", "")
            part = b"-"
            while part:
                part = sock.recv(4096)
                got += part
        self.assertTrue(got.endswith(b"\r\n\r\n second"), got)
        self.assertEqual(s.call("/seen").json(), 1)
        # through a method that returns a generator of a handle
        for through in ("plain", "awaited"):
            self.assertStream(s, "/?through=" + through, WORDS, 0)
            got = s.call("/collect?method=objects&through=" + through).json()
            self.assertEqual(got, ["1", "None", "{'a': [1, 2]}", "'text'", "b'bytes'", "2.5"])

    def test_what_cannot_be_passed_on(self) -> None:
        s = self.serve_code(PLAIN)
        self.assertStream(s, "/?method=late_odd", b"before ", 1, whole=False)
        s.wait_output("'Odd' object has no attribute 'encode'")
        self.assertStream(s, "/?method=surrogate", b"before ", 1, whole=False)
        s.wait_output("surrogates not allowed")
        self.assertEqual(self.notes(), [])

    def test_errors_break_it_off(self) -> None:
        s = self.serve_code(PLAIN)
        self.assertStream(s, "/?method=fails&after=3", b"0 1 2 ", 0, whole=False)
        self.assertStream(s, "/?method=fails&after=0", b"", 0, whole=False)
        self.assertStream(s, "/?method=3&through=fails", b"0 1 2 ", 0, whole=False)
        s.wait_output("as it was told")
        self.assertEqual(self.notes(), [])  # no background task after an error
        self.assertStream(s, "/", WORDS, 0)

    def test_the_inner_replica_is_killed(self) -> None:
        s = self.serve_code(PLAIN)
        pid = int(s.call("/pid").text)
        conn = http.client.HTTPConnection("127.0.0.1", s.port, timeout=30)
        self.addCleanup(conn.close)
        conn.request("GET", "/?method=slowly")
        r = conn.getresponse()
        self.assertEqual(r.read(5), b"first")
        os.kill(pid, signal.SIGKILL)
        with self.assertRaises((http.client.HTTPException, ConnectionError)):
            r.read()
        self.write("go", "")

        def works() -> bool:
            return self.read(s, "/?method=slowly")["body"] == b"first second"
        wait_until("a new replica answers", works)

    def test_the_client_leaves(self) -> None:
        s = self.serve_code(PLAIN)
        for through in ("", "&through=plain"):
            before = self.notes().count("closed")
            with socket.create_connection(("127.0.0.1", s.port)) as sock:
                sock.sendall(b"GET /?method=forever%s HTTP/1.1\r\nhost: x\r\n\r\n"
                             % through.encode())
                got = b""
                while b"tick" not in got:
                    got += sock.recv(4096)
            wait_until("it was closed", lambda: self.notes().count("closed") == before + 1)
        self.assertStream(s, "/", WORDS, 0)

    def test_a_slow_client_holds_it_back(self) -> None:
        s = self.serve_code(PLAIN)
        whole = b"".join(b"%04d" % i * 2560 for i in range(3000))
        for through in ("", "&through=plain"):
            self.read(s, "/?method=words")  # so that the count begins anew
            s.call("/seen")
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.connect(("127.0.0.1", s.port))
                sock.sendall(b"GET /?method=much%s HTTP/1.0\r\nhost: x\r\n\r\n" % through.encode())
                last = [-1]

                def stands_still() -> bool:
                    made = int(s.call("/count").text)
                    still, last[0] = made == last[0] and made > 0, made
                    return still
                wait_until("it made no more", stands_still, every=0.3)
                # what it may be ahead is credit, and buffers of sockets: not all thirty megabytes
                self.assertLess(last[0], 2900)
                parts = [sock.recv(1 << 16)]
                while parts[-1]:
                    parts.append(sock.recv(1 << 16))
            got = b"".join(parts).partition(b"\r\n\r\n")[2]
            self.assertEqual(len(got), len(whole))
            self.assertTrue(got == whole)
            self.assertEqual(int(s.call("/count").text), 3000)
            self.assertEqual(s.call("/seen").json(), 0)

    def test_calls_that_share_a_replica(self) -> None:
        """Many at once, some of which end early."""
        s = self.serve_code(PLAIN)
        left = []
        for n in range(8):
            sock = socket.create_connection(("127.0.0.1", s.port))
            self.addCleanup(sock.close)
            sock.sendall(b"GET /?method=%s HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
                         % (b"forever" if n % 2 else b"words"))
            left.append(sock)
        for n, sock in enumerate(left):
            got = b""
            while n % 2 == 0 or b"tick" not in got:
                part = sock.recv(1 << 16)
                if not part:
                    break
                got += part
            if n % 2 == 0:
                self.assertIn(b"end\r\n", got)
            sock.close()
        wait_until("all are closed", lambda: self.notes().count("closed") == 4)

    @unittest.skipUnless(HAS_FASTAPI, "no FastAPI here")
    def test_fastapi(self) -> None:
        s = self.serve_code(FAST)
        self.assertStream(s, "/", WORDS, 0)
        wait_until("background", lambda: "background of /" in self.notes())
        # its thread is not as fast as the items: whichever way they go
        got = self.read(s, "/sync")
        self.assertEqual((got["body"], got["whole"]), (WORDS, True))
        wait_until("background", lambda: "background of /sync" in self.notes())
        self.assertStream(s, "/?method=fails&after=2", b"0 1 ", 0, whole=False)

    @unittest.skipUnless(HAS_FASTAPI, "no FastAPI here")
    def test_middleware(self) -> None:
        self.write("with_cors", "")
        s = self.serve_code(FAST)
        got = self.assertStream(s, "/", WORDS, 0)
        self.assertEqual(got["headers"]["access-control-allow-origin"], "*")

    @unittest.skipUnless(HAS_FASTAPI, "no FastAPI here")
    def test_middleware_that_changes_bodies(self) -> None:
        self.write("with_function", "")
        s = self.serve_code(FAST)
        self.write("go", "")
        self.assertStream(s, "/?method=slowly", b"FIRST SECOND", 2)

    @unittest.skipUnless(HAS_FASTAPI, "no FastAPI here")
    def test_middleware_that_packs(self) -> None:
        import gzip
        self.write("with_gzip", "")
        self.write("go", "")
        s = self.serve_code(FAST)
        got = s.call("/?method=slowly", headers={"accept-encoding": "gzip"})
        self.assertEqual(got.headers["content-encoding"], "gzip")
        self.assertEqual(gzip.decompress(got.body), b"first second")


if __name__ == "__main__":
    main()
