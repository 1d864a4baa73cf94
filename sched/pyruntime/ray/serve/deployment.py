"""`Deployment` and `Application`: a class or function with its options, bound to arguments."""

from __future__ import annotations

import inspect
import json
import logging
import warnings
from typing import Any, Callable, Dict, List, Optional, Tuple, Type, Union

from rserve._config import (
    AutoscalingConfig,
    BackpressureConfig,
    GangSchedulingConfig,
    RequestRouterConfig,
    import_path_of,
)
from rserve._model import Model, integer, real, validation_error

from ray.serve._private import utils

logger = logging.getLogger("ray.serve")


_Default = utils.DEFAULT

#: Marks an option that was not given.
DEFAULT = utils.DEFAULT.VALUE

ACTOR_OPTIONS = {
    "accelerator_type",
    "fallback_strategy",
    "label_selector",
    "memory",
    "num_cpus",
    "num_gpus",
    "resources",
    "runtime_env",
}

#: Options in the order in which Ray lists them. `name` and `version` are kept apart.
OPTION_NAMES = (
    "num_replicas",
    "ray_actor_options",
    "placement_group_bundles",
    "placement_group_strategy",
    "placement_group_bundle_label_selector",
    "max_replicas_per_node",
    "user_config",
    "max_ongoing_requests",
    "max_queued_requests",
    "backpressure_config",
    "autoscaling_config",
    "graceful_shutdown_wait_loop_s",
    "graceful_shutdown_timeout_s",
    "health_check_period_s",
    "health_check_timeout_s",
    "logging_config",
    "request_router_config",
    "max_constructor_retry_count",
    "gang_scheduling_config",
    "deployment_actors",
    "rolling_update_percentage",
    "max_surge_percent",
)

_DEFAULTS: Dict[str, Any] = {
    "num_replicas": 1,
    "max_ongoing_requests": 5,
    "max_queued_requests": -1,
}


def _num_replicas(value: Any) -> Any:
    if value is None or value == "auto":
        return value
    return integer(1)(value)


