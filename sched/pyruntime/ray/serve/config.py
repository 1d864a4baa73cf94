"""Option objects of `ray.serve.config`: what `@serve.deployment` and `serve.start` accept."""

from __future__ import annotations

import dataclasses
import enum
import warnings
from typing import Any, Dict, List, Optional

from rserve._model import (
    Field,
    Model,
    boolean,
    integer,
    json_dict,
    mapping,
    nested,
    one_of,
    real,
    sequence,
    string,
)

DEFAULT_AUTOSCALING_POLICY_NAME = "ray.serve.autoscaling_policy:default_autoscaling_policy"
DEFAULT_REQUEST_ROUTER_PATH = "ray.serve._private.request_router:PowerOfTwoChoicesRequestRouter"
DEFAULT_GRPC_PORT = 9000
DEFAULT_HTTP_PORT = 8000
DEFAULT_METRICS_INTERVAL_S = 10.0
DEFAULT_TARGET_ONGOING_REQUESTS = 2
DEFAULT_UVICORN_KEEP_ALIVE_TIMEOUT_S = 90
SERVE_LOGGER_NAME = "ray.serve"


class ProxyLocation(str, enum.Enum):
    Disabled = "Disabled"
    HeadOnly = "HeadOnly"
    EveryNode = "EveryNode"


class AggregationFunction(str, enum.Enum):
    MEAN = "mean"
    MAX = "max"
    MIN = "min"


class GangPlacementStrategy(str, enum.Enum):
    PACK = "PACK"
    SPREAD = "SPREAD"


class GangRuntimeFailurePolicy(str, enum.Enum):
    RESTART_GANG = "RESTART_GANG"
    RESTART_REPLICA = "RESTART_REPLICA"


def import_path_of(value: Any) -> Any:
    """`module:name` of a function or class; strings stay as they are."""
    if value is None or isinstance(value, str):
        return value
    name = getattr(value, "__qualname__", None) or getattr(type(value), "__qualname__", "?")
    module = getattr(value, "__module__", None) or type(value).__module__
    return f"{module}:{name}"


def _path_or_callable(value: Any) -> Any:
    if isinstance(value, str) or callable(value):
        return value
    raise ValueError("Input should be an import path or a callable")


class AutoscalingPolicy(Model):
    """Which function decides on the number of replicas."""

    policy_function = Field(DEFAULT_AUTOSCALING_POLICY_NAME, _path_or_callable)
    policy_kwargs = Field({}, json_dict("policy_kwargs"))

    def is_default_policy_function(self) -> bool:
        return bool(self.policy_function == DEFAULT_AUTOSCALING_POLICY_NAME)


class AutoscalingConfig(Model):
    """Bounds, target and delays of autoscaling."""

    min_replicas = Field(1, integer(0))
    initial_replicas = Field(None, integer(0, optional=True))
    max_replicas = Field(1, integer(1))
    target_ongoing_requests = Field(2, real(above=0, optional=True))
    metrics_interval_s = Field(10.0, real(above=0))
    look_back_period_s = Field(30.0, real(above=0))
    smoothing_factor = Field(1.0, real(above=0))
    upscale_smoothing_factor = Field(None, real(above=0, optional=True))
    downscale_smoothing_factor = Field(None, real(above=0, optional=True))
    upscaling_factor = Field(None, real(above=0, optional=True))
    downscaling_factor = Field(None, real(above=0, optional=True))
    downscale_delay_s = Field(600.0, real(0))
    downscale_to_zero_delay_s = Field(None, real(0, optional=True))
    upscale_delay_s = Field(30.0, real(0))
    aggregation_function = Field(AggregationFunction.MEAN, one_of(AggregationFunction, fold=True))
    policy = Field(AutoscalingPolicy(), nested(AutoscalingPolicy))
    #: The name that older manifests carry; Ray ignores it since 2.x, rserve honours it.
    target_num_ongoing_requests_per_replica = Field(None, real(above=0, optional=True))

    def _validate(self) -> None:
        legacy = self.target_num_ongoing_requests_per_replica
        if legacy is not None and "target_ongoing_requests" not in self._set:
            # Not as one that was set: the node gets the name that was written, and warns of it.
            object.__setattr__(self, "target_ongoing_requests", legacy)
        low, high, first = self.min_replicas, self.max_replicas, self.initial_replicas
        if low > high:
            raise ValueError(
                f"max_replicas ({high}) must be greater than or equal to min_replicas ({low})!"
            )
        if first is not None and first < low:
            raise ValueError(
                f"min_replicas ({low}) must be less than or equal to initial_replicas ({first})!"
            )
        if first is not None and first > high:
            raise ValueError(
                f"initial_replicas ({first}) must be less than or equal to max_replicas ({high})!"
            )

    def get_target_ongoing_requests(self) -> float:
        return float(self.target_ongoing_requests)

    def get_upscaling_factor(self) -> float:
        return float(
            self.upscaling_factor or self.upscale_smoothing_factor or self.smoothing_factor
        )

    def get_downscaling_factor(self) -> float:
        return float(
            self.downscaling_factor or self.downscale_smoothing_factor or self.smoothing_factor
        )


