"""The models of `ray.serve.config`: what `@serve.deployment` and `serve.start` accept.

Times are in seconds. The classes that programs see are made of these by `rserve._model`.
"""

from __future__ import annotations

import enum
import logging
import os
from typing import Annotated, Any, Callable, Dict, List, Literal, Optional, Tuple, Union

from rserve._checks import Ge, Gt
from rserve._model import (
    Field,
    Model,
    before_model,
    field_validator,
    json_dict,
    model_validator,
)

logger = logging.getLogger("ray.serve")

HOME = "ray.serve.config"
DEFAULT_AUTOSCALING_POLICY_NAME = "ray.serve.autoscaling_policy:default_autoscaling_policy"
DEFAULT_REQUEST_ROUTER_PATH = "ray.serve._private.request_router:PowerOfTwoChoicesRequestRouter"

AnyCallable = Callable[..., Any]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveInt = Annotated[int, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]


class ProxyLocation(str, enum.Enum):
    """Where HTTP is served."""

    Disabled = "Disabled"
    HeadOnly = "HeadOnly"
    EveryNode = "EveryNode"


class AggregationFunction(str, enum.Enum):
    """What the autoscaler makes of the figures of its window."""

    MEAN = "mean"
    MAX = "max"
    MIN = "min"


class GangPlacementStrategy(str, enum.Enum):
    """How the replicas of a gang lie on the nodes."""

    PACK = "PACK"
    SPREAD = "SPREAD"


class GangRuntimeFailurePolicy(str, enum.Enum):
    """What happens to a gang when one of its replicas dies."""

    RESTART_GANG = "RESTART_GANG"
    RESTART_REPLICA = "RESTART_REPLICA"


def import_path_of(value: Any) -> Any:
    """`module:name` of a function or class; strings stay as they are."""
    if value is None or isinstance(value, str):
        return value
    name = getattr(value, "__qualname__", None) or getattr(type(value), "__qualname__", "?")
    module = getattr(value, "__module__", None) or type(value).__module__
    return f"{module}:{name}"


def import_attr(path: str) -> Any:
    """What `module:name` or `module.name` names; ImportError, AttributeError, ValueError."""
    import importlib

    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    if not module or not name:
        raise ValueError(f"import path {path!r} is not of the form 'module:name' or 'module.name'")
    value: Any = importlib.import_module(module)
    for part in name.split("."):
        value = getattr(value, part)
    return value


def check_route_prefix(prefix: Optional[str]) -> Optional[str]:
    """A route prefix as it is; ValueError for one that no application may have."""
    if prefix is None:
        return prefix
    if not prefix.startswith("/"):
        raise ValueError(f"Invalid route_prefix '{prefix}', must start with a forward slash ('/').")
    if prefix != "/" and prefix.endswith("/"):
        raise ValueError(f"Invalid route_prefix '{prefix}', may not end with a trailing '/'.")
    if "{" in prefix or "}" in prefix:
        raise ValueError(f"Invalid route_prefix '{prefix}', may not contain wildcards.")
    return prefix


def _loaded(pickled: Optional[bytes], value: Union[str, Callable[..., Any]]) -> Any:
    if pickled:
        import pickle

        return pickle.loads(pickled)
    return import_attr(value) if isinstance(value, str) else value


def _pickled(pickled: Optional[bytes], value: Union[str, Callable[..., Any]]) -> Optional[bytes]:
    if pickled or isinstance(value, str):
        return pickled
    from rserve._values import dumps

    return dumps(value)


