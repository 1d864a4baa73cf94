"""Process plumbing of zygotes and replicas."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from typing import Any, Dict, List, Optional

_PR_SET_NAME = 15
_PR_SET_PDEATHSIG = 1


_libc: Any = None


def load_libc() -> None:
    """Makes prctl() callable where possible; before forking, so that each replica need not."""
    global _libc
    if _libc is None:
        try:
            import ctypes

            _libc = ctypes.CDLL(None)
        except Exception:
            _libc = False


def _prctl(option: int, argument: Any) -> bool:
    load_libc()
    return bool(_libc) and _libc.prctl(option, argument, 0, 0, 0) == 0


def die_with_parent() -> None:
    """SIGKILL for this process when its parent goes. The hang-up of the socket covers the rest."""
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def set_name(name: str) -> None:
    """The name that ps and top show."""
    _prctl(_PR_SET_NAME, name.encode("utf-8", "replace")[:15] + b"\0")


def own_process_group() -> None:
    try:
        os.setsid()
    except OSError:
        pass  # already a leader


def ignore_interrupts() -> None:
    """Ctrl-C is for the node, which then stops its replicas in order.

    A handler, not SIG_IGN, which programs that user code starts would inherit.
    """
    signal.signal(signal.SIGINT, lambda signum, frame: None)


def reseed() -> None:
    """Gives a forked replica random numbers of its own, unless the user chose the seed.

    Python's own `random` does this by itself.
    """
    numpy = sys.modules.get("numpy.random")
    try:
        if numpy is not None and numpy.mtrand._rand._bit_generator._seed_seq is not None:
            numpy.seed()
    except Exception:
        pass  # another numpy than the ones this knows


def line_buffered_output() -> None:
    """Lines reach the node's log as they are printed."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            try:
                reconfigure(line_buffering=True)
            except (ValueError, OSError):
                pass


def reason_not_to_fork() -> Optional[str]:
    """Why forking this process would be unsafe, or None."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    try:
        if cuda is not None and cuda.is_initialized():
            return "CUDA was initialised while the application was imported"
    except Exception:
        pass
    others = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
    if others:
        return f"after import another thread runs: {', '.join(others[:4])}"
    if _native_threads() > 1:
        # Libraries such as OpenBLAS end their threads before a fork and start them again after it.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer Pythons warn of what is being found out here
            pid = os.fork()
            if pid == 0:
                os._exit(0)
        os.waitpid(pid, 0)
        left = _native_threads() - 1
        if left > 0:
            return f"after import {left} native thread{'s' if left > 1 else ''} of a library run"
    return None


def _native_threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 1


#: The environment before user code was imported; None where that comes later.
_at_start: Optional[Dict[str, str]] = None


def remember_environment() -> None:
    """In a zygote, at its start."""
    global _at_start
    _at_start = dict(os.environ)


def take_environment(variables: Any) -> None:
    """The variables of INIT, which a forked process lacks, and what is to be read from them.

    What user code set while it was imported stays, as if it had been imported after this.
    """
    taken = set()
    for name, value in (variables or {}).items():
        if _at_start is None or os.environ.get(name) == _at_start.get(name):
            os.environ[name] = str(value)
            taken.add(name)
    if "OMP_NUM_THREADS" in taken:
        limit_threads(os.environ["OMP_NUM_THREADS"])


#: Part of a library's file name, variables that a user may have set for it, getters and setters.
_LIBRARIES = (
    (
        "openblas",
        ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS"),
        [
            (f"{before}openblas_get_num_threads{after}", f"{before}openblas_set_num_threads{after}")
            for before in ("", "scipy_")
            for after in ("", "64_")
        ],
    ),
    ("mkl_rt", ("MKL_NUM_THREADS",), [("MKL_Get_Max_Threads", "MKL_Set_Num_Threads")]),
)


def limit_threads(wanted: str) -> None:
    """Gives BLAS libraries that were loaded before the fork the threads of OMP_NUM_THREADS.

    They read it when they were loaded, where it was not set yet. A number other than that of the
    processors was chosen by the program, and stays.
    """
    first = wanted.split(",")[0].strip()
    if not first.isdigit() or int(first) < 1:
        return
    try:
        default = {os.cpu_count(), len(os.sched_getaffinity(0))}
        for path in _mapped_files():
            for part, variables, functions in _LIBRARIES:
                if part in os.path.basename(path) and not any(v in os.environ for v in variables):
                    _set_threads(path, functions, default, int(first))
    except Exception:
        pass  # it works with more threads too


def _mapped_files() -> List[str]:
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as f:
        return sorted({line[line.index("/") :].rstrip("\n") for line in f if "/" in line})


def _set_threads(path: str, functions: List[Any], default: Any, wanted: int) -> None:
    import ctypes

    library = ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    for getter, setter in functions:
        get, set_ = getattr(library, getter, None), getattr(library, setter, None)
        if get is not None and set_ is not None and get() in default and get() != wanted:
            set_(wanted)


#: Descriptors that keep the environment of this process and its forks from being collected.
_held: List[int] = []


def hold_environment() -> None:
    """Takes the shared locks that the node named; a fork has them too."""
    paths = os.environ.pop("RSERVE_ENV_LOCKS", "")
    if paths:
        from rserve import _env_store

        _held.extend(_env_store.hold(paths.split(":")))


def run_setup_hook(runtime_env: Dict[str, Any], app_dir: Optional[str]) -> None:
    """runtime_env's worker_process_setup_hook ("module.function"), before the user's code."""
    hook = runtime_env.get("worker_process_setup_hook")
    if not hook:
        return
    import importlib

    from rserve._errors import BuildError, one_line, user_traceback

    if app_dir and app_dir not in sys.path:
        sys.path.insert(0, app_dir)
    module, _, name = str(hook).replace(":", ".").rpartition(".")
    try:
        getattr(importlib.import_module(module), name)()
    except Exception as e:
        raise BuildError(
            "environment",
            type(e).__name__,
            f"worker_process_setup_hook {hook} failed: {one_line(e)}",
            f"worker_process_setup_hook {hook} failed:\n{user_traceback(e)}",
        ) from e
