"""Requests per second of one replica, without a node: pipelined frames over its socket. And the
calls per second that one replica makes through a handle; this program answers them at once.

python3 tests/python/bench_replica.py [in flight] [seconds] [names of deployments...]
"""

from __future__ import annotations

import os
import pickle
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from fakenode import FakeNode, Peer, w  # noqa: E402

APP = """
import asyncio
from ray import serve
from starlette.requests import Request

@serve.deployment(max_ongoing_requests=1000)
class Noop:
    async def __call__(self, request: Request):
        return "ok"

@serve.deployment(max_ongoing_requests=1000)
class NoArgument:
    async def __call__(self):
        return "ok"

@serve.deployment(max_ongoing_requests=1000)
class Yields:
    async def __call__(self, request):
        await asyncio.sleep(0)
        return "ok"

@serve.deployment(max_ongoing_requests=1000)
class Reads:
    async def __call__(self, request: Request):
        await request.body()
        return {"path": request.url.path, "x": request.query_params.get("x")}

@serve.deployment(max_ongoing_requests=100)
class Sync:
    def __call__(self, request: Request):
        return "ok"

@serve.deployment(max_ongoing_requests=1000)
class Caller:
    def __init__(self, other):
        self.other = other
    async def run(self, seconds, width):
        import time
        end = time.perf_counter() + seconds
        remote = self.other.remote
        async def work():
            n = 0
            while time.perf_counter() < end:
                await remote("a value")
                n += 1
            return n
        start = time.perf_counter()
        counts = await asyncio.gather(*[work() for _ in range(width)])
        return sum(counts) / (time.perf_counter() - start)

@serve.deployment
class Front:
    def __init__(self, *others):
        pass

caller = Caller.bind(NoArgument.bind())
app = Front.bind(Noop.bind(), NoArgument.bind(), Yields.bind(), Reads.bind(), Sync.bind(), caller)
"""

FASTAPI = """

from fastapi import FastAPI
api = FastAPI()

@serve.deployment(max_ongoing_requests=1000)
@serve.ingress(api)
class Fast:
    @api.get("/")
    async def root(self):
        return "ok"

nodes = (Noop, NoArgument, Yields, Reads, Sync, Fast)
app = Front.bind(*[n.bind() for n in nodes], caller)
"""


def http_meta() -> bytes:
    headers = [
        (b"host", b"127.0.0.1:8000"),
        (b"user-agent", b"wrk/4.1.0"),
        (b"accept", b"*/*"),
        (b"x-request-id", b"0123456789abcdef0123456789abcdef0123"),
    ]
    return (
        w.field_u8(w.T_KIND, 1)
        + w.field_str(w.T_REQUEST_ID, "0123456789abcdef0123456789abcdef0123")
        + w.field_str(w.T_APP, "default")
        + w.field_str(w.T_DEPLOYMENT, "Noop")
        + w.field_str(w.T_ROUTE, "/")
        + w.field_str(w.T_HTTP_METHOD, "GET")
        + w.field_str(w.T_PATH, "/")
        + w.field_str(w.T_QUERY, "")
        + w.field(w.T_HEADERS, w.pack_headers(headers))
        + w.field_str(w.T_ROOT_PATH, "")
        + w.field_str(w.T_CLIENT, "127.0.0.1:50000")
        + w.field_str(w.T_SERVER, "127.0.0.1:8000")
        + w.field_str(w.T_SCHEME, "http")
        + w.field_str(w.T_HTTP_VERSION, "1.1")
    )


