import asyncio
import json
import os
import re
import threading
import time
import urllib.error
import urllib.request

import ray
from ray import serve

PORT = int(os.environ["GOLDEN_PORT"])


def out(*values):
    print("OUT", *values, flush=True)


def attempt(label, f):
    try:
        out(label, "->", f())
    except BaseException as e:
        text = str(e).strip().splitlines()
        out(label, "raised", type(e).__name__, "|", re.sub("[0-9a-f]{8}-[0-9a-f-]{27}", "ID", text[-1])[:200] if text else "")


def http(path, data=None, method=None, headers={}):
    body = data if data is None or isinstance(data, bytes) else json.dumps(data).encode()
    r = urllib.request.Request("http://127.0.0.1:%d%s" % (PORT, path), data=body, method=method, headers=headers)
    try:
        with urllib.request.urlopen(r, timeout=60) as f:
            return f.status, f.headers.get("content-type"), f.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.headers.get("content-type"), e.read().decode()


serve.start(http_options={"host": "127.0.0.1", "port": PORT})
import logging
from contextlib import asynccontextmanager
from typing import AsyncGenerator, Dict, List

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from ray.serve import Application
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle, DeploymentResponse, DeploymentResponseGenerator
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.responses import StreamingResponse as StarletteStreaming

logger = logging.getLogger("ray.serve")
events = []


@asynccontextmanager
async def lifespan(app):
    events.append("up")
    yield {"state": "from lifespan"}
    events.append("down")


app = FastAPI(lifespan=lifespan)


@serve.deployment
class Tokens:
    async def generate(self, prompt: str) -> AsyncGenerator[str, None]:
        for word in prompt.split():
            yield word.upper() + " "
            await asyncio.sleep(0.001)


@serve.deployment
class BatchedTokens:
    @serve.batch(max_batch_size=4, batch_wait_timeout_s=0.1)
    async def generate(self, prompts: List[str]):
        for i in range(3):
            yield [p + str(i) for p in prompts]

    async def __call__(self, request: StarletteRequest):
        return StarletteStreaming(self.generate(request.query_params["p"]), media_type="text/plain")


@serve.deployment
@serve.ingress(app)
class Chat:
    def __init__(self, tokens: DeploymentHandle):
        self.tokens = tokens.options(stream=True)

    @app.get("/sse")
    async def sse(self, q: str):
        async def events_of():
            async for t in self.tokens.generate.remote(q):
                yield "data: %s\n\n" % t.strip()

        return StreamingResponse(events_of(), media_type="text/event-stream")

    @app.get("/state")
    def state(self, request: Request):
        return [request.state.state, events]

    @app.get("/headers")
    def headers(self, request: Request):
        return {k: v for k, v in request.headers.items() if k.startswith("x-") and k != "x-request-id"}


class BuilderArgs(BaseModel):
    word: str = "default"
    n: int = 1


@serve.deployment
class Echo:
    def __init__(self, word, n=1):
        self.word, self.n = word, n

    def __call__(self, request: StarletteRequest) -> str:
        return self.word * self.n


def builder(args: Dict[str, str]) -> Application:
    return Echo.bind(args.get("word", "none"))


def typed(args: BuilderArgs) -> Application:
    return Echo.bind(args.word, args.n)


chat = serve.run(Chat.bind(Tokens.bind()), name="chat", route_prefix="/chat")
attempt("sse", lambda: http("/chat/sse?q=a+b+c"))
attempt("headers", lambda: http("/chat/headers", headers={"X-One": "1", "x-two": "a, b"}))
serve.run(BatchedTokens.bind(), name="bt", route_prefix="/bt")
attempt("batched stream", lambda: http("/bt?p=x"))
attempt("builder", lambda: serve.run(builder({"word": "built"}), name="b", route_prefix="/b") and http("/b"))
attempt("typed builder", lambda: serve.run(typed(BuilderArgs(word="t", n=3)), name="t", route_prefix="/t") and http("/t"))


@serve.deployment(max_ongoing_requests=1, max_queued_requests=1)
class Limited:
    async def __call__(self, x=None):
        await asyncio.sleep(0.6)
        return "done"


limited = serve.run(Limited.bind(), name="limited", route_prefix="/limited")