class AutoscalingPolicy(Model, home=HOME):
    """Which function decides on the number of replicas, and what it is given beside the figures.

    `policy_function` is an import path, a function, or a class that is made once with
    `policy_kwargs` and called at every decision.
    """

    policy_function: Union[str, AnyCallable] = DEFAULT_AUTOSCALING_POLICY_NAME
    policy_kwargs: Dict[str, Any] = Field(default_factory=dict)
    _pickled: Optional[bytes] = None

    @field_validator("policy_kwargs")
    @classmethod
    def policy_kwargs_json_serializable(cls, v: Any) -> Any:
        return json_dict("policy_kwargs")(v)

    def is_default_policy_function(self) -> bool:
        """Whether nothing else was asked for."""
        return bool(self.policy_function == DEFAULT_AUTOSCALING_POLICY_NAME)

    def get_policy(self) -> Callable[..., Any]:
        """The function or class; ImportError or AttributeError where its path leads nowhere."""
        policy: Callable[..., Any] = _loaded(self._pickled, self.policy_function)
        return policy

    def serialize_policy(self) -> None:
        """Keeps a pickle of the policy, and its path in place of itself."""
        policy = self.policy_function
        self._pickled = _pickled(self._pickled, policy)
        self.policy_function = import_path_of(policy)

    def get_serialized_policy_def(self) -> Optional[bytes]:
        """The pickle that was kept; None for an import path."""
        return _pickled(self._pickled, self.policy_function)

    def set_serialized_policy_def(self, serialized_policy_def: bytes) -> None:
        """Keeps a pickle of the policy, which `get_policy` then prefers."""
        self._pickled = serialized_policy_def

    @classmethod
    def from_serialized_policy_def(
        cls, policy_config: Dict[str, Any], serialized_policy_def: bytes
    ) -> "AutoscalingPolicy":
        """A policy of its fields and its pickle."""
        policy = cls(**policy_config)
        policy.set_serialized_policy_def(serialized_policy_def)
        return policy


class AutoscalingConfig(Model, home=HOME):
    """Bounds, target and delays of autoscaling."""

    min_replicas: NonNegativeInt = 1
    initial_replicas: Optional[NonNegativeInt] = None
    max_replicas: PositiveInt = 1
    target_ongoing_requests: Optional[PositiveFloat] = 2
    metrics_interval_s: PositiveFloat = 10.0
    look_back_period_s: PositiveFloat = 30.0
    smoothing_factor: PositiveFloat = 1.0
    upscale_smoothing_factor: Optional[PositiveFloat] = None
    downscale_smoothing_factor: Optional[PositiveFloat] = None
    upscaling_factor: Optional[PositiveFloat] = None
    downscaling_factor: Optional[PositiveFloat] = None
    downscale_delay_s: NonNegativeFloat = 600.0
    downscale_to_zero_delay_s: Optional[NonNegativeFloat] = None
    upscale_delay_s: NonNegativeFloat = 30.0
    aggregation_function: Union[str, AggregationFunction] = AggregationFunction.MEAN
    policy: AutoscalingPolicy = Field(default_factory=AutoscalingPolicy)

    @before_model
    @classmethod
    def take_legacy_target(cls, values: Any) -> Any:
        """The name that older files carry; Ray ignores it since 2.10, rserve honours it."""
        old = "target_num_ongoing_requests_per_replica"
        if isinstance(values, dict) and old in values:
            values = dict(values)
            value = values.pop(old)
            logger.warning("`%s` is the old name of `target_ongoing_requests`.", old)
            values.setdefault("target_ongoing_requests", value)
        return values

    @field_validator("look_back_period_s")
    @classmethod
    def look_back_period_s_valid(cls, v: float, info: Any) -> float:
        interval = info.data.get("metrics_interval_s")
        if interval is not None and v <= interval:
            logger.warning(
                "look_back_period_s (%s) should be greater than metrics_interval_s (%s).",
                v,
                interval,
            )
        return v

    @field_validator("metrics_interval_s")
    @classmethod
    def metrics_interval_s_deprecation_warning(cls, v: float) -> float:
        logger.warning("`metrics_interval_s` of AutoscalingConfig is deprecated.")
        return v

    @field_validator("aggregation_function")
    @classmethod
    def aggregation_function_valid(cls, v: Union[str, AggregationFunction]) -> AggregationFunction:
        try:
            return AggregationFunction(str(getattr(v, "value", v)).lower())
        except ValueError:
            words = [a.value for a in AggregationFunction]
            raise ValueError(f"Invalid aggregation function: {v}. It is one of {words}.") from None

    @model_validator
    def replicas_settings_valid(self) -> Any:
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
        return self

    @classmethod
    def default(cls) -> "AutoscalingConfig":
        """What `num_replicas="auto"` stands for."""
        return cls(target_ongoing_requests=2, min_replicas=1, max_replicas=100)

    def get_target_ongoing_requests(self) -> float:
        """Requests that one replica should work on."""
        return float(self.target_ongoing_requests or 2)

    def get_upscaling_factor(self) -> float:
        """By which steps up are multiplied."""
        return self.upscaling_factor or self.upscale_smoothing_factor or self.smoothing_factor

    def get_downscaling_factor(self) -> float:
        """By which steps down are multiplied."""
        return self.downscaling_factor or self.downscale_smoothing_factor or self.smoothing_factor


