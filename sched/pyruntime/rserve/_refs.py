"""`ray.get` and `ray.wait`, and the results of tasks and actors' methods.

The result of a call that this process made stays here, under the id of its reference: most results
are taken where they were asked for. Only when such a reference is pickled does its object come to
be in the node's store; the value follows as soon as it is there. So a task whose worker died can
be run again, and an actor's end be explained, by who called.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import pickle
import sys
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from ray.exceptions import GetTimeoutError, ObjectRefStreamEndOfStreamError, RayTaskError

from rserve import _core, _node, _objects, _values
from rserve import _wire as w
from rserve._objects import ObjectRef

_lock = threading.RLock()
_results: Dict[bytes, "Result"] = {}


class Result:
    """What one reference of this process refers to, or will. From any thread."""

    __slots__ = ("done", "content_type", "body", "held", "error", "maker", "_wakers", "promised")

    def __init__(self, maker: Any = None) -> None:
        self.done = False
        self.content_type = w.PICKLE
        self.body: Any = b""
        self.held: "List[ObjectRef[Any]]" = []
        self.error: Optional[BaseException] = None
        self.maker = maker
        self._wakers: List[Callable[[], None]] = []
        self.promised: "Optional[bytes]" = None

    def complete(
        self,
        content_type: bytes,
        body: Any,
        error: Optional[BaseException],
        held: "Sequence[ObjectRef[Any]]" = (),
    ) -> None:
        """The first time counts."""
        with _lock:
            if self.done:
                return
            self.content_type, self.body, self.error = content_type, body, error
            self.held = list(held)
            self.done = True
            self.maker = None
            wakers, self._wakers = self._wakers, []
            promised = self.promised
        if promised is not None:
            _keep_promise(promised, self)
        for waker in wakers:
            waker()

    def subscribe(self, waker: Callable[[], None]) -> bool:
        with _lock:
            if self.done:
                return False
            self._wakers.append(waker)
            return True

    def unsubscribe(self, waker: Callable[[], None]) -> None:
        with _lock:
            if waker in self._wakers:
                self._wakers.remove(waker)

    def give_up(self) -> None:
        pass

    def raise_error(self) -> None:
        if self.error is not None:
            raise fresh(self.error)

    def value(self) -> Any:
        """The value, made anew; raises the error."""
        self.raise_error()
        return _values.decode_value(self.content_type, self.body)


def fresh(error: BaseException) -> BaseException:
    """An error for one more `raise`: a shared one would collect the tracebacks of all of them."""
    if isinstance(error, RayTaskError):
        return RayTaskError(
            error.function_name, error.traceback_str, error.cause, pid=error.pid
        ).as_instanceof_cause()
    return error.with_traceback(None)


def new_result(maker: Any = None) -> "Tuple[ObjectRef[Any], Result]":
    """A reference, and what it refers to: kept here as long as there is one."""
    ref: "ObjectRef[Any]" = object.__new__(ObjectRef)
    ref._id = os.urandom(_objects.ID_SIZE)
    result = Result(maker)
    with _lock:
        _results[ref._id] = result
    with _objects._lock:
        _objects._local[ref._id] = 1
    return ref, result


def own(ref: "ObjectRef[Any]") -> Optional[Result]:
    """The result that is kept here; None: the object is in the node's store alone."""
    return _results.get(ref._id)


def forget(id: bytes) -> None:
    """No reference is left. Called by _objects."""
    _results.pop(id, None)


# --- into the store -----------------------------------------------------------------------------


def promise(id: bytes) -> None:
    """A reference is being pickled: its object must be known to the node. Called by _objects."""
    result = _results.get(id)
    if result is None:
        return
    with _lock:
        if result.promised is not None:
            return
        result.promised = id
        done = result.done
    with _objects._lock:
        _objects._granted[id] = _objects._granted.get(id, 0) + 1
    link = _node.require("pickling an ObjectRef")
    if done:
        _keep_promise(id, result)
    else:
        link.send(w.pack(w.HOLD, 0, next(link._streams), w.field(w.T_OBJECT, id)))
        _objects.flush(link)
        if result.done:
            _keep_promise(id, result)