@serve.deployment
class Front:
    def __init__(self, h):
        self.h = h

    async def __call__(self, request):
        rs = []
        for _ in range(3):
            rs.append(self.h.remote())
            await asyncio.sleep(0.1)
        got = []
        for r in rs:
            try:
                got.append(await r)
            except BackPressureError as e:
                got.append("pressure")
        return got


attempt("back pressure inside", lambda: serve.run(Front.bind(Limited.options(name="L2").bind()), name="front", route_prefix="/front") and http("/front"))


@serve.deployment
class Methods:
    def __init__(self):
        self.log = []

    async def __call__(self, request: StarletteRequest):
        body = await request.body()
        self.log.append(request.method)
        return JSONResponse({"method": request.method, "path": request.url.path, "query": dict(request.query_params), "len": len(body), "type": request.headers.get("content-type")}, status_code=200 + len(body), headers={"x-len": str(len(body))})


serve.run(Methods.bind(), name="methods", route_prefix="/methods/deep")
attempt("get", lambda: http("/methods/deep/a/b?x=1&y=2"))
attempt("post", lambda: http("/methods/deep", b"abc", headers={"content-type": "text/weird"}))
attempt("put", lambda: http("/methods/deep/", b"a", method="PUT"))
attempt("prefix only", lambda: http("/methods")[0])
attempt("longer", lambda: http("/methods/deeper")[0])


@serve.deployment
class ByApp:
    async def __call__(self, request):
        other = serve.get_app_handle("methods")
        mine = serve.get_deployment_handle("ByApp")
        try:
            serve.get_app_handle("absent")
        except RayServeException as e:
            why = str(e)
        return [other.app_name, mine.app_name, why, serve.get_replica_context().app_name]


attempt("by app", lambda: serve.run(ByApp.bind(), name="by", route_prefix="/by") and http("/by"))


@serve.deployment
class Logs:
    def __call__(self, request):
        logger.info("a line of the user")
        logger.warning("a warning of the user")
        print("printed by the user", flush=True)
        return "logged"


attempt("logs", lambda: serve.run(Logs.bind(), name="logs", route_prefix="/logs") and http("/logs"))


class NotSerializable:
    def __reduce__(self):
        raise TypeError("not this one")


@serve.deployment
class Returns:
    def bad(self):
        return NotSerializable()

    def exception(self):
        return ValueError("as a value")

    def generator(self):
        return (i for i in range(3))

    async def task(self):
        return await asyncio.create_task(asyncio.sleep(0.01, "from a task"))

    async def gathered(self):
        return await asyncio.gather(*[asyncio.sleep(0.01, i) for i in range(3)])

    async def thread(self):
        return await asyncio.to_thread(lambda: "from a thread")

    async def loop(self):
        return asyncio.get_running_loop().is_running()

    def sync_loop(self):
        try:
            asyncio.get_running_loop()
            return "a loop"
        except RuntimeError:
            return "no loop"


r = serve.run(Returns.bind(), name="returns", route_prefix=None)
attempt("not serializable", lambda: type(r.bad.remote().result()).__name__)
attempt("exception as a value", lambda: repr(r.exception.remote().result()))
attempt("generator", lambda: r.generator.remote().result())
for m in ("task", "gathered", "thread", "loop", "sync_loop"):
    attempt(m, lambda: getattr(r, m).remote().result())


@serve.deployment(name="renamed", num_replicas=2)
class Original:
    def who(self):
        return serve.get_replica_context().deployment


o = serve.run(Original.bind(), name="o", route_prefix=None)
attempt("renamed", lambda: [o.deployment_name, o.who.remote().result()])
attempt("redeploy smaller", lambda: [serve.run(Original.options(num_replicas=1).bind(), name="o", route_prefix=None).who.remote().result(), sum(serve.status().applications["o"].deployments["renamed"].replica_states.values())])
attempt("wrong constructor", lambda: serve.run(Echo.options(max_constructor_retry_count=1).bind(), name="wc", route_prefix=None))
attempt("apps", lambda: sorted(n for n, a in serve.status().applications.items() if a.status == "RUNNING"))
attempt("all", lambda: [serve.delete(n) for n in list(serve.status().applications)][:1])
attempt("none", lambda: serve.status().applications)
