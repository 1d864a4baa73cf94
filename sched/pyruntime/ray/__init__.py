"""The part of `ray` that Serve applications use, provided by rserve. Ray itself is not involved."""

from __future__ import annotations

from typing import Any, NoReturn

import rserve  # noqa: F401  (puts the fall-back packages on sys.path)

from ray import exceptions  # noqa: F401

__version__ = "2.60.0"

#: Core names that exist in Ray and are not built here yet.
_NOT_BUILT = (
    "available_resources cancel cluster_resources get get_actor get_gpu_ids get_runtime_context "
    "kill method nodes put remote timeline wait"
).split()


def _not_available(name: str) -> Any:
    def function(*args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(
            f"ray.{name} is not available in this version of rserve: only ray.serve is."
        )

    function.__name__ = function.__qualname__ = name
    return function


def __getattr__(name: str) -> Any:
    if name in ("init", "shutdown", "is_initialized"):
        from rserve import _session

        return getattr(_session, name)
    if name in _NOT_BUILT:
        return _not_available(name)
    if name in ("serve", "cloudpickle"):
        import importlib

        return importlib.import_module(f"ray.{name}")
    raise AttributeError(f"module 'ray' has no attribute '{name}' (this is rserve's ray)")
