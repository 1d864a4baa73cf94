"""Options of tasks and actors: which there are, and what is asked of the head for them."""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

from rserve import _core

_COMMON = {
    "accelerator_type",
    "enable_task_events",
    "fallback_strategy",
    "label_selector",
    "_labels",
    "max_retries",
    "memory",
    "name",
    "num_cpus",
    "num_gpus",
    "num_returns",
    "object_store_memory",
    "placement_group",
    "placement_group_bundle_index",
    "placement_group_capture_child_tasks",
    "resources",
    "retry_exceptions",
    "runtime_env",
    "scheduling_strategy",
    "_metadata",
    "_generator_backpressure_num_objects",
}
TASK = frozenset(_COMMON | {"max_calls"})
ACTOR = frozenset(
    (_COMMON - {"max_retries", "retry_exceptions", "num_returns"})
    | {
        "allow_out_of_order_execution",
        "concurrency_groups",
        "enable_tensor_transport",
        "get_if_exists",
        "lifetime",
        "max_concurrency",
        "max_pending_calls",
        "max_restarts",
        "max_task_retries",
        "namespace",
    }
)


def check(options: Dict[str, Any], known: "frozenset[str]") -> None:
    """Raises ValueError for an option that does not exist, or for a value it cannot have."""
    for key, value in options.items():
        if key not in known:
            raise ValueError(
                f"Invalid option keyword {key} for "
                f"{'actors' if known is ACTOR else 'remote functions'}. Valid ones are "
                f"{sorted(known)}."
            )
        if key in ("num_cpus", "num_gpus", "memory") and value is not None and value < 0:
            raise ValueError(f"The keyword '{key}' only accepts None, 0 or a positive number")
    if options.get("resources"):
        resources = options["resources"]
        if not isinstance(resources, dict):
            raise TypeError("The 'resources' keyword only accepts a dictionary or None")
        if "CPU" in resources or "GPU" in resources:
            raise ValueError(
                "Use the 'num_cpus' and 'num_gpus' keyword instead of 'CPU' and 'GPU' in "
                "'resources' keyword"
            )
    lifetime = options.get("lifetime")
    if lifetime not in (None, "detached", "non_detached"):
        raise ValueError(
            "actor `lifetime` argument must be one of 'detached', 'non_detached' and 'None'."
        )
    for key in ("name", "namespace"):
        value = options.get(key)
        if known is ACTOR and value is not None and not isinstance(value, str):
            raise TypeError(f"{key} must be None or a string, got: '{type(value)}'.")
    if known is ACTOR and options.get("name") == "":
        raise ValueError("Actor name cannot be an empty string.")
    if known is ACTOR and options.get("get_if_exists") and not options.get("name"):
        raise ValueError("The actor name must be specified to use `get_if_exists`.")


def resources_of(options: Dict[str, Any], cpus: float) -> Dict[str, Any]:
    """`options` of the ops: what a process takes. `cpus`: where num_cpus is not given."""
    given = options.get("num_cpus")
    out: Dict[str, Any] = {"num_cpus": float(cpus if given is None else given)}
    for key in ("num_gpus", "memory", "accelerator_type", "label_selector", "fallback_strategy"):
        if options.get(key):
            out[key] = options[key]
    if options.get("resources"):
        out["resources"] = {k: v for k, v in options["resources"].items() if v}
    env = runtime_env_of(options)
    if env:
        out["runtime_env"] = env
    return out


def runtime_env_of(options: Dict[str, Any]) -> Dict[str, Any]:
    """What a task or an actor asks for beyond the job's, with absolute paths."""
    env = options.get("runtime_env")
    if not env:
        return {}
    import os

    from ray.runtime_env import normalised
    from rserve._env_spec import EnvError, absolute_paths

    try:
        return absolute_paths(normalised(env), os.getcwd())
    except EnvError as e:
        raise ValueError(e.message) from None


def strategy_of(options: Dict[str, Any]) -> Tuple[Optional[Dict[str, Any]], Any]:
    """`strategy` of the ops, and the placement group if it is one."""
    from ray.util import scheduling_strategies as s
    from ray.util.placement_group import PlacementGroup, _captured

    strategy = options.get("scheduling_strategy")
    group = options.get("placement_group")
    if isinstance(group, PlacementGroup) and not group.is_empty:
        index = options.get("placement_group_bundle_index", -1)
        strategy = s.PlacementGroupSchedulingStrategy(
            group, index, bool(options.get("placement_group_capture_child_tasks"))
        )
    if strategy is None or strategy == "DEFAULT" or strategy == "SPREAD":
        inherited = _captured() if strategy is None and group != "default" else None
        if inherited is not None:
            return {"group": inherited, "bundle": -1, "capture": True}, None
        return None, None
    if isinstance(strategy, s.PlacementGroupSchedulingStrategy):
        group = strategy.placement_group
        return {
            "group": group._id,
            "bundle": strategy.placement_group_bundle_index,
            "capture": bool(strategy.placement_group_capture_child_tasks),
        }, group
    if isinstance(strategy, s.NodeAffinitySchedulingStrategy):
        return {"node": strategy.node_id, "soft": bool(strategy.soft)}, None
    if isinstance(strategy, s.NodeLabelSchedulingStrategy):
        raise NotImplementedError(
            "NodeLabelSchedulingStrategy is not available in rserve: use label_selector."
        )
    raise ValueError(
        f"Invalid scheduling_strategy type {type(strategy)}. Valid types are: ['DEFAULT', "
        "'SPREAD', PlacementGroupSchedulingStrategy, NodeAffinitySchedulingStrategy, "
        "NodeLabelSchedulingStrategy]"
    )


def environment() -> Dict[str, Any]:
    return _core.environment()
