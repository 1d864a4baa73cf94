"""Actors of a deployment (`deployment_actors`): made before its replicas, shared by them, and ended
by the head with the version of the deployment that they are for."""

from __future__ import annotations

import asyncio
from typing import Any, Dict, List, Optional

from rserve import _core, _node
from rserve._config import import_attr

NAMESPACE = "serve"

#: Of the replica in this process: {"app", "deployment", "version", "names"}.
_here: Dict[str, Any] = {}


def _name_of(app: str, deployment: str, version: str, name: str) -> str:
    return f"SERVE_DEPLOYMENT_ACTOR::{app}#{deployment}#{version}#{name}"


async def start(
    app: str, deployment: str, version: str, wanted: List[Dict[str, Any]], in_code: Any
) -> None:
    """Makes those that are not there yet, and waits until all of them are up.

    `wanted` is what the configuration says, `in_code` what the decorator was given: classes that
    have no import path. Raises what a constructor raised, as ActorDiedError.
    """
    _here.update(app=app, deployment=deployment, version=version)
    _here["names"] = [str(actor["name"]) for actor in wanted]
    objects = {}
    for given in in_code or ():
        name = given.get("name") if isinstance(given, dict) else given.name
        objects[name] = given
    ready = []
    for actor in wanted:
        cls, args, kwargs, options = _parts(actor, objects.get(actor["name"]))
        handle = await asyncio.to_thread(_make, cls, args, kwargs, options, str(actor["name"]))
        ready.append(handle.__ray_ready__.remote())
    await asyncio.gather(*ready)


def _parts(actor: Dict[str, Any], given: Any) -> Any:
    """Class, arguments and options: the objects of the code, unless the file says otherwise."""
    from ray.serve.deployment import _plain

    parts = ("actor_class", "init_args", "init_kwargs")
    found = [actor.get("actor_class"), actor.get("init_args") or (), actor.get("init_kwargs") or {}]
    if given is not None:
        told = _plain(given)
        same = all(not told.get(k) or told.get(k) == actor.get(k) for k in parts)
        if same:
            values = given if isinstance(given, dict) else vars_of(given)
            found = [values.get(key) or old for key, old in zip(parts, found)]
    cls, args, kwargs = found
    options = actor.get("actor_options") or {}
    return import_attr(cls) if isinstance(cls, str) else cls, args, kwargs, options


def vars_of(given: Any) -> Dict[str, Any]:
    return {key: getattr(given, key) for key in ("actor_class", "init_args", "init_kwargs")}


def _make(cls: Any, args: Any, kwargs: Any, options: Dict[str, Any], name: str) -> Any:
    from ray import actor

    found = cls if isinstance(cls, actor.ActorClass) else actor.ActorClass(cls, {})
    full = _name_of(_here["app"], _here["deployment"], _here["version"], name)
    known = {k: v for k, v in options.items() if v is not None}
    known.setdefault("placement_group", "default")  # all replicas share it: it is in none's group
    known.update(
        name=full, namespace=NAMESPACE, get_if_exists=True, lifetime="detached", max_restarts=-1
    )
    serve = {k: _here[k] for k in ("app", "deployment", "version")}
    return found._remote(
        tuple(args),
        dict(kwargs),
        {**found._default_options, **known},
        serve={**serve, "actor": name},
    )


def get(name: str) -> Any:
    """The handle of an actor of the deployment whose replica this is."""
    from ray import actor
    from ray.serve.exceptions import RayServeException

    if not _here:
        raise RayServeException(
            "`serve.get_deployment_actor()` may only be called from within a replica of a "
            "deployment that has deployment_actors."
        )
    if name not in _here["names"]:
        raise ValueError(
            f"Deployment '{_here['deployment']}' in application '{_here['app']}' has no deployment "
            f"actor named '{name}'. It has: {_here['names']}."
        )
    _node.require("serve.get_deployment_actor")
    full = _name_of(_here["app"], _here["deployment"], _here["version"], name)
    return actor.get_actor(full, NAMESPACE)


def context() -> Optional[Dict[str, Any]]:
    """Of the deployment actor that this process is; None elsewhere."""
    serve = _core.identity.get("serve")
    return serve if isinstance(serve, dict) else None
