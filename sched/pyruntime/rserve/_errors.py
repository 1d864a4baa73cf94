"""Exceptions as users should see them: trimmed tracebacks, one-line summaries, and their way over
the wire.
"""

from __future__ import annotations

import importlib
import os
import pickle
import sys
import traceback
from types import TracebackType
from typing import Any, Dict, List, Optional, Tuple

from rserve import ROOT
from rserve import _wire as w

#: Longest traceback that is sent anywhere; the middle of a longer one is left out.
MAX_TRACEBACK = 64 << 10


#: Where code that embed.py compiled says that it comes from.
COMPILED = "<rserve>/"


def is_library(filename: str) -> bool:
    return filename.startswith((ROOT, COMPILED, "<frozen ")) or filename == importlib.__file__


def user_traceback(error: BaseException) -> str:
    """The traceback of `error` without the frames of this library and of the import machinery."""
    try:
        summary = traceback.TracebackException(type(error), error, error.__traceback__)
        _trim(summary, set())
        text = "".join(summary.format())
    except Exception:  # an exception whose own __str__ fails, and the like
        text = f"{type(error).__name__}: (its text could not be formatted)\n"
    if len(text) > MAX_TRACEBACK:
        half = MAX_TRACEBACK // 2
        text = (
            f"{text[:half]}\n... ({len(text) - 2 * half} characters left out) ...\n{text[-half:]}"
        )
    return text


def _trim(summary: traceback.TracebackException, seen: "set[int]") -> None:
    if id(summary) in seen:
        return
    seen.add(id(summary))
    summary.stack[:] = [f for f in summary.stack if not is_library(f.filename)]
    for other in (summary.__cause__, summary.__context__):
        if other is not None:
            _trim(other, seen)
    for other in getattr(summary, "exceptions", None) or ():
        _trim(other, seen)


def last_user_frame(tb: Optional[TracebackType]) -> Optional[Tuple[str, int]]:
    """File and line where user code last was, or None."""
    found = None
    while tb is not None:
        filename = tb.tb_frame.f_code.co_filename
        if not is_library(filename):
            found = (filename, tb.tb_lineno)
        tb = tb.tb_next
    return found


def one_line(error: BaseException) -> str:
    """`ValueError: text`, on one line."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = "(its text could not be formatted)"
    name = type(error).__name__
    return f"{name}: {text}"[:2000] if text else name


# --- errors over handles ------------------------------------------------------------------------


def pack_error(
    stream: int,
    code: int,
    kind: str,
    message: str,
    trace: str = "",
    body: bytes = b"",
    extra: bytes = b"",
) -> bytes:
    """An ERROR frame."""
    meta = [w.field_u8(w.T_ERROR_CODE, code), w.field_str(w.T_ERROR_TYPE, kind)]
    meta.append(w.field_str(w.T_MESSAGE, message[:8192]))
    if trace:
        meta.append(w.field_str(w.T_TRACEBACK, trace))
    meta.append(extra)
    if len(body) > w.MEMFD_FROM:
        body = b""  # an exception that carries so much goes without its data; its text stays
    return w.pack(w.ERROR, w.END, stream, b"".join(meta), body)


def pack_user_error(
    stream: int, error: BaseException, trace: str, deployment: str = "", method: str = ""
) -> bytes:
    """What a Python replica answers to a handle call whose user code raised `error`."""
    from ray.exceptions import RayTaskError

    cause = error.cause if isinstance(error, RayTaskError) and error.cause else error
    where = w.field_str(w.T_DEPLOYMENT, deployment) + w.field_str(w.T_METHOD, method or "__call__")
    return pack_error(
        stream,
        w.E_USER,
        type(cause).__name__,
        one_line(cause),
        trace,
        _pickle_error(cause),
        (where if deployment else b"") + w.field_u32(w.T_PID, os.getpid()),
    )


def _pickle_error(error: BaseException) -> bytes:
    from rserve._values import dumps

    try:
        return dumps(error)
    except Exception as e:
        from ray.exceptions import RayError

        kind = type(error).__name__
        return dumps(RayError(f"the cause, {kind}, cannot be pickled ({type(e).__name__}: {e})"))


def task_error(where: str, trace: str, body: Any, pid: Optional[int] = None) -> BaseException:
    """What the caller sees of an exception of user code, which `body` has as a pickle."""
    from ray.exceptions import RayTaskError, UnserializableException

    cause: Optional[BaseException] = None
    if body:
        try:
            loaded = pickle.loads(body)
        except Exception as e:
            return UnserializableException(
                f"The exception cannot be rebuilt here ({one_line(e)}): its class needs a "
                f"__reduce__ that fits its constructor.\nOriginal exception:\n"
                f"{RayTaskError(where, trace, None, pid=pid)}"
            )
        cause = loaded if isinstance(loaded, BaseException) else None
    return RayTaskError(where, trace, cause, pid=pid).as_instanceof_cause()


def unpack_error(
    fields: Dict[int, bytes],
    body: Any,
    app: str,
    deployment: str,
    method: str,
    request_id: str,
    object_hex: str = "",
) -> BaseException:
    """The exception that the caller of a handle sees for an ERROR frame. The error may come from
    another call than the caller's own, whose result it waited for: then it says from which."""
    from ray import exceptions as ray_exceptions
    from ray.serve import exceptions as serve_exceptions
    from ray.serve._private.common import DeploymentID

    code = w.number(fields, w.T_ERROR_CODE, w.E_INTERNAL)
    message = w.text(fields, w.T_MESSAGE)
    if code == w.E_USER:
        if w.T_DEPLOYMENT in fields:
            deployment = w.text(fields, w.T_DEPLOYMENT)
            method = w.text(fields, w.T_METHOD, "__call__")
        where = f"{deployment}.{method}" if method != "__call__" else deployment
        trace = w.text(fields, w.T_TRACEBACK) or message
        return task_error(where, trace, body, w.number(fields, w.T_PID) or None)
    kind = w.text(fields, w.T_ERROR_TYPE)
    if kind == "ObjectStoreFullError":
        return ray_exceptions.ObjectStoreFullError(message)
    if kind in ("ObjectLostError", "OwnerDiedError"):
        lost: ray_exceptions.ObjectLostError = getattr(ray_exceptions, kind)(object_hex)
        lost.message = message
        return lost
    if code == w.E_BACKPRESSURE:
        full = serve_exceptions.BackPressureError(
            w.number(fields, w.T_QUEUED),
            w.number(fields, w.T_MAX_QUEUED),
            retry_after_s=w.number(fields, w.T_RETRY_AFTER) or None,
        )
        if message.startswith("Request dropped"):
            full._message = message  # it may have waited too long, too
        return full
    if code == w.E_UNAVAILABLE or (code == w.E_NOT_FOUND and not kind):  # has none of that name
        unavailable = serve_exceptions.DeploymentUnavailableError(DeploymentID(deployment, app))
        unavailable._text = message
        return unavailable
    if code == w.E_CANCELLED:
        return serve_exceptions.RequestCancelledError(request_id)
    if code == w.E_TIMEOUT:
        return ray_exceptions.GetTimeoutError(message or "The request timed out.")
    if code == w.E_DIED and w.T_AWAIT_OBJECTS in fields:
        return serve_exceptions.RayServeException(
            f"Request to deployment '{deployment}' failed because an upstream actor died before "
            f"finishing a dependent task: {message}"
        )
    if code == w.E_DIED:
        return ray_exceptions.ActorDiedError(message)
    return serve_exceptions.RayServeException(
        message or f"The call to {DeploymentID(deployment, app)} failed with error {code}."
    )


