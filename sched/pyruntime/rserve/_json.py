"""Return values of plain handlers as JSON: what FastAPI's jsonable_encoder makes of them, without
FastAPI.

Values of JSON's own types go straight through the C encoder; everything else it meets comes to
`_default`. Keys that JSON has no type for send the whole value through `jsonable` instead.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import json
import re
import sys
import types
from typing import Any, Callable, Dict


@functools.lru_cache(maxsize=None)
def _encoders() -> Dict[type, Callable[[Any], Any]]:
    """What is made of values that JSON has no type for. The modules are loaded at first use."""
    import datetime
    import decimal
    import ipaddress
    import pathlib
    import uuid

    def number(value: decimal.Decimal) -> Any:
        exponent = value.as_tuple().exponent
        return int(value) if isinstance(exponent, int) and exponent >= 0 else float(value)

    return {
        bytes: lambda v: v.decode(),
        datetime.date: lambda v: v.isoformat(),
        datetime.datetime: lambda v: v.isoformat(),
        datetime.time: lambda v: v.isoformat(),
        datetime.timedelta: lambda v: v.total_seconds(),
        decimal.Decimal: number,
        frozenset: list,
        set: list,
        collections.deque: list,
        types.GeneratorType: list,
        ipaddress.IPv4Address: str,
        ipaddress.IPv4Interface: str,
        ipaddress.IPv4Network: str,
        ipaddress.IPv6Address: str,
        ipaddress.IPv6Interface: str,
        ipaddress.IPv6Network: str,
        pathlib.PurePath: str,
        re.Pattern: lambda v: v.pattern,
        uuid.UUID: str,
        enum.Enum: lambda v: v.value,
        BaseException: str,
    }


def _numpy(value: Any) -> Any:
    """A numpy or pandas value in plain types, or NotImplemented."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.ndarray):
            return value.tolist()
        if isinstance(value, numpy.generic):
            return value.item()
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        return value.to_dict(orient="records")
    return NotImplemented


def _default(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    if dump is not None and not isinstance(value, type):
        try:
            return dump(mode="json", by_alias=True)
        except TypeError:
            return dump()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    encoder = _encoders().get(type(value))
    if encoder is not None:
        return encoder(value)
    for kind, encoder in _encoders().items():
        if isinstance(value, kind):
            return encoder(value)
    array = _numpy(value)
    if array is not NotImplemented:
        return array
    fastapi = sys.modules.get("fastapi.encoders")
    if fastapi is not None:  # pydantic's own types
        for kind, encoder in fastapi.ENCODERS_BY_TYPE.items():
            if isinstance(kind, type) and isinstance(value, kind):
                return encoder(value)
    try:
        return dict(value)
    except Exception as first:
        try:
            return {k: v for k, v in vars(value).items() if not k.startswith("_sa")}
        except TypeError as second:
            raise ValueError([first, second]) from second


def jsonable(value: Any) -> Any:
    """`value` in JSON's own types, keys included."""
    if value is None or isinstance(value, (str, int, float)):
        return value.value if isinstance(value, enum.Enum) else value
    if isinstance(value, dict):
        return {
            jsonable(k): jsonable(v)
            for k, v in value.items()
            if not (isinstance(k, str) and k.startswith("_sa"))
        }
    if isinstance(value, (list, tuple, set, frozenset, collections.deque, types.GeneratorType)):
        return [jsonable(v) for v in value]
    return jsonable(_default(value))


_encode = json.JSONEncoder(separators=(",", ":"), default=_default).encode


def to_json(value: Any) -> bytes:
    """ASCII JSON without spaces; NaN stays `NaN`."""
    try:
        text = _encode(value)
    except TypeError:
        return _encode(jsonable(value)).encode("ascii")
    if '"_sa' in text:  # perhaps a key, and those are left out
        text = _encode(jsonable(value))
    return text.encode("ascii")
