"""A request router that keeps sessions on their replicas."""

from __future__ import annotations

import bisect
import hashlib
from typing import Any, List, Optional, Tuple

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


class ConsistentHashRouter(RequestRouter):
    """Maps each session to a replica on a hash ring, so that few sessions move when replicas come
    and go. A request without a session goes by its own id.

    `virtual_nodes`: places of one replica on the ring. `fallback_replicas`: how many others, in the
    order of the ring, may take a request whose replica has no free slot.
    """

    def initialize_state(
        self, virtual_nodes: int = 100, fallback_replicas: int = 2, **kwargs: Any
    ) -> None:
        for name, value, low in (
            ("virtual_nodes", virtual_nodes, 1),
            ("fallback_replicas", fallback_replicas, 0),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ValueError(f"{name} must be an integer >= {low}, got {value!r}")
        self._virtual_nodes = virtual_nodes
        self._fallback_replicas = fallback_replicas
        self._ring: List[Tuple[int, str]] = []

    def update_replicas(self, replicas: List[RunningReplica]) -> None:
        super().update_replicas(replicas)
        self._ring = sorted(
            (_hash(f"{r.replica_id.unique_id}:{i}"), r.replica_id.unique_id)
            for r in replicas
            for i in range(self._virtual_nodes)
        )

    async def choose_replicas(
        self,
        candidate_replicas: List[RunningReplica],
        pending_request: Optional[PendingRequest] = None,
    ) -> List[List[RunningReplica]]:
        by_id = {r.replica_id.unique_id: r for r in candidate_replicas}
        key = ""
        if pending_request is not None:
            meta = pending_request.metadata
            key = meta.session_id or meta.internal_request_id
        start = bisect.bisect(self._ring, (_hash(key), ""))
        chosen: List[str] = []
        for i in range(len(self._ring)):
            name = self._ring[(start + i) % len(self._ring)][1]
            if name in by_id and name not in chosen:
                chosen.append(name)
                if len(chosen) > self._fallback_replicas:
                    break
        return [[by_id[name]] for name in chosen]
