"""Helpers on top of tasks and actors."""

from __future__ import annotations

import importlib
from typing import Any, Dict, List, Union

_NAMES = {
    "ActorPool": "ray.util.actor_pool",
    "PlacementGroup": "ray.util.placement_group",
    "get_current_placement_group": "ray.util.placement_group",
    "get_placement_group": "ray.util.placement_group",
    "placement_group_table": "ray.util.placement_group",
    "remove_placement_group": "ray.util.placement_group",
}
_MODULES = ("metrics", "placement_group", "queue", "scheduling_strategies", "state")


def get_node_ip_address() -> str:
    """Of the node that this process belongs to."""
    from rserve import _core

    from ray._cluster import address_of

    here = _core.node_id()
    for row in _core.call("get_node_ip_address", "list", what="nodes")["rows"]:
        if row["node_id"] == here:
            return address_of(row)
    return "127.0.0.1"


def list_named_actors(all_namespaces: bool = False) -> List[Union[str, Dict[str, str]]]:
    """Names of actors that live; with `all_namespaces`, {"name", "namespace"} of each."""
    from rserve import _core

    here = _core.namespace()
    rows = _core.call("list_named_actors", "list", what="actors")["rows"]
    found = [
        row
        for row in rows
        if row.get("name")
        and row.get("state") != "DEAD"
        and (all_namespaces or row.get("ray_namespace") == here)
    ]
    if all_namespaces:
        return [{"name": row["name"], "namespace": row["ray_namespace"]} for row in found]
    return [row["name"] for row in found]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"ray.util.{name}")
    raise AttributeError(f"module 'ray.util' has no attribute '{name}' (this is rserve's ray)")
