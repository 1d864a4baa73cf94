"""The user's autoscaling policies: finds them, calls them, keeps their state."""

from __future__ import annotations

import inspect
import logging
import sys
from typing import Any, Callable, Dict, List, Optional, Tuple

from ray.serve._private.common import DeploymentID, ReplicaID, TimeStampedValue
from ray.serve.config import AutoscalingContext

from rserve._errors import one_line, user_traceback
from rserve._helper import import_callable, same_object


class Policies:
    """Those of one application. A policy that cannot be had or that raises gives an error for its
    deployments; the others go on."""

    def __init__(self, graph: Any, app: str) -> None:
        self._graph = graph
        self._app = app
        self._states: Dict[str, Dict[str, Any]] = {}
        self._made: Dict[str, Tuple[str, Any]] = {}
        self._shown: Dict[str, str] = {}
        self._configs: Dict[str, Tuple[Dict[str, Any], Any]] = {}

    # --- which

    def _in_code(self, name: str) -> Any:
        """policy_function as the code gave it, or None."""
        node = self._graph.nodes.get(name)
        config = node.deployment._options.get("autoscaling_config") if node else None
        policy = _member(config, "policy")
        if getattr(policy, "_pickled", None):
            return policy.get_policy()
        return _member(policy, "policy_function")

    def _make(self, name: str, policy: Dict[str, Any]) -> Callable[..., Any]:
        """The callable of a deployment, or of the application (name ""); made once."""
        path = str(policy.get("policy_function") or "")
        kwargs = policy.get("policy_kwargs") or {}
        key = repr((path, sorted(kwargs.items(), key=repr)))
        made = self._made.get(name)
        if made is None or made[0] != key:
            found = self._in_code(name) if name else None
            target = found if same_object(found, path) else import_callable(path)
            if inspect.isclass(target):
                target = target(**kwargs)
                kwargs = {}
            if not callable(target):
                raise TypeError(f"the autoscaling policy '{path}' is not callable")
            made = self._made[name] = (key, (target, kwargs))
            self._states.pop(name, None)
        target, kwargs = made[1]
        if not kwargs:
            return target  # type: ignore[no-any-return]
        return lambda *args: target(*args, **kwargs)

    # --- what they are told

    def _context(self, name: str, facts: Dict[str, Any]) -> AutoscalingContext:
        deployment = DeploymentID(name, self._app)
        config = facts.get("config") or {}
        stats: List[Any] = facts.get("stats") or []
        how = str(config.get("aggregation_function") or "mean")
        now = float(facts.get("current_time") or 0)
        raw: Any = lambda: _raw(stats, deployment)  # noqa: E731
        return AutoscalingContext(
            deployment_id=deployment,
            deployment_name=name,
            app_name=self._app,
            current_num_replicas=int(facts["current_num_replicas"]),
            target_num_replicas=int(facts["target_num_replicas"]),
            running_replicas=[ReplicaID(r, deployment) for r in facts["running_replicas"]],
            total_num_requests=float(facts["total_num_requests"]),
            total_queued_requests=float(facts["total_queued_requests"]),
            aggregated_metrics=lambda: _aggregated(raw(), how, now),
            raw_metrics=raw,
            capacity_adjusted_min_replicas=int(facts["capacity_adjusted_min_replicas"]),
            capacity_adjusted_max_replicas=int(facts["capacity_adjusted_max_replicas"]),
            policy_state=self._states.get(name, {}),
            last_scale_up_time=facts.get("last_scale_up_time"),
            last_scale_down_time=facts.get("last_scale_down_time"),
            current_time=now,
            config=self._config(name, config),
        )

    def _config(self, name: str, facts: Dict[str, Any]) -> Any:
        """The AutoscalingConfig, made when it changes and without a second word on what is old."""
        from ray.serve.config import AutoscalingConfig

        known = {k: v for k, v in facts.items() if k != "policy" and v is not None}
        made = self._configs.get(name)
        if made is None or made[0] != known:
            logger = logging.getLogger("ray.serve")
            was, logger.disabled = logger.disabled, True
            try:
                made = self._configs[name] = (known, AutoscalingConfig(**known))
            finally:
                logger.disabled = was
        return made[1]

    # --- what they answer

    async def decide(self, message: Dict[str, Any]) -> Dict[str, Any]:
        """The answer to POLICY."""
        facts: Dict[str, Dict[str, Any]] = message.get("deployments") or {}
        policy = message.get("application_policy")
        if policy:
            return {"deployments": await self._of_application(policy, facts)}
        return {"deployments": {n: await self._of_deployment(n, f) for n, f in facts.items()}}

    async def _of_deployment(self, name: str, facts: Dict[str, Any]) -> Dict[str, Any]:
        try:
            call = self._make(name, (facts.get("config") or {}).get("policy") or {})
            result = call(self._context(name, facts))
            if inspect.isawaitable(result):
                result = await result
            replicas, state = _pair(result)
            if state is not None:
                self._states[name] = state
            return {"replicas": _number(replicas)}
        except BaseException as e:
            return self._failed(name, e)

    async def _of_application(
        self, policy: Dict[str, Any], facts: Dict[str, Dict[str, Any]]
    ) -> Dict[str, Any]:
        try:
            call = self._make("", policy)
            contexts = {DeploymentID(n, self._app): self._context(n, f) for n, f in facts.items()}
            result = call(contexts)
            if inspect.isawaitable(result):
                result = await result
            numbers, states = _pair(result)
            for key, state in (states or {}).items():
                self._states[_name_of(key)] = state
            return {_name_of(key): {"replicas": _number(n)} for key, n in numbers.items()}
        except BaseException as e:
            error = self._failed("", e)
            return {name: error for name in facts}

    def _failed(self, name: str, error: BaseException) -> Dict[str, Any]:
        text = one_line(error)
        if self._shown.get(name) != text:  # once, not at every question
            self._shown[name] = text
            print(user_traceback(error), file=sys.stderr)
        return {"error": text}


