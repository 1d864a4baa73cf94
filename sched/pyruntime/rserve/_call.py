"""A request that this replica works on, and the context variable that user code finds it by."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Deque, Dict, List, Optional

from rserve import _wire as w

if TYPE_CHECKING:
    from rserve._node import NodeLink

#: What `ray.serve.context._get_serve_request_context()` gives; a Call, or what a test put there.
request_context: "ContextVar[Any]" = ContextVar("serve_request_context", default=None)


#: How long an answer may be sent without a turn for others, in seconds.
TURN_S = 0.005


class Call:
    """One incoming stream. Doubles as the request context: its properties decode on first use."""

    __slots__ = (
        "link",
        "stream",
        "fields",
        "body",
        "chunks",
        "ended",
        "waiters",
        "consumed",
        "credit",
        "task",
        "cancelled",
        "threaded",
        "turn_at",
        "answered",
        "http",
        "started_at",
        "_inherit",
        "_request_id",
        "grpc_context",
        "cancel_on_parent_request_cancel",
        "refs",
    )

    def __init__(
        self, link: "NodeLink", stream: int, fields: Dict[int, bytes], body: bytes, end: int
    ):
        self.link = link
        self.stream = stream
        self.fields = fields
        self.body = body
        self.chunks: Optional[Deque[bytes]] = None if end else deque((body,) if body else ())
        self.ended = bool(end)
        self.waiters: List["asyncio.Future[None]"] = []
        self.consumed = 0
        self.credit = w.INITIAL_CREDIT
        self.task: Optional["asyncio.Task[Any]"] = None
        self.cancelled = False
        self.turn_at = 0.0  # when the answer's sender last waited
        self.threaded = False  # the user's code runs in a thread, now or soon
        self.answered = False
        self.http = fields.get(w.T_KIND) != b"\x02"
        self.started_at = 0.0
        self._inherit: Optional[bytes] = None
        self._request_id: Optional[str] = None
        self.grpc_context: Any = None
        self.cancel_on_parent_request_cancel = False
        self.refs: Any = None  # the references that came with it; None: none

    # --- request context

    @property
    def request_id(self) -> str:
        text = self._request_id
        if text is None:
            text = self._request_id = w.text(self.fields, w.T_REQUEST_ID)
        return text

    @property
    def _internal_request_id(self) -> str:
        return f"{self.request_id}-{self.stream}"

    @property
    def route(self) -> str:
        return w.text(self.fields, w.T_ROUTE)

    @property
    def app_name(self) -> str:
        return w.text(self.fields, w.T_APP) or self.link.app

    @property
    def multiplexed_model_id(self) -> str:
        return w.text(self.fields, w.T_MODEL_ID) or self._header("serve_multiplexed_model_id")

    @property
    def session_id(self) -> str:
        return w.text(self.fields, w.T_SESSION_ID) or self._header("x_session_id")

    def _header(self, name: str) -> str:
        """A header by its name with underscores, where the node has not looked for it."""
        if self.http:
            for key, value in w.unpack_headers(self.fields.get(w.T_HEADERS, b"")):
                if key.decode("latin-1").replace("-", "_") == name:
                    return value.decode("latin-1")
        return ""

    @property
    def is_http_request(self) -> bool:
        return self.http

    @property
    def _client(self) -> str:
        return w.text(self.fields, w.T_CLIENT)

    @property
    def method(self) -> str:
        return w.text(self.fields, w.T_METHOD, "__call__")

    def inherited(self) -> bytes:
        """The fields that calls made while working on this one carry on."""
        block = self._inherit
        if block is None:
            fields = self.fields
            parts = [w.field_u64(w.T_PARENT, self.stream)]
            for tag in (w.T_REQUEST_ID, w.T_ROUTE, w.T_TRACEPARENT):
                value = fields.get(tag)
                if value is not None:
                    parts.append(w.field(tag, value))
            block = self._inherit = b"".join(parts)
        return block

    # --- body in, on the loop's thread

    def feed(self, data: bytes, end: int) -> None:
        """A BODY frame arrived."""
        if self.chunks is None:
            self.chunks = deque()
        if data:
            self.chunks.append(data)
        if end:
            self.ended = True
        self.wake()

    def wake(self) -> None:
        """Something happened that `wait_for_input` waits for."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait_for_input(self) -> None:
        """Until a chunk, the end of the body, credit, the answer or a cancellation is there."""
        waiter = asyncio.get_running_loop().create_future()
        self.waiters.append(waiter)
        try:
            await waiter
        finally:
            self.waiters.remove(waiter)

    def took(self, size: int) -> None:
        """The application consumed `size` bytes: gives the sender credit back, in large steps."""
        self.consumed += size
        if self.consumed >= w.INITIAL_CREDIT // 4 and not self.ended:
            meta = w.field_u32(w.T_CREDIT, self.consumed)
            self.consumed = 0
            self.link.send(w.pack(w.WINDOW, 0, self.stream, meta))

    async def read_all(self) -> bytes:
        """The whole body."""
        if self.chunks is None:
            return self.body
        parts = []
        while True:
            while self.chunks:
                part = self.chunks.popleft()
                parts.append(part)
                self.took(len(part))
            if self.ended or self.cancelled:
                break
            await self.wait_for_input()
        self.body = b"".join(parts)
        self.chunks = None
        return self.body

    # --- body out, on the loop's thread

    def add_credit(self, size: int) -> None:
        self.credit += size
        if self.credit > 0:
            self.wake()

    def try_send(self, data: bytes) -> bool:
        """As `send_body`, which is needed only where this says that one has to wait."""
        if self.credit <= 0 or self.cancelled or time.monotonic() - self.turn_at > TURN_S:
            return False
        self.credit -= len(data)
        self.link.send_frame(w.BODY, 0, self.stream, b"", data)
        return True

    async def send_body(self, data: bytes) -> None:
        """One BODY frame without END, as soon as there is credit.

        Who sends without ever waiting would keep all others from the loop, and what it sent from
        leaving: it is made to wait for a turn now and then.
        """
        if time.monotonic() - self.turn_at > TURN_S:
            await asyncio.sleep(0)
            self.turn_at = time.monotonic()
        while self.credit <= 0 and not self.cancelled:
            await self.wait_for_input()  # several tasks may wait at the same time
        if self.cancelled:  # a generator that never waits would never learn of it
            raise asyncio.CancelledError
        self.credit -= len(data)
        self.link.send_frame(w.BODY, 0, self.stream, b"", data)

    def open_answer(self, meta: bytes, body: bytes = b"") -> None:
        """RESPONSE without END: BODY frames follow."""
        self.credit -= len(body)
        self.turn_at = time.monotonic()
        self.link.send_frame(w.RESPONSE, 0, self.stream, meta, body)

    def end_answer(self, body: bytes = b"") -> None:
        """The last BODY frame of an answer that `open_answer` began."""
        if self.link.calls.pop(self.stream, None) is not None:
            self.answered = True
            self.link.send_frame(w.BODY, w.END, self.stream, b"", body)
            self.wake()

    def cancel(self) -> None:
        """The other side no longer wants the answer."""
        self.cancelled = True
        self.wake()
        if self.task is not None:
            self.task.cancel()
