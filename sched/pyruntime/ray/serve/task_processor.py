"""The Celery adapter of task consumers. Celery is loaded when an adapter is initialized."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional

from ray.serve._private.constants import DEFAULT_CONSUMER_CONCURRENCY, SERVE_LOGGER_NAME
from ray.serve.schema import TaskProcessorAdapter

if TYPE_CHECKING:
    from ray.serve.schema import TaskProcessorConfig, TaskResult

__all__ = ["CeleryTaskProcessorAdapter"]

logger = logging.getLogger(SERVE_LOGGER_NAME)

#: Longest pause between two tries of a task, in seconds.
MAX_RETRY_PAUSE_S = 60


def _fixed_settings(concurrency: int) -> Dict[str, Any]:
    """What `app_custom_config` may not change: tasks are lost or doubled otherwise."""
    return {
        "worker_pool": "threads",
        "worker_concurrency": concurrency,
        "task_ignore_result": False,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
    }


class CeleryTaskProcessorAdapter(TaskProcessorAdapter):
    """Tasks through Celery: at least once, retried with growing pauses, then put aside."""

    def __init__(self, config: "TaskProcessorConfig") -> None:
        if type(config.adapter_config).__name__ != "CeleryAdapterConfig":
            raise TypeError(
                "TaskProcessorConfig.adapter_config must be a CeleryAdapterConfig, got "
                f"{type(config.adapter_config)}."
            )
        self._config = config
        self._app: Any = None
        self._worker: Optional[threading.Thread] = None
        self._hostname = ""

    def initialize(self, consumer_concurrency: int = DEFAULT_CONSUMER_CONCURRENCY) -> None:
        """Makes the Celery application. ImportError without celery, ValueError for settings that
        cannot be changed."""
        try:
            from celery import Celery
            from celery.signals import task_failure, task_unknown
        except ImportError as e:
            raise ImportError(
                "The Celery adapter needs celery, which is not installed here: `pip install "
                "celery`, or add it to the `pip` list of the application's runtime_env."
            ) from e
        config, adapter = self._config, self._config.adapter_config
        fixed = _fixed_settings(consumer_concurrency)
        custom = dict(adapter.app_custom_config or {})
        clash = sorted(set(custom) & set(fixed))
        if clash:
            raise ValueError(f"app_custom_config must not set {clash}: Serve sets them.")
        app = Celery(config.queue_name, backend=adapter.backend_url, broker=adapter.broker_url)
        app.conf.update(
            task_default_queue=config.queue_name,
            loglevel="info",
            worker_hijack_root_logger=False,
            worker_redirect_stdouts=False,
            **fixed,
            **custom,
        )
        if adapter.broker_transport_options is not None:
            app.conf.update(broker_transport_options=adapter.broker_transport_options)
        if config.failed_task_queue_name:
            task_failure.connect(self._on_failure, weak=False)
        if config.unprocessable_task_queue_name:
            task_unknown.connect(self._on_unknown, weak=False)
        self._app = app

    def register_task_handle(self, func: Callable[..., Any], name: Optional[str] = None) -> None:
        """Has `func` work on tasks of that name; failures are tried again `max_retries` times."""
        options: Dict[str, Any] = {
            "autoretry_for": (Exception,),
            "retry_kwargs": {"max_retries": self._config.max_retries},
            "retry_backoff": True,
            "retry_backoff_max": MAX_RETRY_PAUSE_S,
            "retry_jitter": False,
        }
        options.update(self._config.adapter_config.task_custom_config or {})
        if name:
            options["name"] = name
        self._app.task(**options)(func)

    def enqueue_task_sync(
        self,
        task_name: str,
        args: Optional[Any] = None,
        kwargs: Optional[Any] = None,
        **options: Any,
    ) -> "TaskResult":
        """Puts a task into the queue, or into the one that `options` name."""
        from ray.serve.schema import TaskResult

        options.setdefault("queue", self._config.queue_name)
        sent = self._app.send_task(task_name, args=args, kwargs=kwargs, **options)
        return TaskResult(
            id=sent.id, status=sent.status, created_at=time.time(), result=sent.result
        )

    def get_task_status_sync(self, task_id: str) -> "TaskResult":
        """PENDING, STARTED, RETRY, FAILURE, SUCCESS or REVOKED, and the result."""
        from ray.serve.schema import TaskResult

        found = self._app.AsyncResult(task_id)
        return TaskResult(id=found.id, status=found.status, result=found.result)

    def cancel_task_sync(self, task_id: str) -> Any:
        """Revokes a task that nobody has begun to work on."""
        return self._app.control.revoke(task_id)

    def get_metrics_sync(self) -> Dict[str, Any]:
        """What Celery's workers say about themselves."""
        stats: Dict[str, Any] = self._app.control.inspect().stats() or {}
        return stats

    def health_check_sync(self) -> List[Dict[str, Any]]:
        """The workers that answer a ping."""
        answers: List[Dict[str, Any]] = self._app.control.ping()
        return answers

    def start_consumer(self, **kwargs: Any) -> None:
        """Starts a worker in a thread of its own."""
        if self._worker is not None and self._worker.is_alive():
            logger.info("The Celery worker already runs.")
            return
        from ray.serve.context import _get_internal_replica_context

        context = _get_internal_replica_context()
        tag = "local" if context is None else context.replica_tag
        self._hostname = f"{self._config.queue_name}_{tag}"
        arguments = ["worker", f"--hostname={self._hostname}", "-Q", self._config.queue_name]
        self._worker = threading.Thread(
            target=self._app.worker_main, args=(arguments,), name="serve-celery", daemon=True
        )
        self._worker.start()

    def stop_consumer(self, timeout: float = 10.0) -> None:
        """Ends the worker; waits at most `timeout` seconds."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        self._app.control.broadcast("shutdown", destination=[f"celery@{self._hostname}"])
        worker.join(timeout)
        if worker.is_alive():
            logger.warning("The Celery worker did not end within %s seconds.", timeout)

    # --- tasks that cannot be worked on

    def _put_aside(self, queue: str, name: str, args: List[Any]) -> None:
        self._app.send_task(name, args=args, queue=queue)

    def _on_failure(
        self,
        sender: Any = None,
        task_id: Any = None,
        exception: Any = None,
        args: Any = None,
        kwargs: Any = None,
        einfo: Any = None,
        **_: Any,
    ) -> None:
        """A task failed for the last time."""
        queue = self._config.failed_task_queue_name
        if queue:
            facts = [task_id, str(exception), str(args), str(kwargs), str(einfo)]
            self._put_aside(queue, getattr(sender, "name", str(sender)), facts)

    def _on_unknown(
        self,
        sender: Any = None,
        name: Any = None,
        id: Any = None,
        message: Any = None,
        exc: Any = None,
        **kwargs: Any,
    ) -> None:
        """A task that no handler is for."""
        queue = self._config.unprocessable_task_queue_name
        if queue:
            facts = [str(name), str(id), str(message), str(exc), str(kwargs)]
            self._put_aside(queue, str(name), facts)
