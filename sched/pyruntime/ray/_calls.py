"""`ray.remote`, `ray.kill`, `ray.cancel`."""

from __future__ import annotations

import inspect
from typing import Any, Optional

from rserve import _core, _items, _objects, _refs, _remote

from ray import actor as _actor
from ray.remote_function import RemoteFunction


def _make(target: Any, options: Any) -> Any:
    if inspect.isfunction(target) or inspect.isbuiltin(target):
        return RemoteFunction(target, options)
    if inspect.isclass(target):
        return _actor.make(target, options)
    raise TypeError("The @ray.remote decorator must be applied to either a function or a class.")


def remote(*args: Any, **kwargs: Any) -> Any:
    """Makes a remote function or an actor class: `@ray.remote` or `@ray.remote(num_cpus=2)`."""
    if len(args) == 1 and not kwargs and callable(args[0]):
        return _make(args[0], {})
    if args or not kwargs:
        raise TypeError(
            "The @ray.remote decorator must be applied either with no arguments and no "
            "parentheses, for example '@ray.remote', or it must be applied using some of the "
            "arguments in the list of options, for example '@ray.remote(num_returns=2, "
            "resources={\"CustomResource\": 1})'."
        )
    return lambda target: _make(target, kwargs)


def put(
    value: Any, *, _owner: Any = None, _tensor_transport: Optional[str] = None
) -> "_objects.ObjectRef[Any]":
    """Puts a value into the node's store. Raises ObjectStoreFullError when there is no room."""
    return _objects.put(value)


def kill(actor: Any, *, no_restart: bool = True) -> None:
    """Kills an actor's process at once. With `no_restart` false it may be started again."""
    if not isinstance(actor, _actor.ActorHandle):
        raise ValueError(
            "ray.kill() only supported for actors. For tasks, try ray.cancel(). Got: "
            f"{type(actor)}."
        )
    _core.call("ray.kill", "kill_actor", actor_id=actor._ray_actor_id, no_restart=no_restart)


def cancel(ray_waitable: Any, *, force: bool = False, recursive: bool = True) -> None:
    """Cancels a task or a call of an actor's method: its references fail with TaskCancelledError.

    One that has not started does not start. A running one is interrupted (KeyboardInterrupt, or
    asyncio's cancellation); with `force` the worker process of a task is ended. `recursive` is
    accepted; what a cancelled task has started goes on.
    """
    ref = ray_waitable
    if not isinstance(ref, (_objects.ObjectRef, _items.ObjectRefGenerator)):
        raise TypeError(f"ray.cancel() only supported for object refs. Got: {type(ref)}.")
    if isinstance(ref, _items.ObjectRefGenerator):
        call: Any = ref._maker
    else:
        result = _refs.own(ref)
        call = result.maker if result is not None else None
    if call is None:
        return  # it is done, or was not made by a call of this process
    if force and isinstance(call, _remote.ActorCall):
        raise ValueError("force=True is not supported for actor tasks.")
    call.cancel(force)
