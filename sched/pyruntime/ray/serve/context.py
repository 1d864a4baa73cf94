"""What code inside a replica can ask about itself and about the request it works on."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Any, Callable, List, Optional

from rserve._call import request_context as _serve_request_context

from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve._private.constants import (  # noqa: F401  (as in Ray)
    RAY_SERVE_INTERNAL_DEPLOYMENT_ACTOR_NAME_ENV_VAR,
    RAY_SERVE_INTERNAL_DEPLOYMENT_APP_NAME_ENV_VAR,
    RAY_SERVE_INTERNAL_DEPLOYMENT_CODE_VERSION_ENV_VAR,
    RAY_SERVE_INTERNAL_DEPLOYMENT_NAME_ENV_VAR,
    SERVE_CONTROLLER_NAME,
    SERVE_LOGGER_NAME,
    SERVE_NAMESPACE,
)
from ray.serve.exceptions import RayServeException

if TYPE_CHECKING:
    from ray.serve.gang import GangContext
    from ray.serve.schema import ReplicaRank



@dataclasses.dataclass
class ReplicaContext:
    """Who this replica is."""

    replica_id: ReplicaID
    servable_object: Any
    _deployment_config: Any
    rank: "ReplicaRank"
    world_size: int
    _handle_registration_callback: Optional[Callable[[DeploymentID], None]] = None
    gang_context: "Optional[GangContext]" = None
    code_version: Optional[str] = None

    @property
    def app_name(self) -> str:
        """The application."""
        return self.replica_id.deployment_id.app_name

    @property
    def deployment(self) -> str:
        """The deployment."""
        return self.replica_id.deployment_id.name

    @property
    def replica_tag(self) -> str:
        """The replica's id, unique in its deployment."""
        return self.replica_id.unique_id


@dataclasses.dataclass(frozen=True)
class _RequestContext:
    """The request context outside of a request."""

    route: str = ""
    request_id: str = ""
    _internal_request_id: str = ""
    app_name: str = ""
    multiplexed_model_id: str = ""
    grpc_context: Any = None
    is_http_request: bool = False
    cancel_on_parent_request_cancel: bool = False
    session_id: str = ""
    _client: str = ""


_EMPTY = _RequestContext()
_replica_context: Optional[ReplicaContext] = None


def _set_replica_context(context: Optional[ReplicaContext]) -> None:
    global _replica_context
    _replica_context = context


def _get_internal_replica_context() -> Optional[ReplicaContext]:
    return _replica_context


def _get_serve_request_context() -> Any:
    return _serve_request_context.get() or _EMPTY


def _get_serve_batch_request_context() -> List[Any]:
    from ray.serve.batching import batch_contexts

    return list(batch_contexts.get())


def get_replica_context() -> ReplicaContext:
    """Who this replica is. RayServeException outside of a replica."""
    if _replica_context is None:
        raise RayServeException(
            "`serve.get_replica_context()` may only be called from within a Ray Serve deployment."
        )
    rank: Any = _replica_context.rank
    if "pydantic" in sys.modules and getattr(rank, "_twin", rank) is not rank:
        # the program uses pydantic, so `ray.serve.schema.ReplicaRank` is a model of pydantic's
        from rserve import _model

        kind = _model.public(type(rank))
        if kind is not type(rank):
            _replica_context.rank = kind(**rank.model_dump())
    return _replica_context


@dataclasses.dataclass(frozen=True)
class DeploymentActorContext:
    """Whose helper an actor of a deployment is."""

    deployment_id: DeploymentID
    actor_name: str
    code_version: Optional[str] = None

    @property
    def app_name(self) -> str:
        """The application."""
        return self.deployment_id.app_name

    @property
    def deployment(self) -> str:
        """The deployment."""
        return self.deployment_id.name
