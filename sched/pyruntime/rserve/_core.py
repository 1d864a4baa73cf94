"""What this process asks of the head about actors, tasks and resources, and what it is itself.

The questions are CORE in net/wire/PROTOCOL.md."""

from __future__ import annotations

import base64
import contextvars
import os
import sys
from typing import Any, Callable, Dict, Optional

from rserve import _node
from rserve import _wire as w

#: What a worker is: the member `core` of its INIT, with "node_id" and "env". Empty elsewhere.
identity: Dict[str, Any] = {}

#: Of a replica that has a placement group: its id. None elsewhere.
replica_group: Optional[str] = None

#: Id of the task that runs in this context; "" outside of tasks and methods of actors.
task_id: "contextvars.ContextVar[str]" = contextvars.ContextVar("ray_task_id", default="")

JOB_ID = "01000000"

_KINDS: Dict[str, Any] = {
    "ValueError": ValueError,
    "RuntimeError": RuntimeError,
    "TypeError": TypeError,
    "ConnectionError": ConnectionError,
    "NotImplementedError": NotImplementedError,
}


def error_of(answer: Dict[str, Any]) -> Optional[Exception]:
    """The exception that an answer of the head stands for, or None."""
    text = answer.get("error")
    if text is None:
        return None
    kind = str(answer.get("kind") or "")
    if kind == "ActorAlreadyExistsError":
        from ray.exceptions import ActorAlreadyExistsError

        return ActorAlreadyExistsError(str(text))
    from ray.exceptions import RaySystemError

    error: Exception = _KINDS[kind](text) if kind in _KINDS else RaySystemError(text)
    return error


def call(what: str, op: str, /, **members: Any) -> Dict[str, Any]:
    """Asks and waits; raises the error that comes back. `what` is what the user called."""
    link = _node.require(what)
    members["op"] = op
    answer = link.question(w.CORE, members)
    error = error_of(answer)
    if error is not None:
        raise error
    return answer


def ask(
    link: "_node.NodeLink", told: Callable[[Dict[str, Any]], None], op: str, /, **members: Any
) -> None:
    """Asks; `told` gets the answer, errors too, on whichever thread reads it. From any thread."""
    members["op"] = op
    link.inquire(w.CORE, members, told)


def tell(link: "_node.NodeLink", op: str, /, **members: Any) -> None:
    """Says something that nobody answers. From any thread."""
    members["op"] = op
    link.send_json(w.CORE, members)


def group() -> Optional[str]:
    """The placement group that this process runs in."""
    return replica_group or identity.get("group")


def captures() -> bool:
    """What is started here runs in that group, too. So it is for all of Ray Serve's replicas."""
    return replica_group is not None or bool(identity.get("capture"))


# --- who this process is ------------------------------------------------------------------------


def namespace() -> str:
    """Where names of actors are looked up from here."""
    if identity:
        return str(identity.get("namespace") or "")
    link = _node.current()
    if link is not None and link.app:
        return "serve"
    from rserve import _session

    return _session.namespace()


def node_id() -> str:
    if identity:
        return str(identity.get("node_id") or "")
    link = _node.current()
    return str(getattr(link, "node_id", "") or getattr(link, "init", {}).get("node_id") or "")


def environment() -> Dict[str, Any]:
    """Whose code the processes run that this one asks for: `env` of the ops."""
    from rserve import _deploy

    link = _node.current()
    if link is not None and link.app:
        return {"app": link.app}
    paths = [os.path.abspath(p) for p in sys.path]
    return {
        "python": sys.executable,
        "app_dir": os.getcwd(),
        "runtime_env": _deploy.job_runtime_env(),
        "args": {"sys_path": [p for p in paths if not os.path.basename(p).startswith("rserve-")]},
    }


def to_text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def from_text(text: str) -> bytes:
    return base64.b64decode(text)


def new_id() -> str:
    """32 hexadecimal digits."""
    return os.urandom(16).hex()
