"""Autoscaling policies: the built-in one, and what custom ones build on.

Custom policies run in a process of their own beside a node. They are asked once a second, and
sooner when the load changes; factors, delays and bounds of the `AutoscalingConfig` are applied to
what they answer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import time
import urllib.parse
import urllib.request
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple, Union

from ray.serve.config import AutoscalingContext

logger = logging.getLogger("ray.serve")

SERVE_LOGGER_NAME = "ray.serve"
SERVE_AUTOSCALING_DECISION_COUNTERS_KEY = "__decision_counters"
SERVE_AUTOSCALING_DECISION_TIMESTAMP_KEY = "__decision_timestamp"
DEFAULT_PROMETHEUS_CACHE_TTL_S = 15.0
DEFAULT_PROMETHEUS_FETCH_INTERVAL_S = 5.0
DEFAULT_PROMETHEUS_QUERY_TIMEOUT_S = 5.0


def replica_queue_length_autoscaling_policy(
    ctx: AutoscalingContext,
) -> Tuple[Union[int, float], Dict[str, Any]]:
    """As many replicas as keep each at `target_ongoing_requests` requests, waiting ones included.

    This is what the node computes by itself for deployments without a policy of their own; custom
    policies may call it and change its answer.
    """
    config: Any = ctx.config
    if ctx.current_num_replicas == 0:
        if ctx.total_num_requests > 0:
            first = math.ceil(config.get_upscaling_factor())
            return max(first, ctx.target_num_replicas), ctx.policy_state
        return ctx.target_num_replicas, ctx.policy_state
    return ctx.total_num_requests / config.get_target_ongoing_requests(), ctx.policy_state


default_autoscaling_policy = replica_queue_length_autoscaling_policy


class PrometheusScalar(NamedTuple):
    """The answer to a query that yields one number."""

    value: float
    timestamp: float


class PrometheusSample(NamedTuple):
    """One series of an answer."""

    labels: Mapping[str, str]
    value: float
    timestamp: float


class PrometheusVector(NamedTuple):
    """The answer to a query that yields series."""

    samples: Tuple[PrometheusSample, ...]


class PrometheusQueryMixin:
    """For policies that decide by Prometheus: queries are made in the background, reading the
    results never waits.

    `prometheus_address`: "http://host:port", else RAY_PROMETHEUS_HOST. Headers for every request
    come from RAY_PROMETHEUS_HEADERS (a JSON object, or a list of pairs). `prometheus_results` holds
    the last answers by query, `prometheus_metrics` the number of those that are one; an answer
    older than `cache_ttl_s` seconds is left out.
    """

    def __init__(
        self,
        *,
        prometheus_address: Optional[str] = None,
        prometheus_queries: Optional[List[str]] = None,
        fetch_interval_s: float = DEFAULT_PROMETHEUS_FETCH_INTERVAL_S,
        cache_ttl_s: float = DEFAULT_PROMETHEUS_CACHE_TTL_S,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        address = prometheus_address or os.environ.get("RAY_PROMETHEUS_HOST") or ""
        self._prometheus_address = address.rstrip("/")
        self._prometheus_queries = list(prometheus_queries or [])
        self._fetch_interval_s = fetch_interval_s
        self._cache_ttl_s = cache_ttl_s
        self._results: Dict[str, Tuple[float, Union[PrometheusScalar, PrometheusVector]]] = {}
        self._headers = _headers()
        self._fetching: Optional["asyncio.Task[None]"] = None
        if self._prometheus_queries and not self._prometheus_address:
            raise ValueError(
                "prometheus_queries need an address: pass prometheus_address or set "
                "RAY_PROMETHEUS_HOST"
            )

    def _start_fetching(self) -> None:
        """At the first look, in the event loop that the policy runs in."""
        if self._fetching is None and self._prometheus_queries:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                return
            self._fetching = loop.create_task(self._fetch_for_ever())

    async def _fetch_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            for query in self._prometheus_queries:
                try:
                    answer = await loop.run_in_executor(None, self._fetch, query)
                    self._results[query] = (time.monotonic(), answer)
                except Exception as e:
                    logger.warning("Prometheus query %r failed: %s", query, e)
            await asyncio.sleep(self._fetch_interval_s)

    def _fetch(self, query: str) -> Union[PrometheusScalar, PrometheusVector]:
        url = f"{self._prometheus_address}/api/v1/query?" + urllib.parse.urlencode({"query": query})
        request = urllib.request.Request(url, headers=self._headers)
        with urllib.request.urlopen(request, timeout=DEFAULT_PROMETHEUS_QUERY_TIMEOUT_S) as answer:
            return _parse(json.load(answer))

    @property
    def prometheus_results(self) -> Dict[str, Union[PrometheusScalar, PrometheusVector]]:
        self._start_fetching()
        oldest = time.monotonic() - self._cache_ttl_s
        return {q: r for q, (at, r) in self._results.items() if at >= oldest}

    @property
    def prometheus_metrics(self) -> Dict[str, float]:
        metrics = {}
        for query, result in self.prometheus_results.items():
            if isinstance(result, PrometheusScalar):
                metrics[query] = result.value
            elif len(result.samples) == 1:
                metrics[query] = result.samples[0].value
        return metrics


def _headers() -> Dict[str, str]:
    text = os.environ.get("RAY_PROMETHEUS_HEADERS") or "{}"
    try:
        return {str(k): str(v) for k, v in dict(json.loads(text)).items()}
    except (ValueError, TypeError):
        raise ValueError(f"RAY_PROMETHEUS_HEADERS must hold a JSON object, got {text!r}") from None


def _parse(answer: Any) -> Union[PrometheusScalar, PrometheusVector]:
    if not isinstance(answer, dict) or answer.get("status") != "success":
        raise ValueError(f"the answer is no success: {str(answer)[:200]}")
    data = answer["data"]
    if data["resultType"] == "scalar":
        at, value = data["result"]
        return PrometheusScalar(float(value), float(at))
    if data["resultType"] != "vector":
        raise ValueError(f"an answer of the type {data['resultType']} is not supported")
    return PrometheusVector(
        tuple(
            PrometheusSample(dict(s["metric"]), float(s["value"][1]), float(s["value"][0]))
            for s in data["result"]
        )
    )
