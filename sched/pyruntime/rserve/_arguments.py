"""Arguments of tasks, of actors' methods and of their constructors, on both sides."""

from __future__ import annotations

import pickle
from typing import Any, Callable, Dict, List, Optional, Tuple

from ray.exceptions import ObjectLostError

from rserve import _node, _objects, _refs, _values
from rserve._objects import ObjectRef


class Dependency:
    """Stands for a reference among the arguments, whose value travels beside them."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index

    def __reduce__(self) -> Any:
        return Dependency, (self.index,)


class Arguments:
    """The arguments of a call: pickled, and the references among them that are to be filled in.

    What this process keeps itself travels by value. What is in the node's store travels as a
    reference that the worker looks up; where it cannot (another node), by value as well.
    """

    def __init__(
        self, link: "_node.NodeLink", args: Tuple[Any, ...], kwargs: Dict[str, Any]
    ) -> None:
        self.link = link
        self.refs: "List[ObjectRef[Any]]" = []
        self.by_value = False
        packed = (
            tuple(self._one(a) for a in args),
            {k: self._one(v) for k, v in kwargs.items()},
        )
        _values.take_ids()
        self.data = _values._pickle(packed, None)
        #: The OBJECTS that the arguments hold within.
        self.ids = list(_values.pickled.ids or ())
        _values.pickled.ids = None
        self._waits: List[Any] = []
        self._fetched: Dict[int, Any] = {}
        self._stored: Any = None
        if self.refs:
            stored = [ref for ref in self.refs if _refs.own(ref) is None]
            if stored:
                self._stored = _refs.stored_ready(link, *stored)
        self._kept: List[Any] = [ObjectRef(id) for id in self.ids]

    def _one(self, value: Any) -> Any:
        if not isinstance(value, ObjectRef):
            return value
        self.refs.append(value)
        return Dependency(len(self.refs) - 1)

    def _sources(self) -> List[Any]:
        sources: List[Any] = [_refs.own(ref) for ref in self.refs]
        sources = [source for source in sources if source is not None]
        if self._stored is not None:
            sources.append(self._stored)
        sources.extend(self._fetched.values())
        return sources

    @property
    def ready(self) -> bool:
        return not self.refs or all(source.done for source in self._sources())

    def when_ready(self, wake: Callable[[], None]) -> None:
        """Calls `wake` when one more is there; at once if all are."""
        for source in self._sources():
            if source.subscribe(wake):
                return
        wake()

    def fetch_all(self) -> None:
        """The worker could not look them up: by value then."""
        self.by_value = True
        for n, ref in enumerate(self.refs):
            if _refs.own(ref) is None:
                self._fetched[n] = _objects.Fetch(self.link, ref)

    def error(self) -> Optional[BaseException]:
        for ref in self.refs:
            result = _refs.own(ref)
            if result is not None and result.done and result.error is not None:
                return result.error
        for fetch in self._fetched.values():
            try:
                fetch.raw()
            except BaseException as e:
                return e
        return None

    def packed(self) -> Tuple[bytes, List[Any]]:
        values: List[Any] = []
        for n, ref in enumerate(self.refs):
            result = _refs.own(ref)
            if result is not None:
                values.append((result.content_type, _plain(result.body)))
            elif n in self._fetched:
                content_type, body = self._fetched[n].raw()
                values.append((content_type, _plain(body)))
            else:
                values.append(ref)
        return self.data, values


def _plain(body: Any) -> bytes:
    return body if isinstance(body, bytes) else bytes(body)


class CannotLookUp(Exception):
    """A reference that came with a call is not known on this node."""


def unpack_arguments(data: bytes, values: List[Any]) -> Tuple[Tuple[Any, ...], Dict[str, Any]]:
    """In the worker. Blocks while it looks up references."""
    args, kwargs = pickle.loads(data)

    def one(value: Any) -> Any:
        if not isinstance(value, Dependency):
            return value
        given = values[value.index]
        if not isinstance(given, ObjectRef):
            return _values.decode_value(*given)
        try:
            return _refs.get(given)
        except ObjectLostError as e:
            raise CannotLookUp from e

    return tuple(one(a) for a in args), {k: one(v) for k, v in kwargs.items()}


def cloudpickled(value: Any) -> bytes:
    from rserve import _cloudpickle as cloudpickle

    return bytes(cloudpickle.dumps(value, 5))
