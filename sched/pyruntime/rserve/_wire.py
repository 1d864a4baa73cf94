"""The frame codec of net/wire/PROTOCOL.md: tables, encoding, and a bounded reader.

Numbers here are held to net/wire/messages.def by a test. Nothing in this module knows about
asyncio: the zygote uses it with a blocking socket, a replica with a non-blocking one.
"""

from __future__ import annotations

import array
import fcntl
import json
import mmap
import os
import resource
import socket
import struct
import sys
from collections import deque
from typing import Any, Deque, Dict, List, NamedTuple, Optional, Tuple, Union

Buffer = Union[bytes, bytearray, memoryview]

PROTOCOL = 1

# Messages
REQUEST = 1
BODY = 2
RESPONSE = 3
ERROR = 4
CANCEL = 5
WINDOW = 6
HOLD = 7
REFS = 8
HELLO = 16
INIT = 17
READY = 18
FAILED = 19
PING = 20
PONG = 21
RECONFIGURE = 22
STOP = 23
STATS = 24
LOOKUP = 25
FOUND = 26
CORE = 27
CORE_REPLY = 28
CHOOSE = 29
CHOSEN = 30
RESERVED = 31
BUILD = 32
GRAPH = 33
FORK = 34
FORKED = 35
POLICY = 36
DECISION = 37
ASK = 38
ANSWER = 39
ENV_PROGRESS = 40
ENV_READY = 41
PASS = 58

MESSAGES: Dict[str, int] = {
    name: globals()[name]
    for name in (
        "REQUEST BODY RESPONSE ERROR CANCEL WINDOW HOLD REFS HELLO INIT READY FAILED PING PONG "
        "RECONFIGURE STOP STATS LOOKUP FOUND CORE CORE_REPLY CHOOSE CHOSEN RESERVED BUILD GRAPH "
        "FORK FORKED POLICY DECISION ASK ANSWER ENV_PROGRESS ENV_READY PASS"
    ).split()
}
#: Messages that only travel between nodes and the head; known here so that the tables are whole.
CONTROL_MESSAGES: Dict[str, int] = {
    "JOIN": 48,
    "WELCOME": 49,
    "TARGET": 50,
    "REPORT": 51,
    "CORE_UP": 52,
    "CORE_DOWN": 53,
    "LOGS": 54,
    "LOG_LINES": 55,
    "ASK_HEAD": 56,
    "ANSWER_HEAD": 57,
    "READ_METRICS": 59,
    "METRICS": 60,
}

# Metadata fields
T_REQUEST_ID = 1
T_APP = 2
T_DEPLOYMENT = 3
T_METHOD = 4
T_KIND = 5
T_TIMEOUT_MS = 6
T_MODEL_ID = 7
T_TRACEPARENT = 8
T_ROUTE = 9
T_HTTP_METHOD = 10
T_PATH = 11
T_QUERY = 12
T_HEADERS = 13
T_ROOT_PATH = 14
T_CLIENT = 15
T_SERVER = 16
T_SCHEME = 17
T_HTTP_VERSION = 18
T_STREAM = 19
T_CONTENT_TYPE = 20
T_SESSION_ID = 21
T_PARENT = 22
T_STATUS = 23
T_CREDIT = 24
T_ERROR_CODE = 25
T_ERROR_TYPE = 26
T_MESSAGE = 27
T_TRACEBACK = 28
T_ITEMS = 29
T_QUEUED = 30
T_MAX_QUEUED = 31
T_HANDLE = 32
T_RETURN_OBJECT = 40
T_AWAIT_OBJECTS = 41
T_OBJECTS = 42
T_OBJECT = 43
T_ADD = 44
T_DROP = 45
T_NEED = 46
T_READY = 47
T_PRIORITY = 48
T_RETRY_AFTER = 49
T_SAFE = 52
T_REPLICA = 56
T_LIST = 57
T_PID = 58
T_BODY_OF = 59
T_GOT = 60
T_NODE = 64

TAGS: Dict[str, int] = {name[2:]: n for name, n in list(globals().items()) if name.startswith("T_")}

# Flags
END = 1
MEMFD = 2

