"""Calls whose arguments are results of other calls, or objects: what `ray.serve.handle` does with
them.

Where it can, it leaves them to the node (`_by_reference`): a response that is not there yet becomes
an object (`DeploymentResponse._hold`), and the call says which objects it waits for. Where the
callee cannot ask this node for objects, the values are fetched first (`send_by_value`).
"""

from __future__ import annotations

import threading
from typing import Any, Dict, List, Tuple

from rserve import _objects, _values
from rserve import _wire as w
from rserve._node import PendingCall
from rserve._objects import ObjectRef

_lock = threading.Lock()

#: Deployments that said that they take no objects of this node: they run elsewhere too, or are not
#: Python.
_by_value: "set[Tuple[str, str]]" = set()


def _is_response(argument: Any) -> bool:
    """A DeploymentResponse: not one that gives items, and not an object."""
    return isinstance(argument, PendingCall) and hasattr(argument, "_hold")


class _Slot:
    """Where an object was among the arguments of a call that may have to be sent once more."""

    __slots__ = ("id",)

    def __init__(self, id: bytes) -> None:
        self.id = id


def resolve(
    response: Any,
    waits: List[Any],
    args: Tuple[Any, ...],
    kwargs: Dict[str, Any],
    meta: bytes,
) -> None:
    """Sends a call whose arguments are results of others, or objects. From any thread."""
    if any(isinstance(a, PendingCall) and not _is_response(a) for a in waits):
        response.on_error(
            RuntimeError(
                "Streaming deployment handle results cannot be passed to downstream handle calls. "
                "If you have a use case requiring this feature, please file a feature request on "
                "GitHub."
            )
        )
        return
    handle = response._handle
    if (
        (handle._app_name, handle._deployment_name) in _by_value
        or handle._serialization == "orjson"
        or any(
            _is_response(a) and not (a.by_reference and a._link is response._link) for a in waits
        )
    ):
        send_by_value(response, args, kwargs, meta)
    else:
        _by_reference(response, args, kwargs, meta)


def _by_reference(
    response: Any,
    args: Tuple[Any, ...],
    kwargs: Dict[str, Any],
    meta: bytes,
) -> None:
    """The node is told which objects the call waits for; what is here already goes along."""
    handle = response._handle
    awaited: "Dict[ObjectRef[Any], None]" = {}

    def passed(argument: Any) -> Any:
        if _is_response(argument):
            if argument._done:
                return argument._fetch()
            argument = argument._hold()
        if isinstance(argument, ObjectRef):
            awaited[argument] = None
        return argument

    def slot(argument: Any) -> Any:
        return _Slot(argument.binary()) if isinstance(argument, ObjectRef) else argument

    try:
        values = tuple(passed(a) for a in args)
        named = {k: passed(v) for k, v in kwargs.items()}
        fields, body = _values.encode_arguments(values, named, handle._serialization)
    except BaseException as e:
        response.on_error(e)
        return
    if awaited:
        meta += _objects.ids_field(w.T_AWAIT_OBJECTS, awaited)
        slots = tuple(slot(v) for v in values)
        named_slots = {k: slot(v) for k, v in named.items()}

        def again(fields: Dict[int, bytes]) -> None:
            _by_value.add((handle._app_name, handle._deployment_name))
            refs = {ref.binary(): ref for ref in _objects.adopt(fields)}

            def filled(argument: Any) -> Any:
                return refs[argument.id] if isinstance(argument, _Slot) else argument

            whole = tuple(filled(s) for s in slots)
            send_by_value(response, whole, {k: filled(s) for k, s in named_slots.items()}, plain)

        plain = meta[: -len(_objects.ids_field(w.T_AWAIT_OBJECTS, awaited))]
        response._again = again
    response._transmit(meta + fields, body)


def send_by_value(
    response: Any,
    args: Tuple[Any, ...],
    kwargs: Dict[str, Any],
    meta: bytes,
) -> None:
    """Sends a call once the values of all arguments are here."""
    fetches: "Dict[ObjectRef[Any], _objects.Fetch]" = {}
    waits: List[Any] = []
    for argument in (*args, *kwargs.values()):
        if _is_response(argument):
            waits.append(argument._subscribe)
        elif isinstance(argument, ObjectRef) and argument not in fetches:
            fetches[argument] = fetch = _objects.Fetch(response._link, argument)
            waits.append(fetch.subscribe)
    left = len(waits)

    def value(argument: Any) -> Any:
        if _is_response(argument):
            response._raw_error = argument._raw_error
            return argument._fetch()
        if isinstance(argument, ObjectRef):
            fetch = fetches[argument]
            response._raw_error = (fetch.meta, fetch.body) if fetch.failed else None
            return fetch.value()
        return argument

    def one_done() -> None:
        nonlocal left
        with _lock:
            left -= 1
            if left or response._done:
                return
        try:
            values = tuple(value(a) for a in args)
            named = {k: value(v) for k, v in kwargs.items()}
        except BaseException as e:
            response.on_error(e)
            return
        response._raw_error = None
        response._handle._transmit(response, values, named, meta)

    for wait in waits:
        if not wait(one_done):
            one_done()
