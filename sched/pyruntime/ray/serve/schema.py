"""The parts of `ray.serve.schema` that run-time code uses: statuses and logging options.

The configuration file itself is read by the node, not here.
"""

from __future__ import annotations

import dataclasses
import enum
import logging
import os
from typing import Any, Dict, List, Optional

from rserve._model import Field, Model, boolean, integer, mapping, one_of, real, sequence, string

from ray.serve._private.common import DeploymentStatus, DeploymentStatusTrigger, ReplicaState
from ray.serve.config import BackpressureConfig, ProxyLocation  # noqa: F401

SERVE_DEFAULT_APP_NAME = "default"
DEFAULT_MAX_ONGOING_REQUESTS = 5
DEFAULT_ROLLING_UPDATE_PERCENTAGE = 0.2
DEFAULT_CONSUMER_CONCURRENCY = 5

#: Attributes that every LogRecord has.
LOGRECORD_STANDARD_ATTRS = frozenset(
    "args asctime created exc_info exc_text filename funcName levelname levelno lineno message "
    "module msecs msg name pathname process processName relativeCreated stack_info thread "
    "threadName "
    "taskName".split()
)


class EncodingType(str, enum.Enum):
    TEXT = "TEXT"
    JSON = "JSON"


class ApplicationStatus(str, enum.Enum):
    NOT_STARTED = "NOT_STARTED"
    DEPLOYING = "DEPLOYING"
    DEPLOY_FAILED = "DEPLOY_FAILED"
    RUNNING = "RUNNING"
    UNHEALTHY = "UNHEALTHY"
    DELETING = "DELETING"


class ProxyStatus(str, enum.Enum):
    STARTING = "STARTING"
    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"
    DRAINING = "DRAINING"
    DRAINED = "DRAINED"


def _encoding(value: Any) -> EncodingType:
    try:
        member: EncodingType = one_of(EncodingType)(value)
        return member
    except ValueError:
        raise ValueError(
            f"Got '{value}' for encoding. Encoding must be one of ['TEXT', 'JSON']."
        ) from None


def _log_level(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"Got '{value}' for log_level. It must be a string or an integer.")
    if isinstance(value, int):
        return value
    if isinstance(value, str) and isinstance(logging.getLevelName(value.upper()), int):
        return value.upper()
    names = "DEBUG, INFO, WARNING, ERROR, CRITICAL"
    raise ValueError(
        f"Got '{value}' for log_level. log_level must be one of {names} or an integer."
    )


def _standard_attrs(value: Any) -> List[str]:
    names = sequence(value)
    unknown = sorted(str(n) for n in names if n not in LOGRECORD_STANDARD_ATTRS)
    if unknown:
        raise ValueError(f"Unknown attributes '{unknown}' in additional_log_standard_attrs.")
    return sorted(set(names))


class LoggingConfig(Model):
    """How the replicas of a deployment log."""

    _forbid_extra = True
    encoding = Field(EncodingType(os.environ.get("RAY_SERVE_LOG_ENCODING") or "TEXT"), _encoding)
    log_level = Field("INFO", _log_level)
    logs_dir = Field(None, string(optional=True))
    enable_access_log = Field(True, boolean)
    additional_log_standard_attrs = Field([], _standard_attrs)


class TracingConfig(Model):
    _forbid_extra = True
    enabled = Field(False, boolean)
    exporter_import_path = Field("", string())
    sampling_ratio = Field(0.01, real(0, 1))


class ReplicaRank(Model):
    """The place of a replica among its peers."""

    rank = Field(None, integer(0), required=True)
    node_rank = Field(None, integer(-1), required=True)
    local_rank = Field(None, integer(-1), required=True)


class CeleryAdapterConfig(Model):
    app_custom_config = Field(None, mapping(optional=True))
    task_custom_config = Field(None, mapping(optional=True))
    broker_url = Field(None, string(), required=True)
    backend_url = Field(None, string(), required=True)
    broker_transport_options = Field(None, mapping(optional=True))


class TaskProcessorConfig(Model):
    queue_name = Field(None, string(), required=True)
    adapter = Field("ray.serve.task_processor.CeleryTaskProcessorAdapter")
    adapter_config = Field(None, None, required=True)
    max_retries = Field(3, integer(0, optional=True))
    failed_task_queue_name = Field(None, string(optional=True))
    unprocessable_task_queue_name = Field(None, string(optional=True))


class TaskResult(Model):
    id = Field(None, string(), required=True)
    status = Field(None, string(), required=True)
    created_at = Field(None, real(optional=True))
    result = Field(None, None, required=True)


@dataclasses.dataclass
class DeploymentStatusOverview:
    status: DeploymentStatus
    status_trigger: DeploymentStatusTrigger
    replica_states: Dict[ReplicaState, int]
    message: str


@dataclasses.dataclass
class ApplicationStatusOverview:
    status: ApplicationStatus
    message: str
    last_deployed_time_s: float
    deployments: Dict[str, DeploymentStatusOverview]


@dataclasses.dataclass
class ServeStatus:
    proxies: Dict[str, ProxyStatus] = dataclasses.field(default_factory=dict)
    applications: Dict[str, ApplicationStatusOverview] = dataclasses.field(default_factory=dict)
    target_capacity: Optional[float] = None
