"""Handles: calls from one deployment to another, and their responses."""

from __future__ import annotations

import asyncio
import random
import string
import sys
import threading
import uuid
import weakref
from collections import deque
from typing import (
    Any,
    AsyncIterator,
    Callable,
    Deque,
    Dict,
    Generator,
    Generic,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
)

from rserve import _chain, _limits, _node, _objects, _values, _wired
from rserve import _wire as w
from rserve._call import Call, request_context
from rserve._drive import News
from rserve._errors import pack_user_error, unpack_error
from rserve._objects import ObjectRef

from ray.exceptions import GetTimeoutError, RaySystemError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import RayServeException, RequestCancelledError

SERVE_LOGGER_NAME = "ray.serve"
R = TypeVar("R")
T = TypeVar("T")

OBJ_REF_NOT_SUPPORTED_ERROR = RuntimeError(
    "Converting by-value DeploymentResponses to ObjectRefs is not supported. Use "
    "handle.options(_by_reference=True) to enable it."
)

_SERIALIZATIONS = ("cloudpickle", "pickle", "msgpack", "orjson", "noop")
_lock = threading.Lock()


class _Default:
    def __repr__(self) -> str:
        return "<DEFAULT.VALUE: 1>"


DEFAULT: Any = _Default()


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
        return True
    except RuntimeError:
        return False


def _not_in_event_loop(instead: str = "`await response`") -> None:
    if _in_event_loop():
        raise RuntimeError(
            "Sync methods should not be called from within an `asyncio` event loop. Use "
            f"{instead} instead."
        )


class _DeploymentResponseBase(_node.PendingCall):
    """What the two kinds of response share: being sent, failing, being cancelled."""

    # What most responses never change costs them nothing.
    _stream = 0
    _done = False
    _error: Optional[BaseException] = None
    _cancelled = False
    _wakers: Tuple[Callable[[], None], ...] = ()
    _content_type = w.PICKLE
    _on_reserved = False  # `_stream` is there already, with a slot
    _again: Optional[Callable[[Dict[int, bytes]], None]] = None
    _raw_error: Optional[Tuple[bytes, Any]] = None  # as it came

    def __init__(
        self, handle: "DeploymentHandle[Any]", link: "_node.NodeLink", request_id: str
    ) -> None:
        self._handle = handle
        self._link = link
        self._request_id = request_id

    @property
    def request_id(self) -> str:
        """The id of the request that the call is part of."""
        return self._request_id

    @property
    def by_reference(self) -> bool:
        """Whether the value may stay in the object store."""
        return bool(self._handle._by_reference)

    def cancelled(self) -> bool:
        """Whether `cancel` was called before the result was there."""
        return self._cancelled

    def cancel(self) -> None:
        """Gives the call up: the other side is told to stop working on it."""
        self._on_loop(self._cancel)

    def _cancel(self) -> None:
        if self._done:
            return
        self._cancelled = True
        if self._stream:
            self._link.cancel_call(self._stream)
        self.on_error(RequestCancelledError(self._request_id))

    def _on_loop(self, function: Callable[..., None], *args: Any) -> None:
        link = self._link
        if threading.get_ident() == link.thread_id:
            function(*args)
        else:
            link.loop.call_soon_threadsafe(function, *args)

    def _transmit(self, meta: bytes, body: "w.Body") -> None:
        """From any thread: a thread need not wait for the loop, which may be busy."""
        if not self._done:
            if self._on_reserved:
                self._link.send_from_any(w.REQUEST, w.END, self._stream, meta, body)
                return
            self._stream = self._link.open_call(self._as_pending(), meta, body)
            if self._cancelled:  # while this was on its way
                self._link.cancel_call(self._stream)
            self._transmitted()

    def _as_pending(self) -> _node.PendingCall:
        """Who is told of the answer."""
        return self

    def _transmitted(self) -> None:
        """The call is on its way as `_stream`."""

    # --- completion; on the thread that reads from the node

    def on_error(self, error: BaseException) -> None:
        self._error = error
        self._settle()

    def _settle(self) -> None:
        with _lock:
            self._again = None
            self._done = True
            wakers, self._wakers = self._wakers, ()
        for waker in wakers:
            waker()

    def _on_failure(self, frame: w.Frame) -> None:
        fields = w.parse_fields(frame.meta)
        again, self._again = self._again, None
        if again is not None and fields.get(w.T_ERROR_TYPE) == b"ByValue":
            again(fields)
        else:
            self._raw_error = (frame.meta, frame.body)
            self._read_error(fields, frame.body)

    def _read_error(self, fields: Dict[int, bytes], body: Any) -> None:
        handle = self._handle
        self.on_error(
            unpack_error(
                fields,
                body,
                handle.app_name,
                handle.deployment_name,
                handle._method,
                self._request_id,
            )
        )

    def _subscribe(self, waker: Callable[[], None]) -> bool:
        """Calls `waker` on the loop's thread once there is news; false if there already is."""
        with _lock:
            if self._has_news():
                return False
            self._wakers += (waker,)
            return True

    def _has_news(self) -> bool:
        return self._done

    def _future(self) -> "Optional[asyncio.Future[None]]":
        """A future of the running loop that ends when there is news; None if there already is."""
        future = News(self._link, asyncio.get_running_loop())
        return future if self._subscribe(future.wake) else None

    def _wait_in_thread(self, timeout_s: Optional[float]) -> bool:
        event = threading.Event()
        return not self._subscribe(event.set) or event.wait(timeout_s)

    def __reduce__(self) -> Any:
        raise RayServeException(
            f"`{type(self).__name__}` is not serializable. If you are passing the "
            f"`{type(self).__name__}` in a nested object (e.g. a list or dictionary) to a "
            "downstream deployment handle call, that is no longer supported. Please only pass "
            f"`{type(self).__name__}` objects as top-level arguments."
        )


