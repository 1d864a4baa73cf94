"""The user's request routers: finds them, keeps them up to date, asks them."""

from __future__ import annotations

import inspect
import sys
import time
from typing import Any, Dict, List, Optional

from ray.serve._private.common import DeploymentID, ReplicaID, RequestMetadata
from ray.serve.request_router import (
    DeploymentHandleSource,
    PendingRequest,
    ReplicaResult,
    RequestRouter,
    RunningReplica,
    RunningReplicaInfo,
)

from rserve._errors import one_line, user_traceback
from rserve._helper import import_callable, same_object

#: Requests that are remembered until they are known to be over.
MAX_REMEMBERED = 100_000


class Router:
    """That of one deployment."""

    def __init__(self, target: Any, deployment: DeploymentID, facts: Dict[str, Any]) -> None:
        self.deployment = deployment
        self.router: RequestRouter = target(
            deployment_id=deployment,
            handle_source=DeploymentHandleSource.PROXY,
            self_actor_id="",
            self_actor_handle=None,
            use_replica_queue_len_cache=True,
            get_curr_time_s=time.time,
            self_node_id=facts.get("node_id"),
            prefer_local_node_routing=True,
        )
        self.router.initialize_state(**(facts.get("kwargs") or {}))
        base = RequestRouter
        #: The node tells what becomes of requests only to those that want to know.
        self.tell = (
            getattr(target, "on_request_routed", None) is not base.on_request_routed
            or getattr(target, "on_request_completed", None) is not base.on_request_completed
        )
        self.requests: Dict[str, PendingRequest] = {}

    # --- replicas

    def update(self, facts: List[Dict[str, Any]]) -> None:
        router = self.router
        known = router.curr_replicas
        wrappers: List[RunningReplica] = []
        for fact in facts:
            info = RunningReplicaInfo(
                replica_id=ReplicaID(str(fact["replica_id"]), self.deployment),
                node_id=fact.get("node_id"),
                max_ongoing_requests=int(fact.get("max_ongoing_requests") or 1),
                multiplexed_model_ids=list(fact.get("multiplexed_model_ids") or []),
                routing_stats=dict(fact.get("routing_stats") or {}),
                num_ongoing_requests=int(fact.get("in_flight") or 0),
            )
            wrapper = known.get(info.replica_id)
            if wrapper is None:
                wrapper = router.create_replica_wrapper(info)
            else:
                wrapper.update_replica_info(info)
            wrappers.append(wrapper)
            router.on_new_queue_len_info(info.replica_id, info.num_ongoing_requests)
        ids = {r.replica_id for r in wrappers}
        for gone in [r for r in known if r not in ids]:
            router.on_replica_actor_died(gone)
        if ids != set(router.curr_replicas):
            router.update_replicas(wrappers)

    # --- requests

    def pending(self, request: Dict[str, Any]) -> PendingRequest:
        """The same object each time a request is asked about."""
        key = str(request.get("internal_request_id") or "")
        found = self.requests.get(key)
        if found is None:
            found = PendingRequest(
                [],
                {},
                RequestMetadata(
                    request_id=str(request.get("request_id") or ""),
                    internal_request_id=key,
                    call_method=str(request.get("call_method") or "__call__"),
                    route=str(request.get("route") or ""),
                    app_name=str(request.get("app_name") or ""),
                    multiplexed_model_id=str(request.get("multiplexed_model_id") or ""),
                    is_http_request=bool(request.get("is_http_request")),
                    session_id=str(request.get("session_id") or ""),
                ),
            )
            if len(self.requests) >= MAX_REMEMBERED:
                self.requests.pop(next(iter(self.requests)))
            self.requests[key] = found
        return found

    async def choose(self, message: Dict[str, Any]) -> List[List[str]]:
        router = self.router
        self.update(message.get("replicas") or [])
        pending = self.pending(message.get("request") or {})
        router._pending += 1
        try:
            groups: Any = router.choose_replicas(list(router.curr_replicas.values()), pending)
            if inspect.isawaitable(groups):
                groups = await groups
        finally:
            router._pending -= 1
        return [[_unique(r) for r in group] for group in groups]

    def told(self, event: str, message: Dict[str, Any]) -> None:
        pending = self.pending(message.get("request") or {})
        replica = ReplicaID(str(message.get("replica_id") or ""), self.deployment)
        key = pending.metadata.internal_request_id
        if event == "routed":
            self.router.on_send_request(replica)
            self.router.on_request_routed(pending, replica, ReplicaResult())
        elif event == "completed":
            self.requests.pop(key, None)
            self.router.on_request_completed(replica, key)


def _unique(replica: Any) -> str:
    replica_id = getattr(replica, "replica_id", replica)
    return str(getattr(replica_id, "unique_id", replica_id))


class Routers:
    """Those of one application."""

    def __init__(self, graph: Any, app: str) -> None:
        self._graph = graph
        self._app = app
        self._made: Dict[str, Any] = {}
        self._shown: Dict[str, str] = {}

    def _target(self, name: str, path: str) -> Any:
        node = self._graph.nodes.get(name)
        config: Any = node.deployment._options.get("request_router_config") if node else None
        if getattr(config, "_pickled", None):
            return config.get_request_router_class()
        if isinstance(config, dict):
            found = config.get("request_router_class")
        else:
            found = getattr(config, "request_router_class", None)
        return found if same_object(found, path) else import_callable(path)

    def _router(self, name: str, message: Dict[str, Any]) -> Router:
        """Made once, and anew when its configuration changes. What failed once fails again."""
        path = str(message.get("class") or "")
        kwargs = message.get("kwargs") or {}
        key = repr((path, sorted(kwargs.items(), key=repr)))
        made = self._made.get(name)
        if made is None or made[0] != key:
            try:
                router: Any = Router(
                    self._target(name, path), DeploymentID(name, self._app), message
                )
            except Exception as e:
                router = e
            made = self._made[name] = (key, router)
        if isinstance(made[1], Exception):
            raise made[1]
        return made[1]  # type: ignore[no-any-return]

    async def choose(self, message: Dict[str, Any]) -> Optional[Dict[str, Any]]:
        """The answer to CHOOSE; None if it only told something."""
        name = str(message.get("deployment") or "")
        try:
            event = message.get("event")
            router = self._router(name, message)
            if event:
                router.told(str(event), message)
                return None
            groups = await router.choose(message)
            return {"deployment": name, "groups": groups, "tell": router.tell}
        except Exception as e:
            text = one_line(e)
            if self._shown.get(name) != text:  # once, not for every request
                self._shown[name] = text
                print(user_traceback(e), file=sys.stderr)
            return {"deployment": name, "error": text}