# Error codes
E_USER = 1
E_BACKPRESSURE = 2
E_UNAVAILABLE = 3
E_CANCELLED = 4
E_TIMEOUT = 5
E_DIED = 6
E_NOT_FOUND = 7
E_PROTOCOL = 8
E_TOO_LARGE = 9
E_INTERNAL = 10

ERROR_CODES: Dict[str, int] = {n[2:]: v for n, v in list(globals().items()) if n.startswith("E_")}

# Kinds of request
KIND_HTTP = 1
KIND_CALL = 2
KIND_WEBSOCKET = 3
KIND_GET = 4
KIND_PUT = 5
KIND_WAIT = 6
KIND_RESERVE = 7

MAX_META = 1 << 20
MAX_INLINE = 16 << 20
#: No sender of ours makes a body larger than this; a receiver refuses it.
MAX_MEMFD = 1 << 40
#: A body longer than this travels as a memfd over a Unix socket.
MEMFD_FROM = 64 << 10
#: Credit that each direction of a stream starts with.
INITIAL_CREDIT = 256 << 10
STARTS = 512  # places in each row of the memory that tells what was begun
MAX_FDS = 16

PICKLE = b"application/x-python-pickle"
#: A pickle and its buffers; see `_values`.
PICKLE5 = b"application/x-python-pickle5"

_HEADER = struct.Struct("<IBBHQQ")
HEADER_SIZE = _HEADER.size
_FIELD = struct.Struct("<BI")
_FIELD_SIZE = _FIELD.size
_KNOWN = frozenset(MESSAGES.values())
_READ_SIZE = 256 << 10
_FD_SPACE = socket.CMSG_SPACE(MAX_FDS * 4)
_CLOEXEC = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
_CUT_OFF = int(socket.MSG_CTRUNC)  # as enumerations both would cost microseconds

_new_tuple = tuple.__new__

pack_header = _HEADER.pack
pack_field = _FIELD.pack
unpack_field = _FIELD.unpack_from


class ProtocolError(Exception):
    """The other side broke the protocol: the connection is of no more use."""


class HangUp(Exception):
    """The other side closed the connection."""


class Frame(NamedTuple):
    """One frame as it was received. `body` is bytes, or where a pickle came in a memfd a memoryview
    of its own copy-on-write map; `fds` are descriptors beside a memfd body."""

    type: int
    flags: int
    stream: int
    meta: bytes
    body: Any
    fds: Tuple[int, ...]


# --- metadata -----------------------------------------------------------------------------------


def field(tag: int, value: bytes) -> bytes:
    return pack_field(tag, len(value)) + value


