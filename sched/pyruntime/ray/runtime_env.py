"""`ray.runtime_env`: what an application or a deployment needs around its code.

`RuntimeEnv` is a dictionary that was checked; wherever one is taken, a plain dictionary will do.
"""

from __future__ import annotations

import os
import types
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, Union

__all__ = ["RuntimeEnv", "RuntimeEnvConfig", "mpi_init"]

#: Fields that Ray has and rserve does not act on, with the reason.
_NOT_DONE = {
    "container": "rserve does not start containers",
    "image_uri": "rserve does not start containers",
    "java_jars": "replicas are Python, executables or HTTP servers",
    "mpi": "rserve does not start MPI jobs",
    "nsight": "rserve does not start replicas under a profiler",
    "_nsight": "rserve does not start replicas under a profiler",
    "rocprof_sys": "rserve does not start replicas under a profiler",
    "_rocprof_sys": "rserve does not start replicas under a profiler",
}
_KNOWN = (
    "conda config env_vars excludes pip py_executable py_modules uv worker_process_setup_hook "
    "working_dir"
).split()


class RuntimeEnvConfig(Dict[str, Any]):
    """How an environment is built: `setup_timeout_seconds` (-1: no limit) and `eager_install`."""

    known_fields = {"setup_timeout_seconds", "eager_install", "log_files"}

    def __init__(
        self,
        setup_timeout_seconds: int = 600,
        eager_install: bool = True,
        log_files: Optional[List[str]] = None,
    ) -> None:
        super().__init__()
        if not isinstance(setup_timeout_seconds, int) or isinstance(setup_timeout_seconds, bool):
            raise TypeError(
                "setup_timeout_seconds must be of type int, got: "
                f"{type(setup_timeout_seconds).__name__}"
            )
        if setup_timeout_seconds <= 0 and setup_timeout_seconds != -1:
            raise ValueError(
                "setup_timeout_seconds must be greater than zero or equals to -1, got: "
                f"{setup_timeout_seconds}"
            )
        if not isinstance(eager_install, bool):
            raise TypeError(
                f"eager_install must be a boolean, got {type(eager_install).__name__}"
            )
        self["setup_timeout_seconds"] = setup_timeout_seconds
        self["eager_install"] = eager_install
        if log_files is not None:
            self["log_files"] = list(log_files)

    @staticmethod
    def parse_and_validate_runtime_env_config(
        config: Union[Dict[str, Any], "RuntimeEnvConfig"],
    ) -> "RuntimeEnvConfig":
        if isinstance(config, RuntimeEnvConfig):
            return config
        if not isinstance(config, Mapping):
            raise TypeError(
                "runtime_env['config'] must be of type dict or RuntimeEnvConfig, got: "
                f"{type(config).__name__}"
            )
        unknown = sorted(set(config) - RuntimeEnvConfig.known_fields)
        if unknown:
            raise ValueError(f"runtime_env['config'] has the unknown field {unknown[0]!r}")
        return RuntimeEnvConfig(**config)

    def to_dict(self) -> Dict[str, Any]:
        return dict(self)


