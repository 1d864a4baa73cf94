"""A replica whose user code blocks the event loop, or forks."""

from __future__ import annotations

import os
import pickle
import unittest
from pathlib import Path
from typing import Any

from fakenode import Answer, FakeNode, Peer, w

APP = """
import asyncio, os, threading, time
from ray import serve

started = []

def block(until):
    while not os.path.exists(until):
        time.sleep(0.005)

@serve.deployment(max_ongoing_requests=100)
class Other:
    async def __call__(self, x):
        return x * 2

@serve.deployment(max_ongoing_requests=100)
class A:
    def __init__(self, other):
        self.other = other
    async def block(self, until):
        open(until + ".blocked", "w").close()
        block(until)
        return "unblocked"
    async def flood(self, until):
        open(until + ".blocked", "w").close()
        block(until)
        while True:
            yield b"x" * 1000  # it never waits by itself
    async def eager(self):
        while True:
            yield b"x"  # much of it fits into the credit of a stream
    async def quick(self, what):
        started.append(what)
        return what
    async def seen(self):
        return started
    def relay(self, ready, go):
        open(ready, "w").close()
        block(go)
        return [self.other.remote(i).result() for i in range(3)]
    async def fork(self):
        pid = os.fork()
        if pid == 0:
            return "the child's answer"  # goes nowhere
        return os.waitpid(pid, 0)[1]
    async def fork_and_keep(self):
        pid = os.fork()
        if pid == 0:
            time.sleep(600)
        return pid

@serve.deployment(max_ongoing_requests=100)
class Checked(A.func_or_class):
    async def check_health(self):
        pass

other = Other.bind()
app = serve.deployment(name="Front")(type("Front", (), {"__init__": lambda self, *a: None})).bind(
    A.bind(other), Checked.bind(other))
"""


