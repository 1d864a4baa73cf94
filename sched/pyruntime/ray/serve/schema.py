"""Models of `ray.serve.schema`: configuration files, what runs, logging options, task processors.

The models are pydantic's where pydantic is installed; they are made when they are first asked for,
so that importing this module does not load it.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional

from rserve import _details, _model, _schema
from rserve._details import (
    APIType,
    ApplicationStatus,
    AutoscalingMetricsHealth,
    AutoscalingStatus,
    ProxyStatus,
)
from rserve._schema import LOGRECORD_STANDARD_ATTRS, EncodingType

from ray.serve._private.common import (
    DeploymentStatus,
    DeploymentStatusTrigger,
    ReplicaState,
    RequestProtocol,
)
from ray.serve._private.constants import (
    DEFAULT_CONSUMER_CONCURRENCY,
    DEFAULT_GRPC_PORT,
    DEFAULT_MAX_ONGOING_REQUESTS,
    DEFAULT_ROLLING_UPDATE_PERCENTAGE,
    DEFAULT_UVICORN_KEEP_ALIVE_TIMEOUT_S,
    RAY_SERVE_LOG_ENCODING,
    RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH,
    RAY_SERVE_TRACING_SAMPLING_RATIO,
    SERVE_DEFAULT_APP_NAME,
)
from ray.serve.config import ProxyLocation

if TYPE_CHECKING:
    from rserve._details import (
        ApplicationDetails,
        ControllerHealthMetrics,
        DeploymentAutoscalingDetail,
        DeploymentDetails,
        DeploymentNode,
        DeploymentTopology,
        DurationStats,
        ProxyDetails,
        ReplicaDetails,
        ScalingDecision,
        ServeActorDetails,
        ServeInstanceDetails,
        Target,
        TargetGroup,
    )
    from rserve._schema import (
        CeleryAdapterConfig,
        DeploymentSchema,
        HTTPOptionsSchema,
        LoggingConfig,
        RayActorOptionsSchema,
        ReplicaRank,
        ScaleDeploymentRequest,
        ServeApplicationSchema,
        ServeDeploySchema,
        TaskProcessorConfig,
        TaskResult,
        TracingConfig,
        gRPCOptionsSchema,
    )

    from ray.serve.config import BackpressureConfig

__all__ = [
    "APIType",
    "ApplicationDetails",
    "ApplicationStatus",
    "ApplicationStatusOverview",
    "AutoscalingMetricsHealth",
    "AutoscalingStatus",
    "BackpressureConfig",
    "CeleryAdapterConfig",
    "ControllerHealthMetrics",
    "DEFAULT_CONSUMER_CONCURRENCY",
    "DEFAULT_GRPC_PORT",
    "DEFAULT_MAX_ONGOING_REQUESTS",
    "DEFAULT_ROLLING_UPDATE_PERCENTAGE",
    "DEFAULT_UVICORN_KEEP_ALIVE_TIMEOUT_S",
    "DeploymentAutoscalingDetail",
    "DeploymentDetails",
    "DeploymentNode",
    "DeploymentSchema",
    "DeploymentStatus",
    "DeploymentStatusOverview",
    "DeploymentStatusTrigger",
    "DeploymentTopology",
    "DurationStats",
    "EncodingType",
    "HTTPOptionsSchema",
    "LOGRECORD_STANDARD_ATTRS",
    "LoggingConfig",
    "ProxyDetails",
    "ProxyLocation",
    "ProxyStatus",
    "RAY_SERVE_LOG_ENCODING",
    "RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH",
    "RAY_SERVE_TRACING_SAMPLING_RATIO",
    "RayActorOptionsSchema",
    "ReplicaDetails",
    "ReplicaRank",
    "ReplicaState",
    "RequestProtocol",
    "SERVE_DEFAULT_APP_NAME",
    "ScaleDeploymentRequest",
    "ScalingDecision",
    "ServeActorDetails",
    "ServeApplicationSchema",
    "ServeDeploySchema",
    "ServeInstanceDetails",
    "ServeStatus",
    "Target",
    "TargetGroup",
    "TaskProcessorAdapter",
    "TaskProcessorConfig",
    "TaskResult",
    "TracingConfig",
    "gRPCOptionsSchema",
]

if not TYPE_CHECKING:
    _of_schema = _model.lazy(
        __name__,
        _schema,
        "CeleryAdapterConfig DeploymentSchema HTTPOptionsSchema LoggingConfig "
        "RayActorOptionsSchema ReplicaRank ScaleDeploymentRequest ServeApplicationSchema "
        "ServeDeploySchema TaskProcessorConfig TaskResult TracingConfig gRPCOptionsSchema "
        "BackpressureConfig",
    )
    _of_details = _model.lazy(
        __name__,
        _details,
        "ApplicationDetails ControllerHealthMetrics DeploymentAutoscalingDetail DeploymentDetails "
        "DeploymentNode DeploymentTopology DurationStats ProxyDetails ReplicaDetails "
        "ScalingDecision ServeActorDetails ServeInstanceDetails Target TargetGroup",
    )

    def __getattr__(name):
        return _of_schema(name) if hasattr(_schema, name) else _of_details(name)


@dataclasses.dataclass
class DeploymentStatusOverview:
    """State of a deployment."""

    status: DeploymentStatus
    status_trigger: DeploymentStatusTrigger
    replica_states: Dict[ReplicaState, int]
    message: str


@dataclasses.dataclass
class ApplicationStatusOverview:
    """State of an application; `last_deployed_time_s` in seconds since the epoch."""

    status: ApplicationStatus
    message: str
    last_deployed_time_s: float
    deployments: Dict[str, DeploymentStatusOverview]


@dataclasses.dataclass
class ServeStatus:
    """State of all: what `serve.status()` gives. `target_capacity` in percent."""

    proxies: Dict[str, ProxyStatus] = dataclasses.field(default_factory=dict)
    applications: Dict[str, ApplicationStatusOverview] = dataclasses.field(default_factory=dict)
    target_capacity: Optional[float] = None


class TaskProcessorAdapter(abc.ABC):
    """What a task consumer needs from a message queue. Times in seconds."""

    @abc.abstractmethod
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Takes the TaskProcessorConfig; connects to nothing yet."""

    @abc.abstractmethod
    def initialize(self, consumer_concurrency: int = DEFAULT_CONSUMER_CONCURRENCY) -> None:
        """Prepares for up to `consumer_concurrency` tasks at a time."""

    @abc.abstractmethod
    def register_task_handle(self, func: Callable[..., Any], name: Optional[str] = None) -> None:
        """Has `func` work on the tasks of that name."""

    @abc.abstractmethod
    def enqueue_task_sync(
        self,
        task_name: str,
        args: Optional[Any] = None,
        kwargs: Optional[Any] = None,
        **options: Any,
    ) -> "TaskResult":
        """Puts a task into the queue."""

    @abc.abstractmethod
    def get_task_status_sync(self, task_id: str) -> "TaskResult":
        """What is known of a task."""

    @abc.abstractmethod
    def start_consumer(self, **kwargs: Any) -> None:
        """Begins to work on tasks; returns at once."""

    @abc.abstractmethod
    def stop_consumer(self, timeout: float = 10.0) -> None:
        """Takes no more tasks; waits at most `timeout` seconds for those that run."""

    def cancel_task_sync(self, task_id: str) -> Any:
        """Has a task not be worked on, if nobody has begun."""
        raise _not_supported("Canceling tasks")

    def get_metrics_sync(self) -> Dict[str, Any]:
        """Figures of the queue."""
        raise _not_supported("Metrics")

    def health_check_sync(self) -> List[Dict[str, Any]]:
        """Whether the workers answer."""
        raise _not_supported("A health check")

    async def enqueue_task_async(
        self,
        task_name: str,
        args: Optional[Any] = None,
        kwargs: Optional[Any] = None,
        **options: Any,
    ) -> "TaskResult":
        """As `enqueue_task_sync`."""
        raise _not_supported("Enqueuing tasks asynchronously")

    async def get_task_status_async(self, task_id: str) -> "TaskResult":
        """As `get_task_status_sync`."""
        raise _not_supported("Asking for a status asynchronously")

    async def cancel_task_async(self, task_id: str) -> Any:
        """As `cancel_task_sync`."""
        raise _not_supported("Canceling tasks asynchronously")

    async def get_metrics_async(self) -> Dict[str, Any]:
        """As `get_metrics_sync`."""
        raise _not_supported("Metrics, asynchronously,")

    async def health_check_async(self) -> List[Dict[str, Any]]:
        """As `health_check_sync`."""
        raise _not_supported("An asynchronous health check")


def _not_supported(what: str) -> NotImplementedError:
    return NotImplementedError(f"{what} is not supported by this task processor adapter.")
