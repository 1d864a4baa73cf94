"""The models of `ray.serve.schema` that say what to deploy and how to log.

The configuration file that the node serves is checked by the node; these are for programs that read
and write such files. What `GET /api/serve/applications/` answers is in `rserve._details`.
"""

from __future__ import annotations

import enum
import logging
import os
from typing import Any, Dict, List, Optional, Set, Union

from rserve._config import (
    AnyCallable,
    AutoscalingConfig,
    AutoscalingPolicy,
    BackpressureConfig,
    ControllerOptions,
    DeploymentActorConfig,
    GangSchedulingConfig,
    PositiveInt,
    ProxyLocation,
    RequestRouterConfig,
    _ssl_pair,
)
from rserve._model import Field, Model, before_model, field_validator, model_validator
from rserve._states import DEFAULT

HOME = "ray.serve.schema"
NOT_SET: Any = DEFAULT.VALUE
AnyDict = Dict[Any, Any]

#: Attributes that every LogRecord has.
LOGRECORD_STANDARD_ATTRS = frozenset(
    "args asctime created exc_info exc_text filename funcName levelname levelno lineno message "
    "module msecs msg name pathname process processName relativeCreated stack_info taskName thread "
    "threadName".split()
)


class EncodingType(str, enum.Enum):
    """How a line of the log is written."""

    TEXT = "TEXT"
    JSON = "JSON"


def _remote_uris(runtime_env: Any) -> Any:
    """Refuses local folders, as a cluster could not find them."""
    if not isinstance(runtime_env, dict):
        return runtime_env
    modules = runtime_env.get("py_modules") or []
    uris = [u for u in [*modules, runtime_env.get("working_dir")] if u is not None]
    for uri in uris:
        if not isinstance(uri, str) or "://" not in uri:
            raise ValueError(
                "runtime_envs in the Serve config support only remote URIs in working_dir and "
                f"py_modules. Got error when parsing URI: {uri!r} is not a URI."
            )
    return runtime_env


def import_path_problem(path: str) -> Optional[str]:
    """What is wrong with the form of an import path, or None."""
    where = f'Got invalid import path "{path}". An import path '
    if ":" in path:
        if path.count(":") > 1:
            return where + "may have at most one colon."
        if path.startswith(":") or path.endswith(":"):
            return where + "may not start or end with a colon."
    elif "." not in path:
        return where + (
            "must contain at least one dot or colon separating the module from the attribute, "
            "for example module.sub:app."
        )
    elif path.startswith(".") or path.endswith("."):
        return where + "may not start or end with a dot."
    return None


class LoggingConfig(Model, home=HOME, extra="forbid"):
    """How the replicas of a deployment log. `logs_dir` None: where the node keeps its logs."""

    encoding: Union[str, EncodingType] = Field(
        default_factory=lambda: os.environ.get("RAY_SERVE_LOG_ENCODING") or "TEXT"
    )
    log_level: Union[int, str] = "INFO"
    logs_dir: Optional[str] = None
    enable_access_log: bool = True
    additional_log_standard_attrs: List[str] = Field(default_factory=list)

    @field_validator("encoding")
    @classmethod
    def valid_encoding_format(cls, v: Any) -> Any:
        if getattr(v, "value", v) not in ("TEXT", "JSON"):
            raise ValueError(f"Got '{v}' for encoding. Encoding must be one of ['TEXT', 'JSON'].")
        return EncodingType(v).value

    @field_validator("log_level")
    @classmethod
    def valid_log_level(cls, v: Any) -> Any:
        if isinstance(v, int):
            if v not in logging._levelToName:
                numbers = list(logging._levelToName)
                raise ValueError(f'Got "{v}" for log_level. log_level must be one of {numbers}.')
            return logging._levelToName[v]
        if v not in logging._nameToLevel:
            names = list(logging._nameToLevel)
            raise ValueError(f'Got "{v}" for log_level. log_level must be one of {names}.')
        return v

    @field_validator("additional_log_standard_attrs")
    @classmethod
    def valid_additional_log_standard_attrs(cls, v: Any) -> Any:
        for name in v:
            if name not in LOGRECORD_STANDARD_ATTRS:
                raise ValueError(
                    f"Unknown attribute '{name}' in additional_log_standard_attrs: it is none of "
                    "logging.LogRecord's."
                )
        return sorted(set(v))

    def __eq__(self, other: object) -> bool:
        names = ("encoding", "log_level", "logs_dir", "enable_access_log")
        return type(other) is type(self) and all(
            getattr(self, n) == getattr(other, n) for n in names
        )

    __hash__ = None


