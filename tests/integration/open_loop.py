"""Requests at fixed times, whatever becomes of those before: who waits is counted as waiting."""

import asyncio
import threading
import time
from typing import Dict, List, NamedTuple, Optional, Tuple


IDLE_S = 2.0  # connections are not used again after so long

# A server that says which request it answers, for replicas of kind http: its argument is its port.
HTTP_SERVER = """\
    import sys, time
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from urllib.parse import parse_qs, urlsplit

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.do_GET()

        def do_GET(self):
            time.sleep(0.02)
            body = parse_qs(urlsplit(self.path).query).get("n", ["ready"])[0].encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
    """


class Outcome(NamedTuple):
    number: int
    status: int  # 0: no answer, or a broken one
    seconds: float  # from the time at which it was due
    text: str


def percentile(values: List[float], p: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * p / 100))] if ordered else 0.0


class OpenLoop:
    """`rate` requests per second, over as many connections as that takes.

    They go to PATH?n=NUMBER, or PATHn=NUMBER where the path has a query.
    """

    def __init__(self, port: int, rate: float, path: str = "/", method: str = "GET",
                 body: bytes = b"", headers: Optional[Dict[str, str]] = None,
                 most: Optional[int] = None, timeout: float = 60, first: int = 0) -> None:
        self.port, self.rate, self.path, self.method, self.body = port, rate, path, method, body
        self.most, self.timeout, self.first = most, timeout, first
        self.headers = "".join("%s: %s\r\n" % pair for pair in (headers or {}).items())
        self.outcomes: List[Outcome] = []
        self.sent = 0
        self._going = True
        self._idle: List[Tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def stop(self) -> List[Outcome]:
        """No further ones; those under way get their answers."""
        self._going = False
        self._thread.join()
        return self.outcomes

    def join(self) -> List[Outcome]:
        self._thread.join()
        return self.outcomes

    async def _run(self) -> None:
        began, tasks = time.monotonic(), set()
        while self._going and (self.most is None or self.sent < self.most):
            due = began + self.sent / self.rate
            pause = due - time.monotonic()
            if pause > 0:
                await asyncio.sleep(pause)
            elif self.sent % 16 == 0:
                await asyncio.sleep(0)
            task = asyncio.ensure_future(self._one(self.first + self.sent, due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            self.sent += 1
        while tasks:
            await asyncio.wait(list(tasks))
        for _, _, writer in self._idle:
            writer.close()

    async def _one(self, number: int, due: float) -> None:
        try:
            status, text = await asyncio.wait_for(self._exchange(number), self.timeout)
        except (OSError, EOFError, ValueError, asyncio.TimeoutError) as e:
            status, text = 0, repr(e)
        self.outcomes.append(Outcome(number, status, time.monotonic() - due, text))

    def _take_idle(self) -> Optional[Tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """The one used last; one not used for long may be closed by the server any moment."""
        now = time.monotonic()
        while self._idle:
            since, reader, writer = self._idle.pop()
            if now - since < IDLE_S and not reader.at_eof():
                return reader, writer
            writer.close()
        return None

    async def _exchange(self, number: int) -> Tuple[int, str]:
        reader, writer = self._take_idle() or await asyncio.open_connection("127.0.0.1", self.port)
        fit = False
        try:
            writer.write(("%s %s%sn=%d HTTP/1.1\r\nhost: x\r\n%scontent-length: %d\r\n\r\n" % (
                self.method, self.path, "" if "?" in self.path else "?", number, self.headers,
                len(self.body))).encode() + self.body)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            if "transfer-encoding: chunked" in head:
                data = b""
                while True:
                    size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
                    data += (await reader.readexactly(size + 2))[:-2]
                    if size == 0:
                        break
            else:
                data = await reader.readexactly(int(head.split("content-length:")[1].split()[0]))
            fit = "connection: close" not in head
            return int(head.split()[1]), data.decode("utf-8", "replace")
        finally:
            if fit:
                self._idle.append((time.monotonic(), reader, writer))
            else:
                writer.close()


def summary(outcomes: List[Outcome]) -> Dict[str, float]:
    """In milliseconds; `lost`: not answered with 200."""
    times = [o.seconds * 1000 for o in outcomes]
    return {"requests": len(outcomes), "lost": sum(o.status != 200 for o in outcomes),
            "p50": percentile(times, 50), "p99": percentile(times, 99),
            "p99.9": percentile(times, 99.9), "max": max(times, default=0.0)}