def _keep_promise(id: bytes, result: Result) -> None:
    link = _node.current()
    if link is None:
        return
    ref: "ObjectRef[Any]" = object.__new__(ObjectRef)
    ref._id = id
    with _objects._lock:  # this instance, and the reference that PUT brings
        _objects._local[id] = _objects._local.get(id, 0) + 1
        _objects._granted[id] = _objects._granted.get(id, 0) + 1
    if result.error is None:
        meta = w.field(w.T_CONTENT_TYPE, result.content_type)
        if result.held:
            meta += _objects.ids_field(w.T_OBJECTS, result.held)
        body = result.body if isinstance(result.body, bytes) else bytes(result.body)
    else:
        meta, body = _error_fields(result.error)
    _objects.put_raw(link, ref, meta, body)


def _error_fields(error: BaseException) -> Tuple[bytes, bytes]:
    trace = error.traceback_str if isinstance(error, RayTaskError) else str(error)
    cause = error.cause if isinstance(error, RayTaskError) else error
    try:
        body = pickle.dumps(cause, 5)
    except Exception:
        body = b""
    meta = w.field_u8(w.T_ERROR_CODE, w.E_USER)
    meta += w.field_str(w.T_ERROR_TYPE, type(cause).__name__)
    meta += w.field_str(w.T_MESSAGE, " ".join(str(error).split())[:2000])
    meta += w.field_str(w.T_TRACEBACK, trace)
    return meta, body


# --- waiting ------------------------------------------------------------------------------------


class Woken:
    """Counts sources that became ready."""

    def __init__(self, sources: Sequence[Any], need: int) -> None:
        self._event = threading.Event()
        self._woken = 0
        self._more: Optional[int] = None
        self._waiting = [s for s in sources if s.subscribe(self._wake)]
        with _lock:
            self._more = need - (len(sources) - len(self._waiting))
            self.enough = self._woken >= self._more

    def _wake(self) -> None:
        with _lock:
            self._woken += 1
            self.enough = self._more is not None and self._woken >= self._more
        if self.enough:
            self._event.set()

    def wait(self, until: Optional[float]) -> None:
        link = _node.current()
        if self.enough:
            return
        try:
            if link is not None and threading.get_ident() == link.thread_id:
                link.wait_for(lambda: self.enough, until)
            else:
                self._block(until)
        finally:
            for source in self._waiting:
                if isinstance(source, Result):
                    source.unsubscribe(self._wake)

    def _block(self, until: Optional[float]) -> None:
        lent = False
        try:
            while not self.enough:
                rest = 1.0 if until is None else until - time.monotonic()
                if rest <= 0:
                    return
                # Not for ever: signals reach the main thread between two waits. A short wait first:
                # what comes at once is not worth lending anything.
                first = not lent and _core.identity.get("kind") == "task"
                if not self._event.wait(min(rest, 0.005 if first else 1.0)) and first:
                    lent = lend_cpus(True)
        finally:
            if lent:
                lend_cpus(False)


_lent = 0


def lend_cpus(waits: bool) -> bool:
    """A worker for tasks that waits lets others have its CPUs. False: this process is none."""
    global _lent
    link = _node.current()
    if _core.identity.get("kind") != "task" or link is None:
        return False
    with _lock:
        _lent += 1 if waits else -1
        changed = _lent == (1 if waits else 0)
    if changed:
        _core.tell(link, "waiting", waiting=waits)
    return True


def _source(link: "_node.NodeLink", ref: "ObjectRef[Any]") -> Any:
    return own(ref) or _objects.Fetch(link, ref)


