#!/usr/bin/env python3
"""WebSocket connections through the real rserve: those that behave, and others."""

import importlib.util
import json
import os
import signal
import socket
import struct
import time
import unittest
from typing import Any, List

from harness import ServeTest, Server, free_port, main, wait_until
from websocket_client import (BINARY, CLOSE, MORE, PING, PONG, TEXT, Closed, WebSocket, frame,
                              handshake)

APP = '''\
    import asyncio
    import json
    import os

    from ray import serve

    HERE = os.path.dirname(os.path.abspath(__file__))
    noted = []
    count = {"open": 0, "sent": 0, "received": 0}


    def plain(value):
        if isinstance(value, bytes):
            return value.decode("latin-1")
        if isinstance(value, (list, tuple)):
            return [plain(v) for v in value]
        return value


    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            return
        if scope["type"] == "http":
            body = json.dumps(dict(count, noted=noted, pid=os.getpid())).encode()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})
            return
        count["open"] += 1
        try:
            await globals()[scope["path"].strip("/")](scope, receive, send)
        finally:
            count["open"] -= 1


    async def echo(scope, receive, send):
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                noted.append([message["code"], message.get("reason")])
                return
            await send(dict(message, type="websocket.send"))


    async def about(scope, receive, send):
        noted.append((await receive())["type"])
        await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][-1],
                    "headers": [(b"X-Extra", b"1"), (b"connection", b"close"),
                                (b"sec-websocket-extensions", b"none")]})
        shown = {k: plain(v) for k, v in scope.items() if k != "asgi"}
        await send({"type": "websocket.send", "text": json.dumps(shown)})
        await send({"type": "websocket.close", "code": 3001, "reason": "told"})
        noted.append((await receive())["type"])


    async def deny(scope, receive, send):
        await send({"type": "websocket.http.response.start", "status": 418,
                    "headers": [(b"x-why", b"tea")]})
        await send({"type": "websocket.http.response.body", "body": b"I am ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"a teapot"})


    async def refuse(scope, receive, send):
        await send({"type": "websocket.close", "code": 4000})


    async def raise_early(scope, receive, send):
        raise ValueError("early")


    async def raise_late(scope, receive, send):
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "before"})
        raise ValueError("late")


    async def silent(scope, receive, send):
        pass


    async def returns(scope, receive, send):
        await send({"type": "websocket.accept"})


    async def never(scope, receive, send):
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            noted.append("cancelled")
            raise


    async def flood(scope, receive, send):
        """Sends without end until the client is gone."""
        await send({"type": "websocket.accept"})
        try:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(100000)})
                count["sent"] += 1
        except OSError:
            noted.append("flood ended")


    async def sink(scope, receive, send):
        """Takes nothing until a file says so."""
        await receive()
        await send({"type": "websocket.accept"})
        while not os.path.exists(os.path.join(HERE, "go")):
            await asyncio.sleep(0.01)
        while (await receive())["type"] == "websocket.receive":
            count["received"] += 1


    app.__name__ = "app"


    @serve.deployment(max_ongoing_requests=MAX_ONGOING)
    @serve.ingress(app)
    class Sockets:
        pass


    app = Sockets.bind()
'''

CHAT = '''\
    from fastapi import FastAPI, WebSocket, WebSocketDisconnect
    from ray import serve

    api = FastAPI()
    left = []


    @serve.deployment
    class Model:
        def words(self, prompt):
            for word in prompt.split():
                yield word.upper()


    @serve.deployment
    @serve.ingress(api)
    class Chat:
        def __init__(self, model):
            self.model = model.options(stream=True)

        @api.websocket("/talk/{name}")
        async def talk(self, ws: WebSocket, name: str, greeting: str = "hello"):
            await ws.accept(subprotocol="chat")
            await ws.send_json({"say": f"{greeting} {name}", "id": ws.headers["x-request-id"]})
            try:
                async for prompt in ws.iter_text():
                    async for word in self.model.words.remote(prompt):
                        await ws.send_text(word)
            except WebSocketDisconnect as e:
                left.append(e.code)
            left.append(name)

        @api.get("/left")
        def left(self):
            return left


    app = Chat.bind(Model.bind())
'''

PLAIN = '''\
    from ray import serve

    @serve.deployment
    class Plain:
        def __call__(self, request):
            return "plain"

    app = Plain.bind()
'''


def descriptors(pid: int) -> int:
    return len(os.listdir("/proc/%d/fd" % pid))


