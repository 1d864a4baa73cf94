"""Small validated option objects: what pydantic models are to Ray Serve, without pydantic.

A subclass lists its fields as `Field` class attributes. Unknown names are ignored or refused,
values are checked and converted, and the fields that were set explicitly are remembered, because a
deployment tells the node only what the user's code said.
"""

from __future__ import annotations

import copy
import enum
import math
import sys
from typing import Any, Callable, ClassVar, Dict, List, Optional, Set, Tuple, Type


class ValidationError(ValueError):
    """Stands in for pydantic's class of the same name where pydantic is not loaded."""

    def __init__(self, title: str, errors: List[Tuple[str, str, Any]]) -> None:
        self.title = title
        self._errors = errors
        lines = [f"{len(errors)} validation error{'s' if len(errors) != 1 else ''} for {title}"]
        for where, message, value in errors:
            lines.append(where)
            lines.append(f"  {message} [input_value={value!r}, input_type={type(value).__name__}]")
        super().__init__("\n".join(lines))

    def errors(self) -> List[Dict[str, Any]]:
        return [
            {"loc": (w,), "msg": m, "input": v, "type": "value_error"} for w, m, v in self._errors
        ]

    def error_count(self) -> int:
        return len(self._errors)


def validation_error(title: str, errors: List[Tuple[str, str, Any]]) -> Exception:
    """pydantic's own ValidationError when the program uses pydantic, else ours."""
    core = sys.modules.get("pydantic_core")
    if core is not None:
        try:
            error: Exception = core.ValidationError.from_exception_data(
                title,
                [
                    {
                        "type": core.PydanticCustomError(
                            "value_error", "{message}", {"message": message}
                        ),
                        "loc": (where,),
                        "input": value,
                    }
                    for where, message, value in errors
                ],
            )
            return error
        except Exception:
            pass
    return ValidationError(title, errors)


Check = Callable[[Any], Any]


class FieldInfo:
    """A field: its default and a function that checks and converts a value."""

    __slots__ = ("default", "check", "required")

    def __init__(self, default: Any, check: Optional[Check], required: bool) -> None:
        self.default = default
        self.check = check
        self.required = required

    def make_default(self) -> Any:
        return copy.deepcopy(self.default)


def Field(default: Any = None, check: Optional[Check] = None, required: bool = False) -> Any:
    """Declares a field of a Model."""
    return FieldInfo(default, check, required)


class Model:
    """Base of the option objects."""

    _fields: ClassVar[Dict[str, FieldInfo]] = {}
    _forbid_extra: ClassVar[bool] = False
    _title: ClassVar[Optional[str]] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        fields = dict(cls._fields)
        for name, value in list(vars(cls).items()):
            if isinstance(value, FieldInfo):
                fields[name] = value
                delattr(cls, name)
        cls._fields = fields

    def __init__(self, **values: Any) -> None:
        errors: List[Tuple[str, str, Any]] = []
        self._set: Set[str] = set()
        for name, field in self._fields.items():
            if name in values:
                value = values.pop(name)
                if field.check is not None:
                    try:
                        value = field.check(value)
                    except ValueError as e:
                        errors.append((name, str(e), value))
                self._set.add(name)
            elif field.required:
                errors.append((name, "Field required", values))
                value = None
            else:
                value = field.make_default()
            object.__setattr__(self, name, value)
        if values and self._forbid_extra:
            for name, value in values.items():
                errors.append((name, "Extra inputs are not permitted", value))
        if not errors:
            try:
                self._validate()
            except ValueError as e:
                errors.append(("", f"Value error, {e}", values))
        if errors:
            raise validation_error(self._title or type(self).__name__, errors)

    def _validate(self) -> None:
        """Checks across fields; raises ValueError."""

    def __setattr__(self, name: str, value: Any) -> None:
        field = self._fields.get(name)
        if field is not None:
            if field.check is not None:
                try:
                    value = field.check(value)
                except ValueError as e:
                    raise validation_error(type(self).__name__, [(name, str(e), value)]) from None
            self._set.add(name)
        object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.model_dump() == other.model_dump()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        inside = ", ".join(f"{n}={getattr(self, n)!r}" for n in self._fields)
        return f"{type(self).__name__}({inside})"

    @property
    def model_fields_set(self) -> Set[str]:
        return set(self._set)

    def model_dump(
        self, *, exclude_unset: bool = False, mode: str = "python", **_: Any
    ) -> Dict[str, Any]:
        names = [n for n in self._fields if not exclude_unset or n in self._set]
        return {n: _dump(getattr(self, n), exclude_unset, mode) for n in names}

    dict = model_dump

    def model_dump_json(self, **kwargs: Any) -> str:
        import json

        return json.dumps(self.model_dump(mode="json", **kwargs), separators=(",", ":"))

    json = model_dump_json

    def model_copy(self, *, update: Optional[Dict[str, Any]] = None, deep: bool = False) -> Any:
        other = copy.deepcopy(self) if deep else copy.copy(self)
        object.__setattr__(other, "_set", set(self._set))
        for name, value in (update or {}).items():
            setattr(other, name, value)
        return other

    copy = model_copy

    @classmethod
    def model_validate(cls, value: Any) -> Any:
        if isinstance(value, cls):
            return value
        if not isinstance(value, dict):
            message = f"Input should be a valid dictionary or instance of {cls.__name__}"
            raise validation_error(cls.__name__, [("", message, value)])
        return cls(**value)

    parse_obj = model_validate

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Lets a user's pydantic model have a field of this type."""
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(cls.model_validate)


