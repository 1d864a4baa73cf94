"""Base classes of custom request routers.

A router runs in a Python process beside the node, not in the path of every byte: for each request
of its deployment it is asked to rank the replicas, and the node gives the request to the first of
them that has a free slot. It sees the request's metadata, never its arguments
(`PendingRequest.args` and `kwargs` are empty). A router that takes longer than 100 ms
(RSERVE_ROUTER_TIMEOUT_S in the node's environment), raises or dies costs that request its choice:
the built-in one takes its place, and `rserve status` and `/metrics` say so.
"""

from __future__ import annotations

import abc
import asyncio
import dataclasses
import enum
import random
import time
from typing import Any, Callable, Dict, List, Optional, Set

from ray.serve._private.common import DeploymentID, ReplicaID, RequestMetadata

__all__ = [
    "FIFOMixin",
    "LocalityMixin",
    "MultiplexMixin",
    "PendingRequest",
    "ReplicaID",
    "ReplicaResult",
    "RequestRouter",
    "RunningReplica",
]

#: How long a request waits for a replica that has its model, in seconds.
_MATCHING_TIMEOUT_S = 1.0


class DeploymentHandleSource(str, enum.Enum):
    """Who makes the requests."""

    UNKNOWN = "UNKNOWN"
    PROXY = "PROXY"
    REPLICA = "REPLICA"


@dataclasses.dataclass
class RunningReplicaInfo:
    """What the node tells of one replica."""

    replica_id: ReplicaID
    node_id: Optional[str] = None
    node_ip: Optional[str] = None
    availability_zone: Optional[str] = None
    actor_name: str = ""
    max_ongoing_requests: int = 1
    is_cross_language: bool = False
    multiplexed_model_ids: List[str] = dataclasses.field(default_factory=list)
    routing_stats: Dict[str, Any] = dataclasses.field(default_factory=dict)
    port: Optional[int] = None
    num_ongoing_requests: int = 0


class ReplicaResult:
    """Stands for the answer of a request that was routed. It is not available to routers."""


@dataclasses.dataclass
class RequestRoutingContext:
    """What was tried for a request so far."""

    multiplexed_start_matching_time: Optional[float] = None
    tried_fewest_multiplexed_models: bool = False
    tried_first_multiplexed_models: bool = False
    tried_same_az: bool = False
    tried_same_node: bool = False
    should_backoff: bool = False


def _new_future() -> "asyncio.Future[Any]":
    return asyncio.get_event_loop().create_future()


@dataclasses.dataclass(eq=False)
class PendingRequest:
    """A request that waits for a replica."""

    args: List[Any]
    kwargs: Dict[Any, Any]
    metadata: RequestMetadata
    created_at: float = dataclasses.field(default_factory=time.time)
    future: "asyncio.Future[Any]" = dataclasses.field(default_factory=_new_future)
    routing_context: RequestRoutingContext = dataclasses.field(
        default_factory=RequestRoutingContext
    )
    resolved: bool = False

    def reset_future(self) -> None:
        """Forgets the outcome, for another try."""
        self.future = _new_future()


class RunningReplica:
    """A replica that takes requests, as its node knows it now."""

    def __init__(self, replica_info: RunningReplicaInfo) -> None:
        self._info = replica_info

    @property
    def replica_id(self) -> ReplicaID:
        return self._info.replica_id

    @property
    def actor_id(self) -> str:
        return ""

    @property
    def node_id(self) -> str:
        """The node that it runs on."""
        return self._info.node_id or ""

    @property
    def availability_zone(self) -> Optional[str]:
        return self._info.availability_zone

    @property
    def multiplexed_model_ids(self) -> Set[str]:
        """Models that it has loaded or is loading."""
        return set(self._info.multiplexed_model_ids)

    @property
    def routing_stats(self) -> Dict[str, Any]:
        """What its `record_routing_stats` returned last."""
        return self._info.routing_stats

    @property
    def replica_metadata(self) -> Dict[str, Any]:
        return {}

    @property
    def backend_http_endpoint(self) -> Optional[Any]:
        return None

    @property
    def stub(self) -> Any:
        return None

    @property
    def max_ongoing_requests(self) -> int:
        return self._info.max_ongoing_requests

    @property
    def is_cross_language(self) -> bool:
        return self._info.is_cross_language

    def update_replica_info(self, replica_info: RunningReplicaInfo) -> None:
        self._info = replica_info

    async def get_queue_len(self, *, deadline_s: float) -> int:
        """Requests that it has now: exact, and known without asking it."""
        return self._info.num_ongoing_requests

    def push_proxy_handle(self, handle: Any) -> None:
        """Nothing: rserve has no proxy actors."""

    def try_send_request(self, pr: PendingRequest, with_rejection: bool) -> ReplicaResult:
        raise NotImplementedError("requests are sent by the node, not by the request router")

    async def reserve_slot(self, request_metadata: RequestMetadata) -> Any:
        raise NotImplementedError("slots are kept by the node, not by the request router")

    async def release_slot(self, slot_token: str) -> int:
        raise NotImplementedError("slots are kept by the node, not by the request router")