class WebSockets(ServeTest):
    def sockets(self, *args: str, max_ongoing: int = 300, **kwargs: Any) -> Server:
        return self.serve_code(APP.replace("MAX_ONGOING", str(max_ongoing)), *args, **kwargs)

    def state(self, s: Server) -> Any:
        return s.call("/").json()

    def wait_noted(self, s: Server, *what: Any) -> None:
        wait_until("the application noted %s" % (what,),
                   lambda: all(w in self.state(s)["noted"] for w in what))

    def queued(self, s: Server) -> float:
        lines = s.rest(path="/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines
                   if line.startswith("ray_serve_deployment_queued_queries{"))

    # --- messages

    def test_messages(self) -> None:
        s = self.sockets()
        with WebSocket(s.port, "/echo") as ws:
            self.assertEqual(ws.status, 101)
            for message in ("a", "", "ü€😀" * 1000, b"", b"\0\xff", os.urandom(65536), "x" * 70000,
                            os.urandom(1 << 20), os.urandom(16 << 20)):
                ws.send(message)
                self.assertEqual(ws.recv(), message)
            ws.close(1000, "bye")
            self.assertEqual(ws.recv(), Closed(1000, "bye"))
            self.assertTrue(ws.ends())
        self.wait_noted(s, [1000, "bye"])
        with WebSocket(s.port, "/echo") as ws:
            ws.close(None)
            self.assertEqual(ws.recv(), Closed(None, ""))
        self.wait_noted(s, [1005, ""])

    def test_fragments_and_pings(self) -> None:
        s = self.sockets()
        with WebSocket(s.port, "/echo") as ws:
            parts = ["grün".encode()[:3], "grün".encode()[3:], b"", b"!"]
            ws.raw(frame(TEXT, parts[0], fin=False))
            ws.raw(frame(PING, b"in between"))
            ws.raw(frame(MORE, parts[1], fin=False) + frame(MORE, parts[2], fin=False))
            ws.raw(frame(MORE, parts[3]))
            f = ws.frame()
            self.assertEqual((f.opcode, f.data), (PONG, b"in between"))
            self.assertEqual(ws.recv(), "grün!")
            ws.raw(frame(PONG, b"nobody asked"))
            for byte in frame(BINARY, b"byte by byte"):
                ws.raw(bytes([byte]))
            self.assertEqual(ws.recv(), b"byte by byte")
            ws.raw(b"".join(frame(TEXT, b"%d" % i) for i in range(1000)))
            self.assertEqual([ws.recv() for _ in range(1000)], [str(i) for i in range(1000)])

    def test_scope_and_answer(self) -> None:
        s = self.sockets()
        with WebSocket(s.port, "/about?a=%20b", {"Sec-WebSocket-Protocol": "one, two",
                                                  "X-Request-Id": "mine"}) as ws:
            self.assertEqual(ws.headers["sec-websocket-protocol"], "two")
            self.assertEqual(ws.headers["x-extra"], "1")
            self.assertNotIn("sec-websocket-extensions", ws.headers)
            scope = json.loads(ws.recv())
            self.assertEqual(ws.recv(), Closed(3001, "told"))
            ws.close(3001)
            self.assertTrue(ws.ends())
        headers = dict((k, v) for k, v in scope.pop("headers"))
        self.assertEqual(headers["x-request-id"], "mine")
        self.assertEqual(headers["sec-websocket-version"], "13")
        self.assertEqual(scope.pop("client")[0], "127.0.0.1")
        self.assertEqual(scope, {
            "type": "websocket", "http_version": "1.1", "scheme": "ws", "path": "/about",
            "raw_path": "/about", "query_string": "a=%20b", "root_path": "", "state": {},
            "server": ["127.0.0.1", s.port], "subprotocols": ["one", "two"],
            "extensions": {"websocket.http.response": {}}})
        self.wait_noted(s, "websocket.disconnect")

    @unittest.skipUnless(importlib.util.find_spec("fastapi"), "FastAPI is not installed")
    def test_fastapi_under_a_prefix(self) -> None:
        """A class-based view that streams what another deployment generates."""
        path = self.write_app(CHAT)
        self.write("app.yaml", "applications:\n- name: app\n  route_prefix: /chat\n"
                               "  import_path: served:app\n")
        s = self.serve(path)
        with WebSocket(s.port, "/chat/talk/you?greeting=hi",
                       {"Sec-WebSocket-Protocol": "chat", "X-Request-Id": "r1"}) as ws:
            self.assertEqual(ws.headers["sec-websocket-protocol"], "chat")
            self.assertEqual(json.loads(ws.recv()), {"say": "hi you", "id": "r1"})
            for _ in range(3):
                ws.send("many little words")
                self.assertEqual([ws.recv() for _ in range(3)], ["MANY", "LITTLE", "WORDS"])
            ws.send("never read")
        wait_until("the view ended", lambda: "you" in s.call("/chat/left").json())
        for path, status in (("/chat/nowhere", 403), ("/elsewhere", 404)):
            with WebSocket(s.port, path) as ws:
                self.assertEqual(ws.status, status)

    # --- handshakes

    def test_handshakes(self) -> None:
        s = self.sockets()
        for headers, method, status in (
                ({"Sec-WebSocket-Version": "8"}, "GET", 426),
                ({"Sec-WebSocket-Version": None}, "GET", 426),
                ({"Sec-WebSocket-Key": None}, "GET", 400),
                ({"Sec-WebSocket-Key": "short"}, "GET", 400),
                ({}, "PUT", 400)):
            with WebSocket(s.port, "/echo", headers, method) as ws:
                self.assertEqual(ws.status, status, headers)
                if status == 426:
                    self.assertEqual(ws.headers["sec-websocket-version"], "13")
        with socket.create_connection(("127.0.0.1", s.port), timeout=20) as sock:
            sock.sendall(handshake("/echo", {"Content-Length": "3"})[0] + b"abc")
            self.assertTrue(sock.recv(100).startswith(b"HTTP/1.1 400 "))
        # no handshake: requests like any other
        for headers, version in (({"Upgrade": None}, "HTTP/1.1"), ({"Upgrade": "h2c"}, "HTTP/1.1"),
                                 ({"Connection": None}, "HTTP/1.1"), ({}, "HTTP/1.0")):
            with WebSocket(s.port, "/echo", headers, version=version) as ws:
                self.assertEqual(ws.status, 200, headers)
        with WebSocket(s.port, "/echo", {"Upgrade": "WebSocket", "Connection": "upgrade"}) as ws:
            self.assertEqual(ws.status, 101)

    def test_refusals_of_the_application(self) -> None:
        s = self.sockets()
        with WebSocket(s.port, "/deny") as ws:
            self.assertEqual((ws.status, ws.headers["x-why"]), (418, "tea"))
            self.assertEqual(ws.headers["transfer-encoding"], "chunked")
            text = b""
            while True:
                size = int(ws.file.readline(), 16)
                text += ws.file.read(size + 2)[:-2]
                if not size:
                    break
            self.assertEqual(text, b"I am a teapot")
        for path, status in (("/refuse", 403), ("/raise_early", 500), ("/silent", 500)):
            with WebSocket(s.port, path) as ws:
                self.assertEqual(ws.status, status, path)
                self.assertIn("content-length", ws.headers)
        with WebSocket(s.port, "/returns") as ws:
            self.assertEqual((ws.status, ws.recv()), (101, Closed(1000, "")))
        with WebSocket(s.port, "/raise_late") as ws:
            self.assertEqual(ws.recv(), "before")
            self.assertTrue(ws.ends(), "no close frame")
        self.assertEqual(self.state(s)["open"], 0)

    def test_the_time_limit_is_one_for_the_handshake(self) -> None:
        s = self.sockets()
        limit = {"X-Request-Timeout-Seconds": "0.3"}
        with WebSocket(s.port, "/never", limit) as ws:
            self.assertEqual(ws.status, 408)
        self.wait_noted(s, "cancelled")
        with WebSocket(s.port, "/echo", limit) as ws:
            time.sleep(0.5)  # longer than the limit
            ws.send("still here")
            self.assertEqual(ws.recv(), "still here")

    def test_slots_and_queue(self) -> None:
        s = self.sockets(max_ongoing=2, deployments="- name: Sockets\n  max_queued_requests: 1\n")
        held = [WebSocket(s.port, "/echo") for _ in range(2)]
        for ws in held:
            ws.send("x")
            self.assertEqual(ws.recv(), "x")
        waiting = socket.create_connection(("127.0.0.1", s.port), timeout=20)
        waiting.sendall(handshake("/echo", {})[0])
        wait_until("it waits", lambda: self.queued(s) == 1)
        with WebSocket(s.port, "/echo") as ws:
            self.assertEqual(ws.status, 503)
            self.assertIn(b"max_queued_requests=1", ws.body())
        held[0].close()
        self.assertEqual(held[0].recv(), Closed(1000, ""))
        self.assertTrue(waiting.recv(100).startswith(b"HTTP/1.1 101 "))
        waiting.close()
        for ws in held:
            ws.drop()
        wait_until("all slots are free again", lambda: self.state(s)["open"] == 0)

    def test_replicas_that_take_none(self) -> None:
        s = self.serve_code(PLAIN)
        with WebSocket(s.port, "/") as ws:
            self.assertEqual((ws.status, ws.body()),
                             (501, b"This application does not take WebSocket connections."))
        self.assertEqual(s.call("/").text, "plain")

    # --- clients that misbehave

    def test_broken_clients(self) -> None:
        s = self.sockets()
        before = descriptors(s.pid)
        text = frame(TEXT, b"text")
        for name, data, code in (
                ("no mask", frame(TEXT, b"x", mask=None), 1002),
                ("reserved bit", frame(TEXT, b"x", reserved=4), 1002),
                ("opcode 3", frame(3), 1002),
                ("continuation of nothing", frame(MORE, b"x"), 1002),
                ("message in a message", frame(TEXT, b"x", fin=False) + text, 1002),
                ("ping in pieces", frame(PING, b"x", fin=False), 1002),
                ("long ping", frame(PING, b"x" * 126), 1002),
                ("close code 1005", frame(CLOSE, struct.pack(">H", 1005)), 1002),
                ("no UTF-8", frame(TEXT, b"\xc3("), 1007),
                ("cut UTF-8", frame(TEXT, b"abc\xe2\x82"), 1007),
                ("too big", b"\x82\xff" + struct.pack(">Q", (16 << 20) + 1) + b"mask", 1009),
                ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 1002),
                ("noise", bytes(range(256)) * 50, 1002)):
            with self.subTest(name), WebSocket(s.port, "/echo") as ws:
                ws.raw(text)
                self.assertEqual(ws.recv(), "text")
                ws.raw(data)
                closed = ws.recv()
                assert isinstance(closed, Closed)
                self.assertEqual(closed.code, code)
                self.assertTrue(ws.ends())
        wait_until("the application heard of all",
                   lambda: self.state(s)["noted"] == [[1006, ""]] * 13)
        wait_until("no descriptor is left", lambda: descriptors(s.pid) <= before, 15)
        with WebSocket(s.port, "/echo") as ws:
            self.assertEqual(ws.status, 101)

    def test_clients_that_vanish(self) -> None:
        s = self.sockets()
        before = descriptors(s.pid)
        for after in (b"", frame(TEXT, b"part", fin=False), frame(BINARY, bytes(1000))[:500]):
            ws = WebSocket(s.port, "/echo")
            ws.raw(after)
            ws.drop()
        wait_until("the application heard of all",
                   lambda: self.state(s)["noted"] == [[1006, ""]] * 3)
        # while the handshake waits
        waiting = socket.create_connection(("127.0.0.1", s.port))
        waiting.sendall(handshake("/never", {})[0])
        wait_until("it is there", lambda: self.state(s)["open"] == 1)
        waiting.close()
        self.wait_noted(s, "cancelled")
        wait_until("nothing is open", lambda: self.state(s)["open"] == 0)
        wait_until("no descriptor is left", lambda: descriptors(s.pid) <= before, 15)

    def test_a_client_that_does_not_read(self) -> None:
        s = self.sockets()
        ws = WebSocket(s.port, "/flood", receive_buffer=8192)

        def stands() -> bool:
            one = self.state(s)["sent"]
            time.sleep(0.2)
            return one > 0 and self.state(s)["sent"] == one
        wait_until("the application is held back", stands)
        sent = self.state(s)["sent"]
        self.assertLess(sent * 100000, 16 << 20, "so much is held in between")
        for _ in range(sent + 20):  # it goes on where it stood
            self.assertEqual(ws.recv(), bytes(100000))
        ws.drop()
        self.wait_noted(s, "flood ended")

    def test_an_application_that_does_not_read(self) -> None:
        s = self.sockets()
        ws = WebSocket(s.port, "/sink")
        ws.sock.settimeout(0.5)
        message, sent = frame(BINARY, bytes(100000)), 0
        part = b""
        try:
            while sent < 1000:
                part = message
                while part:
                    part = part[ws.sock.send(part):]
                sent += 1
        except OSError:
            pass
        self.assertLess(sent, 300, "so much is held in between")
        self.assertEqual(self.state(s)["received"], 0)
        with open(os.path.join(self.folder, "go"), "w", encoding="utf-8"):
            pass
        ws.sock.settimeout(20)
        ws.raw(part)
        wait_until("all of it came",
                   lambda: self.state(s)["received"] == sent + (1 if part else 0))
        ws.drop()

    # --- many, and what else may happen

    def test_many_at_once(self) -> None:
        s = self.sockets()
        before = descriptors(s.pid)
        open_ones: List[WebSocket] = [WebSocket(s.port, "/echo") for _ in range(200)]
        for _ in range(3):
            for i, ws in enumerate(open_ones):
                ws.send("message %d" % i)
            for i, ws in enumerate(open_ones):
                self.assertEqual(ws.recv(), "message %d" % i)
        self.assertEqual(self.state(s)["open"], 200)
        text = s.rest(path="/metrics").text
        ongoing = [line for line in text.splitlines()
                   if line.startswith("ray_serve_replica_processing_queries{")]
        self.assertTrue(any(line.endswith(" 200.0") for line in ongoing), ongoing)
        for i, ws in enumerate(open_ones):
            if i % 2:
                ws.close(1001)
                self.assertEqual(ws.recv(), Closed(1001, ""))
            ws.drop()
        wait_until("nothing is open", lambda: self.state(s)["open"] == 0)
        wait_until("no descriptor is left", lambda: descriptors(s.pid) <= before, 15)

        def counted(code: str) -> bool:
            return any(line.startswith("ray_serve_num_http_requests_total{") and
                       'method="WS"' in line and 'status_code="%s"' % code in line and
                       line.endswith(" 100.0")
                       for line in s.rest(path="/metrics").text.splitlines())
        wait_until("they are counted by close code", lambda: counted("1001") and counted("1006"))

    def test_the_replica_is_killed(self) -> None:
        s = self.sockets()
        before = descriptors(s.pid)
        pid = self.state(s)["pid"]
        held = [WebSocket(s.port, "/echo") for _ in range(20)]
        for ws in held:
            ws.send("x")
            self.assertEqual(ws.recv(), "x")
        os.kill(pid, signal.SIGKILL)
        for ws in held:
            closed = ws.recv()
            assert isinstance(closed, Closed)
            self.assertEqual(closed.code, 1011)
            self.assertTrue(ws.ends())
            ws.drop()
        wait_until("another one serves", lambda: self.state(s)["pid"] != pid)
        with WebSocket(s.port, "/echo") as ws:
            ws.send("again")
            self.assertEqual(ws.recv(), "again")
        wait_until("no descriptor is left", lambda: descriptors(s.pid) <= before, 15)

    def test_the_server_stops(self) -> None:
        s = self.sockets()
        held = [WebSocket(s.port, "/echo") for _ in range(4)]
        s.send(signal.SIGTERM)
        for ws in held:
            self.assertEqual(ws.recv(), Closed(1012, ""))
            ws.close(1012)
            self.assertTrue(ws.ends())
            ws.drop()
        self.assertEqual(s.wait_exit(), 0)

    def test_the_replica_has_to_go(self) -> None:
        """An application that is deleted gives its connections the time it was told, no more."""
        s = self.sockets(deployments="- name: Sockets\n  graceful_shutdown_timeout_s: 0.5\n")
        with WebSocket(s.port, "/echo") as ws:
            self.assertEqual(s.rest("DELETE").status, 200)
            self.assertEqual(ws.recv(), Closed(1012, "the replica was stopped"))
            self.assertTrue(ws.ends())

    def test_from_another_node(self) -> None:
        port, dashboard, join = free_port(), free_port(), free_port()
        head = self.spawn("head", "--num-cpus", "0", "--host", "127.0.0.1", "--port", str(port),
                          "--dashboard-port", str(dashboard), "--listen", "127.0.0.1:%d" % join)
        head.port, head.dashboard, head.join = port, dashboard, join
        head.wait_rest()
        worker = self.spawn("worker", "--address", "127.0.0.1:%d" % join, "--num-cpus", "2",
                            "--host", "127.0.0.1", "--port", "0")
        self.write_app(APP.replace("MAX_ONGOING", "20"))
        answer = head.rest("PUT", {"applications": [{
            "name": "app", "route_prefix": "/", "import_path": "served:app",
            "rserve": {"app_dir": self.folder}}]})
        self.assertEqual(answer.status, 200, answer.text)
        head.wait_apps("RUNNING")
        with WebSocket(head.port, "/echo") as ws:
            for message in ("over there", os.urandom(3 << 20)):
                ws.send(message)
                self.assertEqual(ws.recv(), message)
            ws.close(4242, "done")
            self.assertEqual(ws.recv(), Closed(4242, "done"))
        self.wait_noted(head, [4242, "done"])
        ws = WebSocket(head.port, "/echo")
        ws.drop()
        self.wait_noted(head, [1006, ""])
        with WebSocket(head.port, "/echo") as ws:
            ws.send("x")
            self.assertEqual(ws.recv(), "x")
            worker.send(signal.SIGKILL)
            closed = ws.recv()
            assert isinstance(closed, Closed)
            self.assertEqual(closed.code, 1011)


if __name__ == "__main__":
    main()
