"""Models of options: what pydantic models are to Ray Serve, with and without pydantic.

A model is written once, as a class with annotated fields. It checks and converts values itself, in
pydantic's way and words, so that nothing here needs pydantic. `public` gives the class that
programs see: where pydantic 2 is installed, a real pydantic model made of the same fields,
validators and methods; where it is not, the class itself. The library works with the classes of
this file only, so importing `ray.serve` loads no pydantic; a program that asks `ray.serve.config`
for a model does.
"""

from __future__ import annotations

import copy
import enum
import functools
import inspect
import sys
import typing
from typing import Any, Callable, ClassVar, Dict, List, Optional, Set, Tuple, Type, TypeVar

from rserve._checks import (
    Check,
    Failed,
    check_of,
    integer,
    json_dict,
    real,
)
from rserve._checks import Problem as Problem

if typing.TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Any:
        return lambda cls: cls


__all__ = [
    "Field",
    "Model",
    "ValidationError",
    "before_model",
    "field_validator",
    "integer",
    "json_dict",
    "lazy",
    "model_validator",
    "public",
    "pydantic",
    "real",
    "validation_error",
]

T = TypeVar("T")
REQUIRED: Any = type("Required", (), {"__repr__": lambda self: "required"})()


class ValidationError(ValueError):
    """Stands in for pydantic's class of the same name where pydantic is not loaded."""

    def __init__(self, title: str, problems: List[Problem]) -> None:
        self.title = title
        self._problems = problems
        lines = [f"{len(problems)} validation error{'s' * (len(problems) != 1)} for {title}"]
        for where, message, value, kind in problems:
            if where:
                lines.append(".".join(str(w) for w in where))
            given = f"input_value={_short(value)}, input_type={type(value).__name__}"
            lines.append(f"  {message} [type={kind}, {given}]")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> Tuple[Any, ...]:
        return type(self), (self.title, self._problems)

    def errors(self, **_: Any) -> List[Dict[str, Any]]:
        return [{"type": k, "loc": w, "msg": m, "input": v} for w, m, v, k in self._problems]

    def error_count(self) -> int:
        return len(self._problems)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 50 else f"{text[:25]}...{text[-24:]}"


def validation_error(title: str, problems: List[Any]) -> Exception:
    """pydantic's own ValidationError when the program uses pydantic, else ours. A problem is
    (place, text, value) or a `Problem`; a place is a name or a tuple of them."""
    full: List[Problem] = []
    for problem in problems:
        where = problem[0] if isinstance(problem[0], tuple) else (problem[0],) * bool(problem[0])
        kind = problem[3] if len(problem) > 3 else "value_error"
        full.append((where, problem[1], problem[2], kind))
    core = sys.modules.get("pydantic_core")
    if core is not None:
        try:
            error: Exception = core.ValidationError.from_exception_data(
                title,
                [
                    {
                        "type": core.PydanticCustomError(kind, "{message}", {"message": message}),
                        "loc": where,
                        "input": value,
                    }
                    for where, message, value, kind in full
                ],
            )
            return error
        except Exception:
            pass  # another version of pydantic_core: ours says the same
    return ValidationError(title, full)


# --- declaring ----------------------------------------------------------------------------------


class FieldInfo:
    """A field: its type, its default and the function that checks and converts a value."""

    __slots__ = ("type", "default", "factory", "model", "bounds", "description", "check")

    def __init__(
        self,
        default: Any = REQUIRED,
        factory: Optional[Callable[[], Any]] = None,
        model: Optional[Type["Model"]] = None,
        bounds: Optional[Dict[str, Any]] = None,
        description: str = "",
    ) -> None:
        self.type: Any = Any
        self.default = default
        self.factory = factory
        self.model = model
        self.bounds = bounds or {}
        self.description = description
        self.check: Optional[Check] = None

    @property
    def required(self) -> bool:
        return self.default is REQUIRED and self.factory is None and self.model is None

    def make_default(self) -> Any:
        if self.factory is not None:
            return self.factory()
        if self.model is not None:
            return self.model()
        if isinstance(self.default, (list, dict, set)):
            return copy.deepcopy(self.default)
        return self.default