class RuntimeEnv(Dict[str, Any]):
    """A checked runtime environment.

    Raises TypeError or ValueError for a field of the wrong kind, fields that exclude each other,
    and what rserve does not act on. Only fields that are given become keys.
    """

    def __init__(
        self,
        *,
        py_modules: Optional[List[Any]] = None,
        py_executable: Optional[str] = None,
        working_dir: Union[None, str, "os.PathLike[str]"] = None,
        pip: Union[None, str, List[str], Dict[str, Any]] = None,
        conda: Union[None, str, Dict[str, Any]] = None,
        container: Optional[Dict[str, str]] = None,
        env_vars: Optional[Dict[str, str]] = None,
        worker_process_setup_hook: Union[None, str, Callable[[], None]] = None,
        nsight: Union[None, str, Dict[str, str]] = None,
        config: Union[None, Dict[str, Any], RuntimeEnvConfig] = None,
        _validate: bool = True,
        mpi: Optional[Dict[str, Any]] = None,
        image_uri: Optional[str] = None,
        uv: Union[None, str, List[str], Dict[str, Any]] = None,
        rocprof_sys: Union[None, str, Dict[str, Any]] = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        given = dict(
            kwargs,
            py_modules=py_modules,
            py_executable=py_executable,
            working_dir=working_dir,
            pip=pip,
            conda=conda,
            container=container,
            env_vars=env_vars,
            worker_process_setup_hook=worker_process_setup_hook,
            nsight=nsight,
            config=config,
            mpi=mpi,
            image_uri=image_uri,
            uv=uv,
            rocprof_sys=rocprof_sys,
        )
        self.update({k: v for k, v in given.items() if v is not None})
        if _validate:
            self.update(normalised(self))

    def to_dict(self) -> Dict[str, Any]:
        return dict(self)

    def serialize(self) -> str:
        import json

        return json.dumps(self, sort_keys=True)

    @classmethod
    def deserialize(cls, serialized_runtime_env: str) -> "RuntimeEnv":
        import json

        return cls(_validate=False, **json.loads(serialized_runtime_env))

    def env_vars(self) -> Dict[str, str]:
        return dict(self.get("env_vars") or {})

    def working_dir(self) -> str:
        return str(self.get("working_dir") or "")

    def py_modules(self) -> List[str]:
        return list(self.get("py_modules") or [])

    def has_working_dir(self) -> bool:
        return bool(self.get("working_dir"))

    def has_py_modules(self) -> bool:
        return bool(self.get("py_modules"))

    def has_conda(self) -> bool:
        return bool(self.get("conda"))

    def has_pip(self) -> bool:
        return bool(self.get("pip"))

    def has_uv(self) -> bool:
        return bool(self.get("uv"))

    def __reduce__(self) -> Tuple[Any, ...]:
        return _restore, (dict(self),)


def _restore(values: Dict[str, Any]) -> RuntimeEnv:
    return RuntimeEnv(_validate=False, **values)


def normalised(env: Mapping[str, Any]) -> Dict[str, Any]:
    """`env` checked, with plain values only: what can travel as JSON."""
    for key in env:
        if key in _NOT_DONE:
            raise ValueError(f"runtime_env['{key}'] is not supported: {_NOT_DONE[key]}.")
        if key not in _KNOWN:
            raise ValueError(
                f"runtime_env has the unknown field '{key}'; known are {', '.join(_KNOWN)}."
            )
    _exclusive(env)
    out: Dict[str, Any] = {}
    for key, value in env.items():
        if value is not None:
            out[key] = _CHECKS[key](key, value)
    return out


def _exclusive(env: Mapping[str, Any]) -> None:
    given = [tool for tool in ("pip", "conda", "uv") if env.get(tool)]
    if len(given) > 1:
        a, b = given[:2]
        hint = ""
        if (a, b) == ("pip", "conda"):
            hint = (
                "\nTo use pip with conda, please only set the 'conda' field, and specify your pip "
                "dependencies within the conda YAML config dict."
            )
        raise ValueError(
            f"The '{a}' field and '{b}' field of runtime_env cannot both be specified.\n"
            f"specified {a} field: {env[a]}\nspecified {b} field: {env[b]}{hint}"
        )


def _text(key: str, value: Any) -> str:
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"runtime_env['{key}'] must be a string, got {type(value).__name__}.")
    return str(os.fspath(value))


def _texts(key: str, value: Any) -> List[str]:
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"runtime_env['{key}'] must be of type list, got {type(value).__name__}.")
    return [_text(key, v) for v in value]


def _env_vars(key: str, value: Any) -> Dict[str, str]:
    if not isinstance(value, Mapping):
        raise TypeError(
            f"runtime_env['env_vars'] must be of type Dict[str, str], got {type(value).__name__}."
        )
    for name, text in value.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise TypeError(
                "runtime_env['env_vars'] must be of type Dict[str, str], but the value of "
                f"{name!r} is of type {type(text).__name__}."
            )
    return dict(value)


def _modules(key: str, value: Any) -> List[str]:
    if not isinstance(value, (list, tuple)):
        raise TypeError(
            "`py_modules` must be a list of strings, local paths, or imported modules, got "
            f"{type(value).__name__}."
        )
    out = []
    for module in value:
        if isinstance(module, types.ModuleType):
            folders = list(getattr(module, "__path__", []))
            module = folders[0] if folders else module.__file__
        out.append(_text(key, module))
    return out


def _packages(key: str, value: Any) -> Union[str, List[str], Dict[str, Any]]:
    if isinstance(value, (str, os.PathLike)):
        return str(os.fspath(value))
    if isinstance(value, Mapping):
        if "packages" not in value:
            raise ValueError(
                f"runtime_env['{key}'] must include field 'packages', but got {dict(value)}"
            )
        return dict(value)
    if isinstance(value, (list, tuple)):
        return _texts(key, value)
    raise TypeError(
        f"runtime_env['{key}'] must be of type str, list or dict, got {type(value).__name__}."
    )


def _conda(key: str, value: Any) -> Union[str, Dict[str, Any]]:
    if isinstance(value, (str, os.PathLike)):
        return str(os.fspath(value))
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(
        f"runtime_env['conda'] must be of type dict or str, got {type(value).__name__}."
    )


def _config(key: str, value: Any) -> Dict[str, Any]:
    return RuntimeEnvConfig.parse_and_validate_runtime_env_config(value).to_dict()


def _hook(key: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    name = getattr(value, "__qualname__", "")
    module = getattr(value, "__module__", "")
    if not callable(value) or not name or "<" in name or "." in name or module == "__main__":
        raise TypeError(
            "runtime_env['worker_process_setup_hook'] must be 'module.function', or a function "
            f"that can be imported, got {value!r}."
        )
    return f"{module}.{name}"


_CHECKS: Dict[str, Callable[[str, Any], Any]] = {
    "conda": _conda,
    "config": _config,
    "env_vars": _env_vars,
    "excludes": _texts,
    "pip": _packages,
    "py_executable": _text,
    "py_modules": _modules,
    "uv": _packages,
    "worker_process_setup_hook": _hook,
    "working_dir": _text,
}


def mpi_init() -> None:
    raise RuntimeError("mpi_init: rserve does not start MPI jobs.")
