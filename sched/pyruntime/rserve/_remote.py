"""Calls of tasks and of actors' methods, as the caller sees them.

The answer of a call comes back to the process that made it, and its reference completes. What the
answer says decides: a value, an error of the user's, or the end of the process that worked on it;
then the head knows more.

Calls are made from any thread; answers come on whichever thread reads the socket.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import threading
import weakref
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional, Tuple

from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    RayActorError,
    RaySystemError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)

from rserve import _core, _node, _objects, _refs, _values
from rserve import _wire as w
from rserve._arguments import Arguments
from rserve._errors import task_error
from rserve._items import Items
from rserve._objects import ObjectRef

#: Guards what this module keeps; what is called under it neither waits nor runs user code.
_state = threading.RLock()

#: The demand is told again so long after it fell, in seconds.
_DEMAND_LAG_S = 0.05


class RemoteCall(_node.PendingCall):
    """One task or call of a method, until its references are complete."""

    def __init__(
        self,
        link: "_node.NodeLink",
        name: str,
        head: Tuple[Any, ...],
        args: Tuple[Any, ...],
        kwargs: Dict[str, Any],
        num_returns: int,
        retries: int,
        retry_exceptions: Any,
    ) -> None:
        self.link = link
        self.name = name
        self.task_id = _core.new_id()
        self.head = head
        self.arguments: Optional[Arguments] = Arguments(link, args, kwargs)
        self.items = Items(self) if num_returns < 0 else None
        self.num_returns = num_returns = max(num_returns, 0)
        made = [_refs.new_result(self) for _ in range(num_returns)]
        self.refs = [ref for ref, _ in made]
        self._returns = [result for _, result in made]
        self.retries = retries
        self.retry_exceptions = retry_exceptions
        self.on_end: List[Callable[[], None]] = []
        self.stream = 0
        self.state = "waiting"
        self._parts: List[bytes] = []
        self._content_type = w.PICKLE
        self._held: "List[ObjectRef[Any]]" = []

    def take_refs(self) -> "List[ObjectRef[Any]]":
        """The references, for the caller; the call itself keeps none of them."""
        refs, self.refs = self.refs, []
        return refs

    # --- before it is sent

    @property
    def ready(self) -> bool:
        """Whether all that it depends on is there."""
        return self.arguments is None or self.arguments.ready

    def transmit(self, app: str, deployment: str, method: str) -> None:
        arguments = self.arguments
        if arguments is None:
            return
        error = arguments.error()
        if error is not None:
            self.fail(error)
            return
        meta = [
            w.field_u8(w.T_KIND, w.KIND_CALL),
            w.field_str(w.T_REQUEST_ID, self.task_id),
            w.field_str(w.T_APP, app),
            w.field_str(w.T_DEPLOYMENT, deployment),
            w.field_str(w.T_METHOD, method),
            w.field(w.T_CONTENT_TYPE, w.PICKLE),
        ]
        if self.items is not None:
            meta.append(w.field_u8(w.T_STREAM, 1))
        data, values = arguments.packed()
        body = pickle.dumps((self.task_id, self.name, *self.head, data, values), 5)
        ids = dict.fromkeys(arguments.ids)
        ids.update(_values.pickled.ids or {})
        _values.pickled.ids = None
        if ids:
            meta.append(w.field(w.T_OBJECTS, b"".join(ids)))
        self.state = "sent"
        self._parts = []
        self.stream = self.link.open_call(self, b"".join(meta), body)
        if ids:
            _objects.flush(self.link)

    # --- the answer

    def on_answer(self, frame: w.Frame) -> None:
        if frame.type == w.ERROR:
            self.on_wire_error(w.parse_fields(frame.meta), frame.body)
            return
        if frame.type == w.RESPONSE:
            fields = w.parse_fields(frame.meta)
            self._content_type = fields.get(w.T_CONTENT_TYPE, w.PICKLE)
            self._held = _objects.adopt(fields)
        if self.items is not None:
            self._item(frame)
            return
        self._parts.append(frame.body)
        if not frame.flags & w.END:
            self.link.give_credit(frame.stream, len(frame.body))
            return
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts = []
        self.succeed(body)

    def _item(self, frame: w.Frame) -> None:
        items = self.items
        assert items is not None
        if len(frame.body):
            items.give(self._content_type, frame.body, None, self._held)
            if not frame.flags & w.END:
                self.link.give_credit(frame.stream, len(frame.body))
        if frame.flags & w.END:
            self._settle([])

    def succeed(self, body: Any) -> None:
        if self.num_returns == 1:
            self._settle([(self._content_type, body, None)])
        elif self.num_returns == 0:
            self._settle([])
        else:
            self._settle([(w.PICKLE, part, None) for part in pickle.loads(body)])

    def fail(self, error: BaseException) -> None:
        if self.items is not None and self.state != "done":
            self.items.give(w.PICKLE, b"", error, [])
        self._settle([(w.PICKLE, b"", error)] * self.num_returns)

    def on_error(self, error: BaseException) -> None:
        """The link is lost."""
        self.fail(error)

    def _settle(self, results: List[Tuple[bytes, Any, Optional[BaseException]]]) -> None:
        with _state:
            if self.state == "done":
                return
            self.state = "done"
        self.arguments = None
        held, self._held = self._held, []
        for made, result in zip(self._returns, results):
            made.complete(*result, held)
        self._returns = []
        if self.items is not None:
            self.items.end()
        for function in self.on_end:
            function()
        self.ended()

    def ended(self) -> None:
        """It is over, one way or another."""

    def on_wire_error(self, fields: Dict[int, bytes], body: bytes) -> None:
        code = w.number(fields, w.T_ERROR_CODE, w.E_INTERNAL)
        if code == w.E_USER:
            error = user_error(self.name, fields, body)
            if self.retries != 0 and self._retries_error(error):
                self.retries -= 1
                self.again()
            else:
                self.fail(error)
        elif code == w.E_PROTOCOL and w.text(fields, w.T_ERROR_TYPE) == "ByValue":
            if self.arguments is None or self.arguments.by_value:
                self.fail(RaySystemError("an argument could not be passed on"))
            else:
                self.arguments.fetch_all()
                self.again()
        elif code == w.E_CANCELLED:
            self.fail(TaskCancelledError(self.task_id))
        else:
            self.on_trouble(code, w.text(fields, w.T_MESSAGE))

    def _retries_error(self, error: BaseException) -> bool:
        wanted = self.retry_exceptions
        if isinstance(wanted, (list, tuple)):
            return isinstance(error, tuple(wanted))
        return bool(wanted)

    def again(self) -> None:
        raise NotImplementedError

    def on_trouble(self, code: int, message: str) -> None:
        raise NotImplementedError

    # --- cancelling

    def cancel(self, force: bool) -> None:
        if self.state == "done":
            return
        if self.state == "sent":
            self.link.cancel_call(self.stream)
            if force:
                self.force_cancel()
        self.fail(TaskCancelledError(self.task_id))

    def force_cancel(self) -> None:
        pass


def user_error(name: str, fields: Dict[int, bytes], body: bytes) -> BaseException:
    trace = w.text(fields, w.T_TRACEBACK) or w.text(fields, w.T_MESSAGE)
    if body:
        try:
            error = pickle.loads(body)
            if isinstance(error, RayTaskError):
                return error.as_instanceof_cause()
            if isinstance(error, BaseException):
                return error
        except Exception:
            return task_error(name, trace, body)
    return RayTaskError(name, trace, None)


# --- tasks --------------------------------------------------------------------------------------


class Pool:
    """The workers for tasks of one shape, as far as this process has tasks for them."""

    def __init__(self, link: "_node.NodeLink", key: str, members: Dict[str, Any]) -> None:
        self.link = link
        self.key = key
        self.members = members
        self.app: Optional[str] = None
        self.deployment = ""
        self._asked = False
        self._queue: Deque["TaskCall"] = deque()
        self.outstanding = 0
        self._announced = 0
        self._lag = False

    def submit(self, call: "TaskCall") -> None:
        """From any thread."""
        with _state:
            if call.state == "done":
                return
            if call.ready:
                if not call.counted:  # what waits for others asks for no worker yet
                    call.counted = True
                    self.outstanding += 1
                call.state = "queued"
                self._queue.append(call)
                self._flush()
                return
            arguments = call.arguments
        if arguments is not None:
            arguments.when_ready(lambda: self.submit(call))

    def reopen(self) -> None:
        with _state:
            self.app = None
            self._announced = 0

    def _flush(self) -> None:
        if self.app is None:
            if not self._asked:
                self._asked = True
                _core.ask(self.link, self._opened, "pool", key=self.key, **self.members)
            return
        if self.outstanding > self._announced:
            self._tell()
        while self._queue:
            call = self._queue.popleft()
            if call.state != "done":
                call.transmit(self.app, self.deployment, "__task__")

    def _opened(self, answer: Dict[str, Any]) -> None:
        with _state:
            self._asked = False
            error = _core.error_of(answer)
            if error is None:
                self.app = str(answer["app"])
                self.deployment = str(answer["deployment"])
                self._flush()
                return
            queue, self._queue = self._queue, deque()
        for call in queue:
            call.fail(error)

    def _tell(self) -> None:
        self._announced = self.outstanding
        _core.tell(self.link, "demand", deployment=self.deployment, n=self.outstanding)

    def ended(self, call: "TaskCall") -> None:
        with _state:
            if not call.counted:
                return
            self.outstanding -= 1
            if self._lag:
                return
            self._lag = True
        # Not the loop's: code that blocks the loop may wait for workers that are kept back by this.
        timer = threading.Timer(_DEMAND_LAG_S, self._fell)
        timer.daemon = True
        timer.start()

    def _fell(self) -> None:
        with _state:
            self._lag = False
            if self.outstanding != self._announced and self.app is not None:
                self._tell()
            if self.outstanding == 0:
                self.app = None  # the head may forget the workers meanwhile: asked for anew


_pools: "weakref.WeakKeyDictionary[_node.NodeLink, Dict[str, Pool]]" = weakref.WeakKeyDictionary()


def pool_for(link: "_node.NodeLink", members: Dict[str, Any]) -> Pool:
    """From any thread."""
    # Whose code it is does not matter here: the head knows which of these are the same workers.
    text = json.dumps({**members, "env": None}, sort_keys=True, default=str)
    key = "task:" + hashlib.sha256(text.encode()).hexdigest()[:16]
    with _state:
        pools = _pools.setdefault(link, {})
        here = key + json.dumps(members["env"], sort_keys=True, default=str)
        pool = pools.get(here)
        if pool is None:
            pool = pools[here] = Pool(link, key, members)
        return pool


class TaskCall(RemoteCall):
    """A task. `head` is the function: its hash and its pickle."""

    def __init__(self, pool: Pool, *args: Any, **kwargs: Any) -> None:
        super().__init__(pool.link, *args, **kwargs)
        self.pool = pool
        self.counted = False
        note_task(self)

    def start(self) -> None:
        self.pool.submit(self)

    def again(self) -> None:
        self.state = "queued"
        self.pool.submit(self)

    def ended(self) -> None:
        self.pool.ended(self)

    def on_trouble(self, code: int, message: str) -> None:
        if code == w.E_DIED:
            if self.retries != 0:
                self.retries -= 1
                self.again()
            else:
                self.fail(WorkerCrashedError(message))
        elif code == w.E_NOT_FOUND:
            self.pool.reopen()
            self.again()
        elif code == w.E_UNAVAILABLE:
            _core.ask(self.link, self._unavailable, "pool_info", deployment=self.pool.deployment)
        else:
            self.fail(RaySystemError(message or f"task {self.name} failed with error {code}"))

    def _unavailable(self, answer: Dict[str, Any]) -> None:
        from ray.exceptions import RuntimeEnvSetupError

        self.pool.reopen()
        text = answer.get("error") or "the workers for tasks could not be started"
        self.fail(RuntimeEnvSetupError(str(text)))

    def force_cancel(self) -> None:
        _core.tell(
            self.link, "cancel_task", deployment=self.pool.deployment, task_id=self.task_id
        )


#: Tasks of this process for `ray.util.state.list_tasks`, the last ones.
recent: "Deque[weakref.ref[RemoteCall]]" = deque(maxlen=1000)


def note_task(call: RemoteCall) -> None:
    recent.append(weakref.ref(call))


# --- actors -------------------------------------------------------------------------------------


class Actor:
    """An actor as this process knows it: shared by all handles of it here."""

    def __init__(self, link: "_node.NodeLink", actor_id: str) -> None:
        self.link = link
        self.actor_id = actor_id
        self.class_name = ""
        self.app: Optional[str] = None
        self.max_restarts = 0
        self.dead: Optional[BaseException] = None
        self.handles = 0
        self.shared = False
        self.holding = False
        self.owned = False
        self.keep: Any = None
        self._queue: Deque["ActorCall"] = deque()
        self._asking = False

    # --- its creation, or finding it

    def created(self, answer: Dict[str, Any]) -> None:
        """The head's answer to create_actor, get_actor or actor_info."""
        self._asking = False
        error = _core.error_of(answer)
        if error is not None:
            self.die(error if isinstance(error, RayActorError) else ActorDiedError(str(error)))
        elif answer.get("state") == "DEAD":
            self.die(died(answer))
        else:
            self.app = str(answer["app"])
            self.flush()

    def submit(self, call: "ActorCall") -> None:
        """From any thread."""
        with _state:
            self._queue.append(call)
        self.flush()

    def flush(self) -> None:
        """Sends what can be sent, in order."""
        waits_for: Optional[Arguments] = None
        failed: "List[ActorCall]" = []
        with _state:
            queue = self._queue
            if self.dead is not None:
                failed.extend(queue)
                queue.clear()
            elif self.app is None:
                if not self._asking and queue and not self.owned:
                    self._asking = True
                    _core.ask(self.link, self.created, "actor_info", actor_id=self.actor_id)
                return
            while queue:
                call = queue[0]
                if call.state == "done":
                    queue.popleft()
                elif not call.ready:
                    waits_for = call.arguments
                    break
                else:
                    queue.popleft()
                    assert self.app is not None
                    call.transmit(self.app, self.actor_id, call.method)
        for call in failed:
            assert self.dead is not None
            call.fail(self.dead)
        if waits_for is not None:
            waits_for.when_ready(self.flush)

    def die(self, error: BaseException) -> None:
        self.dead = error
        self.flush()

    # --- handles; from any thread

    def add_handle(self) -> None:
        with _state:
            self.handles += 1
            first = self.handles == 1 and not self.holding
            self.holding = True
        if first:
            _core.tell(self.link, "hold", actor_id=self.actor_id)

    def drop_handle(self) -> None:
        """Called from finalizers, anywhere: the count is seen to later."""
        try:
            self.link.loop.call_soon_threadsafe(self._dropped)
        except RuntimeError:
            pass  # its loop was closed: the link is gone

    def _dropped(self) -> None:
        with _state:
            self.handles -= 1
            if self.handles > 0 or self.shared or not self.holding:
                return
            self.holding = False
        _core.tell(self.link, "release", actor_id=self.actor_id)
        actors = _actors.get(self.link)
        if actors is not None and actors.get(self.actor_id) is self and not self._queue:
            del actors[self.actor_id]