def _sampling_ratio() -> float:
    return float(os.environ.get("RAY_SERVE_TRACING_SAMPLING_RATIO") or 0.01)


def _exporter() -> str:
    return os.environ.get("RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH") or ""


class TracingConfig(Model, home=HOME, extra="forbid"):
    """Whether requests are traced, how many of them (0 to 1), and who exports the spans."""

    enabled: bool = Field(default_factory=lambda: bool(_exporter()))
    exporter_import_path: str = Field(default_factory=_exporter)
    sampling_ratio: float = Field(default_factory=_sampling_ratio)

    @field_validator("sampling_ratio")
    @classmethod
    def validate_sampling_ratio(cls, v: float) -> float:
        if not 0 <= v <= 1:
            raise ValueError(f"sampling_ratio must be between 0 and 1, got {v}.")
        return v


class RayActorOptionsSchema(Model, home=HOME):
    """What a replica needs: processors, GPUs, memory in bytes, and its environment."""

    runtime_env: dict = {}  # type: ignore[type-arg]
    num_cpus: Optional[float] = Field(default=None, ge=0)
    num_gpus: Optional[float] = Field(default=None, ge=0)
    memory: Optional[float] = Field(default=None, ge=0)
    resources: AnyDict = {}
    accelerator_type: Optional[str] = None
    label_selector: Optional[Dict[str, str]] = None
    fallback_strategy: Optional[List[Dict[str, Any]]] = None

    @field_validator("runtime_env")
    @classmethod
    def runtime_env_contains_remote_uris(cls, v: Any) -> Any:
        return _remote_uris(v)

    @field_validator("label_selector")
    @classmethod
    def label_selector_is_valid(cls, v: Any) -> Any:
        for key in v or ():
            if not key:
                raise ValueError("label_selector has an empty key.")
        return v


