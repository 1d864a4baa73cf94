"""Actors: objects that live in a process of their own."""

from __future__ import annotations

import inspect
import pickle
import weakref
from typing import Any, Callable, Dict, Generic, List, NoReturn, Optional, Tuple, TypeVar

from rserve import _arguments, _core, _node, _refs, _remote
from rserve._ids import Id

from ray import _options
from ray.remote_function import merged, started

T = TypeVar("T")

ASYNC_CONCURRENCY = 1000

#: What may travel through the head to a new actor, in bytes.
_SPEC_MAX = 700 << 10


def method(*args: Any, **kwargs: Any) -> Callable[[Any], Any]:
    """Options of one method of an actor: `@ray.method(num_returns=2)`."""
    valid = {
        "num_returns",
        "concurrency_group",
        "max_task_retries",
        "retry_exceptions",
        "_generator_backpressure_num_objects",
        "enable_task_events",
        "tensor_transport",
    }
    if args or not kwargs or set(kwargs) - valid:
        raise AssertionError(
            "The @ray.method decorator must be applied using at least one of the arguments in the "
            f"list {sorted(valid)}, for example '@ray.method(num_returns=2)'."
        )

    def decorate(function: Any) -> Any:
        function.__ray_method__ = dict(kwargs)
        return function

    return decorate


def _methods_of(cls: type) -> Dict[str, Dict[str, Any]]:
    """{name: what handles need to know of it}."""
    out: Dict[str, Dict[str, Any]] = {}
    for name in dir(cls):
        if name.startswith("__") and name not in ("__call__", "__init__"):
            continue
        try:
            function = getattr(cls, name)
        except AttributeError:
            continue
        if not callable(function) or name == "__init__":
            continue
        facts: Dict[str, Any] = {}
        given = getattr(function, "__ray_method__", {})
        if "num_returns" in given:
            facts["num_returns"] = given["num_returns"]
        elif inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            facts["num_returns"] = "streaming"
        for key in ("max_task_retries", "retry_exceptions"):
            if isinstance(given.get(key), (bool, int)):
                facts[key] = given[key]
        out[name] = facts
    return out


def _is_async(cls: type) -> bool:
    return any(
        inspect.iscoroutinefunction(f) or inspect.isasyncgenfunction(f)
        for _, f in inspect.getmembers(cls, inspect.isroutine)
    )


class ActorClass(Generic[T]):
    """What `@ray.remote` makes of a class: make an actor of it with `.remote(...)`."""

    def __init__(self, cls: type, options: Dict[str, Any]) -> None:
        _options.check(options, _options.ACTOR)
        self.__ray_metadata__ = _Metadata(cls)
        self._default_options = dict(options)
        self.__name__ = cls.__name__
        self.__qualname__ = cls.__qualname__
        self.__module__ = cls.__module__
        self.__doc__ = cls.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        name = self.__ray_metadata__.modified_class.__name__
        raise TypeError(
            f"Actors cannot be instantiated directly. Instead of '{name}()', use '{name}.remote()'."
        )

    def __mro_entries__(self, bases: Any) -> Any:
        raise TypeError(
            f"Inheriting from actor class '{self.__name__}' is not supported: inherit from the "
            "class as it was before @ray.remote."
        )

    @classmethod
    def __class_getitem__(cls, item: Any) -> Any:
        return cls

    def __repr__(self) -> str:
        return f"ActorClass({self.__name__})"

    def remote(self, *args: Any, **kwargs: Any) -> "ActorHandle":
        """Makes an actor: its handle. The constructor runs in the actor's process."""
        return self._remote(args, kwargs, self._default_options)

    def options(self, **actor_options: Any) -> "_OptionedClass":
        _options.check(actor_options, _options.ACTOR)
        return _OptionedClass(self, merged(self._default_options, actor_options))

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("Ray DAGs of actors are not available in rserve.")

    def _remote(
        self,
        args: Tuple[Any, ...],
        kwargs: Dict[str, Any],
        options: Dict[str, Any],
        serve: Optional[Dict[str, Any]] = None,
    ) -> "ActorHandle":
        link = _node.require("ray.remote")
        meta = self.__ray_metadata__
        meta.check_arguments(args, kwargs)
        namespace = options.get("namespace") or _core.namespace()
        name = options.get("name")
        if name and options.get("get_if_exists"):
            try:
                return get_actor(name, namespace)
            except ValueError:
                pass
        concurrency = options.get("max_concurrency")
        if concurrency is None:
            concurrency = ASYNC_CONCURRENCY if meta.is_async else 1
        if concurrency < 1:
            raise ValueError("max_concurrency must be >= 1.")
        facts = {
            "class_name": meta.class_name,
            "methods": meta.methods,
            "max_restarts": int(options.get("max_restarts") or 0),
            "max_task_retries": int(options.get("max_task_retries") or 0),
        }
        strategy, _ = _options.strategy_of(options)
        members: Dict[str, Any] = {
            "actor_id": _core.new_id(),
            "class_name": meta.class_name,
            "namespace": namespace,
            "max_restarts": facts["max_restarts"],
            "max_ongoing": int(concurrency),
            "options": _options.resources_of(options, 0),
            "strategy": strategy or {},
            "env": _options.environment(),
            "meta": facts,
        }
        if name:
            members["name"] = name
            members["get_if_exists"] = bool(options.get("get_if_exists"))
        if serve is not None:
            members["serve"] = serve
        if options.get("lifetime") == "detached":
            members["lifetime"] = "detached"
        creation = _Creation(link, meta, args, kwargs, int(concurrency), members)
        return creation.begin(wait=bool(name), facts=facts)


