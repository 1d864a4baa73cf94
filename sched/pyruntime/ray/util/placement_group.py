"""Placement groups: room that is kept on nodes for the actors and tasks that come later."""

from __future__ import annotations

import sys
import threading
import time
import types
from typing import Any, Dict, List, Optional

from rserve import _core, _node, _refs
from rserve._ids import Id

VALID_PLACEMENT_GROUP_STRATEGIES = {"PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"}
PLACEMENT_GROUP_BUNDLE_RESOURCE_NAME = "bundle"
NODE_ID_LABEL_KEY = "ray.io/node-id"


class PlacementGroupID(Id):
    """The id of a placement group."""


class PlacementGroup:
    """Refers to a placement group; can be pickled."""

    @staticmethod
    def empty() -> "PlacementGroup":
        return PlacementGroup("", [])

    def __init__(self, id: Any, bundle_cache: Optional[List[Dict[str, Any]]] = None) -> None:
        self._id = id.hex() if isinstance(id, PlacementGroupID) else str(id)
        self.bundle_cache = bundle_cache

    @property
    def id(self) -> PlacementGroupID:
        return PlacementGroupID(self._id)

    @property
    def is_empty(self) -> bool:
        return not self._id

    @property
    def bundle_specs(self) -> List[Dict[str, Any]]:
        if self.bundle_cache is None:
            self.bundle_cache = self._info()["bundles"]
        return [{k: float(v) for k, v in b.items()} for b in self.bundle_cache]

    @property
    def bundle_count(self) -> int:
        return len(self.bundle_specs)

    def _info(self) -> Dict[str, Any]:
        return _core.call("a placement group", "group_info", group_id=self._id)

    def ready(self) -> Any:
        """A reference that is done when all bundles have their room."""
        from rserve import _cloudpickle as cloudpickle

        ref, result = _refs.new_result()
        value = cloudpickle.dumps(self)
        link = _node.require("PlacementGroup.ready")

        def told(answer: Dict[str, Any]) -> None:
            error = _core.error_of(answer)
            if error is not None:
                result.complete(b"", b"", error)
            elif answer.get("state") == "CREATED":
                result.complete(b"application/x-python-pickle", value, None)
            else:
                timer = threading.Timer(0.05, look)
                timer.daemon = True
                timer.start()

        def look() -> None:
            _core.ask(link, told, "group_info", group_id=self._id)

        look()
        return ref

    def wait(self, timeout_seconds: float = 30) -> bool:
        """Whether all bundles have their room within so many seconds."""
        until = time.monotonic() + timeout_seconds
        while True:
            if self._info()["state"] == "CREATED":
                return True
            if time.monotonic() >= until:
                return False
            time.sleep(0.02)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacementGroup) and other._id == self._id

    def __hash__(self) -> int:
        return hash(self._id)

    def __repr__(self) -> str:
        return f"PlacementGroup({self._id})"


def validate_placement_group(
    bundles: List[Dict[str, float]],
    strategy: Optional[str] = None,
    lifetime: Optional[str] = None,
    _soft_target_node_id: Optional[str] = None,
    bundle_label_selector: Optional[List[Dict[str, str]]] = None,
    topology_strategy: Optional[Dict[str, str]] = None,
) -> bool:
    """Raises ValueError for what cannot be a placement group."""
    if not isinstance(bundles, list):
        raise ValueError(f"Placement group bundles must be a list, got {type(bundles)}.")
    if not bundles:
        raise ValueError(
            "Bundles must be a non-empty list of resource dictionaries. For example: "
            '`[{"CPU": 1.0}, {"GPU": 1.0}]`. Got empty list instead.'
        )
    for bundle in bundles:
        if not isinstance(bundle, dict):
            raise ValueError("Bundles must be a list of resource dictionaries. For example:")
        if not bundle or all(value == 0 for value in bundle.values()):
            raise ValueError(
                "Bundles cannot be an empty dictionary or resources with only 0 values. Bundles: "
                f"{bundles}"
            )
        for name, value in bundle.items():
            if not isinstance(value, (int, float)) or value < 0:
                raise ValueError(f"Bundle resource {name} must be a number >= 0, got {value!r}.")
    if strategy is not None and strategy not in VALID_PLACEMENT_GROUP_STRATEGIES:
        raise ValueError(
            f"Invalid placement group strategy '{strategy}'. Supported strategies are: "
            f"{sorted(VALID_PLACEMENT_GROUP_STRATEGIES)}."
        )
    if lifetime not in (None, "detached"):
        raise ValueError(
            "Placement group `lifetime` argument must be either `None` or 'detached'. Got "
            f"{lifetime}."
        )
    if bundle_label_selector or topology_strategy:
        raise NotImplementedError(
            "Label selectors of bundles and topology strategies are not available in rserve for "
            "placement groups of programs."
        )
    return True


