"""Objects in the node's store, and references to them.

An object has an id of 16 random bytes, made here. The node counts this process' references; here
they are counted by instance, and given back when the last one goes:

- `_local[id]` is how many ObjectRefs there are, `_granted[id]` how many references the node has
  counted for them. A frame that lists an id in OBJECTS brings one (`adopt`), making an object
  brings one (`granted`), and a reference that came by other ways is asked for with REFS.
- `__del__` may run anywhere, in the middle of anything: it only notes the id. What was noted is
  worked off on the link's loop, behind all that was sent there before.

What waits for an object is a `Fetch`, from any thread, and also from the loop's own, which then
reads the socket itself.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import struct
import threading
import time
from collections import deque
from typing import (
    Any,
    Callable,
    Deque,
    Dict,
    Generator,
    Generic,
    Iterable,
    List,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
    Union,
)

from rserve import _node, _values
from rserve import _wire as w

T = TypeVar("T")

ID_SIZE = 16

_lock = threading.Lock()
_local: Dict[bytes, int] = {}
_granted: Dict[bytes, int] = {}
_dropped: Deque[bytes] = deque()
_drain_due = False

_new = object.__new__

#: `rserve._refs`, once it is in use: results of calls that are kept in this process.
results: Any = None


class ObjectRef(Generic[T]):
    """A reference to an object in the store: `ray.get(ref)` or `await ref` gives its value."""

    __slots__ = ("_id", "__weakref__")

    _id: bytes

    def __init__(self, id: bytes) -> None:
        """A reference to a known id. Registers a borrow if this process has none yet."""
        if len(id) != ID_SIZE:
            raise ValueError(f"an object's id has {ID_SIZE} bytes, not {len(id)}")
        self._id = bytes(id)
        if _count(self._id):
            _borrow(self._id)

    @classmethod
    def from_random(cls) -> "ObjectRef[Any]":
        return new_ref()

    @classmethod
    def nil(cls) -> "ObjectRef[Any]":
        return cls(b"\xff" * ID_SIZE)

    def binary(self) -> bytes:
        return self._id

    def hex(self) -> str:
        return self._id.hex()

    def is_nil(self) -> bool:
        return self._id == b"\xff" * ID_SIZE

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectRef) and other._id == self._id

    def __hash__(self) -> int:
        return hash(self._id)

    def __repr__(self) -> str:
        return f"ObjectRef({self._id.hex()})"

    def __del__(self) -> None:
        try:
            _dropped.append(self._id)
            if not _drain_due:
                _schedule_drain()
        except Exception:
            pass  # never set up, or the interpreter is on its way out

    def __reduce__(self) -> Tuple[Any, ...]:
        ids = _values.pickled.ids
        if ids is None:
            ids = _values.pickled.ids = {}
        ids[self._id] = None
        if results is not None:
            results.promise(self._id)
        return ObjectRef, (self._id,)

    def future(self) -> "concurrent.futures.Future[T]":
        """A future of the value, for threads. What happens in its callbacks must not block."""
        result = results.own(self) if results is not None else None
        if result is not None:
            kept: "concurrent.futures.Future[T]" = results.own_future(result)
            return kept
        future: "concurrent.futures.Future[T]" = concurrent.futures.Future()
        fetch = Fetch(_node.require("ObjectRef.future()"), self)

        def settle() -> None:
            try:
                future.set_result(fetch.value())
            except BaseException as e:
                future.set_exception(e)

        future.set_running_or_notify_cancel()
        if not fetch.subscribe(settle):
            settle()
        return future

    def as_future(self, _internal: bool = False) -> "asyncio.Future[T]":
        """A future of the running event loop."""
        return asyncio.ensure_future(fetch_async(self))

    def __await__(self) -> Generator[Any, None, T]:
        return fetch_async(self).__await__()


def new_ref() -> "ObjectRef[Any]":
    """A reference to an object that is about to be made: its id goes into RETURN_OBJECT, HOLD or
    PUT, which brings the node's count along."""
    ref: "ObjectRef[Any]" = _new(ObjectRef)
    ref._id = os.urandom(ID_SIZE)
    with _lock:
        _local[ref._id] = 1
        _granted[ref._id] = 1
    return ref


def granted(ref: "ObjectRef[Any]") -> None:
    """The node counts one more reference for this process."""
    with _lock:
        _granted[ref._id] = _granted.get(ref._id, 0) + 1


