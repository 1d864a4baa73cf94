"""Values of handle calls and of their answers as bytes with a content type.

Pickle carries what Python replicas say to each other. A call with one `bytes` or `str` argument,
and an answer that is one, travel as they are: that is faster, and a replica in another language
can read it.
"""

from __future__ import annotations

import json
import pickle
from typing import Any, Dict, Tuple

from rserve import _wire as w

OCTETS = b"application/octet-stream"
TEXT = b"text/plain; charset=utf-8"
JSON = b"application/json"

_F_PICKLE = w.field(w.T_CONTENT_TYPE, w.PICKLE)
_F_OCTETS = w.field(w.T_CONTENT_TYPE, OCTETS)
_F_TEXT = w.field(w.T_CONTENT_TYPE, TEXT)
_F_JSON = w.field(w.T_CONTENT_TYPE, JSON)


def dumps(value: Any) -> bytes:
    """Pickles; what plain pickle refuses (lambdas, local classes) goes through cloudpickle."""
    try:
        return pickle.dumps(value, 5)
    except (pickle.PicklingError, AttributeError, TypeError) as e:
        try:
            import cloudpickle
        except ImportError:
            raise e from None
        return bytes(cloudpickle.dumps(value, 5))


def encode_value(value: Any) -> Tuple[bytes, bytes]:
    """The CONTENT_TYPE field and the body of an answer."""
    kind = type(value)
    if kind is bytes:
        return _F_OCTETS, value
    if kind is str:
        try:
            return _F_TEXT, value.encode()
        except UnicodeEncodeError:
            pass
    return _F_PICKLE, dumps(value)


def encode_arguments(
    args: Tuple[Any, ...], kwargs: Dict[str, Any], serialization: str
) -> Tuple[bytes, bytes]:
    """The CONTENT_TYPE field and the body of a call."""
    if len(args) == 1 and not kwargs:
        only = args[0]
        if type(only) is bytes:
            return _F_OCTETS, only
        if serialization == "orjson":
            return _F_JSON, json.dumps(only, separators=(",", ":")).encode()
        if type(only) is str:
            try:
                return _F_TEXT, only.encode()
            except UnicodeEncodeError:
                pass
    return _F_PICKLE, dumps((args, kwargs))


def decode_value(content_type: bytes, body: bytes) -> Any:
    """The value of an answer."""
    if content_type == w.PICKLE:
        return pickle.loads(body)
    if content_type == OCTETS:
        return body
    if content_type.startswith(b"text/"):
        return body.decode("utf-8", "replace")
    if content_type.startswith(JSON):
        return json.loads(body) if body else None
    return body


def decode_arguments(content_type: bytes, body: bytes) -> Tuple[Tuple[Any, ...], Dict[str, Any]]:
    """Positional and keyword arguments of a call."""
    if content_type == w.PICKLE or not content_type:
        args, kwargs = pickle.loads(body)
        return args, kwargs
    return (decode_value(content_type, body),), {}
