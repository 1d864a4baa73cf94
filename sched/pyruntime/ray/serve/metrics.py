"""`ray.serve.metrics`: counters, gauges and histograms that know the application, the deployment
and the replica they are used in.
"""

from __future__ import annotations

from typing import Any, Dict, Optional

from rserve import _metrics

from ray.serve.context import _get_internal_replica_context, _get_serve_request_context

DEPLOYMENT_TAG = "deployment"
REPLICA_TAG = "replica"
APPLICATION_TAG = "application"
ROUTE_TAG = "route"

_RESERVED = (DEPLOYMENT_TAG, REPLICA_TAG, APPLICATION_TAG)


class _Serve(_metrics.Metric):
    """The tags that Serve adds: those of the replica, and the request's route where it is asked."""

    def _check_key(self, key: str) -> None:
        if key in _RESERVED:
            raise ValueError(f"'{key}' tag is reserved for Ray Serve metrics")

    def _own_tags(self) -> Dict[str, str]:
        context = _get_internal_replica_context()
        if context is None:
            return {}
        return {
            APPLICATION_TAG: context.app_name,
            DEPLOYMENT_TAG: context.deployment,
            REPLICA_TAG: context.replica_tag,
        }

    def _labels(self, tags: Optional[Dict[str, str]]) -> _metrics.Labels:
        if ROUTE_TAG in self._tag_keys and ROUTE_TAG not in (tags or ()):
            if ROUTE_TAG not in self._default_tags:
                route = str(_get_serve_request_context().route)
                tags = {**(tags or {}), ROUTE_TAG: route}
        if _get_internal_replica_context() is None:
            return self._merge(tags)  # what is remembered would be wrong after a fork
        return super()._labels(tags)

    def set_default_tags(self, default_tags: Dict[str, str]) -> Any:
        """Values of tags that a call does not give."""
        super().set_default_tags(default_tags)


class Counter(_Serve, _metrics.Counter):
    """A number that only grows; exported as `ray_NAME_total`."""


class Gauge(_Serve, _metrics.Gauge):
    """A number that is what it was last set to; exported as `ray_NAME`."""


class Histogram(_Serve, _metrics.Histogram):
    """Counts of values by size; exported as `ray_NAME_bucket`, `_count` and `_sum`."""
