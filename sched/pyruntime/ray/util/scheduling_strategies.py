"""Where tasks and actors are to run: `scheduling_strategy=` of their options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Optional

if TYPE_CHECKING:
    from ray.util.placement_group import PlacementGroup


class PlacementGroupSchedulingStrategy:
    """In the room that a placement group keeps; bundle -1 is any of its bundles."""

    def __init__(
        self,
        placement_group: "PlacementGroup",
        placement_group_bundle_index: int = -1,
        placement_group_capture_child_tasks: Optional[bool] = None,
    ) -> None:
        from ray.util.placement_group import check_placement_group_index

        check_placement_group_index(placement_group, placement_group_bundle_index)
        self.placement_group = placement_group
        self.placement_group_bundle_index = placement_group_bundle_index
        self.placement_group_capture_child_tasks = placement_group_capture_child_tasks


class NodeAffinitySchedulingStrategy:
    """On one node; with `soft`, on another one if that is full or gone."""

    def __init__(
        self,
        node_id: str,
        soft: bool,
        _spill_on_unavailable: bool = False,
        _fail_on_unavailable: bool = False,
    ) -> None:
        if not isinstance(node_id, str):
            node_id = node_id.hex()
        self.node_id = node_id
        self.soft = soft
        self._spill_on_unavailable = _spill_on_unavailable
        self._fail_on_unavailable = _fail_on_unavailable


class In:
    def __init__(self, *values: str) -> None:
        self.values = list(values)


class NotIn:
    def __init__(self, *values: str) -> None:
        self.values = list(values)


class Exists:
    pass


class DoesNotExist:
    pass


class NodeLabelSchedulingStrategy:
    """On nodes with certain labels. Tasks and actors refuse it: `label_selector` does the same."""

    def __init__(self, hard: Dict[str, Any], *, soft: Optional[Dict[str, Any]] = None) -> None:
        if not hard and not soft:
            raise ValueError(
                "NodeLabelSchedulingStrategy: The `hard` and `soft` parameter of "
                "NodeLabelSchedulingStrategy cannot both be empty."
            )
        self.hard = hard
        self.soft = soft