class DeploymentSchema(Model, home=HOME):
    """What a file says about a deployment. What it does not say keeps the value of the code."""

    name: str
    num_replicas: Optional[Union[PositiveInt, str]] = NOT_SET
    max_ongoing_requests: int = Field(default=NOT_SET, gt=0)
    max_queued_requests: int = NOT_SET
    user_config: Optional[AnyDict] = NOT_SET
    autoscaling_config: Optional[Union[AnyDict, AutoscalingConfig]] = NOT_SET
    graceful_shutdown_wait_loop_s: float = Field(default=NOT_SET, ge=0)
    graceful_shutdown_timeout_s: float = Field(default=NOT_SET, ge=0)
    health_check_period_s: float = Field(default=NOT_SET, gt=0)
    health_check_timeout_s: float = Field(default=NOT_SET, gt=0)
    ray_actor_options: RayActorOptionsSchema = NOT_SET
    placement_group_bundles: List[Dict[str, float]] = NOT_SET
    placement_group_strategy: str = NOT_SET
    placement_group_bundle_label_selector: List[Dict[str, str]] = NOT_SET
    max_replicas_per_node: int = NOT_SET
    logging_config: LoggingConfig = NOT_SET
    request_router_config: Union[AnyDict, RequestRouterConfig] = NOT_SET
    gang_scheduling_config: Optional[Union[AnyDict, GangSchedulingConfig]] = NOT_SET
    deployment_actors: Optional[List[Union[AnyDict, DeploymentActorConfig]]] = NOT_SET
    rolling_update_percentage: float = Field(default=NOT_SET, gt=0.0, le=1.0)
    max_surge_percent: int = Field(default=NOT_SET, ge=0, le=100)
    backpressure_config: BackpressureConfig = NOT_SET

    @before_model
    @classmethod
    def validate_num_replicas_and_autoscaling_config(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        replicas = values.get("num_replicas", NOT_SET)
        scaling = values.get("autoscaling_config", NOT_SET)
        if isinstance(replicas, int) and scaling not in (None, NOT_SET):
            raise ValueError(
                "Manually setting num_replicas is not allowed when autoscaling_config is provided."
            )
        if isinstance(replicas, str) and replicas != "auto":
            raise ValueError(f'`num_replicas` must be an int or "auto", but got: {replicas}')
        return values

    @before_model
    @classmethod
    def validate_gang_scheduling_config(cls, values: Any) -> Any:
        gang = values.get("gang_scheduling_config") if isinstance(values, dict) else None
        if gang is None or gang is NOT_SET:
            return values
        size = gang.get("gang_size") if isinstance(gang, dict) else gang.gang_size
        replicas = values.get("num_replicas")
        if isinstance(size, int) and size > 0 and isinstance(replicas, int) and replicas % size:
            raise ValueError(f"num_replicas ({replicas}) must be a multiple of gang_size ({size}).")
        return values

    @model_validator
    def validate_max_queued_requests(self) -> Any:
        value = self.max_queued_requests
        if value is not NOT_SET and value != -1 and value < 1:
            raise ValueError("max_queued_requests must be -1 (no limit) or a positive integer.")
        return self

    @model_validator
    def validate_max_replicas_per_node_and_placement_group_bundles(self) -> Any:
        if NOT_SET not in (self.max_replicas_per_node, self.placement_group_bundles):
            raise ValueError(
                "Setting max_replicas_per_node is not allowed when placement_group_bundles is "
                "provided."
            )
        return self

    @model_validator
    def validate_max_replicas_per_node_and_gang_scheduling_config(self) -> Any:
        gang = self.gang_scheduling_config
        if self.max_replicas_per_node is not NOT_SET and gang is not NOT_SET and gang is not None:
            raise ValueError(
                "Setting max_replicas_per_node is not allowed when gang_scheduling_config is "
                "provided."
            )
        return self

    @model_validator
    def validate_placement_group_strategy_and_gang_scheduling_config(self) -> Any:
        gang = self.gang_scheduling_config
        if (
            self.placement_group_strategy is not NOT_SET
            and gang is not NOT_SET
            and gang is not None
        ):
            raise ValueError(
                "Setting placement_group_strategy is not allowed when gang_scheduling_config is "
                "provided. Use gang_placement_strategy."
            )
        return self

    @model_validator
    def validate_bundle_label_selector(self) -> Any:
        labels, bundles = self.placement_group_bundle_label_selector, self.placement_group_bundles
        if labels is NOT_SET:
            return self
        if bundles is NOT_SET:
            raise ValueError(
                "Setting placement_group_bundle_label_selector is not allowed when "
                "placement_group_bundles is not provided."
            )
        if len(labels) not in (1, len(bundles)):
            raise ValueError(
                "The placement_group_bundle_label_selector list must hold one selector or one per "
                f"bundle ({len(bundles)}), got {len(labels)}."
            )
        return self

    def is_autoscaling_configured(self) -> bool:
        """Whether this file asks for autoscaling."""
        scaling = self.autoscaling_config
        return self.num_replicas == "auto" or (scaling is not None and scaling is not NOT_SET)


class ServeApplicationSchema(Model, home=HOME):
    """What a file says about an application."""

    name: str = "default"
    route_prefix: Optional[str] = "/"
    import_path: str
    runtime_env: dict = {}  # type: ignore[type-arg]
    host: str = "0.0.0.0"
    port: int = 8000
    deployments: List[DeploymentSchema] = []
    autoscaling_policy: Optional[dict] = None  # type: ignore[type-arg]
    args: AnyDict = {}
    logging_config: Optional[LoggingConfig] = None
    external_scaler_enabled: bool = False

    @property
    def deployment_names(self) -> List[str]:
        """The names of the deployments that the file mentions."""
        return [d.name for d in self.deployments]

    @field_validator("runtime_env")
    @classmethod
    def runtime_env_contains_remote_uris(cls, v: Any) -> Any:
        return _remote_uris(v)

    @field_validator("import_path")
    @classmethod
    def import_path_format_valid(cls, v: str) -> str:
        problem = import_path_problem(v)
        if problem:
            raise ValueError(problem)
        return v

    @field_validator("autoscaling_policy", mode="before")
    @classmethod
    def convert_autoscaling_policy_to_dict(cls, v: Any) -> Any:
        if isinstance(v, AutoscalingPolicy) or type(v).__name__ == "AutoscalingPolicy":
            return v.model_dump()
        return v

    @model_validator
    def validate_external_scaler_and_autoscaling(self) -> Any:
        scaled = [d.name for d in self.deployments if d.is_autoscaling_configured()]
        if self.external_scaler_enabled and scaled:
            names = ", ".join(f'"{n}"' for n in scaled)
            raise ValueError(
                "external_scaler_enabled is set to True, but the following deployment(s) have "
                f"autoscaling configured: {names}. An application is scaled by one of the two."
            )
        return self

    @staticmethod
    def get_empty_schema_dict() -> Dict[str, Any]:
        """An application that says nothing."""
        return {"import_path": "", "runtime_env": {}, "deployments": []}


class gRPCOptionsSchema(Model, home=HOME):  # noqa: N801 (Ray's name)
    """`grpc_options` of a file."""

    port: int = 9000
    grpc_servicer_functions: List[str] = []
    request_timeout_s: Optional[float] = None
    enable_reflection: bool = True


class HTTPOptionsSchema(Model, home=HOME):
    """`http_options` of a file."""

    host: str = "0.0.0.0"
    port: int = 8000
    root_path: str = ""
    request_timeout_s: Optional[float] = None
    keep_alive_timeout_s: int = 90
    ssl_keyfile: Optional[str] = None
    ssl_certfile: Optional[str] = None
    ssl_keyfile_password: Optional[str] = None
    ssl_ca_certs: Optional[str] = None

    @field_validator("ssl_certfile")
    @classmethod
    def validate_ssl_certfile(cls, v: Any, info: Any) -> Any:
        _ssl_pair(info.data.get("ssl_keyfile"), v)
        return v

    @model_validator
    def _ssl_keyfile_has_certfile(self) -> Any:
        _ssl_pair(self.ssl_keyfile, self.ssl_certfile)
        return self


class ServeDeploySchema(Model, home=HOME):
    """A whole file: what `serve deploy` and `PUT /api/serve/applications/` take."""

    proxy_location: ProxyLocation = ProxyLocation.EveryNode
    controller_options: Optional[ControllerOptions] = None
    http_options: HTTPOptionsSchema = Field(default_factory=HTTPOptionsSchema, instance=True)
    grpc_options: gRPCOptionsSchema = Field(default_factory=gRPCOptionsSchema, instance=True)
    logging_config: Optional[LoggingConfig] = None
    tracing_config: Optional[TracingConfig] = None
    applications: List[ServeApplicationSchema]
    target_capacity: Optional[float] = Field(default=None, ge=0, le=100)

    @field_validator("applications")
    @classmethod
    def application_names_nonempty(cls, v: Any) -> Any:
        if any(not app.name for app in v):
            raise ValueError("Application names must be nonempty.")
        return v

    @field_validator("applications")
    @classmethod
    def application_names_unique(cls, v: Any) -> Any:
        seen: Set[str] = set()
        for app in v:
            if app.name in seen:
                raise ValueError(
                    f'Found multiple configs for application "{app.name}". Please remove all '
                    "duplicates."
                )
            seen.add(app.name)
        return v

    @field_validator("applications")
    @classmethod
    def application_routes_unique(cls, v: Any) -> Any:
        seen: Set[str] = set()
        for app in v:
            if app.route_prefix in seen:
                raise ValueError(
                    f'Found duplicate applications for route prefix "{app.route_prefix}". Please '
                    "ensure each application's route_prefix is unique."
                )
            if app.route_prefix is not None:
                seen.add(app.route_prefix)
        return v

    @model_validator
    def nested_host_and_port(self) -> Any:
        for app in self.applications:
            for name in ("host", "port"):
                if name in app.model_fields_set:
                    raise ValueError(
                        f'{name.capitalize()} "{getattr(app, name)}" is set in the config for '
                        f"application `{app.name}`. Please remove it and set {name} in the top "
                        "level deploy config only."
                    )
        return self

    @staticmethod
    def get_empty_schema_dict() -> Dict[str, Any]:
        """A file that deploys nothing."""
        return {"applications": []}


class ScaleDeploymentRequest(Model, home=HOME):
    """The body of `POST .../scale`."""

    target_num_replicas: int = Field(ge=0)


class ReplicaRank(Model, home=HOME):
    """The place of a replica among all, its node among the nodes, and its place on its node."""

    rank: int
    node_rank: int
    local_rank: int


class CeleryAdapterConfig(Model, home=HOME):
    """Where Celery finds its broker and keeps its results."""

    app_custom_config: Optional[Dict[str, Any]] = None
    task_custom_config: Optional[Dict[str, Any]] = None
    broker_url: str
    backend_url: str
    broker_transport_options: Optional[Dict[str, Any]] = None


class TaskProcessorConfig(Model, home=HOME):
    """Which queue a task consumer reads, through which adapter, with how many retries."""

    queue_name: str
    adapter: Union[str, AnyCallable] = "ray.serve.task_processor.CeleryTaskProcessorAdapter"
    adapter_config: Any
    max_retries: Optional[int] = 3
    failed_task_queue_name: Optional[str] = None
    unprocessable_task_queue_name: Optional[str] = None


class TaskResult(Model, home=HOME):
    """What is known of a task; `created_at` in seconds since the epoch."""

    id: str
    status: str
    created_at: Optional[float] = None
    result: Any
