"""Helpers of `ray.serve._private.utils` that applications import."""

from __future__ import annotations

from rserve._states import DEFAULT

__all__ = ["DEFAULT"]