class _OptionedClass:
    """An actor class with options of its own."""

    def __init__(self, cls: "ActorClass[Any]", options: Dict[str, Any]) -> None:
        self._cls = cls
        self._options = options

    def remote(self, *args: Any, **kwargs: Any) -> "ActorHandle":
        return self._cls._remote(args, kwargs, self._options)

    def options(self, **actor_options: Any) -> "_OptionedClass":
        _options.check(actor_options, _options.ACTOR)
        return _OptionedClass(self._cls, merged(self._options, actor_options))


class _Metadata:
    """The class behind an ActorClass."""

    def __init__(self, cls: type) -> None:
        self.modified_class = cls
        self.class_name = cls.__name__
        self.methods = _methods_of(cls)
        self.is_async = _is_async(cls)
        self._pickled: Optional[bytes] = None

    def check_arguments(self, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> None:
        cls: Any = self.modified_class
        init = cls.__init__
        if init is object.__init__:
            if args or kwargs:
                raise TypeError(f"{self.class_name}() takes no arguments")
            return
        try:
            signature = inspect.signature(init)
        except (TypeError, ValueError):
            return
        signature.bind(None, *args, **kwargs)

    def pickled(self) -> bytes:
        if self._pickled is None:
            self._pickled = _arguments.cloudpickled(self.modified_class)
        return self._pickled

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, "_pickled": None}


class _Creation:
    """The request for one actor; waits for the arguments that are references."""

    def __init__(
        self,
        link: "_node.NodeLink",
        meta: _Metadata,
        args: Tuple[Any, ...],
        kwargs: Dict[str, Any],
        concurrency: int,
        members: Dict[str, Any],
    ) -> None:
        self.link = link
        self.arguments = _arguments.Arguments(link, args, kwargs)
        self.arguments.fetch_all()  # they are kept by the head, for a restart too
        self.members = members
        self.spec = {
            "class": meta.pickled(),
            "async": meta.is_async,
            "max_concurrency": concurrency,
        }

    def _pack(self) -> None:
        error = self.arguments.error()
        if error is not None:
            raise error
        data, values = self.arguments.packed()
        spec = pickle.dumps({**self.spec, "args": data, "values": values}, 5)
        if len(spec) > _SPEC_MAX:
            raise ValueError(
                f"The class {self.members['class_name']} and the arguments of its constructor take "
                f"{len(spec)} bytes when pickled; at most {_SPEC_MAX} are possible. Pass large "
                "values with a call of a method."
            )
        self.members["spec"] = _core.to_text(spec)

    def begin(self, wait: bool, facts: Dict[str, Any]) -> "ActorHandle":
        if wait:
            if self.arguments.refs:
                _refs.get(list(self.arguments.refs))
            self._pack()
            answer = _core.call("ray.remote", "create_actor", **self.members)
            return handle_from(self.link, answer)
        if not self.arguments.refs:
            self._pack()
        actor = _remote.actor_for(self.link, self.members["actor_id"])
        actor.owned = True
        actor.keep = self.arguments
        self._send(actor)
        return ActorHandle(self.link, self.members["actor_id"], facts)

    def _send(self, actor: "_remote.Actor") -> None:
        if not self.arguments.ready:
            self.arguments.when_ready(lambda: self._send(actor))
            return
        try:
            if "spec" not in self.members:
                self._pack()
            _core.ask(self.link, actor.created, "create_actor", **self.members)
        except Exception as e:
            actor.die(e)


def handle_from(link: "_node.NodeLink", answer: Dict[str, Any]) -> "ActorHandle":
    """The handle of an actor as the head describes it."""
    actor = _remote.actor_for(link, str(answer["actor_id"]))
    handle = ActorHandle(link, actor.actor_id, answer.get("meta") or {})
    actor.created(answer)
    return handle


def get_actor(name: str, namespace: Optional[str] = None) -> "ActorHandle":
    """The handle of a named actor that lives. Raises ValueError when there is none."""
    if not name:
        raise ValueError("Please supply a non-empty value to get_actor")
    if namespace is not None and not isinstance(namespace, str):
        raise TypeError('namespace must be None or a string.')
    link = _node.require("ray.get_actor")
    answer = _core.call(
        "ray.get_actor", "get_actor", name=name, namespace=namespace or _core.namespace()
    )
    return handle_from(link, answer)


