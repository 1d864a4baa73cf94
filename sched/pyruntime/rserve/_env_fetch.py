"""Code for working_dir and py_modules: local folders, zips, URLs of zips.

A zip is found again by the hash of its bytes; a URL is asked each time whether it still has what
was fetched last (ETag, Last-Modified), and what was fetched last is good enough while it cannot be
reached.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from typing import Any, Callable, Dict, List, Optional, Tuple

from rserve import _env_store as store
from rserve._env_run import Reporter
from rserve._env_spec import EnvError, digest_of, scheme_of

_TIMEOUT_S = 30
_CHUNK = 1 << 20


class Fetcher:
    """`entries` are the locks of what was used: the caller closes them."""

    def __init__(self, reporter: Reporter, node: str, folder: Optional[str] = None) -> None:
        self.entries: List[store.Entry] = []
        self._reporter = reporter
        self._node = node
        self._folder = folder or store.root()

    # --- what a runtime_env names

    def working_dir(self, source: str, excludes: List[str]) -> Tuple[str, List[str]]:
        """The folder, and what goes on sys.path."""
        scheme = scheme_of(source)
        if scheme is None and os.path.isdir(source):
            folder = self._without(source, excludes) if excludes else source
            return folder, [folder]
        top = self._unpacked("working_dir", source, excludes)
        inner = _only_folder(top)
        return (inner, [inner, top]) if inner else (top, [top])

    def py_module(self, where: str, source: str, excludes: List[str]) -> List[str]:
        """What goes on sys.path so that the module can be imported."""
        if scheme_of(source) is None and not source.endswith((".zip", ".whl")):
            if not os.path.exists(source):
                raise self._absent(where, source)
            if os.path.isdir(source) and excludes:
                return [self._without(source, excludes, os.path.basename(source))]
            if os.path.isdir(source) or source.endswith(".py"):
                return [self._link(source)]
            raise EnvError(f"{where}: expected a folder, a .py file, a .zip or a .whl: {source}")
        top = self._unpacked(where, source, excludes)
        inner = _only_folder(top)
        return [inner, top] if inner else [top]

    def _absent(self, where: str, path: str) -> EnvError:
        return EnvError(
            f"{where}: {path} does not exist on node '{self._node}'; local paths must be there on "
            "every node that runs the application (a URL of a zip works everywhere)"
        )

    def _waiting(self) -> None:
        self._reporter.say("waiting for another process that prepares the same files")

    def _entry(self, key: str) -> store.Entry:
        entry = store.acquire(key, self._waiting, self._folder)
        self.entries.append(entry)
        return entry

    # --- local folders

    def _link(self, source: str) -> str:
        """A folder in which nothing but this module can be imported."""
        entry = self._entry(f"module-{digest_of(source)}")
        if not entry.ready:
            os.makedirs(entry.path)
            os.symlink(source, os.path.join(entry.path, os.path.basename(source)))
            entry.finish(source)
        return entry.path

    def _without(self, source: str, excludes: List[str], below: str = "") -> str:
        """A copy of the folder, `below` another one, that lacks what `excludes` matches."""
        matches = matcher(excludes)
        names: List[Tuple[str, int, int, int]] = []
        for folder, folders, files in os.walk(source):
            inside = os.path.relpath(folder, source)
            inside = "" if inside == "." else inside + "/"
            folders[:] = sorted(d for d in folders if not matches(inside + d, True))
            for name in sorted(files):
                if not matches(inside + name, False):
                    st = os.stat(os.path.join(folder, name))
                    names.append((inside + name, st.st_size, st.st_mtime_ns, st.st_mode))
        entry = self._entry(f"dir-{digest_of([source, below, names])}")
        if not entry.ready:
            self._reporter.say(f"copying {source}")
            os.makedirs(os.path.join(entry.path, below))
            for name, _, _, _ in names:
                to = os.path.join(entry.path, below, name)
                os.makedirs(os.path.dirname(to), exist_ok=True)
                shutil.copy2(os.path.join(source, name), to)
            entry.finish(source)
        return entry.path

    # --- zips

    def _unpacked(self, where: str, source: str, excludes: List[str]) -> str:
        scheme = scheme_of(source)
        if scheme in ("http", "https"):
            return self._from_url(where, source, excludes)
        path = source
        if scheme == "file":
            path = urllib.parse.unquote(urllib.parse.urlsplit(source).path)
            if os.path.isdir(path):
                raise EnvError(f"{where}: {source} is a folder; file:// takes a zip")
        if not os.path.exists(path):
            raise self._absent(where, path)
        return self._unpack(where, source, path, _hash_file(path), excludes)

    def _unpack(self, where: str, source: str, path: str, sha: str, excludes: List[str]) -> str:
        key = f"zip-{sha[:32]}" + (f"-{digest_of(excludes)[:8]}" if excludes else "")
        entry = self._entry(key)
        if not entry.ready:
            self._reporter.say(f"unpacking {os.path.basename(source.split('?')[0])}")
            try:
                unzip(path, entry.path, matcher(excludes))
            except (zipfile.BadZipFile, ValueError, OSError, RuntimeError) as e:
                entry.abandon()
                shown = self._reporter.clean(source)
                raise EnvError(f"{where}: {shown} cannot be unpacked as a zip: {e}") from None
            entry.finish(source)
        return entry.path

    def _from_url(self, where: str, url: str, excludes: List[str]) -> str:
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        note = os.path.join(self._folder, f"url-{digest_of(url)}.json")
        known = _read_note(note)
        sha = known.get("sha256", "")
        key = f"zip-{sha[:32]}" + (f"-{digest_of(excludes)[:8]}" if excludes else "")
        have = bool(sha) and store.facts_of(self._folder, key) is not None
        fd, path = tempfile.mkstemp(prefix=".part-", dir=self._folder)
        os.close(fd)
        try:
            fresh = self._download(where, url, path, known if have else {}, have)
            if fresh is None:
                return self._unpack(where, url, path, sha, excludes)
            fresh["sha256"] = _hash_file(path)
            folder = self._unpack(where, url, path, fresh["sha256"], excludes)
            with open(path + ".note", "w", encoding="utf-8") as f:
                json.dump(fresh, f)
            os.rename(path + ".note", note)
            return folder
        finally:
            os.unlink(path)

    def _download(
        self, where: str, url: str, path: str, known: Dict[str, str], have: bool
    ) -> Optional[Dict[str, str]]:
        """Facts about what now lies at `path`; None: what is there already is still right."""
        plain, headers = _split_user(url)
        shown = self._reporter.clean(plain)
        if known.get("etag"):
            headers["If-None-Match"] = known["etag"]
        elif known.get("last_modified"):
            headers["If-Modified-Since"] = known["last_modified"]
        request = urllib.request.Request(plain, headers=headers)
        self._reporter.say(f"downloading {shown}")
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
                self._save(answer, path, shown)
                return {
                    "etag": answer.headers.get("ETag") or "",
                    "last_modified": answer.headers.get("Last-Modified") or "",
                }
        except urllib.error.HTTPError as e:
            e.close()
            if e.code == 304 and have:
                return None
            again = e.code in (408, 425, 429) or e.code >= 500
            if again and have:
                self._as_before(shown, f"status {e.code}")
                return None
            raise EnvError(f"{where}: GET {shown}: status {e.code} {e.reason}", retry=again) from e
        except (OSError, urllib.error.URLError) as e:
            reason = getattr(e, "reason", None) or e
            if have:
                self._as_before(shown, str(reason))
                return None
            raise EnvError(f"{where}: GET {shown}: {reason}", retry=True) from None

    def _as_before(self, shown: str, why: str) -> None:
        self._reporter.say(f"{shown} cannot be reached ({why}): using what it gave before")

    def _save(self, answer: Any, path: str, shown: str) -> None:
        total = int(answer.headers.get("Content-Length") or 0)
        got = 0
        with open(path, "wb") as f:
            while True:
                data = answer.read(_CHUNK)
                if not data:
                    break
                f.write(data)
                got += len(data)
                of = f" of {total / 1e6:.1f}" if total else ""
                self._reporter.say(f"downloading {shown} ({got / 1e6:.1f}{of} MB)", must=False)
        if total and got < total:
            raise OSError(f"the connection ended after {got} of {total} bytes")


def _split_user(url: str) -> Tuple[str, Dict[str, str]]:
    """The URL without user:password@, and the header that says the same."""
    parts = urllib.parse.urlsplit(url)
    headers = {"User-Agent": "rserve"}
    if "@" not in parts.netloc:
        return url, headers
    user, host = parts.netloc.rsplit("@", 1)
    token = base64.b64encode(urllib.parse.unquote(user).encode()).decode()
    headers["Authorization"] = "Basic " + token
    return urllib.parse.urlunsplit(parts._replace(netloc=host)), headers


def _read_note(path: str) -> Dict[str, str]:
    try:
        with open(path, encoding="utf-8") as f:
            note = json.load(f)
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in note.items() if isinstance(v, str)} if isinstance(note, dict) else {}


def _hash_file(path: str) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as f:
            for data in iter(lambda: f.read(_CHUNK), b""):
                digest.update(data)
    except OSError as e:
        raise EnvError(f"cannot read {path}: {e.strerror or e}") from None
    return digest.hexdigest()


def unzip(path: str, to: str, excluded: Callable[[str, bool], bool]) -> None:
    """Regular files and folders only, none outside `to`, with their permission bits."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        need = sum(m.file_size for m in members)
        os.makedirs(to, exist_ok=True)
        free = shutil.disk_usage(to).free
        if need > free:
            raise ValueError(f"it needs {need} bytes unpacked; {free} are free")
        for member in members:
            name = member.filename
            parts = [p for p in name.split("/") if p not in ("", ".")]
            if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
                raise ValueError(f"member {name!r} would lie outside")
            if not parts or _is_excluded(parts, member.is_dir(), excluded):
                continue
            mode = member.external_attr >> 16
            if stat.S_ISLNK(mode):
                raise ValueError(f"member {name!r} is a symbolic link")
            target = os.path.join(to, *parts)
            if member.is_dir():
                os.makedirs(target, exist_ok=True)
                continue
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with archive.open(member) as source, open(target, "wb") as out:
                shutil.copyfileobj(source, out, _CHUNK)
            if mode & 0o111:
                os.chmod(target, 0o755)


