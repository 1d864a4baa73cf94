"""Virtual environments (pip, uv) and conda environments.

A virtual environment sees the packages of the interpreter that it is made from, also where that is
a virtual environment itself; what it has of its own comes first.
"""

from __future__ import annotations

import json
import os
import shutil
import site
import sys
import sysconfig
from typing import Any, Dict, List, Optional, Union

from rserve import _env_store as store
from rserve._env_run import Reporter, Runner
from rserve._env_spec import EnvError, Packages, digest_of, interpreter


def clean_environment() -> Dict[str, str]:
    """This process' own, without what only it needs."""
    env = dict(os.environ)
    for name in ("RSERVE_FD", "PYTHONUNBUFFERED", "VIRTUAL_ENV", "PYTHONHOME"):
        env.pop(name, None)
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    rest = [p for p in env.get("PYTHONPATH", "").split(os.pathsep) if p and p != ours]
    env.pop("PYTHONPATH", None)
    if rest:
        env["PYTHONPATH"] = os.pathsep.join(rest)
    return env


def _inherited_paths() -> List[str]:
    """Package folders of this interpreter."""
    paths = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    paths += site.getsitepackages()
    if site.ENABLE_USER_SITE:
        paths.append(site.getusersitepackages())
    return [p for p in dict.fromkeys(paths) if p and os.path.isdir(p)]


def make_venv(path: str) -> str:
    """The interpreter of a new virtual environment at `path`."""
    try:
        import venv
    except ImportError:
        raise EnvError(
            f"{sys.executable} has no module venv; install it (Debian: python3-venv)"
        ) from None
    try:
        venv.EnvBuilder(system_site_packages=True, symlinks=True, with_pip=False).create(path)
    except (OSError, ValueError) as e:
        raise EnvError(f"cannot create a virtual environment at {path}: {e}") from None
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = os.path.join(path, "lib", version, "site-packages")
    with open(os.path.join(packages, "_rserve_base.pth"), "w", encoding="utf-8") as f:
        for folder in _inherited_paths():
            f.write(f"import site; site.addsitedir({folder!r})\n")
    return os.path.join(path, "bin", "python")


