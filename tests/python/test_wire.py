"""The codec: its tables against messages.def, its limits, descriptors."""

from __future__ import annotations

import os
import random
import re
import socket
import struct
import unittest
from collections import deque
from pathlib import Path
from typing import Deque, Dict, List

from fakenode import w

DEF = Path(__file__).parents[2] / "net/wire/messages.def"


class Tables(unittest.TestCase):
    def rows(self, macro: str) -> Dict[str, int]:
        found = re.findall(rf"^{macro}\((\w+), (\d+),", DEF.read_text(), re.M)
        return {name: int(number) for name, number in found}

    def test_messages(self) -> None:
        self.assertEqual({**w.MESSAGES, **w.CONTROL_MESSAGES}, self.rows("RS_MSG"))

    def test_messages_of_other_connections(self) -> None:
        who = dict(re.findall(r'^RS_MSG\((\w+), \d+, "([^"]*)"', DEF.read_text(), re.M))
        for name in w.CONTROL_MESSAGES:
            self.assertNotIn("replica", who[name])
            self.assertNotIn("zygote", who[name])

    def test_tags(self) -> None:
        self.assertEqual(w.TAGS, self.rows("RS_TAG"))

    def test_error_codes(self) -> None:
        page = DEF.with_name("PROTOCOL.md").read_text()
        rows = re.findall(
            r"^\| (\d+) \| ([A-Z_]+) \| [a-z`]", page.split("### Errors")[1].split("## 3")[0], re.M
        )
        self.assertEqual(w.ERROR_CODES, {name: int(n) for n, name in rows})


class Fields(unittest.TestCase):
    def test_round_trip(self) -> None:
        meta = w.field_str(w.T_APP, "ü") + w.field_u8(w.T_KIND, 2) + w.field_u16(w.T_STATUS, 204)
        meta += (
            w.field_u32(w.T_CREDIT, 1 << 20) + w.field_u64(w.T_PARENT, 1 << 40) + w.field(99, b"x")
        )
        fields = w.parse_fields(meta)
        self.assertEqual(w.text(fields, w.T_APP), "ü")
        self.assertEqual(w.number(fields, w.T_KIND), 2)
        self.assertEqual(w.number(fields, w.T_STATUS), 204)
        self.assertEqual(w.number(fields, w.T_CREDIT), 1 << 20)
        self.assertEqual(w.number(fields, w.T_PARENT), 1 << 40)
        self.assertEqual(fields[99], b"x")
        self.assertEqual(w.text(fields, w.T_ROUTE, "none"), "none")

    def test_broken(self) -> None:
        for meta in (b"\x01", b"\x01\x05\0\0\0abcd", w.field(1, b"a") + w.field(1, b"b")):
            with self.subTest(meta=meta), self.assertRaises(w.ProtocolError):
                w.parse_fields(meta)

    def test_headers(self) -> None:
        headers = [(b"a", b"1"), (b"B", b""), (b"a", b"2")]
        self.assertEqual(
            w.unpack_headers(w.pack_headers(headers)), [(b"a", b"1"), (b"b", b""), (b"a", b"2")]
        )
        self.assertEqual(w.unpack_headers(b""), [])
        for bad in (b"x\0y", b"x\ny", b"x\r\ny"):
            with self.assertRaises(ValueError):
                w.pack_headers([(b"a", bad)])


