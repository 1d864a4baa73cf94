"""Tasks: functions that run in worker processes of the cluster."""

from __future__ import annotations

import functools
import hashlib
import inspect
import threading
from typing import Any, Callable, Dict, Generic, List, Optional, Tuple, TypeVar

from rserve import _arguments, _core, _items, _node, _remote

from ray import _options

R = TypeVar("R")

DEFAULT_MAX_RETRIES = 3


class RemoteFunction(Generic[R]):
    """What `@ray.remote` makes of a function: call it with `.remote(...)`."""

    def __init__(self, function: Callable[..., R], options: Dict[str, Any]) -> None:
        if inspect.iscoroutinefunction(function):
            raise ValueError(
                "'async def' should not be used for remote tasks. You can wrap the async function "
                "with `asyncio.run(f())`. See more at:"
                "https://docs.ray.io/en/latest/ray-core/actors/async_api.html "
            )
        _options.check(options, _options.TASK)
        self._function = function
        self._default_options = dict(options)
        self._function_name = (
            f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
        )
        self._pickled: Optional[Tuple[bytes, bytes]] = None
        self._lock = threading.Lock()
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            "Remote functions cannot be called directly. Instead of running "
            f"'{self._function_name}()', try '{self._function_name}.remote()'."
        )

    def __getstate__(self) -> Dict[str, Any]:
        state = dict(self.__dict__)
        del state["_lock"]
        state["_pickled"] = None
        return state

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Runs it: a reference to its result, or a list of them with `num_returns`."""
        return self._remote(args, kwargs, self._default_options)

    def options(self, **task_options: Any) -> "_Optioned":
        """The same function with other options: `f.options(num_cpus=2).remote(...)`."""
        _options.check(task_options, _options.TASK)
        return _Optioned(self, merged(self._default_options, task_options))

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("Ray DAGs of tasks are not available in rserve.")

    def _code(self) -> Tuple[bytes, bytes]:
        """Hash and pickle of the function, as it was when it was first called."""
        with self._lock:
            if self._pickled is None:
                data = _arguments.cloudpickled(self._function)
                self._pickled = (hashlib.sha256(data).digest(), data)
            return self._pickled

    def _remote(
        self, args: Tuple[Any, ...], kwargs: Dict[str, Any], options: Dict[str, Any]
    ) -> Any:
        link = _node.require("ray.remote")
        _check_signature(self._function, args, kwargs)
        num_returns = options.get("num_returns")
        if num_returns is None:
            num_returns = -1 if inspect.isgeneratorfunction(self._function) else 1
        elif num_returns in ("streaming", "dynamic"):
            num_returns = -1
        strategy, _ = _options.strategy_of(options)
        pool = _remote.pool_for(
            link,
            {
                "options": _options.resources_of(options, 1),
                "strategy": strategy or {},
                "env": _options.environment(),
                "namespace": _core.namespace(),
            },
        )
        retries = options.get("max_retries")
        key, data = self._code()
        call = _remote.TaskCall(
            pool,
            options.get("name") or self._function.__name__,
            (num_returns if num_returns >= 0 else 1, key, data),
            args,
            kwargs,
            num_returns,
            DEFAULT_MAX_RETRIES if retries is None else int(retries),
            options.get("retry_exceptions"),
        )
        return started(call, num_returns)


class _Optioned:
    """A function with options of its own."""

    def __init__(self, function: "RemoteFunction[Any]", options: Dict[str, Any]) -> None:
        self._remote_function = function
        self._options = options

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        return self._remote_function._remote(args, kwargs, self._options)

    def options(self, **task_options: Any) -> "_Optioned":
        _options.check(task_options, _options.TASK)
        return _Optioned(self._remote_function, merged(self._options, task_options))


def merged(first: Dict[str, Any], second: Dict[str, Any]) -> Dict[str, Any]:
    out = dict(first)
    out.update(second)
    return out


def started(call: "_remote.RemoteCall", num_returns: int) -> Any:
    """Begins a call: what its caller gets for it."""
    if num_returns < 0:
        generator = _items.ObjectRefGenerator(call)
        call.start()  # type: ignore[attr-defined]
        return generator
    refs: List[Any] = call.take_refs()
    call.start()  # type: ignore[attr-defined]
    if num_returns == 1:
        return refs[0]
    return refs if refs else None


def _check_signature(
    function: Callable[..., Any], args: Tuple[Any, ...], kwargs: Dict[str, Any]
) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    signature.bind(*args, **kwargs)
