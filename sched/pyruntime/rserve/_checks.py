"""From a type to the function that checks and converts a value, in pydantic's way and words."""

from __future__ import annotations

import collections.abc
import enum
import json
import math
import typing
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

Check = Callable[[Any], Any]

#: Place inside the value, text, the value that is wrong, and pydantic's name of the error.
Problem = Tuple[Tuple[Any, ...], str, Any, str]


class Failed(ValueError):
    """A value that does not fit, with all that is wrong about it."""

    def __init__(self, problems: List[Problem]) -> None:
        super().__init__("; ".join(p[1] for p in problems))
        self.problems = problems


def wrong(message: str, value: Any, kind: str) -> Failed:
    return Failed([((), message, value, kind)])


class _Bound:
    """A limit of a number; the classes below are named as those of annotated_types."""

    __slots__ = ("value",)

    def __init__(self, value: float) -> None:
        self.value = value

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name}({name.lower()}={self.value})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Bound) and repr(other) == repr(self)

    def __hash__(self) -> int:
        return hash((type(self), self.value))


class Ge(_Bound):
    pass


class Gt(_Bound):
    pass


class Le(_Bound):
    pass


class Lt(_Bound):
    pass


_TESTS: Dict[str, Tuple[Callable[[Any, Any], bool], str, str]] = {
    "ge": (lambda v, b: v >= b, "greater than or equal to", "greater_than_equal"),
    "gt": (lambda v, b: v > b, "greater than", "greater_than"),
    "le": (lambda v, b: v <= b, "less than or equal to", "less_than_equal"),
    "lt": (lambda v, b: v < b, "less than", "less_than"),
}


def _bounded(check: Optional[Check], bounds: Dict[str, Any]) -> Optional[Check]:
    if not bounds:
        return check

    def bounded(value: Any) -> Any:
        converted = check(value) if check is not None else value
        for name, bound in bounds.items():
            test, words, kind = _TESTS[name]
            if converted is not None and not test(converted, bound):
                raise wrong(f"Input should be {words} {bound:g}", value, kind)
        return converted

    return bounded


# --- numbers, words -----------------------------------------------------------------------------


def _integer(value: Any) -> int:
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            text = "Input should be a valid integer, unable to parse string as an integer"
            raise wrong(text, value, "int_parsing") from None
    if isinstance(value, float):
        if value.is_integer():
            return int(value)
        text = "Input should be a valid integer, got a number with a fractional part"
        raise wrong(text, value, "int_from_float")
    if not isinstance(value, int):
        raise wrong("Input should be a valid integer", value, "int_type")
    return int(value)


def _real(value: Any) -> float:
    if not isinstance(value, (int, float, str)):
        raise wrong("Input should be a valid number", value, "float_type")
    try:
        number = float(value)
    except ValueError:
        text = "Input should be a valid number, unable to parse string as a number"
        raise wrong(text, value, "float_parsing") from None
    return number


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise wrong("Input should be a valid string", value, "string_type")
    return value


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)) and value in (0, 1):
        return bool(value)
    words = {"true": True, "yes": True, "on": True, "1": True, "t": True, "y": True}
    words.update({"false": False, "no": False, "off": False, "0": False, "f": False, "n": False})
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise wrong("Input should be a valid boolean", value, "bool_type")


def _callable(value: Any) -> Any:
    if not callable(value):
        raise wrong("Input should be callable", value, "callable_type")
    return value


def _class(value: Any) -> Any:
    if not isinstance(value, type):
        raise wrong("Input should be a type", value, "is_type")
    return value


def _none(value: Any) -> None:
    if value is not None:
        raise wrong("Input should be None", value, "none_required")


def integer(low: Optional[int] = None, high: Optional[int] = None) -> Check:
    """Checks a whole number within bounds; no truth value."""

    def check(value: Any) -> int:
        if isinstance(value, bool):
            raise wrong("Input should be a valid integer", value, "int_type")
        return int(bounded(value))

    bounded = typing.cast(Check, _bounded(_integer, _given(ge=low, le=high)))
    return check


def real(
    low: Optional[float] = None, high: Optional[float] = None, above: Optional[float] = None
) -> Check:
    """Checks a finite number within bounds; no truth value."""

    def check(value: Any) -> float:
        if isinstance(value, bool):
            raise wrong("Input should be a valid number", value, "float_type")
        number = float(bounded(value))
        if not math.isfinite(number):
            raise wrong("Input should be a finite number", value, "finite_number")
        return number

    bounded = typing.cast(Check, _bounded(_real, _given(ge=low, le=high, gt=above)))
    return check


def _given(**bounds: Optional[float]) -> Dict[str, Any]:
    return {n: b for n, b in bounds.items() if b is not None}


def json_dict(what: str) -> Check:
    """Checks that JSON can hold a dictionary."""

    def check(value: Any) -> Any:
        try:
            json.dumps(value)
        except (TypeError, ValueError) as e:
            raise ValueError(f"{what} is not JSON-serializable: {e}.") from None
        return value

    return check


