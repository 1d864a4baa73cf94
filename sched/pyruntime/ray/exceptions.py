"""The exception hierarchy of Ray, as far as Serve applications meet it."""

from __future__ import annotations

import builtins
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
        group = getattr(builtins, "BaseExceptionGroup", ())
        if isinstance(self.cause, group):  # is nothing without what it groups
            cause: Any = self.cause
            dual = cls.__new__(cls, cause.message, cause.exceptions)
        else:
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
        """The error as an instance of the cause's class too, so that `except` finds it."""
        if self.cause is None or issubclass(RayTaskError, type(self.cause)):
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
        """Whether the constructor failed."""
        return self._actor_init_failed

    @property
    def preempted(self) -> bool:
        """Whether the node was taken away."""
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
        """The actor's constructor failed with this error."""
        return cls(task_error)


class ActorUnavailableError(RayActorError):
    """The process cannot be reached just now."""

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
    """The environment of a process could not be made."""

    default = "Failed to set up runtime environment."


class TaskUnschedulableError(_Message):
    """No node can ever run the task."""

    default = "The task is not schedulable."


class ActorUnschedulableError(_Message):
    """No node can ever run the actor."""

    default = "The actor is not schedulable."


class OutOfMemoryError(_Message):
    """A process was ended because memory ran out."""

    default = "Task was killed because the node ran out of memory."


class NodeDiedError(_Message):
    """The node is gone."""

    default = "The node died."


class AuthenticationError(_Message):
    """The token is missing or wrong."""

    default = "Authentication failed."


class UnserializableException(_Message):
    """An exception that cannot be pickled; its text is here."""

    default = "An exception could not be serialized."


class ActorAlreadyExistsError(ValueError, RayError):
    """The name is taken."""


class ActorHandleNotFoundError(ValueError, RayError):
    """The handle belongs to another run."""


class WorkerCrashedError(RayError):
    """The process that worked on a task died."""

    def __str__(self) -> str:
        return "The worker died unexpectedly while executing this task."


class LocalRayletDiedError(RayError):
    """The node of this process has ended."""


class OutOfDiskError(RayError):
    """The disk is full."""


class ObjectStoreFullError(RayError):
    """There is no room for the value in the object store."""


class PendingCallsLimitExceeded(RayError):
    """Too many calls wait for the actor (`max_pending_calls`)."""


class AsyncioActorExit(RayError):
    """Ends an async actor from within."""


class UserCodeException(RayError):
    """User code raised."""


class PlasmaObjectNotAvailable(RayError):
    """The value is not in the object store."""


class ObjectRefStreamEndOfStreamError(RayError):
    """The stream has no more items."""


class OufOfBandObjectRefSerializationException(RayError):
    """A reference was pickled where it must not be."""


class TaskPlacementGroupRemoved(RayError):
    """The placement group of the task was removed."""

    def __str__(self) -> str:
        return "The placement group corresponding to this task has been removed."


class ActorPlacementGroupRemoved(RayError):
    """The placement group of the actor was removed."""

    def __str__(self) -> str:
        return "The placement group corresponding to this Actor has been removed."


class CrossLanguageError(RayError):
    """An exception of another language."""


class RpcError(RayError):
    """A message between nodes was lost."""

    def __init__(self, message: str = "", rpc_code: Any = None) -> None:
        self.message = message
        self.rpc_code = rpc_code
        super().__init__(message, rpc_code)

    def __str__(self) -> str:
        return self.message


class ObjectLostError(RayError):
    """The value is lost."""

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
    """The value did not arrive in time."""


class ReferenceCountingAssertionError(ObjectLostError, AssertionError):
    """The value was freed although it is referred to."""


class ObjectFreedError(ObjectLostError):
    """The value was freed on request."""


class OwnerDiedError(ObjectLostError):
    """The process that made the value has died."""


class ObjectReconstructionFailedError(ObjectLostError):
    """The value is lost and cannot be made again."""

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
    """Something in the system itself failed."""

    def __init__(self, client_exc: Any = None, traceback_str: Optional[str] = None) -> None:
        self.client_exc = client_exc
        self.traceback_str = traceback_str
        super().__init__(client_exc, traceback_str)

    def __str__(self) -> str:
        return f"System error: {self.client_exc}"


class RayChannelError(RaySystemError):
    """A channel between processes failed."""


class RayChannelTimeoutError(RayChannelError, TimeoutError):
    """A channel did not answer in time."""


class RayCgraphCapacityExceeded(RaySystemError):
    """Too much is under way in a compiled graph."""


class RayDirectTransportError(RaySystemError):
    """A direct transfer failed."""


class StreamingGeneratorReplayInconsistentError(RaySystemError):
    """A generator gave other items the second time."""


RAY_EXCEPTION_TYPES = [
    value
    for value in list(globals().values())
    if isinstance(value, type) and issubclass(value, RayError)
]
