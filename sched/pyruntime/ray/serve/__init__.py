"""`ray.serve` of rserve: Serve applications import it in place of Ray's."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from ray.serve.deployment import Application, Deployment
from ray.serve.multiplex import multiplexed

if TYPE_CHECKING:
    from ray.serve.config import ControllerOptions, HTTPOptions
    from ray.serve.schema import TracingConfig

__all__ = [
    "Application",
    "ControllerOptions",
    "Deployment",
    "HTTPOptions",
    "RunTarget",
    "TracingConfig",
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

if not TYPE_CHECKING:

    #: Loaded when they are asked for, as importing them costs time.
    _LAZY = frozenset(
        "autoscaling_policy config exceptions gang grpc_util handle metrics request_router schema "
        "task_consumer task_processor".split()
    )

    def __getattr__(name):
        """The models, which are made when they are asked for; see `ray.serve.config`."""
        import importlib

        if name in _LAZY:
            return importlib.import_module(f"ray.serve.{name}")
        if name in ("ControllerOptions", "HTTPOptions", "TracingConfig"):
            module = "schema" if name == "TracingConfig" else "config"
            return getattr(importlib.import_module(f"ray.serve.{module}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
