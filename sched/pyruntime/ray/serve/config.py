"""Option objects of `ray.serve.config`: what `@serve.deployment` and `serve.start` accept.

The models are pydantic's where pydantic is installed; they are made when they are first asked for,
so that importing this module does not load it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Dict, List, Optional

from rserve import _config, _model
from rserve._config import (
    DEFAULT_AUTOSCALING_POLICY_NAME,
    DEFAULT_REQUEST_ROUTER_PATH,
    AggregationFunction,
    GangPlacementStrategy,
    GangRuntimeFailurePolicy,
    ProxyLocation,
    import_path_of,
)

from ray.serve._private.common import DeploymentID, ReplicaID

if TYPE_CHECKING:
    from rserve._config import (
        AutoscalingConfig,
        AutoscalingPolicy,
        BackpressureConfig,
        ControllerOptions,
        DeploymentActorConfig,
        GangSchedulingConfig,
        HTTPOptions,
        RequestRouterConfig,
        gRPCOptions,
    )

DEFAULT_GRPC_PORT = 9000
DEFAULT_HTTP_PORT = 8000
DEFAULT_METRICS_INTERVAL_S = 10.0
DEFAULT_REQUEST_ROUTING_STATS_PERIOD_S = 10
DEFAULT_REQUEST_ROUTING_STATS_TIMEOUT_S = 30
DEFAULT_TARGET_ONGOING_REQUESTS = 2
DEFAULT_UVICORN_KEEP_ALIVE_TIMEOUT_S = 90
RAY_SERVE_ROUTER_RETRY_BACKOFF_MULTIPLIER = 2
RAY_SERVE_ROUTER_RETRY_INITIAL_BACKOFF_S = 0.025
RAY_SERVE_ROUTER_RETRY_MAX_BACKOFF_S = 0.5
SERVE_LOGGER_NAME = "ray.serve"

__all__ = [
    "DEFAULT_AUTOSCALING_POLICY_NAME",
    "DEFAULT_REQUEST_ROUTER_PATH",
    "AggregationFunction",
    "AutoscalingConfig",
    "AutoscalingContext",
    "AutoscalingPolicy",
    "BackpressureConfig",
    "ControllerOptions",
    "DeploymentActorConfig",
    "GangPlacementStrategy",
    "GangRuntimeFailurePolicy",
    "GangSchedulingConfig",
    "HTTPOptions",
    "ProxyLocation",
    "RequestRouterConfig",
    "gRPCOptions",
    "import_path_of",
]

if not TYPE_CHECKING:
    __getattr__ = _model.lazy(
        __name__,
        _config,
        "AutoscalingConfig AutoscalingPolicy BackpressureConfig ControllerOptions "
        "DeploymentActorConfig GangSchedulingConfig HTTPOptions RequestRouterConfig gRPCOptions",
    )


@dataclasses.dataclass
class AutoscalingContext:
    """What a custom autoscaling policy is told."""

    deployment_id: DeploymentID
    deployment_name: str
    app_name: Optional[str]
    current_num_replicas: int
    target_num_replicas: int
    running_replicas: List[ReplicaID]
    total_num_requests: Any
    total_queued_requests: Any
    aggregated_metrics: Any
    raw_metrics: Any
    capacity_adjusted_min_replicas: int
    capacity_adjusted_max_replicas: int
    policy_state: Dict[str, Any]
    last_scale_up_time: Optional[float]
    last_scale_down_time: Optional[float]
    current_time: Optional[float]
    config: Optional[Any]

    @property
    def total_running_requests(self) -> float:
        """Requests that replicas work on: all that are there less those that wait."""
        return float((self.total_num_requests or 0.0) - (self.total_queued_requests or 0.0))


def _evaluated(name: str) -> property:
    """An attribute that may be given as a function, which is called when it is first read."""
    key = "_" + name

    def get(self: AutoscalingContext) -> Any:
        value = vars(self)[key]
        if callable(value):
            value = vars(self)[key] = value()
        return value

    def set_(self: AutoscalingContext, value: Any) -> None:
        vars(self)[key] = value

    return property(get, set_)


for _name in ("total_num_requests", "total_queued_requests", "aggregated_metrics", "raw_metrics"):
    setattr(AutoscalingContext, _name, _evaluated(_name))
