#!/usr/bin/env python3
"""Declared graphs: stages of all kinds, and what goes wrong in them."""

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import unittest
from typing import Any, List

from harness import (C_ECHO, RSERVE, Answer, ServeTest, Server, call, free_port, main,
                     rserve, wait_until)
from websocket_client import handshake

# A stage as a plain HTTP server. What it does is asked for by a header: `x-NAME: hang` and so on.
STAGE = """
    import json, os, select, socket, sys, threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    port, name, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    lock, calls = threading.Lock(), 0

    def note(what, text=""):
        with lock, open(os.path.join(folder, name + "." + what), "a") as f:
            f.write(text + "\\n")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        def log_message(self, *args): pass
        def do_GET(self):
            if self.path == "/health":
                self.send(200, b"{}")
            else:
                self.do_POST()
        def send(self, status, data, kind="application/json"):
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            note("calls", self.headers.get("x-request-id", ""))
            how = self.headers.get("x-" + name, "")
            if how == "hang":
                note("hangs")
                select.select([self.connection], [], [], 60)
                gone = not self.connection.recv(1, socket.MSG_PEEK)
                note("left" if gone else "spoken-to")
                self.close_connection = True
            elif how == "wait":
                note("waits")
                while not os.path.exists(os.path.join(folder, "go")):
                    select.select([], [], [], 0.02)
                self.send(200, json.dumps({"name": name, "pid": os.getpid()}).encode())
            elif how == "die":
                os.kill(os.getpid(), 9)
            elif how == "die-once" and not os.path.exists(os.path.join(folder, "died")):
                open(os.path.join(folder, "died"), "w").close()
                os.kill(os.getpid(), 9)
            elif how == "garbage":
                self.send(200, b"{oops")
            elif how == "huge":
                self.send(200, b"[" + b"1," * 3000000 + b"1]")
            elif how.isdigit():
                self.send(int(how), b'{"detail": "as you wish"}')
            elif how == "stream":
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                for i in range(1000000):
                    data = b"data: %d\\n\\n" % i
                    self.wfile.write(b"%x\\r\\n%s\\r\\n" % (len(data), data))
                    self.wfile.flush()
                    if i == 0:
                        while not os.path.exists(os.path.join(folder, "go")):
                            select.select([], [], [], 0.02)
                    if i == 3 and not self.headers.get("x-forever"):
                        break
                self.wfile.write(b"0\\r\\n\\r\\n")
            else:
                text = body.decode("utf-8", "replace")
                self.send(200, json.dumps({
                    "name": name, "label": name[0], "score": len(name), "path": self.path,
                    "method": self.command, "length": len(body), "body": text[:200],
                    "own": self.headers.get("x-own", ""),
                    "type": self.headers.get("content-type", "")}).encode())

    class Server(ThreadingHTTPServer):
        request_queue_size = 128
    Server(("127.0.0.1", port), Handler).serve_forever()
"""

DEPLOYMENT = """\
  - name: %(name)s
    max_ongoing_requests: %(ongoing)d
    ray_actor_options: {num_cpus: 0.1}
    rserve: {kind: http, command: 'python3 stage.py {port} %(name)s .', ready: {path: /health}}
"""


