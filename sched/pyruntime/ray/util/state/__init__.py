"""Lists of what the cluster runs: rows with attributes, which are also dictionaries."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

from rserve import _core

Filters = Optional[List[Tuple[str, str, Any]]]


class _Row(Dict[str, Any]):
    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class ActorState(_Row):
    """actor_id, class_name, state, name, node_id, pid, ray_namespace, .."""


class NodeState(_Row):
    """node_id, node_ip, state, node_name, is_head_node, resources_total, .."""


class PlacementGroupState(_Row):
    """placement_group_id, name, state, bundles, .."""


class TaskState(_Row):
    """task_id, name, state, .."""


class WorkerState(_Row):
    """worker_id, .."""


def _select(rows: List[Any], filters: Filters, limit: int) -> List[Any]:
    for key, predicate, value in filters or ():
        if predicate not in ("=", "!="):
            raise ValueError(
                f"Unsupported filter predicate {predicate} is given. Available predicates: =, !=."
            )
        equal = predicate == "="
        rows = [r for r in rows if (_text(r.get(key)) == _text(value)) is equal]
    return rows[:limit]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _rows(what: str) -> List[Dict[str, Any]]:
    rows: List[Dict[str, Any]] = _core.call("ray.util.state", "list", what=what)["rows"]
    return rows


def _first(rows: List[Any], key: str, value: str) -> Any:
    for row in rows:
        if row.get(key) == value:
            return row
    return None


def list_actors(
    address: Optional[str] = None,
    filters: Filters = None,
    limit: int = 100,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> List[ActorState]:
    """Actors, the dead ones for a while too; Serve's replicas and proxies among them."""
    rows = [ActorState(job_id=_core.JOB_ID, **row) for row in _rows("actors")]
    return _select(rows, filters, limit)


def list_nodes(
    address: Optional[str] = None,
    filters: Filters = None,
    limit: int = 100,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> List[NodeState]:
    from ray._cluster import address_of

    rows = [
        NodeState(
            node_id=row["node_id"],
            node_ip=address_of(row),
            node_name=row.get("name"),
            is_head_node=bool(row.get("head")),
            state="ALIVE" if row.get("alive") else "DEAD",
            state_message=None,
            resources_total=row.get("resources") or {},
            labels=dict(row.get("labels") or {}),
        )
        for row in _rows("nodes")
    ]
    return _select(rows, filters, limit)


def list_placement_groups(
    address: Optional[str] = None,
    filters: Filters = None,
    limit: int = 100,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> List[PlacementGroupState]:
    rows = [
        PlacementGroupState(creator_job_id=_core.JOB_ID, **row) for row in _rows("groups")
    ]
    return _select(rows, filters, limit)


_TASK_STATES = {
    "waiting": "PENDING_ARGS_AVAIL",
    "queued": "PENDING_NODE_ASSIGNMENT",
    "sent": "SUBMITTED_TO_WORKER",
    "done": "FINISHED",
}


def list_tasks(
    address: Optional[str] = None,
    filters: Filters = None,
    limit: int = 100,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> List[TaskState]:
    """Tasks and calls of actors' methods that this process has made, and that it still knows of."""
    from rserve import _remote

    rows = []
    for made in list(_remote.recent):
        call = made()
        if call is None:
            continue
        actor = isinstance(call, _remote.ActorCall)
        rows.append(
            TaskState(
                task_id=call.task_id,
                name=call.name,
                func_or_class_name=call.name,
                state=_TASK_STATES[call.state],
                type="ACTOR_TASK" if actor else "NORMAL_TASK",
                job_id=_core.JOB_ID,
                actor_id=call.actor.actor_id if actor else None,  # type: ignore[attr-defined]
                attempt_number=0,
            )
        )
    return _select(rows, filters, limit)


def list_workers(
    address: Optional[str] = None,
    filters: Filters = None,
    limit: int = 100,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> List[WorkerState]:
    """The processes of actors and replicas that live."""
    rows = [
        WorkerState(
            worker_id=row["actor_id"],
            is_alive=True,
            worker_type="WORKER",
            node_id=row.get("node_id"),
            pid=row.get("pid"),
            ip="",
            exit_type=None,
        )
        for row in _rows("actors")
        if row.get("pid")
    ]
    return _select(rows, filters, limit)


def get_actor(
    id: str, address: Optional[str] = None, timeout: int = 30, _explain: bool = False
) -> Optional[ActorState]:
    found: Optional[ActorState] = _first(list_actors(limit=1 << 30), "actor_id", id)
    return found


def get_node(
    id: str, address: Optional[str] = None, timeout: int = 30, _explain: bool = False
) -> Optional[NodeState]:
    found: Optional[NodeState] = _first(list_nodes(limit=1 << 30), "node_id", id)
    return found


def get_placement_group(
    id: str, address: Optional[str] = None, timeout: int = 30, _explain: bool = False
) -> Optional[PlacementGroupState]:
    found: Optional[PlacementGroupState] = _first(
        list_placement_groups(limit=1 << 30), "placement_group_id", id
    )
    return found


def get_task(
    id: Any, address: Optional[str] = None, timeout: int = 30, _explain: bool = False
) -> Optional[TaskState]:
    found: Optional[TaskState] = _first(list_tasks(limit=1 << 30), "task_id", str(id))
    return found


def summarize_actors(
    address: Optional[str] = None,
    timeout: int = 30,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> Dict[str, Any]:
    """{"cluster": {"summary": {class: {"state_counts": {state: n}}}, ..}}"""
    summary: Dict[str, Any] = {}
    rows = list_actors(limit=1 << 30)
    for row in rows:
        entry = summary.setdefault(
            row.class_name, {"class_name": row.class_name, "state_counts": {}}
        )
        counts = entry["state_counts"]
        counts[row.state] = counts.get(row.state, 0) + 1
    return {
        "cluster": {"summary": summary, "total_actors": len(rows), "summary_by": "class"}
    }


def __getattr__(name: str) -> Any:
    if name.startswith(("list_", "get_", "summarize_")):
        raise AttributeError(
            f"ray.util.state.{name} is not available in rserve: it keeps no such records"
        )
    raise AttributeError(f"module 'ray.util.state' has no attribute '{name}'")
