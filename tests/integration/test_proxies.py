#!/usr/bin/env python3
"""Proxies in front: PROXY headers, X-Forwarded-*, Forwarded, and whom to believe."""

import json
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import unittest
from typing import Any, Dict, List, Optional

from harness import SLOW, Server, ServeTest, main, wait_until

SCOPE = """\
    from ray import serve
    from starlette.requests import Request

    @serve.deployment(max_ongoing_requests=100)
    class Scope:
        async def __call__(self, request: Request):
            scope = request.scope
            return {"client": scope["client"], "server": scope["server"], "scheme": scope["scheme"],
                    "headers": [[k.decode(), v.decode("latin1")] for k, v in scope["headers"]]}

    app = Scope.bind()
    """
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
TCP4, TCP6 = 0x11, 0x21


def v1(client: str, port: int = 4321, family: str = "TCP4", server: str = "192.0.2.1") -> bytes:
    return ("PROXY %s %s %s %d 80\r\n" % (family, client, server, port)).encode()


def v2(family: int, data: bytes, command: int = 1, version: int = 2) -> bytes:
    return SIGNATURE + struct.pack(">BBH", version << 4 | command, family, len(data)) + data


def v2_tcp4(client: str, more: bytes = b"") -> bytes:
    return v2(TCP4, socket.inet_aton(client) + socket.inet_aton("192.0.2.1")
              + struct.pack(">HH", 4321, 80) + more)


