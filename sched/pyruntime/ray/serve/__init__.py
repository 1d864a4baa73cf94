"""`ray.serve` of rserve: Serve applications import it in place of Ray's."""

from __future__ import annotations

from ray.serve.api import (
    RunTarget,
    _run,
    _run_many,
    delete,
    deployment,
    get_app_handle,
    get_deployment_actor,
    get_deployment_actor_context,
    get_deployment_handle,
    get_multiplexed_model_id,
    get_replica_context,
    get_trace_context,
    ingress,
    run,
    run_many,
    shutdown,
    shutdown_async,
    start,
    status,
)
from ray.serve.batching import batch
from ray.serve.config import HTTPOptions
from ray.serve.deployment import Application, Deployment
from ray.serve.multiplex import multiplexed

__all__ = [
    "Application",
    "Deployment",
    "HTTPOptions",
    "RunTarget",
    "_run",
    "_run_many",
    "batch",
    "delete",
    "deployment",
    "get_app_handle",
    "get_deployment_actor",
    "get_deployment_actor_context",
    "get_deployment_handle",
    "get_multiplexed_model_id",
    "get_replica_context",
    "get_trace_context",
    "ingress",
    "multiplexed",
    "run",
    "run_many",
    "shutdown",
    "shutdown_async",
    "start",
    "status",
]
