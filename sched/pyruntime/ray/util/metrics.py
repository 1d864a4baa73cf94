"""`ray.util.metrics`: counters, gauges and histograms without tags of their own.

In a replica `ray.serve.metrics` has the same with application, deployment and replica added.
"""

from __future__ import annotations

from rserve import _metrics
from rserve._metrics import Metric

__all__ = ["Counter", "Gauge", "Histogram", "Metric"]


class Counter(_metrics.Counter):
    """A number that only grows; exported as `ray_NAME_total`."""


class Gauge(_metrics.Gauge):
    """A number that is what it was last set to; exported as `ray_NAME`."""


class Histogram(_metrics.Histogram):
    """Counts of values by size; exported as `ray_NAME_bucket`, `_count` and `_sum`."""
