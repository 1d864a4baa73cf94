"""A request router that goes round the replicas."""

from __future__ import annotations

from typing import Any, List, Optional

from ray.serve.request_router import FIFOMixin, PendingRequest, RequestRouter, RunningReplica


class RoundRobinRouter(FIFOMixin, RequestRouter):
    """Each request goes to the replica after the last one's, or the next one with a free slot."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._next = 0

    async def choose_replicas(
        self,
        candidate_replicas: List[RunningReplica],
        pending_request: Optional[PendingRequest] = None,
    ) -> List[List[RunningReplica]]:
        order = sorted(candidate_replicas, key=lambda r: r.replica_id.unique_id)
        if not order:
            return []
        at = self._next % len(order)
        self._next = at + 1
        return [[r] for r in order[at:] + order[:at]]