def _max_queued(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("max_queued_requests must be an integer.")
    if value < 1 and value != -1:
        raise ValueError("max_queued_requests must be -1 (no limit) or a positive integer.")
    return value


def _user_config(value: Any) -> Any:
    if isinstance(value, bytes):
        return value
    try:
        json.dumps(value)
    except (TypeError, ValueError) as e:
        raise ValueError(f"user_config is not JSON-serializable: {e}.") from None
    return value


#: Checks of plain values; a failure is reported as pydantic reports one of DeploymentConfig.
_CHECKS: Dict[str, Callable[[Any], Any]] = {
    "num_replicas": _num_replicas,
    "max_ongoing_requests": integer(1),
    "max_queued_requests": _max_queued,
    "user_config": _user_config,
    "graceful_shutdown_wait_loop_s": real(0),
    "graceful_shutdown_timeout_s": real(0),
    "health_check_period_s": real(above=0),
    "health_check_timeout_s": real(above=0),
    "max_constructor_retry_count": integer(1),
    "rolling_update_percentage": real(above=0, high=1),
    "max_surge_percent": integer(0, 100),
}

_MODELS: Dict[str, Type[Model]] = {
    "autoscaling_config": AutoscalingConfig,
    "backpressure_config": BackpressureConfig,
    "gang_scheduling_config": GangSchedulingConfig,
    "request_router_config": RequestRouterConfig,
}


def check_options(given: Dict[str, Any]) -> None:
    """Raises for options that Ray refuses in code. `given` holds only what was set."""
    if given.get("max_ongoing_requests", DEFAULT) is None:
        raise ValueError("`max_ongoing_requests` must be non-null, got None.")
    replicas = given.get("num_replicas", DEFAULT)
    if replicas == 0 and not isinstance(replicas, bool):
        raise ValueError("num_replicas is expected to larger than 0")
    autoscaling = given.get("autoscaling_config", DEFAULT)
    if (
        replicas not in (DEFAULT, None, "auto")
        and autoscaling is not DEFAULT
        and autoscaling is not None
    ):
        raise ValueError(
            "Manually setting num_replicas is not allowed when autoscaling_config is provided."
        )
    errors: List[Tuple[str, str, Any]] = []
    for name, check in _CHECKS.items():
        value = given.get(name, DEFAULT)
        if value is DEFAULT or value is None:
            continue
        try:
            check(value)
        except ValueError as e:
            errors.append((name, str(e), value))
    if errors:
        raise validation_error("DeploymentConfig", errors)
    for name, model in _MODELS.items():
        value = given.get(name, DEFAULT)
        if value is DEFAULT or value is None:
            continue
        if not isinstance(value, dict) and type(value).__name__ != model.__name__:
            message = f"Input should be a valid dictionary or instance of {model.__name__}"
            raise validation_error("DeploymentConfig", [(name, message, value)])
        model.model_validate(value)
    _check_placement(given)
    _check_actor_options(given.get("ray_actor_options", DEFAULT))
    _check_deployment_actors(given.get("deployment_actors", DEFAULT))
    logging_config = given.get("logging_config", DEFAULT)
    if isinstance(logging_config, dict):
        from rserve._schema import LoggingConfig

        LoggingConfig(**logging_config)


def _check_actor_options(options: Any) -> None:
    if options is DEFAULT or options is None:
        return
    if not isinstance(options, dict):
        raise TypeError(
            f'Got invalid type "{type(options)}" for ray_actor_options. Expected a dictionary.'
        )
    for key in options:
        if key not in ACTOR_OPTIONS:
            allowed = "{" + ", ".join(repr(k) for k in sorted(ACTOR_OPTIONS)) + "}"
            raise ValueError(
                f"Specifying '{key}' in ray_actor_options is not allowed. "
                f"Allowed options: {allowed}"
            )
    for key in ("num_cpus", "num_gpus", "memory"):
        if isinstance(options.get(key), (int, float)) and options[key] < 0:
            raise ValueError(f"The quantity of resource {key} cannot be negative")
    named = options.get("resources") or {}
    if "CPU" in named or "GPU" in named:
        raise ValueError(
            "Use the 'num_cpus' and 'num_gpus' keyword instead of 'CPU' and 'GPU' in 'resources' "
            "keyword"
        )
    if options.get("runtime_env"):
        from ray.runtime_env import normalised

        normalised(options["runtime_env"])


def _check_deployment_actors(actors: Any) -> None:
    if actors is DEFAULT or not actors:
        return
    names = [a.get("name") if isinstance(a, dict) else a.name for a in actors]
    if len(set(names)) != len(names):
        raise ValueError(f"Names of deployment_actors must be unique, got {names}.")


def _check_placement(given: Dict[str, Any]) -> None:
    def value(name: str) -> Any:
        v = given.get(name, DEFAULT)
        return None if v is DEFAULT else v

    bundles = value("placement_group_bundles")
    strategy = value("placement_group_strategy")
    if bundles is not None and not bundles:
        raise ValueError(
            "Bundles must be a non-empty list of resource dictionaries. For example: "
            '`[{"CPU": 1.0}, {"GPU": 1.0}]`. Got empty list instead.'
        )
    per_node = value("max_replicas_per_node")
    labels = value("placement_group_bundle_label_selector")
    if strategy is not None:
        allowed = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")
        if strategy not in allowed:
            raise ValueError(
                f"Invalid placement group strategy '{strategy}'. "
                f"Supported strategies are: {allowed}."
            )
        if bundles is None:
            raise ValueError(
                "If `placement_group_strategy` is provided, `placement_group_bundles` must also be "
                "provided."
            )
    if labels is not None:
        if bundles is None:
            raise ValueError(
                "If `placement_group_bundle_label_selector` is provided, `placement_group_bundles` "
                "must also be provided."
            )
        if len(labels) not in (1, len(bundles)):
            raise ValueError(
                "`placement_group_bundle_label_selector` must hold one selector or one per bundle."
            )
    if per_node is not None:
        if isinstance(per_node, bool) or not isinstance(per_node, int):
            raise TypeError(f"Get invalid type '{type(per_node)}', expected int.")
        if per_node < 1 or per_node > 100:
            raise ValueError(
                f"Invalid max_replicas_per_node {per_node}. Valid values are None or an integer "
                "in the range of [1, 100]."
            )
        if bundles is not None:
            raise ValueError(
                "Setting max_replicas_per_node is not allowed when placement_group_bundles is "
                "provided."
            )
    _check_gang(value)


def _check_gang(value: Callable[[str], Any]) -> None:
    gang = value("gang_scheduling_config")
    if gang is None:
        return
    for name, instead in (
        ("max_replicas_per_node", ""),
        ("placement_group_strategy", " Use gang_placement_strategy."),
    ):
        if value(name) is not None:
            raise ValueError(
                f"Setting {name} is not allowed when gang_scheduling_config is provided.{instead}"
            )
    size = gang.get("gang_size") if isinstance(gang, dict) else gang.gang_size
    scaling = value("autoscaling_config")
    counts: Dict[str, Any] = {"num_replicas": value("num_replicas")}
    if scaling is None and counts["num_replicas"] is None:
        counts["num_replicas"] = 1
    if scaling is not None:
        told = scaling if isinstance(scaling, dict) else vars(scaling)
        names = ("min_replicas", "max_replicas", "initial_replicas")
        counts.update({name: told.get(name) for name in names})
        if told.get("min_replicas") == 0:
            raise ValueError("min_replicas=0 is not allowed with gang_scheduling_config.")
    for name, count in counts.items():
        if isinstance(count, int) and isinstance(size, int) and size > 0 and count % size:
            raise ValueError(f"{name} ({count}) must be a multiple of gang_size ({size}).")


def _check_first_bundle(merged: Dict[str, Any]) -> None:
    """The replica runs in the first bundle, so that must hold what it asks for."""
    bundles = merged.get("placement_group_bundles")
    if not bundles or not isinstance(bundles, (list, tuple)) or not isinstance(bundles[0], dict):
        return
    options = merged.get("ray_actor_options") or {}
    asked = {
        "CPU": ("num_cpus", options.get("num_cpus", 1)),
        "GPU": ("num_gpus", options.get("num_gpus", 0)),
    }
    asked.update({n: (n, a) for n, a in (options.get("resources") or {}).items()})
    for resource, (name, amount) in asked.items():
        held = bundles[0].get(resource, 0)
        if isinstance(amount, (int, float)) and held < amount:
            raise ValueError(
                "When using `placement_group_bundles`, the replica actor will be placed in the "
                "first bundle, so the resource requirements for the actor must be a subset of the "
                f"first bundle. `{name}` for the actor is {amount} but the bundle only has {held} "
                f"`{resource}` specified."
            )


class Deployment:
    """A class or function with its options. Made by `@serve.deployment`, not directly."""

    def __init__(
        self,
        name: str,
        func_or_class: Optional[Callable[..., Any]] = None,
        options: Optional[Dict[str, Any]] = None,
        _internal: bool = False,
    ) -> None:
        if not _internal:
            raise RuntimeError(
                "The Deployment constructor should not be called directly. Use `@serve.deployment` "
                "instead."
            )
        if not isinstance(name, str):
            raise TypeError("name must be a string.")
        if "#" in name:
            warnings.warn(
                f"Deployment names should not contain the '#' character, this will raise an error "
                f"starting in Ray 2.46.0. Current name: {name}.",
                stacklevel=3,
            )
        self._name = name
        self._func_or_class = func_or_class
        self._options: Dict[str, Any] = dict(options or {})

    # --- what was set

    @property
    def name(self) -> str:
        """The name; that of the class or function unless another one was given."""
        return self._name

    @property
    def version(self) -> Optional[str]:
        """The version that was given; deprecated."""
        return None

    @property
    def func_or_class(self) -> Any:
        """The class or function."""
        return self._func_or_class

    def _value(self, name: str) -> Any:
        return self._options.get(name, _DEFAULTS.get(name))

    @property
    def num_replicas(self) -> Any:
        """How many replicas; 1 where autoscaling says how many."""
        value = self._value("num_replicas")
        return 1 if value == "auto" else value

    @property
    def user_config(self) -> Any:
        """What `reconfigure` is given."""
        return self._value("user_config")

    @property
    def max_ongoing_requests(self) -> int:
        """How many requests a replica works on at a time."""
        return int(self._value("max_ongoing_requests"))

    @property
    def max_queued_requests(self) -> int:
        """How many requests may wait; -1: any number."""
        return int(self._value("max_queued_requests"))

    @property
    def backpressure_config(self) -> Any:
        """The HTTP answer when `max_queued_requests` is met."""
        return self._value("backpressure_config")

    @property
    def logging_config(self) -> Any:
        """How replicas log."""
        return self._value("logging_config")

    @property
    def ray_actor_options(self) -> Optional[Dict[str, Any]]:
        """What a replica needs; memory in bytes."""
        options: Optional[Dict[str, Any]] = self._value("ray_actor_options")
        return options

    @property
    def init_args(self) -> Tuple[Any, ...]:
        """Arguments of the constructor; those of `bind` are with the Application."""
        return ()

    @property
    def init_kwargs(self) -> Dict[str, Any]:
        """Keyword arguments of the constructor; see `init_args`."""
        return {}

    def set_logging_config(self, logging_config: Dict[str, Any]) -> None:
        """Sets how replicas log."""
        self._options["logging_config"] = logging_config

    def _is_function(self) -> bool:
        return inspect.isfunction(self._func_or_class)

    # --- derived objects

    def bind(self, *args: Any, **kwargs: Any) -> "Application":
        """This deployment with the arguments of its constructor."""
        if self._is_function():
            if args:
                raise ValueError("init_args not supported for function deployments.")
            if kwargs:
                raise ValueError("init_kwargs not supported for function deployments.")
            if self._options.get("user_config") is not None:
                raise ValueError("deployment_def must be a class to use user_config or rank")
        return Application(self, args, kwargs)

    def options(
        self,
        func_or_class: Optional[Callable[..., Any]] = None,
        name: Union[_Default, str] = DEFAULT,
        version: Union[_Default, str] = DEFAULT,
        num_replicas: Any = DEFAULT,
        ray_actor_options: Any = DEFAULT,
        placement_group_bundles: Any = DEFAULT,
        placement_group_strategy: Any = DEFAULT,
        placement_group_bundle_label_selector: Any = DEFAULT,
        max_replicas_per_node: Any = DEFAULT,
        user_config: Any = DEFAULT,
        max_ongoing_requests: Any = DEFAULT,
        max_queued_requests: Any = DEFAULT,
        backpressure_config: Any = DEFAULT,
        autoscaling_config: Any = DEFAULT,
        graceful_shutdown_wait_loop_s: Any = DEFAULT,
        graceful_shutdown_timeout_s: Any = DEFAULT,
        health_check_period_s: Any = DEFAULT,
        health_check_timeout_s: Any = DEFAULT,
        logging_config: Any = DEFAULT,
        request_router_config: Any = DEFAULT,
        _init_args: Any = DEFAULT,
        _init_kwargs: Any = DEFAULT,
        _internal: bool = False,
        max_constructor_retry_count: Any = DEFAULT,
        gang_scheduling_config: Any = DEFAULT,
        deployment_actors: Any = DEFAULT,
        rolling_update_percentage: Any = DEFAULT,
        max_surge_percent: Any = DEFAULT,
    ) -> "Deployment":
        """A copy with some options changed."""
        arguments = locals()
        given = {n: arguments[n] for n in OPTION_NAMES if arguments[n] is not DEFAULT}
        if version is not DEFAULT:
            raise version_removed("Deployment.options()")
        merged = merge_options(self._options, given)
        return Deployment(
            self._name if isinstance(name, _Default) else name,
            self._func_or_class if func_or_class is None else func_or_class,
            merged,
            _internal=True,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(
            "Deployments cannot be constructed directly. Use `deployment.deploy() instead.`"
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Deployment)
            and self._name == other._name
            and self._options == other._options
            and self._func_or_class is other._func_or_class
        )

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return f"Deployment(name={self._name})"

    __repr__ = __str__


def merge_options(base: Dict[str, Any], given: Dict[str, Any]) -> Dict[str, Any]:
    """`base` overlaid with `given`, checked. A new autoscaling_config replaces num_replicas and
    the other way round, since the two exclude each other."""
    check_options(given)
    merged = dict(base)
    if given.get("num_replicas") not in (None, "auto") and "num_replicas" in given:
        merged.pop("autoscaling_config", None)
    elif given.get("autoscaling_config") is not None and merged.get("num_replicas") != "auto":
        merged.pop("num_replicas", None)
    merged.update(given)
    _check_placement(merged)
    _check_first_bundle(merged)
    return merged


def version_removed(where: str) -> ValueError:
    return ValueError(
        f"`version` in `{where}` has been removed. Serve manages deployment versions internally."
    )


class Application:
    """A deployment with bound arguments; the root of a graph of them is what `serve.run` takes."""

    def __init__(
        self,
        bound_deployment: Deployment,
        args: Tuple[Any, ...] = (),
        kwargs: Optional[Dict[str, Any]] = None,
    ) -> None:
        self._bound_deployment = bound_deployment
        self._args = args
        self._kwargs = dict(kwargs or {})

    def __repr__(self) -> str:
        return f"Application({self._bound_deployment!r})"


def options_for_node(deployment: Deployment) -> Dict[str, Any]:
    """Exactly the options that code set, in JSON's types."""
    out: Dict[str, Any] = {}
    for name in OPTION_NAMES:
        if name in deployment._options:
            out[name] = _plain(deployment._options[name])
    env = (deployment._options.get("ray_actor_options") or {}).get("runtime_env")
    if env:
        from ray.runtime_env import normalised

        out["ray_actor_options"]["runtime_env"] = normalised(env)
    return out


def _plain(value: Any) -> Any:
    if isinstance(value, Model):
        return _plain(value.model_dump(exclude_unset=True, mode="json"))
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return getattr(value, "value", value)
    if hasattr(value, "model_dump"):
        return _plain(value.model_dump(exclude_unset=True))
    if callable(value):
        return import_path_of(value)
    return str(value)
