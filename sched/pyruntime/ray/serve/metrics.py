"""`ray.serve.metrics`: counters, gauges and histograms of the user's.

Values are kept here and told to the node as STATS, at most once a second and only when they
changed.
"""

from __future__ import annotations

import re
import threading
from typing import Any, Dict, List, Optional, Tuple, Union

from rserve import _node
from rserve import _wire as w

from ray.serve.context import _get_internal_replica_context, _get_serve_request_context

DEPLOYMENT_TAG = "deployment"
REPLICA_TAG = "replica"
APPLICATION_TAG = "application"
ROUTE_TAG = "route"

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_RESERVED = (DEPLOYMENT_TAG, REPLICA_TAG, APPLICATION_TAG)

_lock = threading.Lock()
_metrics: Dict[str, "_Metric"] = {}
_sending = False

Labels = Tuple[Tuple[str, str], ...]


class _Metric:
    """What the three kinds share: names, tags, and the values by tags."""

    kind = ""

    def __init__(
        self, name: str, description: str = "", tag_keys: Optional[Tuple[str, ...]] = None
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ValueError("Empty name is not allowed. Please provide a metric name.")
        if not _NAME.fullmatch(name):
            raise ValueError(f"Invalid metric name: {name}. It must match {_NAME.pattern}.")
        if tag_keys is not None and not isinstance(tag_keys, tuple):
            raise TypeError(f"tag_keys should be a tuple type, got: {type(tag_keys)}")
        for key in tag_keys or ():
            if not isinstance(key, str):
                raise TypeError(f"Tag keys must be str, got {type(key)}.")
            if key in _RESERVED:
                raise ValueError(f"'{key}' tag is reserved for Ray Serve metrics")
        self._name = name
        self._description = description
        self._tag_keys = tag_keys or ()
        self._default_tags: Dict[str, str] = {}
        self._values: Dict[Labels, Any] = {}
        with _lock:
            same = _metrics.get(name)
            if same is not None and type(same) is type(self):
                self._values = same._values  # two objects of one name are one metric
            _metrics[name] = self

    @property
    def info(self) -> Dict[str, Any]:
        return {
            "name": self._name,
            "description": self._description,
            "tag_keys": self._tag_keys,
            "default_tags": self._default_tags,
        }

    def set_default_tags(self, default_tags: Dict[str, str]) -> None:
        for key, value in default_tags.items():
            if key in _RESERVED:
                raise ValueError(f"'{key}' tag is reserved for Ray Serve metrics")
            if key not in self._tag_keys:
                raise ValueError(f"Unrecognized tag key {key}.")
            if not isinstance(value, str):
                raise TypeError(f"Tag values must be str, got {type(value)}.")
        self._default_tags = dict(default_tags)

    def _labels(self, tags: Optional[Dict[str, str]]) -> Labels:
        merged = dict(self._default_tags)
        for key, value in (tags or {}).items():
            if key in _RESERVED:
                raise ValueError(f"'{key}' tag is reserved for Ray Serve metrics")
            if not isinstance(value, str):
                raise TypeError(f"Tag values must be str, got {type(value)}.")
            if key in self._tag_keys:
                merged[key] = value
        if ROUTE_TAG in self._tag_keys and ROUTE_TAG not in merged:
            merged[ROUTE_TAG] = str(_get_serve_request_context().route)
        missing = [key for key in self._tag_keys if key not in merged]
        if missing:
            raise ValueError(f"Missing value for tag key(s): {', '.join(missing)}.")
        context = _get_internal_replica_context()
        if context is not None:
            merged[APPLICATION_TAG] = context.app_name
            merged[DEPLOYMENT_TAG] = context.deployment
            merged[REPLICA_TAG] = context.replica_tag
        return tuple(sorted(merged.items()))

    def _samples(self) -> List[Dict[str, Any]]:
        return [{"labels": dict(k), "value": v} for k, v in self._values.items()]

    def describe(self) -> Dict[str, Any]:
        return {
            "name": self._name,
            "kind": self.kind,
            "help": self._description,
            "samples": self._samples(),
        }


class Counter(_Metric):
    """A number that only grows."""

    kind = "counter"

    def inc(self, value: Union[int, float] = 1.0, tags: Optional[Dict[str, str]] = None) -> None:
        if not isinstance(value, (int, float)):
            raise TypeError(f"value must be int or float, got {type(value)}.")
        if value <= 0:
            raise ValueError(f"value must be >0, got {value}")
        labels = self._labels(tags)
        with _lock:
            self._values[labels] = self._values.get(labels, 0.0) + value
        _changed()


class Gauge(_Metric):
    """A number that is what it was last set to."""

    kind = "gauge"

    def set(self, value: Union[int, float, None], tags: Optional[Dict[str, str]] = None) -> None:
        if value is None:
            return
        if not isinstance(value, (int, float)):
            raise TypeError(f"value must be int or float, got {type(value)}.")
        labels = self._labels(tags)
        with _lock:
            self._values[labels] = float(value)
        _changed()


class Histogram(_Metric):
    """Counts of values by size."""

    kind = "histogram"

    def __init__(
        self,
        name: str,
        description: str = "",
        boundaries: Optional[List[float]] = None,
        tag_keys: Optional[Tuple[str, ...]] = None,
    ) -> None:
        bounds = list(boundaries or ())
        if not bounds:
            raise ValueError(
                "boundaries argument should be provided when using the Histogram class. "
                "e.g., Histogram('name', boundaries=[1.0, 2.0])"
            )
        if any(b <= 0 for b in bounds) or sorted(bounds) != bounds:
            raise ValueError(f"Invalid `boundaries`: {bounds}. They must be > 0 and sorted.")
        super().__init__(name, description, tag_keys)
        self._boundaries = [float(b) for b in bounds]

    @property
    def info(self) -> Dict[str, Any]:
        return {**super().info, "boundaries": self._boundaries}

    def observe(self, value: Union[int, float], tags: Optional[Dict[str, str]] = None) -> None:
        if not isinstance(value, (int, float)):
            raise TypeError(f"value must be int or float, got {type(value)}.")
        labels = self._labels(tags)
        with _lock:
            found = self._values.get(labels)
            if found is None:
                found = self._values[labels] = [[0] * (len(self._boundaries) + 1), 0.0]
            at = sum(1 for b in self._boundaries if value > b)
            found[0][at] += 1
            found[1] += value
        _changed()

    def _samples(self) -> List[Dict[str, Any]]:
        return [
            {"labels": dict(k), "buckets": list(counts), "sum": total}
            for k, (counts, total) in self._values.items()
        ]

    def describe(self) -> Dict[str, Any]:
        return {**super().describe(), "boundaries": self._boundaries}


def snapshot() -> Dict[str, Any]:
    """All metrics: the contents of STATS."""
    with _lock:
        return {"metrics": [m.describe() for m in _metrics.values() if m._values]}


def _changed() -> None:
    """Tells the node within a second."""
    global _sending
    link = _node.current()
    if link is None or _sending:
        return
    _sending = True
    link.loop.call_soon_threadsafe(link.loop.call_later, 1.0, _send)


def _send() -> None:
    global _sending
    _sending = False
    link = _node.current()
    if link is not None:
        try:
            link.send_json(w.STATS, snapshot())
        except ValueError:
            pass  # more series than one message holds
