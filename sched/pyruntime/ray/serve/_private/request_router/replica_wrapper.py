"""Where Ray keeps RunningReplica; see `ray.serve.request_router`."""

from __future__ import annotations

from ray.serve.request_router import RunningReplica

__all__ = ["RunningReplica"]
