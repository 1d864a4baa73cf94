"""Counters, gauges and histograms of user code: `ray.util.metrics` and `ray.serve.metrics` are thin
classes over these.

Values are kept here and told to the node as STATS, whole, at most once a second and only when they
changed; the node shows them in `/metrics` with the prefix `ray_` until this process ends.
"""

from __future__ import annotations

import re
import sys
import threading
from typing import Any, Dict, List, Optional, Tuple, Union

from rserve import _node
from rserve import _wire as w

#: Series that one metric and that one process keep; more are counted nowhere.
MAX_OF_METRIC = 2000
MAX_SERIES = 5000
#: How long a change may wait until the node is told, in seconds.
TELL_AFTER_S = 1.0

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_lock = threading.Lock()
_metrics: Dict[str, "Metric"] = {}
_series = 0
_sending = False
_warned: "set[str]" = set()

Labels = Tuple[Tuple[str, str], ...]


class Metric:
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
            self._check_key(key)
        self._name = name
        self._description = description
        self._tag_keys = tag_keys or ()
        self._default_tags: Dict[str, str] = {}
        self._values: Dict[Labels, Any] = {}
        self._known: Dict[Any, Labels] = {}
        with _lock:
            same = _metrics.get(name)
            if same is not None and same.kind == self.kind:
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

    def set_default_tags(self, default_tags: Dict[str, str]) -> Any:
        """Values of tags that a call does not give."""
        for key, value in default_tags.items():
            self._check_key(key)
            if key not in self._tag_keys:
                raise ValueError(f"Unrecognized tag key {key}.")
            if not isinstance(value, str):
                raise TypeError(f"Tag values must be str, got {type(value)}.")
        self._default_tags = dict(default_tags)
        self._known = {}
        return self

    def _check_key(self, key: str) -> None:
        """Raises for a tag that the user may not set."""

    def _own_tags(self) -> Dict[str, str]:
        """Tags that are added to every sample."""
        return {}

    def _labels(self, tags: Optional[Dict[str, str]]) -> Labels:
        key: Any = tuple(tags.items()) if tags else None
        known = self._known.get(key)
        if known is None:
            known = self._merge(tags)
            if len(self._known) < MAX_OF_METRIC:
                self._known[key] = known
        return known

    def _merge(self, tags: Optional[Dict[str, str]]) -> Labels:
        merged = dict(self._default_tags)
        for key, value in (tags or {}).items():
            self._check_key(key)
            if not isinstance(value, str):
                raise TypeError(f"Tag values must be str, got {type(value)}.")
            if key in self._tag_keys:
                merged[key] = value
        missing = [key for key in self._tag_keys if key not in merged]
        if missing:
            raise ValueError(f"Missing value for tag key(s): {', '.join(missing)}.")
        merged.update(self._own_tags())
        return tuple(sorted(merged.items()))

    def _room(self) -> bool:
        """Counts a new series; false if there are too many. The lock is held."""
        global _series
        if len(self._values) >= MAX_OF_METRIC or _series >= MAX_SERIES:
            _warn_once(
                self._name,
                f"user metric '{self._name}' has too many series ({MAX_OF_METRIC} at most, and "
                f"{MAX_SERIES} in one process): new ones are not counted (a tag with too many "
                "values?)",
            )
            return False
        _series += 1
        return True

    def _samples(self) -> List[Dict[str, Any]]:
        return [{"labels": dict(k), "value": _number(v)} for k, v in self._values.items()]

    def describe(self) -> Dict[str, Any]:
        return {
            "name": self._name,
            "kind": self.kind,
            "help": self._description,
            "samples": self._samples(),
        }


class Counter(Metric):
    """A number that only grows."""

    kind = "counter"

    def inc(self, value: Union[int, float] = 1.0, tags: Optional[Dict[str, str]] = None) -> None:
        """Adds `value`, which must be more than 0."""
        if not isinstance(value, (int, float)):
            raise TypeError(f"value must be int or float, got {type(value)}.")
        if value <= 0:
            raise ValueError(f"value must be >0, got {value}")
        labels = self._labels(tags)
        with _lock:
            old = self._values.get(labels)
            if old is not None:
                self._values[labels] = old + value
            elif self._room():
                self._values[labels] = 0.0 + value
        if not _sending:
            _changed()


class Gauge(Metric):
    """A number that is what it was last set to."""

    kind = "gauge"

    def set(self, value: Union[int, float, None], tags: Optional[Dict[str, str]] = None) -> None:
        """Sets it; None changes nothing."""
        if value is None:
            return
        if not isinstance(value, (int, float)):
            raise TypeError(f"value must be int or float, got {type(value)}.")
        labels = self._labels(tags)
        with _lock:
            if labels in self._values or self._room():
                self._values[labels] = float(value)
        if not _sending:
            _changed()


class Histogram(Metric):
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
                'e.g., Histogram("name", boundaries=[1.0, 2.0])'
            )
        if any(b <= 0 for b in bounds) or sorted(bounds) != bounds:
            raise ValueError(f"Invalid `boundaries`: {bounds}. They must be > 0 and sorted.")
        super().__init__(name, description, tag_keys)
        self._boundaries = [float(b) for b in bounds]

    @property
    def info(self) -> Dict[str, Any]:
        return {**super().info, "boundaries": self._boundaries}

    def observe(self, value: Union[int, float], tags: Optional[Dict[str, str]] = None) -> None:
        """Counts `value`."""
        if not isinstance(value, (int, float)):
            raise TypeError(f"value must be int or float, got {type(value)}.")
        labels = self._labels(tags)
        with _lock:
            found = self._values.get(labels)
            if found is None and self._room():
                found = self._values[labels] = [[0] * (len(self._boundaries) + 1), 0.0]
            if found is not None:
                at = sum(1 for b in self._boundaries if value > b)
                found[0][at] += 1
                found[1] += value
        if not _sending:
            _changed()

    def _samples(self) -> List[Dict[str, Any]]:
        return [
            {"labels": dict(k), "buckets": list(counts), "sum": _number(total)}
            for k, (counts, total) in self._values.items()
        ]

    def describe(self) -> Dict[str, Any]:
        return {**super().describe(), "boundaries": [_number(b) for b in self._boundaries]}


def _number(value: float) -> Any:
    """As JSON can hold it."""
    if value - value == 0:
        return value
    return "NaN" if value != value else "+Inf" if value > 0 else "-Inf"


def _warn_once(what: str, text: str) -> None:
    if what not in _warned:
        _warned.add(what)
        print(f"rserve: {text}", file=sys.stderr, flush=True)


def snapshot() -> Dict[str, Any]:
    """All metrics: the contents of STATS."""
    with _lock:
        return {"metrics": [m.describe() for m in _metrics.values() if m._values]}


def _changed() -> None:
    """Tells the node within a second."""
    global _sending
    link = _node.current()
    if link is None or not link.replica_id:
        return
    with _lock:
        if _sending:
            return
        _sending = True
    try:
        link.loop.call_soon_threadsafe(link.loop.call_later, TELL_AFTER_S, send)
    except RuntimeError:
        pass  # the loop is closed: this process is about to end


def send() -> None:
    """Tells the node now. On the loop's thread."""
    global _sending
    _sending = False
    link = _node.current()
    if link is None:
        return
    message = snapshot()
    metrics = message["metrics"]
    while metrics:
        try:
            link.send_json(w.STATS, message)
            return
        except ValueError:  # more than one message holds
            left_out = metrics.pop()
            _warn_once(
                "message",
                f"user metrics need more than {w.MAX_META} bytes: '{left_out['name']}' and "
                "perhaps others are not exported",
            )
