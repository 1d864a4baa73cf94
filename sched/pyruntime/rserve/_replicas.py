"""Calls about single replicas: broadcasts to all of them, and slots that are reserved first.

A slot is reserved on this node only.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.handle import (
    DeploymentHandle,
    DeploymentResponse,
    _DeploymentResponseBase,
    _not_in_event_loop,
)

from rserve import _node, _values
from rserve import _wire as w


class _Question(_DeploymentResponseBase):
    """A RESERVE request of `handle`: for a slot, or for the names of the replicas."""

    def __init__(
        self,
        handle: "DeploymentHandle[Any]",
        link: "_node.NodeLink",
        request_id: str,
        heard: Callable[[w.Frame], None],
    ) -> None:
        super().__init__(handle, link, request_id)
        self._heard = heard

    def on_answer(self, frame: w.Frame) -> None:
        if frame.type == w.ERROR:
            self._read_error(w.parse_fields(frame.meta), frame.body)
            return
        self._heard(frame)
        self._settle()

    async def there(self) -> None:
        """Until it is answered, which may be with an error."""
        if not self._done:
            future = self._future()
            if future is not None:
                await future


# --- broadcast ----------------------------------------------------------------------------------


class Broadcast:
    """A call to every replica that runs now, and its answers."""

    def __init__(
        self, handle: "DeploymentHandle[Any]", args: Tuple[Any, ...], kwargs: Dict[str, Any]
    ) -> None:
        self._handle = handle
        link, request_id, inherited = handle._begin()
        self._fields = handle._fields() + inherited
        self._request_id = request_id
        self._link = link
        self._responses: List[DeploymentResponse[Any]] = []
        self._content_type, self._body = _values.encode_arguments(
            args, kwargs, handle._serialization
        )
        self._listings: List[_Question] = []
        self._list(b"")

    def _list(self, node: bytes) -> None:
        """Asks which replicas there are: this node's, or those of the one that the field names."""
        listing = _Question(
            self._handle, self._link, self._request_id, lambda frame: self._send(frame, node)
        )
        self._listings.append(listing)
        meta = w.field_u8(w.T_KIND, w.KIND_RESERVE) + w.field_u8(w.T_LIST, 1) + node
        # KIND stands first in the fields of every call.
        listing._transmit(meta + self._fields[len(w.field_u8(w.T_KIND, 0)) :], b"")

    def _send(self, frame: w.Frame, node: bytes) -> None:
        for one in json.loads(bytes(frame.body)):
            if isinstance(one, dict):
                self._list(w.field_str(w.T_NODE, one["node_id"]))
                continue
            response: DeploymentResponse[Any] = DeploymentResponse(
                self._handle, self._link, self._request_id
            )
            meta = self._fields + w.field_str(w.T_REPLICA, one) + node + self._content_type
            response._transmit(meta, self._body)
            self._responses.append(response)

    def _check_listed(self) -> None:
        """All listings are there. A node that did not answer is gone, and its replicas with it."""
        if self._listings[0]._error is not None:
            raise self._listings[0]._error
        if not self._responses:
            raise DeploymentUnavailableError(self._handle.deployment_id)

    def results(self, timeout_s: Optional[float], return_exceptions: bool) -> List[Any]:
        """All answers, waited for in this thread."""
        _not_in_event_loop()
        until = None if timeout_s is None else time.monotonic() + timeout_s

        def wait(for_what: _DeploymentResponseBase) -> None:
            left = None if until is None else max(0.0, until - time.monotonic())
            if not for_what._done and not for_what._wait_in_thread(left):
                raise TimeoutError("Timed out waiting for broadcast results.")

        for listing in self._listings:  # the first one's answer adds to them
            wait(listing)
        self._check_listed()
        for response in self._responses:
            wait(response)
        return self._collect(return_exceptions)

    async def results_async(
        self, timeout_s: Optional[float], return_exceptions: bool
    ) -> List[Any]:
        """The same, awaited."""

        async def all_there() -> None:
            for listing in self._listings:
                await listing.there()
            self._check_listed()
            for response in self._responses:
                if not response._done:
                    future = response._future()
                    if future is not None:
                        await future

        try:
            await asyncio.wait_for(all_there(), timeout_s)
        except asyncio.TimeoutError:
            raise TimeoutError("Timed out waiting for broadcast results.") from None
        return self._collect(return_exceptions)

    def _collect(self, return_exceptions: bool) -> List[Any]:
        values: List[Any] = []
        for response in self._responses:
            try:
                values.append(response._fetch())
            except Exception as e:
                if not return_exceptions:
                    raise
                values.append(e)
        return values


