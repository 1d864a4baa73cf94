"""Dotted paths into answers, with filters, and the relations between values."""

import json
import re


MISSING = "<missing>"


def walk(value, path):
    """Value at a dotted path; '*' fans out; filters after '|': len keys type sorted distinct."""
    path, *filters = path.split("|")
    value = _walk(value, path.split(".") if path else [])
    for f in filters:
        f = f.strip()
        if value == MISSING:
            return value
        if f == "len":
            value = len(value)
        elif f == "keys":
            value = sorted(value)
        elif f == "type":
            value = type_of(value)
        elif f == "types":
            value = {k: type_of(v) for k, v in value.items()}
        elif f == "values":
            value = sorted(value.values(), key=str)
        elif f == "sorted":
            value = sorted(value, key=str)
        elif f == "distinct":
            value = len({json.dumps(v, sort_keys=True) for v in value})
        else:
            raise ValueError("unknown filter " + f)
    return value


def type_of(v):
    return {type(None): "null", bool: "bool", int: "number", float: "number", str: "string",
            list: "list", dict: "object"}[type(v)]


def _walk(value, parts):
    for n, part in enumerate(parts):
        if part == "*":
            rest = parts[n + 1:]
            if isinstance(value, dict):
                return {k: _walk(v, rest) for k, v in value.items()}
            if isinstance(value, list):
                return [_walk(v, rest) for v in value]
            return MISSING
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif (isinstance(value, list) and re.fullmatch(r"-?\d+", part)
              and -len(value) <= int(part) < len(value)):
            value = value[int(part)]
        else:
            return MISSING
    return value


def drop(value, parts):
    if parts[0] == "*":
        for v in (value.values() if isinstance(value, dict) else
                  value if isinstance(value, list) else []):
            drop(v, parts[1:])
    elif isinstance(value, dict) and parts[0] in value:
        if len(parts) == 1:
            del value[parts[0]]
        else:
            drop(value[parts[0]], parts[1:])
    elif (isinstance(value, list) and parts[0].isdigit() and int(parts[0]) < len(value)
          and len(parts) > 1):
        drop(value[int(parts[0])], parts[1:])


def holds(left, op, right):
    try:
        return {"==": lambda: left == right, "!=": lambda: left != right,
                ">=": lambda: left >= right, "<=": lambda: left <= right,
                ">": lambda: left > right, "<": lambda: left < right,
                "in": lambda: left in right, "has": lambda: right in left}[op]()
    except TypeError:
        return False
