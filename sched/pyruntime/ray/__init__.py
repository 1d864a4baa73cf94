"""The part of `ray` that Serve applications use, provided by rserve. Ray itself is not involved."""

from __future__ import annotations

import importlib
from typing import Any

import rserve  # noqa: F401  (puts the fall-back packages on sys.path)

from ray import exceptions  # noqa: F401

__version__ = "2.60.0"

#: Names of the core, and the module of each: looked up on first use, since most applications of
#: Serve need none of them.
_NAMES = {
    "ActorHandle": "ray.actor",
    "ActorID": "ray.actor",
    "ObjectRef": "rserve._objects",
    "ObjectRefGenerator": "rserve._items",
    "available_resources": "ray._cluster",
    "cancel": "ray._calls",
    "cluster_resources": "ray._cluster",
    "get": "rserve._refs",
    "get_actor": "ray.actor",
    "get_gpu_ids": "ray.runtime_context",
    "get_runtime_context": "ray.runtime_context",
    "init": "rserve._session",
    "is_initialized": "rserve._session",
    "kill": "ray._calls",
    "method": "ray.actor",
    "nodes": "ray._cluster",
    "put": "ray._calls",
    "remote": "ray._calls",
    "shutdown": "rserve._session",
    "timeline": "ray._cluster",
    "wait": "rserve._refs",
}
_MODULES = (
    "actor",
    "cloudpickle",
    "remote_function",
    "runtime_context",
    "runtime_env",
    "serve",
    "util",
)


def __getattr__(name: str) -> Any:
    module = _NAMES.get(name)
    if module is not None:
        value = getattr(importlib.import_module(module), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"ray.{name}")
    raise AttributeError(f"module 'ray' has no attribute '{name}' (this is rserve's ray)")