def adopt(fields: Dict[int, bytes]) -> "List[ObjectRef[Any]]":
    """The references that a received frame brought. They live at least as long as the list."""
    block = fields.get(w.T_OBJECTS)
    if not block:
        return []
    refs = []
    for at in range(0, len(block), ID_SIZE):
        ref: "ObjectRef[Any]" = _new(ObjectRef)
        ref._id = block[at : at + ID_SIZE]
        with _lock:
            _local[ref._id] = _local.get(ref._id, 0) + 1
            _granted[ref._id] = _granted.get(ref._id, 0) + 1
        refs.append(ref)
    return refs


def ids_field(tag: int, refs: "Iterable[ObjectRef[Any]]") -> bytes:
    return w.field(tag, b"".join(ref._id for ref in refs))


# --- counting -----------------------------------------------------------------------------------


def _count(id: bytes) -> bool:
    """One more instance; true if the node does not know of any."""
    with _lock:
        _local[id] = _local.get(id, 0) + 1
        if _granted.get(id):
            return False
        _granted[id] = 1
        return True


def _borrow(id: bytes) -> None:
    link = _node.current()
    if link is not None:
        link.send(w.pack(w.REFS, 0, 0, w.field(w.T_ADD, id)))


def flush(link: "_node.NodeLink") -> None:
    """Sends what is queued on the loop's thread now."""
    if threading.get_ident() == link.thread_id:
        link.flush()


def _call_soon(link: "_node.NodeLink", function: Callable[..., Any], *args: Any) -> None:
    """Runs something on the link's thread, in the order of these calls."""
    try:
        link.loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        pass  # its loop was closed: the link is gone


def _schedule_drain() -> None:
    global _drain_due
    link = _node.current()
    if link is None or link.loop is None:
        if len(_dropped) > 1000:
            _drain(None)
        return
    _drain_due = True
    _call_soon(link, _drain, link)


#: Ids in one REFS frame.
_BATCH = 4096


def _drain(link: "Optional[_node.NodeLink]") -> None:
    """Gives back what no instance refers to any more."""
    global _drain_due
    _drain_due = False
    gone: List[bytes] = []
    with _lock:
        while _dropped:
            id = _dropped.popleft()
            left = _local.get(id, 0) - 1
            if left > 0:
                _local[id] = left
                continue
            _local.pop(id, None)
            if results is not None:
                results.forget(id)
            gone.extend([id] * _granted.pop(id, 0))
    if link is None:
        return
    for at in range(0, len(gone), _BATCH):
        meta = w.field(w.T_DROP, b"".join(gone[at : at + _BATCH]))
        link.send(w.pack(w.REFS, 0, 0, meta))


# --- requests to the node -----------------------------------------------------------------------


class Request(_node.PendingCall):
    """A request to the node itself, and its answer. `subscribe` and `wait` are for any thread."""

    def __init__(self, link: "_node.NodeLink", meta: bytes, body: "w.Body" = b"") -> None:
        self.link = link
        self.done = False
        self.failed = False
        self.fields: Dict[int, bytes] = {}
        self.meta = b""  # of an error
        self.body: Any = b""
        self.error: Optional[BaseException] = None
        self._parts: List[Any] = []
        self._stream = 0
        self._wakers: List[Callable[[], None]] = []
        if len(body) > w.MEMFD_FROM:
            size = len(body)
            self._stream = link.open_call_memfd(self, meta, size, w.make_memfd(body))
        else:
            self._stream = link.open_call(self, meta, body)

    def on_answer(self, frame: w.Frame) -> None:
        if frame.type == w.ERROR:
            self.failed = True
            self.meta = frame.meta
            self.fields = w.parse_fields(frame.meta)
            self.body = frame.body
        elif frame.type == w.RESPONSE:
            self.fields = w.parse_fields(frame.meta)
            self.body = frame.body
            if not frame.flags & w.END:
                self._parts = [frame.body]
        else:
            self._parts.append(frame.body)
            if frame.flags & w.END:
                self.body = b"".join(self._parts)
        if frame.flags & w.END or frame.type == w.ERROR:
            self.settled()
            self._settle()
        else:
            self.link.give_credit(frame.stream, len(frame.body))

    def settled(self) -> None:
        """The answer is there; on the thread that read it."""

    def on_error(self, error: BaseException) -> None:
        self.error = error
        self._settle()

    def _settle(self) -> None:
        with _lock:
            self.done = True
            wakers, self._wakers = self._wakers, []
        for waker in wakers:
            waker()

    def subscribe(self, waker: Callable[[], None]) -> bool:
        """Calls `waker`, on whichever thread reads, once it is done; false if it is already."""
        with _lock:
            if self.done:
                return False
            self._wakers.append(waker)
            return True

    def give_up(self) -> None:
        """Nobody waits for the answer any more."""
        self.link.cancel_call(self._stream)

    def wait(self, until: Optional[float]) -> bool:
        """Blocks this thread, whichever it is; false at `until` (monotonic seconds)."""
        if self.done:
            return True
        if threading.get_ident() == self.link.thread_id:
            return self.link.wait_for(lambda: self.done, until)
        event = threading.Event()
        if not self.subscribe(event.set):
            return True
        return event.wait(None if until is None else max(0.0, until - time.monotonic()))

    async def wait_async(self) -> None:
        """Until it is done. Gives up when it is cancelled."""
        loop = asyncio.get_running_loop()
        future: "asyncio.Future[None]" = loop.create_future()

        def wake() -> None:
            if not future.done():
                future.set_result(None)

        def wake_other() -> None:
            if loop is self.link.loop and threading.get_ident() == self.link.thread_id:
                wake()
                return
            try:
                loop.call_soon_threadsafe(wake)
            except RuntimeError:
                pass  # that loop was closed: nobody waits any more

        if self.subscribe(wake_other):
            try:
                await future
            except BaseException:
                self.give_up()
                raise