class Connection(unittest.TestCase):
    def setUp(self) -> None:
        self.a, self.b = socket.socketpair()
        self.b.setblocking(False)
        self.reader = w.Reader(self.b)
        self.frames: Deque[w.Frame] = deque()

    def tearDown(self) -> None:
        self.a.close()
        self.b.close()
        self.reader.close()

    def read_all(self) -> List[w.Frame]:
        while True:
            try:
                self.reader.read(self.frames)
            except BlockingIOError:
                return list(self.frames)

    def test_many_in_one_read(self) -> None:
        for i in range(100):
            self.a.sendall(w.pack(w.BODY, 0, i, b"", b"x" * i))
        frames = self.read_all()
        self.assertEqual([f.stream for f in frames], list(range(100)))
        self.assertEqual([len(f.body) for f in frames], list(range(100)))

    def test_byte_by_byte(self) -> None:
        data = w.pack(w.REQUEST, w.END, 2, w.field_str(w.T_APP, "x"), b"body") * 3
        for i in range(len(data)):
            self.a.sendall(data[i : i + 1])
            self.read_all()
        self.assertEqual([f.body for f in self.frames], [b"body"] * 3)

    def test_random_cuts_across_the_buffer(self) -> None:
        rng = random.Random(7)
        bodies = [rng.randbytes(rng.choice((0, 1, 100, 40_000))) for _ in range(200)]
        data = b"".join(w.pack(w.BODY, 0, 2, b"m" * (len(b) % 7), b) for b in bodies)
        at = 0
        while at < len(data):
            step = rng.randrange(1, 90_000)
            self.a.sendall(data[at : at + step])
            self.read_all()
            at += step
        self.assertEqual([f.body for f in self.frames], bodies)

    def test_large_inline_body(self) -> None:
        body = os.urandom(3 << 20)
        data = memoryview(w.pack(w.BODY, 0, 2, b"", body) + w.pack(w.BODY, 0, 4, b"", b"after"))
        self.a.setblocking(False)
        while data or len(self.frames) < 2:
            try:
                data = data[self.a.send(data) :] if data else data
            except BlockingIOError:
                pass
            self.read_all()
        self.assertEqual(self.frames[0].body, body)
        self.assertEqual(self.frames[1].body, b"after")

    def test_memfd(self) -> None:
        body = os.urandom(200_000)
        w.send_frame(self.a, w.BODY, w.END, 2, b"meta", body)
        w.send_frame(self.a, w.BODY, 0, 4, b"", b"small")
        w.send_frame(self.a, w.BODY, w.END, 6, b"", body[::-1])
        frames = self.read_all()
        self.assertEqual([(f.stream, f.flags & w.MEMFD) for f in frames], [(2, 2), (4, 0), (6, 2)])
        self.assertEqual(frames[0].body, body)
        self.assertEqual(frames[0].meta, b"meta")
        self.assertEqual(frames[2].body, body[::-1])

    def test_memfd_leaves_no_descriptor_open(self) -> None:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            w.send_frame(self.a, w.BODY, 0, 2, b"", bytes(70_000))
            self.read_all()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_descriptors_beside_the_body(self) -> None:
        fd = os.open("/dev/null", os.O_RDONLY)
        w.send_frame(self.a, w.FORK, 0, 0, b"{}", fds=(fd, fd))
        os.close(fd)
        frame = self.read_all()[0]
        self.assertEqual(len(frame.fds), 2)
        for got in frame.fds:
            os.close(got)

    def test_short_memfd(self) -> None:
        fd = w.make_memfd(b"abc")
        data = w.pack_header(0, w.BODY, w.MEMFD, 1, 2, 100)
        w.send_with_fds(self.a, data, [fd])
        os.close(fd)
        with self.assertRaises(w.ProtocolError):
            self.reader.read(self.frames)

    def test_memfd_without_descriptor(self) -> None:
        self.a.sendall(w.pack_header(0, w.BODY, w.MEMFD, 1, 2, 100))
        with self.assertRaises(w.ProtocolError):
            self.reader.read(self.frames)

    def test_limits(self) -> None:
        head = struct.Struct("<IBBHQQ").pack
        for bad in (
            head(w.MAX_META + 1, w.BODY, 0, 0, 0, 0),
            head(0, w.BODY, 0, 0, 0, w.MAX_INLINE + 1),
            head(0, w.BODY, 4, 0, 0, 0),
            head(0, 99, 0, 0, 0, 0),
            head(0, w.BODY, w.MEMFD, 0, 0, 1),
            head(0, w.BODY, 0, 999, 0, 0),
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        ):
            with self.subTest(bad=bad):
                a, b = socket.socketpair()
                with a, b, self.assertRaises(w.ProtocolError):
                    a.sendall(bad)
                    w.Reader(b).read(deque())

    def test_hang_up(self) -> None:
        self.a.close()
        with self.assertRaises(w.HangUp):
            self.reader.read(self.frames)

    def test_random_bytes_never_crash(self) -> None:
        rng = random.Random(3)
        for _ in range(200):
            a, b = socket.socketpair()
            with a, b:
                a.sendall(rng.randbytes(rng.randrange(1, 400)))
                b.setblocking(False)
                reader = w.Reader(b)
                try:
                    while True:
                        reader.read(deque())
                except (w.ProtocolError, BlockingIOError):
                    pass


if __name__ == "__main__":
    unittest.main()
