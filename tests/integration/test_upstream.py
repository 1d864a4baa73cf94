#!/usr/bin/env python3
"""A replica that is an HTTP server: what passes through in both directions, on port and socket."""

import hashlib
import http.client
import json
import os
import socket
from typing import Any

from harness import Server, ServeTest, main, wait_until
from websocket_client import WebSocket

# Knows nothing of rserve. It notes what it sees in a folder, and can be made to wait for a file.
BACKEND = '''
    import hashlib
    import http.server
    import json
    import os
    import socketserver
    import sys
    import time

    place, notes = sys.argv[1], sys.argv[2]


    def note(name, text=""):
        with open(os.path.join(notes, name), "w") as f:
            f.write(text)


    def wait_for(name):
        while not os.path.exists(os.path.join(notes, name)):
            time.sleep(0.01)


    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = place.isdigit()

        connections = 0

        def setup(self):
            Handler.connections += 1
            super().setup()

        def address_string(self):
            return "client"

        def answer(self, body, status=200):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def chunk(self, data):
            self.wfile.write(b"%x\\r\\n%s\\r\\n" % (len(data), data))

        def body(self):
            length = self.headers.get("content-length")
            if length is not None:
                left = int(length)
                while left:
                    data = self.rfile.read(min(left, 65536))
                    left -= len(data)
                    yield data
            elif "chunked" in self.headers.get("transfer-encoding", ""):
                while True:
                    size = int(self.rfile.readline().split(b";")[0], 16)
                    data = self.rfile.read(size)
                    self.rfile.readline()
                    if not size:
                        return
                    yield data

        def do_GET(self):
            if self.path == "/health":
                note("asked")
                self.answer(b"", 200 if os.path.exists(os.path.join(notes, "ready")) else 503)
            elif self.path == "/stream":
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.chunk(b"first")
                wait_for("go")
                self.chunk(b"second")
                self.chunk(b"")
            elif self.path == "/endless":
                self.send_response(200)
                self.end_headers()
                self.close_connection = True
                try:
                    while True:
                        self.wfile.write(b"x" * 1000)
                        self.wfile.flush()
                except OSError:
                    note("hung-up")
            elif self.path == "/big":
                self.answer(b"0123456789" * 2_000_000)
            elif self.path == "/die":
                os._exit(3)
            else:
                self.answer(json.dumps({"path": self.path, "pid": os.getpid(),
                                        "connections": Handler.connections,
                                        "headers": {k.lower(): v for k, v in self.headers.items()},
                                        }).encode(), 404 if self.path == "/404" else 200)

        do_HEAD = do_GET

        def do_POST(self):
            if self.path == "/die":
                os._exit(3)
            digest, size, first = hashlib.sha256(), 0, True
            for data in self.body():
                digest.update(data)
                size += len(data)
                if first:
                    note("first-bytes")
                first = False
            self.answer(json.dumps({"sha256": digest.hexdigest(), "size": size,
                                    "path": self.path, "type": self.headers.get("content-type"),
                                    "chunked": "transfer-encoding" in self.headers}).encode())


    class Unix(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True


    if place.isdigit():
        http.server.ThreadingHTTPServer(("127.0.0.1", int(place)), Handler).serve_forever()
    else:
        Unix(place, Handler).serve_forever()
'''


