"""`ray.get_runtime_context()`: where this code runs."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional

from rserve import _core, _node


class RuntimeContext:
    """Where this code runs: node, job, task, actor."""

    def get_job_id(self) -> str:
        return _core.JOB_ID

    @property
    def job_id(self) -> str:
        return _core.JOB_ID

    def get_node_id(self) -> str:
        return _core.node_id()

    @property
    def node_id(self) -> str:
        return _core.node_id()

    def get_worker_id(self) -> str:
        link = _node.current()
        return link.replica_id if link is not None else ""

    @property
    def worker_id(self) -> str:
        return self.get_worker_id()

    def get_task_id(self) -> Optional[str]:
        """Of the task or the call of an actor's method that runs here; None outside of one."""
        return _core.task_id.get() or None

    @property
    def task_id(self) -> Optional[str]:
        return self.get_task_id()

    def get_task_name(self) -> Optional[str]:
        return None

    def get_task_function_name(self) -> Optional[str]:
        return None

    def get_actor_id(self) -> Optional[str]:
        """Of the actor that this process is; a replica's is its own id. None elsewhere."""
        if _core.identity:
            return _core.identity.get("actor_id")
        link = _node.current()
        if link is not None and link.app:
            return link.replica_id
        return None

    @property
    def actor_id(self) -> Optional[str]:
        return self.get_actor_id()

    def get_actor_name(self) -> Optional[str]:
        if _core.identity:
            name = _core.identity.get("name")
            return None if self.get_actor_id() is None else str(name or "")
        link = _node.current()
        if link is not None and link.app:
            return f"SERVE_REPLICA::{link.app}#{link.deployment}#{link.replica_id}"
        return None

    @property
    def namespace(self) -> str:
        return _core.namespace()

    @property
    def was_current_actor_reconstructed(self) -> bool:
        if not self.get_actor_id() or not _core.identity:
            return False
        answer = _core.call("ray", "actor_info", actor_id=self.get_actor_id())
        return int(answer.get("num_restarts") or 0) > 0

    def get_placement_group_id(self) -> Optional[str]:
        return _core.group()

    @property
    def current_placement_group_id(self) -> Optional[str]:
        return self.get_placement_group_id()

    @property
    def should_capture_child_tasks_in_placement_group(self) -> bool:
        return _core.captures()

    def get_assigned_resources(self) -> Dict[str, float]:
        """{"CPU": 1.0, ..} of this process."""
        options = (_config().get("ray_actor_options")) or {}
        out: Dict[str, float] = {}
        for key, name in (("num_cpus", "CPU"), ("num_gpus", "GPU"), ("memory", "memory")):
            if options.get(key):
                out[name] = float(options[key])
        for name, value in (options.get("resources") or {}).items():
            out[name] = float(value)
        return out

    def get_runtime_env_string(self) -> str:
        import json

        return json.dumps(self._runtime_env(), sort_keys=True)

    def _runtime_env(self) -> Dict[str, Any]:
        options = _config().get("ray_actor_options") or {}
        from rserve import _deploy

        return dict(options.get("runtime_env") or _deploy.job_runtime_env())

    @property
    def runtime_env(self) -> Any:
        from ray.runtime_env import RuntimeEnv

        return RuntimeEnv(**self._runtime_env())

    @property
    def current_actor(self) -> Any:
        from ray import actor

        actor_id = _core.identity.get("actor_id")
        if not actor_id:
            raise RuntimeError("This method is only available in an actor.")
        link = _node.require("current_actor")
        return actor.handle_from(link, _core.call("ray", "actor_info", actor_id=actor_id))

    @property
    def gcs_address(self) -> str:
        link = _node.current()
        return str(getattr(link, "init", {}).get("rest") or "127.0.0.1:6379")

    def get_accelerator_ids(self) -> Dict[str, List[str]]:
        return {"GPU": [str(i) for i in get_gpu_ids()], "TPU": [], "neuron_cores": []}

    def get_resource_ids(self) -> Dict[str, List[str]]:
        return self.get_accelerator_ids()

    def get_session_name(self) -> str:
        return f"session_{_core.JOB_ID}"

    def get(self) -> Dict[str, Any]:
        context: Dict[str, Any] = {
            "job_id": self.get_job_id(),
            "node_id": self.get_node_id(),
            "namespace": self.namespace,
        }
        for key, value in (("task_id", self.get_task_id()), ("actor_id", self.get_actor_id())):
            if value:
                context[key] = value
        return context


def _config() -> Dict[str, Any]:
    if _core.identity:
        return _core.identity.get("config") or {}
    from ray.serve import context

    replica = context._get_internal_replica_context()
    config: Any = getattr(replica, "_deployment_config", None)
    return config if isinstance(config, dict) else {}


def get_runtime_context() -> RuntimeContext:
    return RuntimeContext()


def get_gpu_ids() -> List[Any]:
    """The devices that this process has; numbers where they are numbers."""
    text = os.environ.get("CUDA_VISIBLE_DEVICES") or ""
    if not _config().get("ray_actor_options", {}).get("num_gpus"):
        return []
    return [int(part) if part.isdigit() else part for part in text.split(",") if part]
