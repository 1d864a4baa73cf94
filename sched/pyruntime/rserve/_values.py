"""Values of handle calls, of their answers and of objects, as bytes with a content type.

Pickle carries what Python replicas say to each other. Where a value has large buffers (arrays),
they stay out of the pickle (protocol 5): the body is then the pickle and the buffers one after
the other, written from where they are into a memfd, which the receiver maps. A call that comes in
another format has one argument, and its answer is bytes, text or JSON: that is how replicas in
other languages call. With `handle.options(request_serialization="orjson")` a call with one
argument goes out as JSON.
"""

from __future__ import annotations

import json
import pickle
import struct
import threading
from typing import Any, Dict, List, Optional, Tuple

from rserve import _wire as w
from rserve._json import to_json

OCTETS = b"application/octet-stream"
TEXT = b"text/plain; charset=utf-8"
JSON = b"application/json"

#: The fields of a call or an answer that is a pickle.
F_PICKLE = w.field(w.T_CONTENT_TYPE, w.PICKLE)
_F_PICKLE5 = w.field(w.T_CONTENT_TYPE, w.PICKLE5)
_F_OCTETS = w.field(w.T_CONTENT_TYPE, OCTETS)
_F_TEXT = w.field(w.T_CONTENT_TYPE, TEXT)
_F_JSON = w.field(w.T_CONTENT_TYPE, JSON)

#: Buffers smaller than this stay in the pickle.
_ASIDE_FROM = 16 << 10
_ALIGN = 64
_HEAD = struct.Struct("<QII")
_ENTRY = struct.Struct("<QQ")


class Pickled(threading.local):
    """The ids of the ObjectRefs that this thread pickled since they were last taken."""

    ids: Optional[Dict[bytes, None]] = None


pickled = Pickled()


class _Aside:
    """Decides which buffers are left out of the pickle, and keeps them."""

    __slots__ = ("views",)

    def __init__(self) -> None:
        self.views: List[memoryview] = []

    def __call__(self, buffer: "pickle.PickleBuffer") -> bool:
        try:
            view = buffer.raw()
        except BufferError:  # not one run of memory
            return True
        if view.nbytes < _ASIDE_FROM:
            return True
        self.views.append(view)
        return False


class _Gather:
    """A file for a pickler: keeps what is written, large bytes by reference."""

    def __init__(self) -> None:
        self.parts: List[w.Buffer] = []
        self.size = 0

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self.parts.append(data)
        self.size += size
        return size


def _pickle(value: Any, aside: Optional[_Aside]) -> bytes:
    """Pickles. By value, with cloudpickle, goes what plain pickle refuses (lambdas, local classes)
    and what is defined in `__main__`, which is another module in every process."""
    try:
        data = pickle.dumps(value, 5, buffer_callback=aside)
    except (pickle.PicklingError, AttributeError, TypeError) as e:
        error: Optional[Exception] = e
    else:
        if b"__main__" not in data:
            return data
        error = None
    try:
        from rserve import _cloudpickle as cloudpickle
    except ImportError:
        if error is None:
            return data
        raise error from None
    pickled.ids = None
    if aside is not None:
        aside.views.clear()
    return bytes(cloudpickle.dumps(value, 5, buffer_callback=aside))


def dumps(value: Any) -> bytes:
    """One pickle, buffers and all, for where no metadata goes along: objects that it refers to are
    kept as long as this process lives."""
    kind = type(value)
    if kind is str or kind is bytes:  # what most streams consist of
        return _dumps(value, 5)
    data = _pickle(value, None)
    if pickled.ids is not None:
        from rserve import _objects

        ids, pickled.ids = pickled.ids, None
        _objects.pin(ids)
    return data


def take_ids() -> bytes:
    """The OBJECTS field for what was pickled since the last time; empty without any."""
    ids = pickled.ids
    if ids is None:
        return b""
    pickled.ids = None
    return w.field(w.T_OBJECTS, b"".join(ids))


#: Where long bytes are looked for.
_LONG = frozenset((bytes, tuple, list, dict))


def _has_long_bytes(value: Any) -> bool:
    """Whether there are bytes worth not copying, where calls and answers usually have them."""
    kind = type(value)
    if kind is bytes:
        return len(value) > w.MEMFD_FROM
    if kind is tuple or kind is list:
        for item in value[:16]:
            kind = type(item)
            if kind is bytes and len(item) > w.MEMFD_FROM:
                return True
            if kind is tuple or kind is dict:
                if _has_long_bytes(item):
                    return True
        return False
    if kind is dict and len(value) <= 16:
        return any(type(v) is bytes and len(v) > w.MEMFD_FROM for v in value.values())
    return False


def _gather(value: Any, aside: _Aside) -> Optional[_Gather]:
    """A pickle in pieces, its long bytes where they are; None if it must go by value."""
    out = _Gather()
    try:
        pickle.Pickler(out, 5, buffer_callback=aside).dump(value)
    except (pickle.PicklingError, AttributeError, TypeError):
        return None
    for part in out.parts:
        if isinstance(part, bytes) and len(part) <= 2 * w.MEMFD_FROM and b"__main__" in part:
            return None
    return out


class _Large(Exception):
    """A buffer that is worth being kept out of the pickle."""


def _probe(buffer: "pickle.PickleBuffer") -> bool:
    """Leaves small buffers in the pickle; says that there is a large one."""
    if memoryview(buffer).nbytes >= _ASIDE_FROM:
        raise _Large
    return True


