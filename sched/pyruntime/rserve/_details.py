"""The models of `ray.serve.schema` that say what runs: `GET /api/serve/applications/`.

Times are in seconds, moments in seconds since the epoch, unless a name says otherwise.
"""

from __future__ import annotations

import enum
from typing import Any, Dict, List, Optional

from rserve._config import ProxyLocation, check_route_prefix
from rserve._model import Field, Model, field_validator
from rserve._schema import (
    DeploymentSchema,
    HTTPOptionsSchema,
    ServeApplicationSchema,
    gRPCOptionsSchema,
)
from rserve._states import (
    DeploymentStatus,
    DeploymentStatusTrigger,
    ReplicaState,
    RequestProtocol,
)

HOME = "ray.serve.schema"


class APIType(str, enum.Enum):
    """How an application was deployed: by a file, or by `serve.run`."""

    UNKNOWN = "unknown"
    IMPERATIVE = "imperative"
    DECLARATIVE = "declarative"


class ApplicationStatus(str, enum.Enum):
    """The states of an application."""

    NOT_STARTED = "NOT_STARTED"
    DEPLOYING = "DEPLOYING"
    DEPLOY_FAILED = "DEPLOY_FAILED"
    RUNNING = "RUNNING"
    UNHEALTHY = "UNHEALTHY"
    DELETING = "DELETING"


class ProxyStatus(str, enum.Enum):
    """The states of a node's HTTP ingress."""

    STARTING = "STARTING"
    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"
    DRAINING = "DRAINING"
    DRAINED = "DRAINED"


class AutoscalingStatus(str, enum.Enum):
    """Which way a deployment is being scaled."""

    UPSCALING = "UPSCALING"
    DOWNSCALING = "DOWNSCALING"
    STABLE = "STABLE"


class AutoscalingMetricsHealth(str, enum.Enum):
    """Whether the figures that the autoscaler decides by are fresh."""

    HEALTHY = "healthy"
    DELAYED = "delayed"
    UNAVAILABLE = "unavailable"


class ServeActorDetails(Model, home=HOME):
    """Where a part of Serve runs."""

    node_id: Optional[str] = None
    node_ip: Optional[str] = None
    node_instance_id: Optional[str] = None
    actor_id: Optional[str] = None
    actor_name: Optional[str] = None
    worker_id: Optional[str] = None
    log_file_path: Optional[str] = None


class ReplicaDetails(ServeActorDetails):
    """A replica."""

    replica_id: str
    state: ReplicaState
    pid: Optional[int] = None
    start_time_s: float


class ProxyDetails(ServeActorDetails):
    """A node's HTTP ingress."""

    status: ProxyStatus


class ScalingDecision(Model, home=HOME):
    """A change of the number of replicas, and why."""

    timestamp_s: float
    reason: str
    prev_num_replicas: int = Field(ge=0)
    curr_num_replicas: int = Field(ge=0)
    policy: Optional[str] = None


class DeploymentAutoscalingDetail(Model, home=HOME):
    """What the autoscaler of a deployment sees and did."""

    scaling_status: AutoscalingStatus
    decisions: List[ScalingDecision] = Field(default_factory=list)
    metrics: Optional[Dict[str, Any]] = None
    metrics_health: AutoscalingMetricsHealth = AutoscalingMetricsHealth.HEALTHY
    errors: List[str] = Field(default_factory=list)


class DeploymentDetails(Model, home=HOME, extra="forbid"):
    """A deployment."""

    name: str
    status: DeploymentStatus
    status_trigger: DeploymentStatusTrigger
    message: str
    deployment_config: DeploymentSchema
    target_num_replicas: int = Field(ge=0)
    required_resources: Dict[Any, Any]
    replicas: List[ReplicaDetails]
    recent_dead_replicas: List[ReplicaDetails] = Field(default_factory=list)
    autoscaling_detail: Optional[DeploymentAutoscalingDetail] = None


class DeploymentNode(Model, home=HOME):
    """A deployment in the graph of its application."""

    name: str
    app_name: str
    outbound_deployments: List[dict] = Field(default_factory=list)  # type: ignore[type-arg]
    is_ingress: bool = False