def Field(
    *,
    default: Any = REQUIRED,
    default_factory: Optional[Callable[[], Any]] = None,
    instance: bool = False,
    description: str = "",
    **bounds: Any,
) -> Any:
    """Declares a field. `instance`: the default is one object that the factory, a model, makes;
    bounds: ge, gt, le, lt."""
    if instance:
        return FieldInfo(default, None, typing.cast(Any, default_factory), bounds, description)
    return FieldInfo(default, default_factory, None, bounds, description)


class _Validator:
    """Marks a function as a validator until the class is built."""

    def __init__(self, function: Any, names: Tuple[str, ...], mode: str) -> None:
        self.function = getattr(function, "__func__", function)
        self.names = names
        self.mode = mode


def field_validator(*names: str, mode: str = "after") -> Callable[[T], T]:
    """A class method `(cls, value[, info])` that checks a field before or after its type does."""

    def decorator(function: T) -> T:
        return typing.cast(T, _Validator(function, names, mode))

    return decorator


def model_validator(function: T) -> T:
    """A method that checks across fields; gives `self` back."""
    return typing.cast(T, _Validator(function, (), "model"))


def before_model(function: T) -> T:
    """A class method `(cls, values)` that sees all values before any check."""
    return typing.cast(T, _Validator(function, (), "before_model"))


class _Info:
    """What a validator with a third parameter is told."""

    def __init__(self, data: Dict[str, Any], field_name: str) -> None:
        self.data = data
        self.field_name = field_name


# --- models -------------------------------------------------------------------------------------