# --- composed types -----------------------------------------------------------------------------


def _member(choices: Any) -> Check:
    def check(value: Any) -> Any:
        if isinstance(value, choices):
            return value
        for member in choices:
            if value == member.value:
                return member
        words = [repr(m.value) for m in choices]
        text = " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
        raise wrong(f"Input should be {text}", value, "enum")

    return check


def _literal(choices: Sequence[Any]) -> Check:
    def check(value: Any) -> Any:
        for choice in choices:
            if value == choice and type(value) is type(choice):
                return choice
        words = [repr(c) for c in choices]
        text = " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
        raise wrong(f"Input should be {text}", value, "literal_error")

    return check


def _list(item: Optional[Check]) -> Check:
    def check(value: Any) -> List[Any]:
        if not isinstance(value, (list, tuple, set, frozenset, collections.deque)):
            raise wrong("Input should be a valid list", value, "list_type")
        return _each(enumerate(value), item)

    return check


def _tuple(item: Optional[Check]) -> Check:
    def check(value: Any) -> Tuple[Any, ...]:
        if not isinstance(value, (list, tuple, set, frozenset, collections.deque)):
            raise wrong("Input should be a valid tuple", value, "tuple_type")
        return tuple(_each(enumerate(value), item))

    return check


def _dict(key: Optional[Check], item: Optional[Check]) -> Check:
    def check(value: Any) -> Dict[Any, Any]:
        if not isinstance(value, collections.abc.Mapping):
            raise wrong("Input should be a valid dictionary", value, "dict_type")
        keys = _each(((k, k) for k in value), key)
        return dict(zip(keys, _each(value.items(), item)))

    return check


def _each(pairs: Any, check: Optional[Check]) -> List[Any]:
    out, problems = [], []
    for where, value in pairs:
        try:
            out.append(value if check is None else check(value))
        except Failed as e:
            problems += [((where, *w), m, v, k) for w, m, v, k in e.problems]
    if problems:
        raise Failed(problems)
    return out


def _nested(model: Any) -> Check:
    def check(value: Any) -> Any:
        try:
            return model.model_validate(value)
        except ValueError as e:
            errors = getattr(e, "errors", None)
            if errors is None:
                raise
            problems = [(tuple(x["loc"]), x["msg"], x["input"], x["type"]) for x in errors()]
            raise Failed(problems) from None

    return check


def _union(kinds: Sequence[Any], base: Any) -> Check:
    """The first alternative that takes the value as it is, else the first that converts it."""
    choices = [(kind, check_of(kind, {}, base)) for kind in kinds]

    def check(value: Any) -> Any:
        if value is None and type(None) in kinds:
            return None
        for kind, _ in choices:
            bare = typing.get_origin(kind) or kind
            if isinstance(bare, type) and isinstance(value, bare) and type(value) is bare:
                choices_first = [c for c in choices if c[0] is kind]
                return value if choices_first[0][1] is None else choices_first[0][1](value)
        problems: List[Problem] = []
        for kind, one in choices:
            if kind is type(None):
                continue
            try:
                return value if one is None else one(value)
            except Failed as e:
                name = getattr(kind, "__name__", str(kind))
                several = len([k for k in kinds if k is not type(None)]) > 1
                problems += [((name, *w) if several else w, m, v, k) for w, m, v, k in e.problems]
        raise Failed(problems)

    return check


_PLAIN: Dict[Any, Check] = {
    int: _integer,
    float: _real,
    str: _string,
    bool: _boolean,
    type: _class,
    type(None): _none,
}


def check_of(kind: Any, bounds: Dict[str, Any], base: Any) -> Optional[Check]:
    """The check of a type, None where any value will do. `base` is the base class of models."""
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    check: Optional[Check] = None
    if hasattr(kind, "__metadata__"):
        limits = {type(b).__name__.lower(): b.value for b in kind.__metadata__}
        return _bounded(check_of(kind.__origin__, limits, base), bounds)
    if kind in _PLAIN:
        check = _PLAIN[kind]
    elif origin is typing.Union:
        check = _union(arguments, base)
    elif origin is typing.Literal:
        check = _literal(arguments)
    elif origin is list or kind is list:
        check = _list(check_of(arguments[0], {}, base) if arguments else None)
    elif origin is tuple or kind is tuple:
        check = _tuple(check_of(arguments[0], {}, base) if arguments else None)
    elif origin is dict or kind is dict:
        of_key, of_item = arguments if len(arguments) == 2 else (Any, Any)
        if isinstance(of_key, typing.TypeVar):
            of_key = of_item = Any
        check = _dict(check_of(of_key, {}, base), check_of(of_item, {}, base))
    elif origin is collections.abc.Callable or kind is typing.Callable:
        check = _callable
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        check = _member(kind)
    elif isinstance(kind, type) and issubclass(kind, base):
        check = _nested(kind)
    return _bounded(check, bounds)