class DeploymentTopology(Model, home=HOME):
    """Which deployment calls which."""

    app_name: str
    nodes: Dict[str, DeploymentNode]
    ingress_deployment: Optional[str] = None


class ApplicationDetails(Model, home=HOME, extra="forbid"):
    """An application."""

    name: str
    route_prefix: Optional[str]
    docs_path: Optional[str]
    status: ApplicationStatus
    message: str
    last_deployed_time_s: float
    deployed_app_config: Optional[ServeApplicationSchema] = None
    source: APIType
    deployments: Dict[str, DeploymentDetails]
    external_scaler_enabled: bool
    deployment_topology: Optional[DeploymentTopology] = None

    @field_validator("route_prefix")
    @classmethod
    def application_details_route_prefix_format(cls, v: Any) -> Any:
        return check_route_prefix(v)


class Target(Model, home=HOME):
    """An address that takes requests."""

    ip: str
    port: int
    instance_id: str
    name: str


class TargetGroup(Model, home=HOME):
    """The addresses that take the requests of a route."""

    targets: List[Target]
    route_prefix: str
    protocol: RequestProtocol
    app_name: str = ""
    ingress_request_router_targets: List[Target] = Field(default_factory=list)
    ingress_deployment_name: str = ""


class DurationStats(Model, home=HOME):
    """Mean, spread and bounds of measured times."""

    mean: float = 0.0
    std: float = 0.0
    min: float = 0.0
    max: float = 0.0

    @classmethod
    def from_values(cls, values: List[float]) -> "DurationStats":
        """The figures of a list; zeros for an empty one."""
        if not values:
            return cls()
        mean = sum(values) / len(values)
        spread = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
        ordered = sorted(values)
        return cls(mean=mean, std=spread, min=ordered[0], max=ordered[-1])


class ControllerHealthMetrics(Model, home=HOME):
    """How the control loop does."""

    timestamp: float = 0.0
    controller_start_time: float = 0.0
    uptime_s: float = 0.0
    num_control_loops: int = 0
    loop_duration_s: Optional[DurationStats] = None
    loops_per_second: float = 0.0
    last_sleep_duration_s: float = 0.0
    expected_sleep_duration_s: float = 0.0
    event_loop_delay_s: float = 0.0
    num_asyncio_tasks: int = 0
    deployment_state_update_duration_s: Optional[DurationStats] = None
    application_state_update_duration_s: Optional[DurationStats] = None
    proxy_state_update_duration_s: Optional[DurationStats] = None
    node_update_duration_s: Optional[DurationStats] = None
    handle_metrics_delay_ms: Optional[DurationStats] = None
    replica_metrics_delay_ms: Optional[DurationStats] = None
    handle_ingest_duration_ms: Optional[DurationStats] = None
    replica_ingest_duration_ms: Optional[DurationStats] = None
    metrics_decompress_duration_ms: Optional[DurationStats] = None
    columnar_decode_duration_ms: Optional[DurationStats] = None
    ingest_cpu_fraction: float = 0.0
    ingest_reports_received: int = 0
    handle_reports_received: int = 0
    replica_reports_received: int = 0
    last_control_loop_time: float = 0.0
    process_memory_mb: float = 0.0


class ServeInstanceDetails(Model, home=HOME, extra="forbid"):
    """All that runs."""

    controller_info: ServeActorDetails = Field(default_factory=ServeActorDetails)
    proxy_location: Optional[ProxyLocation] = None
    http_options: Optional[HTTPOptionsSchema] = None
    grpc_options: Optional[gRPCOptionsSchema] = None
    proxies: Dict[str, ProxyDetails]
    applications: Dict[str, ApplicationDetails]
    target_capacity: Optional[float] = Field(default=None, ge=0, le=100)
    target_groups: List[TargetGroup] = Field(default_factory=list)
    controller_health_metrics: ControllerHealthMetrics = Field(
        default_factory=ControllerHealthMetrics
    )
    restores_unset_config_options: bool = False

    @staticmethod
    def get_empty_schema_dict() -> Dict[str, Any]:
        """What an instance without applications answers."""
        return {
            "controller_info": {},
            "proxies": {},
            "applications": {},
            "target_capacity": None,
        }
