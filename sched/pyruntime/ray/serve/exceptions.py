"""Errors of `ray.serve.exceptions`."""

from __future__ import annotations

from typing import Any, Optional, Tuple

from ray.exceptions import TaskCancelledError
from ray.serve._private.common import DeploymentID


class RayServeException(Exception):
    """Base of Serve's own errors."""


class BackPressureError(RayServeException):
    """The queue of the deployment is full."""

    def __init__(
        self,
        num_queued_requests: int,
        max_queued_requests: int,
        status_code: int = 503,
        retry_after_s: Optional[float] = None,
    ) -> None:
        super().__init__(num_queued_requests, max_queued_requests, status_code, retry_after_s)
        self._message = (
            f"Request dropped due to backpressure (num_queued_requests={num_queued_requests}, "
            f"max_queued_requests={max_queued_requests})."
        )
        self._status_code = status_code
        self._retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self._message

    @property
    def message(self) -> str:
        """What the caller is told."""
        return self._message

    @property
    def status_code(self) -> int:
        """The status of the HTTP answer."""
        return self._status_code

    @property
    def retry_after_s(self) -> Optional[float]:
        """After how many seconds to try again; None: nothing is said."""
        return self._retry_after_s


class DeploymentUnavailableError(RayServeException):
    """The deployment failed to deploy, or is gone."""

    def __init__(self, deployment_id: DeploymentID) -> None:
        super().__init__(deployment_id)
        self._deployment_id = deployment_id
        self._text = ""  # what the node says, if it says more

    def __str__(self) -> str:
        return self.message

    @property
    def message(self) -> str:
        """What the caller is told."""
        return self._text or f"{self._deployment_id} is unavailable because it failed to deploy."


class ReplicaUnavailableError(RayServeException):
    """The replica that was chosen is gone."""

    def __init__(self, replica_id: str) -> None:
        super().__init__(replica_id)
        self._replica_id = replica_id

    def __str__(self) -> str:
        return self.message

    @property
    def message(self) -> str:
        """What the caller is told."""
        return f"Replica {self._replica_id} is unavailable."


class RequestCancelledError(RayServeException, TaskCancelledError):
    """The request was cancelled."""

    def __init__(self, request_id: Optional[str] = None) -> None:
        self._request_id = request_id
        self.task_id = request_id
        self.error_message = None
        Exception.__init__(self, request_id)

    def __str__(self) -> str:
        if self._request_id:
            return f"Request {self._request_id} was cancelled."
        return "Request was cancelled."


class gRPCStatusError(RayServeException):  # noqa: N801 (Ray's name)
    """Carries a gRPC status that the user's code chose."""

    def __init__(
        self, original_exception: BaseException, code: Any = None, details: Optional[str] = None
    ) -> None:
        super().__init__(str(original_exception))
        self._original = original_exception
        self._code = code
        self._details = details

    def __reduce__(self) -> Tuple[Any, ...]:
        return type(self), (self._original, self._code, self._details)

    @property
    def original_exception(self) -> BaseException:
        """What user code raised."""
        return self._original

    @property
    def grpc_code(self) -> Any:
        """The status code that user code chose."""
        return self._code

    @property
    def grpc_details(self) -> Optional[str]:
        """The text that user code chose."""
        return self._details
