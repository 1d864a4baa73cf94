#!/usr/bin/env python3
"""What an application asks of the ingress by route, live changes; and the access log."""

import concurrent.futures
import http.client
import json
import os
import signal
import socket
import threading
import time
from typing import Any, Dict, List

from harness import ServeTest, Server, call, main, rserve, wait_until

CODE = """\
    import asyncio, os, signal
    from ray import serve

    @serve.deployment(max_ongoing_requests=100, ray_actor_options={"num_cpus": 0.1})
    class Front:
        async def __call__(self, request):
            q = request.query_params
            body = await request.body()
            if "sleep" in q:
                await asyncio.sleep(float(q["sleep"]))
            if "die" in q:
                os.kill(os.getpid(), signal.SIGKILL)
            if "raise" in q:
                raise ValueError("asked for")
            return "%d bytes" % len(body)

    app = Front.bind()
    """


def config(**asked: Any) -> Dict[str, Any]:
    return {"applications": [{"name": "shop", "route_prefix": "/shop", "import_path": "served:app",
                              "rserve": asked}]}


def metric(s: Server, name: str, **labels: str) -> float:
    """The sum over all series that have these labels."""
    total = 0.0
    for line in call(s.dashboard, "/metrics").text.splitlines():
        if line.startswith(name) and all('%s="%s"' % i in line for i in labels.items()):
            total += float(line.rsplit(" ", 1)[1])
    return total


class RoutesTest(ServeTest):
    def serve_config(self, conf: Dict[str, Any], *args: str, **kwargs: Any) -> Server:
        self.write("served.py", CODE)
        path = self.write("app.json", json.dumps(conf))
        return self.serve(path, *args, **kwargs)

    def many(self, s: Server, n: int, path: str, **kwargs: Any) -> Dict[int, int]:
        """So many requests from eight clients, each on a connection of its own."""
        counts: Dict[int, int] = {}
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for status in pool.map(lambda _: s.call(path, **kwargs).status, range(n)):
                counts[status] = counts.get(status, 0) + 1
        return counts


