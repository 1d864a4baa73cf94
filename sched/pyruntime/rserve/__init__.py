"""rserve's Python side: what runs inside zygotes and Python replicas.

The package lives in a zip file that the node puts on PYTHONPATH; `ray` beside it is the interface
that applications import. `vendor/` holds fall-backs for packages that need not be installed
(starlette, cloudpickle); it stands last on sys.path, so that installed ones win.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rserve._limits import limits as limits

__version__ = "0.1.0"

#: The zip file (or, in the source tree, the folder) that holds this package.
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# `python -m` puts the working directory first on sys.path, where a folder named `ray` would hide
# ours.
if sys.argv[:1] == ["-m"] and sys.path and sys.path[0] in ("", os.getcwd()):
    del sys.path[0]

_VENDOR = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_vendor")  # in a wheel
if not os.path.isdir(_VENDOR):
    _VENDOR = os.path.join(ROOT, "vendor")
if _VENDOR not in sys.path:
    sys.path.append(_VENDOR)


def __getattr__(name: str) -> Any:
    """What programs may import from here, when they do: to import this package is cheap."""
    if name == "limits":
        from rserve._limits import limits

        return limits
    raise AttributeError(f"module 'rserve' has no attribute {name!r}")
