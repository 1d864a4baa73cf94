"""What a replica of a gang knows about its gang."""

from __future__ import annotations

import dataclasses
from typing import List


@dataclasses.dataclass
class GangContext:
    """The gang of a replica: `serve.get_replica_context().gang_context`."""

    gang_id: str
    rank: int
    world_size: int
    member_replica_ids: List[str]
    pg_name: str = ""
