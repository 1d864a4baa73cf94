"""`@serve.multiplexed`: a bounded set of models in one replica, the least recently used one
leaves.

The node is told which models are loaded or being loaded: requests come where their model is.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import time
from collections import OrderedDict
from typing import Any, Callable, Dict, List, Optional

from rserve import _node
from rserve import _wire as w

from ray.serve._private.constants import (  # noqa: F401  (as in Ray)
    MODEL_LOAD_LATENCY_BUCKETS_MS,
    PUSH_MULTIPLEXED_MODEL_IDS_INTERVAL_S,
    SERVE_LOGGER_NAME,
)
from ray.serve.context import _get_internal_replica_context

logger = logging.getLogger("ray.serve")

_ATTRIBUTE = "__serve_multiplexed_models"
_MARK = "__serve_multiplexed__"

_all: "List[_Models]" = []
_telling = False
_figures: Dict[str, Any] = {}


class _Models:
    """The models of one object (or of one function), in the order of their last use."""

    def __init__(self, load: Callable[[str], Any], limit: int) -> None:
        self._load = load
        self._limit = limit
        self.models: "OrderedDict[str, Any]" = OrderedDict()
        self.loading: Optional[str] = None
        self._lock = asyncio.Lock()
        _all.append(self)

    async def get(self, model_id: Any) -> Any:
        if type(model_id) is not str:
            raise TypeError("The model ID must be a string.")
        if not model_id:
            raise ValueError("The model ID cannot be empty.")
        _figure("get_model_requests_counter").inc()
        if model_id in self.models:
            self.models.move_to_end(model_id)
            return self.models[model_id]
        async with self._lock:
            if model_id in self.models:  # loaded while this call waited
                self.models.move_to_end(model_id)
                return self.models[model_id]
            self.loading = model_id
            try:
                while 0 < self._limit <= len(self.models):
                    await self._unload()
                _tell_soon()
                logger.info("Loading model '%s'.", model_id)
                start = time.perf_counter()
                model = await self._load(model_id)
                took = (time.perf_counter() - start) * 1000
                self.models[model_id] = model
            finally:
                self.loading = None
                _tell_soon()
            _figure("models_load_counter").inc()
            _figure("model_load_latency_ms").observe(took)
            self._show(model_id, 1)
            return model

    async def _unload(self) -> None:
        model_id, model = self.models.popitem(last=False)
        logger.info("Unloading model '%s'.", model_id)
        start = time.perf_counter()
        await destroy(model)
        _figure("models_unload_counter").inc()
        _figure("model_unload_latency_ms").observe((time.perf_counter() - start) * 1000)
        self._show(model_id, 0)

    def _show(self, model_id: str, there: int) -> None:
        _figure("registered").set(there, tags={"model_id": model_id})
        _figure("models").set(sum(len(m.models) for m in _all))

    async def unload_all(self) -> None:
        while self.models:
            try:
                await self._unload()
            except Exception:
                logger.exception("A model could not be unloaded.")


# --- what the node and its users are told ------------------------------------------------------


def _tell_soon() -> None:
    """Tells the node at the end of this turn of the loop."""
    global _telling
    if not _telling and _node.current() is not None:
        _telling = True
        asyncio.get_running_loop().call_soon(tell)


def tell() -> None:
    """Tells the node which models there are. On the loop's thread."""
    global _telling
    _telling = False
    link = _node.current()
    if link is not None and link.replica_id:
        ids = [i for m in _all for i in (*m.models, m.loading) if i is not None]
        link.send_json(w.STATS, {"multiplexed": ids})


def is_multiplexed(servable: Any) -> bool:
    """Whether a method of the object is decorated: then the node is told that nothing is loaded."""
    return any(hasattr(v, _MARK) for c in type(servable).__mro__ for v in vars(c).values())


def _figure(name: str) -> Any:
    """A metric under Ray's name, made when it is first needed."""
    figure = _figures.get(name)
    if figure is None:
        figure = _figures[name] = _make_figure(name)
    return figure


def _make_figure(name: str) -> Any:
    from ray.serve import metrics

    if name == "registered":
        return metrics.Gauge(
            "serve_registered_multiplexed_model_id",
            "1: the model is loaded in this replica, 0: it was.",
            tag_keys=("model_id",),
        )
    if name == "models":
        return metrics.Gauge("serve_num_multiplexed_models", "Models loaded in this replica.")
    full = f"serve_multiplexed_{name}"
    text = name.replace("_", " ")
    if name.endswith("_ms"):
        return metrics.Histogram(full, f"{text[:-3]}, in ms.", MODEL_LOAD_LATENCY_BUCKETS_MS)
    return metrics.Counter(full, f"{text[: -len(' counter')]}.")


# --- models ------------------------------------------------------------------------------------


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
            bound = args
            if kwargs or len(args) != parameters:
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

        setattr(wrapper, _MARK, True)
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
            "@serve.multiplexed can only be used to decorate functions or methods with at least "
            "one 'model_id: str' argument."
        )
    return count


async def unload_models(servable: Any) -> None:
    """Unloads what a replica that stops has loaded."""
    models = getattr(servable, "__dict__", {}).get(_ATTRIBUTE)
    if models is None:
        models = getattr(servable, "models", None)
    if isinstance(models, _Models):
        await models.unload_all()
