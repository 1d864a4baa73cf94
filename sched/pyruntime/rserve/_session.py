"""`ray.init`, `ray.shutdown`, `ray.is_initialized`: the session of this process with a node."""

from __future__ import annotations

import logging
import os
from typing import Any, Dict, Iterator, Optional, Union

from rserve import _deploy, _driver, _node

logger = logging.getLogger("ray")

_initialized = False
_namespace = ""


class Context(Dict[str, Any]):
    """What `ray.init` returns: a dictionary of addresses, and a context manager that ends with
    `ray.shutdown`."""

    dashboard_url: str = ""
    python_version: str = ""
    ray_version: str = ""

    @property
    def address_info(self) -> Dict[str, Any]:
        return dict(self)

    def __enter__(self) -> "Context":
        return self

    def __exit__(self, *_: Any) -> None:
        shutdown()

    def disconnect(self) -> None:
        shutdown()

    def __iter__(self) -> Iterator[str]:
        return super().__iter__()


def is_initialized() -> bool:
    """Whether this process is connected to a node."""
    return _node.current() is not None


def namespace() -> str:
    """The namespace of this program's actors."""
    return _namespace


def init(
    address: Optional[str] = None,
    *,
    num_cpus: Optional[float] = None,
    num_gpus: Optional[float] = None,
    resources: Optional[Dict[str, float]] = None,
    labels: Optional[Dict[str, str]] = None,
    object_store_memory: Optional[int] = None,
    local_mode: bool = False,
    ignore_reinit_error: bool = False,
    include_dashboard: Optional[bool] = None,
    dashboard_host: str = "127.0.0.1",
    dashboard_port: Optional[int] = None,
    job_config: Any = None,
    configure_logging: bool = True,
    logging_level: Union[int, str] = "info",
    logging_format: Optional[str] = None,
    logging_config: Any = None,
    log_to_driver: Optional[bool] = None,
    namespace: Optional[str] = None,
    runtime_env: Any = None,
    enable_resource_isolation: bool = False,
    cgroup_path: Optional[str] = None,
    system_reserved_cpu: Optional[float] = None,
    system_reserved_memory: Optional[int] = None,
    proxy_server_url: Optional[str] = None,
    **kwargs: Any,
) -> Context:
    """Connects this program to a node, or starts one that ends with it.

    `address`: "auto" or the address of the REST API of an rserve on this machine; "local" starts
    one whatever runs. Without it RSERVE_ADDRESS, RAY_ADDRESS and RAY_DASHBOARD_ADDRESS count, then
    an instance of this user that runs on this machine. `num_cpus`, `num_gpus` and `resources` are
    for a node that is started. Inside of a replica nothing happens.

    Raises RuntimeError when called twice without `ignore_reinit_error`, ConnectionError when there
    is no node at `address`, and ValueError for sizes given with the address of a node that runs.
    """
    global _initialized, _namespace
    inside = _node.current() is not None and _driver.link() is None
    if inside:
        return _context()
    if _driver.link() is not None and _initialized:
        if not ignore_reinit_error:
            raise RuntimeError(
                "Maybe you called ray.init twice by accident? This error can be suppressed by "
                "passing in 'ignore_reinit_error=True' or by calling 'ray.shutdown()' prior to "
                "'ray.init()'."
            )
        logger.info("Calling ray.init() again after it has already been called.")
        return _context()
    if address not in (None, "local"):
        sized = {"num_cpus": num_cpus, "num_gpus": num_gpus, "resources": resources}
        for name, value in sized.items():
            if value is not None:
                raise ValueError(
                    "When connecting to an existing cluster, num_cpus and num_gpus must not be "
                    f"provided: {name} was."
                )
    try:
        _driver.open_link(
            address,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            resources=resources,
            memory=kwargs.get("_memory"),
            dashboard_host=dashboard_host,
            dashboard_port=dashboard_port,
        )
    except _driver.NoNode as e:
        raise ConnectionError(f"ray.init: {e}") from None
    _initialized = True
    _namespace = namespace or os.urandom(16).hex()
    _deploy.set_job_runtime_env(dict(runtime_env) if runtime_env else None)
    return _context()


def end_implicit() -> None:
    """Ends the node that `serve.run` or `serve.start` started without a `ray.init`."""
    link = _driver.link()
    if link is not None and link.owned and not _initialized:
        _driver.close_link()


def _context() -> Context:
    import platform

    link = _driver.link()
    told = link.init if link is not None else {}
    context = Context(node_id=str(told.get("node_id") or ""), address=str(told.get("rest") or ""))
    context["node_ip_address"] = "127.0.0.1"
    context["gcs_address"] = context["address"]
    context["webui_url"] = context["address"]
    context["session_dir"] = os.path.dirname(str(told.get("values_dir") or ""))
    context.dashboard_url = context["address"]
    context.python_version = platform.python_version()
    context.ray_version = "2.60.0"
    return context


def shutdown(*, wait_for_processes: bool = False, _exiting_interpreter: bool = False) -> None:
    """Disconnects; a node that was started for this program ends with all that runs on it.

    Nothing happens without a connection, or inside of a replica.
    """
    global _initialized
    _initialized = False
    if _driver.link() is not None or _node.current() is None:
        _driver.close_link()
        _deploy.set_job_runtime_env(None)
