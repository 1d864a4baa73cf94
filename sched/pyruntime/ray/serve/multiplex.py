"""`@serve.multiplexed`: a bounded set of models in one replica, the least recently used one
leaves.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections import OrderedDict
from typing import Any, Callable, Optional

from ray.serve._private.constants import (  # noqa: F401  (as in Ray)
    MODEL_LOAD_LATENCY_BUCKETS_MS,
    PUSH_MULTIPLEXED_MODEL_IDS_INTERVAL_S,
    SERVE_LOGGER_NAME,
)
from ray.serve.context import _get_internal_replica_context

logger = logging.getLogger("ray.serve")

_ATTRIBUTE = "__serve_multiplexed_models"


class _Models:
    """The models of one object (or of one function), in the order of their last use."""

    def __init__(self, load: Callable[[str], Any], limit: int) -> None:
        self._load = load
        self._limit = limit
        self.models: "OrderedDict[str, Any]" = OrderedDict()
        self._lock = asyncio.Lock()

    async def get(self, model_id: Any) -> Any:
        if type(model_id) is not str:
            raise TypeError("The model ID must be a string.")
        if not model_id:
            raise ValueError("The model ID cannot be empty.")
        if model_id in self.models:
            self.models.move_to_end(model_id)
            return self.models[model_id]
        async with self._lock:
            if model_id in self.models:  # loaded while this call waited
                self.models.move_to_end(model_id)
                return self.models[model_id]
            while 0 < self._limit <= len(self.models):
                await self._unload()
            logger.info("Loading model '%s'.", model_id)
            model = await self._load(model_id)
            self.models[model_id] = model
            return model

    async def _unload(self) -> None:
        model_id, model = self.models.popitem(last=False)
        logger.info("Unloading model '%s'.", model_id)
        await destroy(model)

    async def unload_all(self) -> None:
        while self.models:
            try:
                await self._unload()
            except Exception:
                logger.exception("A model could not be unloaded.")


async def destroy(model: Any) -> None:
    """Runs a model's destructor now, and only now."""
    destructor = getattr(type(model), "__del__", None)
    if destructor is None:
        return
    if inspect.iscoroutinefunction(destructor):
        await destructor(model)
    else:
        await asyncio.get_running_loop().run_in_executor(None, destructor, model)
    _neuter(model)


def _neuter(model: Any) -> None:
    """The garbage collector would run `__del__` again: the object gets a class without it."""
    cls = type(model)
    try:
        model.__class__ = type(
            cls.__name__, (cls,), {"__del__": lambda self: None, "__slots__": ()}
        )
    except TypeError:
        pass  # a class of C: its destructor may run again


def multiplexed(
    func: Optional[Callable[..., Any]] = None, max_num_models_per_replica: int = 3
) -> Callable[..., Any]:
    """Decorates the function that loads a model by its id."""
    limit = max_num_models_per_replica
    if func is not None:
        _check_function(func)
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise TypeError("max_num_models_per_replica must be an integer.")
    if limit != -1 and limit <= 0:
        raise ValueError("max_num_models_per_replica must be positive.")

    def decorate(load: Callable[..., Any]) -> Callable[..., Any]:
        parameters = _check_function(load)
        holder: Any = None

        @functools.wraps(load)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal holder
            if _get_internal_replica_context() is None:
                raise RuntimeError(
                    "@serve.multiplexed can only be used within a Ray Serve deployment."
                )
            bound = inspect.signature(load).bind(*args, **kwargs).args
            if parameters == 2:
                instance = bound[0]
                models = instance.__dict__.get(_ATTRIBUTE)
                if models is None:
                    models = _Models(functools.partial(load, instance), limit)
                    instance.__dict__[_ATTRIBUTE] = models
            else:
                models = holder = holder or _Models(load, limit)
                wrapper.models = models  # type: ignore[attr-defined]
            return await models.get(bound[-1])

        return wrapper

    return decorate(func) if func is not None else decorate


def _check_function(func: Any) -> int:
    if not callable(func):
        raise TypeError("The `multiplexed` decorator must be used with a function or method.")
    if not inspect.iscoroutinefunction(func):
        raise TypeError(
            "@serve.multiplexed can only be used to decorate async functions or methods."
        )
    count = len(inspect.signature(func).parameters)
    if count not in (1, 2):
        raise TypeError(
            "@serve.multiplexed can only be used to decorate functions or methods with one "
            f"'model_id: str' argument, and at most a 'self' before it; got {count} parameters."
        )
    return count


async def unload_models(servable: Any) -> None:
    """Unloads what a replica that stops has loaded."""
    models = getattr(servable, "__dict__", {}).get(_ATTRIBUTE)
    if models is None:
        models = getattr(servable, "models", None)
    if isinstance(models, _Models):
        await models.unload_all()
