"""`ray.serve` of rserve: Serve applications import it in place of Ray's."""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any, Tuple

if TYPE_CHECKING:
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

#: Where each name comes from: looked up on first use, so that the import itself costs little.
_MODULES = {
    "Application": "deployment",
    "ControllerOptions": "config",
    "Deployment": "deployment",
    "HTTPOptions": "config",
    "TracingConfig": "schema",
    "batch": "batching",
    "multiplexed": "multiplex",
}
_SUBMODULES = (
    "api autoscaling_policy batching config context exceptions experimental gang grpc_util handle "
    "metrics multiplex request_router schema task_consumer task_processor"
).split()


class _Package(types.ModuleType):
    """`ray.serve.deployment` is a module, and `serve.deployment` the decorator: the latter is what
    the attribute is, whoever imports the module."""

    @property
    def deployment(self) -> Any:
        """The decorator."""
        from ray.serve.api import deployment as decorator

        return decorator

    @deployment.setter
    def deployment(self, value: Any) -> None:
        """What the import of the module sets."""

    def __reduce__(self) -> Tuple[Any, ...]:
        return importlib.import_module, (self.__name__,)


if not TYPE_CHECKING:

    def __getattr__(name):
        """A name of this package, made or imported when it is asked for."""
        if name in __all__:
            module = importlib.import_module(f"ray.serve.{_MODULES.get(name, 'api')}")
            value = getattr(module, name)
            if _MODULES.get(name) not in ("config", "schema"):  # those make theirs anew on demand
                globals()[name] = value
            return value
        if name in _SUBMODULES:
            try:
                return importlib.import_module(f"ray.serve.{name}")
            except ModuleNotFoundError as e:
                if e.name != f"ray.serve.{name}":
                    raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__, "deployment"})

    sys.modules[__name__].__class__ = _Package
