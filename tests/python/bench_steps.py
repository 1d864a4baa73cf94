"""CPU microseconds that one replica's library spends on a request, in this process and without any
other: the least of many rounds, which the load of the machine hardly changes.

python3 tests/python/bench_steps.py [requests at a time] [rounds] [names...]

RSERVE_PYRUNTIME: another copy of the library (of an older commit, say) to compare with.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import struct
import sys
import time
from typing import Any, Dict, List

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from bench_replica import http_meta  # noqa: E402
from fakenode import w  # noqa: E402
from ray.serve.handle import DeploymentHandle  # noqa: E402
from rserve._executor import Executor  # noqa: E402
from rserve._node import NodeLink  # noqa: E402

BODY = b"x" * 10240


class Noop:
    async def __call__(self, request: Any) -> str:
        return "ok"


class Reads:
    async def __call__(self, request: Any) -> bytes:
        body: bytes = await request.body()
        return body


class Sync:
    def __call__(self, request: Any) -> str:
        return "ok"


class Front:
    def __init__(self) -> None:
        self.echo: Any = DeploymentHandle("Echo", "default")

    async def __call__(self, request: Any) -> Any:
        return await self.echo.remote(await request.body())


class Three(Front):
    async def __call__(self, request: Any) -> Any:
        await self.echo.remote("x")
        await self.echo.remote("y")
        return await self.echo.remote("z")


def fastapi_app() -> Any:
    from fastapi import FastAPI, Request, Response

    app, echo = FastAPI(), DeploymentHandle("Echo", "default")

    async def root(request: Request) -> Response:
        return Response(await echo.remote(await request.body()))  # type: ignore[misc]

    root.__annotations__ = {"request": Request, "return": Response}
    app.get("/")(root)
    return app


async def measure(
    servable: Any, app: Any, body: bytes, value: Any, width: int, rounds: int
) -> float:
    """Requests come `width` at a time; calls are answered as soon as they are seen."""
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    link, loop = NodeLink(theirs), asyncio.get_running_loop()
    link.start(loop)
    executor = Executor(link, loop, servable, False, 1000)
    executor.asgi_app = app
    link.on_request = executor.on_request
    frame = w.pack(w.REQUEST, w.END, 2, http_meta(), body)
    meta = w.field(w.T_CONTENT_TYPE, w.PICKLE)
    answer = w.pack(w.RESPONSE, w.END, 1, meta, pickle.dumps(value, 5))
    header = struct.Struct("<IBBHQQ")
    stream, least = 2, 1e9
    for _ in range(rounds):
        batch = bytearray(frame * width)
        for i in range(width):
            struct.pack_into("<Q", batch, i * len(frame) + 8, stream)
            stream += 2
        ours.setblocking(True)
        ours.sendall(batch)
        ours.setblocking(False)
        done, left, others = 0, b"", 0.0
        cpu = time.process_time()
        while done < width:
            await asyncio.sleep(0)
            start = time.process_time()
            try:
                left += ours.recv(1 << 20)
            except BlockingIOError:
                pass
            at, out = 0, bytearray()
            while len(left) - at >= header.size:
                meta_len, kind, _, _, number, size = header.unpack_from(left, at)
                if at + header.size + meta_len + size > len(left):
                    break
                if kind == w.REQUEST:
                    out += answer
                    struct.pack_into("<Q", out, len(out) - len(answer) + 8, number)
                else:
                    done += 1
                at += header.size + meta_len + size
            left = left[at:]
            ours.setblocking(True)
            ours.sendall(out)
            ours.setblocking(False)
            others += time.process_time() - start
        least = min(least, time.process_time() - cpu - others)
    loop.remove_reader(theirs.fileno())
    return least / width * 1e6


def main() -> None:
    width = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    wanted: List[str] = sys.argv[3:]
    cases: Dict[str, Any] = {
        "no-op": (Noop, None, b"", None),
        "10 KB in and out": (Reads, None, BODY, None),
        "def, in a thread": (Sync, None, b"", None),
        "10 KB, one call": (Front, None, BODY, BODY),
        "three calls": (Three, None, b"", "x"),
        "FastAPI, one call": (Noop, fastapi_app, BODY, BODY),
    }
    for name, (servable, app, body, value) in cases.items():
        if wanted and name not in wanted:
            continue
        try:
            made = app() if app else None
        except ImportError:
            continue
        sys.stdout.flush()
        pid = os.fork()  # each in a process of its own
        if pid == 0:
            us = asyncio.run(measure(servable(), made, body, value, width, rounds))
            print(f"{name:20} {us:6.1f} us each")
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