class Fetch(Request):
    """The value of an object."""

    def __init__(self, link: "_node.NodeLink", ref: "ObjectRef[Any]") -> None:
        self.ref = ref
        self.held: "List[ObjectRef[Any]]" = []
        super().__init__(link, _F_GET + w.field(w.T_OBJECT, ref._id) + _parent())

    def settled(self) -> None:
        self.held = adopt(self.fields)

    def raw(self) -> Tuple[bytes, Any]:
        """Content type and body; raises the object's error."""
        if self.error is not None:
            raise self.error
        if self.failed:
            raise read_error(self.fields, self.body, self.ref)
        return self.fields.get(w.T_CONTENT_TYPE, _values.OCTETS), self.body

    def value(self) -> Any:
        """The value, made anew each time; raises the object's error."""
        try:
            return _values.decode_value(*self.raw())
        finally:
            self.held = []


_F_GET = w.field_u8(w.T_KIND, w.KIND_GET)
_F_PUT = w.field_u8(w.T_KIND, w.KIND_PUT)
_F_WAIT = w.field_u8(w.T_KIND, w.KIND_WAIT)


def _parent() -> bytes:
    """A request that is cancelled takes along what it waits for."""
    from rserve._call import Call, request_context

    call = request_context.get()
    return w.field_u64(w.T_PARENT, call.stream) if isinstance(call, Call) else b""


def read_error(
    fields: Dict[int, bytes], body: Any, ref: "Optional[ObjectRef[Any]]" = None
) -> BaseException:
    """The exception for an ERROR frame that answers a request about objects."""
    from rserve._errors import unpack_error

    return unpack_error(
        fields,
        body,
        w.text(fields, w.T_APP),
        w.text(fields, w.T_DEPLOYMENT),
        w.text(fields, w.T_METHOD, "__call__"),
        w.text(fields, w.T_REQUEST_ID),
        ref.hex() if ref is not None else "",
    )


#: Objects that somebody may still have to ask for, where no frame can carry the reference.
_pinned: "Dict[bytes, ObjectRef[Any]]" = {}


def pin(ids: Iterable[bytes]) -> None:
    """Keeps objects until this process ends."""
    for id in ids:
        if id not in _pinned:
            _pinned[id] = ObjectRef(id)


# --- what `ray` has -----------------------------------------------------------------------------


async def fetch_async(ref: "ObjectRef[T]") -> T:
    """The value of an object, in asyncio."""
    result = results.own(ref) if results is not None else None
    if result is not None:
        kept: T = await results.own_async(result)
        return kept
    fetch = Fetch(_node.require("await ObjectRef"), ref)
    if not fetch.done:
        await fetch.wait_async()
    value: T = fetch.value()
    return value