class Graphs(ServeTest):
    def app(self, graph: str, names: str = "aa ab ba", ongoing: int = 16) -> str:
        self.write("stage.py", STAGE)
        text = "applications:\n- name: g\n  route_prefix: /g\n  rserve:\n    graph: %s\n" \
               "  deployments:\n" % graph
        for name in names.split():
            text += DEPLOYMENT % {"name": name, "ongoing": ongoing}
        return self.write("app.yaml", text)

    def start_graph(self, graph: str, *args: Any, **kwargs: Any) -> Server:
        return self.serve(self.app(graph, *args, **kwargs), "--num-cpus", "2")

    def count(self, name: str, what: str = "calls") -> int:
        try:
            with open(os.path.join(self.folder, "%s.%s" % (name, what))) as f:
                return len(f.readlines())
        except FileNotFoundError:
            return 0

    def metric(self, s: Server, name: str, **labels: str) -> float:
        total = 0.0
        for line in call(s.dashboard, "/metrics").text.splitlines():
            if line.startswith(name + "{") and all(
                    '%s="%s"' % i in line for i in labels.items()):
                total += float(line.rsplit(" ", 1)[1])
        return total

    # --- what stages are asked, and what comes out ---

    def test_sequence_and_merge(self) -> None:
        s = self.start_graph("{sequence: [aa, {parallel: [ab, {call: ba, path: '/p?q=1', "
                             "headers: {x-own: set}}]}]}")
        answer = s.call("/g/x?y=1", body=b"hello", headers={"content-type": "text/plain",
                                                             "x-request-id": "me-1"})
        self.assertEqual(answer.status, 200, answer.text)
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertEqual(answer.headers["x-request-id"], "me-1")
        out = answer.json()
        self.assertEqual(list(out), ["ab", "ba"])
        first = json.loads(out["ab"]["body"])
        self.assertEqual((first["name"], first["path"], first["method"], first["body"]),
                         ("aa", "/x?y=1", "POST", "hello"))
        self.assertEqual((out["ab"]["path"], out["ba"]["path"]), ("/x?y=1", "/p?q=1"))
        self.assertEqual((out["ab"]["own"], out["ba"]["own"]), ("", "set"))
        self.assertEqual(out["ba"]["type"], "application/json")
        # One id from end to end.
        for name in ("aa", "ab", "ba"):
            with open(os.path.join(self.folder, name + ".calls")) as f:
                self.assertEqual(f.read().split(), ["me-1"])

    def test_long_bodies(self) -> None:
        s = self.start_graph("{parallel: [aa, ab, ba], merge: mean, field: length}")
        for size in (70000, 3000000):
            answer = s.call("/g", body=b"x" * size)
            self.assertEqual(answer.json(), {"length": float(size), "of": 3})
        answer = s.call("/g", body=b"x" * (17 << 20))
        self.assertEqual(answer.status, 413)

    @unittest.skipUnless(C_ECHO, "the C replica was not built")
    def test_stages_of_all_kinds(self) -> None:
        self.write("stage.py", STAGE)
        self.write("served.py", """
            from ray import serve
            @serve.deployment(max_ongoing_requests=10, ray_actor_options={"num_cpus": 0.1})
            class Upper:
                async def __call__(self, request):
                    return {"upper": (await request.body()).decode().upper(),
                            "path": request.url.path}
            app = Upper.bind()
        """)
        self.write("app.yaml", """\
            applications:
            - name: kinds
              route_prefix: /k
              import_path: served:app
              rserve:
                graph: {parallel: [Upper, {call: echo, path: /echo}, web], merge: object}
              deployments:
              - name: echo
                rserve: {kind: exec, command: %s}
              - name: web
                rserve:
                  kind: http
                  command: python3 stage.py {port} web .
                  ready: {path: /health}
        """ % C_ECHO)
        s = self.serve(os.path.join(self.folder, "app.yaml"), "--num-cpus", "4")
        answer = s.call("/k/here", body=b"abc", headers={"content-type": "text/plain"})
        self.assertEqual(answer.status, 200, answer.text)
        out = answer.json()
        self.assertEqual(out["Upper"], {"upper": "ABC", "path": "/k/here"})
        self.assertEqual(out["web"]["body"], "abc")
        self.assertIn("abc", json.dumps(out["echo"]))

    def test_split_and_switch(self) -> None:
        s = self.start_graph("{switch: {json: kind, cases: {list: {split: aa, items: texts, "
                             "parallelism: 2}, one: ab}, default: {answer: {status: 404}}}}")
        answer = s.call("/g", body={"kind": "list", "texts": ["x", 2, {"y": 1}]})
        self.assertEqual([i["body"] for i in answer.json()], ['"x"', "2", '{"y":1}'])
        self.assertEqual(s.call("/g", body={"kind": "one"}).json()["name"], "ab")
        self.assertEqual(s.call("/g", body={"kind": "none"}).status, 404)
        bad = s.call("/g", body={"kind": "list", "texts": "x"})
        self.assertEqual(bad.status, 400)
        self.assertOneLine(bad.text, "stage 'split'", "JSON array", "texts")

    def test_streams_are_passed_on(self) -> None:
        s = self.start_graph("{sequence: [aa, {fallback: [ab, ba]}], timeout_s: 1}")
        conn = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60)
        self.addCleanup(conn.close)
        conn.request("POST", "/g", b"x", {"x-ab": "stream"})
        r = conn.getresponse()
        self.assertEqual(r.getheader("content-type"), "text/event-stream")
        self.assertEqual(r.readline(), b"data: 0\n")  # the others were not sent yet
        self.write("go", "")
        self.assertEqual(r.read().count(b"data:"), 3)

    def test_uploads_in_pieces(self) -> None:
        s = self.start_graph("{parallel: [aa, ab], merge: mean, field: length, max_body: 5000000}")
        for size in (20, 90000, 4000000):
            pieces = [b"x" * (size // 4)] * 4
            conn = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60)
            conn.request("POST", "/g", iter(pieces), encode_chunked=True,
                         headers={"transfer-encoding": "chunked"})
            answer = conn.getresponse()
            self.assertEqual(json.loads(answer.read()), {"length": size, "of": 2})
            conn.close()
        conn = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60)
        self.addCleanup(conn.close)
        try:
            conn.request("POST", "/g", iter([b"x" * 1000000] * 30), encode_chunked=True,
                         headers={"transfer-encoding": "chunked"})
        except OSError:
            pass  # it is told before it has sent all
        self.assertEqual(conn.getresponse().status, 413)

    def test_stages_on_other_nodes(self) -> None:
        port, dashboard, join = free_port(), free_port(), free_port()
        head = self.spawn("head", "--num-cpus", "0", "--host", "127.0.0.1", "--port", str(port),
                          "--dashboard-port", str(dashboard), "--listen", "127.0.0.1:%d" % join,
                          cwd=self.folder)
        head.port, head.dashboard, head.join = port, dashboard, join
        head.wait_rest()
        workers = [self.spawn("worker", "--address", "127.0.0.1:%d" % join, "--num-cpus", "1",
                              "--host", "127.0.0.1", "--port", "0", cwd=self.folder)
                   for _ in range(2)]
        self.app("{sequence: [aa, {parallel: [ab, {call: ba, retries: 1}]}]}")
        done = rserve("serve", "deploy", os.path.join(self.folder, "app.yaml"), "--address",
                      "http://127.0.0.1:%d" % dashboard)
        self.assertEqual(done.returncode, 0, done.stderr)
        head.wait_apps()
        answer = wait_until("all stages answer", lambda: (lambda a: a if a.status == 200 else None)(
            head.call("/g", body=b"x" * 100000)))
        self.assertEqual(answer.json()["ba"]["name"], "ba")
        self.assertIn('"length": 100000', answer.json()["ab"]["body"])
        with socket.create_connection(("127.0.0.1", port)) as c:
            c.sendall(b"POST /g HTTP/1.1\r\nhost: x\r\nx-ab: hang\r\ncontent-length: 1\r\n\r\nx")
            wait_until("it hangs", lambda: self.count("ab", "hangs"))
        wait_until("it was told, two nodes away", lambda: self.count("ab", "left"))
        for w in workers:
            w.send(signal.SIGKILL)
        answer = head.call("/g", body=b"x", headers={"x-request-timeout-ms": "1500"})
        self.assertIn(answer.status, (408, 502, 503, 504), answer.text)  # and in time

    def test_what_a_graph_does_not_take(self) -> None:
        s = self.start_graph("aa")
        data, _ = handshake("/g", {})
        with socket.create_connection(("127.0.0.1", s.port), timeout=60) as c:
            c.sendall(data)
            self.assertIn(b"501", c.recv(100).split(b"\r\n")[0])
        program = self.write("program.py", """
            from ray import serve
            try:
                print(serve.get_app_handle("g").remote(b"x").result(timeout_s=30))
            except Exception as e:
                print(type(e).__name__, e)
        """)
        done = subprocess.run(
            [RSERVE, "python", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            timeout=90, env=dict(os.environ, RAY_DASHBOARD_ADDRESS="127.0.0.1:%d" % s.dashboard,
                                 XDG_STATE_HOME=s.state))
        self.assertIn("declared graph", done.stdout, done.stderr)

    def test_stopping_ends_what_is_under_way(self) -> None:
        s = self.start_graph("{parallel: [aa, {call: ab, cache: {ttl_s: 60, max_bytes: 100000, "
                             "headers: [x-ab]}, shadow: {to: ba}}]}")
        answers: List[Any] = []

        def ask(**headers: str) -> None:
            try:
                answers.append(s.call("/g", body=b"x", headers=headers).status)
            except (OSError, http.client.HTTPException):
                answers.append(0)
        threads = [threading.Thread(target=ask, kwargs=h) for h in (
            {"x-aa": "hang"}, {"x-ab": "hang", "x-ba": "hang"}, {"x-ab": "hang"})]
        for t in threads:
            t.start()
        wait_until("they are at work", lambda: self.count("aa") == 3 and self.count("ab", "hangs"))
        s.send(signal.SIGTERM)
        s.wait_output("stopping: waiting for 3 requests")
        s.send(signal.SIGINT)  # the second one means now
        self.assertEqual(s.wait_exit(), 0)
        for t in threads:
            t.join(60)
        self.assertEqual(len(answers), 3)
        self.assertNotIn(200, answers)

    # --- what goes wrong ---

    def test_a_failing_stage_is_named(self) -> None:
        s = self.start_graph("{sequence: [aa, {call: ab, name: rank}]}")
        cases = {"500": 502, "503": 503, "429": 503, "504": 504, "404": 404, "422": 422}
        for status, want in cases.items():
            answer = s.call("/g", body=b"x", headers={"x-ab": status})
            self.assertEqual(answer.status, want, answer.text)
            if want >= 500:
                self.assertOneLine(answer.text, "stage 'rank' (deployment 'ab')", status)
            else:
                self.assertEqual(answer.json(), {"detail": "as you wish"})
        self.assertEqual(self.metric(s, "rserve_graph_errors_total", stage="rank",
                                     outcome="refused"), 2)
        self.assertEqual(self.metric(s, "rserve_graph_errors_total", stage="rank"), 6)
        self.assertEqual(self.metric(s, "rserve_graph_requests_total", stage="aa"), 6)

    def test_garbage_and_too_much(self) -> None:
        s = self.start_graph("{parallel: [aa, ab], merge: object, max_body: 1000000}")
        answer = s.call("/g", body=b"x", headers={"x-ab": "garbage"})
        self.assertEqual(answer.status, 502)
        self.assertOneLine(answer.text, "stage 'ab'", "expected JSON")
        answer = s.call("/g", body=b"x", headers={"x-ab": "huge"})
        self.assertEqual(answer.status, 502)
        self.assertOneLine(answer.text, "stage 'ab' (deployment 'ab')", "max_body, 1000000 bytes")
        self.assertEqual(s.call("/g", body=b"x").status, 200)

    def test_a_stage_that_is_killed(self) -> None:
        s = self.start_graph("{sequence: [aa, {call: ab, name: rank}]}")
        answer = s.call("/g", body=b"x", headers={"x-ab": "die"})
        self.assertEqual(answer.status, 502)
        self.assertOneLine(answer.text, "stage 'rank' (deployment 'ab')")
        s.wait_apps()
        self.assertEqual(s.call("/g", body=b"x").status, 200)

    def test_a_killed_stage_is_asked_again(self) -> None:
        s = self.start_graph("{sequence: [aa, {call: ab, retries: 2}]}")
        answer = s.call("/g", body=b"x", headers={"x-ab": "die-once"})
        self.assertEqual(answer.status, 200, answer.text)
        self.assertEqual(answer.json()["name"], "ab")

    def test_a_stage_that_hangs(self) -> None:
        s = self.start_graph("{parallel: [{call: aa, timeout_s: 0.3}, "
                             "{fallback: [{call: ab, timeout_s: 0.3}, ba], on: [timeout]}]}")
        answer = s.call("/g", body=b"x", headers={"x-ab": "hang"})
        self.assertEqual(answer.status, 200, answer.text)
        self.assertEqual(answer.json()["fallback"]["name"], "ba")
        wait_until("the hanging call is cancelled", lambda: self.count("ab", "left"))
        answer = s.call("/g", body=b"x", headers={"x-aa": "hang"})
        self.assertEqual(answer.status, 504)
        self.assertOneLine(answer.text, "stage 'aa' (deployment 'aa')", "0.3 s")
        self.assertEqual(self.metric(s, "rserve_graph_fallbacks_total"), 1)

    def test_a_client_that_leaves_stops_all_stages(self) -> None:
        s = self.start_graph("{parallel: [aa, ab, {sequence: [ba, aa]}], merge: array}")
        with socket.create_connection(("127.0.0.1", s.port)) as c:
            c.sendall(b"POST /g HTTP/1.1\r\nhost: x\r\nx-aa: hang\r\nx-ab: hang\r\nx-ba: hang\r\n"
                      b"content-length: 1\r\n\r\nx")
            wait_until("all three work on it", lambda: all(
                self.count(n, "hangs") for n in ("aa", "ab", "ba")))
        wait_until("all three were told", lambda: all(
            self.count(n, "left") for n in ("aa", "ab", "ba")))
        self.assertEqual(self.count("aa"), 1, "what comes next was never asked")
        self.assertEqual(s.call("/g", body=b"x").status, 200)

    def test_a_client_that_leaves_a_stream(self) -> None:
        s = self.start_graph("{sequence: [aa, ab]}")
        self.write("go", "")
        with socket.create_connection(("127.0.0.1", s.port)) as c:
            c.sendall(b"POST /g HTTP/1.1\r\nhost: x\r\nx-ab: stream\r\nx-forever: 1\r\n"
                      b"content-length: 1\r\n\r\nx")
            self.assertTrue(c.recv(100))

        def in_flight() -> float:
            return self.metric(s, "ray_serve_replica_processing_queries", deployment="ab")
        wait_until("the stage's slot is free", lambda: in_flight() == 0)
        self.assertEqual(s.call("/g", body=b"x").status, 200)

    def test_a_deadline_goes_down(self) -> None:
        path = self.app("{sequence: [aa, ab]}")
        with open(path) as f:
            text = f.read()
        self.write("app.yaml", "http_options: {request_timeout_s: 1}\n" + text)
        s = self.serve(path, "--num-cpus", "2")
        answer = s.call("/g", body=b"x", headers={"x-ab": "hang"})
        self.assertEqual(answer.status, 408)
        wait_until("the stage was told", lambda: self.count("ab", "left"))

    # --- caches, shadows, weights ---

    def test_equal_requests_share_one_answer(self) -> None:
        s = self.start_graph("{sequence: [{call: aa, cache: {ttl_s: 60, max_bytes: 100000, "
                             "headers: [x-who]}}, ab]}")
        self.write("ready", "")
        threads = []
        answers: List[Answer] = []
        for _ in range(8):
            t = threading.Thread(target=lambda: answers.append(
                s.call("/g", body=b"same", headers={"x-aa": "wait"})))
            t.start()
            threads.append(t)
        wait_until("all of them are there", lambda: self.metric(
            s, "rserve_graph_cache_total", result="shared") == 7)
        self.write("go", "")
        for t in threads:
            t.join(60)
        self.assertEqual([a.status for a in answers], [200] * 8)
        self.assertEqual((self.count("aa"), self.count("ab")), (1, 8))
        self.assertEqual(s.call("/g", body=b"same").status, 200)
        self.assertEqual(self.count("aa"), 1)
        s.call("/g", body=b"other")
        s.call("/g", body=b"same", headers={"x-who": "me"})
        self.assertEqual(self.count("aa"), 3)
        self.assertEqual(self.metric(s, "rserve_graph_cache_total", result="hit"), 1)
        self.assertEqual(self.metric(s, "rserve_graph_cache_total", result="miss"), 3)

    def test_long_answers_are_kept(self) -> None:
        s = self.start_graph("{call: aa, cache: {ttl_s: 60, max_bytes: 100000000, "
                             "headers: [x-aa]}}")
        first = s.call("/g", body=b"x", headers={"x-aa": "huge"})
        self.assertEqual((first.status, len(first.body)), (200, 6000003))
        for _ in range(3):
            again = s.call("/g", body=b"x", headers={"x-aa": "huge"})
            self.assertEqual(again.body, first.body)
            self.assertEqual(again.headers["content-type"], "application/json")
        self.assertEqual(self.count("aa"), 1)
        self.assertGreater(self.metric(s, "rserve_graph_cache_bytes"), 6000000)

    def test_who_asked_first_may_leave(self) -> None:
        s = self.start_graph("{call: aa, cache: {ttl_s: 60, max_bytes: 100000}}")
        answers: List[Answer] = []
        second = threading.Thread(target=lambda: answers.append(
            s.call("/g", body=b"x", headers={"x-aa": "wait"})))
        with socket.create_connection(("127.0.0.1", s.port)) as c:
            c.sendall(b"POST /g HTTP/1.1\r\nhost: x\r\nx-aa: wait\r\ncontent-length: 1\r\n\r\nx")
            wait_until("it is at work", lambda: self.count("aa") == 1)
            second.start()
            wait_until("the second waits for it", lambda: self.metric(
                s, "rserve_graph_cache_total", result="shared") == 1)
        wait_until("the second asks for itself", lambda: self.count("aa") == 2)
        self.write("go", "")
        second.join(60)
        self.assertEqual(answers[0].status, 200)

    def test_a_cache_is_bounded(self) -> None:
        s = self.start_graph("{call: aa, cache: {ttl_s: 600, max_bytes: 65536}}")
        for i in range(300):
            answer = s.call("/g", body=b"%d" % i)
            self.assertEqual(answer.json()["body"], str(i))
        size = self.metric(s, "rserve_graph_cache_bytes")
        self.assertTrue(20000 < size <= 65536, size)
        self.assertEqual(s.call("/g", body=b"299").json()["body"], "299")
        self.assertEqual(self.count("aa"), 300)
        self.assertEqual(s.call("/g", body=b"0").json()["body"], "0")
        self.assertEqual(self.count("aa"), 301)

    def test_shadows_have_no_effect(self) -> None:
        s = self.start_graph("{call: aa, shadow: {to: ab, limit: 1}}")
        self.assertEqual(s.call("/g", body=b"1", headers={"x-ab": "hang"}).json()["body"], "1")
        wait_until("the copy is at work", lambda: self.count("ab", "hangs") == 1)
        for _ in range(5):
            self.assertEqual(s.call("/g", body=b"2").json()["body"], "2")
        self.assertEqual(self.count("ab"), 1)
        self.assertEqual(self.metric(s, "rserve_graph_shadows_dropped_total"), 5)
        for p in s.pids("g", "ab"):
            os.kill(p, signal.SIGKILL)
        s.wait_apps()
        wait_until("there are copies again", lambda: s.call(
            "/g", body=b"3").status == 200 and self.count("ab") > 1)

    def test_a_shadow_never_waits(self) -> None:
        s = self.start_graph("{switch: {header: x-real, cases: {'1': ab}, "
                             "default: {call: aa, shadow: {to: ab}}}}", ongoing=1)
        busy = threading.Thread(target=lambda: s.call(
            "/g", body=b"x", headers={"x-real": "1", "x-ab": "wait"}))
        busy.start()
        wait_until("ab has no slot left", lambda: self.count("ab", "waits"))
        for _ in range(5):
            self.assertEqual(s.call("/g", body=b"x").status, 200)
        self.write("go", "")
        busy.join(60)
        self.assertEqual(self.count("ab"), 1)

    # --- a change ---

    def test_a_change_touches_no_replica(self) -> None:
        s = self.start_graph("{sequence: [aa, ab]}")
        pids = {n: s.pids("g", n) for n in ("aa", "ab", "ba")}
        answers: List[Answer] = []
        old = threading.Thread(target=lambda: answers.append(
            s.call("/g", body=b"x", headers={"x-aa": "wait"})))
        old.start()
        wait_until("it is under way", lambda: self.count("aa") == 1)
        self.app("{sequence: [ba, ab]}")
        done = rserve("serve", "deploy", os.path.join(self.folder, "app.yaml"), "--address",
                      "http://127.0.0.1:%d" % s.dashboard)
        self.assertEqual(done.returncode, 0, done.stderr)
        wait_until("requests go the new way", lambda: s.call(
            "/g", body=b"y").status == 200 and self.count("ba"))
        before = self.count("ba")
        self.write("go", "")
        old.join(60)
        self.assertEqual(answers[0].status, 200)
        self.assertEqual(answers[0].json()["name"], "ab")
        self.assertEqual(self.count("ba"), before, "the old request ended as it began")
        self.assertEqual({n: s.pids("g", n) for n in pids}, pids)

    # --- refusals and pictures ---

    def test_check(self) -> None:
        path = self.app("{sequence: [{call: aa, timeout_s: 1, retries: 2}, "
                        "{parallel: [ab, ba], merge: array}]}")
        done = rserve("run", "--check", path)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("sequence\n├─ aa  retries 2  timeout 1 s\n"
                      "└─ parallel  merge array\n   ├─ ab\n   └─ ba\n", done.stdout)
        self.app("{sequence: [aa, abc]}")
        done = rserve("run", "--check", path)
        self.assertNotEqual(done.returncode, 0)
        self.assertOneLine(done.stderr, "app.yaml:5:28: applications[0].rserve.graph.sequence[1]: "
                                        'no deployment or step is named "abc"; did you mean')

    def test_python_stage_that_is_not_there(self) -> None:
        self.write("served.py", """
            from ray import serve
            @serve.deployment
            class A:
                def __call__(self, request): return "a"
            app = A.bind()
        """)
        path = self.write("app.yaml", """\
            applications:
            - name: g
              import_path: served:app
              rserve: {graph: {sequence: [A, B]}}
        """)
        done = rserve("run", "--check", path, timeout=60)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("rserve.graph: stage 'B' calls deployment 'B', which does not exist",
                      done.stderr)


if __name__ == "__main__":
    main()
