"""The exception hierarchy of Ray, as far as Serve applications meet it."""

from __future__ import annotations

import os
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, Dict, List, Optional, Tuple, Type


class RayError(Exception):
    """Base of everything here."""


class RayTaskError(RayError):
    """A call failed on the other side: carries the remote traceback, and the exception as `cause`.

    What callers see is an instance that is also an instance of the cause's class; see
    `as_instanceof_cause`.
    """

    _c_attributes: List[str] = []

    def __init__(
        self,
        function_name: str,
        traceback_str: str,
        cause: Optional[BaseException],
        proctitle: Optional[str] = None,
        pid: Optional[int] = None,
        ip: Optional[str] = None,
        actor_repr: Optional[str] = None,
        actor_id: Optional[str] = None,
    ) -> None:
        self.function_name = function_name
        self.traceback_str = traceback_str
        self.cause = cause
        self.proctitle = proctitle
        self.pid = os.getpid() if pid is None else pid
        self.ip = ip
        self.actor_repr = actor_repr
        self.actor_id = actor_id
        super().__init__(function_name, traceback_str, cause)

    def __str__(self) -> str:
        where = f"{self.function_name}() (pid={self.pid})" if self.function_name else ""
        return "\n".join(p for p in (where, self.traceback_str.rstrip()) if p)

    def __reduce__(self) -> Tuple[Any, ...]:
        return _rebuild, (
            self.function_name,
            self.traceback_str,
            self.cause,
            self.pid,
            type(self) is not RayTaskError,
        )

    def make_dual_exception_instance(self) -> "RayTaskError":
        """An instance that is both a RayTaskError and of the cause's class; may raise TypeError."""
        cls = _dual_class(type(self.cause))
        dual = cls.__new__(cls)
        dual.__dict__.update(self.__dict__)
        dual.args = (self.cause,)
        for name in cls._c_attributes:  # errno of OSError and the like live outside __dict__
            try:
                setattr(dual, name, getattr(self.cause, name))
            except (AttributeError, TypeError):
                pass
        return dual

    def as_instanceof_cause(self) -> "RayTaskError":
        if self.cause is None or isinstance(self.cause, RayTaskError):
            return self
        try:
            return self.make_dual_exception_instance()
        except Exception:
            return self


_dual_classes: Dict[type, Type[RayTaskError]] = {}


def _dual_class(cause: type) -> Type[RayTaskError]:
    cls = _dual_classes.get(cause)
    if cls is None:

        def read_from_cause(self: Any, name: str) -> Any:
            if name.startswith("__") or "cause" not in self.__dict__:
                raise AttributeError(name)
            return getattr(self.__dict__["cause"], name)

        cls = type(
            f"RayTaskError({cause.__name__})",
            (RayTaskError, cause),
            {
                "__str__": RayTaskError.__str__,
                "__getattr__": read_from_cause,
                "__module__": RayTaskError.__module__,
                "_c_attributes": [
                    name
                    for base in cause.__mro__
                    for name, value in vars(base).items()
                    if isinstance(value, (MemberDescriptorType, GetSetDescriptorType))
                    and not name.startswith("_")
                    and name != "args"
                ],
            },
        )
        _dual_classes[cause] = cls
    return cls


def _rebuild(
    function_name: str, traceback_str: str, cause: Optional[BaseException], pid: int, dual: bool
) -> RayTaskError:
    error = RayTaskError(function_name, traceback_str, cause, pid=pid)
    return error.as_instanceof_cause() if dual else error


class RayActorError(RayError):
    """The process that should answer has died, or cannot be reached."""

    BASE = "The actor experienced an error before finishing this task."

    def __init__(
        self,
        actor_id: Optional[str] = None,
        error_msg: str = BASE,
        actor_init_failed: bool = False,
        preempted: bool = False,
    ) -> None:
        self.actor_id = actor_id
        self.error_msg = error_msg
        self._actor_init_failed = actor_init_failed
        self._preempted = preempted
        super().__init__(actor_id, error_msg, actor_init_failed, preempted)

    def __str__(self) -> str:
        return self.error_msg

    @property
    def actor_init_failed(self) -> bool:
        return self._actor_init_failed

    @property
    def preempted(self) -> bool:
        return self._preempted


class ActorDiedError(RayActorError):
    """The process died."""

    def __init__(self, cause: Any = None) -> None:
        message = "The actor died unexpectedly before finishing this task."
        if isinstance(cause, str) and cause:
            message = cause
        elif isinstance(cause, BaseException):
            message = f"The actor died because of an error raised in its creation task, {cause}"
        super().__init__(error_msg=message, actor_init_failed=isinstance(cause, BaseException))
        self.args = (cause,)

    @classmethod
    def from_task_error(cls, task_error: RayTaskError) -> "ActorDiedError":
        return cls(task_error)


