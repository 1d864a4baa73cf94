"""Where Ray keeps PendingRequest; see `ray.serve.request_router`."""

from __future__ import annotations

from ray.serve.request_router import PendingRequest

__all__ = ["PendingRequest"]