class Limits(RoutesTest):
    def test_a_rate_is_exact_on_all_lanes(self) -> None:
        s = self.serve_config(config(
            rate_limit={"requests_per_s": 0.001, "burst": 50},
            routes=[{"path": "/all", "rate_limit": {"requests_per_s": 0.001, "burst": 9,
                                                    "key": "all"}},
                    {"path": "/key", "rate_limit": {"requests_per_s": 0.001, "burst": 3,
                                                    "key": "header:x-api-key"}},
                    {"path": "/free", "rate_limit": None}]), "--lanes", "4")
        self.assertEqual(self.many(s, 120, "/shop/x"), {200: 50, 429: 70})
        self.assertEqual(self.many(s, 20, "/shop/all"), {200: 9, 429: 11})
        for key in ("one", "two"):
            self.assertEqual(self.many(s, 10, "/shop/key", headers={"X-Api-Key": key}),
                             {200: 3, 429: 7})
        self.assertEqual(self.many(s, 60, "/shop/free"), {200: 60})
        refused = s.call("/shop/x")
        self.assertEqual(refused.status, 429)
        self.assertGreater(int(refused.headers["retry-after"]), 900)
        self.assertRegex(refused.text, r"^Too many requests; try again in \d+ s\.$")
        wait_until("all are counted", lambda: metric(
            s, "rserve_http_refused_requests_total", cause="rate_limited") == 70 + 11 + 14 + 1)
        self.assertEqual(metric(s, "ray_serve_num_http_requests_total", status_code="429"), 96)
        status = rserve("status", "--address", "http://127.0.0.1:%d" % s.dashboard)
        self.assertIn("refused by the head's node: 96 rate_limited\n", status.stdout)

    def test_each_client_has_a_bucket(self) -> None:
        s = self.serve_config(config(rate_limit={"requests_per_s": 0.001, "burst": 2}))
        for address in ("127.0.0.1", "127.0.0.2"):
            got: List[int] = []
            for _ in range(3):
                conn = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60,
                                                  source_address=(address, 0))
                conn.request("GET", "/shop")
                got.append(conn.getresponse().status)
                conn.close()
            self.assertEqual(got, [200, 200, 429], address)

    def test_never_more_than_the_rate(self) -> None:
        s = self.serve_config(config(rate_limit={"requests_per_s": 20, "burst": 5}), "--lanes", "3")
        times: List[float] = []
        odd: List[int] = []
        begin = time.monotonic()

        def work() -> None:
            while len(times) < 40:
                answer = s.call("/shop")
                if answer.status == 200:
                    times.append(time.monotonic())
                elif answer.status != 429:
                    odd.append(answer.status)
        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(odd, [])
        for i, t in enumerate(times):  # each is admitted before it is answered
            self.assertLessEqual(i + 1, 5 + 20 * (t - begin) + 1)

    def test_bodies(self) -> None:
        s = self.serve_config(config(
            max_body=1000, routes=[{"path": "/big", "methods": ["POST"], "max_body": "2MiB"}]))
        self.assertEqual(s.call("/shop", body=b"x" * 1000).text, "1000 bytes")
        refused = s.call("/shop", body=b"x" * 1001)
        self.assertEqual((refused.status, refused.text),
                         (413, "Request body is too large: at most 1000 bytes are taken here."))
        self.assertEqual(s.call("/shop/big", body=b"x" * (2 << 20)).text, "2097152 bytes")
        self.assertEqual(s.call("/shop/big", method="PUT", body=b"x" * 1001).status, 413)
        # told at once: nothing of the body was sent yet
        with socket.create_connection(("127.0.0.1", s.port), timeout=60) as c:
            c.sendall(b"POST /shop HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n")
            self.assertIn(b" 413 ", c.recv(100))
        # chunked: as soon as it is too much
        with socket.create_connection(("127.0.0.1", s.port), timeout=60) as c:
            c.sendall(b"POST /shop HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                      b"3e9\r\n" + b"x" * 1001 + b"\r\n")
            self.assertIn(b" 413 ", c.recv(100))
        wait_until("all are counted", lambda: metric(
            s, "rserve_http_refused_requests_total", cause="body_too_large", route="/shop",
            application="shop") == 4)

    def test_times(self) -> None:
        conf = config(routes=[{"path": "/slow", "request_timeout_s": 0},
                              {"path": "/quick", "request_timeout_s": 0.1}])
        conf["http_options"] = {"request_timeout_s": 0.5}
        s = self.serve_config(conf)
        self.assertEqual(s.call("/shop/slow?sleep=1.5").status, 200)
        self.assertEqual(s.call("/shop/?sleep=60").status, 408)
        self.assertEqual(s.call("/shop/quick?sleep=60").status, 408)
        self.assertEqual(s.call("/shop/quick?sleep=0.3",
                                headers={"x-request-timeout-seconds": "60"}).status, 200)


class Changes(RoutesTest):
    def put(self, s: Server, conf: Dict[str, Any]) -> Any:
        return s.rest("PUT", conf)

    def test_live_and_without_new_replicas(self) -> None:
        limit = {"requests_per_s": 0.001, "burst": 1}
        s = self.serve_config(config(rate_limit=limit))
        pids = s.pids("shop", "Front")
        self.assertEqual([s.call("/shop").status for _ in range(2)], [200, 429])
        self.assertEqual(self.put(s, config(max_body=10, rate_limit=limit)).status, 200)
        wait_until("the limit holds",
                   lambda: s.call("/shop", method="POST", body=b"x" * 11).status in (413, 429))
        self.assertEqual(s.call("/shop").status, 429)  # what was counted stays
        self.assertEqual(self.put(s, config(max_body=10)).status, 200)
        wait_until("the rate limit is gone", lambda: s.call("/shop").status == 200)
        self.assertEqual(s.call("/shop", method="POST", body=b"x" * 11).status, 413)
        self.assertEqual(self.put(s, config()).status, 200)
        wait_until("no limit is left",
                   lambda: s.call("/shop", method="POST", body=b"x" * 11).status == 200)
        self.assertEqual(s.pids("shop", "Front"), pids)

    def test_what_is_wrong_changes_nothing(self) -> None:
        s = self.serve_config(config(max_body=10))
        answer = self.put(s, config(priority=10, routes=[{"path": "v1"}]))
        self.assertEqual(answer.status, 400)
        self.assertIn("applications[0].rserve.priority: expected", answer.text)
        self.assertIn('got "v1": it must start with', answer.text)
        self.assertEqual(s.call("/shop", method="POST", body=b"x" * 11).status, 413)

    def test_check_says_what_holds(self) -> None:
        self.write("served.py", CODE)
        path = self.write("app.json", json.dumps(config(
            max_body="1MiB", routes=[{"path": "/v1", "methods": ["GET"], "priority": 9,
                                      "rate_limit": {"requests_per_s": 2}}])))
        r = rserve("run", "--check", path, env={"XDG_STATE_HOME": os.path.join(self.folder, "st")})
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertRegex(r.stdout, r"requests to GET /v1 +priority 9, body up to 1 MiB, at most "
                                   r"2 requests/s \(burst 2\) per client\n")
        self.assertRegex(r.stdout, r"requests to / +priority 5, body up to 1 MiB\n")


class AccessLog(RoutesTest):
    def lines(self, path: str) -> List[str]:
        with open(path, encoding="utf-8") as f:
            return f.read().splitlines()

    def wait_lines(self, path: str, n: int) -> List[str]:
        wait_until("%d lines" % n, lambda: os.path.exists(path) and len(self.lines(path)) >= n)
        lines = self.lines(path)
        self.assertEqual(len(lines), n, "\n".join(lines))
        return lines

    def test_a_line_per_request(self) -> None:
        conf = config(max_body=10)
        conf["http_options"] = {"rserve": {"access_log": "access.log",
                                           "access_log_format": "JSON"}}
        s = self.serve_config(conf, "--lanes", "1")  # one lane writes in order
        log = os.path.join(self.folder, "access.log")
        s.call("/shop/a%20b?secret=1", headers={"x-request-id": "one\ttwo"})
        s.call("/nowhere")
        s.call("/shop", method="POST", body=b"x" * 11)
        s.call("/shop?raise=1")
        s.call("/shop?die=1", method="POST")
        lines = [json.loads(line) for line in self.wait_lines(log, 5)]
        self.assertEqual([i["status"] for i in lines][:4], [200, 404, 413, 500])
        self.assertGreaterEqual(lines[4]["status"], 500)
        self.assertEqual([i["cause"] for i in lines],
                         ["", "no_route", "body_too_large", "exception", "replica_died"])
        first = lines[0]
        self.assertEqual((first["path"], first["method"], first["request_id"], first["bytes"]),
                         ("/shop/a%20b", "GET", "one\ttwo", 7))
        self.assertEqual((first["route"], first["application"], first["deployment"]),
                         ("/shop", "shop", "Front"))
        self.assertEqual(first["replica"], lines[3]["replica"])
        self.assertTrue(first["replica"])
        self.assertRegex(first["client"], r"^127\.0\.0\.1:\d+$")
        self.assertLess(abs(first["timestamp_ns"] / 1e9 - time.time()), 3600)

    def test_as_ray_writes_it_to_standard_output(self) -> None:
        s = self.serve_config(config(), "--access-log", "-")
        s.call("/shop", headers={"x-request-id": "abc"})
        s.wait_output("abc -- ")
        self.assertRegex(s.output(), r"(?m)^INFO \d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} proxy "
                                     r"127\.0\.0\.1 abc -- 127\.0\.0\.1:\d+ GET /shop 200 "
                                     r"\d+\.\dms bytes=7 application=shop deployment=Front "
                                     r"replica=\w+$")

    def test_nothing_without_it(self) -> None:
        s = self.serve_config(config())
        s.call("/shop", headers={"x-request-id": "abc"})
        s.stop()
        self.assertNotIn("abc", s.output())

    def test_rotation(self) -> None:
        log = os.path.join(self.folder, "access.log")
        s = self.serve_config(config(), "--access-log", log, "--lanes", "2")
        for _ in range(8):
            s.call("/shop")
        self.wait_lines(log, 8)
        os.rename(log, log + ".1")
        s.send(signal.SIGUSR1)
        wait_until("it is made anew", lambda: os.path.exists(log))
        os.rename(log, log + ".2")  # nobody says so
        served = 0

        def noticed() -> bool:
            nonlocal served
            s.call("/shop")
            served += 1
            return os.path.exists(log)
        wait_until("it is missed", noticed)
        wait_until("no line is lost", lambda: len(self.lines(log)) + len(
            self.lines(log + ".1")) + len(self.lines(log + ".2")) == 8 + served)

    def test_it_holds_nothing_up(self) -> None:
        pipe = os.path.join(self.folder, "pipe")
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        s = self.serve_config(config(), "--access-log", pipe, "--lanes", "1")
        dropped = "rserve_access_log_dropped_lines_total"
        path = "/shop/" + "x" * 10000

        def full() -> bool:
            for _ in range(20):
                self.assertEqual(s.call(path).status, 200)
            return metric(s, dropped) > 0
        wait_until("nobody reads, and lines are dropped", full, 60)
        os.close(reader)
        before = metric(s, dropped)

        def gone() -> bool:
            self.assertEqual(s.call(path).status, 200)
            return metric(s, dropped) > before
        wait_until("the reader left", gone)
        self.assertIn("lines of the access log are dropped", s.output())

    def test_it_cannot_be_opened(self) -> None:
        self.write("served.py", CODE)
        path = self.write("app.json", json.dumps(config()))
        s = self.start(path, "--access-log", os.path.join(self.folder, "none", "access.log"))
        self.assertNotEqual(s.wait_exit(), 0)
        self.assertIn("cannot open the access log", s.output())
        self.assertIn("No such file or directory", s.output())


if __name__ == "__main__":
    main()