# --- reserved slots -----------------------------------------------------------------------------


class ReplicaSelection:
    """A replica with a slot that is kept for one call, until the block ends."""

    def __init__(self, handle: "DeploymentHandle[Any]") -> None:
        link, request_id, inherited = handle._begin()
        self._link = link
        self._request_id = request_id
        self._inherited = inherited
        self._open = False
        self._lock = threading.Lock()
        self.deployment_id: DeploymentID = handle.deployment_id
        self.replica_id = ""
        self.node_ip = "127.0.0.1"
        self.port: Optional[int] = None
        self._question = _Question(handle, link, request_id, self._granted)
        fields = handle._fields()[len(w.field_u8(w.T_KIND, 0)) :]
        meta = w.field_u8(w.T_KIND, w.KIND_RESERVE) + fields + inherited
        self._question._transmit(meta, b"")

    def _granted(self, frame: w.Frame) -> None:
        self.replica_id = str(w.parse_json(frame).get("replica_id") or "")
        self._open = True

    def __repr__(self) -> str:
        return f"ReplicaSelection(replica_id='{self.replica_id}', {self.deployment_id})"

    def take(self, response: _DeploymentResponseBase) -> int:
        """The slot is used by `response` from now on: the stream to send its call on."""
        with self._lock:
            if self._question._error is not None:
                raise ReplicaUnavailableError(self.replica_id)
            if not self._open:
                raise ValueError(
                    "Cannot dispatch a selection that was dispatched before, or whose "
                    "`choose_replica` block has ended."
                )
            self._open = False
            stream = self._question._stream
            if not self._link.hand_over(stream, response._as_pending()):
                raise ReplicaUnavailableError(self.replica_id)
            return stream

    def release(self) -> None:
        """Gives the slot back unless it was used."""
        with self._lock:
            self._open = False
            if self._link.belongs_to(self._question._stream, self._question):
                self._link.cancel_call(self._question._stream)


class Choosing:
    """`async with handle.choose_replica(...) as selection`."""

    def __init__(self, handle: "DeploymentHandle[Any]") -> None:
        self._handle = handle
        self._selection: Optional[ReplicaSelection] = None

    async def __aenter__(self) -> ReplicaSelection:
        selection = self._selection = ReplicaSelection(self._handle)
        try:
            await selection._question.there()
            if selection._question._error is not None:
                raise selection._question._error
        except BaseException:
            selection.release()
            raise
        return selection

    async def __aexit__(self, *exc: Any) -> Optional[bool]:
        if self._selection is not None:
            self._selection.release()
        return None


def dispatch(
    handle: "DeploymentHandle[Any]",
    selection: Any,
    response: _DeploymentResponseBase,
) -> None:
    """Makes `response` the call that the selection's slot was reserved for."""
    if not isinstance(selection, ReplicaSelection) or (
        selection.deployment_id != handle.deployment_id
    ):
        raise ValueError(
            "Cannot dispatch a selection created for a different deployment. Selection: "
            f"{getattr(selection, 'deployment_id', selection)!s}, handle: {handle.deployment_id}."
        )
    response._stream = selection.take(response)
    response._on_reserved = True
