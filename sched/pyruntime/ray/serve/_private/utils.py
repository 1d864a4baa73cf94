"""Helpers of `ray.serve._private.utils` that applications import."""

from __future__ import annotations

import enum


class DEFAULT(enum.Enum):
    """Marks an option that was not given."""

    VALUE = 1