def _is_excluded(parts: List[str], folder: bool, excluded: Callable[[str, bool], bool]) -> bool:
    for i in range(1, len(parts) + 1):
        if excluded("/".join(parts[:i]), folder or i < len(parts)):
            return True
    return False


def _only_folder(top: str) -> Optional[str]:
    """The one folder that everything lies in, unless it is itself what is imported."""
    names = [n for n in os.listdir(top) if n not in (store.COMPLETE, "__MACOSX")]
    inner = os.path.join(top, names[0]) if len(names) == 1 else ""
    return inner if inner and os.path.isdir(inner) else None


# --- excludes


def matcher(patterns: List[str]) -> Callable[[str, bool], bool]:
    """Tells for a path below the folder, and whether it is a folder, if the patterns leave it out.

    They are those of a .gitignore: later ones win, ! takes back, a / before the end binds to the
    top.
    """
    rules = []
    for pattern in patterns:
        text = pattern.strip()
        if not text or text.startswith("#"):
            continue
        back = text.startswith("!")
        text = text[1:] if back else text
        only_folders = text.endswith("/")
        bound = "/" in text.rstrip("/")
        rules.append((_regex(text.strip("/"), bound), only_folders, back))

    def matches(path: str, folder: bool) -> bool:
        out = False
        for regex, only_folders, back in rules:
            if regex.match(path) and (folder or not only_folders):
                out = not back
        return out

    return matches


def _regex(text: str, bound: bool) -> "re.Pattern[str]":
    out = "" if bound else "(?:.*/)?"
    i = 0
    while i < len(text):
        if text.startswith("**/", i):
            out += "(?:.*/)?"
            i += 3
        elif text.startswith("**", i):
            out += ".*"
            i += 2
        elif text[i] == "*":
            out += "[^/]*"
            i += 1
        elif text[i] == "?":
            out += "[^/]"
            i += 1
        elif text[i] == "[" and "]" in text[i + 2 :]:
            end = text.index("]", i + 2)
            inside = text[i + 1 : end].replace("\\", "\\\\")
            out += "[" + ("^" + inside[1:] if inside[0] == "!" else inside) + "]"
            i = end + 1
        else:
            out += re.escape(text[i])
            i += 1
    return re.compile(out + r"\Z")
