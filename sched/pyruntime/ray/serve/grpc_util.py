"""Types that deployments behind a gRPC ingress are given.

rserve has no gRPC ingress yet; the types exist so that such code imports, type-checks and can be
tested with a context of its own.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, AsyncIterator, Dict, Generic, List, Optional, Tuple, TypeVar

if TYPE_CHECKING:
    import grpc

T = TypeVar("T")


class RayServegRPCContext:
    """What a request came with, and what its answer shall say beside the message.

    Takes the facts out of a `grpc.ServicerContext`; what the deployment sets is put back into the
    real one after the call.
    """

    def __init__(self, grpc_context: "grpc.ServicerContext") -> None:
        context: Any = grpc_context
        self._auth_context: Dict[str, Any] = dict(context.auth_context() or {})
        self._code: Any = context.code()
        self._details: str = context.details()
        self._invocation_metadata = [(k, v) for k, v in context.invocation_metadata() or ()]
        self._peer: str = context.peer()
        self._peer_identities: Optional[bytes] = context.peer_identities()
        self._peer_identity_key: Optional[str] = context.peer_identity_key()
        self._trailing_metadata = [(k, v) for k, v in context.trailing_metadata() or ()]
        self._compression: Any = None

    def auth_context(self) -> Dict[str, Any]:
        """Who the caller proved to be."""
        return self._auth_context

    def code(self) -> "grpc.StatusCode":
        """The status code of the answer; None if none was set."""
        code: "grpc.StatusCode" = self._code
        return code

    def details(self) -> str:
        """The text of the answer's status."""
        return self._details

    def invocation_metadata(self) -> List[Tuple[str, str]]:
        """The metadata that the caller sent."""
        return self._invocation_metadata

    def peer(self) -> str:
        """The caller's address."""
        return self._peer

    def peer_identities(self) -> Optional[bytes]:
        """The caller's proven names."""
        return self._peer_identities

    def peer_identity_key(self) -> Optional[str]:
        """What kind of names they are."""
        return self._peer_identity_key

    def trailing_metadata(self) -> List[Tuple[str, str]]:
        """The metadata that the answer ends with."""
        return self._trailing_metadata

    def set_code(self, code: "grpc.StatusCode") -> None:
        """Sets the status code of the answer."""
        self._code = code

    def set_compression(self, compression: "grpc.Compression") -> None:
        """Sets how the answer is compressed."""
        self._compression = compression

    def set_details(self, details: str) -> None:
        """Sets the text of the answer's status."""
        self._details = details

    def set_trailing_metadata(self, trailing_metadata: List[Tuple[str, str]]) -> None:
        """Sets the metadata that the answer ends with."""
        self._trailing_metadata = trailing_metadata

    def _sent(self, key: str) -> Optional[str]:
        return next((v for k, v in self._invocation_metadata if k == key), None)

    def application(self) -> Optional[str]:
        """The application that the caller named."""
        return self._sent("application")

    def request_id(self) -> Optional[str]:
        """The request id that the caller gave."""
        return self._sent("request_id")

    def multiplexed_model_id(self) -> Optional[str]:
        """The model that the caller asked for."""
        return self._sent("multiplexed_model_id")

    def traceparent(self) -> Optional[str]:
        """The caller's trace (W3C)."""
        return self._sent("traceparent")

    def tracestate(self) -> Optional[str]:
        """The caller's trace state (W3C)."""
        return self._sent("tracestate")

    def _set_on_grpc_context(self, grpc_context: "grpc.ServicerContext") -> None:
        """Puts what was set into the real context."""
        context: Any = grpc_context
        if self._code:
            context.set_code(self._code)
        if self._compression:
            context.set_compression(self._compression)
        if self._details:
            context.set_details(self._details)
        if self._trailing_metadata:
            context.set_trailing_metadata(self._trailing_metadata)


class gRPCInputStream(AsyncIterator[T], Generic[T]):  # noqa: N801 (Ray's name)
    """The messages that a client streams: `async for message in stream`."""

    def __init__(
        self,
        request_iterator: AsyncIterator[T],
        *,
        cancel_event: Optional[asyncio.Event] = None,
    ) -> None:
        self._iterator = request_iterator
        self._cancel_event = cancel_event or asyncio.Event()
        self._exhausted = False

    def __aiter__(self) -> "gRPCInputStream[T]":
        return self

    async def __anext__(self) -> T:
        """The next message; none once the client is done or the call was cancelled."""
        if self._exhausted or self._cancel_event.is_set():
            raise StopAsyncIteration
        try:
            return await self._iterator.__anext__()
        except StopAsyncIteration:
            self._exhausted = True
            raise

    def is_cancelled(self) -> bool:
        """Whether the call was cancelled."""
        return self._cancel_event.is_set()

    def cancel(self) -> None:
        """Gives the call up."""
        self._cancel_event.set()

    @property
    def is_exhausted(self) -> bool:
        """Whether the last message was read."""
        return self._exhausted