class DeploymentResponse(_DeploymentResponseBase, Generic[R]):
    """The result of a call, now or later: await it, or use `.result()` outside of asyncio.

    When it is passed on to another call before it is there, it becomes an object of the node
    (`_hold`): the node keeps the answer, and this process gets it only if it asks.
    """

    _parts: Optional[List[Any]] = None
    _body: Any = None
    _value: Any = None
    _refs: "Sequence[ObjectRef[Any]]" = ()  # that came with the answer
    _ref: "Optional[ObjectRef[Any]]" = None  # what it is as an object
    _held_stream = 0  # the call that the node was told about
    _kept = False  # the node said that the answer goes to `_ref`
    _fetching = False

    def on_answer(self, frame: w.Frame) -> None:
        if frame.type == w.ERROR:
            self._on_failure(frame)
            return
        if frame.type == w.RESPONSE:
            if frame.meta == _values.F_PICKLE and frame.flags & w.END:  # nearly always
                self._body = frame.body
                self._settle()
                return
            fields = w.parse_fields(frame.meta)
            if w.T_OBJECT in fields:
                self._on_kept()
                return
            if w.T_OBJECTS in fields:
                self._refs = _objects.adopt(fields)
            self._content_type = fields.get(w.T_CONTENT_TYPE, _values.OCTETS)
            if frame.flags & w.END:
                self._body = frame.body
                self._settle()
                return
            self._parts = [frame.body]
        elif self._parts is not None:
            self._parts.append(frame.body)
            if frame.flags & w.END:
                self._body = b"".join(self._parts)
                self._parts = None
                self._settle()
                return
        self._link.give_credit(frame.stream, len(frame.body))

    def _settle(self) -> None:
        super()._settle()
        if self._ref is not None and not self._kept:
            self._put(self._ref)

    # --- as an object

    def _hold(self) -> "ObjectRef[Any]":
        """This result as an object of the node. From any thread."""
        link = self._link
        with _lock:
            if self._ref is not None:
                return self._ref
            ref = self._ref = _objects.new_ref()
            done = self._done
            stream = self._held_stream = self._stream
        if done:
            self._put(ref)
        else:  # of a call that is not there yet it learns when it is
            self._send_hold(stream or next(link._streams), ref)
        return ref

    def _send_hold(self, stream: int, ref: "ObjectRef[Any]") -> None:
        meta = w.field(w.T_OBJECT, ref.binary())
        self._link.send(w.pack(w.HOLD, 0, stream, meta))

    def _transmitted(self) -> None:
        if self._ref is None:  # `_hold` sees the call if this does not see the object
            return
        with _lock:
            ref = self._ref
            if ref is None or self._held_stream == self._stream:
                return
            self._held_stream = self._stream
        _objects.granted(ref)
        self._send_hold(self._stream, ref)

    def _put(self, ref: "ObjectRef[Any]") -> None:
        """The answer came here, and somebody waits for it as an object."""
        error = self._error
        if error is not None:
            if self._raw_error is None:
                frame = pack_user_error(0, error, "")
                size = int.from_bytes(frame[:4], "little")
                start = w.HEADER_SIZE + size
                self._raw_error = (frame[w.HEADER_SIZE : start], frame[start:])
            meta, body = self._raw_error
        elif self._body is not None:
            meta, body = w.field(w.T_CONTENT_TYPE, self._content_type), self._body
            if self._refs:
                meta += _objects.ids_field(w.T_OBJECTS, self._refs)
        else:
            meta, body = _values.encode(self._value)
        _objects.granted(ref)
        _objects.put_raw(self._link, ref, meta, body)

    def _on_kept(self) -> None:
        with _lock:
            self._kept = True
            fetch = self._fetching = bool(self._wakers)
        if fetch:
            self._start_fetch()

    def _subscribe(self, waker: Callable[[], None]) -> bool:
        if not super()._subscribe(waker):
            return False
        if self._kept:  # if it comes to be so later, the waker is seen
            with _lock:
                fetch = not self._fetching
                self._fetching = True
            if fetch:
                self._start_fetch()
        return True

    def _start_fetch(self) -> None:
        """Somebody wants to have it here after all."""
        assert self._ref is not None
        fetch = _objects.Fetch(self._link, self._ref)

        def fetched() -> None:
            if self._done:
                return
            if fetch.error is not None:
                self.on_error(fetch.error)
            elif fetch.failed:
                self._raw_error = (fetch.meta, fetch.body)
                self._read_error(fetch.fields, fetch.body)
            else:
                self._refs = fetch.held
                self._content_type, self._body = fetch.raw()
                self._settle()

        if not fetch.subscribe(fetched):
            fetched()

    def _cancel(self) -> None:
        if self._kept and not self._done:
            self._link.send(w.pack(w.CANCEL, 0, self._stream, b""))
        super()._cancel()

    def _fetch(self) -> Any:
        if self._error is not None:
            raise self._error
        body = self._body
        if body is not None:
            try:
                self._value = _values.decode_value(self._content_type, body)
            except Exception as e:
                self._error = RaySystemError(
                    f"the result of {self._handle.deployment_id} cannot be read here: "
                    f"{type(e).__name__}: {e}"
                )
                raise self._error from e
            self._body = None
        return self._value

    def __await__(self) -> Generator[Any, None, R]:
        if not self._done:
            future = self._future()
            if future is not None:
                try:
                    yield from future
                except asyncio.CancelledError:
                    if self._cancelled:
                        raise RequestCancelledError(self._request_id) from None
                    raise
        result: R = self._fetch()
        return result

    def result(self, *, timeout_s: Optional[float] = None, _skip_asyncio_check: bool = False) -> R:
        """The result, waited for in this thread. The built-in TimeoutError after `timeout_s`."""
        if not _skip_asyncio_check or threading.get_ident() == self._link.thread_id:
            _not_in_event_loop()
        if not self._done and not self._wait_in_thread(timeout_s):
            raise GetTimeoutError("Get timed out: some object(s) not ready.")
        value: R = self._fetch()
        return value

    async def _to_object_ref(self) -> "ObjectRef[R]":
        """The result as an object of the node, ready or not."""
        if not self.by_reference:
            raise OBJ_REF_NOT_SUPPORTED_ERROR
        return self._hold()

    def _to_object_ref_sync(
        self,
        _timeout_s: Optional[float] = None,
        _allow_running_in_asyncio_loop: bool = False,
    ) -> "ObjectRef[R]":
        """The same outside of asyncio."""
        if not self.by_reference:
            raise OBJ_REF_NOT_SUPPORTED_ERROR
        if not _allow_running_in_asyncio_loop:
            _not_in_event_loop()
        return self._hold()