def sent_along(
    fields: Dict[int, bytes], args: Tuple[Any, ...], kwargs: Dict[str, Any]
) -> "Optional[Tuple[Tuple[Any, ...], Dict[str, Any]]]":
    """The same for short values, which the node sends with the request; None: it did not."""
    block = fields.get(w.T_READY)
    if block is None:
        return None
    ids = fields.get(w.T_AWAIT_OBJECTS, b"")
    found: Dict[bytes, Tuple[bytes, bytes]] = {}
    at = 0
    for start in range(0, len(ids), ID_SIZE):
        try:
            kind_length, length = _SENT.unpack_from(block, at)
        except struct.error:
            raise w.ProtocolError("the values of a request are cut off") from None
        at += _SENT.size
        found[ids[start : start + ID_SIZE]] = (
            block[at : at + kind_length],
            block[at + kind_length : at + kind_length + length],
        )
        at += kind_length + length
    values: Dict[bytes, Any] = {}

    def value(argument: Any) -> Any:
        if not isinstance(argument, ObjectRef):
            return argument
        if argument._id not in values:
            sent = found[argument._id]
            values[argument._id] = _values.decode_value(*sent)
        return values[argument._id]

    try:
        return tuple(value(a) for a in args), {k: value(v) for k, v in kwargs.items()}
    except KeyError:  # one that it was not told to wait for
        return None


_SENT = struct.Struct("<HI")


async def resolve(
    link: "_node.NodeLink", args: Tuple[Any, ...], kwargs: Dict[str, Any]
) -> Tuple[Tuple[Any, ...], Dict[str, Any]]:
    """Arguments with the values of those that are ObjectRefs; what they hold inside stays."""
    fetches = {
        argument: Fetch(link, argument)
        for argument in (*args, *kwargs.values())
        if isinstance(argument, ObjectRef)
    }
    for fetch in fetches.values():
        if not fetch.done:
            await fetch.wait_async()
    values = {ref: fetch.value() for ref, fetch in fetches.items()}

    def value(argument: Any) -> Any:
        return values[argument] if isinstance(argument, ObjectRef) else argument

    return tuple(value(a) for a in args), {k: value(v) for k, v in kwargs.items()}


def put(value: Any) -> "ObjectRef[Any]":
    """Puts a value into the node's store. Raises ObjectStoreFullError when there is no room."""
    if isinstance(value, ObjectRef):
        raise TypeError(
            "Calling 'put' on an ray.ObjectRef is not allowed. If you really want to do this, you "
            "can wrap the ray.ObjectRef in a list and call 'put' on it."
        )
    link = _node.require("ray.put()")
    meta, body = _values.encode(value)
    ref = new_ref()
    request = put_raw(link, ref, meta, body)
    if len(body) > w.MEMFD_FROM:  # for a short one the error, if any, comes with `get`
        request.wait(None)
        if request.error is not None:
            raise request.error
        if request.failed:
            raise read_error(request.fields, request.body, ref)
    return ref


def put_raw(link: "_node.NodeLink", ref: "ObjectRef[Any]", meta: bytes, body: "w.Body") -> Request:
    """Makes the object of `ref` from an encoded value, or with the fields of an ERROR an error.

    The node counts one more reference for this process; `new_ref` has counted the first.
    """
    meta = b"".join(
        w.field(tag, value)
        for tag, value in w.parse_fields(meta).items()
        if tag not in (w.T_KIND, w.T_OBJECT)  # of a PUT that this came by
    )
    return Request(link, _F_PUT + w.field(w.T_OBJECT, ref._id) + meta, body)


Refs = Union["ObjectRef[Any]", Sequence["ObjectRef[Any]"]]


def get(refs: Refs, timeout: Optional[float] = None) -> Any:
    """The value of an object, or the values of several. GetTimeoutError after `timeout` seconds.

    From any thread. On the event loop's own it blocks the loop, as it says in Ray; answers from
    the node are read all the same.
    """
    from ray.exceptions import GetTimeoutError

    one = isinstance(refs, ObjectRef)
    several: List[Any] = [refs] if one or not isinstance(refs, (list, tuple)) else list(refs)
    for ref in several:
        if not isinstance(ref, ObjectRef):
            raise ValueError(
                f"Invalid type of object refs, {type(refs)}, is given. 'object_refs' must either "
                "be an ObjectRef or a list of ObjectRefs. "
            )
    link = _node.require("ray.get()")
    until = None if timeout is None or timeout < 0 else time.monotonic() + timeout
    fetches = [Fetch(link, ref) for ref in several]
    if until is not None and timeout == 0:
        until += 0.05  # "if it is there already": one trip to the node
    for fetch in fetches:
        if not fetch.wait(until):
            for other in fetches:
                if not other.done:
                    other.give_up()
            raise GetTimeoutError("Get timed out: some object(s) not ready.")
    values = [fetch.value() for fetch in fetches]
    return values[0] if one else values