def install(p: Packages, entry: store.Entry, reporter: Reporter, base: str) -> None:
    """Fills `entry` with a virtual environment that has the packages."""
    reporter.say(f"creating a virtual environment for {p.tool}")
    python = make_venv(entry.path)
    env = clean_environment()
    env.update(VIRTUAL_ENV=entry.path, PATH=_path_with(os.path.dirname(python)))
    env.update(PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1")
    runner = Runner(reporter, env, entry.log_path, entry.fd)
    requirements = os.path.join(entry.path, "requirements.txt")
    with open(requirements, "w", encoding="utf-8") as f:
        f.write("".join(line + "\n" for line in p.packages))
    names = ", ".join(x for x in p.packages if not x.startswith("-"))
    what = f"installing {names if len(names) <= 120 else names[:117] + '...'} with {p.tool}"
    cwd = base if os.path.isdir(base) else entry.path
    if p.tool == "uv":
        tool = _uv(p, python, runner, cwd)
        line = [tool, "pip", "install", "--python", python, *p.options, "-r", requirements]
        check = [tool, "pip", "check", "--python", python]
    else:
        line = [python, "-m", "pip", "install", *p.options, "-r", requirements]
        check = [python, "-m", "pip", "check"]
        if p.version:
            asked = [python, "-m", "pip", "install", *p.options, f"pip{p.version}"]
            _with_pip(f"installing pip {p.version}", asked, runner, cwd)
    if p.packages:
        _with_pip(what, line, runner, cwd)
    if p.check:
        _with_pip(f"checking the packages with {p.tool}", check, runner, cwd)


def _path_with(folder: str) -> str:
    return os.pathsep.join([folder, os.environ.get("PATH", os.defpath)])


def _with_pip(what: str, argv: List[str], runner: Runner, cwd: str) -> None:
    """Runs the line; where the interpreter has no pip, after getting it one."""
    try:
        runner.run(what, argv, cwd)
        return
    except EnvError as e:
        missing = e
    if not any("No module named pip" in line for line in missing.lines):
        raise missing
    try:
        runner.run("installing pip", [argv[0], "-m", "ensurepip", "--default-pip"], cwd)
    except EnvError:
        raise EnvError(
            f"pip is not there for {sys.executable}; install it (Debian: python3-pip, or "
            "python3-venv)",
            missing.lines,
        ) from None
    runner.run(what, argv, cwd)


def _uv(p: Packages, python: str, runner: Runner, cwd: str) -> str:
    """The uv to use: that on PATH, unless a version is asked for or there is none."""
    found = shutil.which("uv", path=runner.env.get("PATH"))
    if found and not p.version:
        return found
    try:
        line = [python, "-m", "pip", "install", f"uv{p.version}"]
        _with_pip(f"installing uv {p.version}".strip(), line, runner, cwd)
    except EnvError as e:
        reason = "uv is not on PATH" if not found else f"uv {p.version} is asked for"
        raise EnvError(f"{reason} and cannot be installed with pip: {e.message}", e.lines, e.retry)
    return os.path.join(os.path.dirname(python), "uv")


# --- conda


def _conda_tool() -> str:
    for name in ("conda", "mamba", "micromamba"):
        found = os.environ.get("CONDA_EXE") if name == "conda" else None
        found = found or shutil.which(name)
        if found:
            return found
    raise EnvError("conda: none of conda, mamba and micromamba is on PATH")


def conda_prefix(name: str, runner: Runner) -> str:
    """The folder of an existing environment."""
    if os.sep in name:
        if os.path.exists(os.path.join(name, "bin", "python")):
            return name
        raise EnvError(f"conda: {name} is not an environment: it has no bin/python")
    tool = _conda_tool()
    lines = runner.run(f"looking for the conda environment {name}", [tool, "env", "list", "--json"])
    try:
        text = "\n".join(lines)
        listing = json.loads(text[text.index("{") :])
        prefixes = [str(p) for p in listing["envs"]]
    except (ValueError, KeyError, TypeError):
        raise EnvError(f"conda: '{tool} env list --json' printed no list", lines) from None
    for prefix in prefixes:
        if os.path.basename(prefix) == name or (name == "base" and prefix == prefixes[0]):
            return prefix
    known = ", ".join(os.path.basename(p) for p in prefixes) or "none"
    raise EnvError(f"conda: there is no environment '{name}'; there are: {known}")


def conda_key(value: Union[str, Dict[str, Any]]) -> str:
    if isinstance(value, str):
        try:
            with open(value, encoding="utf-8") as f:
                text: Any = f.read()
        except OSError as e:
            raise EnvError(f"conda: cannot read {value}: {e.strerror or e}") from None
    else:
        text = value
    return f"conda-{digest_of([text, interpreter()['python']])}"


def conda_create(
    value: Union[str, Dict[str, Any]], entry: store.Entry, reporter: Reporter
) -> None:
    tool = _conda_tool()
    runner = Runner(reporter, clean_environment(), entry.log_path, entry.fd)
    if isinstance(value, str):
        path = value
    else:
        path = entry.path + ".environment.yml"
        content = {k: v for k, v in value.items() if k not in ("name", "prefix")}
        with open(path, "w", encoding="utf-8") as f:
            json.dump(content, f)  # JSON is YAML
    line = [tool, "env", "create", "--yes", "--prefix", entry.path, "--file", path]
    if os.path.basename(tool) == "conda":
        line.remove("--yes")  # older ones do not know it, and do not ask
    runner.run("creating a conda environment", line)
    if not os.path.exists(os.path.join(entry.path, "bin", "python")):
        raise EnvError(
            "conda: the environment has no python; add 'python' to its dependencies (3.9 or newer)"
        )


def activation(prefix: str, variable: Optional[str]) -> Dict[str, str]:
    """What `activate` would set."""
    env = {"PATH": _path_with(os.path.join(prefix, "bin"))}
    if variable:
        env[variable] = prefix
    return env