_actors: "weakref.WeakKeyDictionary[_node.NodeLink, Dict[str, Actor]]" = weakref.WeakKeyDictionary()


def actor_for(link: "_node.NodeLink", actor_id: str) -> Actor:
    """From any thread."""
    with _state:
        actors = _actors.setdefault(link, {})
        actor = actors.get(actor_id)
        if actor is None:
            actor = actors[actor_id] = Actor(link, actor_id)
        return actor


def died(answer: Dict[str, Any]) -> ActorDiedError:
    """Why an actor is dead, from what the head says of it."""
    cause = str(answer.get("cause") or "")
    lines = ["The actor died unexpectedly before finishing this task."]
    if answer.get("by_constructor"):
        lines = [
            "The actor died because of an error raised in its creation task, "
            f"ray::{answer.get('class_name')}.__init__()"
        ]
        lines.append(cause)
    else:
        for name, value in (
            ("class_name", answer.get("class_name")),
            ("actor_id", answer.get("actor_id")),
            ("pid", answer.get("pid")),
            ("name", answer.get("name")),
            ("namespace", answer.get("ray_namespace")),
        ):
            if value:
                lines.append(f"\t{name}: {value}")
        lines.append(cause)
    error = ActorDiedError("\n".join(lines))
    error.actor_id = str(answer.get("actor_id") or "") or None
    error._actor_init_failed = bool(answer.get("by_constructor"))
    return error