def _member(of: Any, name: str) -> Any:
    return of.get(name) if isinstance(of, dict) else getattr(of, name, None)


def _name_of(key: Any) -> str:
    return str(getattr(key, "name", key))


def _pair(result: Any) -> Tuple[Any, Optional[Dict[Any, Any]]]:
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(
            "an autoscaling policy must return a tuple (number of replicas, state), got "
            f"{type(result).__name__}"
        )
    return result


def _number(value: Any) -> float:
    number = float(value)
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError(f"an autoscaling policy must return a finite number, got {value!r}")
    return max(number, 0.0)  # below 0 is 0, as with Ray


def _raw(stats: List[Any], deployment: DeploymentID) -> Dict[str, Dict[ReplicaID, List[Any]]]:
    """{metric: {replica: [values with their times]}} of [[time, replica, {metric: value}]]."""
    metrics: Dict[str, Dict[ReplicaID, List[Any]]] = {}
    for at, replica, values in stats:
        for name, value in (values or {}).items():
            of_replica = metrics.setdefault(name, {})
            of_replica.setdefault(ReplicaID(replica, deployment), []).append(
                TimeStampedValue(at, value)
            )
    return metrics


def _aggregated(
    raw: Dict[str, Dict[ReplicaID, List[Any]]], how: str, now: float
) -> Dict[str, Dict[ReplicaID, float]]:
    return {
        name: {replica: _aggregate(series, how, now) for replica, series in of_replica.items()}
        for name, of_replica in raw.items()
    }


def _aggregate(series: List[Any], how: str, now: float) -> float:
    """Of a step function: each value holds until the next one, the last one until now."""
    values = [s.value for s in series]
    if how == "max":
        return float(max(values))
    if how == "min":
        return float(min(values))
    area = time = 0.0
    for i, sample in enumerate(series):
        end = series[i + 1].timestamp if i + 1 < len(series) else now
        span = max(end - sample.timestamp, 0.0)
        area += sample.value * span
        time += span
    return area / time if time > 0 else float(values[-1])