class Proxies(ServeTest):
    def with_options(self, options: str, *args: str) -> Server:
        config = self.write_app(SCOPE)
        with open(config, encoding="utf-8") as f:
            rest = f.read()
        return self.serve(self.write("app.yaml", options + rest), *args)

    def ask(self, s: Server, before: bytes = b"", headers: str = "", by_byte: bool = False,
            context: Optional[ssl.SSLContext] = None) -> Dict[str, Any]:
        with socket.create_connection(("127.0.0.1", s.port), timeout=20 * SLOW) as c:
            c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            request = ("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n%s\r\n"
                       % headers).encode()
            if context:
                c.sendall(before)
                c = context.wrap_socket(c, server_hostname="127.0.0.1")
                before = b""
            data = before + request
            for i in range(len(data) if by_byte else 1):
                c.sendall(data[i:i + 1] if by_byte else data)
            answer = c.makefile("rb").read()
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 "), answer)
        got: Dict[str, Any] = json.loads(answer.split(b"\r\n\r\n", 1)[1])
        return got

    # --- headers ---------------------------------------------------------------------------------

    def test_headers_of_a_local_proxy(self) -> None:
        """By itself 127.0.0.1 is believed, as uvicorn does under Ray."""
        s = self.with_options("")
        for headers, client, scheme in (
                ("", "127.0.0.1", "http"),
                ("X-Forwarded-For: 192.0.2.9\r\n", "192.0.2.9", "http"),
                ("X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-Proto: https\r\n", "192.0.2.9",
                 "https"),
                ("x-forwarded-proto: HTTPS\r\n", "127.0.0.1", "https"),
                ("X-Forwarded-Proto: gopher\r\n", "127.0.0.1", "http"),
                ("X-Forwarded-For: 6.6.6.6, 192.0.2.9\r\n", "192.0.2.9", "http"),
                ("X-Forwarded-For: 6.6.6.6, 192.0.2.9, 127.0.0.1\r\n", "192.0.2.9", "http"),
                ("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 192.0.2.9\r\n", "192.0.2.9", "http"),
                ("X-Forwarded-For: 192.0.2.9:1234\r\n", "192.0.2.9", "http"),
                ("X-Forwarded-For: [2001:db8::9]:1234\r\n", "2001:db8::9", "http"),
                ("X-Forwarded-For: 2001:db8::9\r\n", "2001:db8::9", "http"),
                ("X-Forwarded-For: 192.0.2.9, unknown\r\n", "127.0.0.1", "http"),
                ("X-Forwarded-For: nonsense\r\n", "127.0.0.1", "http"),
                ("X-Forwarded-For: ,, ,\r\n", "127.0.0.1", "http"),
                ("X-Forwarded-For: " + "1.2.3.4, " * 1000 + "192.0.2.9\r\n", "192.0.2.9", "http"),
                ("Forwarded: for=192.0.2.9;proto=https;by=1.1.1.1\r\n", "192.0.2.9", "https"),
                ('Forwarded: for=6.6.6.6, FOR="[2001:db8::9]:47"; Proto=https\r\n',
                 "2001:db8::9", "https"),
                ("Forwarded: for=_hidden;proto=https\r\n", "127.0.0.1", "https"),
                ("Forwarded: for=6.6.6.6\r\nX-Forwarded-For: 192.0.2.9\r\n", "192.0.2.9", "http"),
                ('Forwarded: for="192.0.2.9\r\n', "127.0.0.1", "http"),
        ):
            with self.subTest(headers[:80]):
                got = self.ask(s, headers=headers)
                self.assertEqual((got["client"][0], got["scheme"]), (client, scheme))
                if client != "127.0.0.1":
                    self.assertEqual(got["client"][1], 0)
        got = self.ask(s, headers="X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-Host: other\r\n")
        self.assertIn(["x-forwarded-for", "192.0.2.9"], got["headers"])
        self.assertIn(["x-forwarded-host", "other"], got["headers"])
        self.assertIn(["host", "h"], got["headers"])

    def test_headers_of_others_are_headers(self) -> None:
        s = self.with_options("http_options: {rserve: {trusted_proxies: [10.0.0.0/8]}}\n")
        got = self.ask(s, headers="X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-Proto: https\r\n"
                       "Forwarded: for=192.0.2.9;proto=https\r\n")
        self.assertEqual((got["client"][0], got["scheme"]), ("127.0.0.1", "http"))
        self.assertIn(["x-forwarded-for", "192.0.2.9"], got["headers"])
        s = self.with_options("http_options: {rserve: {trusted_proxies: []}}\n")
        got = self.ask(s, headers="X-Forwarded-For: 192.0.2.9\r\n")
        self.assertEqual(got["client"][0], "127.0.0.1")

    def test_a_chain_of_proxies(self) -> None:
        s = self.with_options("http_options: {rserve: {trusted_proxies: [127.0.0.1, 10.0.0.0/8, "
                              '"2001:db8::/32"]}}\n')
        for chain, client in (("6.6.6.6, 192.0.2.9, 10.1.2.3", "192.0.2.9"),
                              ("6.6.6.6, 192.0.2.9, 10.1.2.3, 2001:db8::1", "192.0.2.9"),
                              ("10.9.9.9, 10.1.2.3", "10.9.9.9"),
                              ("192.0.2.9, 11.0.0.1", "11.0.0.1")):
            got = self.ask(s, headers="X-Forwarded-For: %s\r\n" % chain)
            self.assertEqual(got["client"][0], client, chain)

    def test_one_connection_many_clients(self) -> None:
        s = self.with_options("", "--access-log", os.path.join(self.folder, "access"))
        with socket.create_connection(("127.0.0.1", s.port), timeout=20 * SLOW) as c:
            c.sendall(b"".join(
                b"GET /%d HTTP/1.1\r\nHost: h\r\n%s\r\n" % (
                    i, b"X-Forwarded-For: 192.0.2.%d\r\n" % i if i % 2 else b"")
                for i in range(20)) + b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            data = c.makefile("rb").read()
        bodies = [json.loads(x.split(b"\r\n\r\n")[1].split(b"HTTP/1.1")[0])
                  for x in data.split(b"HTTP/1.1 200 OK")[1:]]
        self.assertEqual([b["client"][0] for b in bodies],
                         ["192.0.2.%d" % i if i % 2 else "127.0.0.1" for i in range(20)]
                         + ["127.0.0.1"])

        def logged() -> List[str]:
            with open(os.path.join(self.folder, "access"), encoding="utf-8") as f:
                return [x for x in f if "192.0.2.7" in x]
        wait_until("the client in the access log", logged, 5)

    # --- PROXY -----------------------------------------------------------------------------------

    def proxied(self, more: str = "", *args: str) -> Server:
        return self.with_options("http_options: {%srserve: {trusted_proxies: [127.0.0.1], "
                                 "proxy_protocol: true}}\n" % more, *args)

    def test_proxy_headers(self) -> None:
        s = self.proxied()
        tcp6 = (socket.inet_pton(socket.AF_INET6, "2001:db8::9")
                + socket.inet_pton(socket.AF_INET6, "2001:db8::1") + struct.pack(">HH", 4321, 80))
        for header, client in (
                (v1("192.0.2.9"), "192.0.2.9"),
                (v1("2001:db8::9", family="TCP6", server="::1"), "2001:db8::9"),
                (b"PROXY UNKNOWN\r\n", None),
                (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
                (v2_tcp4("192.0.2.9"), "192.0.2.9"),
                (v2_tcp4("192.0.2.9", b"\x04\x00\x05hello" + b"x" * 2000), "192.0.2.9"),
                (v2(TCP6, tcp6), "2001:db8::9"),
                (v2(0, b"", command=0), None),
                (v2(TCP4, b"whatever", command=0), None),
                (v2(0x31, b"u" * 216), None),
                (v2(0, b""), None),
        ):
            for by_byte in (False, True):
                with self.subTest(header[:60], by_byte=by_byte):
                    got = self.ask(s, header, by_byte=by_byte)
                    if client:
                        self.assertEqual(got["client"], [client, 4321])
                        self.assertEqual(got["server"][1], 80)
                    else:
                        self.assertEqual(got["client"][0], "127.0.0.1")
        # the client's own headers are the client's word
        got = self.ask(s, v1("192.0.2.9"), "X-Forwarded-For: 6.6.6.6\r\n")
        self.assertEqual(got["client"][0], "192.0.2.9")
        got = self.ask(s, v1("127.0.0.1"), "X-Forwarded-For: 192.0.2.9\r\n")
        self.assertEqual(got["client"][0], "192.0.2.9")

    def closed(self, s: Server, data: bytes) -> None:
        with socket.create_connection(("127.0.0.1", s.port), timeout=20 * SLOW) as c:
            try:
                c.sendall(data)
                self.assertEqual(c.recv(100), b"", data)
            except (ConnectionResetError, BrokenPipeError):
                pass

    def test_garbage_instead_of_a_proxy_header(self) -> None:
        s = self.proxied()
        rest = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
        for header in (b"", b"PROXY\r\n", b"PROXY \r\n", b"PROXY TCP4\r\n",
                       b"PROXY TCP5 1 2 3 4\r\n",
                       v1("1.2.3.4", 65536), v1("1.2.3"), v1("::1"), v1("1.2.3.4", family="TCP6"),
                       b"PROXY TCP4 1.2.3.4 1.2.3.5 1 2 3\r\n",
                       b"PROXY TCP4  1.2.3.4 1.2.3.5 1 2\r\n",
                       b"PROXY TCP4 1.2.3.4 1.2.3.5 01 2\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.5 1 2\n",
                       b"PROXY " + b"x" * 200, b"proxy TCP4 1.2.3.4 1.2.3.5 1 2\r\n",
                       b"PROXY TCP4 1.2.3.4\x00 1.2.3.5 1 2\r\n",
                       v2(TCP4, b"short"), v2(TCP6, b"x" * 35), v2(TCP4, b"x" * 12, version=1),
                       v2(TCP4, b"x" * 12, command=2), v2(TCP4, b"x" * 60000),
                       SIGNATURE[:11] + b"X" + b"y" * 50, b"\x16\x03\x01", os.urandom(200)):
            with self.subTest(header[:40]):
                self.closed(s, header + rest)
        s.wait_output("a connection without a PROXY header was closed")
        line = [x for x in s.output().splitlines() if "without a PROXY header" in x][0]
        self.assertIn("peer=127.0.0.1:", line)
        self.assertEqual(self.ask(s, v1("192.0.2.9"))["client"][0], "192.0.2.9")

    def test_untrusted_peers_speak_for_themselves(self) -> None:
        s = self.with_options("http_options: {rserve: {trusted_proxies: [10.0.0.0/8], "
                              "proxy_protocol: true}}\n")
        self.assertEqual(self.ask(s)["client"][0], "127.0.0.1")
        with socket.create_connection(("127.0.0.1", s.port), timeout=20 * SLOW) as c:
            c.sendall(v1("192.0.2.9") + b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            self.assertTrue(c.makefile("rb").read().startswith(b"HTTP/1.1 400 "))

    def test_slow_and_broken_proxies(self) -> None:
        s = self.proxied()
        waiting = [socket.create_connection(("127.0.0.1", s.port), timeout=20 * SLOW)
                   for _ in range(20)]
        for i, c in enumerate(waiting):
            c.sendall(v2_tcp4("192.0.2.9")[:i])
        self.assertEqual(self.ask(s, v1("192.0.2.9"))["client"][0], "192.0.2.9")
        for c in waiting:
            c.close()
        pid = next(iter(s.pids("app", "Scope")))
        os.kill(pid, signal.SIGKILL)
        wait_until("a new replica", lambda: s.pids("app", "Scope") - {pid}, 20)
        self.assertEqual(self.ask(s, v2_tcp4("192.0.2.9"))["client"][0], "192.0.2.9")

    @unittest.skipUnless(shutil.which("openssl"), "there is no openssl")
    def test_tls_behind_a_proxy_header(self) -> None:
        key, cert = (os.path.join(self.folder, x) for x in ("a.key", "a.pem"))
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key,
                        "-out", cert, "-days", "2", "-subj", "/CN=a", "-addext",
                        "subjectAltName=IP:127.0.0.1"], check=True, stderr=subprocess.DEVNULL)
        s = self.proxied("ssl_keyfile: a.key, ssl_certfile: a.pem, ")
        context = ssl.create_default_context(cafile=cert)
        for header in (v1("192.0.2.9"), v2_tcp4("192.0.2.9")):
            got = self.ask(s, header, context=context)
            self.assertEqual((got["client"], got["scheme"]), (["192.0.2.9", 4321], "https"))
        self.closed(s, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200))


if __name__ == "__main__":
    main()