def get(
    object_refs: Any, *, timeout: Optional[float] = None, _use_object_store: bool = False
) -> Any:
    """The value of a reference, or the list of values of a list of references; waits for them.

    From any thread. On the event loop's own it blocks the loop, as in Ray. Raises GetTimeoutError
    after `timeout` seconds, and the error of the first that failed.
    """
    if hasattr(object_refs, "__ray_get__"):
        return object_refs.__ray_get__(timeout)
    one = isinstance(object_refs, ObjectRef)
    if not one and not isinstance(object_refs, (list, tuple)):
        raise ValueError(
            f"Invalid type of object refs, {type(object_refs)}, is given. 'object_refs' must "
            "either be an ObjectRef or a list of ObjectRefs. "
        )
    refs: List[Any] = [object_refs] if one else list(object_refs)
    for ref in refs:
        if not isinstance(ref, ObjectRef):
            raise ValueError(
                f"Invalid type of object refs, {type(ref)}, is given. 'object_refs' must either "
                "be an ObjectRef or a list of ObjectRefs. "
            )
    until = None if timeout is None or timeout < 0 else time.monotonic() + timeout
    link = _node.require("ray.get")
    sources = [_source(link, ref) for ref in refs]
    if until is not None and timeout == 0:
        until += 0.05  # "if it is there already": one trip to the node
    for source in sources:  # in order: the first error is raised as soon as it is known
        if not source.done:
            Woken([source], 1).wait(until)
        if not source.done:
            for other in sources:
                if not other.done:
                    other.give_up()
            raise GetTimeoutError("Get timed out: some object(s) not ready.")
        if isinstance(source, Result):
            source.raise_error()
        elif source.failed or source.error is not None:
            source.raw()
    values = [source.value() for source in sources]
    return values[0] if one else values


def wait(
    ray_waitables: Any,
    *,
    num_returns: int = 1,
    timeout: Optional[float] = None,
    fetch_local: bool = True,
) -> Tuple[List[Any], List[Any]]:
    """Two lists, in the given order: at most `num_returns` that are ready, and the others."""
    refs = ray_waitables
    if isinstance(refs, ObjectRef):
        raise TypeError("wait() expected a list of ray.ObjectRef, got a single ray.ObjectRef")
    if not isinstance(refs, (list, tuple)):
        raise TypeError(f"wait() expected a list of ray.ObjectRef, got {type(refs)}")
    plain = [r if isinstance(r, ObjectRef) else _next_of(r) for r in refs]
    if not refs:
        return [], []
    _objects._check_wait(plain, num_returns, timeout)
    link = _node.require("ray.wait")
    until = None if timeout is None else time.monotonic() + max(timeout, 0.01)
    sources: List[Any] = [own(ref) for ref in plain]
    missing = [ref for ref, source in zip(plain, sources) if source is None]
    stored = {ref: _Stored(link, ref) for ref in missing}
    sources = [source or stored[ref] for ref, source in zip(plain, sources)]
    Woken(sources, num_returns).wait(until)
    ready: List[Any] = []
    pending: List[Any] = []
    for ref, source in zip(refs, sources):
        if source.done and len(ready) < num_returns:
            ready.append(ref)
        else:
            pending.append(ref)
    for source in stored.values():
        if not source.done:
            source.give_up()
    return ready, pending


def _next_of(item: Any) -> "ObjectRef[Any]":
    next_ref = getattr(item, "_next_ref", None)
    if next_ref is None:
        raise TypeError(
            f"wait() expected a list of ray.ObjectRef, got list containing {type(item)}"
        )
    ref: "ObjectRef[Any]" = next_ref()
    return ref


class _Stored(_objects.Request):
    """Until objects in the store are ready, without their values."""

    def __init__(self, link: "_node.NodeLink", *refs: "ObjectRef[Any]") -> None:
        meta = _objects._F_WAIT + _objects.ids_field(w.T_AWAIT_OBJECTS, refs)
        super().__init__(link, meta + w.field_u32(w.T_NEED, len(refs)))


stored_ready = _Stored


# --- in asyncio ---------------------------------------------------------------------------------


async def own_async(result: Result) -> Any:
    """The value of a result, in asyncio."""
    if not result.done:
        loop = asyncio.get_running_loop()
        future: "asyncio.Future[None]" = loop.create_future()

        def settle() -> None:
            if not future.done():
                future.set_result(None)

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(settle)
            except RuntimeError:
                pass  # that loop was closed: nobody waits any more

        if result.subscribe(wake):
            try:
                await future
            finally:
                result.unsubscribe(wake)
    return result.value()


def own_future(result: Result) -> "concurrent.futures.Future[Any]":
    future: "concurrent.futures.Future[Any]" = concurrent.futures.Future()

    def settle() -> None:
        try:
            value = result.value()
        except BaseException as e:
            future.set_exception(e)
        else:
            future.set_result(value)

    future.set_running_or_notify_cancel()
    if not result.subscribe(settle):
        settle()
    return future


END_OF_STREAM = ObjectRefStreamEndOfStreamError

_objects.results = sys.modules[__name__]