class RequestRouterConfig(Model, home=HOME):
    """Which request router a deployment asks for, and how it retries."""

    request_router_class: Union[str, AnyCallable] = DEFAULT_REQUEST_ROUTER_PATH
    request_router_kwargs: Dict[str, Any] = Field(default_factory=dict)
    request_routing_stats_period_s: PositiveFloat = 10
    request_routing_stats_timeout_s: PositiveFloat = 30
    initial_backoff_s: PositiveFloat = 0.025
    backoff_multiplier: PositiveFloat = 2
    max_backoff_s: PositiveFloat = 0.5
    _pickled: Optional[bytes] = None

    @field_validator("request_router_kwargs")
    @classmethod
    def request_router_kwargs_json_serializable(cls, v: Any) -> Any:
        return json_dict("request_router_kwargs")(v)

    def is_default_request_router(self) -> bool:
        """Whether nothing else was asked for."""
        return bool(self.request_router_class == DEFAULT_REQUEST_ROUTER_PATH)

    def get_request_router_class(self) -> Callable[..., Any]:
        """The class; ImportError or AttributeError where its path leads nowhere."""
        router: Callable[..., Any] = _loaded(self._pickled, self.request_router_class)
        return router

    def get_serialized_request_router_cls(self) -> Optional[bytes]:
        """A pickle of the class; None for an import path."""
        return _pickled(self._pickled, self.request_router_class)

    def set_serialized_request_router_cls(self, serialized_request_router_cls: bytes) -> None:
        """Keeps a pickle of the class, which `get_request_router_class` then prefers."""
        self._pickled = serialized_request_router_cls

    @classmethod
    def from_serialized_request_router_cls(
        cls, request_router_config: Dict[str, Any], serialized_request_router_cls: bytes
    ) -> "RequestRouterConfig":
        """A configuration of its fields and the pickle of its class."""
        config = cls(**request_router_config)
        config.set_serialized_request_router_cls(serialized_request_router_cls)
        return config


class BackpressureConfig(Model, home=HOME, extra="forbid"):
    """The HTTP answer when `max_queued_requests` is met; `retry_after_s` becomes a header."""

    status_code: Literal[503, 429] = 503
    retry_after_s: Optional[NonNegativeFloat] = None


class GangSchedulingConfig(Model, home=HOME):
    """Replicas that are reserved, started and stopped together."""

    gang_size: int = Field(ge=1)
    gang_placement_strategy: GangPlacementStrategy = GangPlacementStrategy.PACK
    runtime_failure_policy: GangRuntimeFailurePolicy = GangRuntimeFailurePolicy.RESTART_GANG

    @field_validator("runtime_failure_policy")
    @classmethod
    def restart_replica_not_supported(cls, v: Any) -> Any:
        if v is GangRuntimeFailurePolicy.RESTART_REPLICA:
            raise NotImplementedError("RESTART_REPLICA is not yet supported.")
        return v