# --- errors of import and build -----------------------------------------------------------------


class BuildError(Exception):
    """A user's application could not be imported or built: what the FAILED message says."""

    def __init__(self, phase: str, kind: str, error: str, trace: str = "") -> None:
        super().__init__(error)
        self.phase = phase
        self.kind = kind
        self.error = " ".join(error.split())
        self.trace = trace

    def message(self, **more: Any) -> Dict[str, Any]:
        out: Dict[str, Any] = dict(more)
        out.update(phase=self.phase, kind=self.kind, error=self.error, traceback=self.trace)
        return out


def import_error(
    module: str, import_path: str, app_dir: Optional[str], e: BaseException
) -> BuildError:
    """Says in one line why the user's module could not be imported."""
    kind = type(e).__name__
    place = last_user_frame(e.__traceback__)
    where = f" ({place[0]}:{place[1]})" if place else ""
    trace = user_traceback(e)
    if isinstance(e, ImportError) and (e.name or "").split(".")[0] == "ray":
        text = str(e).split(" (")[0]
        return BuildError(
            "import",
            kind,
            f"{kind}: {text}{where}: this part of Ray is not available in this version of rserve",
            trace,
        )
    if isinstance(e, ModuleNotFoundError):
        name = e.name or ""
        if name and (name == module or module.startswith(name + ".")) and place is None:
            looked = f" in {app_dir}" if app_dir else ""
            return BuildError(
                "import",
                kind,
                f"{kind}: no module named '{name}'{looked} (import_path '{import_path}'); "
                "check import_path and --app-dir",
                trace,
            )
        package = name.split(".")[0]
        return BuildError(
            "import",
            kind,
            f"{kind}: no module named '{name}'{where}; if it is a package, install it with "
            f"'{sys.executable} -m pip install {package}' or list it in runtime_env pip",
            trace,
        )
    if isinstance(e, SyntaxError):
        line = f"{e.filename}:{e.lineno}" + (f":{e.offset}" if e.offset else "")
        return BuildError("import", kind, f"{kind}: {line}: {e.msg}", trace)
    if isinstance(e, SystemExit):
        return BuildError(
            "import",
            kind,
            f"{kind}: module '{module}' called exit({e.code!r}) while it was imported{where}",
            trace,
        )
    return BuildError("import", kind, f"{one_line(e)}{where}", trace)


def describe_names(module: Any, limit: int = 8) -> str:
    names: List[str] = [n for n in vars(module) if not n.startswith("_")]
    shown = ", ".join(names[:limit])
    return shown + (", ..." if len(names) > limit else "")
