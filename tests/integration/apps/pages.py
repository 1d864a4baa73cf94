"""Starlette: middleware, lifespan state, a static mount, background tasks, handlers of errors."""

import contextlib
import pathlib

from ray import serve
from starlette.applications import Starlette
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

HERE = pathlib.Path(__file__).parent
done = []


class Stamp(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        answer = await call_next(request)
        answer.headers["x-stamp"] = request.state.table["name"]
        return answer


class Door:
    """Middleware of plain ASGI."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http" and scope["path"].startswith("/closed"):
            await PlainTextResponse("closed", 403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


@contextlib.asynccontextmanager
async def lifespan(app):
    yield {"table": {"name": "seven", "visits": 0}}


async def home(request):
    request.state.table["visits"] += 1
    return JSONResponse({"visits": request.state.table["visits"],
                         "style": str(request.url_for("static", path="style.css").path)})


async def later(request):
    tasks = BackgroundTasks()
    for number in range(3):
        tasks.add_task(done.append, number)
    return JSONResponse({"done": len(done)}, background=tasks)


async def fails_later(request):
    def fail():
        raise RuntimeError("in the background")

    return PlainTextResponse("sent", background=BackgroundTask(fail))


async def listed(request):
    return JSONResponse(done)


async def text(request):
    return PlainTextResponse("long " * 2000)


async def broken(request):
    raise KeyError("nothing there")


async def moved(request):
    return RedirectResponse(request.url_for("home"))


async def file(request):
    return FileResponse(HERE / "static" / "style.css", filename="x.css")


async def on_key_error(request, error):
    return JSONResponse({"absent": error.args[0]}, 410)


pages = Starlette(
    routes=[
        Route("/", home, name="home"),
        Route("/later", later, methods=["POST"]),
        Route("/fails-later", fails_later),
        Route("/done", listed),
        Route("/text", text),
        Route("/broken", broken),
        Route("/moved", moved),
        Route("/file", file),
        Mount("/static", StaticFiles(directory=HERE / "static"), name="static"),
    ],
    middleware=[Middleware(Door), Middleware(GZipMiddleware), Middleware(Stamp)],
    exception_handlers={KeyError: on_key_error},
    lifespan=lifespan,
)


@serve.deployment(ray_actor_options={"num_cpus": 0})
@serve.ingress(lambda: pages)  # built on the replica, so nothing of it is pickled
class Pages:
    pass


app = Pages.bind()