class DeploymentActorConfig(Model, home=HOME):
    """An actor that lives as long as its deployment and is shared by the replicas."""

    name: str
    actor_class: Union[type, str, AnyCallable]
    init_args: Tuple[Any, ...] = Field(default_factory=tuple)
    init_kwargs: Dict[str, Any] = Field(default_factory=dict)
    actor_options: Dict[str, Any] = Field(default_factory=dict)

    def get_actor_class(self) -> Any:
        """The class; ImportError or AttributeError where its path leads nowhere."""
        cls = self.actor_class
        return import_attr(cls) if isinstance(cls, str) else cls


class ControllerOptions(Model, home=HOME, extra="forbid"):
    """Options of Serve's controller. Here it is a part of the node: `runtime_env` has no effect."""

    runtime_env: Optional[Dict[str, Any]] = None


def _ssl_pair(keyfile: Optional[str], certfile: Optional[str]) -> None:
    if bool(keyfile) != bool(certfile):
        raise ValueError(
            "Both ssl_keyfile and ssl_certfile must be provided together to enable HTTPS."
        )


class HTTPOptions(Model, home=HOME, assign=True):
    """Where and how HTTP is served."""

    host: Optional[str] = os.environ.get("RAY_SERVE_DEFAULT_HTTP_HOST") or "127.0.0.1"
    port: int = 8000
    middlewares: List[Any] = []
    location: Optional[ProxyLocation] = None
    num_cpus: int = Field(default=0, ge=0)
    root_url: str = ""
    root_path: str = ""
    request_timeout_s: Optional[float] = None
    keep_alive_timeout_s: int = 90
    ssl_keyfile: Optional[str] = None
    ssl_certfile: Optional[str] = None
    ssl_keyfile_password: Optional[str] = None
    ssl_ca_certs: Optional[str] = None

    @field_validator("location", mode="before")
    @classmethod
    def normalize_location(cls, v: Any) -> Any:
        return ProxyLocation.Disabled if v == "NoServer" else v

    @field_validator("ssl_certfile")
    @classmethod
    def validate_ssl_certfile(cls, v: Any, info: Any) -> Any:
        _ssl_pair(info.data.get("ssl_keyfile"), v)
        return v

    @field_validator("middlewares")
    @classmethod
    def raise_for_middlewares_assignment(cls, v: Any) -> Any:
        if v:
            logger.warning(
                "`middlewares` of HTTPOptions is deprecated and has no effect: add them to the "
                "application that @serve.ingress is given."
            )
        return v

    @field_validator("num_cpus")
    @classmethod
    def raise_for_num_cpus_assignment(cls, v: Any) -> Any:
        if v:
            raise ValueError("`num_cpus` of HTTPOptions is no longer supported; remove it.")
        return v

    @model_validator
    def location_backfill_no_server(self) -> Any:
        _ssl_pair(self.ssl_keyfile, self.ssl_certfile)
        if self.host is None:
            self.__dict__["location"] = ProxyLocation.Disabled
        return self


class gRPCOptions(Model, home=HOME, assign=True):  # noqa: N801 (Ray's name)
    """Where gRPC is served."""

    port: int = 9000
    grpc_servicer_functions: List[str] = []
    request_timeout_s: Optional[float] = None
    enable_reflection: bool = True

    @property
    def grpc_servicer_func_callable(self) -> List[Callable[..., Any]]:
        """The functions of `grpc_servicer_functions`; ModuleNotFoundError or ValueError."""
        functions = []
        for path in self.grpc_servicer_functions:
            try:
                function = import_attr(path)
            except AttributeError as e:
                raise ValueError(f"gRPC servicer function {path!r} cannot be imported: {e}") from e
            if not callable(function):
                raise ValueError(f"gRPC servicer function {path!r} is not callable.")
            functions.append(function)
        return functions