@dataclass_transform(kw_only_default=True, field_specifiers=(Field,))
class Model:
    """Base of the models. Class keywords: `extra="forbid"`, `assign=True` checks assignments."""

    _raw: ClassVar[Dict[str, FieldInfo]] = {}
    _private: ClassVar[Dict[str, Any]] = {}
    _validators: ClassVar[List[Tuple[str, _Validator]]] = []
    _home: ClassVar[str] = ""
    _extra: ClassVar[str] = "ignore"
    _assign: ClassVar[bool] = False
    _compiled: ClassVar[Optional[Dict[str, FieldInfo]]] = None
    _twin: ClassVar[Any] = None

    if typing.TYPE_CHECKING:

        def __init_subclass__(
            cls, *, home: str = "", extra: str = "", assign: Optional[bool] = None
        ) -> None: ...

    else:

        def __init_subclass__(cls, *, home="", extra="", assign=None, **kwargs):
            super().__init_subclass__(**kwargs)
            cls._home = home or cls._home
            cls._extra = extra or cls._extra
            cls._assign = cls._assign if assign is None else assign
            cls._compiled = cls._twin = None
            cls._raw, cls._private = dict(cls._raw), dict(cls._private)
            cls._validators = list(cls._validators)
            annotations = vars(cls).get("__annotations__")
            if annotations is None:  # newer Pythons make them when they are asked for
                annotations = cls.__annotations__ if sys.version_info >= (3, 10) else {}
            for name, text in annotations.items():
                value = vars(cls).get(name, REQUIRED)
                if "ClassVar" in str(text):
                    continue
                if name.startswith("_"):
                    cls._private[name] = None if value is REQUIRED else value
                    continue
                field = value if isinstance(value, FieldInfo) else FieldInfo(value)
                cls._raw[name] = field
                if value is not REQUIRED:
                    delattr(cls, name)
            for name, value in list(vars(cls).items()):
                if isinstance(value, _Validator):
                    cls._validators.append((name, value))
                    function = value.function
                    if value.mode != "model":
                        function = classmethod(function)
                    setattr(cls, name, function)

    @classmethod
    def _fields(cls) -> Dict[str, FieldInfo]:
        """The fields with their types; read from the annotations at first use."""
        if cls._compiled is None:
            hints = typing.get_type_hints(cls, include_extras=True)
            fields = {}
            for name, raw in cls._raw.items():
                field = fields[name] = copy.copy(raw)
                field.type = hints[name]
                field.check = check_of(field.type, field.bounds, Model)
            cls._compiled = fields
        return cls._compiled

    if not typing.TYPE_CHECKING:

        def __init__(self, **values):
            problems: List[Problem] = []
            cls = type(self)
            for name, validator in cls._validators:
                if validator.mode == "before_model":
                    try:
                        values = getattr(cls, name)(values)
                    except (ValueError, AssertionError) as e:
                        raise validation_error(
                            cls.__name__, [((), f"Value error, {e}", values, "value_error")]
                        ) from None
            given, done = dict(values), {}
            for name, field in cls._fields().items():
                if name not in given:
                    if field.required:
                        problems.append(((name,), "Field required", values, "missing"))
                    else:
                        done[name] = field.make_default()
                    continue
                try:
                    done[name] = cls._convert(name, field, given.pop(name), done)
                except Failed as e:
                    problems += [((name, *w), m, v, k) for w, m, v, k in e.problems]
            if cls._extra == "forbid":
                for name, value in given.items():
                    if name not in cls._fields():
                        text = "Extra inputs are not permitted"
                        problems.append(((name,), text, value, "extra_forbidden"))
            if problems:
                raise validation_error(cls.__name__, problems)
            self._fill(done, {n for n in cls._fields() if n in values})
            self._validate(values)

    def _fill(self, values: Dict[str, Any], given: Set[str]) -> None:
        for name, value in {**copy.deepcopy(self._private), **values, "_set": given}.items():
            object.__setattr__(self, name, value)

    def _validate(self, values: Any) -> None:
        for name, validator in self._validators:
            if validator.mode == "model":
                try:
                    getattr(self, name)()
                except (ValueError, AssertionError) as e:
                    problem: Problem = ((), f"Value error, {e}", values, "value_error")
                    raise validation_error(type(self).__name__, [problem]) from None

    @classmethod
    def _convert(cls, name: str, field: FieldInfo, value: Any, done: Dict[str, Any]) -> Any:
        """The value of a field after its type's and its validators' checks; raises Failed."""
        first = value
        try:
            for mode in ("before", "type", "after"):
                if mode == "type":
                    value = field.check(value) if field.check is not None else value
                    continue
                for method, validator in cls._validators:
                    if validator.mode == mode and name in validator.names:
                        function = getattr(cls, method)
                        if len(inspect.signature(function).parameters) > 1:
                            value = function(value, _Info(done, name))
                        else:
                            value = function(value)
        except Failed:
            raise
        except (ValueError, AssertionError) as e:
            raise Failed([((), f"Value error, {e}", first, "value_error")]) from None
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        field = type(self)._fields().get(name)
        if field is not None:
            if self._assign:
                try:
                    value = self._convert(name, field, value, dict(vars(self)))
                except Failed as e:
                    problems = [((name, *w), m, v, k) for w, m, v, k in e.problems]
                    raise validation_error(type(self).__name__, problems) from None
            self.model_fields_set.add(name)
        elif not name.startswith("_"):
            raise ValueError(f'"{type(self).__name__}" object has no field "{name}"')
        object.__setattr__(self, name, value)
        if field is not None and self._assign:
            self._validate(vars(self))

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return False
        return all(getattr(self, n) == getattr(other, n) for n in self._fields())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        inside = ", ".join(f"{n}={getattr(self, n)!r}" for n in self._fields())
        return f"{type(self).__name__}({inside})"

    __str__ = __repr__

    def __reduce__(self) -> Tuple[Any, ...]:
        cls = type(self)
        values = {n: getattr(self, n) for n in cls._fields()}
        private = {n: getattr(self, n) for n in cls._private}
        home = cls._home or cls.__module__
        return _rebuild, (home, cls.__name__, values, set(self.model_fields_set), private)

    @property
    def model_fields_set(self) -> Set[str]:
        """The names of the fields that were given."""
        names: Set[str] = vars(self)["_set"]
        return names

    @property
    def model_extra(self) -> Optional[Dict[str, Any]]:
        """Always None: no model keeps what it does not know."""
        return None

    def model_dump(
        self,
        *,
        mode: str = "python",
        include: Optional[Any] = None,
        exclude: Optional[Any] = None,
        exclude_unset: bool = False,
        exclude_defaults: bool = False,
        exclude_none: bool = False,
        **_: Any,
    ) -> Dict[str, Any]:
        """The fields as a dictionary, nested models too; with mode "json" in JSON's types."""
        out: Dict[str, Any] = {}
        flags = {
            "mode": mode,
            "exclude_unset": exclude_unset,
            "exclude_defaults": exclude_defaults,
            "exclude_none": exclude_none,
        }
        for name, field in self._fields().items():
            value = getattr(self, name)
            if include is not None and name not in include:
                continue
            if exclude is not None and name in exclude:
                continue
            if exclude_unset and name not in self.model_fields_set:
                continue
            if exclude_none and value is None:
                continue
            if exclude_defaults and not field.required and value == field.make_default():
                continue
            out[name] = _dump(value, flags)
        return out

    def model_dump_json(self, *, indent: Optional[int] = None, **kwargs: Any) -> str:
        """The fields as JSON text."""
        import json

        kwargs["mode"] = "json"
        separators = None if indent else (",", ":")
        return json.dumps(
            self.model_dump(**kwargs), indent=indent, separators=separators, ensure_ascii=False
        )

    def dict(self, **kwargs: Any) -> Dict[str, Any]:
        """pydantic 1's name of `model_dump`."""
        return self.model_dump(**kwargs)

    def json(self, **kwargs: Any) -> str:
        """pydantic 1's name of `model_dump_json`."""
        return self.model_dump_json(**kwargs)

    def model_copy(self: T, *, update: Optional[Any] = None, deep: bool = False) -> T:
        """A copy with some fields changed, unchecked."""
        other: Any = copy.deepcopy(self) if deep else copy.copy(self)
        given = set(vars(self)["_set"]) | set(update or ())
        other._fill({**vars(other), **(update or {})}, given)
        return typing.cast(T, other)

    def copy(self: T, *, update: Optional[Any] = None, deep: bool = False) -> T:
        """pydantic 1's name of `model_copy`."""
        model: Any = self
        return typing.cast(T, model.model_copy(update=update, deep=deep))

    def __copy__(self: T) -> T:
        model: Any = self
        return typing.cast(T, model.model_construct(model.model_fields_set, **model._values()))

    def __deepcopy__(self: T, memo: Any = None) -> T:
        model: Any = self
        values = copy.deepcopy(model._values(), memo)
        return typing.cast(T, model.model_construct(model.model_fields_set, **values))

    def _values(self) -> Dict[str, Any]:
        names = [*self._fields(), *self._private]
        return {n: getattr(self, n) for n in names}

    @classmethod
    def model_construct(cls: Type[T], _fields_set: Optional[Set[str]] = None, **values: Any) -> T:
        """An instance without any check."""
        model: Any = cls.__new__(cls)
        fields = model._fields()
        full = {n: values[n] if n in values else f.make_default() for n, f in fields.items()}
        full.update({n: v for n, v in values.items() if n in model._private})
        model._fill(full, set(values) & set(fields) if _fields_set is None else set(_fields_set))
        return typing.cast(T, model)

    @classmethod
    def model_validate(cls: Type[T], value: Any) -> T:
        """An instance of a dictionary, of an instance, or of the pydantic model of that name."""
        if isinstance(value, cls):
            return value
        if type(value).__name__ == cls.__name__ and hasattr(value, "model_dump"):
            value = {n: getattr(value, n) for n in value.model_fields_set}
        if not isinstance(value, dict):
            message = f"Input should be a valid dictionary or instance of {cls.__name__}"
            raise validation_error(cls.__name__, [((), message, value, "model_type")])
        return cls(**value)

    @classmethod
    def model_validate_json(cls: Type[T], text: Any) -> T:
        """An instance of JSON text."""
        import json

        return typing.cast(Any, cls).model_validate(json.loads(text))  # type: ignore[no-any-return]

    @classmethod
    def parse_obj(cls: Type[T], value: Any) -> T:
        """pydantic 1's name of `model_validate`."""
        return typing.cast(Any, cls).model_validate(value)  # type: ignore[no-any-return]