def measure(peer: Peer, meta: bytes, in_flight: int, seconds: float) -> float:
    sock: socket.socket = peer.sock
    sock.setblocking(True)
    frame = w.pack(w.REQUEST, w.END, 0, meta)
    stream = peer.stream()
    batch = bytearray(frame * in_flight)
    size = len(frame)

    def fill(count: int) -> memoryview:
        nonlocal stream
        for i in range(count):
            struct.pack_into("<Q", batch, i * size + 8, stream)
            stream += 2
        return memoryview(batch)[: count * size]

    sock.sendall(fill(1))
    answer = len(sock.recv(65536))
    sock.sendall(fill(in_flight))
    done = 0
    left = 0
    start = time.perf_counter()
    cpu = os.times()
    end = start + seconds
    while True:
        left += len(sock.recv(1 << 18))
        count, left = divmod(left, answer)
        done += count
        if time.perf_counter() >= end:
            break
        if count:
            sock.sendall(fill(count))
    took = time.perf_counter() - start
    want = (in_flight - count) * answer - left
    while want > 0:
        want -= len(sock.recv(1 << 18))
    del cpu
    return done / took


def answer_calls(sock: socket.socket, stop: int) -> bytes:
    """Answers every REQUEST with the same value, until the answer on stream `stop` comes."""
    header = struct.Struct("<IBBHQQ")
    meta = w.field(w.T_CONTENT_TYPE, w.PICKLE)
    body = pickle.dumps("a value", 5)
    answer = header.pack(len(meta), w.RESPONSE, w.END, 0, 0, len(body)) + meta + body
    buffer = b""
    while True:
        buffer += sock.recv(1 << 18)
        at, out, end = 0, bytearray(), len(buffer)
        while end - at >= 24:
            meta_len, kind, _, _, stream, body_len = header.unpack_from(buffer, at)
            after = at + 24 + meta_len + body_len
            if after > end:
                break
            if kind == w.REQUEST:
                start = len(out)
                out += answer
                struct.pack_into("<Q", out, start + 8, stream)
            elif stream == stop:
                return buffer[at + 24 + meta_len : after]
            at = after
        buffer = buffer[at:]
        sock.sendall(out)


def measure_calls(peer: Peer, width: int, seconds: float) -> float:
    sock: socket.socket = peer.sock
    sock.setblocking(True)
    meta = w.field_u8(w.T_KIND, w.KIND_CALL) + w.field_str(w.T_METHOD, "run")
    meta += w.field_str(w.T_REQUEST_ID, "0123456789abcdef0123456789abcdef0123")
    stream = peer.stream()
    body = pickle.dumps(((seconds, width), {}), 5)
    sock.sendall(w.pack(w.REQUEST, w.END, stream, meta, body))
    rate: float = pickle.loads(answer_calls(sock, stream))
    return rate


def replica_cpu(pid: int) -> float:
    fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    in_flight = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 2.0
    python = os.environ.get("RSERVE_TEST_PYTHON", sys.executable)
    has_fastapi = os.system(f"{python} -c 'import fastapi' 2>/dev/null") == 0
    with FakeNode(APP + (FASTAPI if has_fastapi else "")) as node:
        graph = node.build()
        assert "deployments" in graph, graph
        for deployment in graph["deployments"]:
            name = deployment["name"]
            if name == "Front" or (len(sys.argv) > 3 and name not in sys.argv[3:]):
                continue
            peer = node.fork(name, **deployment["options"])
            node.selector.unregister(peer.sock)
            before = replica_cpu(peer.pid)
            if name == "Caller":
                rate = measure_calls(peer, in_flight, seconds)
                used = replica_cpu(peer.pid) - before
                each = used / (rate * seconds) * 1e6
                print(f"{'handle':12} {rate:9.0f} calls/s     {each:6.1f} us each")
                one = measure_calls(peer, 1, seconds / 2)
                print(f"{'':12} {one:9.0f} calls/s with one in flight")
                continue
            rate = measure(peer, http_meta(), in_flight, seconds)
            used = replica_cpu(peer.pid) - before
            print(f"{name:12} {rate:9.0f} requests/s  {used / (rate * seconds) * 1e6:6.1f} us each")
            one = measure(peer, http_meta(), 1, seconds / 2)
            print(f"{'':12} {one:9.0f} requests/s with one in flight")


if __name__ == "__main__":
    main()