class ActorMethod:
    """A method of an actor: call it with `.remote(...)`."""

    def __init__(self, handle: "ActorHandle", name: str, facts: Dict[str, Any]) -> None:
        self._handle = handle
        self._method_name = name
        self._facts = facts

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(
            "Actor methods cannot be called directly. Instead of running "
            f"'object.{self._method_name}()', try 'object.{self._method_name}.remote()'."
        )

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        return self._remote(args, kwargs, self._facts)

    def options(self, **options: Any) -> "ActorMethod":
        known = {
            "num_returns",
            "name",
            "max_task_retries",
            "retry_exceptions",
            "concurrency_group",
            "enable_task_events",
            "_generator_backpressure_num_objects",
            "tensor_transport",
        }
        for key in options:
            if key not in known:
                raise ValueError(f"Invalid option keyword {key} for actor methods.")
        return ActorMethod(self._handle, self._method_name, merged(self._facts, options))

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("Ray DAGs of actors are not available in rserve.")

    def _remote(self, args: Tuple[Any, ...], kwargs: Dict[str, Any], facts: Dict[str, Any]) -> Any:
        handle = self._handle
        num_returns = facts.get("num_returns", 1)
        if num_returns in ("streaming", "dynamic"):
            num_returns = -1
        elif num_returns is None:
            num_returns = 1
        retries = facts.get("max_task_retries")
        if retries is None:
            retries = handle._facts.get("max_task_retries") or 0
        call = _remote.ActorCall(
            handle._actor,
            self._method_name,
            facts.get("name") or f"{handle._class_name}.{self._method_name}",
            (num_returns if num_returns >= 0 else 1,),
            args,
            kwargs,
            num_returns,
            int(retries),
            facts.get("retry_exceptions"),
        )
        call.handle = handle
        return started(call, num_returns)


class ActorHandle:
    """Refers to an actor; can be pickled into tasks, other actors and deployments.

    An actor that is not detached ends with the process that made it, or with its last handle.
    """

    def __init__(self, link: "_node.NodeLink", actor_id: str, facts: Dict[str, Any]) -> None:
        self._ray_actor_id = actor_id
        self._class_name = str(facts.get("class_name") or "")
        self._facts = facts
        self._actor = _remote.actor_for(link, actor_id)
        self._actor.max_restarts = int(facts.get("max_restarts") or 0)
        self._actor.class_name = self._class_name
        self._actor.add_handle()
        weakref.finalize(self, self._actor.drop_handle).atexit = False

    @property
    def _actor_id(self) -> Any:
        return ActorID(self._ray_actor_id)

    @property
    def _ray_is_cross_language(self) -> bool:
        return False

    @classmethod
    def __class_getitem__(cls, item: Any) -> Any:
        return cls

    def __getattr__(self, name: str) -> ActorMethod:
        if name.startswith("__") and name not in (
            "__call__",
            "__ray_ready__",
            "__ray_call__",
            "__ray_terminate__",
        ):
            raise AttributeError(f"'ActorHandle' object has no attribute '{name}'")
        facts = self.__dict__.get("_facts") or {}
        methods = facts.get("methods") or {}
        if name.startswith("_") and name not in methods and not name.startswith("__ray"):
            raise AttributeError(f"'ActorHandle' object has no attribute '{name}'")
        if name not in methods and not name.startswith("__ray"):
            raise AttributeError(f"'ActorHandle' object has no attribute '{name}'")
        return ActorMethod(self, name, methods.get(name) or {})

    def __dir__(self) -> List[str]:
        return sorted(set(super().__dir__()) | set(self._facts.get("methods") or {}))

    def __repr__(self) -> str:
        return f"Actor({self._class_name}, {self._ray_actor_id})"

    def __hash__(self) -> int:
        return hash(self._ray_actor_id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and other._ray_actor_id == self._ray_actor_id

    def __reduce__(self) -> Any:
        self._actor.shared = True  # who unpickles it, and when, is not known here
        return _rebuild_handle, (self._ray_actor_id, self._facts)


def _rebuild_handle(actor_id: str, facts: Dict[str, Any]) -> ActorHandle:
    return ActorHandle(_node.require("a handle of an actor"), actor_id, facts)


class ActorID(Id):
    """The id of an actor."""


def exit_actor() -> NoReturn:
    """Ends the actor that this is called in; calls that wait for it fail with ActorDiedError."""
    from rserve import worker

    if _core.identity.get("kind") != "actor":
        raise TypeError("exit_actor API is called on a non-actor worker.")
    raise worker._ActorExit


def make(cls: type, options: Dict[str, Any]) -> "ActorClass[Any]":
    if not inspect.isclass(cls):
        raise TypeError("The @ray.remote decorator must be applied to a function or a class.")
    return ActorClass(cls, options)


