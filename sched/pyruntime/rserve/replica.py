"""A replica: constructs the user's object, serves requests, reconfigures, stops.

Entered by `run` in a process that the zygote forked, or as `python -m rserve.replica`, which
imports and builds the application by itself.
"""

from __future__ import annotations

import asyncio
import atexit
import inspect
import logging
import math
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, Optional

from ray.serve import context as serve_context
from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve.multiplex import is_multiplexed, tell, unload_models

from rserve import _core, _log, _process, _stats
from rserve import _wire as w
from rserve._asgi import Ingress, Lifespan, bind_views
from rserve._errors import BuildError, one_line, user_traceback
from rserve._executor import Executor
from rserve._graph import Graph, ingress_of, load
from rserve._node import NodeLink, leave
from rserve._schema import ReplicaRank
from rserve._watch import Watch, where

logger = logging.getLogger("ray.serve")


class Refused(Exception):
    """The replica cannot start or reconfigure: the FAILED message."""

    def __init__(self, phase: str, error: BaseException) -> None:
        super().__init__(phase)
        self.message: Dict[str, Any]
        if isinstance(error, BuildError):
            self.message = error.message(phase="import")
            self.message["phase"] = "import"
        else:
            trace = user_traceback(error)
            text = getattr(error, "lifespan_message", "")
            self.message = {
                "phase": phase,
                "kind": type(error).__name__,
                "error": one_line(error),
                "traceback": f"{text}\n{trace}" if text else trace,
            }


