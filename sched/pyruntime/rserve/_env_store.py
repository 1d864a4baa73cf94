"""Where built environments lie: found by content, shared by everyone, collected when unused.

    ROOT/KEY/            an environment, or an unpacked zip
    ROOT/KEY/.complete   written last, by rename: without it the folder counts for nothing
    ROOT/KEY.lock        flock: exclusive while it is built or removed, shared while it is used; its
                         time is when it was used last
    ROOT/log/KEY.log     what the tools said

A folder is filled in its final place, because virtual environments hold their own path; a builder
that dies half-way leaves a folder without .complete, which the next one removes. What an installer
started keeps the lock too, so that nobody builds beside one that outlived its builder.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

COMPLETE = ".complete"
MAX_BYTES = 10 << 30
MAX_AGE_S = 14 * 86400
#: Used so recently that whoever asked for it may not hold its lock yet.
GRACE_S = 600
_POLL_S = 0.1


def root() -> str:
    """$RSERVE_ENV_DIR, else $XDG_CACHE_HOME/rserve/envs, else ~/.cache/rserve/envs."""
    own = os.environ.get("RSERVE_ENV_DIR")
    if own:
        return os.path.abspath(own)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "rserve", "envs")


class Entry:
    """One key, locked: shared when `ready`, else exclusively and with an empty place to fill."""

    def __init__(self, key: str, folder: str, fd: int, ready: bool) -> None:
        self.key = key
        self.folder = folder
        self.fd = fd
        self.ready = ready

    @property
    def path(self) -> str:
        return os.path.join(self.folder, self.key)

    @property
    def lock_path(self) -> str:
        return self.path + ".lock"

    @property
    def log_path(self) -> str:
        return os.path.join(self.folder, "log", self.key + ".log")

    def finish(self, what: Any = None) -> None:
        """From here on it is believed. The lock becomes a shared one."""
        facts = {"what": what, "made": time.time(), "bytes": size_of(self.path)}
        marker = os.path.join(self.path, COMPLETE)
        with open(marker + ".new", "w", encoding="utf-8") as f:
            json.dump(facts, f)
            f.flush()
            os.fsync(f.fileno())
        os.rename(marker + ".new", marker)
        self.ready = True
        os.utime(self.lock_path)
        fcntl.flock(self.fd, fcntl.LOCK_SH)

    def abandon(self) -> None:
        """The build failed: nothing of it stays."""
        remove_tree(self.path)
        self.close()

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def facts_of(folder: str, key: str) -> Optional[Dict[str, Any]]:
    """What .complete says, or None: there is no such environment."""
    try:
        with open(os.path.join(folder, key, COMPLETE), encoding="utf-8") as f:
            facts = json.load(f)
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def acquire(key: str, waiting: Callable[[], None], folder: Optional[str] = None) -> Entry:
    """Finds `key`, or locks it for building. `waiting` is called once if someone else builds it."""
    folder = folder or root()
    os.makedirs(folder, mode=0o700, exist_ok=True)
    os.makedirs(os.path.join(folder, "log"), mode=0o700, exist_ok=True)
    told = False
    while True:
        fd = _open_lock(os.path.join(folder, key + ".lock"))
        shared = facts_of(folder, key) is not None
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
        except OSError as e:
            if e.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                os.close(fd)
                raise
            # Not by a lock that blocks: who builds keeps a shared one for as long as it is used.
            os.close(fd)
            if not told:
                waiting()
                told = True
            time.sleep(_POLL_S)
            continue
        if not _is_current(fd, os.path.join(folder, key + ".lock")):
            os.close(fd)  # it was collected meanwhile
            continue
        ready = facts_of(folder, key) is not None
        if shared and not ready:
            os.close(fd)
            continue
        entry = Entry(key, folder, fd, ready)
        if ready:
            fcntl.flock(fd, fcntl.LOCK_SH)
            os.utime(entry.lock_path)
        else:
            remove_tree(entry.path)
        return entry


def hold(lock_paths: List[str]) -> List[int]:
    """Shared locks for a process that uses what they guard; kept until it and its forks end."""
    fds = []
    for path in lock_paths:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fds.append(fd)
        except OSError:
            continue  # being collected, or no such thing: nothing to be held
    return fds


def _open_lock(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _is_current(fd: int, path: str) -> bool:
    try:
        here, there = os.fstat(fd), os.stat(path)
    except OSError:
        return False
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def size_of(path: str) -> int:
    """Bytes on disk of a tree, each file once."""
    total = 0
    seen = set()
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                st = os.lstat(os.path.join(folder, name))
            except OSError:
                continue
            if (st.st_dev, st.st_ino) not in seen:
                seen.add((st.st_dev, st.st_ino))
                total += st.st_blocks * 512
    return total


def remove_tree(path: str) -> None:
    """Out of sight by a rename first, so that a removal cut short leaves nothing half believed."""
    if not os.path.lexists(path):
        return
    gone = f"{path}.gone-{os.getpid()}-{time.monotonic_ns()}"
    os.rename(path, gone)
    shutil.rmtree(gone, ignore_errors=True)


# --- collection


def _candidates(folder: str) -> List[Tuple[float, int, str]]:
    """(last used, bytes, key), the longest unused first; bytes -1: it was never completed."""
    found = []
    for name in os.listdir(folder):
        if not name.endswith(".lock"):
            continue
        key = name[: -len(".lock")]
        facts = facts_of(folder, key)
        try:
            used = os.stat(os.path.join(folder, name)).st_mtime
        except OSError:
            continue
        found.append((used, int(facts.get("bytes") or 0) if facts else -1, key))
    return sorted(found)


def collect(
    folder: Optional[str] = None,
    max_bytes: Optional[int] = None,
    max_age_s: Optional[float] = None,
    grace_s: Optional[float] = None,
    now: Optional[float] = None,
) -> List[str]:
    """Removes what is too old or too much, never what is in use. Returns the keys removed.

    The limits come from RSERVE_ENV_MAX_GB and RSERVE_ENV_MAX_DAYS where no argument says otherwise.
    """
    folder = folder or root()
    now = time.time() if now is None else now
    if max_bytes is None:
        max_bytes = int(_number("RSERVE_ENV_MAX_GB", MAX_BYTES / (1 << 30)) * (1 << 30))
    if max_age_s is None:
        max_age_s = _number("RSERVE_ENV_MAX_DAYS", MAX_AGE_S / 86400) * 86400
    if grace_s is None:
        grace_s = _number("RSERVE_ENV_GRACE_S", GRACE_S)
    if not os.path.isdir(folder):
        return []
    _sweep(folder)
    entries = _candidates(folder)
    total = sum(size for _, size, _ in entries if size > 0)
    removed = []
    for used, size, key in entries:
        wanted = size >= 0 and total <= max_bytes and now - used <= max_age_s
        if now - used < grace_s or wanted:
            continue
        if _remove_unused(folder, key, grace_s, now):
            removed.append(key)
            total -= max(size, 0)
    return removed


def _number(name: str, default: float) -> float:
    try:
        return max(0.0, float(os.environ[name]))
    except (KeyError, ValueError):
        return default


def _sweep(folder: str) -> None:
    """What removals cut short left behind."""
    for name in os.listdir(folder):
        if ".gone-" in name or name.startswith(".part-"):
            path = os.path.join(folder, name)
            try:
                old = time.time() - os.lstat(path).st_mtime > 3600
            except OSError:
                continue
            if ".gone-" in name or old:
                shutil.rmtree(path, ignore_errors=True)
                try:
                    os.unlink(path)
                except OSError:
                    pass


def _remove_unused(folder: str, key: str, grace_s: float, now: float) -> bool:
    path = os.path.join(folder, key)
    try:
        fd = os.open(path + ".lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.utime(path + ".lock", (now, now))  # in use: that is a use
            return False
        if not _is_current(fd, path + ".lock") or now - os.fstat(fd).st_mtime < grace_s:
            return False
        remove_tree(path)
        for left in (path + ".lock", os.path.join(folder, "log", key + ".log")):
            try:
                os.unlink(left)
            except OSError:
                pass
        return True
    finally:
        os.close(fd)