class Upstream(ServeTest):
    place = "{port}"

    def backend(self, prefix: str = "/", ready: bool = True, strip: str = "true") -> Server:
        self.notes = os.path.join(self.folder, "notes")
        os.mkdir(self.notes)
        self.write("backend.py", BACKEND)
        if ready:
            self.note("ready")
        s = self.start(self.write("app.yaml", """\
            applications:
            - name: web
              route_prefix: %s
              deployments:
              - name: Backend
                max_ongoing_requests: 20
                rserve:
                  kind: http
                  command: [python3, backend.py, "%s", notes]
                  ready: {path: /health}
                  strip_prefix: %s
            """ % (prefix, self.place, strip)))
        if ready:
            s.wait_apps()
        return s

    def note(self, name: str) -> None:
        with open(os.path.join(self.notes, name), "w", encoding="utf-8"):
            pass

    def noted(self, name: str) -> None:
        wait_until(name, lambda: os.path.exists(os.path.join(self.notes, name)))

    def test_is_ready_when_it_says_so(self) -> None:
        s = self.backend(ready=False)
        self.noted("asked")
        self.assertEqual(s.replicas("web", "Backend"), [])
        self.note("ready")
        s.wait_apps()
        self.assertEqual(s.call("/").status, 200)

    def test_passes_requests_on(self) -> None:
        s = self.backend(prefix="/m/x")
        answer = s.call("/m/x/a%20b?q=1&r", headers={"x-request-id": "r-1", "cookie": "c=d",
                                                      "x-forwarded-for": "10.1.1.1"})
        seen = answer.json()
        self.assertEqual(seen["path"], "/a%20b?q=1&r")
        self.assertEqual(answer.headers["x-request-id"], "r-1")
        for name, value in {"x-request-id": "r-1", "cookie": "c=d", "x-forwarded-proto": "http",
                            "x-forwarded-for": "10.1.1.1", "x-forwarded-prefix": "/m/x",
                            "host": "127.0.0.1:%d" % s.port}.items():
            self.assertEqual(seen["headers"].get(name), value, name)
        self.assertNotIn("connection", seen["headers"])
        self.assertEqual(s.call("/m/x").json()["path"], "/")
        self.assertEqual(s.call("/m/x/404").status, 404)
        head = s.call("/m/x/big", method="HEAD")
        self.assertEqual((head.status, head.headers["content-length"], head.body),
                         (200, "20000000", b""))
        self.assertEqual(s.call("/elsewhere").status, 404)

    def test_leaves_the_prefix_where_it_is_told_to(self) -> None:
        s = self.backend(prefix="/m/x", strip="false")
        seen = s.call("/m/x/a").json()
        self.assertEqual(seen["path"], "/m/x/a")
        self.assertNotIn("x-forwarded-prefix", seen["headers"])

    def test_keeps_connections(self) -> None:
        s = self.backend()
        before = s.call("/").json()["connections"]
        after = [s.call("/").json()["connections"] for _ in range(100)][-1]
        self.assertLess(after - before, 10)  # a new one only after a second

    def test_streams_answers(self) -> None:
        s = self.backend()
        conn = http.client.HTTPConnection("127.0.0.1", s.port, timeout=20)
        conn.request("GET", "/stream")
        r = conn.getresponse()
        self.assertEqual(r.read(5), b"first")  # while the server has not said the rest
        self.note("go")
        self.assertEqual(r.read(), b"second")
        conn.close()

    def test_streams_requests(self) -> None:
        s = self.backend()
        data = os.urandom(1 << 20)
        with socket.create_connection(("127.0.0.1", s.port), timeout=20) as c:
            c.sendall(b"POST /up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(4):
                c.sendall(b"%x\r\n%s\r\n" % (len(data), data))
            self.noted("first-bytes")  # the end of the body was not even sent
            c.sendall(b"0\r\n\r\n")
            answer = http.client.HTTPResponse(c)
            answer.begin()
            seen = json.loads(answer.read())
        self.assertEqual((seen["sha256"], seen["size"]),
                         (hashlib.sha256(data * 4).hexdigest(), 4 << 20))
        self.assertTrue(seen["chunked"])

    def test_carries_bodies_of_any_size(self) -> None:
        s = self.backend()
        for size in (0, 1, 65_536, 65_537, 1_000_000, 30_000_000):
            data = os.urandom(size)
            seen = s.call("/up", method="POST", body=data).json()
            self.assertEqual((seen["sha256"], seen["size"]),
                             (hashlib.sha256(data).hexdigest(), size))
        self.assertEqual(s.call("/big").body, b"0123456789" * 2_000_000)

    def test_hangs_up_when_the_client_does(self) -> None:
        s = self.backend()
        with socket.create_connection(("127.0.0.1", s.port), timeout=20) as c:
            c.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertTrue(c.recv(1000))
        self.noted("hung-up")
        self.assertEqual(s.call("/").status, 200)

    def test_refuses_web_sockets(self) -> None:
        s = self.backend()
        with WebSocket(s.port) as ws:
            self.assertEqual((ws.status, ws.body()),
                             (501, b"This application does not take WebSocket connections."))
        self.assertEqual(s.call("/").status, 200)

    def test_is_replaced_when_it_dies(self) -> None:
        s = self.backend()
        first = s.call("/").json()["pid"]
        answer = s.call("/die", method="POST")
        self.assertEqual(answer.status, 502, answer.text)
        self.assertIn("its process ", answer.text)
        wait_until("the next one", lambda: s.call("/").status == 200)
        self.assertNotEqual(s.call("/").json()["pid"], first)


class UpstreamOnASocket(Upstream):
    place = "{socket}"


class Calls(ServeTest):
    def test_is_called_from_python(self) -> None:
        os.mkdir(os.path.join(self.folder, "notes"))
        with open(os.path.join(self.folder, "notes", "ready"), "w", encoding="utf-8"):
            pass
        self.write("backend.py", BACKEND)
        code = '''
            import json
            from ray import serve

            @serve.deployment
            class Front:
                def __init__(self):
                    self.web = serve.get_deployment_handle("Backend")

                async def __call__(self, request):
                    what = request.query_params["what"]
                    if what == "get":
                        return json.loads(await self.web.remote("/x?y=1"))["path"]
                    if what == "post":
                        return json.loads(await self.web.post.remote("/up", b'{"a": 1}'))
                    if what == "big":
                        sent = await self.web.post.remote("/up", b"x" * 5_000_000)
                        return [json.loads(sent)["size"], len(await self.web.get.remote("/big"))]
                    if what == "stream":
                        self.count = 0
                        async for part in self.web.options(stream=True).get.remote("/big"):
                            self.count += len(part)
                        return self.count
                    try:
                        if what == "404":
                            await self.web.get.remote("/404")
                        elif what == "method":
                            await self.web.embed.remote("/x")
                        else:
                            await self.web.get.remote(42)
                    except Exception as e:
                        return str(e)

            app = Front.bind()
        '''
        s = self.serve_code(code, deployments="""\
            - name: Front
              rserve: {calls: [Backend]}
            - name: Backend
              rserve:
                kind: http
                command: [python3, backend.py, "{port}", notes]
                ready: {path: /health}
            """)

        def ask(what: str) -> Any:
            answer = s.call("/?what=" + what)
            self.assertEqual(answer.status, 200, answer.text)
            is_json = answer.headers["content-type"] == "application/json"
            return answer.json() if is_json else answer.text
        self.assertEqual(ask("get"), "/x?y=1")
        posted = ask("post")
        self.assertEqual((posted["size"], posted["type"]), (8, "application/json"))
        self.assertEqual(ask("big"), [5_000_000, 20_000_000])
        self.assertEqual(str(ask("stream")), "20000000")
        self.assertIn("GET /404 answered 404", ask("404"))
        self.assertIn("has no method 'embed'", ask("method"))
        self.assertIn("is an HTTP server", ask("wrong"))


if __name__ == "__main__":
    main()