class Replica:
    def __init__(self, link: NodeLink, init: Dict[str, Any], graph: Optional[Graph]) -> None:
        self._link = link
        self._init = init
        self._graph = graph
        self._config: Dict[str, Any] = init.get("config") or {}
        self._servable: Any = None
        self._executor: Executor = None  # type: ignore[assignment]
        self._lifespan: Optional[Lifespan] = None
        self._docs_path: Optional[str] = None
        self._user_config: Any = None
        self._rank = int(init.get("rank") or 0)
        self._stop: "asyncio.Future[float]" = asyncio.get_running_loop().create_future()
        self._reconfiguring = asyncio.Lock()
        self._watch: Optional[Watch] = None
        link.app = str(init.get("app") or "default")
        link.node_id = str(init.get("node_id") or "")
        link.deployment = str(init.get("deployment") or "")
        link.replica_id = str(init.get("replica_id") or "").split("#")[-1]

    async def serve(self) -> int:
        """From the constructor to the destructor; the exit status."""
        link = self._link
        link.on_control = self._on_control
        link.start(asyncio.get_running_loop())
        try:
            await self._start()
        except Refused as e:
            link.send_json(w.FAILED, e.message)
            link.flush()
            return 1
        self._ready()
        stats = _stats.start(link, self._servable, self._config)
        wait_loop_s = await self._stop
        for task in stats:
            task.cancel()
        await self._executor.drain(wait_loop_s)
        await self._destroy()
        return 0

    # --- start

    async def _start(self) -> None:
        link = self._link
        if self._graph is None:
            try:
                options = (self._init.get("config") or {}).get("ray_actor_options") or {}
                _process.run_setup_hook(
                    options.get("runtime_env") or {}, self._init.get("app_dir")
                )
                self._graph = load(
                    link.app,
                    str(self._init.get("import_path") or ""),
                    self._init.get("app_dir"),
                    self._init.get("args") or {},
                )
            except BaseException as e:
                raise Refused("import", e) from None
        node = self._graph.nodes.get(link.deployment)
        if node is None:
            have = ", ".join(self._graph.nodes)
            error = KeyError(
                f"application '{link.app}' has no deployment '{link.deployment}': {have}"
            )
            raise Refused("import", error)
        self._configure_log()
        replica_id = ReplicaID(link.replica_id, DeploymentID(link.deployment, link.app))
        context = serve_context.ReplicaContext(
            replica_id,
            None,
            self._config,
            ReplicaRank(rank=self._rank, node_rank=0, local_rank=self._rank),
            int(self._init.get("world_size") or 1),
            gang_context=self._gang(),
        )
        _core.replica_group = self._init.get("group") or None
        serve_context._set_replica_context(context)
        target = node.target()
        is_function = inspect.isfunction(target)
        self._set_default_executor()
        await self._start_actors(node)
        try:
            self._servable = (
                target if is_function else await self._construct(target, node.args, node.kwargs)
            )
            context.servable_object = self._servable
            loop = asyncio.get_running_loop()
            self._executor = Executor(link, loop, self._servable, is_function, self._max_ongoing())
            self._executor.access_log = self._wants_access_log()
            found = ingress_of(target)
            if found is not None:
                await self._start_asgi(found, target)
        except BaseException as e:
            raise Refused("constructor", e) from None
        link.on_request = self._executor.on_request
        try:
            await self._call_reconfigure(self._config.get("user_config"), first=True)
        except BaseException as e:
            raise Refused("reconfigure", e) from None
        try:
            await self._check_health()
        except BaseException as e:
            raise Refused("health_check", e) from None

    async def _start_actors(self, node: Any) -> None:
        wanted = self._config.get("deployment_actors")
        if not wanted:
            return
        from rserve import _deployment_actors

        link = self._link
        try:
            await _deployment_actors.start(
                link.app,
                link.deployment,
                str(self._init.get("version") or ""),
                wanted,
                node.deployment._options.get("deployment_actors"),
            )
        except BaseException as e:
            raise Refused("constructor", e) from None

    async def _construct(self, cls: Any, args: Any, kwargs: Any) -> Any:
        """An instance; __init__ may be a coroutine function and may ask for the context."""
        instance = cls.__new__(cls, *args, **kwargs) if _own_new(cls) else cls.__new__(cls)
        if not isinstance(instance, cls):
            return instance
        pending = instance.__init__(*args, **kwargs)
        if inspect.isawaitable(pending):
            await pending
        return instance

    async def _start_asgi(self, found: Ingress, target: type) -> None:
        app = bind_views(found, target, self._servable)
        docs_url = getattr(app, "docs_url", None)
        self._docs_path = docs_url if isinstance(docs_url, str) else None
        lifespan = Lifespan(app)
        await lifespan.startup()
        self._lifespan = lifespan
        self._executor.asgi_app = app
        self._executor.asgi_state = lifespan.state

    def _ready(self) -> None:
        if self._watch is None:
            self._link.on_blocked_ping = self._blocked_ping
            self._watch = Watch(self._link)
            self._watch.start()
            if is_multiplexed(self._servable):
                tell()
        servable = self._servable
        self._link.send_json(
            w.READY,
            {
                "methods": self._executor.callable_names(),
                "asgi": self._executor.asgi_app is not None,
                "docs_path": self._docs_path,
                "has_check_health": callable(getattr(servable, "check_health", None)),
                "has_reconfigure": callable(getattr(servable, "reconfigure", None)),
                "websocket": self._executor.asgi_app is not None,
                "starts": self._link.starts is not None,
                "ends": True,
            },
        )

    # --- configuration

    def _max_ongoing(self) -> int:
        return int(self._config.get("max_ongoing_requests") or 5)

    def _logging_config(self) -> Dict[str, Any]:
        value = self._config.get("logging_config")
        return value if isinstance(value, dict) else {}

    def _configure_log(self) -> None:
        link = self._link
        _log.configure(link.app, link.deployment, link.replica_id, self._logging_config())

    def _wants_access_log(self) -> bool:
        """Off unless asked for: the node writes an access log of its own."""
        return self._logging_config().get("enable_access_log") is True

    def _set_default_executor(self) -> None:
        """asyncio.to_thread gets as many threads as Ray gives it."""
        options = self._config.get("ray_actor_options") or {}
        cpus = options.get("num_cpus")
        threads = min(32, math.ceil(1 if cpus is None else cpus) + 4)
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(threads, thread_name_prefix="serve-default"))

    async def _call_reconfigure(
        self, user_config: Any, first: bool, rank_changed: bool = False
    ) -> None:
        method = getattr(self._servable, "reconfigure", None)
        takes_rank = False
        if callable(method):
            try:
                takes_rank = "rank" in inspect.signature(method).parameters
            except (TypeError, ValueError):
                pass
        changed = user_config is not None and (first or user_config != self._user_config)
        if not changed and not (takes_rank and (first or rank_changed)):
            return
        if inspect.isfunction(self._servable):
            raise ValueError("deployment_def must be a class to use user_config or rank")
        if method is None:
            raise AttributeError(
                f"user_config was set, but class {type(self._servable).__name__} of deployment "
                f"'{self._link.deployment}' has no method 'reconfigure'"
            )
        if user_config is not None:
            self._user_config = user_config
        args = [self._user_config]
        kwargs = {}
        if takes_rank:
            context = serve_context.get_replica_context()
            kwargs["rank"] = context.rank
        pending = method(*args, **kwargs)
        if inspect.isawaitable(pending):
            await pending

    async def _reconfigure(self, message: Dict[str, Any]) -> None:
        async with self._reconfiguring:
            config = message.get("config")
            if isinstance(config, dict):
                self._config = config
                serve_context.get_replica_context()._deployment_config = config
                self._configure_log()
                self._executor.access_log = self._wants_access_log()
                self._executor.pool.limit = self._max_ongoing()
            rank = message.get("rank")
            rank_changed = isinstance(rank, int) and rank != self._rank
            if rank_changed:
                self._rank = int(rank)  # type: ignore[arg-type]
                context = serve_context.get_replica_context()
                context.rank = ReplicaRank(rank=self._rank, node_rank=0, local_rank=self._rank)
            if isinstance(message.get("world_size"), int):
                serve_context.get_replica_context().world_size = message["world_size"]
            try:
                await self._call_reconfigure(message.get("user_config"), False, rank_changed)
            except BaseException as e:
                self._link.send_json(w.FAILED, Refused("reconfigure", e).message)
                return
            self._ready()

    def _gang(self) -> Any:
        gang = self._init.get("gang")
        if not gang:
            return None
        from ray.serve.gang import GangContext

        return GangContext(**gang)

    # --- health

    async def _check_health(self) -> None:
        method = getattr(self._servable, "check_health", None)
        if callable(method) and not inspect.isfunction(self._servable):
            pending = method()
            if inspect.isawaitable(pending):
                await pending

    async def _ping(self, stream: int) -> None:
        try:
            await self._check_health()
        except BaseException as e:
            logger.warning("Health check failed.\n%s", user_traceback(e).rstrip())
            self._link.send_json(w.PONG, {"ok": False, "error": one_line(e)}, stream)
        else:
            self._link.send_json(w.PONG, {"ok": True}, stream)

    def _blocked_ping(self, stream: int, blocked_s: float) -> bool:
        """Answers for a loop that is blocked, on the watching thread.

        The user's own check can only run in the loop, so it has to wait.
        """
        if callable(getattr(self._servable, "check_health", None)):
            return False
        limit = self._config.get("health_check_timeout_s")
        limit_s = float(limit) if isinstance(limit, (int, float)) else 30.0
        message: Dict[str, Any] = {"ok": blocked_s < limit_s, "blocked_s": round(blocked_s, 3)}
        if blocked_s >= limit_s:
            message["error"] = (
                f"the event loop has been blocked for {blocked_s:.1f} s"
                f"{where(self._link.thread_id)}; health_check_timeout_s is {limit_s:g}"
            )
        self._link.send_json(w.PONG, message, stream)
        return True

    # --- control messages

    def _on_control(self, frame: w.Frame) -> None:
        if frame.type == w.PING:
            self._spawn(self._ping(frame.stream))
        elif frame.type == w.RECONFIGURE:
            self._spawn(self._reconfigure(w.parse_json(frame)))
        elif frame.type == w.STOP:
            wait = w.parse_json(frame).get("wait_loop_s")
            if not self._stop.done():
                self._stop.set_result(float(wait) if isinstance(wait, (int, float)) else 2.0)
        else:
            raise w.ProtocolError(f"message {frame.type} was not expected")

    def _spawn(self, coro: Any) -> None:
        task = asyncio.get_running_loop().create_task(coro)
        _background.add(task)
        task.add_done_callback(_background.discard)

    # --- end

    async def _destroy(self) -> None:
        """What the user wants done last: lifespan shutdown, then the destructor, called by hand."""
        try:
            if self._lifespan is not None:
                await self._lifespan.shutdown()
        except BaseException as e:
            print(user_traceback(e), file=sys.stderr)
        await unload_models(self._servable)
        destructor = getattr(self._servable, "__del__", None)
        if destructor is None or inspect.isfunction(self._servable):
            return
        try:
            pending = destructor()
            if inspect.isawaitable(pending):
                await pending
        except BaseException as e:
            print(user_traceback(e), file=sys.stderr)


