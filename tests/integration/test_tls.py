#!/usr/bin/env python3
"""HTTPS at the ingress: certificates, handshakes of every sort, and all that works without it."""

import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
import unittest
from typing import Any, Dict, List, Optional, Tuple

from harness import SLOW, Server, ServeTest, main, rserve, wait_until
from websocket_client import WebSocket

APP = """\
    import asyncio, hashlib, os
    from fastapi import FastAPI, Request, WebSocket
    from ray import serve
    from starlette.responses import Response, StreamingResponse

    api = FastAPI()

    @serve.deployment(num_replicas=2, max_ongoing_requests=100)
    @serve.ingress(api)
    class App:
        @api.get("/scope")
        async def scope(self, request: Request):
            return {"scheme": request.scope["scheme"], "url": str(request.url), "pid": os.getpid()}

        @api.post("/digest")
        async def digest(self, request: Request):
            body = await request.body()
            return {"length": len(body), "sha256": hashlib.sha256(body).hexdigest()}

        @api.get("/big")
        async def big(self, n: int):
            return Response(bytes(range(256)) * (n // 256))

        @api.get("/events")
        async def events(self, n: int = 3):
            async def make():
                for i in range(n):
                    yield "data: %d\\n\\n" % i
                    await asyncio.sleep(0.05)
            return StreamingResponse(make(), media_type="text/event-stream")

        @api.get("/endless")
        async def endless(self):
            async def make():
                while True:
                    yield b"x" * 100000
            return StreamingResponse(make())

        @api.websocket("/echo")
        async def echo(self, ws: WebSocket):
            await ws.accept()
            await ws.send_text(ws.scope["scheme"])
            while True:
                await ws.send_bytes(await ws.receive_bytes())

    app = App.bind()
    """

OPENSSL = shutil.which("openssl")


def openssl(*args: str) -> None:
    assert OPENSSL
    subprocess.run([OPENSSL, *args], check=True, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60 * SLOW)