def placement_group(
    bundles: List[Dict[str, float]],
    strategy: Optional[str] = None,
    name: str = "",
    lifetime: Optional[str] = None,
    _soft_target_node_id: Optional[str] = None,
    bundle_label_selector: Optional[List[Dict[str, str]]] = None,
    topology_strategy: Optional[Dict[str, str]] = None,
) -> PlacementGroup:
    """Asks for room, bundle by bundle; `ready` and `wait` tell when it is there."""
    strategy = strategy or "PACK"
    validate_placement_group(
        bundles, strategy, lifetime, _soft_target_node_id, bundle_label_selector, topology_strategy
    )
    group = PlacementGroup(_core.new_id(), [dict(b) for b in bundles])
    _core.call(
        "placement_group",
        "create_group",
        group_id=group._id,
        bundles=[{k: float(v) for k, v in b.items() if v} for b in bundles],
        strategy=strategy,
        name=name or "",
        lifetime=lifetime or "",
    )
    return group


def remove_placement_group(placement_group: PlacementGroup) -> None:
    """Gives the room back; actors in it die."""
    if placement_group is None:
        raise AssertionError("placement_group must not be None")
    _core.call("remove_placement_group", "remove_group", group_id=placement_group._id)


def get_placement_group(placement_group_name: str) -> PlacementGroup:
    """The placement group of that name. Raises ValueError when there is none."""
    if not placement_group_name:
        raise ValueError("Please supply a non-empty value to get_placement_group")
    row = _core.call("get_placement_group", "group_info", name=placement_group_name)
    return PlacementGroup(row["placement_group_id"], row["bundles"])


def placement_group_table(placement_group: Optional[PlacementGroup] = None) -> Dict[str, Any]:
    """What is known of one placement group, or {id: ..} of all."""
    rows = _core.call("placement_group_table", "list", what="groups")["rows"]
    table = {row["placement_group_id"]: _table_row(row) for row in rows}
    if placement_group is None:
        return table
    return table.get(
        placement_group._id,
        {"placement_group_id": placement_group._id, "state": "REMOVED"},
    )


def _table_row(row: Dict[str, Any]) -> Dict[str, Any]:
    return {
        "placement_group_id": row["placement_group_id"],
        "name": row["name"],
        "bundles": dict(enumerate(row["bundles"])),
        "bundles_to_node_id": {n: node or "" for n, node in enumerate(row["nodes"])},
        "strategy": row["strategy"],
        "state": row["state"],
        "stats": {
            "end_to_end_creation_latency_ms": 0.0,
            "scheduling_latency_ms": 0.0,
            "scheduling_attempt": 1,
            "highest_retry_delay_ms": 0.0,
            "scheduling_state": "FINISHED" if row["state"] == "CREATED" else "PENDING",
        },
    }


def get_current_placement_group() -> Optional[PlacementGroup]:
    """The placement group that this actor or task runs in; None if there is none."""
    group = _core.group()
    return PlacementGroup(group) if group else None


def _captured() -> Optional[str]:
    """The group that what is started here runs in, too."""
    return _core.group() if _core.captures() else None


def check_placement_group_index(placement_group: PlacementGroup, bundle_index: int) -> None:
    """Raises ValueError for an index that the group has not."""
    if placement_group.is_empty:
        if bundle_index != -1:
            raise ValueError(
                "If placement group is not set, the value of bundle index must be -1."
            )
    elif bundle_index >= placement_group.bundle_count or bundle_index < -1:
        raise ValueError(
            f"placement group bundle index {bundle_index} is invalid. Valid placement group "
            f"indexes: 0-{placement_group.bundle_count - 1}"
        )


class _Module(types.ModuleType):
    """`ray.util.placement_group` is this module, and in Ray also the function of that name."""

    def __call__(self, *args: Any, **kwargs: Any) -> PlacementGroup:
        return placement_group(*args, **kwargs)


sys.modules[__name__].__class__ = _Module