def _rebuild(
    home: str, name: str, values: Dict[str, Any], given: Set[str], private: Dict[str, Any]
) -> Any:
    """Unpickles a model into the class that this program sees under its name."""
    import importlib

    cls: Any = getattr(importlib.import_module(home), name)
    model = cls.model_construct(given, **values)
    for key, value in private.items():
        setattr(model, key, value)
    return model


def _dump(value: Any, flags: Dict[str, Any]) -> Any:
    if isinstance(value, Model):
        return value.model_dump(**flags)
    if isinstance(value, enum.Enum) and flags["mode"] == "json":
        return value.value
    if isinstance(value, (list, tuple)):
        items = [_dump(v, flags) for v in value]
        return tuple(items) if isinstance(value, tuple) and flags["mode"] != "json" else items
    if isinstance(value, dict):
        return {k: _dump(v, flags) for k, v in value.items()}
    return value


# --- with pydantic ------------------------------------------------------------------------------


@functools.lru_cache(maxsize=None)
def pydantic() -> Any:
    """The module pydantic, version 2, or None where there is none. Loads it."""
    try:
        import pydantic as module
    except ImportError:
        return None
    return module if module.VERSION.startswith("2.") else None


def public(cls: Type[Model]) -> Any:
    """The class of this model that programs see."""
    module = pydantic()
    if module is None:
        return cls
    if vars(cls).get("_twin") is None:
        cls._twin = _make_twin(cls, module)
    return cls._twin


