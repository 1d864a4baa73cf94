"""Deployments that work on the tasks of a message queue.

    @serve.deployment
    @task_consumer(task_processor_config=TaskProcessorConfig(...))
    class Consumer:
        @task_handler
        def resize(self, path): ...

A replica begins to take tasks when its constructor is done, `max_ongoing_requests` at a time, and
stops when it shuts down.
"""

from __future__ import annotations

import functools
import inspect
import logging
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional

from ray.serve._private.constants import DEFAULT_CONSUMER_CONCURRENCY, SERVE_LOGGER_NAME

if TYPE_CHECKING:
    from ray.serve.schema import TaskProcessorAdapter, TaskProcessorConfig

__all__ = ["instantiate_adapter_from_config", "task_consumer", "task_handler"]

logger = logging.getLogger(SERVE_LOGGER_NAME)

_MARK = "_serve_task_name"


def instantiate_adapter_from_config(
    task_processor_config: "TaskProcessorConfig",
) -> "TaskProcessorAdapter":
    """The adapter that a configuration names, not yet initialized.

    Raises RuntimeError when it cannot be made, TypeError when it is no TaskProcessorAdapter.
    """
    from rserve._config import import_attr

    from ray.serve.schema import TaskProcessorAdapter

    named: Any = task_processor_config.adapter
    try:
        adapter_class = import_attr(named) if isinstance(named, str) else named
    except (ImportError, AttributeError, ValueError) as e:
        raise RuntimeError(f"Failed to import the adapter {named!r}: {e}") from e
    if not callable(adapter_class):
        raise TypeError(f"adapter must be an import path or a class, got {adapter_class!r}.")
    name = getattr(adapter_class, "__name__", repr(adapter_class))
    if isinstance(adapter_class, type) and not issubclass(adapter_class, TaskProcessorAdapter):
        raise TypeError(f"{name} must inherit from TaskProcessorAdapter.")
    try:
        adapter = adapter_class(task_processor_config)
    except Exception as e:
        raise RuntimeError(f"Failed to instantiate {name}: {e}") from e
    if not isinstance(adapter, TaskProcessorAdapter):
        raise TypeError(f"{name} must inherit from TaskProcessorAdapter, got {type(adapter)}.")
    return adapter


def _concurrency() -> int:
    """How many requests this replica works on at a time."""
    from ray.serve.context import _get_internal_replica_context

    context = _get_internal_replica_context()
    config: Any = None if context is None else context._deployment_config
    if isinstance(config, dict):
        value = config.get("max_ongoing_requests")
    else:
        value = getattr(config, "max_ongoing_requests", None)
    return int(value or DEFAULT_CONSUMER_CONCURRENCY)


def task_consumer(*, task_processor_config: "TaskProcessorConfig") -> Callable[[type], type]:
    """Class decorator, under `@serve.deployment`: its `@task_handler` methods work on tasks.

    Raises TypeError when it is used on something that is not a class.
    """

    def decorator(target: type) -> type:
        if not inspect.isclass(target):
            raise TypeError(f"@task_consumer must be used with a class, got {target!r}.")
        handlers = _handlers(target)

        class TaskConsumer(target):  # type: ignore[misc]
            _adapter: Optional[TaskProcessorAdapter] = None

            def __init__(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]
                pending = super().__init__(*args, **kwargs)
                if inspect.isawaitable(pending):  # an async constructor, which replicas await
                    return self._start_after(pending)
                self._start_consumer()
                return None

            async def _start_after(self, pending: Any) -> None:
                await pending
                self._start_consumer()

            def _start_consumer(self) -> None:
                adapter = instantiate_adapter_from_config(task_processor_config)
                adapter.initialize(_concurrency())
                for method, name in handlers.items():
                    adapter.register_task_handle(getattr(self, method), name)
                adapter.start_consumer()
                self._adapter = adapter
                logger.info("Working on the tasks of '%s'.", task_processor_config.queue_name)

            def __del__(self) -> None:
                adapter, self._adapter = self._adapter, None
                if adapter is not None:
                    adapter.stop_consumer()
                parent = getattr(super(), "__del__", None)
                if parent is not None:
                    parent()

        functools.update_wrapper(TaskConsumer, target, updated=())
        return TaskConsumer

    return decorator


def _handlers(target: type) -> Dict[str, str]:
    """Names of the methods that `@task_handler` marked, and of their tasks."""
    out: Dict[str, str] = {}
    for cls in reversed(target.__mro__):
        for method, function in vars(cls).items():
            name = getattr(function, _MARK, None)
            if name is not None:
                out[method] = name
    return out


def task_handler(
    _func: Optional[Callable[..., Any]] = None, *, name: Optional[str] = None
) -> Callable[..., Any]:
    """Marks a method of a task consumer; its tasks are called `name`, else as the method.

    Raises ValueError for a name that is not a string with something in it, NotImplementedError for
    a coroutine function.
    """
    if name is not None and (not isinstance(name, str) or not name.strip()):
        raise ValueError(f"Task name must be a non-empty string, got {name!r}.")

    def decorator(function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(function):
            raise NotImplementedError(
                "Async task handlers are not supported yet: make "
                f"`{function.__name__}` a plain function."
            )
        setattr(function, _MARK, name or function.__name__)
        return function

    return decorator if _func is None else decorator(_func)