_background: "set[Any]" = set()


def _own_new(cls: type) -> bool:
    new: Any = cls.__new__
    return new is not object.__new__


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    except ImportError:
        loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop


def _read_init(link: NodeLink) -> Dict[str, Any]:
    frame = w.read_frame(link._reader, link._inbox)
    if frame.type != w.INIT:
        raise w.ProtocolError(f"message {frame.type} came before INIT")
    if frame.fds:
        link.share_starts(frame.fds[0])
    return w.parse_json(frame)


def run(sock: socket.socket, graph: Optional[Graph]) -> int:
    """Serves on a connected socket until told to stop; the exit status."""
    _process.ignore_interrupts()
    _process.line_buffered_output()
    sock.setblocking(True)
    link = NodeLink(sock)
    hello = {"protocol": w.PROTOCOL, "kind": "python", "pid": os.getpid(), "starts": True}
    w.send_json(sock, w.HELLO, hello)
    try:
        init = _read_init(link)
    except (w.HangUp, OSError):
        return 0
    except w.ProtocolError as e:
        print(f"rserve: {e}", file=sys.stderr)
        return 1
    _process.take_environment(init.get("env"))
    if init.get("core"):
        from rserve import worker

        return worker.run(link, init)
    _process.set_name(f"rs:{init.get('deployment', '')}")
    loop = _new_loop()

    async def main() -> int:
        return await Replica(link, init, graph).serve()

    status = loop.run_until_complete(main())
    link.flush()
    try:
        atexit._run_exitfuncs()
    except BaseException as e:
        print(user_traceback(e), file=sys.stderr)
    return status


def main() -> None:
    fd = w.fd_from_environment()
    if fd is None:
        print("rserve.replica is started by rserve; RSERVE_FD is not set", file=sys.stderr)
        sys.exit(2)
    os.environ.pop("RSERVE_FD", None)
    os.set_inheritable(fd, False)
    _process.hold_environment()
    _process.die_with_parent()
    leave(run(socket.socket(fileno=fd), None))


if __name__ == "__main__":
    main()
