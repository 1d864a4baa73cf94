"""cloudpickle, the installed one or the one that comes with rserve, with what older versions of it
cannot do: classes that a program made with `typing.NamedTuple`.
"""

from __future__ import annotations

import sys
import typing
from typing import Any, Tuple

import rserve  # noqa: F401  (puts the one that comes with rserve on the path)
import cloudpickle


def _tuples_as_tuples() -> None:
    """Such a class is built anew on `tuple`, which it is, and not by NamedTuple once more."""
    fast: Any = sys.modules.get("cloudpickle.cloudpickle_fast")
    before = getattr(fast, "__dict__", {}).get("_class_getnewargs")
    if before is None:  # since 3.0 cloudpickle is one module, and can do it
        return

    def newargs(cls: type) -> Tuple[Any, ...]:
        found: Tuple[Any, ...] = before(cls)
        named: Any = typing.NamedTuple
        return (*found[:2], tuple(tuple if b is named else b for b in found[2]), *found[3:])

    fast._class_getnewargs = newargs


_tuples_as_tuples()
CloudPickler: Any = cloudpickle.CloudPickler
dumps = cloudpickle.dumps