def wait(
    refs: "Sequence[ObjectRef[Any]]",
    num_returns: int = 1,
    timeout: Optional[float] = None,
    fetch_local: bool = True,
) -> "Tuple[List[ObjectRef[Any]], List[ObjectRef[Any]]]":
    """Those that are ready, at most `num_returns` of them, and the others, in the given order."""
    _check_wait(refs, num_returns, timeout)
    request = _start_wait(refs, num_returns, timeout)
    if request is None:
        return [], []
    request.wait(None)
    return _split(request, refs, num_returns)


async def wait_async(
    refs: "Sequence[ObjectRef[Any]]", num_returns: int = 1, timeout: Optional[float] = None
) -> "Tuple[List[ObjectRef[Any]], List[ObjectRef[Any]]]":
    """The same in asyncio."""
    _check_wait(refs, num_returns, timeout)
    request = _start_wait(refs, num_returns, timeout)
    if request is None:
        return [], []
    await request.wait_async()
    return _split(request, refs, num_returns)


def _check_wait(refs: Any, num_returns: int, timeout: Optional[float]) -> None:
    if isinstance(refs, ObjectRef):
        raise TypeError("wait() expected a list of ray.ObjectRef, got a single ray.ObjectRef")
    if not isinstance(refs, (list, tuple)):
        raise TypeError(f"wait() expected a list of ray.ObjectRef, got {type(refs)}")
    for ref in refs:
        if not isinstance(ref, ObjectRef):
            raise TypeError(
                f"wait() expected a list of ray.ObjectRef, got list containing {type(ref)}"
            )
    if len(set(refs)) != len(refs):
        raise ValueError("Wait requires a list of unique ray_waitables.")
    if timeout is not None and timeout < 0:
        raise ValueError(f"The 'timeout' argument must be nonnegative. Received {timeout}")
    if refs and num_returns <= 0:
        raise ValueError("Invalid number of objects to return %d." % num_returns)
    if refs and num_returns > len(refs):
        raise ValueError(
            "num_returns cannot be greater than the number of ray_waitables provided to ray.wait."
        )


def _start_wait(
    refs: "Sequence[ObjectRef[Any]]", num_returns: int, timeout: Optional[float]
) -> Optional[Request]:
    if not refs:
        return None
    meta = _F_WAIT + ids_field(w.T_AWAIT_OBJECTS, refs) + w.field_u32(w.T_NEED, num_returns)
    if timeout is not None:
        meta += w.field_u32(w.T_TIMEOUT_MS, min(max(1, int(timeout * 1000)), 0xFFFFFFFF))
    return Request(_node.require("ray.wait()"), meta + _parent())


def _split(
    request: Request, refs: "Sequence[ObjectRef[Any]]", num_returns: int
) -> "Tuple[List[ObjectRef[Any]], List[ObjectRef[Any]]]":
    if request.error is not None:
        raise request.error
    if request.failed:
        raise read_error(request.fields, request.body)
    block = request.fields.get(w.T_READY, b"")
    known = {block[at : at + ID_SIZE] for at in range(0, len(block), ID_SIZE)}
    ready = [ref for ref in refs if ref._id in known][:num_returns]
    chosen = set(ready)
    return ready, [ref for ref in refs if ref not in chosen]


def call(
    app: str,
    deployment: str,
    method: str,
    args: Tuple[Any, ...] = (),
    kwargs: Optional[Dict[str, Any]] = None,
    **options: Any,
) -> "ObjectRef[Any]":
    """A handle call whose answer goes to the store. ObjectRefs among the arguments are awaited by
    the node and arrive as values. From any thread."""
    from ray.serve.handle import DeploymentHandle

    handle: Any = DeploymentHandle(deployment, app).options(method_name=method, **options)
    response = handle.remote(*args, **(kwargs or {}))
    ref: "ObjectRef[Any]" = response._to_object_ref_sync(_allow_running_in_asyncio_loop=True)
    return ref