class ActorUnavailableError(RayActorError):
    def __init__(self, error_message: str = "", actor_id: Optional[bytes] = None) -> None:
        text = actor_id.hex() if actor_id else None
        super().__init__(text, f"The actor is temporarily unavailable: {error_message}")
        self.args = (error_message, actor_id)


class TaskCancelledError(RayError):
    """The call was cancelled."""

    def __init__(self, task_id: Any = None, error_message: Optional[str] = None) -> None:
        self.task_id = task_id
        self.error_message = error_message
        super().__init__(task_id, error_message)

    def __str__(self) -> str:
        if self.error_message:
            return self.error_message
        if self.task_id is None:
            return "This task or its dependency was cancelled by"
        return f"Task: {self.task_id} was cancelled."


class GetTimeoutError(RayError, TimeoutError):
    """The result did not come within the time that was given."""


class _Message(RayError):
    """An error that is its message."""

    default = ""

    def __init__(self, error_message: Optional[str] = None) -> None:
        self.error_message = error_message or self.default
        super().__init__(self.error_message)


class RuntimeEnvSetupError(_Message):
    default = "Failed to set up runtime environment."


class TaskUnschedulableError(_Message):
    default = "The task is not schedulable."


class ActorUnschedulableError(_Message):
    default = "The actor is not schedulable."


class OutOfMemoryError(_Message):
    default = "Task was killed because the node ran out of memory."


class NodeDiedError(_Message):
    default = "The node died."


class AuthenticationError(_Message):
    default = "Authentication failed."


class UnserializableException(_Message):
    default = "An exception could not be serialized."


class ActorAlreadyExistsError(ValueError, RayError):
    pass


class ActorHandleNotFoundError(ValueError, RayError):
    pass


class WorkerCrashedError(RayError):
    def __str__(self) -> str:
        return "The worker died unexpectedly while executing this task."


class LocalRayletDiedError(RayError):
    pass


class OutOfDiskError(RayError):
    pass


class ObjectStoreFullError(RayError):
    pass


class PendingCallsLimitExceeded(RayError):
    pass


class AsyncioActorExit(RayError):
    pass


class UserCodeException(RayError):
    pass


class PlasmaObjectNotAvailable(RayError):
    pass


class ObjectRefStreamEndOfStreamError(RayError):
    pass


class OufOfBandObjectRefSerializationException(RayError):
    pass


class TaskPlacementGroupRemoved(RayError):
    def __str__(self) -> str:
        return "The placement group corresponding to this task has been removed."


class ActorPlacementGroupRemoved(RayError):
    def __str__(self) -> str:
        return "The placement group corresponding to this Actor has been removed."


class CrossLanguageError(RayError):
    pass


class RpcError(RayError):
    def __init__(self, message: str = "", rpc_code: Any = None) -> None:
        self.message = message
        self.rpc_code = rpc_code
        super().__init__(message, rpc_code)

    def __str__(self) -> str:
        return self.message


class ObjectLostError(RayError):
    def __init__(
        self, object_ref_hex: str = "", owner_address: Optional[bytes] = None, call_site: str = ""
    ) -> None:
        self.object_ref_hex = object_ref_hex
        self.owner_address = owner_address
        self.call_site = call_site
        self.message = ""  # what the node said
        super().__init__(object_ref_hex, owner_address, call_site)

    def __str__(self) -> str:
        text = f"Failed to retrieve object {self.object_ref_hex}."
        return f"{text} {self.message}" if self.message else text


class ObjectFetchTimedOutError(ObjectLostError):
    pass


class ReferenceCountingAssertionError(ObjectLostError, AssertionError):
    pass


class ObjectFreedError(ObjectLostError):
    pass


class OwnerDiedError(ObjectLostError):
    pass


class ObjectReconstructionFailedError(ObjectLostError):
    def __init__(
        self,
        object_ref_hex: str = "",
        reason: Any = None,
        reason_message: Optional[str] = None,
        owner_address: Optional[bytes] = None,
        call_site: str = "",
    ) -> None:
        super().__init__(object_ref_hex, owner_address, call_site)
        self.reason = reason
        self.reason_message = reason_message


class RaySystemError(RayError):
    def __init__(self, client_exc: Any = None, traceback_str: Optional[str] = None) -> None:
        self.client_exc = client_exc
        self.traceback_str = traceback_str
        super().__init__(client_exc, traceback_str)

    def __str__(self) -> str:
        return f"System error: {self.client_exc}"


class RayChannelError(RaySystemError):
    pass


class RayChannelTimeoutError(RayChannelError, TimeoutError):
    pass


class RayCgraphCapacityExceeded(RaySystemError):
    pass


class RayDirectTransportError(RaySystemError):
    pass


class StreamingGeneratorReplayInconsistentError(RaySystemError):
    pass


RAY_EXCEPTION_TYPES = [
    value
    for value in list(globals().values())
    if isinstance(value, type) and issubclass(value, RayError)
]