_dumps = pickle.dumps


def encode(value: Any) -> "Tuple[bytes, w.Body]":
    """The CONTENT_TYPE and OBJECTS fields, and the body. Buffers in a long body are the value's
    own: it must be written before they change."""
    return _encode_large(value) if _has_long_bytes(value) else _encode(value)


def _encode(value: Any) -> "Tuple[bytes, w.Body]":
    """The common case first: one plain pickle."""
    try:
        data = _dumps(value, 5, buffer_callback=_probe)
    except _Large:
        pickled.ids = None
        return _encode_large(value)
    except (pickle.PicklingError, AttributeError, TypeError):
        pickled.ids = None
    else:
        if b"__main__" not in data:
            return (F_PICKLE if pickled.ids is None else F_PICKLE + take_ids()), data
    return _encode_by_value(value)


def _encode_large(value: Any) -> "Tuple[bytes, w.Body]":
    aside = _Aside()
    pieces = _gather(value, aside)
    if pieces is None:
        return _encode_by_value(value)
    if aside.views:
        return _F_PICKLE5 + take_ids(), _join(pieces.parts, pieces.size, aside.views)
    if pieces.size <= w.MEMFD_FROM:
        return F_PICKLE + take_ids(), b"".join(pieces.parts)
    return F_PICKLE + take_ids(), w.Parts(pieces.parts, pieces.size)


def _encode_by_value(value: Any) -> "Tuple[bytes, w.Body]":
    aside = _Aside()
    data = _pickle(value, aside)
    if aside.views:
        return _F_PICKLE5 + take_ids(), _join([data], len(data), aside.views)
    return F_PICKLE + take_ids(), data


def _join(pieces: List[w.Buffer], length: int, views: List[memoryview]) -> "w.Body":
    """A pickle and its buffers as one body."""
    at = _HEAD.size + len(views) * _ENTRY.size + length
    entries = []
    parts: List[w.Buffer] = [b"", *pieces]
    for view in views:
        gap = -at % _ALIGN
        parts.append(bytes(gap))
        parts.append(view)
        at += gap
        entries.append(_ENTRY.pack(at, view.nbytes))
        at += view.nbytes
    parts[0] = _HEAD.pack(length, len(views), 0) + b"".join(entries)
    return w.Parts(parts, at) if at > w.MEMFD_FROM else b"".join(parts)


def _loads_with_buffers(body: Any) -> Any:
    view = memoryview(body)
    if view.readonly:  # what arrays are made of can be written to
        view = memoryview(bytearray(view))
    try:
        length, count, _ = _HEAD.unpack_from(view)
        entries = list(_ENTRY.iter_unpack(view[_HEAD.size : _HEAD.size + count * _ENTRY.size]))
    except struct.error:
        raise pickle.UnpicklingError("a body with buffers is cut off") from None
    start = _HEAD.size + count * _ENTRY.size
    if len(entries) != count or start + length > view.nbytes:
        raise pickle.UnpicklingError("a body with buffers is cut off")
    buffers = []
    for at, size in entries:
        if at + size > view.nbytes:
            raise pickle.UnpicklingError("a buffer lies outside of its body")
        buffers.append(view[at : at + size])
    return pickle.loads(view[start : start + length], buffers=buffers)


def encode_value(value: Any, asked_in: bytes = w.PICKLE) -> "Tuple[bytes, w.Body]":
    """The fields and the body of an answer to a call that came as `asked_in`."""
    if asked_in == w.PICKLE or asked_in == w.PICKLE5 or not asked_in:
        return encode(value) if type(value) in _LONG else _encode(value)
    if isinstance(value, bytes):
        return _F_OCTETS, value
    if isinstance(value, str):
        return _F_TEXT, value.encode("utf-8", "surrogatepass")
    return _F_JSON, to_json(value)


def encode_arguments(
    args: Tuple[Any, ...], kwargs: Dict[str, Any], serialization: str
) -> "Tuple[bytes, w.Body]":
    """The fields and the body of a call."""
    if serialization == "orjson" and len(args) == 1 and not kwargs:
        return _F_JSON, to_json(args[0])
    for value in args:
        if type(value) in _LONG and _has_long_bytes(value):
            return _encode_large((args, kwargs))
    if kwargs and _has_long_bytes(kwargs):
        return _encode_large((args, kwargs))
    return _encode((args, kwargs))


def decode_value(content_type: bytes, body: Any) -> Any:
    """The value of an answer or an object. `body` is bytes, or a view that is the value's."""
    if content_type == w.PICKLE:
        return pickle.loads(body)
    if content_type == w.PICKLE5:
        return _loads_with_buffers(body)
    body = bytes(body)
    if content_type == OCTETS:
        return body
    if content_type.startswith(b"text/"):
        return body.decode("utf-8", "replace")
    if content_type.startswith(JSON):
        return json.loads(body) if body else None
    return body


def decode_arguments(content_type: bytes, body: Any) -> Tuple[Tuple[Any, ...], Dict[str, Any]]:
    """Positional and keyword arguments of a call."""
    if content_type == w.PICKLE or not content_type:
        args, kwargs = pickle.loads(body)
        return args, kwargs
    if content_type == w.PICKLE5:
        args, kwargs = _loads_with_buffers(body)
        return args, kwargs
    return (decode_value(content_type, body),), {}
