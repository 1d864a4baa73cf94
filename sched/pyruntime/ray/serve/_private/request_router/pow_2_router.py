"""Ray's own request router, for classes that derive from it.

By itself it is never run: a deployment that names it, or none, is routed by the node.
"""

from __future__ import annotations

import random
from typing import List, Optional

from ray.serve.request_router import (
    FIFOMixin,
    LocalityMixin,
    MultiplexMixin,
    PendingRequest,
    RequestRouter,
    RunningReplica,
)

__all__ = ["PowerOfTwoChoicesRequestRouter"]


class PowerOfTwoChoicesRequestRouter(FIFOMixin, LocalityMixin, MultiplexMixin, RequestRouter):
    """Takes two replicas at random and prefers the one with fewer requests."""

    async def choose_replicas(
        self,
        candidate_replicas: List[RunningReplica],
        pending_request: Optional[PendingRequest] = None,
    ) -> List[List[RunningReplica]]:
        """The two, the better first; of those that have the request's model, or are near."""
        if not candidate_replicas:
            return []
        if pending_request is not None and pending_request.metadata.multiplexed_model_id:
            wanted = self.apply_multiplex_routing(pending_request)
        else:
            wanted = self.apply_locality_routing(pending_request)
        some = [r for r in candidate_replicas if r.replica_id in wanted] or candidate_replicas
        two = random.sample(some, min(2, len(some)))
        two.sort(key=lambda r: self.replica_queue_len_cache.get(r.replica_id) or 0)
        return [[replica] for replica in two]
