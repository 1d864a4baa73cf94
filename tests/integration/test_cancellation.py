#!/usr/bin/env python3
"""A request that is no longer wanted: everything that was done for it stops, in every process."""

import os
import socket

from harness import ServeTest, Server, main, wait_until

CODE = '''
import asyncio, os, threading
from ray import serve

HERE = os.path.dirname(__file__)

def note(text):
    with open(os.path.join(HERE, "notes"), "a") as f:
        f.write(text + chr(10))

async def forever(name):
    note(name + " began")
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        note(name + " cancelled")
        raise

@serve.deployment(max_ongoing_requests=4, ray_actor_options={"num_cpus": 0.1})
class Leaf:
    async def wait(self, name):
        await forever(name)
    async def items(self, name):
        note(name + " began")
        try:
            while True:
                yield name
                await asyncio.sleep(0.01)
        finally:
            note(name + " closed")
    async def ok(self):
        return "ok"

@serve.deployment(max_ongoing_requests=4, ray_actor_options={"num_cpus": 0.1})
class Middle:
    def __init__(self, leaf):
        self.leaf = leaf
    async def both(self):
        calls = [self.leaf.wait.remote("leaf1"), self.leaf.wait.remote("leaf2")]
        await asyncio.gather(*calls)
    async def stream(self):
        async for item in self.leaf.options(stream=True).items.remote("items"):
            pass
    def in_thread(self):
        note("thread began")
        self.leaf.wait.remote("leaf3").result()
    async def unawaited(self):
        self.response = self.leaf.wait.remote("leaf4")
        await forever("middle")

@serve.deployment(max_ongoing_requests=4, ray_actor_options={"num_cpus": 0.1})
class Front:
    def __init__(self, middle, leaf):
        self.middle, self.leaf = middle, leaf
    async def __call__(self, request):
        what = request.query_params["do"]
        if what == "ok":
            return await asyncio.gather(*[self.leaf.ok.remote() for _ in range(4)])
        if what == "cancel":
            response = self.middle.both.remote()
            while not os.path.exists(os.path.join(HERE, "go")):
                await asyncio.sleep(0.01)
            response.cancel()
            try:
                await response
            except BaseException as e:
                return [type(e).__name__, response.cancelled()]
        try:
            await getattr(self.middle, what).remote()
        except asyncio.CancelledError:
            note("front cancelled")
            raise

leaf = Leaf.bind()
app = Front.bind(Middle.bind(leaf), leaf)
'''


class Cancellation(ServeTest):
    def notes(self) -> set:
        try:
            with open(os.path.join(self.folder, "notes"), encoding="utf-8") as f:
                return set(f.read().split("\n")) - {""}
        except FileNotFoundError:
            return set()

    def wait_notes(self, *wanted: str) -> None:
        try:
            wait_until("all is noted", lambda: set(wanted) <= self.notes())
        except AssertionError:
            self.assertEqual(self.notes() & set(wanted), set(wanted))

    def leave(self, s: Server, what: str, *began: str) -> None:
        """A client that hangs up once all this has begun."""
        with socket.create_connection(("127.0.0.1", s.port)) as sock:
            sock.sendall(b"GET /?do=%s HTTP/1.1\r\nhost: x\r\n\r\n" % what.encode())
            self.wait_notes(*began)

    def test_down_the_whole_graph(self) -> None:
        s = self.serve_code(CODE)
        self.leave(s, "both", "leaf1 began", "leaf2 began")
        self.wait_notes("front cancelled", "leaf1 cancelled", "leaf2 cancelled")
        self.leave(s, "in_thread", "thread began", "leaf3 began")
        self.wait_notes("leaf3 cancelled")  # the thread itself cannot be stopped; its call can
        self.leave(s, "unawaited", "middle began", "leaf4 began")
        self.wait_notes("middle cancelled", "leaf4 cancelled")
        # every slot is free
        self.assertEqual(s.call("/?do=ok").json(), ["ok"] * 4)

    def test_by_a_handle(self) -> None:
        s = self.serve_code(CODE)
        with socket.create_connection(("127.0.0.1", s.port)) as sock:
            sock.sendall(b"GET /?do=cancel HTTP/1.1\r\nhost: x\r\n\r\n")
            self.wait_notes("leaf1 began", "leaf2 began")
            self.write("go", "")
            self.wait_notes("leaf1 cancelled", "leaf2 cancelled")
            sock.settimeout(20)
            text = sock.recv(65536).decode()
        self.assertIn('["RequestCancelledError",true]', text)
        self.assertEqual(s.call("/?do=ok").json(), ["ok"] * 4)

    def test_streams_close(self) -> None:
        s = self.serve_code(CODE)
        self.leave(s, "stream", "items began")
        self.wait_notes("items closed", "front cancelled")
        self.assertEqual(s.call("/?do=ok").json(), ["ok"] * 4)


if __name__ == "__main__":
    main()
