"""A client of HTTP/1.1 on a bare socket, which notices what others forgive: answers that crossed,
that break off, that are followed by bytes of nobody. And what a process holds: descriptors and
memory."""

import os
import socket
from typing import Dict, List, NamedTuple, Optional

from harness import SLOW


class Cut(Exception):
    """The connection ended before the answer did."""

    def __init__(self, begun: bool, body: bytes = b"") -> None:
        super().__init__("cut %s" % ("within the answer" if begun else "before the answer"))
        self.begun, self.body = begun, body


class Reply(NamedTuple):
    status: int
    headers: Dict[str, str]
    body: bytes

    @property
    def close(self) -> bool:
        return self.headers.get("connection", "").lower() == "close"


class RawClient:
    """One connection. `pause` is called before each receive, `most` bytes are taken at once."""

    def __init__(self, port: int, receive_buffer: int = 0, most: int = 65536) -> None:
        self.sock = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(60 * SLOW)
        self.sock.connect(("127.0.0.1", port))
        self.data = b""
        self.most = most
        self.pause = lambda: None

    def close(self, reset: bool = False) -> None:
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()

    def __del__(self) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # what was answered before can still be read

    def _more(self) -> bool:
        self.pause()
        try:
            got = self.sock.recv(self.most)
        except ConnectionResetError:
            return False
        self.data += got
        return bool(got)

    def _until(self, mark: bytes, body: Optional[List[bytes]] = None) -> bytes:
        while mark not in self.data:
            if not self._more():
                raise Cut(body is not None or bool(self.data), b"".join(body or []))
        head, self.data = self.data.split(mark, 1)
        return head

    def _exactly(self, n: int, body: List[bytes]) -> None:
        parts, have = [self.data], len(self.data)
        while have < n:
            self.data = b""
            if not self._more():
                raise Cut(True, b"".join(body + parts))
            parts.append(self.data)
            have += len(self.data)
        whole = b"".join(parts)
        body.append(whole[:n])
        self.data = whole[n:]

    def reply(self, head_only: bool = False) -> Reply:
        """The next answer; TimeoutError if there is none. Raises Cut, or ValueError: not HTTP."""
        lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, status, _ = lines[0].split(" ", 2)
        if version not in ("HTTP/1.1", "HTTP/1.0"):
            raise ValueError("no answer of HTTP: %r" % lines[0])
        headers = {}
        for line in lines[1:]:
            name, value = line.split(":", 1)
            headers[name.lower()] = value.strip()
        body: List[bytes] = []
        if head_only or int(status) in (204, 304):
            pass
        elif headers.get("transfer-encoding", "").lower() == "chunked":
            while True:
                size = int(self._until(b"\r\n", body), 16)
                if size == 0:
                    break
                self._exactly(size + 2, body)
                if body[-1][-2:] != b"\r\n":
                    raise ValueError("a chunk that does not end")
                body[-1] = body[-1][:-2]
            self._until(b"\r\n", body)
        elif "content-length" in headers:
            self._exactly(int(headers["content-length"]), body)
        else:
            while self._more():
                pass
            body.append(self.data)
            self.data = b""
        return Reply(int(status), headers, b"".join(body))


class Held(NamedTuple):
    """What a process holds."""

    files: int
    memfds: int
    threads: int
    rss_kb: int


def held(pid: int) -> Held:
    files = memfds = 0
    for name in os.listdir("/proc/%d/fd" % pid):
        try:
            target = os.readlink("/proc/%d/fd/%s" % (pid, name))
        except OSError:
            continue
        files += 1
        memfds += target.startswith("/memfd:")
    with open("/proc/%d/status" % pid, encoding="utf-8") as f:
        rss = [int(line.split()[1]) for line in f if line.startswith("VmRSS")][0]
    return Held(files, memfds, len(os.listdir("/proc/%d/task" % pid)), rss)
