#!/usr/bin/env python3
"""The policy of task consumers beside brokers that answer, refuse, hang and talk nonsense."""

import asyncio
import http.server
import json
import logging
import socket
import threading
import unittest
from types import SimpleNamespace
from typing import Any, Callable, List, Optional

from ray.serve.async_inference_autoscaling_policy import AsyncInferenceAutoscalingPolicy


class Broker:
    """A TCP server in a thread; `handle` gets each connection."""

    def __init__(self, handle: Callable[[socket.socket], None]) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.handle = handle
        threading.Thread(target=self.work, daemon=True).start()

    def work(self) -> None:
        while True:
            try:
                line, _ = self.listener.accept()
            except OSError:
                return
            with line:
                self.handle(line)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Redis:
    """Lists by their names, one password."""

    def __init__(self, password: str = "") -> None:
        self.lists = {"0": {}, "2": {}}  # type: ignore[var-annotated]
        self.password = password
        self.asked: List[List[str]] = []

    def __call__(self, line: socket.socket) -> None:
        file = line.makefile("rwb")
        database, allowed = "0", not self.password
        while True:
            head = file.readline()
            if not head:
                return
            words = []
            for _ in range(int(head[1:])):
                size = int(file.readline()[1:])
                words.append(file.read(size + 2)[:-2].decode())
            self.asked.append(words)
            if words[0] == "AUTH":
                allowed = words[-1] == self.password
                answer = "+OK" if allowed else "-WRONGPASS invalid username-password pair"
            elif not allowed:
                answer = "-NOAUTH Authentication required."
            elif words[0] == "SELECT":
                database, answer = words[1], "+OK"
            else:
                answer = ":%d" % self.lists[database].get(words[1], 0)
            file.write(answer.encode() + b"\r\n")
            file.flush()


def context(running: int, requests: float = 0, per: float = 2) -> Any:
    return SimpleNamespace(
        current_num_replicas=running, total_num_requests=requests,
        config=SimpleNamespace(get_target_ongoing_requests=lambda: per))


async def ask(policy: AsyncInferenceAutoscalingPolicy, ctx: Any) -> Any:
    """Once to have the broker asked, once more with its answer."""
    policy(ctx)
    if policy._task is not None:
        await policy._task
    return policy(ctx)[0]


class Policy(unittest.TestCase):
    def setUp(self) -> None:
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)

    def broker(self, handle: Callable[[socket.socket], None]) -> int:
        b = Broker(handle)
        self.addCleanup(b.close)
        return int(b.port)

    def of(self, url: str, ctx: Any, queue: str = "tasks", management: Optional[str] = None,
           ) -> float:
        policy = AsyncInferenceAutoscalingPolicy(url, queue, management)
        return float(asyncio.run(ask(policy, ctx)))

    def test_redis(self) -> None:
        redis = Redis()
        redis.lists["0"] = {"tasks": 5, "tasks\x06\x163": 2, "tasks\x06\x169": 1, "other": 99}
        url = f"redis://127.0.0.1:{self.broker(redis)}/0"
        self.assertEqual(self.of(url, context(running=2)), 4)
        self.assertEqual(self.of(url, context(running=2, requests=4)), 6)
        self.assertEqual(self.of(url, context(running=0)), 1)
        self.assertEqual(self.of(url, context(running=0), "empty"), 0)
        self.assertEqual(self.of(url, context(running=0, requests=1), "empty"), 1)
        self.assertEqual(self.of(url, context(running=3), "empty"), 0)

    def test_redis_with_password_and_database(self) -> None:
        redis = Redis("p@ss")
        redis.lists["2"] = {"tasks": 8}
        port = self.broker(redis)
        self.assertEqual(self.of(f"redis://me:p%40ss@127.0.0.1:{port}/2", context(1)), 4)
        self.assertEqual(redis.asked[:2], [["AUTH", "me", "p@ss"], ["SELECT", "2"]])
        self.assertEqual(self.of(f"redis://:wrong@127.0.0.1:{port}/2", context(1)), 0)
        self.assertEqual(self.of(f"redis://127.0.0.1:{port}/2", context(1)), 0)

    def test_asked_once_in_a_while(self) -> None:
        redis = Redis()
        port = self.broker(redis)

        async def many() -> None:
            policy = AsyncInferenceAutoscalingPolicy(f"redis://127.0.0.1:{port}", "tasks")
            for _ in range(20):
                await ask(policy, context(1))

        asyncio.run(many())
        self.assertEqual(len(redis.asked), 4)

    def test_the_last_answer_counts(self) -> None:
        answers: List[bytes] = [b":6\r\n" * 4, b"", b"\xff\xfe garbage\r\n" * 4,
                                b"-ERR wrong type\r\n" * 4, b":many\r\n" * 4, b"x" * 200000]

        def handle(line: socket.socket) -> None:
            line.recv(4096)
            line.sendall(answers.pop(0))

        port = self.broker(handle)

        async def some() -> None:
            policy = AsyncInferenceAutoscalingPolicy(
                f"redis://127.0.0.1:{port}", "tasks", poll_interval_s=0)
            while answers:
                policy(context(1))
                assert policy._task
                await policy._task
                self.assertEqual(policy._queue_length, 24)

        asyncio.run(some())

    def test_rabbitmq(self) -> None:
        asked: List[Any] = []

        class Api(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append((self.path, self.headers.get("Authorization")))
                found = self.path == "/api/queues/my%2Fhost/tasks"
                body = json.dumps({"name": "tasks", "messages": 10} if found else {}).encode()
                self.send_response(200 if found else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Api)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        api = f"http://u:p%3A@127.0.0.1:{server.server_port}/api"
        self.assertEqual(self.of("amqp://x:y@nowhere/my%2Fhost", context(1), management=api), 5)
        self.assertEqual(asked[0][1], "Basic dTpwOg==")
        self.assertEqual(self.of("amqp://x:y@nowhere", context(1), management=api), 0)

    def test_wrong_urls(self) -> None:
        for url, management in (("tasks", None), ("http://x", None), ("redis://x/first", None),
                                ("amqp://x", "ftp://x")):
            with self.subTest(url=url), self.assertRaises(ValueError):
                AsyncInferenceAutoscalingPolicy(url, "q", management)


if __name__ == "__main__":
    unittest.main()