class RequestRouterConfig(Model):
    """Which request router a deployment asks for."""

    request_router_class = Field(DEFAULT_REQUEST_ROUTER_PATH, _path_or_callable)
    request_router_kwargs = Field({}, json_dict("request_router_kwargs"))
    request_routing_stats_period_s = Field(10, real(above=0))
    request_routing_stats_timeout_s = Field(30, real(above=0))
    initial_backoff_s = Field(0.025, real(above=0))
    backoff_multiplier = Field(2, real(above=0))
    max_backoff_s = Field(0.5, real(above=0))


def _status_code(value: Any) -> int:
    if value not in (503, 429):
        raise ValueError("Input should be 503 or 429")
    return int(value)


class BackpressureConfig(Model):
    """The HTTP answer when `max_queued_requests` is met."""

    _forbid_extra = True
    status_code = Field(503, _status_code)
    retry_after_s = Field(None, real(0, optional=True))


class GangSchedulingConfig(Model):
    gang_size = Field(None, integer(1), required=True)
    gang_placement_strategy = Field(GangPlacementStrategy.PACK, one_of(GangPlacementStrategy))
    runtime_failure_policy = Field(
        GangRuntimeFailurePolicy.RESTART_GANG, one_of(GangRuntimeFailurePolicy)
    )

    def _validate(self) -> None:
        if self.runtime_failure_policy is GangRuntimeFailurePolicy.RESTART_REPLICA:
            raise NotImplementedError("RESTART_REPLICA is not yet supported.")


class DeploymentActorConfig(Model):
    name = Field(None, string(), required=True)
    actor_class = Field(None, None, required=True)
    init_args = Field((), None)
    init_kwargs = Field({}, mapping())
    actor_options = Field({}, mapping())


class ControllerOptions(Model):
    runtime_env = Field(None, mapping(optional=True))


def _location(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, str) and value == "NoServer":
        return ProxyLocation.Disabled
    return one_of(ProxyLocation)(value)


class HTTPOptions(Model):
    """Where and how HTTP is served."""

    host = Field("127.0.0.1", string(optional=True))
    port = Field(8000, integer(0, 65535))
    middlewares = Field([], sequence)
    location = Field(None, _location)
    num_cpus = Field(0, integer(0))
    root_url = Field("", string())
    root_path = Field("", string())
    request_timeout_s = Field(None, real(optional=True))
    keep_alive_timeout_s = Field(90, integer())
    ssl_keyfile = Field(None, string(optional=True))
    ssl_certfile = Field(None, string(optional=True))
    ssl_keyfile_password = Field(None, string(optional=True))
    ssl_ca_certs = Field(None, string(optional=True))

    def _validate(self) -> None:
        if bool(self.ssl_keyfile) != bool(self.ssl_certfile):
            raise ValueError(
                "Both ssl_keyfile and ssl_certfile must be provided together to enable HTTPS."
            )
        if self.num_cpus:
            raise ValueError("`num_cpus` of HTTPOptions is no longer supported; remove it.")
        if self.middlewares:
            warnings.warn(
                "Passing `middlewares` to HTTPOptions is deprecated.", DeprecationWarning, 3
            )


class gRPCOptions(Model):  # noqa: N801 (Ray's name)
    port = Field(9000, integer(0, 65535))
    grpc_servicer_functions = Field([], sequence)
    request_timeout_s = Field(None, real(optional=True))
    enable_reflection = Field(True, boolean)


@dataclasses.dataclass
class AutoscalingContext:
    """What a custom autoscaling policy is told."""

    deployment_id: Any
    deployment_name: str
    app_name: Optional[str]
    current_num_replicas: int
    target_num_replicas: int
    running_replicas: List[Any]
    total_num_requests: float
    total_queued_requests: Optional[float]
    aggregated_metrics: Optional[Dict[str, Dict[Any, float]]]
    raw_metrics: Optional[Dict[str, Dict[Any, List[Any]]]]
    capacity_adjusted_min_replicas: int
    capacity_adjusted_max_replicas: int
    policy_state: Dict[str, Any]
    last_scale_up_time: Optional[float]
    last_scale_down_time: Optional[float]
    current_time: Optional[float]
    config: Optional[Any]