@unittest.skipUnless(OPENSSL, "there is no openssl that could make certificates")
class Tls(ServeTest):
    def certificate(self, name: str, *more: str) -> Tuple[str, str]:
        """A key and a certificate of its own for 127.0.0.1."""
        key, cert = (os.path.join(self.folder, name + end) for end in (".key", ".pem"))
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=" + name,
                "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", *more)
        return key, cert

    def options(self, text: str = "") -> str:
        config = self.write_app(APP)
        with open(config, encoding="utf-8") as f:
            rest = f.read()
        return self.write("app.yaml", "http_options:\n  ssl_keyfile: a.key\n  ssl_certfile: a.pem\n"
                          + text + rest)

    def https(self, text: str = "", *args: str) -> Server:
        self.certificate("a")
        s = self.serve(self.options(text), *args)
        self.assertIn("https://127.0.0.1:%d/" % s.port, s.output())
        return s

    def context(self, name: str = "a") -> ssl.SSLContext:
        return ssl.create_default_context(cafile=os.path.join(self.folder, name + ".pem"))

    def connect(self, s: Server, context: Optional[ssl.SSLContext] = None) -> ssl.SSLSocket:
        raw = socket.create_connection(("127.0.0.1", s.port), timeout=20 * SLOW)
        self.addCleanup(raw.close)
        c = (context or self.context()).wrap_socket(raw, server_hostname="127.0.0.1")
        self.addCleanup(c.close)
        return c

    def client(self, s: Server, context: Optional[ssl.SSLContext] = None
               ) -> http.client.HTTPSConnection:
        c = http.client.HTTPSConnection("127.0.0.1", s.port, timeout=20 * SLOW,
                                        context=context or self.context())
        self.addCleanup(c.close)
        return c

    def ask(self, c: http.client.HTTPSConnection, path: str, body: Optional[bytes] = None) -> Any:
        c.request("GET" if body is None else "POST", path, body)
        r = c.getresponse()
        data = r.read()
        self.assertEqual(r.status, 200, data)
        return json.loads(data)

    # --- what works ------------------------------------------------------------------------------

    def test_requests(self) -> None:
        s = self.https()
        c = self.client(s)
        for _ in range(3):  # one connection
            self.assertEqual(self.ask(c, "/scope")["scheme"], "https")
        self.assertEqual(self.ask(c, "/scope")["url"], "https://127.0.0.1:%d/scope" % s.port)
        for n in (0, 1, 16384, 70000, 9 << 20):
            body = os.urandom(n)
            self.assertEqual(self.ask(c, "/digest", body),
                             {"length": n, "sha256": hashlib.sha256(body).hexdigest()})
        for n in (256, 16384, 65536, 300 * 256, 20 << 20):
            c.request("GET", "/big?n=%d" % n)
            self.assertEqual(c.getresponse().read(), bytes(range(256)) * (n // 256))
        c.request("GET", "/-/healthz")
        self.assertEqual(c.getresponse().read(), b"success")

    def test_versions_and_protocols(self) -> None:
        s = self.https()
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = self.context()
            context.minimum_version = context.maximum_version = version
            context.set_alpn_protocols(["h2", "http/1.1"])
            with self.connect(s, context) as c:
                self.assertEqual(c.selected_alpn_protocol(), "http/1.1")
                cipher = c.cipher()
                assert cipher
                self.assertRegex(cipher[0], "GCM|CHACHA20")
        for change in ("version", "cipher", "alpn"):
            context = self.context()
            if change == "version":
                context.set_ciphers("DEFAULT@SECLEVEL=0")
                context.minimum_version = ssl.TLSVersion.TLSv1
                context.maximum_version = ssl.TLSVersion.TLSv1_1
            elif change == "cipher":
                context.set_ciphers("AES128-SHA")
                context.maximum_version = ssl.TLSVersion.TLSv1_2
            else:
                context.set_alpn_protocols(["h2"])
            with self.subTest(change), self.assertRaises(ssl.SSLError):
                self.connect(s, context).recv(1)

    def test_session_is_resumed(self) -> None:
        s = self.https()
        context = self.context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with self.connect(s, context) as c:
            session = c.session
        for _ in range(8):  # on whichever lane
            raw = socket.create_connection(("127.0.0.1", s.port), timeout=20 * SLOW)
            with context.wrap_socket(raw, server_hostname="127.0.0.1", session=session) as c:
                self.assertTrue(c.session_reused)

    def test_stream_is_sent_as_it_is_made(self) -> None:
        s = self.https()
        c = self.client(s)
        c.request("GET", "/events?n=3")
        r = c.getresponse()
        self.assertEqual([r.read1(100) for _ in range(3)],
                         [b"data: %d\n\n" % i for i in range(3)])
        self.assertEqual(r.read(), b"")

    def test_slow_reader_holds_the_stream_back(self) -> None:
        s = self.https()
        c = self.connect(s)
        c.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertTrue(c.recv(100).startswith(b"HTTP/1.1 200"))

        def memory() -> int:
            with open("/proc/%d/status" % s.pid, encoding="utf-8") as f:
                return [int(x.split()[1]) for x in f if x.startswith("VmRSS")][0]

        before = memory()
        for _ in range(20):
            self.assertEqual(self.ask(self.client(s), "/scope")["scheme"], "https")
        self.assertLess(memory() - before, 50000, "kB")
        total = 0
        while total < 20 << 20:
            total += len(c.recv(1 << 20))
        c.close()

    def test_pipelined_and_refused(self) -> None:
        s = self.https()
        with self.connect(s) as c:
            c.sendall(b"GET /scope HTTP/1.1\r\nHost: x\r\n\r\n" * 20 + b"GET  / HTTP/1.1\r\n\r\n")
            data = b""
            while True:
                part = c.recv(65536)
                if not part:
                    break
                data += part
        self.assertEqual((data.count(b"HTTP/1.1 200 "), data.count(b"HTTP/1.1 400 ")), (20, 1))

    def test_websocket(self) -> None:
        s = self.https()
        ws = WebSocket(s.port, "/echo", tls=self.context())
        self.assertEqual(ws.recv(), "wss")
        for n in (1, 125, 16384, 70000, 1 << 20):
            data = os.urandom(n)
            ws.send(data)
            self.assertEqual(ws.recv(), data)
        many = [os.urandom(5000) for _ in range(40)]
        for m in many:
            ws.send(m)
        self.assertEqual([ws.recv() for _ in many], many)
        ws.close()

    def test_client_certificates(self) -> None:
        self.certificate("ca")
        for name in ("good", "bad"):
            self.certificate(name)
        key, csr, cert = (os.path.join(self.folder, "good" + x) for x in (".key", ".csr", ".pem"))
        openssl("req", "-new", "-key", key, "-subj", "/CN=client", "-out", csr)
        openssl("x509", "-req", "-in", csr, "-CA", os.path.join(self.folder, "ca.pem"), "-CAkey",
                os.path.join(self.folder, "ca.key"), "-set_serial", "1", "-out", cert)
        s = self.https("  ssl_ca_certs: ca.pem\n")
        context = self.context()
        context.load_cert_chain(cert, key)
        self.assertEqual(self.ask(self.client(s, context), "/scope")["scheme"], "https")
        for name in ("", "bad"):
            context = self.context()
            if name:
                context.load_cert_chain(*(os.path.join(self.folder, name + x)
                                          for x in (".pem", ".key")))
            with self.subTest(name or "none"), self.assertRaises((ssl.SSLError, OSError)):
                with self.connect(s, context) as c:
                    c.sendall(b"GET /scope HTTP/1.1\r\nHost: x\r\n\r\n")
                    if not c.recv(1):
                        raise OSError("closed")

    # --- what clients do -------------------------------------------------------------------------

    def test_no_handshake(self) -> None:
        """Garbage, half a handshake, one byte at a time, none at all: others are served."""
        s = self.https()
        hello = self.hello()
        waiting: List[socket.socket] = []
        for data in (b"", hello[:1], hello[:50], hello[:-1], b"\x16\x03\x01"):
            c = socket.create_connection(("127.0.0.1", s.port), timeout=20 * SLOW)
            c.sendall(data)
            waiting.append(c)
        for data in (os.urandom(500), b"\x00" * 100, b"\x16\x03\x01\xff\xff" + b"a" * 70000,
                     b"SSH-2.0-x\r\n", hello[:20] + os.urandom(1000)):
            for close in (False, True):
                with socket.create_connection(("127.0.0.1", s.port), timeout=20 * SLOW) as c:
                    try:
                        c.sendall(data)
                        while not close and c.recv(4096):
                            pass
                    except (BrokenPipeError, ConnectionResetError):
                        pass
        with socket.create_connection(("127.0.0.1", s.port), timeout=20 * SLOW) as c:
            c.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = c.makefile("rb").read()
        self.assertTrue(answer.startswith(b"HTTP/1.1 400 "), answer)
        self.assertIn(b"https://", answer)
        self.assertEqual(self.ask(self.client(s), "/scope")["scheme"], "https")
        for c in waiting:
            c.close()
        self.assertEqual(self.ask(self.client(s), "/scope")["scheme"], "https")
        self.assertIsNone(s.process.poll())

    def hello(self) -> bytes:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        o = self.context().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        with self.assertRaises(ssl.SSLWantReadError):
            o.do_handshake()
        return outgoing.read()

    def test_slow_handshake(self) -> None:
        s = self.https()
        raw = socket.create_connection(("127.0.0.1", s.port), timeout=20 * SLOW)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        o = self.context().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        while True:
            try:
                o.do_handshake()
                break
            except ssl.SSLWantReadError:
                for b in outgoing.read():
                    raw.sendall(bytes([b]))
                incoming.write(raw.recv(7))
        o.write(b"GET /scope HTTP/1.1\r\nHost: x\r\n\r\n")
        for b in outgoing.read():
            raw.sendall(bytes([b]))
        while True:
            try:
                self.assertTrue(o.read(12).startswith(b"HTTP/1.1 200"))
                break
            except ssl.SSLWantReadError:
                incoming.write(raw.recv(4096))
        raw.close()

    def test_hundred_connections(self) -> None:
        s = self.https()
        context = self.context()
        clients = [self.client(s, context) for _ in range(100)]
        for c in clients:
            self.assertEqual(self.ask(c, "/scope")["scheme"], "https")
        for c in clients:  # all of them are there still
            self.assertEqual(self.ask(c, "/scope")["scheme"], "https")
            c.close()

    # --- faults ----------------------------------------------------------------------------------

    def load(self, s: Server, context: ssl.SSLContext, stop: threading.Event,
             results: List[str]) -> None:
        """Request after request, some on fresh connections."""
        c = self.client(s, context)
        n = 0
        while not stop.is_set():
            n += 1
            try:
                c.request("GET", "/scope")
                r = c.getresponse()
                r.read()
                results.append(str(r.status))
            except (OSError, http.client.HTTPException) as e:
                results.append(repr(e))
                c.close()
            if n % 10 == 0:
                c.close()

    def under_load(self, s: Server, context: ssl.SSLContext, act: Any) -> Dict[str, int]:
        stop = threading.Event()
        results: List[str] = []
        threads = [threading.Thread(target=self.load, args=(s, context, stop, results))
                   for _ in range(4)]
        for t in threads:
            t.start()
        try:
            act(lambda more: (lambda goal: wait_until(
                "more answers", lambda: len(results) >= goal, 30))(len(results) + more))
        finally:
            stop.set()
            for t in threads:
                t.join()
        return {x: results.count(x) for x in set(results)}

    def subject(self, s: Server) -> str:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with self.connect(s, context) as c:
            der = c.getpeercert(True)
        assert der
        path = os.path.join(self.folder, "seen.der")
        with open(path, "wb") as f:
            f.write(der)
        assert OPENSSL
        return subprocess.run([OPENSSL, "x509", "-inform", "der", "-in", path, "-noout",
                               "-subject"], check=True, stdout=subprocess.PIPE).stdout.decode()

    def swap(self, name: str) -> None:
        for end in (".key", ".pem"):
            new = os.path.join(self.folder, "a" + end + ".new")
            shutil.copy(os.path.join(self.folder, name + end), new)
            os.replace(new, os.path.join(self.folder, "a" + end))

    def test_certificate_changes_under_load(self) -> None:
        s = self.https()
        self.certificate("b")
        context = self.context("a")
        context.load_verify_locations(os.path.join(self.folder, "b.pem"))

        def act(wait: Any) -> None:
            wait(100)
            self.swap("b")
            wait_until("the new certificate", lambda: "= b" in self.subject(s), 20, 0.2)
            wait(100)
        self.assertEqual(set(self.under_load(s, context, act)), {"200"})
        self.assertNotIn("cannot be used", s.output())

    def test_connections_outlive_their_certificate(self) -> None:
        s = self.https()
        c = self.client(s)
        self.ask(c, "/scope")
        self.certificate("b")
        self.swap("b")
        wait_until("the new certificate", lambda: "= b" in self.subject(s), 20, 0.2)
        self.assertEqual(self.ask(c, "/scope")["scheme"], "https")

    def test_bad_certificate_leaves_the_old_one(self) -> None:
        s = self.https()
        self.certificate("b")
        shutil.copy(os.path.join(self.folder, "b.pem"), os.path.join(self.folder, "a.pem"))

        def said() -> bool:
            self.assertIn("= a", self.subject(s))
            return "cannot be used" in s.output()
        wait_until("a line about it", said, 20, 0.3)
        for _ in range(5):
            self.assertIn("= a", self.subject(s))
            time.sleep(0.3)
        lines = [x for x in s.output().splitlines() if "cannot be used" in x]
        self.assertEqual(len(lines), 1, lines)
        self.assertIn("a.key", lines[0])
        shutil.copy(os.path.join(self.folder, "b.key"), os.path.join(self.folder, "a.key"))
        wait_until("the new certificate", lambda: "= b" in self.subject(s), 20, 0.3)

    def test_replica_dies_under_load(self) -> None:
        s = self.https()
        pids = s.pids("app", "App")

        def act(wait: Any) -> None:
            wait(50)
            os.kill(min(pids), signal.SIGKILL)
            wait(50)
            wait_until("a new replica", lambda: len(s.pids("app", "App") - {min(pids)}) == 2, 30)
            wait(50)
        counts = self.under_load(s, self.context(), act)
        self.assertLessEqual(set(counts), {"200", "500", "502", "503"}, counts)
        self.assertGreater(counts["200"], 100)

    def test_drains(self) -> None:
        s = self.https()
        c = self.connect(s)
        c.sendall(b"GET /events?n=20 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        data = c.recv(1000)
        s.send(signal.SIGTERM)
        while True:
            part = c.recv(65536)
            if not part:
                break
            data += part
        self.assertEqual(data.count(b"data: "), 20, data)
        self.assertEqual(s.wait_exit(), 0)

    # --- what is wrong with the files ------------------------------------------------------------

    def test_wrong_files(self) -> None:
        self.certificate("a")
        self.certificate("b")
        openssl("ec", "-in", os.path.join(self.folder, "a.key"), "-aes128", "-passout",
                "pass:right", "-out", os.path.join(self.folder, "locked.key"))
        self.write("garbage", "no PEM at all\n")
        self.write("empty", "")
        for option, value, says in (
                ("ssl_keyfile", "none.key", "No such file"),
                ("ssl_certfile", "none.pem", "No such file"),
                ("ssl_keyfile", "garbage", "expected a private key in PEM form"),
                ("ssl_keyfile", "empty", "expected a private key in PEM form"),
                ("ssl_keyfile", "a.pem", "expected a private key in PEM form"),
                ("ssl_certfile", "garbage", "expected a certificate in PEM form"),
                ("ssl_certfile", "a.key", "expected a certificate in PEM form"),
                ("ssl_keyfile", ".", "directory"),
                ("ssl_keyfile", "b.key", "is not that of the certificate"),
                ("ssl_keyfile", "locked.key", "is encrypted and there is no ssl_keyfile_password"),
                ("ssl_keyfile_password", "wrong", "is not the password of"),
                ("ssl_ca_certs", "garbage", "expected certificates in PEM form"),
                ("ssl_ca_certs", "none.pem", "No such file")):
            options = {"ssl_keyfile": "a.key", "ssl_certfile": "a.pem"}
            if option == "ssl_keyfile_password":
                options["ssl_keyfile"] = "locked.key"
            options[option] = value
            lines = ["http_options:"] + ["  %s: %s" % x for x in options.items()]
            place = (list(options).index(option) + 2, len("  %s: " % option) + 1)
            config = self.write("wrong.yaml", "\n".join(lines) + "\napplications: []\n")
            for args in (("run", config, "--port", "0"), ("run", config, "--check")):
                r = rserve(*args)
                self.assertNotEqual(r.returncode, 0, (option, value))
                self.assertOneLine(r.stderr, "wrong.yaml:%d:%d: http_options.%s: " % (
                    place + (option,)), says)
        config = self.write("right.yaml", 'http_options: {ssl_keyfile: locked.key, ssl_certfile: '
                            'a.pem, ssl_keyfile_password: right}\napplications: []\n')
        self.assertEqual(rserve("run", config, "--check").returncode, 0)


if __name__ == "__main__":
    main()