def _make_twin(cls: Type[Model], module: Any) -> Any:
    """The pydantic model with the fields, validators and methods of `cls`."""
    base = public(cls.__mro__[1]) if cls.__mro__[1] is not Model else module.BaseModel
    inherited = getattr(base, "model_fields", {})
    members: Dict[str, Any] = {
        "__module__": cls._home or cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "__reduce__": _reduce_twin,
        "model_config": module.ConfigDict(
            extra=cls._extra, validate_assignment=cls._assign, arbitrary_types_allowed=True
        ),
    }
    validators = {name for name, _ in cls._validators}
    own = vars(cls)
    for name, value in own.items():
        plain = isinstance(value, (classmethod, staticmethod, property))
        if name not in validators and (plain or inspect.isfunction(value)):
            if name == "__eq__" or not name.startswith("__"):
                members[name] = value
    for name, validator in cls._validators:
        if name not in own:
            continue
        if validator.mode == "model":
            members[name] = module.model_validator(mode="after")(validator.function)
        elif validator.mode == "before_model":
            members[name] = module.model_validator(mode="before")(classmethod(validator.function))
        else:
            mark = module.field_validator(*validator.names, mode=validator.mode)
            members[name] = mark(classmethod(validator.function))
    annotations: Dict[str, Any] = {}
    for name, field in cls._fields().items():
        if name not in inherited:
            annotations[name] = _twin_type(field.type)
            members[name] = _twin_field(field, module)
    for name, value in cls._private.items():
        annotations[name] = Any
        members[name] = value
    members["__annotations__"] = annotations
    return type(base)(cls.__name__, (base,), members)


def _twin_field(field: FieldInfo, module: Any) -> Any:
    options: Dict[str, Any] = dict(field.bounds)
    if field.description:
        options["description"] = field.description
    if field.factory is not None:
        factory = field.factory
        made = factory if inspect.isclass(factory) and issubclass(factory, Model) else None
        return module.Field(default_factory=public(made) if made else factory, **options)
    if field.model is not None:
        return module.Field(default=public(field.model)(), **options)
    return module.Field(**options) if field.required else module.Field(field.default, **options)


def _twin_type(kind: Any) -> Any:
    """A type with every model in it replaced by its pydantic twin."""
    if isinstance(kind, type) and issubclass(kind, Model):
        return public(kind)
    arguments = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if not arguments or origin in (typing.Literal, typing.get_origin(Callable[..., Any])):
        return kind
    if hasattr(kind, "__metadata__"):
        import annotated_types

        bounds = [getattr(annotated_types, type(b).__name__)(b.value) for b in kind.__metadata__]
        parts: Any = (_twin_type(kind.__origin__), *bounds)
        return typing.Annotated[parts]
    inside = tuple(a if a is Ellipsis else _twin_type(a) for a in arguments)
    if origin is typing.Union:
        return typing.Union[inside]
    return kind.copy_with(inside)


def _reduce_twin(self: Any) -> Tuple[Any, ...]:
    cls = type(self)
    values = {n: getattr(self, n) for n in cls.model_fields}
    private = dict(self.__pydantic_private__ or {})
    return _rebuild, (
        cls.__module__,
        cls.__name__,
        values,
        set(self.model_fields_set),
        private,
    )


def lazy(module: str, models: Any, names: str) -> Callable[[str], Any]:
    """A module's `__getattr__` that makes its public models, out of those of `models`, when they
    are asked for."""
    known = frozenset(names.split())

    def __getattr__(name: str) -> Any:
        if name in known:
            value = public(getattr(models, name))
            setattr(sys.modules[module], name, value)
            return value
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return __getattr__
