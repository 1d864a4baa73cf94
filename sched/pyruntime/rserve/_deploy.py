"""What `serve.start`, `run`, `delete`, `shutdown` and `status` ask of the head.

Works in a program outside and inside of a replica: both have a connection to a node, and the node
passes on what is asked (ASK in net/wire/PROTOCOL.md).
"""

from __future__ import annotations

import os
import sys
from typing import Any, Dict, List, Optional, Sequence

from rserve import _driver, _node, byvalue

#: How long `delete` and `shutdown` wait, in seconds; from Ray Serve.
DELETE_TIMEOUT_S = 60.0
SHUTDOWN_TIMEOUT_S = 30.0


def _plain(value: Any) -> Any:
    """A model or dict as JSON values, without what was not set."""
    if hasattr(value, "model_dump"):
        value = value.model_dump()
    elif hasattr(value, "dict"):
        value = value.dict()
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return getattr(value, "value", value)


# --- start --------------------------------------------------------------------------------------


def start_http(
    http_options: Any = None, grpc_options: Any = None, proxy_location: Optional[str] = None
) -> Optional[Dict[str, Any]]:
    """Serves HTTP if the node does not yet; where it does: {"host", "port"}, or None."""
    config: Dict[str, Any] = {"applications": [], "http_options": _http(http_options)}
    if proxy_location is not None:
        config["proxy_location"] = proxy_location
    if grpc_options is not None:
        config["grpc_options"] = _plain(grpc_options)
    link = _node.require("serve.start")
    answer: Optional[Dict[str, Any]] = link.ask({"op": "start", "config": config}).get("http")
    return answer


def _http(options: Any) -> Dict[str, Any]:
    given = _plain(options) if options is not None else {}
    for key in ("location", "num_cpus", "middlewares", "root_url"):
        given.pop(key, None)  # of the Python class only, not of the file
    for key in ("ssl_keyfile", "ssl_certfile", "ssl_ca_certs"):
        if given.get(key):
            given[key] = os.path.abspath(given[key])  # the node's folder may be another one
    given.setdefault("host", os.environ.get("RAY_SERVE_DEFAULT_HTTP_HOST") or "127.0.0.1")
    keep_alive = os.environ.get("RAY_SERVE_HTTP_KEEP_ALIVE_TIMEOUT_S") or "0"
    if keep_alive.isdigit() and int(keep_alive):
        given["keep_alive_timeout_s"] = int(keep_alive)  # wins over the option, as in Ray
    return dict(given)


# --- run ----------------------------------------------------------------------------------------


def deploy(target: Any) -> None:
    """Hands one application (a RunTarget) to the head; does not wait for it."""
    link = _node.require("serve.run")
    folder = values_folder(link)
    app: Dict[str, Any] = {
        "name": target.name,
        "route_prefix": target.route_prefix,
        "import_path": f"rserve.byvalue:{byvalue.store(target.target, folder)}",
        "rserve": {"python": sys.executable, "app_dir": _app_dir()},
    }
    if target.logging_config is not None:
        app["logging_config"] = _plain(target.logging_config)
    if target.external_scaler_enabled:
        app["external_scaler_enabled"] = True
    runtime_env = job_runtime_env()
    if runtime_env:
        app["runtime_env"] = runtime_env
    link.ask({"op": "deploy", "config": {"applications": [app]}})


def values_folder(link: _node.NodeLink) -> str:
    init = getattr(link, "init", None) or {}
    return str(init.get("values_dir") or os.environ["RSERVE_VALUES"])


def _app_dir() -> str:
    """The folder of the program, as Python put it on sys.path, or the working directory."""
    first = os.path.abspath(sys.path[0]) if sys.path else os.getcwd()
    return first if os.path.isdir(first) else os.getcwd()


#: The runtime_env that ray.init was given; replicas inherit it.
_job_runtime_env: Dict[str, Any] = {}


def job_runtime_env() -> Dict[str, Any]:
    return _job_runtime_env


def set_job_runtime_env(env: Optional[Dict[str, Any]]) -> None:
    global _job_runtime_env
    _job_runtime_env = {}
    if env:
        from ray.runtime_env import normalised

        from rserve._env_spec import EnvError, absolute_paths

        try:
            _job_runtime_env = absolute_paths(normalised(env), os.getcwd())
        except EnvError as e:
            raise ValueError(e.message) from None


def application(name: str) -> Optional[Dict[str, Any]]:
    """The status of one application as the head tells it, or None."""
    found: Optional[Dict[str, Any]] = (
        _node.require("serve.status").ask({"op": "status", "app": name})["applications"].get(name)
    )
    return found


def wait_running(names: Sequence[str]) -> None:
    """Returns when all are RUNNING. RuntimeError when one failed to deploy."""
    waiting: List[str] = list(names)

    def settled() -> bool:
        while waiting:
            app = application(waiting[0])
            state = app["status"] if app is not None else "NOT_STARTED"
            if state == "DEPLOY_FAILED":
                message = app["message"] if app is not None else ""
                raise RuntimeError(f"Deploying application {waiting[0]} failed: {message}")
            if state != "RUNNING":
                return False
            waiting.pop(0)
        return True

    _driver.wait_until(settled, None)


# --- delete, shutdown ---------------------------------------------------------------------------


def delete(name: str, blocking: bool) -> None:
    link = _node.require("serve.delete")
    if not link.ask({"op": "delete", "app": name}).get("existed") or not blocking:
        return
    if not _driver.wait_until(lambda: application(name) is None, DELETE_TIMEOUT_S):
        raise TimeoutError(
            f"Application {name} wasn't deleted after {DELETE_TIMEOUT_S:.0f}s. "
            f"Its status is {(application(name) or {}).get('status')}."
        )


def shutdown() -> bool:
    """Deletes all applications; false if they were not gone in time."""
    link = _node.require("serve.shutdown")
    link.ask({"op": "delete_all"})
    return _driver.wait_until(
        lambda: not link.ask({"op": "status"})["applications"], SHUTDOWN_TIMEOUT_S
    )


# --- status -------------------------------------------------------------------------------------


def status() -> Dict[str, Any]:
    answer: Dict[str, Any] = _node.require("serve.status").ask({"op": "status"})
    return answer
