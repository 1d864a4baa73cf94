"""Load that does not wait for answers: requests come at a rate, whatever becomes of them."""

import asyncio
import time
from typing import Callable, Dict, List, NamedTuple, Optional


class Reply(NamedTuple):
    kind: str  # as the caller named it
    status: int  # 0: the connection ended without an answer
    began: float
    ended: float
    headers: Dict[str, str]

    @property
    def took(self) -> float:
        return self.ended - self.began


class Request(NamedTuple):
    kind: str
    text: bytes


def get(kind: str, path: str, **headers: str) -> Request:
    """`x_y="z"` is the header x-y."""
    lines = ["GET %s HTTP/1.1" % path, "host: localhost"]
    lines += ["%s: %s" % (name.replace("_", "-"), value) for name, value in headers.items()]
    return Request(kind, ("\r\n".join(lines) + "\r\n\r\n").encode())


class Connection(asyncio.Protocol):
    """One request at a time; keep-alive."""

    def __init__(self, done: "Callable[[Connection], None]") -> None:
        self.done = done
        self.transport: Optional[asyncio.Transport] = None
        self.request: Optional[Request] = None
        self.began = 0.0
        self.text = b""
        self.status = 0
        self.headers: Dict[str, str] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def send(self, request: Request, began: float) -> None:
        assert self.transport
        self.request, self.began, self.text = request, began, b""
        self.transport.write(request.text)

    def data_received(self, data: bytes) -> None:
        self.text += data
        head, found, body = self.text.partition(b"\r\n\r\n")
        if not found or not self.request:
            return
        lines = head.decode("latin-1").split("\r\n")
        self.headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()
        if len(body) < int(self.headers.get("content-length", "0")):
            return
        self.status = int(lines[0].split()[1])
        self.done(self)

    def connection_lost(self, error: Optional[Exception]) -> None:
        if self.request:
            self.status, self.headers = 0, {}
            self.done(self)


class Load:
    """Everything that was sent is answered, or the connection is gone, when a method returns."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.idle: List[Connection] = []
        self.replies: List[Reply] = []
        self.pending = 0
        self.over = asyncio.Event()

    def _done(self, c: Connection) -> None:
        assert c.request
        self.replies.append(Reply(c.request.kind, c.status, c.began, time.monotonic(), c.headers))
        c.request = None
        self.pending -= 1
        if c.status and c.headers.get("connection", "").lower() != "close":
            self.idle.append(c)
        self.over.set()

    async def _send(self, request: Request, began: float) -> None:
        while self.idle:
            c = self.idle.pop()
            if c.transport and not c.transport.is_closing():
                c.send(request, began)
                return
        loop = asyncio.get_running_loop()
        try:
            _, c = await loop.create_connection(lambda: Connection(self._done), "127.0.0.1",
                                                self.port)
        except OSError:
            self.pending -= 1
            self.replies.append(Reply(request.kind, 0, began, time.monotonic(), {}))
            self.over.set()
            return
        c.send(request, began)

    async def _drain(self, most: int) -> None:
        while self.pending > most:
            self.over.clear()
            await self.over.wait()

    async def offer(self, rate: float, seconds: float, make: Callable[[int], Request]) -> None:
        """`rate` requests a second."""
        begin, sent, total, tasks = time.monotonic(), 0, int(rate * seconds), []
        while sent < total:
            due = min(int((time.monotonic() - begin) * rate) + 1, total)
            for _ in range(sent, due):
                self.pending += 1
                tasks.append(asyncio.ensure_future(self._send(make(sent), time.monotonic())))
                sent += 1
            await asyncio.sleep(0.002)
        await asyncio.gather(*tasks)
        await self._drain(0)

    async def saturate(self, clients: int, seconds: float, make: Callable[[int], Request]) -> None:
        """So many clients, each of which sends on when it has its answer."""
        begin, sent = time.monotonic(), 0
        while time.monotonic() - begin < seconds:
            self.pending += 1
            await self._send(make(sent), time.monotonic())
            sent += 1
            await self._drain(clients - 1)
        await self._drain(0)

    def close(self) -> None:
        for c in self.idle:
            if c.transport:
                c.transport.close()


def offer(port: int, rate: float, seconds: float, make: Callable[[int], Request]) -> List[Reply]:
    async def run() -> List[Reply]:
        load = Load(port)
        await load.offer(rate, seconds, make)
        load.close()
        return load.replies

    return asyncio.run(run())


def saturate(port: int, clients: int, seconds: float,
             make: Callable[[int], Request]) -> List[Reply]:
    async def run() -> List[Reply]:
        load = Load(port)
        await load.saturate(clients, seconds, make)
        load.close()
        return load.replies

    return asyncio.run(run())


def rate_of(replies: List[Reply], status: int = 200, skip: float = 0.25) -> float:
    """Answers a second with this status, but for the first part of the time."""
    first = min(r.began for r in replies)
    last = max(r.began for r in replies)
    begin = first + (last - first) * skip
    return len([r for r in replies if r.status == status and begin <= r.ended <= last]) / (
        last - begin)


def quantile(replies: List[Reply], part: float, kind: str, status: int = 200) -> float:
    times = sorted(r.took for r in replies if r.kind == kind and r.status == status)
    return times[int(part * (len(times) - 1))] if times else float("inf")
