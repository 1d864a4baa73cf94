"""The stand-in for Starlette: the same program with it and, where installed, with the real one."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import Any, Dict

from fakenode import HAS_FASTAPI, PYTHON, ROOT

PROGRAM = r"""
import asyncio, json, os, sys
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.datastructures import URL, FormData, Headers, MutableHeaders, QueryParams, State
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (FileResponse, HTMLResponse, JSONResponse, PlainTextResponse,
                                 RedirectResponse, Response, StreamingResponse)
from starlette import status

out = {}

def scope(**more):
    base = {"type": "http", "method": "POST", "path": "/p/a b", "raw_path": b"/p/a%20b",
        "root_path": "/p",
            "query_string": b"x=1&x=2&y=&z=a%26b+c", "scheme": "http", "server": ("h",
            8000), "client": ("c", 5),
            "headers": [(b"host", b"example.org:81"), (b"cookie", b'a=1; b="two"; c'), (b"x-m",
            b"1"), (b"x-m", b"2")],
            "http_version": "1.1", "state": {}}
    base.update(more)
    return base

def request(*parts, **more):
    parts = list(parts) or [b""]
    async def receive():
        if not parts:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}
    return Request(scope(**more), receive)

def typed(kind):
    return {"headers": [(b"content-type", kind.encode())]}

async def asgi(response, **more):
    sent = []
    async def send(m): sent.append(m)
    async def receive():
        await asyncio.sleep(10)
    await response(scope(asgi={"version": "3.0", "spec_version": "2.4"}, **more), receive, send)
    body = b"".join(m.get("body", b"") for m in sent[1:])
    return [sent[0]["status"], [[k.decode(), v.decode()] for k, v in sent[0]["headers"]],
        body.decode("latin-1")]

BINARY = bytes(range(256)) + b"\r\n\n\r--B \r\n-- end"

async def main():
    r = request(b"one ", b"two")
    out["url"] = [str(r.url), r.url.path, r.url.query, r.url.hostname, r.url.port, str(r.base_url)]
    out["query"] = [r.query_params["x"], r.query_params.getlist("x"),
        r.query_params.multi_items(), dict(r.query_params), "q" in r.query_params,
        r.query_params.get("q", 5), str(r.query_params)]
    out["headers"] = [r.headers["HOST"], r.headers.getlist("x-m"), r.headers.get("none"),
        list(r.headers.items())[-1], "Host" in r.headers]
    out["cookies"] = r.cookies
    out["client"] = [r.client.host, r.client.port, r.method, r["path"], "path" in r]
    r.state.n = 3
    out["state"] = [r.state.n, hasattr(r.state, "m"), r.scope["state"]]
    out["body"] = [(await r.body()).decode(), (await r.body()).decode()]
    out["stream"] = [c.decode() async for c in request(b"a", b"b").stream()]
    out["json"] = await request(b'{"a": 1}').json()
    gone = request(b"x")
    await gone.body()
    out["disconnected"] = [await request(b"x").is_disconnected(), await gone.is_disconnected()]
    form = await request(b"a=1&a=2&b=%C3%A9+x",
        **typed("application/x-www-form-urlencoded")).form()
    out["form"] = [form["a"], form.getlist("a"), form["b"]]
    multi = (b'--B\r\ncontent-disposition: form-data; name="t"\r\n\r\ntext \xc3\xa9\r\n'
             b'--B\r\ncontent-disposition: form-data; name="f"; filename="n.bin"\r\n'
             b'content-type: application/x-y\r\n\r\n' + BINARY + b"\r\n--B--\r\n")
    async with request(multi[:50], multi[50:],
        **typed("multipart/form-data; boundary=B")).form() as form:
        f = form["f"]
        out["multipart"] = [form["t"], f.filename, f.content_type, f.size,
            await f.read() == BINARY]
    out["no_form"] = len(await request(b"x", **typed("text/plain")).form())

    out["plain"] = await asgi(PlainTextResponse("h\xe9", 202, {"X-A": "1"}))
    out["json_response"] = await asgi(JSONResponse({"a": ["\xe9", None]}))
    out["html"] = await asgi(HTMLResponse("<b>"))
    out["empty"] = await asgi(Response(status_code=204))
    out["bytes"] = await asgi(Response(b"x", media_type="application/x-z",
        headers={"content-length": "1"}))
    out["redirect"] = await asgi(RedirectResponse("/a b?c=\xe9", 303))
    response = Response("c")
    response.set_cookie("a", "1", max_age=5, path="/x", domain="d", secure=True, httponly=True,
        samesite="strict")
    response.delete_cookie("b")
    response.headers["X-B"] = "2"
    got = await asgi(response)
    got[1] = [h for h in got[1] if "expires" not in h[1]]
    out["cookie"] = got
    async def items():
        yield "a"
        yield b"b"
    out["stream_async"] = await asgi(StreamingResponse(items(), media_type="text/csv"))
    out["stream_sync"] = await asgi(StreamingResponse(iter(["x", b"y"]), status_code=206))
    done = []
    tasks = BackgroundTasks()
    tasks.add_task(done.append, 1)
    async def more(x): done.append(x)
    tasks.add_task(more, 2)
    await asgi(PlainTextResponse("x", background=tasks))
    await asgi(StreamingResponse(iter([]), background=BackgroundTask(done.append, 3)))
    out["background"] = done
    path = os.path.join(sys.argv[1], "file.txt")
    with open(path, "wb") as file: file.write(b"f" * 70000)
    got = await asgi(FileResponse(path, filename="n\xe9.txt"), method="GET")
    out["file"] = [got[0], sorted(h for h in got[1] if h[0] not in ("last-modified", "etag",
        "accept-ranges")), len(got[2])]
    out["thread"] = [await run_in_threadpool(lambda x, y: x + y, 1, y=2),
        [x async for x in iterate_in_threadpool([1, 2])]]

