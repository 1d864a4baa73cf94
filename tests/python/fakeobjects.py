"""The object store of the node that `fakenode` plays: enough of PROTOCOL.md, "Objects", to hold the
library to it, with references counted by process so that tests can look at them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Set, Tuple

from rserve import _wire as w

if TYPE_CHECKING:
    from fakenode import FakeNode, Peer


def ids(block: bytes) -> List[bytes]:
    return [block[at : at + 16] for at in range(0, len(block), 16)]


class Object:
    def __init__(self) -> None:
        self.kind = 0  # RESPONSE or ERROR once it is ready
        self.meta = b""
        self.body: Any = b""
        self.waiters: List[Callable[[], None]] = []


class Objects:
    """The store of one FakeNode."""

    def __init__(self, node: "FakeNode") -> None:
        self.node = node
        self.known: Dict[bytes, Object] = {}
        #: (name of the process, id) -> references
        self.refs: "Counter[Tuple[str, bytes]]" = Counter()
        #: (caller, stream) -> id: the answer goes there
        self.held: Dict[Tuple["Peer", int], bytes] = {}
        #: deployments that take no objects
        self.by_value: Set[str] = set()
        #: every KIND and message about objects, as it came
        self.log: List[str] = []
        self.capacity = 1 << 40

    def live(self) -> Dict[Tuple[str, bytes], int]:
        return {key: n for key, n in self.refs.items() if n}

    def grant(self, peer: "Peer", meta: bytes) -> None:
        for id in ids(w.parse_fields(meta).get(w.T_OBJECTS, b"")):
            if id in self.known:
                self.refs[peer.name, id] += 1

    def open(self, peer: "Peer", id: bytes) -> Object:
        self.refs[peer.name, id] += 1
        return self.known.setdefault(id, Object())

    def settle(self, id: bytes, kind: int, meta: bytes, body: Any) -> None:
        obj = self.known[id]
        if obj.kind:
            return
        obj.kind, obj.meta, obj.body = kind, meta, body
        waiters, obj.waiters = obj.waiters, []
        for waiter in waiters:
            waiter()

    def when_ready(self, id: bytes, then: Callable[[], None]) -> None:
        obj = self.known[id]
        if obj.kind:
            then()
        else:
            obj.waiters.append(then)

    # --- frames

    def on_frame(self, peer: "Peer", frame: w.Frame) -> bool:
        """Whether it was about objects."""
        if frame.type == w.REFS:
            fields = w.parse_fields(frame.meta)
            for id in ids(fields.get(w.T_ADD, b"")):
                if id in self.known:
                    self.refs[peer.name, id] += 1
            for id in ids(fields.get(w.T_DROP, b"")):
                if self.refs[peer.name, id]:
                    self.refs[peer.name, id] -= 1
            return True
        if frame.type == w.HOLD:
            self.log.append("hold")
            id = w.parse_fields(frame.meta)[w.T_OBJECT]
            self.open(peer, id)
            if frame.stream in peer.outgoing or frame.stream in peer.waiting:
                self.held[peer, frame.stream] = id
                peer.send(w.RESPONSE, w.END, frame.stream, w.field(w.T_OBJECT, id))
            return True
        if frame.type != w.REQUEST:
            return False
        fields = w.parse_fields(frame.meta)
        kind = w.number(fields, w.T_KIND)
        if kind == w.KIND_GET:
            self.log.append("get")
            self._get(peer, frame.stream, fields[w.T_OBJECT])
        elif kind == w.KIND_PUT:
            self.log.append("put")
            self._put(peer, frame, fields)
        elif kind == w.KIND_WAIT:
            self.log.append("wait")
            self._wait(peer, frame.stream, fields)
        else:
            return False
        return True

    def _get(self, peer: "Peer", stream: int, id: bytes) -> None:
        if id not in self.known:
            self._fail(peer, stream, w.E_NOT_FOUND, "ObjectLostError", "not known on this node")
            return

        def answer() -> None:
            obj = self.known[id]
            self.grant(peer, obj.meta)
            peer.send(obj.kind, w.END, stream, obj.meta, obj.body)

        self.when_ready(id, answer)

    def _put(self, peer: "Peer", frame: w.Frame, fields: Dict[int, bytes]) -> None:
        id = fields[w.T_OBJECT]
        self.open(peer, id)
        if len(frame.body) > self.capacity:
            self._fail(peer, frame.stream, w.E_TOO_LARGE, "ObjectStoreFullError", "no room")
            return
        kind = w.ERROR if w.T_ERROR_CODE in fields else w.RESPONSE
        self.settle(id, kind, frame.meta, bytes(frame.body))
        peer.send(w.RESPONSE, w.END, frame.stream)

    def _wait(self, peer: "Peer", stream: int, fields: Dict[int, bytes]) -> None:
        names = ids(fields[w.T_AWAIT_OBJECTS])
        need = w.number(fields, w.T_NEED)
        over = False

        def look() -> None:
            nonlocal over
            ready = [id for id in names if id not in self.known or self.known[id].kind]
            if len(ready) >= need and not over:
                over = True
                peer.send(w.RESPONSE, w.END, stream, w.field(w.T_READY, b"".join(ready)))

        for id in names:
            if id in self.known and not self.known[id].kind:
                self.known[id].waiters.append(look)
        look()

    def _fail(self, peer: "Peer", stream: int, code: int, kind: str, message: str) -> None:
        meta = w.field_u8(w.T_ERROR_CODE, code) + w.field_str(w.T_ERROR_TYPE, kind)
        peer.send(w.ERROR, w.END, stream, meta + w.field_str(w.T_MESSAGE, message))

    # --- calls

    def before_route(self, caller: "Peer", frame: w.Frame, go: Callable[[], None]) -> bool:
        """True: the call waits for objects, or has ended; `go` routes it once they are ready."""
        fields = w.parse_fields(frame.meta)
        awaited = ids(fields.get(w.T_AWAIT_OBJECTS, b""))
        if not awaited:
            return False
        if w.text(fields, w.T_DEPLOYMENT) in self.by_value:
            self.log.append("bounce")
            meta = w.field_u8(w.T_ERROR_CODE, w.E_PROTOCOL) + w.field_str(w.T_ERROR_TYPE, "ByValue")
            meta += w.field(w.T_OBJECTS, fields.get(w.T_OBJECTS, b""))
            self.grant(caller, meta)
            caller.send(w.ERROR, w.END, frame.stream, meta)
            return True
        self.log.append("await")
        caller.waiting.add(frame.stream)

        def look() -> None:
            if frame.stream not in caller.waiting:
                return
            objects = [self.known[id] for id in awaited]
            failed = next((o for o in objects if o.kind == w.ERROR), None)
            if failed is None and not all(o.kind for o in objects):
                return
            caller.waiting.discard(frame.stream)
            if failed is not None:
                self.answer(caller, frame.stream, w.ERROR, failed.meta, failed.body)
            else:
                go()

        for id in awaited:
            if not self.known[id].kind:
                self.known[id].waiters.append(look)
        look()
        return True

    def answer(self, caller: "Peer", stream: int, kind: int, meta: bytes, body: Any) -> bool:
        """Where an answer goes that is complete: to its object, if the caller said so."""
        id: Optional[bytes] = self.held.pop((caller, stream), None)
        if id is not None:
            self.settle(id, kind, meta, bytes(body))
            return True
        self.grant(caller, meta)
        caller.send(kind, w.END, stream, meta, body)
        return False
