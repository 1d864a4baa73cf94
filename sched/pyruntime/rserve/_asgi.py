"""@serve.ingress: ASGI applications, FastAPI class-based views, and the lifespan protocol."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any, Callable, Dict, List, Optional, Tuple

from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
)


class Ingress:
    """What @serve.ingress leaves on a class: the application, or a function that builds it."""

    __slots__ = ("app", "builder", "routes")

    def __init__(self, app: Any, builder: Optional[Callable[[], Any]]) -> None:
        self.app = app
        self.builder = builder
        #: The routes at decoration: later ones (of other classes) are none of this class's
        #: business.
        self.routes: Optional[List[Any]] = None
        router = getattr(app, "router", app)
        if isinstance(getattr(router, "routes", None), list):
            self.routes = list(router.routes)


#: Class name, module and its bases for each class that was given the same application object.
_owners: Dict[int, List[type]] = {}
_kept: List[Any] = []  # the identities above stay valid


def ingress(app: Any = None) -> Callable[..., Any]:
    """Class decorator: HTTP requests to the deployment go to an ASGI application."""

    def decorator(cls: Optional[type] = None) -> type:
        if cls is None:
            cls = type("ASGIIngressDeployment", (), {})
        if not inspect.isclass(cls):
            raise ValueError("@serve.ingress must be used with a class.")
        if any("__call__" in vars(base) for base in cls.__mro__):
            raise ValueError("Classes passed to @serve.ingress may not have __call__ method.")
        if _is_builder(app):
            cls.__serve_ingress__ = Ingress(None, app)  # type: ignore[attr-defined]
            return cls
        found = Ingress(app, None)
        for route in found.routes or ():
            if _belongs_to(route, cls):
                _check_self(route)
        cls.__serve_ingress__ = found  # type: ignore[attr-defined]
        _owners.setdefault(id(app), []).append(cls)
        _kept.append(app)
        return cls

    return decorator


def _is_builder(app: Any) -> bool:
    """A function without required parameters builds the application on the replica."""
    if not inspect.isfunction(app):
        return False
    return all(
        p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        for p in inspect.signature(app).parameters.values()
    )


def _belongs_to(route: Any, cls: type) -> bool:
    """Whether the endpoint of a route is a method of the class or of one of its bases."""
    endpoint = getattr(route, "endpoint", None)
    name = getattr(endpoint, "__qualname__", "")
    if not inspect.isfunction(endpoint) or "." not in name:
        return False
    owner = name.rpartition(".")[0]
    return any(
        owner == base.__qualname__ and endpoint.__module__ == base.__module__
        for base in cls.__mro__[:-1]
    )


def _check_self(route: Any) -> None:
    if not inspect.signature(route.endpoint).parameters:
        raise RayServeException(
            "Methods in FastAPI class-based view must have ``self`` as their first argument."
        )


def _is_fastapi_route(route: Any) -> bool:
    return type(route).__name__ in ("APIRoute", "APIWebSocketRoute") or any(
        base.__name__ in ("APIRoute", "APIWebSocketRoute") for base in type(route).__mro__
    )


def _bound_route(route: Any, instance: Any) -> Any:
    """A copy of a FastAPI route whose endpoint is bound to the replica's object."""
    arguments = {}
    for name in inspect.signature(type(route).__init__).parameters:
        if name != "self" and hasattr(route, name):
            arguments[name] = getattr(route, name)
    arguments["endpoint"] = route.endpoint.__get__(instance, type(instance))
    return type(route)(**arguments)


def bind_views(found: Ingress, cls: type, instance: Any) -> Any:
    """The application with the methods of `cls` bound to `instance`; other classes' routes go."""
    app = found.app
    if found.builder is not None:
        app = found.builder()
        found.app = app
    if found.routes is None:
        return app
    others = [c for c in _owners.get(id(app), ()) if c is not cls and c not in cls.__mro__]
    routes = []
    for route in found.routes:
        if _is_fastapi_route(route):
            if _belongs_to(route, cls):
                route = _bound_route(route, instance)
            elif any(_belongs_to(route, other) for other in others):
                continue
        routes.append(route)
    router = getattr(app, "router", app)
    router.routes[:] = routes
    mark = getattr(router, "_mark_routes_changed", None)  # newer FastAPI caches what it matched
    if callable(mark):
        mark()
    if hasattr(app, "openapi_schema"):
        app.openapi_schema = None
    if any(base.__name__ == "APIRouter" for base in type(app).__mro__):
        app = _around_router(app)
    _add_handlers(app)
    return app


def _around_router(router: Any) -> Any:
    """The application that a FastAPI router alone lacks: its routes need FastAPI's middlewares."""
    from fastapi import FastAPI

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(router)
    return app


def _add_handlers(app: Any) -> None:
    """503 for errors of downstream deployments, unless the user handles them."""
    handlers = getattr(app, "exception_handlers", None)
    if not isinstance(handlers, dict):
        return

    async def unavailable(request: Any, error: Any) -> Any:
        from starlette.responses import Response

        return Response(content=error.message, status_code=getattr(error, "status_code", 503))

    for kind in (BackPressureError, DeploymentUnavailableError):
        handlers.setdefault(kind, unavailable)


class Lifespan:
    """Runs the lifespan protocol of an application: start-up now, shut-down later."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._in: "asyncio.Queue[Dict[str, Any]]" = asyncio.Queue()
        self._started: "asyncio.Future[Tuple[bool, str]]" = (
            asyncio.get_running_loop().create_future()
        )
        self._stopped: "asyncio.Future[Tuple[bool, str]]" = (
            asyncio.get_running_loop().create_future()
        )
        self._task: "Optional[asyncio.Task[None]]" = None
        self.state: Dict[str, Any] = {}

    async def startup(self) -> None:
        """Raises RuntimeError when the application refuses to start."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._in.put_nowait({"type": "lifespan.startup"})
        good, message = await self._started
        if not good:
            error = RuntimeError("ASGI lifespan startup failed. Check replica logs for details.")
            error.lifespan_message = message  # type: ignore[attr-defined]
            raise error

    async def shutdown(self) -> None:
        if self._task is None or self._task.done():
            return
        self._in.put_nowait({"type": "lifespan.shutdown"})
        good, message = await self._stopped
        if not good:
            raise RuntimeError(f"ASGI lifespan shutdown failed: {message}")

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._app(scope, self._in.get, self._send)
        except BaseException as e:
            import traceback

            message = "".join(traceback.format_exception(type(e), e, e.__traceback__))
            self._settle(self._started, False, message)
            self._settle(self._stopped, False, message)
            if isinstance(e, asyncio.CancelledError):
                raise
            return
        # An application that returns without a word does not support lifespan, which is allowed.
        self._settle(self._started, True, "")
        self._settle(self._stopped, True, "")

    async def _send(self, message: Dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.complete":
            self._settle(self._started, True, "")
        elif kind == "lifespan.startup.failed":
            self._settle(self._started, False, message.get("message", ""))
        elif kind == "lifespan.shutdown.complete":
            self._settle(self._stopped, True, "")
        elif kind == "lifespan.shutdown.failed":
            self._settle(self._stopped, False, message.get("message", ""))

    @staticmethod
    def _settle(future: "asyncio.Future[Tuple[bool, str]]", good: bool, message: str) -> None:
        if not future.done():
            future.set_result((good, message))