class Blocked(unittest.TestCase):
    node: FakeNode

    def setUp(self) -> None:
        self.node = FakeNode(APP)
        self.addCleanup(self.node.close)
        graph = self.node.build()
        assert "deployments" in graph, graph
        self.node.fork("Other")

    def path(self, name: str) -> str:
        return str(self.node.folder / name)

    def wait_file(self, name: str) -> None:
        found = self.node.eventually(lambda: os.path.exists(self.path(name)), bool)
        self.assertTrue(found, name)

    def block(self, peer: Peer) -> int:
        stream = peer.open_call("block", self.path("go"))
        self.wait_file("go.blocked")
        return stream

    def release(self, peer: Peer, stream: int) -> None:
        Path(self.path("go")).touch()
        self.assertEqual(peer.wait(stream).value(), "unblocked")

    def wait_well(self, peer: Peer) -> None:
        """Until its loop answers: on a busy machine it may yet be held up for a moment."""
        well = {"ok": True}
        self.assertEqual(self.node.eventually(peer.ping, lambda p: p == well), well)

    def test_pings_are_answered_truthfully(self) -> None:
        peer = self.node.fork("A")
        stream = self.block(peer)
        first = peer.ping()
        self.assertTrue(first["ok"])
        grown = self.node.eventually(peer.ping, lambda p: p["blocked_s"] > first["blocked_s"])
        self.assertGreater(grown["blocked_s"], first["blocked_s"])
        self.release(peer, stream)
        self.wait_well(peer)

    def test_blocked_for_too_long_is_not_healthy(self) -> None:
        peer = self.node.fork("A", health_check_timeout_s=0.05)
        stream = self.block(peer)
        pong = self.node.eventually(peer.ping, lambda p: not p["ok"])
        self.assertFalse(pong["ok"])
        self.assertRegex(
            pong["error"],
            r"^the event loop has been blocked for .* s in app\.py:\d+ \(block\); "
            r"health_check_timeout_s is 0\.05$",
        )
        self.release(peer, stream)
        self.wait_well(peer)

    def test_a_check_of_the_users_waits_for_the_loop(self) -> None:
        peer = self.node.fork("Checked")
        stream = self.block(peer)
        number = peer.stream()
        peer.send(w.PING, 0, number)
        self.node.pump_for(0.4)
        self.assertFalse(peer.control)
        self.release(peer, stream)
        frame = peer.expect(w.PONG)
        self.assertEqual((frame.stream, w.parse_json(frame)), (number, {"ok": True}))

    def test_what_was_cancelled_meanwhile_never_starts(self) -> None:
        peer = self.node.fork("A")
        stream = self.block(peer)
        numbers = [peer.open_call("quick", i) for i in range(20)]
        for number in numbers[::2]:
            peer.cancel(number)
        self.assertTrue(peer.ping()["ok"])  # it read them
        for number in numbers[1:10:2]:
            peer.cancel(number)
        peer.ping()
        self.release(peer, stream)
        for number in numbers[11::2]:
            peer.wait(number)
        self.assertEqual(peer.call("seen").value(), list(range(11, 20, 2)))

    def test_a_generator_that_never_waits_is_cancelled(self) -> None:
        peer = self.node.fork("A")
        stream = peer.open_call("flood", self.path("go"), stream=True)
        self.wait_file("go.blocked")
        peer.cancel(stream)
        self.assertTrue(peer.ping()["ok"])  # the cancellation was read
        Path(self.path("go")).touch()
        self.assertEqual(peer.call("quick", 1).value(), 1)

    def test_a_generator_that_never_waits_lets_others_in(self) -> None:
        peer = self.node.fork("A")
        peer.auto_window = False
        stream = peer.open_call("eager", stream=True)
        credit = 8 << 20  # it takes it long to use that up, however slow this process is
        peer.send(w.WINDOW, 0, stream, w.field_u32(w.T_CREDIT, credit))
        answer = peer.answers[stream]
        self.node.pump(lambda: bool(answer.parts), "the first items")
        self.assertEqual(peer.call("quick", 1).value(), 1)
        sent = sum(len(p) for p in answer.parts)
        self.assertLess(sent, credit, "the other call did not wait for its credit to end")
        peer.cancel(stream)
        self.assertEqual(peer.call("quick", 2).value(), 2)

    def test_answers_that_were_ready_leave(self) -> None:
        peer = self.node.fork("A")
        data = b""
        numbers = []
        for method, argument in (("quick", "one"), ("block", self.path("go"))):
            number = peer.stream()
            peer.answers[number] = Answer()
            meta = w.field_u8(w.T_KIND, w.KIND_CALL) + w.field_str(w.T_METHOD, method)
            body = pickle.dumps(((argument,), {}), 5)
            data += w.pack(w.REQUEST, w.END, number, meta, body)
            numbers.append(number)
        peer.sock.setblocking(True)
        peer.sock.sendall(data)  # both are read in one turn
        self.wait_file("go.blocked")
        peer.ping()
        self.assertEqual(peer.wait(numbers[0]).value(), "one")
        self.release(peer, numbers[1])

    def test_threads_go_on_calling(self) -> None:
        peer = self.node.fork("A")
        relay = peer.open_call("relay", self.path("ready"), self.path("ask"))
        self.wait_file("ready")
        stream = self.block(peer)
        Path(self.path("ask")).touch()
        self.assertEqual(peer.wait(relay).value(), [0, 2, 4])
        self.release(peer, stream)

    def test_stop_waits_for_the_loop(self) -> None:
        peer = self.node.fork("A")
        stream = self.block(peer)
        number = peer.open_call("quick", "last")
        peer.stop()
        self.assertTrue(peer.ping()["ok"])
        self.release(peer, stream)
        self.assertEqual(peer.wait(number).value(), "last")
        self.assertEqual(peer.exit_status(), 0)

    def test_a_long_block_is_told(self) -> None:
        self.node.close()
        self.node = FakeNode("import rserve._watch as x; x.WARN_AFTER_S = 0.1\n" + APP)
        self.addCleanup(self.node.close)
        self.node.build()
        peer = self.node.fork("A")
        stream = self.block(peer)
        peer.ping()
        text: Any = self.node.eventually(peer.stderr, lambda t: "blocked" in t)
        self.assertRegex(text, r"blocked for \d+ s in app\.py:\d+ \(block\): requests of this")
        self.release(peer, stream)

    def test_hang_up_while_blocked_ends_it(self) -> None:
        peer = self.node.fork("A")
        self.block(peer)
        pid = peer.pid
        peer.sock.close()
        self.node.selector = type(self.node.selector)()
        self.assertEqual(os.waitpid(pid, 0)[0], pid)
        peer.pid = 0

    # --- forks

    def test_a_child_has_no_share_in_the_connection(self) -> None:
        peer = self.node.fork("A")
        self.assertEqual(peer.call("fork").value(), 0)
        self.assertEqual(peer.call("quick", 1).value(), 1)

    def test_a_child_does_not_keep_it_open(self) -> None:
        peer = self.node.fork("A")
        child = peer.call("fork_and_keep").value()
        try:
            os.kill(peer.pid, 9)
            peer.wait_gone()
        finally:
            os.kill(child, 9)


if __name__ == "__main__":
    unittest.main()