def _dump(value: Any, exclude_unset: bool, mode: str) -> Any:
    if isinstance(value, Model):
        return value.model_dump(exclude_unset=exclude_unset, mode=mode)
    if isinstance(value, enum.Enum):
        return value.value if mode == "json" else value
    if isinstance(value, (list, tuple)):
        return type(value)(_dump(v, exclude_unset, mode) for v in value)
    if isinstance(value, dict):
        return {k: _dump(v, exclude_unset, mode) for k, v in value.items()}
    return value


# --- checks -------------------------------------------------------------------------------------


def integer(low: Optional[int] = None, high: Optional[int] = None, optional: bool = False) -> Check:
    def check(value: Any) -> Any:
        if value is None and optional:
            return None
        if isinstance(value, str):
            try:
                value = int(value)
            except ValueError:
                raise ValueError(
                    "Input should be a valid integer, unable to parse string as an integer"
                ) from None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError("Input should be a valid integer")
        _bounds(value, low, high)
        return value

    return check


def real(
    low: Optional[float] = None,
    high: Optional[float] = None,
    optional: bool = False,
    above: Optional[float] = None,
) -> Check:
    def check(value: Any) -> Any:
        if value is None and optional:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError("Input should be a valid number")
        try:
            value = float(value)
        except ValueError:
            raise ValueError(
                "Input should be a valid number, unable to parse string as a number"
            ) from None
        if not math.isfinite(value):
            raise ValueError("Input should be a finite number")
        if above is not None and value <= above:
            raise ValueError(f"Input should be greater than {above:g}")
        _bounds(value, low, high)
        return value

    return check


def _bounds(value: float, low: Optional[float], high: Optional[float]) -> None:
    if low is not None and value < low:
        raise ValueError(f"Input should be greater than or equal to {low:g}")
    if high is not None and value > high:
        raise ValueError(f"Input should be less than or equal to {high:g}")


def boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.lower() in ("true", "false", "yes", "no", "on", "off"):
        return value.lower() in ("true", "yes", "on")
    raise ValueError("Input should be a valid boolean")


def string(optional: bool = False) -> Check:
    def check(value: Any) -> Any:
        if value is None and optional:
            return None
        if not isinstance(value, str):
            raise ValueError("Input should be a valid string")
        return value

    return check


def mapping(optional: bool = False) -> Check:
    def check(value: Any) -> Any:
        if value is None and optional:
            return None
        if not isinstance(value, dict):
            raise ValueError("Input should be a valid dictionary")
        return value

    return check


def sequence(value: Any) -> List[Any]:
    if not isinstance(value, (list, tuple)):
        raise ValueError("Input should be a valid list")
    return list(value)


def one_of(choices: Type[enum.Enum], fold: bool = False) -> Check:
    """A member of an enumeration, given as itself or as its value."""

    def check(value: Any) -> Any:
        if isinstance(value, choices):
            return value
        for member in choices:
            if value == member.value:
                return member
            if fold and isinstance(value, str) and value.upper() == str(member.value).upper():
                return member
        allowed = ", ".join(repr(m.value) for m in choices)
        raise ValueError(f"Input should be {allowed}")

    return check


def nested(model: Type[Model], optional: bool = False) -> Check:
    def check(value: Any) -> Any:
        if value is None and optional:
            return None
        if isinstance(value, model):
            return value
        if not isinstance(value, dict):
            raise ValueError(f"Input should be a valid dictionary or instance of {model.__name__}")
        return model(**value)

    return check


def json_dict(what: str) -> Check:
    """A dictionary that JSON can hold."""

    def check(value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError("Input should be a valid dictionary")
        import json

        try:
            json.dumps(value)
        except (TypeError, ValueError) as e:
            raise ValueError(f"{what} is not JSON-serializable: {e}.") from None
        return value

    return check