asyncio.run(main())
e = HTTPException(404)
out["exception"] = [e.status_code, e.detail, str(HTTPException(400, "why")),
    status.HTTP_404_NOT_FOUND, status.HTTP_503_SERVICE_UNAVAILABLE]
u = URL("https://user:pw@host:8443/path?a=1#f")
out["urls"] = [u.scheme, u.netloc, u.username, u.fragment, u.is_secure, str(u.replace(port=1,
    hostname="h")), str(u.include_query_params(a=2, b=3)), repr(u), str(u.remove_query_params("a")),
    u == "https://user:pw@host:8443/path?a=1#f"]
h = MutableHeaders({"A": "1"})
h["b"] = "2"; h.append("a", "3"); h["a"] = "4"; h.setdefault("c",
    "5"); h.update({"d": "6"}); del h["b"]
h.add_vary_header("Accept")
out["mutable"] = [list(h.items()), len(h), h.get("none")]
print(json.dumps(out))
"""

EXPECTED: Dict[str, Any] = {
    "cookies": {"a": "1", "b": "two", "": "c"},
    "state": [3, False, {"n": 3}],
    "body": ["one two", "one two"],
    "stream": ["a", "b", ""],
    "json": {"a": 1},
    "disconnected": [False, True],
    "form": ["2", ["1", "2"], "é x"],
    "no_form": 0,
    "empty": [204, [], ""],
    "html": [200, [["content-length", "3"], ["content-type", "text/html; charset=utf-8"]], "<b>"],
    "background": [1, 2, 3],
    "thread": [3, [1, 2]],
}


class Starlette(unittest.TestCase):
    def run_program(self, path: Path) -> Dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            env = {**os.environ, "PYTHONPATH": str(path), "PYTHONWARNINGS": "error"}
            command = [PYTHON, "-c", PROGRAM, folder]
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        result: Dict[str, Any] = json.loads(done.stdout)
        return result

    def test_ours(self) -> None:
        got = self.run_program(ROOT / "vendor")
        for name, value in EXPECTED.items():
            self.assertEqual(got[name], value, name)
        self.assertEqual(got["multipart"], ["text é", "n.bin", "application/x-y", 272, True])

    @unittest.skipUnless(HAS_FASTAPI, "Starlette is not installed")
    def test_same_as_the_real_one(self) -> None:
        if subprocess.run(
            [PYTHON, "-c", "import python_multipart"], capture_output=True
        ).returncode:
            self.skipTest("python-multipart is not installed")
        ours, real = self.run_program(ROOT / "vendor"), self.run_program(Path("/nonexistent"))
        for name, value in real.items():
            with self.subTest(name=name):
                self.assertEqual(ours[name], value)


if __name__ == "__main__":
    unittest.main()