class _Weakly(_node.PendingCall):
    """Tells a response as long as somebody else has it."""

    def __init__(self, target: _node.PendingCall) -> None:
        self._target = weakref.ref(target)

    def on_answer(self, frame: w.Frame) -> None:
        target = self._target()
        if target is not None:
            target.on_answer(frame)

    def on_error(self, error: BaseException) -> None:
        target = self._target()
        if target is not None:
            target.on_error(error)


class DeploymentResponseGenerator(_DeploymentResponseBase, Generic[R]):
    """The items of a streaming call: `async for`, or `for` outside of asyncio.

    The call is cancelled when nobody has this object any more: nobody could take its items.
    """

    def __init__(
        self, handle: "DeploymentHandle[Any]", link: "_node.NodeLink", request_id: str
    ) -> None:
        super().__init__(handle, link, request_id)
        self._begun = False  # the head of the answer is here
        self._in_items = False  # it says that items follow
        self._got = 0  # items that came
        self._items: Deque[bytes] = deque()
        self._outlet: Any = None  # where the node might pass items on to by itself
        self._taken = 0

    def _as_pending(self) -> _node.PendingCall:
        return _Weakly(self)

    def __del__(self) -> None:
        try:  # no locks here: this may run anywhere
            if not self._done and self._stream:
                self._link.loop.call_soon_threadsafe(self._link.cancel_call, self._stream)
        except (AttributeError, RuntimeError):
            pass  # it was never sent, or the loop is closed

    def on_answer(self, frame: w.Frame) -> None:
        if frame.type == w.ERROR:
            self._on_failure(frame)
            return
        if frame.type == w.RESPONSE:
            fields = w.parse_fields(frame.meta)
            self._begun = True
            self._in_items = bool(w.number(fields, w.T_ITEMS))
            self._content_type = fields.get(w.T_CONTENT_TYPE, _values.OCTETS)
            if not self._in_items and frame.flags & w.END:
                self._items.append(frame.body)
        elif not frame.flags & w.END or frame.body:
            self._got += 1
            self._items.append(frame.body)
        if frame.flags & w.END:
            self._settle()
        elif self._items and self._wakers:
            with _lock:
                wakers, self._wakers = self._wakers, ()
            for waker in wakers:
                waker()

    def _has_news(self) -> bool:
        return self._done or bool(self._items)

    def _next_item(self) -> Any:
        body = self._items.popleft()
        self._taken += len(body)
        if self._taken >= w.INITIAL_CREDIT // 4 and not self._done:
            taken, self._taken = self._taken, 0
            self._on_loop(self._link.give_credit, self._stream, taken)
        return _values.decode_value(self._content_type, body)

    def __aiter__(self) -> AsyncIterator[R]:
        if self._stream and not self._done:
            _wired.iterated(self, sys._getframe(1))
        return self

    async def __anext__(self) -> R:
        while not self._items:
            if self._done:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            if self._outlet is not None:
                _wired.ask_again(self)
            future = self._future()
            if future is not None:
                try:
                    await future
                except asyncio.CancelledError:
                    if self._cancelled:
                        raise RequestCancelledError(self._request_id) from None
                    raise
        item: R = self._next_item()
        return item

    def __iter__(self) -> Iterator[R]:
        return self

    def __next__(self) -> R:
        _not_in_event_loop("`async for` or `await response.__anext__()`")
        while not self._items:
            if self._done:
                if self._error is not None:
                    raise self._error
                raise StopIteration
            self._wait_in_thread(None)
        item: R = self._next_item()
        return item

    def __await__(self) -> Generator[Any, None, R]:
        raise TypeError(
            "`DeploymentResponseGenerator` cannot be awaited directly. Use `async for` or "
            "`await response.__anext__() instead`."
        )

    def result(
        self, *, timeout_s: Optional[float] = None, _skip_asyncio_check: bool = False
    ) -> Any:
        """Raises TypeError: a stream has many results."""
        raise TypeError(
            "`DeploymentResponseGenerator` doesn't support `.result()`. Use iteration instead: "
            "`for item in response` (outside deployments) or `async for item in response` "
            "(inside deployments)."
        )

    async def _to_object_ref_gen(self) -> Any:
        raise OBJ_REF_NOT_SUPPORTED_ERROR

    def _to_object_ref_gen_sync(self, **_: Any) -> Any:
        raise OBJ_REF_NOT_SUPPORTED_ERROR


