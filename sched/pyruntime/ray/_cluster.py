"""Nodes and resources of the cluster, as `ray.nodes()` and others tell them."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from rserve import _core


def nodes() -> List[Dict[str, Any]]:
    """The nodes that are there."""
    out = []
    for row in _core.call("ray.nodes", "list", what="nodes")["rows"]:
        ip = address_of(row)
        resources = {k: float(v) for k, v in (row.get("resources") or {}).items()}
        resources[f"node:{ip}"] = 1.0
        if row.get("head"):
            resources["node:__internal_head__"] = 1.0
        out.append(
            {
                "NodeID": row["node_id"],
                "Alive": bool(row.get("alive")),
                "NodeName": row.get("name"),
                "NodeManagerAddress": ip,
                "NodeManagerHostname": row.get("name"),
                "NodeManagerPort": 0,
                "ObjectManagerPort": 0,
                "ObjectStoreSocketName": "",
                "RayletSocketName": "",
                "MetricsExportPort": 0,
                "RuntimeEnvAgentPort": 0,
                "DeathReason": 0,
                "DeathReasonMessage": "",
                "alive": bool(row.get("alive")),
                "Resources": resources,
                "Labels": dict(row.get("labels") or {}),
            }
        )
    return out


def address_of(row: Dict[str, Any]) -> str:
    address = str(row.get("address") or "")
    host = address.rpartition(":")[0].strip("[]")
    return host if host and host not in ("0.0.0.0", "::") else "127.0.0.1"


def cluster_resources() -> Dict[str, float]:
    """All that the nodes have."""
    total = _core.call("ray.cluster_resources", "resources")["total"]
    return _with_nodes({k: float(v) for k, v in total.items()})


def available_resources() -> Dict[str, float]:
    """What is not promised to anyone."""
    free = _core.call("ray.available_resources", "resources")["available"]
    return _with_nodes({k: float(v) for k, v in free.items()})


def _with_nodes(amounts: Dict[str, float]) -> Dict[str, float]:
    for node in nodes():
        for name in node["Resources"]:
            if name.startswith("node:"):
                amounts[name] = 1.0
    return amounts


def timeline(filename: Optional[str] = None) -> Any:
    raise NotImplementedError("ray.timeline is not available in rserve: it records no events.")
