"""The functions of `ray.serve`."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence, Union, overload

from rserve import _node
from rserve._asgi import ingress
from rserve._config import (
    AutoscalingConfig,
    BackpressureConfig,
    ControllerOptions,
    DeploymentActorConfig,
    GangSchedulingConfig,
    HTTPOptions,
    ProxyLocation,
    RequestRouterConfig,
    check_route_prefix,
    gRPCOptions,
)
from rserve._lazy import LazyModule

from ray.serve._private.common import DeploymentID
from ray.serve.context import (
    DeploymentActorContext,
    _get_internal_replica_context,
    _get_serve_request_context,
    get_replica_context,
)
from ray.serve.deployment import (
    DEFAULT,
    OPTION_NAMES,
    Application,
    Deployment,
    merge_options,
    version_removed,
)
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

if TYPE_CHECKING:
    from rserve import _deploy, _session
    from rserve._schema import LoggingConfig, TracingConfig

    from ray.serve.schema import ServeStatus
else:
    _deploy = LazyModule("rserve._deploy")
    _session = LazyModule("rserve._session")

logger = logging.getLogger("ray.serve")

__all__ = [
    "RunTarget",
    "_run",
    "_run_many",
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
    "run",
    "run_many",
    "shutdown",
    "shutdown_async",
    "start",
    "status",
]


@overload
def deployment(_func_or_class: Callable[..., Any]) -> Deployment: ...


@overload
def deployment(
    _func_or_class: None = None,
    name: str = ...,
    version: str = ...,
    num_replicas: Union[int, str, None] = ...,
    ray_actor_options: Optional[Dict[str, Any]] = ...,
    placement_group_bundles: Optional[List[Dict[str, float]]] = ...,
    placement_group_strategy: Optional[str] = ...,
    placement_group_bundle_label_selector: Optional[List[Dict[str, str]]] = ...,
    max_replicas_per_node: Optional[int] = ...,
    user_config: Any = ...,
    max_ongoing_requests: int = ...,
    max_queued_requests: int = ...,
    backpressure_config: Union[Dict[str, Any], BackpressureConfig, None] = ...,
    autoscaling_config: Union[Dict[str, Any], AutoscalingConfig, None] = ...,
    graceful_shutdown_wait_loop_s: float = ...,
    graceful_shutdown_timeout_s: float = ...,
    health_check_period_s: float = ...,
    health_check_timeout_s: float = ...,
    logging_config: Union[Dict[str, Any], LoggingConfig, None] = ...,
    request_router_config: Union[Dict[str, Any], RequestRouterConfig, None] = ...,
    max_constructor_retry_count: int = ...,
    gang_scheduling_config: Union[Dict[str, Any], GangSchedulingConfig, None] = ...,
    deployment_actors: Optional[Sequence[Union[Dict[str, Any], DeploymentActorConfig]]] = ...,
    rolling_update_percentage: float = ...,
    max_surge_percent: int = ...,
) -> Callable[[Callable[..., Any]], Deployment]: ...


def deployment(
    _func_or_class: Optional[Callable[..., Any]] = None,
    name: Any = DEFAULT,
    version: Any = DEFAULT,
    num_replicas: Any = DEFAULT,
    ray_actor_options: Any = DEFAULT,
    placement_group_bundles: Any = DEFAULT,
    placement_group_strategy: Any = DEFAULT,
    placement_group_bundle_label_selector: Any = DEFAULT,
    max_replicas_per_node: Any = DEFAULT,
    user_config: Any = DEFAULT,
    max_ongoing_requests: Any = DEFAULT,
    max_queued_requests: Any = DEFAULT,
    backpressure_config: Any = DEFAULT,
    autoscaling_config: Any = DEFAULT,
    graceful_shutdown_wait_loop_s: Any = DEFAULT,
    graceful_shutdown_timeout_s: Any = DEFAULT,
    health_check_period_s: Any = DEFAULT,
    health_check_timeout_s: Any = DEFAULT,
    logging_config: Any = DEFAULT,
    request_router_config: Any = DEFAULT,
    max_constructor_retry_count: Any = DEFAULT,
    gang_scheduling_config: Any = DEFAULT,
    deployment_actors: Any = DEFAULT,
    rolling_update_percentage: Any = DEFAULT,
    max_surge_percent: Any = DEFAULT,
) -> Any:
    """Makes a Deployment of a class or function; used bare or with options.

    Times are in seconds, memory in `ray_actor_options` in bytes. Raises ValueError (pydantic's
    ValidationError where pydantic is loaded) for options that make no sense, TypeError for what is
    neither class nor function. Options that are not given keep Serve's defaults, which a
    configuration file may change.
    """
    arguments = locals()
    given: Dict[str, Any] = {n: arguments[n] for n in OPTION_NAMES if arguments[n] is not DEFAULT}
    given = merge_options({}, given)
    if version is not DEFAULT:
        raise version_removed("@serve.deployment")

    def decorator(func_or_class: Callable[..., Any]) -> Deployment:
        if not (inspect.isclass(func_or_class) or inspect.isfunction(func_or_class)):
            raise TypeError("@serve.deployment must be called on a class or function.")
        return Deployment(
            func_or_class.__name__ if name is DEFAULT or name is None else name,
            func_or_class,
            given,
            _internal=True,
        )

    return decorator(_func_or_class) if callable(_func_or_class) else decorator


# --- handles ------------------------------------------------------------------------------------


def get_app_handle(name: str) -> DeploymentHandle[Any]:
    """The handle of the ingress deployment of an application."""
    local = _local()
    handle = local.app_handle(name) if local is not None else None
    if handle is not None:
        return handle  # type: ignore[no-any-return]
    found = _node.require("serve.get_app_handle").lookup(name, None)
    if not found.get("app_exists") or not found.get("ingress"):
        raise RayServeException(f"Application '{name}' does not exist.")
    return DeploymentHandle(str(found["ingress"]), name)


def get_deployment_handle(
    deployment_name: str,
    app_name: Optional[str] = None,
    _check_exists: bool = True,
    _record_telemetry: bool = True,
) -> DeploymentHandle[Any]:
    """The handle of a deployment, of this application unless another one is named."""
    if app_name is None:
        context = _get_internal_replica_context()
        if context is None:
            raise RayServeException(
                "Please specify an application name when getting a deployment handle outside of a "
                "Serve application."
            )
        app_name = context.app_name
    local = _local()
    if local is not None and local.has(app_name, deployment_name):
        return local.LocalHandle(deployment_name, app_name)  # type: ignore[no-any-return]
    handle: DeploymentHandle[Any] = DeploymentHandle(deployment_name, app_name)
    if _check_exists:
        found = _node.require("serve.get_deployment_handle").lookup(app_name, deployment_name)
        if not found.get("exists"):
            raise KeyError(f"{handle.deployment_id} does not exist.")
    return handle


def get_multiplexed_model_id() -> str:
    """The model id of the current request, or ""."""
    return str(_get_serve_request_context().multiplexed_model_id)


def get_trace_context() -> Optional[Dict[str, str]]:
    """The trace context of the current request, or None."""
    from rserve import _wire as w

    fields = getattr(_get_serve_request_context(), "fields", None) or {}
    value = fields.get(w.T_TRACEPARENT)
    return None if value is None else {"traceparent": value.decode("latin-1")}


# --- running programs ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class RunTarget:
    """An application for `run_many`, with the arguments that `run` takes."""

    target: Application
    name: str = "default"
    route_prefix: Optional[str] = "/"
    logging_config: Union[Dict[str, Any], LoggingConfig, None] = None
    external_scaler_enabled: bool = False


def _check_target(target: Any, name: str, route_prefix: Optional[str]) -> None:
    if not name:
        raise RayServeException("Application name must a non-empty string.")
    if not isinstance(target, Application):
        raise TypeError("`serve.run` expects an `Application` returned by `Deployment.bind()`.")
    check_route_prefix(route_prefix)


def start(
    proxy_location: Union[None, str, ProxyLocation] = None,
    http_options: Union[None, Dict[str, Any], HTTPOptions] = None,
    grpc_options: Union[None, Dict[str, Any], gRPCOptions] = None,
    logging_config: Union[None, Dict[str, Any], LoggingConfig] = None,
    tracing_config: Union[None, Dict[str, Any], TracingConfig] = None,
    controller_options: Union[None, Dict[str, Any], ControllerOptions] = None,
    **kwargs: Any,
) -> None:
    """Makes sure that Serve runs, and serves HTTP with these options if nothing does yet.

    A program outside connects to a node or starts one (see `ray.init`). Options of a Serve that
    runs already are not changed. Raises ValueError for options that make no sense, RuntimeError
    when the port cannot be listened on.
    """
    for key in ("http_host", "http_port", "http_middlewares"):
        if key in kwargs:
            raise ValueError(f"`{key}` is deprecated, please use `http_options` instead.")
    from rserve._schema import LoggingConfig, TracingConfig

    for value, model in (
        (http_options, HTTPOptions),
        (grpc_options, gRPCOptions),
        (logging_config, LoggingConfig),
        (tracing_config, TracingConfig),
    ):
        if value is not None:
            model.model_validate(value)
    _deploy.start_http(http_options, grpc_options, _location(proxy_location, http_options))


def _location(proxy_location: Any, http_options: Any) -> Optional[str]:
    """`proxy_location` wins over `http_options.location`; by itself it is EveryNode."""
    if proxy_location is not None:
        return str(ProxyLocation(proxy_location).value)
    if isinstance(http_options, dict):
        location = http_options.get("location")
    else:
        location = getattr(http_options, "location", None)
    name = str(getattr(location, "value", location) or "EveryNode")
    return {"NoServer": "Disabled"}.get(name, name)


def run(
    target: Application,
    blocking: bool = False,
    name: str = "default",
    route_prefix: Optional[str] = "/",
    logging_config: Union[Dict[str, Any], LoggingConfig, None] = None,
    _local_testing_mode: bool = False,
    external_scaler_enabled: bool = False,
    controller_options: Union[None, Dict[str, Any], ControllerOptions] = None,
) -> DeploymentHandle[Any]:
    """Deploys an application, waits until it runs, and returns the handle of its ingress.

    An application of the same name is replaced; others stay. With `blocking` it does not return:
    Ctrl-C ends it. Raises RuntimeError when the application fails to deploy.
    """
    handle = _run(
        target,
        name=name,
        route_prefix=route_prefix,
        logging_config=logging_config,
        _local_testing_mode=_local_testing_mode,
        external_scaler_enabled=external_scaler_enabled,
    )
    if blocking:
        _block()
    return handle


def _run(
    target: Application,
    *,
    _blocking: bool = True,
    name: str = "default",
    route_prefix: Optional[str] = "/",
    logging_config: Union[Dict[str, Any], LoggingConfig, None] = None,
    _local_testing_mode: bool = False,
    external_scaler_enabled: bool = False,
    controller_options: Union[None, Dict[str, Any], ControllerOptions] = None,
) -> DeploymentHandle[Any]:
    """`run` without `blocking`; with `_blocking` false it does not wait either."""
    one = RunTarget(target, name, route_prefix, logging_config, external_scaler_enabled)
    return _run_many(
        [one],
        wait_for_applications_running=_blocking,
        _local_testing_mode=_local_testing_mode,
    )[0]


def run_many(
    targets: Sequence[RunTarget],
    blocking: bool = False,
    wait_for_ingress_deployment_creation: bool = True,
    wait_for_applications_running: bool = True,
    _local_testing_mode: bool = False,
    controller_options: Union[None, Dict[str, Any], ControllerOptions] = None,
) -> List[DeploymentHandle[Any]]:
    """Deploys several applications; the handles of their ingresses in the same order."""
    handles = _run_many(
        targets,
        wait_for_ingress_deployment_creation=wait_for_ingress_deployment_creation,
        wait_for_applications_running=wait_for_applications_running,
        _local_testing_mode=_local_testing_mode,
    )
    if blocking:
        _block()
    return handles


def _run_many(
    targets: Sequence[RunTarget],
    wait_for_ingress_deployment_creation: bool = True,
    wait_for_applications_running: bool = True,
    _local_testing_mode: bool = False,
    controller_options: Union[None, Dict[str, Any], ControllerOptions] = None,
) -> List[DeploymentHandle[Any]]:
    """`run_many` without `blocking`."""
    if not targets:
        raise ValueError("No applications provided.")
    for t in targets:
        _check_target(t.target, t.name, t.route_prefix)
    if _local_testing_mode or os.environ.get("RAY_SERVE_FORCE_LOCAL_TESTING_MODE") == "1":
        from rserve import _local_testing

        return [_local_testing.run(t) for t in targets]
    _deploy.start_http()
    for t in targets:
        _deploy.deploy(t)
    if wait_for_applications_running:
        _deploy.wait_running([t.name for t in targets])
    return [DeploymentHandle(t.target._bound_deployment.name, t.name) for t in targets]


def _local() -> Any:
    """The module of local testing mode, if this program has used it."""
    return sys.modules.get("rserve._local_testing")


def _block() -> None:
    """Until Ctrl-C, which is passed on."""
    while True:
        time.sleep(3600)


def delete(name: str, _blocking: bool = True) -> None:
    """Deletes an application; one that does not exist is deleted already.

    Waits until it is gone; TimeoutError after 60 s.
    """
    local = _local()
    if local is None or not local.delete(name):
        _deploy.delete(name, _blocking)


def shutdown() -> None:
    """Deletes all applications, and ends the node that was started for this program."""
    local = _local()
    was_local = local is not None and local.shutdown()
    if _node.current() is None:
        if was_local:
            return
        logger.info("Nothing to shut down. There's no Serve application running.")
        return
    if not _deploy.shutdown():
        logger.warning("Shutdown timed out: applications were not gone after 30 seconds.")
    _session.end_implicit()


async def shutdown_async() -> None:
    """`shutdown`, without holding up the event loop."""
    await asyncio.get_running_loop().run_in_executor(None, shutdown)


def status() -> ServeStatus:
    """What runs, and how it is."""
    local = _local()
    running = local.status() if local is not None and _node.current() is None else {}
    if running:
        return status_of(_local_status(running))
    return status_of(_deploy.status())


def _local_status(running: Dict[str, List[str]]) -> Dict[str, Any]:
    """The applications of local testing mode, in the words of the head."""
    healthy = {
        "status": "HEALTHY",
        "status_trigger": "CONFIG_UPDATE_COMPLETED",
        "replica_states": {"RUNNING": 1},
        "message": "",
    }
    applications = {
        app: {
            "status": "RUNNING",
            "message": "",
            "last_deployed_time_s": 0.0,
            "deployments": {name: healthy for name in names},
        }
        for app, names in running.items()
    }
    return {"proxies": {}, "applications": applications, "target_capacity": None}


def status_of(told: Dict[str, Any]) -> ServeStatus:
    """What the head told, with the types of ray.serve.schema."""
    from ray.serve.schema import (
        ApplicationStatus,
        ApplicationStatusOverview,
        DeploymentStatus,
        DeploymentStatusOverview,
        DeploymentStatusTrigger,
        ProxyStatus,
        ServeStatus,
    )

    applications = {}
    for name, app in told["applications"].items():
        applications[name] = ApplicationStatusOverview(
            status=ApplicationStatus(app["status"]),
            message=app["message"],
            last_deployed_time_s=app["last_deployed_time_s"],
            deployments={
                n: DeploymentStatusOverview(
                    status=DeploymentStatus(d["status"]),
                    status_trigger=DeploymentStatusTrigger(d["status_trigger"]),
                    replica_states=dict(d["replica_states"]),
                    message=d["message"],
                )
                for n, d in app["deployments"].items()
            },
        )
    return ServeStatus(
        proxies={n: ProxyStatus(s) for n, s in told["proxies"].items()},
        applications=applications,
        target_capacity=told["target_capacity"],
    )


def get_deployment_actor(actor_name: str) -> Any:
    """The handle of an actor of this deployment (`deployment_actors`). Inside of a replica only.

    Raises ValueError when the deployment has none of that name.
    """
    from rserve import _deployment_actors

    return _deployment_actors.get(actor_name)


def get_deployment_actor_context() -> DeploymentActorContext:
    """Inside of a deployment's actor: whose it is."""
    from rserve import _deployment_actors

    here = _deployment_actors.context()
    if here is None:
        raise RayServeException(
            "`serve.get_deployment_actor_context()` may only be called from within an actor of "
            "`deployment_actors`."
        )
    return DeploymentActorContext(
        DeploymentID(here["deployment"], here["app"]), here["actor"], here.get("version")
    )
