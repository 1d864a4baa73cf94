"""Identities and states of applications, deployments and replicas."""

from __future__ import annotations

import dataclasses
from typing import Optional

from rserve._states import (
    DeploymentStatus,
    DeploymentStatusTrigger,
    ReplicaState,
    RequestProtocol,
)

__all__ = [
    "DeploymentID",
    "DeploymentStatus",
    "DeploymentStatusTrigger",
    "ReplicaID",
    "ReplicaState",
    "RequestMetadata",
    "RequestProtocol",
    "TimeStampedValue",
    "deployment_id_text",
]


@dataclasses.dataclass(frozen=True)
class DeploymentID:
    """A deployment of an application."""

    name: str
    app_name: str = "default"

    def to_replica_actor_class_name(self) -> str:
        return f"ServeReplica:{self.app_name}:{self.name}"

    def __str__(self) -> str:
        return f"Deployment(name='{self.name}', app='{self.app_name}')"

    __repr__ = __str__


@dataclasses.dataclass(frozen=True)
class ReplicaID:
    """One replica of a deployment."""

    unique_id: str
    deployment_id: DeploymentID

    def to_full_id_str(self) -> str:
        """app#deployment#id"""
        parts = [self.deployment_id.app_name, self.deployment_id.name, self.unique_id]
        return "#".join(p for p in parts if p)

    @staticmethod
    def is_full_id_str(s: str) -> bool:
        """Whether a text has the form app#deployment#id, or deployment#id."""
        return s.count("#") in (1, 2)

    @classmethod
    def from_full_id_str(cls, s: str) -> "ReplicaID":
        """The id that `to_full_id_str` wrote, or an actor's name; ValueError for anything else."""
        parts = s.split("::")[-1].split("#")
        if len(parts) == 3:
            return cls(parts[2], DeploymentID(parts[1], parts[0]))
        if len(parts) == 2:
            return cls(parts[1], DeploymentID(parts[0], ""))
        raise ValueError(f"replica id {s!r} is not of the form app#deployment#id")

    def __str__(self) -> str:
        d = self.deployment_id
        return f"Replica(id='{self.unique_id}', deployment='{d.name}', app='{d.app_name}')"

    __repr__ = __str__


@dataclasses.dataclass(order=True)
class TimeStampedValue:
    """A figure and when it was taken (seconds since the epoch)."""

    timestamp: float
    value: float = dataclasses.field(compare=False)


@dataclasses.dataclass(frozen=True)
class RequestMetadata:
    request_id: str
    internal_request_id: str
    call_method: str = "__call__"
    route: str = ""
    app_name: str = ""
    multiplexed_model_id: str = ""
    is_http_request: bool = False
    session_id: str = ""


def deployment_id_text(name: str, app: Optional[str]) -> str:
    return str(DeploymentID(name, app or ""))
