"""Where Ray keeps the base classes of request routers; see `ray.serve.request_router`."""

from __future__ import annotations

from ray.serve.request_router import FIFOMixin, LocalityMixin, MultiplexMixin, RequestRouter

__all__ = ["FIFOMixin", "LocalityMixin", "MultiplexMixin", "RequestRouter"]