class DeploymentBroadcastResponse:
    """The answers of all replicas to a broadcast, in no particular order."""

    def __init__(self, broadcast: Any) -> None:
        self._broadcast = broadcast

    def results(
        self, *, timeout_s: Optional[float] = None, return_exceptions: bool = False
    ) -> List[Any]:
        """All answers, waited for in this thread. TimeoutError after `timeout_s`.

        The first exception is raised, or with `return_exceptions` each is in its answer's place.
        """
        _check_timeout(timeout_s)
        answers: List[Any] = self._broadcast.results(timeout_s, return_exceptions)
        return answers

    async def results_async(
        self, *, timeout_s: Optional[float] = None, return_exceptions: bool = False
    ) -> List[Any]:
        """The same in asyncio."""
        _check_timeout(timeout_s)
        answers: List[Any] = await self._broadcast.results_async(timeout_s, return_exceptions)
        return answers


def _check_timeout(timeout_s: Optional[float]) -> None:
    if timeout_s is not None and timeout_s < 0:
        raise ValueError(f"timeout_s must be non-negative or None, got {timeout_s}.")


class DeploymentHandle(Generic[T]):
    """Calls a deployment: `handle.remote(...)`, `handle.method.remote(...)`."""

    def __init__(self, deployment_name: str, app_name: str, **_options: Any) -> None:
        self._deployment_name = deployment_name
        self._app_name = app_name
        self._method = "__call__"
        self._stream = False
        self._model_id = ""
        self._session_id = ""
        self._by_reference = True
        self._serialization = "cloudpickle"
        self._id = "".join(random.choices(string.ascii_lowercase + string.digits, k=8))
        self.__dict__.update(_options)
        self._methods: Dict[str, DeploymentHandle[Any]] = {}
        self._prefix: Optional[bytes] = None
        self._initialised = False

    # --- introspection

    @property
    def deployment_name(self) -> str:
        """The deployment that is called."""
        return self._deployment_name

    @property
    def app_name(self) -> str:
        """Its application."""
        return self._app_name

    @property
    def deployment_id(self) -> DeploymentID:
        return DeploymentID(self._deployment_name, self._app_name)

    @property
    def handle_id(self) -> str:
        return self._id

    @property
    def is_initialized(self) -> bool:
        """Whether calls can be made: a node is connected."""
        return _node.current() is not None

    def running_replicas_populated(self) -> bool:
        return self.is_initialized

    def _init(self, **_: Any) -> None:
        """Once, before the first call. Ray's router options have no meaning here."""
        if self._initialised or self._prefix is not None:
            raise RuntimeError(
                "Handle has already been initialized. Note that a handle is implicitly "
                "initialized when you call `.remote()`, so you either tried to call `._init()` "
                "twice or called `._init()` after calling `.remote()`."
            )
        self._initialised = True

    def shutdown(self) -> None:
        """Nothing to do: a handle owns no resources."""

    async def shutdown_async(self) -> None:
        """Nothing to do: a handle owns no resources."""

    # --- options

    def _state(self) -> Dict[str, Any]:
        names = "_method _stream _model_id _session_id _by_reference _serialization _id"
        return {n: getattr(self, n) for n in names.split()}

    def options(
        self,
        *,
        method_name: str = DEFAULT,
        multiplexed_model_id: str = DEFAULT,
        session_id: str = DEFAULT,
        stream: bool = DEFAULT,
        _prefer_local_routing: bool = DEFAULT,
        _by_reference: bool = DEFAULT,
        request_serialization: str = DEFAULT,
        response_serialization: str = DEFAULT,
    ) -> "DeploymentHandle[T]":
        """A copy with some options changed."""
        state = self._state()
        for given in (request_serialization, response_serialization):
            if given is not DEFAULT and given not in _SERIALIZATIONS:
                raise ValueError(
                    f"Unsupported serialization method: {given}. "
                    f"Supported: {list(_SERIALIZATIONS)}."
                )
        for name, value in (
            ("_method", method_name),
            ("_model_id", multiplexed_model_id),
            ("_session_id", session_id),
            ("_stream", stream),
            ("_by_reference", _by_reference),
            ("_serialization", request_serialization),
        ):
            if value is not DEFAULT:
                state[name] = value
        return DeploymentHandle(self._deployment_name, self._app_name, **state)

    def __getattr__(self, name: str) -> "DeploymentHandle[T]":
        if name.startswith("__") or "_methods" not in self.__dict__:
            raise AttributeError(name)
        handle = self._methods.get(name)
        if handle is None:
            handle = self._methods[name] = self.options(method_name=name)
        return handle

    def __reduce__(self) -> Tuple[Any, ...]:
        return _rebuild, (self._deployment_name, self._app_name, self._state())

    def __repr__(self) -> str:
        return f"DeploymentHandle(deployment='{self._deployment_name}')"

    # --- calls

    def _fields(self) -> bytes:
        """The metadata fields that every call of this handle has."""
        prefix = self._prefix
        if prefix is None:
            parts = [
                w.field_u8(w.T_KIND, w.KIND_CALL),
                w.field_str(w.T_APP, self._app_name),
                w.field_str(w.T_DEPLOYMENT, self._deployment_name),
                w.field_str(w.T_METHOD, self._method),
                w.field_str(w.T_HANDLE, self._id),
            ]
            if self._stream:
                parts.append(w.field_u8(w.T_STREAM, 1))
            if self._model_id:
                parts.append(w.field_str(w.T_MODEL_ID, self._model_id))
            if self._session_id:
                parts.append(w.field_str(w.T_SESSION_ID, self._session_id))
            prefix = self._prefix = b"".join(parts)
        return prefix

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Starts a call; returns at once."""
        link, request_id, inherited = self._begin()
        kind: Any = DeploymentResponseGenerator if self._stream else DeploymentResponse
        response = kind(self, link, request_id)
        waits = [a for a in (*args, *kwargs.values()) if isinstance(a, _AWAITED)]
        if waits:
            _chain.resolve(response, waits, args, kwargs, self._fields() + inherited)
        else:
            self._transmit(response, args, kwargs, self._fields() + inherited)
        return response

    def _begin(self) -> "Tuple[_node.NodeLink, str, bytes]":
        """The connection, the request's id, and the fields that the current request passes on."""
        link = _node.current() or _node.require(repr(self))
        call = request_context.get()
        if isinstance(call, Call):
            inherited = call.inherited()
            request_id = call.request_id
        else:
            request_id = getattr(call, "request_id", "") or str(uuid.uuid4())
            inherited = w.field_str(w.T_REQUEST_ID, request_id)
            route = getattr(call, "route", "")
            if route:
                inherited += w.field_str(w.T_ROUTE, route)
        if _limits.used:
            inherited += _limits.fields()
        return link, request_id, inherited

    def _transmit(
        self,
        response: _DeploymentResponseBase,
        args: Tuple[Any, ...],
        kwargs: Dict[str, Any],
        meta: bytes,
    ) -> None:
        try:
            content_type, body = _values.encode_arguments(args, kwargs, self._serialization)
        except Exception as e:
            response.on_error(e)
            return
        response._transmit(meta + content_type, body)

    def broadcast(self, method_name: str, *args: Any, **kwargs: Any) -> DeploymentBroadcastResponse:
        """Calls a method of every replica that runs now, whatever their slots and the queue."""
        from rserve._replicas import Broadcast

        target = self.options(method_name=method_name, stream=False)
        return DeploymentBroadcastResponse(Broadcast(target, args, kwargs))

    def choose_replica(self, *args: Any, **kwargs: Any) -> Any:
        """`async with handle.choose_replica() as selection`: a slot that is kept for `dispatch`.

        It waits for a free slot like a call, and is given back when the block ends unless a call
        was dispatched in it. The arguments are those of the call; the choice does not look at them.
        """
        from rserve._replicas import Choosing

        return Choosing(self)

    def dispatch(self, selection: Any, *args: Any, **kwargs: Any) -> Any:
        """The call for which `choose_replica` reserved a slot.

        ValueError: a selection of another deployment, or one that was used.
        ReplicaUnavailableError: the replica is gone.
        """
        from rserve._replicas import dispatch

        link, request_id, inherited = self._begin()
        kind: Any = DeploymentResponseGenerator if self._stream else DeploymentResponse
        response = kind(self, link, request_id)
        meta = self._fields() + inherited
        dispatch(self, selection, response)
        if any(isinstance(a, _AWAITED) for a in (*args, *kwargs.values())):
            _chain.send_by_value(response, args, kwargs, meta)
        else:
            self._transmit(response, args, kwargs, meta)
        return response


def _rebuild(deployment_name: str, app_name: str, state: Dict[str, Any]) -> "DeploymentHandle[Any]":
    return DeploymentHandle(deployment_name, app_name, **state)


#: Arguments that are awaited for the call; only where they are not inside others.
_AWAITED = (_DeploymentResponseBase, ObjectRef)
