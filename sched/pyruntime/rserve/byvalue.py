"""Applications that a program deployed by value, as attributes: the import path of such an
application is `rserve.byvalue:NAME`, and NAME a file in the node's folder RSERVE_VALUES.

The file holds a pickle of `{"sys_path": [..], "cwd": str}` and then one of the Application. It was
written by a program of the same user, into a folder that only this user can write.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import sys
import threading
import uuid
from typing import Any, Dict, List


def store(application: Any, folder: str) -> str:
    """Writes an application for `rserve.byvalue`; the name of its attribute.

    The name differs each time: a program that deploys again means its replicas to start anew.
    """
    facts: Dict[str, Any] = {"sys_path": _paths(), "cwd": os.getcwd()}
    data = pickle.dumps(facts) + dumps(application)
    name = f"app_{hashlib.sha256(data).hexdigest()[:16]}_{uuid.uuid4().hex[:8]}"
    temporary = os.path.join(folder, f".{name}")
    with open(temporary, "wb") as f:
        f.write(data)
    os.replace(temporary, os.path.join(folder, name))
    return name


#: Packages whose objects may hold locks and other things that are only of use inside of a process.
_WEB = ("fastapi", "starlette")
_LOCKS = (type(threading.Lock()), type(threading.RLock()))


def dumps(value: Any) -> bytes:
    """cloudpickle, and what it cannot do by itself with web applications: Starlette's State, whose
    __getattr__ never ends on an object that is not filled yet, and the locks of FastAPI's routes.
    """
    from rserve import _cloudpickle as cloudpickle

    base: Any = cloudpickle.CloudPickler

    class Pickler(base):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            cls = type(obj)
            if cls.__module__.partition(".")[0] in _WEB:
                if cls.__name__ == "State":
                    return cls, (dict(obj._state),)
                state = getattr(obj, "__dict__", None) or {}
                locks = {name: type(v) for name, v in state.items() if isinstance(v, _LOCKS)}
                if locks:
                    kept = {name: v for name, v in state.items() if name not in locks}
                    recursive = [name for name, kind in locks.items() if kind is _LOCKS[1]]
                    return cls.__new__, (cls,), (kept, list(locks), recursive), None, None, _fill
            return super().reducer_override(obj)

    buffer = io.BytesIO()
    Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()


def _fill(obj: Any, state: Any) -> None:
    """The state of an object, with locks of its own."""
    kept, locks, recursive = state
    for name in locks:
        kept[name] = threading.RLock() if name in recursive else threading.Lock()
    obj.__dict__.update(kept)


def _paths() -> List[str]:
    """Where this program imports from, but for the library itself."""
    paths = [os.path.abspath(p) for p in sys.path]
    return [p for p in paths if not os.path.basename(p).startswith("rserve-")]


def __getattr__(name: str) -> Any:
    folder = os.environ.get("RSERVE_VALUES")
    if not name.startswith("app_") or not folder or os.path.basename(name) != name:
        raise AttributeError(name)
    try:
        f = open(os.path.join(folder, name), "rb")
    except OSError as e:
        raise AttributeError(
            f"the application {name} is not on this node ({e.strerror}): what a program deploys "
            "runs on the node that it is connected to"
        ) from None
    with f:
        facts = pickle.load(f)
        for path in facts["sys_path"]:
            if path not in sys.path:
                sys.path.append(path)
        if os.path.isdir(facts["cwd"]):
            os.chdir(facts["cwd"])
        try:
            return pickle.load(f)
        except AttributeError as e:  # else this module seems not to have the name
            raise TypeError(f"what the program deployed cannot be rebuilt: {e}") from e