def field_str(tag: int, value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return pack_field(tag, len(data)) + data


def field_u8(tag: int, value: int) -> bytes:
    return pack_field(tag, 1) + value.to_bytes(1, "little")


def field_u16(tag: int, value: int) -> bytes:
    return pack_field(tag, 2) + value.to_bytes(2, "little")


def field_u32(tag: int, value: int) -> bytes:
    return pack_field(tag, 4) + value.to_bytes(4, "little")


def field_u64(tag: int, value: int) -> bytes:
    return pack_field(tag, 8) + value.to_bytes(8, "little")


def parse_fields(meta: bytes) -> Dict[int, bytes]:
    """The fields of a metadata block; unknown tags are kept and harmless."""
    fields: Dict[int, bytes] = {}
    at = 0
    end = len(meta)
    while at < end:
        try:
            tag, length = unpack_field(meta, at)
        except struct.error:
            raise ProtocolError("a metadata field is cut off") from None
        start = at + _FIELD_SIZE
        at = start + length
        if at > end:
            raise ProtocolError(f"metadata field {tag} is longer than its frame")
        if tag in fields:
            raise ProtocolError(f"metadata field {tag} appears twice")
        fields[tag] = meta[start:at]
    return fields


def text(fields: Dict[int, bytes], tag: int, default: str = "") -> str:
    value = fields.get(tag)
    return default if value is None else value.decode("utf-8", "replace")


def number(fields: Dict[int, bytes], tag: int, default: int = 0) -> int:
    value = fields.get(tag)
    return default if value is None else int.from_bytes(value, "little")


def pack_headers(headers: Any) -> bytes:
    """HTTP headers, an iterable of (name, value) in bytes, as the HEADERS field holds them.

    Raises ValueError for a name or value that would break the framing of HTTP.
    """
    parts: List[bytes] = []
    for name, value in headers:
        parts.append(bytes(name).lower())
        parts.append(bytes(value))
    if not parts:
        return b""
    block = b"\0".join(parts) + b"\0"
    if block.count(b"\0") != len(parts) or b"\n" in block or b"\r" in block:
        raise ValueError("a response header holds a line break or a NUL")
    return block


def unpack_headers(block: bytes) -> List[Tuple[bytes, bytes]]:
    parts = block.split(b"\0")
    return list(zip(parts[0:-1:2], parts[1::2]))


# --- frames out ---------------------------------------------------------------------------------


def pack(kind: int, flags: int, stream: int, meta: bytes, body: Any = b"") -> bytes:
    """A whole frame with an inline body."""
    data: bytes = pack_header(len(meta), kind, flags, 0, stream, len(body)) + meta + body
    return data


def _clean(value: Any) -> Any:
    """Without NULs and halves of surrogate pairs, which texts of users may hold: C refuses them."""
    if isinstance(value, str):
        text = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return text.replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {_clean(k): _clean(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_clean(v) for v in value]
    return value


def pack_json(kind: int, message: Dict[str, Any], stream: int = 0) -> bytes:
    """A frame of JSON. ValueError: it is too long, or holds a number that JSON has not."""
    text = json.dumps(message, separators=(",", ":"), default=str, allow_nan=False)
    if "\\ud" in text or "\\u0000" in text:
        text = json.dumps(_clean(json.loads(text)), separators=(",", ":"))
    meta = text.encode()
    if len(meta) > MAX_META:
        raise ValueError(f"message {kind} would hold {len(meta)} bytes; the limit is {MAX_META}")
    return pack_header(len(meta), kind, 0, 0, stream, 0) + meta


class Parts:
    """A long body in pieces, which are written without being joined. They must not change."""

    __slots__ = ("parts", "size")

    def __init__(self, parts: List[Buffer], size: int) -> None:
        self.parts = parts
        self.size = size

    def __len__(self) -> int:
        return self.size


Body = Union[Buffer, Parts]

_ADD_SEALS, _GET_SEALS = 1033, 1034
_SEAL_SHRINK, _SEAL_GROW, _SEAL_WRITE = 2, 4, 8
_IOV_MAX = 1024


def make_memfd(body: Body) -> int:
    """A memfd that holds `body` and can no longer change; the caller owns the descriptor."""
    fd = os.memfd_create("rserve-body", 1 | 2)  # close on exec, may be sealed
    try:
        if isinstance(body, Parts):
            _write_parts(fd, body.parts)
        else:
            view = memoryview(body).cast("B")
            while view:
                view = view[os.write(fd, view) :]
        fcntl.fcntl(fd, _ADD_SEALS, _SEAL_SHRINK | _SEAL_GROW | _SEAL_WRITE)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _write_parts(fd: int, parts: List[Buffer]) -> None:
    left = [memoryview(part).cast("B") for part in parts if len(part)]
    at = 0
    while at < len(left):
        written = os.writev(fd, left[at : at + _IOV_MAX])
        while at < len(left) and written >= len(left[at]):
            written -= len(left[at])
            at += 1
        if written:
            left[at] = left[at][written:]


def pack_memfd(kind: int, flags: int, stream: int, meta: bytes, body: Body) -> Tuple[bytes, int]:
    """A frame whose body lies in a memfd: the inline part, and the descriptor to send with it."""
    fd = make_memfd(body)
    size = len(body) if isinstance(body, (bytes, Parts)) else memoryview(body).nbytes
    return pack_header(len(meta), kind, flags | MEMFD, 1, stream, size) + meta, fd


def send_with_fds(sock: socket.socket, data: Buffer, fds: List[int]) -> int:
    """Sends the start of `data` with descriptors on its first byte; returns the bytes taken."""
    return sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


def send_frame(
    sock: socket.socket,
    kind: int,
    flags: int = 0,
    stream: int = 0,
    meta: bytes = b"",
    body: Body = b"",
    fds: Tuple[int, ...] = (),
) -> None:
    """Sends one frame over a blocking socket; long bodies go by memfd. `fds` stay the caller's."""
    own = -1
    passed = list(fds)
    if len(body) > MEMFD_FROM:
        own = make_memfd(body)
        passed.insert(0, own)
        data = pack_header(len(meta), kind, flags | MEMFD, len(passed), stream, len(body)) + meta
    else:
        assert not isinstance(body, Parts)
        data = pack_header(len(meta), kind, flags, len(passed), stream, len(body)) + meta + body
    try:
        sent = send_with_fds(sock, data, passed) if passed else 0
    finally:
        if own >= 0:
            os.close(own)
    if sent < len(data):
        sock.sendall(memoryview(data)[sent:])


def send_json(sock: socket.socket, kind: int, message: Dict[str, Any], stream: int = 0) -> None:
    sock.sendall(pack_json(kind, message, stream))


def parse_json(frame: Frame) -> Dict[str, Any]:
    try:
        value = json.loads(frame.meta or frame.body)  # what is too long for metadata is a body
    except ValueError as e:
        raise ProtocolError(f"message {frame.type} does not hold JSON: {e}") from None
    if not isinstance(value, dict):
        raise ProtocolError(f"message {frame.type} does not hold a JSON object")
    return value


# --- frames in ----------------------------------------------------------------------------------


def read_memfd(fd: int, size: int) -> bytes:
    """The first `size` bytes of a memfd; closes it."""
    try:
        if os.fstat(fd).st_size < size:
            raise ProtocolError("a memfd is shorter than its frame says")
        parts = []
        at = 0
        while at < size:
            part = os.pread(fd, min(size - at, 1 << 30), at)
            if not part:
                raise ProtocolError("a memfd shrank while it was read")
            parts.append(part)
            at += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
    except OSError as e:
        raise ProtocolError(f"a body's descriptor cannot be read: {e}") from None
    finally:
        os.close(fd)


def _read_writable(fd: int, size: int) -> memoryview:
    """As read_memfd, into memory of its own."""
    view = memoryview(bytearray(size))
    try:
        at = 0
        while at < size:
            got = os.preadv(fd, [view[at : at + (1 << 30)]], at)
            if not got:
                raise ProtocolError("a memfd shrank while it was read")
            at += got
    except OSError as e:
        raise ProtocolError(f"a body's descriptor cannot be read: {e}") from None
    finally:
        os.close(fd)
    return view


_most_mapped = 0


def _may_map(fd: int) -> bool:
    """Whether a map may keep a descriptor (before Python 3.13 it does): not more than half of them,
    so that there are some left for the next bodies."""
    global _most_mapped
    if not _most_mapped:
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        _most_mapped = soft // 2 if soft > 0 else 1 << 30
    return fd < _most_mapped


def map_memfd(fd: int, size: int) -> Buffer:
    """The first `size` bytes of a memfd, mapped copy on write; closes it.

    One that could still be made shorter is read instead: touching a page that is gone would kill
    the process.
    """
    try:
        sealed = fcntl.fcntl(fd, _GET_SEALS) & _SEAL_SHRINK
    except OSError:
        sealed = 0
    if not sealed or not size or os.fstat(fd).st_size < size:
        return read_memfd(fd, size)
    if not _may_map(fd):
        return _read_writable(fd, size)
    try:
        more: Dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
        return memoryview(mmap.mmap(fd, size, access=mmap.ACCESS_COPY, **more))
    except (OSError, ValueError) as e:
        raise ProtocolError(f"a body's descriptor cannot be mapped: {e}") from None
    finally:
        os.close(fd)


#: The start of the field by which a body says that it is a pickle, and so may be mapped.
_PICKLED = (
    pack_field(T_CONTENT_TYPE, len(PICKLE)) + PICKLE,
    pack_field(T_CONTENT_TYPE, len(PICKLE5)) + PICKLE5,
)


class Reader:
    """Cuts what arrives on a socket into frames. A frame never exceeds the limits above."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray(_READ_SIZE)
        self._start = 0
        self._end = 0
        self._fds: Deque[int] = deque()

    def read(self, frames: "Deque[Frame]") -> int:
        """One recvmsg(); appends the frames that it completed and returns their number.

        Raises BlockingIOError when a non-blocking socket has nothing, HangUp at its end.
        """
        if self._end == len(self._buffer):
            self._make_room()
        view = memoryview(self._buffer)
        try:
            got, controls, flags, _ = self._sock.recvmsg_into(
                [view[self._end :]], _FD_SPACE, _CLOEXEC
            )
        except (ConnectionResetError, BrokenPipeError):
            raise HangUp from None
        finally:
            view.release()
        if controls:
            self._keep_fds(controls)
        if flags & _CUT_OFF:
            raise ProtocolError("more descriptors arrived than a frame may carry")
        if not got:
            raise HangUp
        self._end += got
        return self._cut(frames)

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.popleft())

    def _keep_fds(self, controls: List[Tuple[int, int, bytes]]) -> None:
        for level, kind, data in controls:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
                self._fds.extend(fds)

    def _make_room(self) -> None:
        """Moves what is left to the front, and grows the buffer when one frame fills it."""
        left = self._end - self._start
        if left and self._start:
            self._buffer[:left] = self._buffer[self._start : self._end]
        elif left == len(self._buffer):
            self._buffer.extend(bytes(min(left, HEADER_SIZE + MAX_META + MAX_INLINE)))
        self._start, self._end = 0, left

    def _cut(self, frames: "Deque[Frame]") -> int:
        buffer, at, end = self._buffer, self._start, self._end
        view = memoryview(buffer)
        count = 0
        while end - at >= HEADER_SIZE:
            meta_len, kind, flags, fds, stream, body_len = _HEADER.unpack_from(buffer, at)
            inline = 0 if flags & MEMFD else body_len
            if (
                meta_len > MAX_META
                or inline > MAX_INLINE
                or body_len > MAX_MEMFD
                or flags > 3
                or fds > MAX_FDS
                or (flags & MEMFD and not fds)
                or kind not in _KNOWN
            ):
                raise ProtocolError(
                    f"bad frame: type {kind}, flags {flags}, {meta_len}+{body_len} bytes, {fds} fds"
                )
            stop = at + HEADER_SIZE + meta_len + inline
            if stop > end:
                break
            body_at = at + HEADER_SIZE + meta_len
            meta = bytes(view[at + HEADER_SIZE : body_at])
            body: Any = bytes(view[body_at:stop]) if inline else b""
            passed: Tuple[int, ...] = ()
            if fds:
                body, passed = self._take_fds(flags, fds, body_len, body, meta)
            frames.append(_new_tuple(Frame, (kind, flags, stream, meta, body, passed)))
            count += 1
            at = stop
        view.release()
        self._start = at
        if at == end:
            self._start = self._end = 0
            if len(buffer) > 4 * _READ_SIZE:
                self._buffer = bytearray(_READ_SIZE)
        elif end == len(buffer):
            self._make_room()
        return count

    def _take_fds(
        self, flags: int, fds: int, body_len: int, body: Any, meta: bytes
    ) -> Tuple[Any, Tuple[int, ...]]:
        if len(self._fds) < fds:
            raise ProtocolError(f"a frame says {fds} descriptors; {len(self._fds)} came with it")
        passed = [self._fds.popleft() for _ in range(fds)]
        if flags & MEMFD:
            try:
                mapped = _PICKLED[0] in meta or _PICKLED[1] in meta
                body = (map_memfd if mapped else read_memfd)(passed.pop(0), body_len)
            except BaseException:
                for fd in passed:
                    os.close(fd)
                raise
        return body, tuple(passed)


def read_frame(reader: Reader, inbox: "Deque[Frame]") -> Frame:
    """The next frame of a blocking connection."""
    while not inbox:
        reader.read(inbox)
    return inbox.popleft()


def fd_from_environment(name: str = "RSERVE_FD") -> Optional[int]:
    value = os.environ.get(name)
    if not value or not value.isdigit():
        return None
    return int(value)
