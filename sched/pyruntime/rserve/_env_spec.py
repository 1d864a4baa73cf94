"""What a runtime_env asks to be built: read, checked and reduced to what a key is made of.

Nothing here builds or downloads anything. Paths are made absolute against the folder that the
caller names; the text of a requirements file takes the place of its name, so that a change of the
file is a change of the environment.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

#: What this process acts on. env_vars, excludes, config and worker_process_setup_hook are other
#: people's: the node, the fetcher, the node and the zygote.
KEYS = ("working_dir", "py_modules", "pip", "uv", "conda", "py_executable")

SCHEMES = ("http", "https", "file")
_REMOTE = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
#: Options of a requirements line that name a file or folder.
_FILE_OPTIONS = (
    "-r",
    "--requirement",
    "-c",
    "--constraint",
    "-e",
    "--editable",
    "-f",
    "--find-links",
)
_MAX_REQUIREMENTS = 1 << 20


class EnvError(Exception):
    """The environment cannot be had. `lines`: what the tool said last. `retry`: try again."""

    def __init__(self, message: str, lines: Sequence[str] = (), retry: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.lines = list(lines)
        self.retry = retry


class Packages(NamedTuple):
    """The pip or uv entry."""

    tool: str
    packages: List[str]
    check: bool
    version: str
    options: List[str]


class Spec(NamedTuple):
    working_dir: Optional[str]
    py_modules: List[str]
    excludes: List[str]
    packages: Optional[Packages]
    conda: Union[None, str, Dict[str, Any]]
    py_executable: List[str]


def scheme_of(text: str) -> Optional[str]:
    found = _REMOTE.match(text)
    return found.group(1).lower() if found else None


def absolute(path: str, base: str) -> str:
    return os.path.abspath(os.path.join(base, os.path.expanduser(path)))


def absolute_paths(env: Mapping[str, Any], base: str) -> Dict[str, Any]:
    """The same environment with what it names by path named from anywhere, requirements read."""
    out = dict(env)
    spec = parse(env, base)
    if spec.working_dir:
        out["working_dir"] = spec.working_dir
    if spec.py_modules:
        out["py_modules"] = spec.py_modules
    if isinstance(spec.conda, str):
        out["conda"] = spec.conda
    for tool in ("pip", "uv"):
        if spec.packages and isinstance(out.get(tool), Mapping):
            out[tool] = dict(out[tool], packages=spec.packages.packages)
        elif spec.packages and out.get(tool):
            out[tool] = spec.packages.packages
    return out


def parse(env: Mapping[str, Any], base: str) -> Spec:
    """`base` is the folder that relative paths start from."""
    modules = env.get("py_modules") or []
    if not isinstance(modules, (list, tuple)):
        raise EnvError(f"py_modules: expected a list, got {type(modules).__name__}")
    given = [key for key in ("pip", "uv", "conda") if env.get(key)]
    if len(given) > 1:
        raise EnvError(f"runtime_env: {' and '.join(given)} exclude each other; keep one of them")
    working_dir = env.get("working_dir")
    return Spec(
        working_dir=_source("working_dir", working_dir, base) if working_dir else None,
        py_modules=[_source(f"py_modules[{i}]", m, base) for i, m in enumerate(modules)],
        excludes=_texts("excludes", env.get("excludes")),
        packages=_packages(env, base),
        conda=_conda(env.get("conda"), base),
        py_executable=_words(env.get("py_executable"), base),
    )


def _source(where: str, value: Any, base: str) -> str:
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise EnvError(f"{where}: expected a folder, a zip file or a URL, got {value!r}")
    text = str(os.fspath(value))
    scheme = scheme_of(text)
    if scheme is None:
        return absolute(text, base)
    if scheme not in SCHEMES:
        raise EnvError(
            f"{where}: {scheme}:// is not supported; use http://, https:// or file:// with a zip, "
            "or a local folder"
        )
    return text


def _texts(where: str, value: Any) -> List[str]:
    if value is None:
        return []
    if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
        raise EnvError(f"{where}: expected a list of texts, got {value!r}")
    return list(value)


def _words(value: Any, base: str) -> List[str]:
    if not value:
        return []
    import shlex

    try:
        words = shlex.split(str(value))
    except ValueError as e:
        raise EnvError(f"py_executable: {e}: {value!r}") from None
    if words and os.sep in words[0]:
        words[0] = absolute(words[0], base)
    return words


def _conda(value: Any, base: str) -> Union[None, str, Dict[str, Any]]:
    if not value:
        return None
    if isinstance(value, Mapping):
        return dict(value)
    text = str(value)
    if text.endswith((".yml", ".yaml")):
        return absolute(text, base)
    if os.sep in text:
        return absolute(text, base)
    return text


# --- pip and uv


def _packages(env: Mapping[str, Any], base: str) -> Optional[Packages]:
    for tool in ("pip", "uv"):
        value = env.get(tool)
        if not value:
            continue
        if not isinstance(value, Mapping):
            return Packages(tool, _requirements(tool, value, base), False, "", [])
        known = {"packages", f"{tool}_check", f"{tool}_version", f"{tool}_pip_install_options"}
        known |= {"pip_install_options"}
        unknown = sorted(set(value) - known)
        if unknown:
            raise EnvError(f"{tool}: unknown key {unknown[0]!r}; known: {', '.join(sorted(known))}")
        options = value.get(f"{tool}_pip_install_options", value.get("pip_install_options"))
        return Packages(
            tool,
            _requirements(f"{tool}.packages", value.get("packages") or [], base),
            bool(value.get(f"{tool}_check", False)),
            _version(tool, value.get(f"{tool}_version")),
            _texts(f"{tool}.pip_install_options", options),
        )
    return None


def _version(tool: str, value: Any) -> str:
    """ "==23.1" or "23.1"; what pip calls a version specifier."""
    text = str(value or "").strip()
    return f"=={text}" if text[:1].isdigit() else text


def _requirements(where: str, value: Any, base: str) -> List[str]:
    if isinstance(value, str):
        path = absolute(value, base)
        try:
            with open(path, encoding="utf-8") as f:
                text = f.read(_MAX_REQUIREMENTS + 1)
        except (OSError, UnicodeDecodeError) as e:
            reason = getattr(e, "strerror", None) or "it is not text in UTF-8"
            raise EnvError(
                f"{where}: cannot read the requirements file {path}: {reason}"
            ) from None
        if len(text) > _MAX_REQUIREMENTS:
            raise EnvError(f"{where}: {path} is larger than {_MAX_REQUIREMENTS >> 20} MiB")
        return list(_lines(text, os.path.dirname(path)))
    out: List[str] = []
    for item in _texts(where, value):
        out.extend(_lines(item, base))
    return out


def _lines(text: str, base: str) -> Iterator[str]:
    """The requirements in `text`, without comments, paths absolute."""
    for line in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"(^|\s)#.*$", "", line).strip()
        if line:
            yield _anchor(line, base)


def _anchor(line: str, base: str) -> str:
    if line.startswith(("./", "../")):
        return os.path.normpath(os.path.join(base, line))
    for option in _FILE_OPTIONS:
        for separator in (" ", "=", "" if len(option) == 2 else " "):
            if not line.startswith(option + separator) or line == option:
                continue
            value = line[len(option + separator) :].strip()
            if value.startswith("-") or scheme_of(value) or re.match(r"^\w+\+", value):
                return line
            if option in ("-e", "--editable") and not value.startswith((".", "/", "~")):
                return line
            return f"{option} {absolute(value, base)}"
    return line


# --- keys


def files_of(lines: Sequence[str], depth: int = 0) -> Iterator[Tuple[str, str]]:
    """Local files that requirements name, with a digest of what is in them."""
    for line in lines:
        path = _file_in(line)
        if path is None:
            continue
        if os.path.isdir(path):
            yield path, tree_digest(path)
            continue
        try:
            with open(path, "rb") as f:
                data = f.read()
        except OSError:
            continue  # the installer will say it
        yield path, hashlib.sha256(data).hexdigest()
        if depth < 8 and line.startswith(("-r", "--requirement", "-c", "--constraint")):
            nested = list(_lines(data.decode("utf-8", "replace"), os.path.dirname(path)))
            yield from files_of(nested, depth + 1)


def _file_in(line: str) -> Optional[str]:
    for option in _FILE_OPTIONS:
        if line.startswith(option + " "):
            if option in ("-f", "--find-links"):
                return None  # an index, as those on the network are
            line = line[len(option) :].strip()
            break
    found = re.search(r"file://([^\s;#]+)", line)
    path = found.group(1) if found else re.sub(r"(\[[^\]]*\])?(\s*;.*)?$", "", line)
    return path if path.startswith("/") and os.path.exists(path) else None


def tree_digest(folder: str) -> str:
    """Of names, sizes and times: cheap, and enough to see a change."""
    digest = hashlib.sha256()
    for path, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if f not in (".git", "__pycache__"))
        for name in sorted(names):
            full = os.path.join(path, name)
            try:
                st = os.stat(full)
            except OSError:
                continue
            digest.update(f"{full}\0{st.st_size}\0{st.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def digest_of(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def interpreter() -> Dict[str, str]:
    """What an environment depends on below its packages."""
    return {
        "python": sys.version,
        "executable": os.path.realpath(sys.executable),
        "prefix": sys.prefix,
        "base": sys.base_prefix,
    }


def packages_key(p: Packages, environment: Mapping[str, str]) -> str:
    """The folder of a virtual environment: equal for equal contents."""
    asked = {k: v for k, v in environment.items() if k.startswith(("PIP_", "UV_"))}
    named = [f"{a} {b}" for a, b in zip(p.options, p.options[1:]) if a in _FILE_OPTIONS]
    files = list(files_of(p.packages + named))
    parts = [sorted(p.packages), p.check, p.version, p.options, files, asked, interpreter()]
    return f"{p.tool}-{digest_of(parts)}"
