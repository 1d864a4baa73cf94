"""A small WebSocket client for tests: it can do everything right, and everything wrong."""

import base64
import hashlib
import os
import socket
import ssl
import struct
from typing import Dict, List, NamedTuple, Optional, Tuple, Union

from harness import SLOW

MORE, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Closed(NamedTuple):
    code: Optional[int]
    reason: str


class Frame(NamedTuple):
    opcode: int
    fin: bool
    data: bytes


def masked(data: bytes, mask: bytes) -> bytes:
    if not data:
        return data
    pad = mask * (len(data) // 4 + 1)
    number = int.from_bytes(data, "little") ^ int.from_bytes(pad[:len(data)], "little")
    return number.to_bytes(len(data), "little")


def frame(opcode: int, data: bytes = b"", fin: bool = True,
          mask: Optional[bytes] = b"\x12\x34\x56\x78", reserved: int = 0) -> bytes:
    n = len(data)
    bit = 0x80 if mask is not None else 0
    head = bytes([(0x80 if fin else 0) | reserved << 4 | opcode])
    if n < 126:
        head += bytes([bit | n])
    elif n < 65536:
        head += bytes([bit | 126]) + struct.pack(">H", n)
    else:
        head += bytes([bit | 127]) + struct.pack(">Q", n)
    return head + (mask + masked(data, mask) if mask is not None else data)


def handshake(path: str, headers: Dict[str, Optional[str]], method: str = "GET",
              version: str = "HTTP/1.1") -> Tuple[bytes, str]:
    key = base64.b64encode(os.urandom(16)).decode()
    every: Dict[str, Optional[str]] = {
        "Host": "test", "Upgrade": "websocket", "Connection": "keep-alive, Upgrade",
        "Sec-WebSocket-Key": key, "Sec-WebSocket-Version": "13"}
    every.update(headers)
    lines = ["%s %s %s" % (method, path, version)]
    lines += ["%s: %s" % (k, v) for k, v in every.items() if v is not None]
    return ("\r\n".join(lines) + "\r\n\r\n").encode(), key


class WebSocket:
    """Connects and makes the handshake; `status` and `headers` tell what came of it."""

    def __init__(self, port: int, path: str = "/",
                 headers: Optional[Dict[str, Optional[str]]] = None, method: str = "GET",
                 version: str = "HTTP/1.1", timeout: float = 20, receive_buffer: int = 0,
                 tls: Optional[ssl.SSLContext] = None) -> None:
        self.sock = socket.socket()
        self.sock.settimeout(timeout * SLOW)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.connect(("127.0.0.1", port))
        if tls:
            self.sock = tls.wrap_socket(self.sock, server_hostname="127.0.0.1")
        text, key = handshake(path, headers or {}, method, version)
        self.sock.sendall(text)
        self.file = self.sock.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        self.headers: Dict[str, str] = {}
        while True:
            line = self.file.readline().strip().decode()
            if not line:
                break
            name, value = line.split(":", 1)
            self.headers[name.strip().lower()] = value.strip()
        if self.status == 101:
            digest = hashlib.sha1(key.encode() + GUID).digest()
            assert self.headers["sec-websocket-accept"] == base64.b64encode(digest).decode()
            assert self.headers["upgrade"] == "websocket"
            assert self.headers["connection"].lower() == "upgrade"

    def __enter__(self) -> "WebSocket":
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()

    def body(self) -> bytes:
        """Of an answer that is no 101."""
        return self.file.read(int(self.headers["content-length"]))

    def drop(self) -> None:
        """Without a word."""
        self.file.close()
        self.sock.close()

    def raw(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send(self, message: Union[str, bytes]) -> None:
        if isinstance(message, str):
            self.raw(frame(TEXT, message.encode()))
        else:
            self.raw(frame(BINARY, message))

    def close(self, code: Optional[int] = 1000, reason: str = "") -> None:
        self.raw(frame(CLOSE, b"" if code is None else struct.pack(">H", code) + reason.encode()))

    def exactly(self, n: int) -> bytes:
        data = self.file.read(n)
        if len(data) < n:
            raise EOFError("the connection ended")
        return data

    def frame(self) -> Frame:
        first, second = self.exactly(2)
        assert not first & 0x70 and not second & 0x80, "a frame that servers do not send"
        n = second & 127
        if n == 126:
            n, = struct.unpack(">H", self.exactly(2))
        elif n == 127:
            n, = struct.unpack(">Q", self.exactly(8))
        return Frame(first & 15, bool(first & 0x80), self.exactly(n))

    def recv(self) -> Union[str, bytes, Closed]:
        """The next message or the close; EOFError if the connection ends without one."""
        parts: List[bytes] = []
        kind = None
        while True:
            f = self.frame()
            if f.opcode == PING:
                self.raw(frame(PONG, f.data))
            elif f.opcode == CLOSE:
                code = struct.unpack(">H", f.data[:2])[0] if f.data else None
                return Closed(code, f.data[2:].decode())
            elif f.opcode != PONG:
                assert (kind is None) == (f.opcode != MORE)
                kind = f.opcode if kind is None else kind
                parts.append(f.data)
                if f.fin:
                    whole = b"".join(parts)
                    return whole.decode() if kind == TEXT else whole

    def ends(self) -> bool:
        """Whether nothing comes any more, and the connection is closed."""
        try:
            return not self.file.read(1)
        except ConnectionError:
            return True
