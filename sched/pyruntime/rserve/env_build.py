"""Builds the environment of a runtime_env, for the node, which runs this before a zygote.

    python -m rserve.env_build
        with the connection to the node in RSERVE_FD: BUILD comes, ENV_PROGRESS and then ENV_READY
        or FAILED go out
    python -m rserve.env_build '{"pip": ["x"]}' FOLDER
        by hand: progress on stderr, the result on stdout

What is there already is found in some ten milliseconds; see _env_store.py for where.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections import deque
from typing import Any, Deque, Dict, List, Mapping

from rserve import _env_install as installer
from rserve import _env_store as store
from rserve import _wire as w
from rserve._env_fetch import Fetcher
from rserve._env_run import Reporter, Runner
from rserve._env_spec import EnvError, Spec, packages_key, parse


def build(env: Mapping[str, Any], base: str, node: str, reporter: Reporter) -> Dict[str, Any]:
    """Everything that `env` asks for, made or found.

    Returns {"python": [words], "cwd": text or None, "path": [folders], "env": {name: value},
    "locks": [files]}: what starts an interpreter in it. Raises EnvError.
    """
    reporter.hide([v for v in (env.get("env_vars") or {}).values() if isinstance(v, str)])
    spec = parse(env, base)
    fetcher = Fetcher(reporter, node)
    ready: Dict[str, Any] = {"python": [], "cwd": None, "path": [], "env": {}, "locks": []}
    if spec.working_dir:
        ready["cwd"], ready["path"] = fetcher.working_dir(spec.working_dir, spec.excludes)
    for i, source in enumerate(spec.py_modules):
        ready["path"] += fetcher.py_module(f"py_modules[{i}]", source, spec.excludes)
    if spec.working_dir and base not in ready["path"]:
        ready["path"].append(base)  # what lies beside the file is found too, but last
    ready["locks"] = [entry.lock_path for entry in fetcher.entries]
    if spec.packages:
        _packages(spec, base, reporter, ready)
    elif spec.conda:
        _conda(spec, reporter, ready)
    if spec.py_executable:
        ready["python"] = _executable(spec.py_executable, ready["env"].get("PATH"), node)
    return ready


def _waiting(reporter: Reporter) -> None:
    reporter.say("waiting for another process that builds the same environment")


def _packages(spec: Spec, base: str, reporter: Reporter, ready: Dict[str, Any]) -> None:
    assert spec.packages is not None
    key = packages_key(spec.packages, os.environ)
    entry = store.acquire(key, lambda: _waiting(reporter))
    if not entry.ready:
        try:
            installer.install(spec.packages, entry, reporter, base)
        except EnvError:
            entry.abandon()
            raise
        entry.finish(spec.packages.packages)
    ready["python"] = [os.path.join(entry.path, "bin", "python")]
    ready["env"].update(installer.activation(entry.path, "VIRTUAL_ENV"))
    ready["locks"].append(entry.lock_path)


def _conda(spec: Spec, reporter: Reporter, ready: Dict[str, Any]) -> None:
    value = spec.conda
    assert value
    if isinstance(value, str) and not value.endswith((".yml", ".yaml")):
        log = os.path.join(store.root(), "log")
        os.makedirs(log, mode=0o700, exist_ok=True)
        fd = os.open(os.path.join(log, "conda.log"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        runner = Runner(
            reporter, installer.clean_environment(), os.path.join(log, "conda.log"), fd
        )
        prefix = installer.conda_prefix(value, runner)
        os.close(fd)
    else:
        entry = store.acquire(installer.conda_key(value), lambda: _waiting(reporter))
        if not entry.ready:
            try:
                installer.conda_create(value, entry, reporter)
            except EnvError:
                entry.abandon()
                raise
            entry.finish(value)
        ready["locks"].append(entry.lock_path)
        prefix = entry.path
    ready["python"] = [os.path.join(prefix, "bin", "python")]
    ready["env"].update(installer.activation(prefix, "CONDA_PREFIX"))


def _executable(words: List[str], path: Any, node: str) -> List[str]:
    found = shutil.which(words[0], path=path or os.environ.get("PATH"))
    if not found:
        raise EnvError(f"py_executable: '{words[0]}' is not there on node '{node}'")
    return [found, *words[1:]]


# --- ways to be run


def _serve(sock: socket.socket) -> int:
    reader = w.Reader(sock)
    inbox: Deque[w.Frame] = deque()
    message = w.parse_json(w.read_frame(reader, inbox))
    reporter = Reporter(lambda text: w.send_json(sock, w.ENV_PROGRESS, {"text": text}))
    base = str(message.get("base_dir") or os.getcwd())
    try:
        ready = build(message.get("runtime_env") or {}, base, str(message.get("node")), reporter)
    except EnvError as e:
        _failed(sock, reporter, e)
        return 0
    except OSError as e:
        _failed(sock, reporter, EnvError(f"{e.strerror or e}: {e.filename or store.root()}"))
        return 0
    w.send_json(sock, w.ENV_READY, ready)
    try:
        store.collect()
    except OSError:
        pass  # another one will
    return 0


def _failed(sock: socket.socket, reporter: Reporter, e: EnvError) -> None:
    lines = [reporter.clean(e.message)] + ["  " + reporter.clean(line) for line in e.lines]
    w.send_json(
        sock,
        w.FAILED,
        {
            "phase": "environment",
            "kind": "RuntimeEnvSetupError",
            "error": lines[0],
            "traceback": "\n".join(lines)[:8000],
            "retry": e.retry,
        },
    )


def _by_hand(argv: List[str]) -> int:
    reporter = Reporter(lambda text: print(text, file=sys.stderr, flush=True))
    base = argv[1] if len(argv) > 1 else os.getcwd()
    try:
        ready = build(json.loads(argv[0]), base, socket.gethostname(), reporter)
    except EnvError as e:
        print("\n".join([e.message, *e.lines]), file=sys.stderr)
        return 1
    print(json.dumps(ready))
    store.collect()
    return 0


def main() -> int:
    fd = w.fd_from_environment()
    if fd is None:
        return _by_hand(sys.argv[1:]) if len(sys.argv) > 1 else 2
    os.environ.pop("RSERVE_FD", None)
    os.set_inheritable(fd, False)
    try:
        return _serve(socket.socket(fileno=fd))
    except (w.HangUp, BrokenPipeError, ConnectionResetError):
        return 0


if __name__ == "__main__":
    sys.exit(main())
