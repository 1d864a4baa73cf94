"""Values of handle calls and of their answers as bytes with a content type.

Pickle carries what Python replicas say to each other. A call that comes in another format has one
argument, and its answer is bytes, text or JSON: that is how replicas in other languages call.
With `handle.options(request_serialization="orjson")` a call with one argument goes out as JSON.
"""

from __future__ import annotations

import json
import pickle
from typing import Any, Dict, Tuple

from rserve import _wire as w
from rserve._json import to_json

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


def encode_value(value: Any, asked_in: bytes = w.PICKLE) -> Tuple[bytes, bytes]:
    """The CONTENT_TYPE field and the body of an answer to a call that came as `asked_in`."""
    if asked_in == w.PICKLE or not asked_in:
        return _F_PICKLE, dumps(value)
    if isinstance(value, bytes):
        return _F_OCTETS, value
    if isinstance(value, str):
        return _F_TEXT, value.encode("utf-8", "surrogatepass")
    return _F_JSON, to_json(value)


def encode_arguments(
    args: Tuple[Any, ...], kwargs: Dict[str, Any], serialization: str
) -> Tuple[bytes, bytes]:
    """The CONTENT_TYPE field and the body of a call."""
    if serialization == "orjson" and len(args) == 1 and not kwargs:
        return _F_JSON, to_json(args[0])
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