class ReplicaQueueLengthCache:
    """How many requests each replica has, by the node's own exact count."""

    def __init__(self) -> None:
        self._lengths: Dict[ReplicaID, int] = {}

    def get(self, replica_id: ReplicaID) -> Optional[int]:
        return self._lengths.get(replica_id)

    def update(self, replica_id: ReplicaID, queue_length: int) -> None:
        self._lengths[replica_id] = queue_length

    def invalidate_key(self, replica_id: ReplicaID) -> None:
        self._lengths.pop(replica_id, None)

    def remove_inactive_replicas(self, *, active_replica_ids: Set[ReplicaID]) -> None:
        for replica_id in set(self._lengths) - set(active_replica_ids):
            del self._lengths[replica_id]


class FIFOMixin:
    """For routers whose requests are all alike: the oldest one is served first.

    The node serves requests in the order in which they came where their choices allow it, so this
    adds nothing; it is there for the classes that name it.
    """


class LocalityMixin:
    """Prefers replicas on the router's own node. Availability zones are not known."""

    def __init__(
        self,
        self_node_id: Optional[str] = None,
        prefer_local_node_routing: bool = False,
        prefer_local_az_routing: bool = False,
        self_availability_zone: Optional[str] = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._self_node_id = self_node_id
        self._prefer_local_node_routing = prefer_local_node_routing
        self._prefer_local_az_routing = prefer_local_az_routing
        self._self_availability_zone = self_availability_zone

    def _is_near(self, replica: RunningReplica) -> bool:
        return self._self_node_id is not None and replica.node_id == self._self_node_id

    def apply_locality_routing(
        self, pending_request: Optional[PendingRequest] = None
    ) -> Set[ReplicaID]:
        """The replicas to try now: those of this node first, then all."""
        replicas: Dict[ReplicaID, RunningReplica] = self.curr_replicas  # type: ignore[attr-defined]
        context = pending_request.routing_context if pending_request else RequestRoutingContext()
        near = {r for r, x in replicas.items() if self._is_near(x)}
        if self._prefer_local_node_routing and near and not context.tried_same_node:
            context.tried_same_node = True
            context.should_backoff = False
            return near
        context.should_backoff = True
        return set(replicas)

    def rank_replicas_via_locality(
        self, replicas: List[RunningReplica]
    ) -> List[List[RunningReplica]]:
        """Those on this node, those in this availability zone, all others."""
        ranks: List[List[RunningReplica]] = [[], [], []]
        for replica in replicas:
            zone = self._self_availability_zone
            near_zone = zone is not None and replica.availability_zone == zone
            ranks[0 if self._is_near(replica) else 1 if near_zone else 2].append(replica)
        return ranks


class MultiplexMixin:
    """Prefers replicas that have a request's model."""

    def _by_models(self, replicas: List[RunningReplica]) -> List[List[RunningReplica]]:
        """Those with the fewest models, all others."""
        fewest = min((len(r.multiplexed_model_ids) for r in replicas), default=0)
        first = [r for r in replicas if len(r.multiplexed_model_ids) == fewest]
        return [first, [r for r in replicas if len(r.multiplexed_model_ids) > fewest]]

    def apply_multiplex_routing(
        self, pending_request: Optional[PendingRequest] = None
    ) -> Set[ReplicaID]:
        """The replicas to try now: those with the model, those with the fewest, all."""
        replicas: Dict[ReplicaID, RunningReplica] = self.curr_replicas  # type: ignore[attr-defined]
        if pending_request is None:
            return set(replicas)
        context = pending_request.routing_context
        model = pending_request.metadata.multiplexed_model_id
        if context.multiplexed_start_matching_time is None:
            context.multiplexed_start_matching_time = time.time()
        waited = time.time() - context.multiplexed_start_matching_time
        having = {r for r, x in replicas.items() if model in x.multiplexed_model_ids}
        if having and waited < random.uniform(_MATCHING_TIMEOUT_S, _MATCHING_TIMEOUT_S * 2):
            return having
        if not context.tried_fewest_multiplexed_models:
            context.tried_fewest_multiplexed_models = True
            return {r.replica_id for r in self._by_models(list(replicas.values()))[0]}
        context.should_backoff = True
        return set(replicas)

    def rank_replicas_via_multiplex(
        self, replicas: List[RunningReplica], multiplexed_model_id: str
    ) -> List[List[RunningReplica]]:
        """Those that have the model, those with the fewest models, all others."""
        having = [r for r in replicas if multiplexed_model_id in r.multiplexed_model_ids]
        others = [r for r in replicas if multiplexed_model_id not in r.multiplexed_model_ids]
        return [having, *self._by_models(others)]


class RequestRouter(abc.ABC):
    """Ranks the replicas of a deployment for each request: override `choose_replicas`."""

    def __init__(
        self,
        deployment_id: DeploymentID,
        handle_source: DeploymentHandleSource,
        self_actor_id: Optional[str] = None,
        self_actor_handle: Optional[Any] = None,
        use_replica_queue_len_cache: bool = False,
        get_curr_time_s: Optional[Callable[[], float]] = None,
        create_replica_wrapper_func: Optional[Callable[..., RunningReplica]] = None,
        initial_backoff_s: float = 0.025,
        backoff_multiplier: float = 2,
        max_backoff_s: float = 0.5,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        self._deployment_id = deployment_id
        self._handle_source = handle_source
        self._self_actor_id = self_actor_id
        self._get_curr_time_s = get_curr_time_s or time.time
        self._create_replica_wrapper = create_replica_wrapper_func or RunningReplica
        self._replicas: Dict[ReplicaID, RunningReplica] = {}
        self._queue_lengths = ReplicaQueueLengthCache()
        self._pending = 0
        self.initial_backoff_s = initial_backoff_s
        self.backoff_multiplier = backoff_multiplier
        self.max_backoff_s = max_backoff_s

    def initialize_state(self, **kwargs: Any) -> None:
        """Called once with `request_router_kwargs`."""

    @abc.abstractmethod
    async def choose_replicas(
        self,
        candidate_replicas: List[RunningReplica],
        pending_request: Optional[PendingRequest] = None,
    ) -> List[List[RunningReplica]]:
        """Groups of replicas, the best first. The request goes to one with a free slot of the first
        group that has one; if none has, it waits and the router is asked again."""
        raise NotImplementedError

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: ReplicaResult
    ) -> None:
        """The request was given to this replica."""

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """The request ended, however it did."""

    def on_send_request(self, replica_id: ReplicaID) -> None:
        """A request is about to be sent to this replica."""

    def on_new_queue_len_info(self, replica_id: ReplicaID, num_ongoing_requests: int) -> None:
        """How many requests this replica has."""
        self._queue_lengths.update(replica_id, num_ongoing_requests)

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        """This replica is gone."""
        self._replicas.pop(replica_id, None)
        self._queue_lengths.invalidate_key(replica_id)

    def on_replica_actor_unavailable(self, replica_id: ReplicaID) -> None:
        """This replica cannot be reached for now."""
        self._queue_lengths.invalidate_key(replica_id)

    def decrement_queue_len_cache(self, replica_id: ReplicaID) -> None:
        length = self._queue_lengths.get(replica_id)
        if length:
            self._queue_lengths.update(replica_id, length - 1)

    def create_replica_wrapper(self, replica_info: RunningReplicaInfo) -> RunningReplica:
        return self._create_replica_wrapper(replica_info)

    def update_replicas(self, replicas: List[RunningReplica]) -> None:
        """The replicas that take requests now, when they are others than before."""
        self._replicas = {r.replica_id: r for r in replicas}
        self._queue_lengths.remove_inactive_replicas(active_replica_ids=set(self._replicas))

    def update_backoff_params(
        self,
        initial_backoff_s: Optional[float],
        backoff_multiplier: Optional[float],
        max_backoff_s: Optional[float],
    ) -> None:
        self.initial_backoff_s = initial_backoff_s or self.initial_backoff_s
        self.backoff_multiplier = backoff_multiplier or self.backoff_multiplier
        self.max_backoff_s = max_backoff_s or self.max_backoff_s

    def select_available_replicas(
        self, candidates: Optional[List[RunningReplica]] = None
    ) -> List[RunningReplica]:
        """Those of `candidates` (or of all) that have a free slot."""
        some = list(self._replicas.values()) if candidates is None else candidates
        return [
            r for r in some if (self._queue_lengths.get(r.replica_id) or 0) < r.max_ongoing_requests
        ]

    @property
    def app_name(self) -> str:
        return self._deployment_id.app_name

    @property
    def curr_replicas(self) -> Dict[ReplicaID, RunningReplica]:
        return self._replicas

    @property
    def replica_queue_len_cache(self) -> ReplicaQueueLengthCache:
        return self._queue_lengths

    @property
    def num_pending_requests(self) -> int:
        """Requests that this router is choosing for."""
        return self._pending

    @property
    def curr_num_routing_tasks(self) -> int:
        return self._pending

    @property
    def max_num_routing_tasks(self) -> int:
        return min(50, 2 * len(self._replicas))

    @property
    def target_num_routing_tasks(self) -> int:
        return min(self._pending, self.max_num_routing_tasks)

    @property
    def supports_rejection_protocol(self) -> bool:
        return True
