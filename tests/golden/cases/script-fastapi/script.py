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


from typing import List, Optional

from fastapi import APIRouter, BackgroundTasks, Body, Cookie, Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from pydantic import BaseModel, Field
from starlette.middleware.base import BaseHTTPMiddleware

started = []


class Item(BaseModel):
    name: str
    price: float = Field(gt=0)
    tags: List[str] = []


class Stamp(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        response = await call_next(request)
        response.headers["x-stamp"] = "yes"
        return response


app = FastAPI(title="T", version="9")
app.add_middleware(Stamp)
router = APIRouter(prefix="/r", tags=["r"])


class Teapot(Exception):
    pass


@app.exception_handler(Teapot)
async def teapot(request, e):
    return JSONResponse({"tea": str(e)}, status_code=418)


@app.on_event("startup")
def on_startup():
    started.append("s")


def user(authorization: Optional[str] = Header(None)):
    if authorization != "secret":
        raise HTTPException(401, detail="no")
    return "someone"


@app.get("/free")
def free(x: int = 1):
    return {"free": x}


@router.get("/plain")
def plain():
    return "router"


@serve.deployment
class Inner:
    def price(self, x):
        if x > 100:
            raise ValueError("too dear")
        return x * 2

    def lines(self, n):
        for i in range(n):
            yield "line %d\n" % i


@serve.deployment
@serve.ingress(app)
class Api:
    def __init__(self, inner):
        self.inner = inner
        self.items = {}
        self.background = []

    @app.get("/")
    def root(self):
        return {"root": True, "started": started}

    @app.get("/items/{name}", response_model=Item)
    async def item(self, name: str):
        if name not in self.items:
            raise HTTPException(404, detail={"missing": name}, headers={"x-why": "missing"})
        return self.items[name]

    @app.post("/items", status_code=201)
    async def create(self, item: Item, response: Response, notify: bool = Query(False)):
        self.items[item.name] = item
        response.headers["x-count"] = str(len(self.items))
        return {"notify": notify, "double": await self.inner.price.remote(item.price)}

    @app.delete("/items/{name}", status_code=204)
    def remove(self, name: str):
        self.items.pop(name, None)

    @app.get("/who")
    def who(self, u: str = Depends(user)):
        return u

    @app.get("/query")
    def query(self, a: int, b: List[str] = Query([]), c: Optional[float] = None):
        return {"a": a, "b": b, "c": c}

    @app.get("/tea")
    def tea(self):
        raise Teapot("short and stout")

    @app.get("/crash")
    def crash(self):
        raise RuntimeError("crash")

    @app.get("/html", response_class=HTMLResponse)
    def html(self):
        return "<b>x</b>"

    @app.get("/go")
    def go(self):
        return RedirectResponse("/api/free?x=7")

    @app.get("/stream")
    async def stream(self, n: int = 3):
        return StreamingResponse(self.inner.options(stream=True).lines.remote(n), media_type="text/plain")

    @app.get("/later")
    def later(self, tasks: BackgroundTasks):
        tasks.add_task(self.background.append, 1)
        return "ok"

    @app.get("/background")
    def get_background(self):
        return self.background

    @app.get("/cookie")
    def cookie(self, c: Optional[str] = Cookie(None)):
        r = PlainTextResponse(c or "none")
        r.set_cookie("c", "v")
        return r

    @app.post("/raw")
    async def raw(self, request: Request):
        return {"len": len(await request.body()), "path": request.url.path, "root": request.scope["root_path"]}

    @app.put("/many")
    def many(self, one: Item, two: int = Body(...)):
        return [one.name, two]

    @app.get("/depends")
    async def depends(self, request: Request):
        return [request.method, dict(request.path_params), request.headers.get("x-a")]

    @app.api_route("/multi", methods=["GET", "POST", "PATCH"])
    def multi(self, request: Request):
        return request.method

    def not_a_route(self, x):
        return ["direct", x]


app.include_router(router)
h = serve.run(Api.bind(Inner.bind()), name="api", route_prefix="/api")
attempt("root", lambda: http("/api/"))
attempt("root without slash", lambda: http("/api"))
attempt("missing item", lambda: http("/api/items/a"))
attempt("create", lambda: http("/api/items?notify=true", {"name": "a", "price": 3}))
attempt("item", lambda: http("/api/items/a"))
attempt("invalid", lambda: (lambda r: [r[0], [(d["type"], d["loc"]) for d in json.loads(r[2])["detail"]]])(http("/api/items", {"price": -1})))
attempt("bad json", lambda: (lambda r: [r[0], json.loads(r[2])["detail"][0]["type"]])(http("/api/items", b"{", headers={"content-type": "application/json"})))
attempt("inner fails", lambda: http("/api/items", {"name": "b", "price": 200}))
attempt("delete", lambda: http("/api/items/a", method="DELETE"))
attempt("unauthorized", lambda: http("/api/who"))
attempt("authorized", lambda: http("/api/who", headers={"authorization": "secret"}))
attempt("query", lambda: http("/api/query?a=1&b=x&b=y&c=1.5"))
attempt("query invalid", lambda: http("/api/query?a=x")[0])
attempt("tea", lambda: http("/api/tea"))
attempt("crash", lambda: http("/api/crash"))
attempt("html", lambda: http("/api/html"))
attempt("redirect", lambda: http("/api/go"))
attempt("stream", lambda: http("/api/stream?n=4"))
attempt("free", lambda: http("/api/free"))
attempt("router", lambda: http("/api/r/plain"))
attempt("later", lambda: http("/api/later"))
time.sleep(0.3)
attempt("background", lambda: http("/api/background"))
attempt("cookie", lambda: http("/api/cookie", headers={"cookie": "c=1"}))
attempt("raw", lambda: http("/api/raw", b"x" * 100000))
attempt("many", lambda: http("/api/many", {"one": {"name": "n", "price": 1}, "two": 2}, method="PUT"))
attempt("depends", lambda: http("/api/depends", headers={"x-a": "b"}))
attempt("multi", lambda: [http("/api/multi", method=m)[2] for m in ("GET", "POST", "PATCH")])
attempt("wrong method", lambda: http("/api/multi", method="PUT"))
attempt("not found", lambda: http("/api/absent"))
attempt("other app", lambda: http("/absent"))
attempt("docs", lambda: http("/api/docs")[:2])
attempt("openapi", lambda: (lambda d: [d["info"], sorted(d["paths"])])(json.loads(http("/api/openapi.json")[2])))
attempt("slash redirect", lambda: http("/api/who/", headers={"authorization": "secret"}))
attempt("direct call", lambda: h.not_a_route.remote(3).result())
attempt("direct route", lambda: h.query.remote(5, b=["z"], c=None).result())


@serve.deployment
@serve.ingress(FastAPI())
class Empty:
    pass


serve.run(Empty.bind(), name="empty", route_prefix="/empty")
attempt("empty", lambda: http("/empty/"))


def make_app():
    made = FastAPI()

    @made.get("/made")
    def made_route():
        return {"made": True}

    return made


serve.run(serve.deployment(serve.ingress(make_app)(type("Made", (), {}))).bind(), name="made", route_prefix="/m")
attempt("made by a function", lambda: http("/m/made"))


class WithCall:
    def __call__(self):
        return 1


attempt("ingress on class with __call__", lambda: serve.ingress(FastAPI())(WithCall))
attempt("ingress on function", lambda: serve.ingress(FastAPI())(make_app))

