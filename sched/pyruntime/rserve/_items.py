"""What a generator on the other side yields, as references that come one by one."""

from __future__ import annotations

import pickle
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Deque, List, Optional, Tuple

from ray.exceptions import ObjectRefStreamEndOfStreamError

from rserve import _refs
from rserve import _wire as w
from rserve._objects import ObjectRef

if TYPE_CHECKING:
    from rserve._remote import RemoteCall


class Items:
    """What a generator on the other side has yielded so far."""

    def __init__(self, call: "RemoteCall") -> None:
        self.call = weakref.ref(call)
        self.ended = False
        self._ready: "Deque[Tuple[ObjectRef[Any], _refs.Result]]" = deque()
        self._next: "Optional[Tuple[ObjectRef[Any], _refs.Result]]" = None
        self._lock = threading.Lock()

    def give(
        self,
        content_type: bytes,
        body: Any,
        error: Optional[BaseException],
        held: "List[ObjectRef[Any]]",
    ) -> None:
        with self._lock:
            slot, self._next = self._next or _refs.new_result(), None
            self._ready.append(slot)
        slot[1].complete(content_type, body, error, held)

    def end(self) -> None:
        with self._lock:
            self.ended = True
            slot, self._next = self._next, None
        if slot is not None:
            slot[1].complete(w.PICKLE, b"", ObjectRefStreamEndOfStreamError())

    def peek(self) -> "Tuple[ObjectRef[Any], _refs.Result]":
        """The next item, or where it will be."""
        with self._lock:
            if self._ready:
                return self._ready[0]
            if self._next is None:
                self._next = _refs.new_result()
                if self.ended:
                    self._next[1].complete(w.PICKLE, b"", ObjectRefStreamEndOfStreamError())
            return self._next

    def take(self) -> None:
        with self._lock:
            if self._ready:
                self._ready.popleft()


class ObjectRefGenerator:
    """The references to what a generator yields, one by one, as it yields them."""

    def __init__(self, call: "RemoteCall") -> None:
        assert call.items is not None
        self._items = call.items
        self._maker = call

    def __iter__(self) -> "ObjectRefGenerator":
        return self

    def __aiter__(self) -> "ObjectRefGenerator":
        return self

    def _next_ref(self) -> "ObjectRef[Any]":
        return self._items.peek()[0]

    def _take(self, slot: "Tuple[ObjectRef[Any], _refs.Result]") -> "ObjectRef[Any]":
        if isinstance(slot[1].error, ObjectRefStreamEndOfStreamError):
            raise StopIteration
        self._items.take()
        return slot[0]

    def __next__(self) -> "ObjectRef[Any]":
        return self._next_sync()

    def _next_sync(self, timeout_s: Optional[float] = None) -> "ObjectRef[Any]":
        slot = self._items.peek()
        until = None if timeout_s is None else time.monotonic() + timeout_s
        if not slot[1].done:
            _refs.Woken([slot[1]], 1).wait(until)
        if not slot[1].done:
            return ObjectRef.nil()
        return self._take(slot)

    async def __anext__(self) -> "ObjectRef[Any]":
        slot = self._items.peek()
        try:
            await _refs.own_async(slot[1])
        except BaseException:
            if not slot[1].done:
                raise
        try:
            return self._take(slot)
        except StopIteration:
            raise StopAsyncIteration from None

    def completed(self) -> "ObjectRef[Any]":
        """Done when the generator is."""
        ref, result = _refs.new_result()
        call = self._items.call()

        def end() -> None:
            result.complete(w.PICKLE, pickle.dumps(None), None)

        if self._items.ended or call is None:
            end()
        else:
            call.on_end.append(end)
        return ref

    def is_finished(self) -> bool:
        return self._items.ended and isinstance(
            self._items.peek()[1].error, ObjectRefStreamEndOfStreamError
        )

    def next_ready(self) -> bool:
        return self._items.peek()[1].done

    def task_id(self) -> str:
        return self._maker.task_id
