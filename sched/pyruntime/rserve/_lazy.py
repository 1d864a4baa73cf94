"""Modules that are loaded at first use: importing `ray.serve` shall cost little."""

from __future__ import annotations

import importlib
from typing import Any


class LazyModule:
    """Stands for a module, by its name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)