class ActorCall(RemoteCall):
    """A call of a method. `head` is empty."""

    def __init__(self, actor: Actor, method: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(actor.link, *args, **kwargs)
        self.actor = actor
        self.method = method
        self._asked = 0
        self.handle: Any = None  # kept: the actor stays while it has something to do
        note_task(self)

    def start(self) -> None:
        self.actor.submit(self)

    def ended(self) -> None:
        self.handle = None

    def again(self) -> None:
        self.state = "waiting"
        self.actor.submit(self)

    def on_trouble(self, code: int, message: str) -> None:
        if code in (w.E_DIED, w.E_NOT_FOUND, w.E_UNAVAILABLE):
            self._message = message
            self._code = code
            _core.ask(self.link, self._told, "actor_info", actor_id=self.actor.actor_id)
        else:
            self.fail(RaySystemError(message or f"{self.name} failed with error {code}"))

    def _told(self, answer: Dict[str, Any]) -> None:
        if self.state == "done":
            return
        if answer.get("error") is not None or answer.get("state") == "DEAD":
            if answer.get("error") is not None:
                answer = {"cause": str(answer["error"]), "actor_id": self.actor.actor_id}
            error = died(answer)
            self.actor.die(error)
            self.fail(error)
        elif self._code != w.E_DIED:
            self._later()  # this node has not heard of it yet
        elif self.retries != 0:
            self.retries -= 1
            self.again()
        elif self.actor.max_restarts != 0:
            self.fail(ActorUnavailableError(self._message or "its process died", None))
        else:
            self._later()  # the head has not heard of it yet

    def _later(self) -> None:
        self._asked += 1
        if self._asked > 200:
            self.fail(ActorUnavailableError("no node knows it", None))
            return

        def go_on() -> None:
            if self.state == "done":
                return
            if self._code == w.E_DIED:
                _core.ask(self.link, self._told, "actor_info", actor_id=self.actor.actor_id)
            else:
                self.again()

        timer = threading.Timer(0.02, go_on)
        timer.daemon = True
        timer.start()
