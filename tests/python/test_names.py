"""Every name of Ray's that applications import, with its signature, default and type.

testdata/names/ray-2.60.json holds what was read off Ray 2.60; testdata/names/missing.txt names what
is not here, or is different, on purpose. The list only shrinks: a line that nothing needs any more
fails this test, and so does a difference without a line.
"""

from __future__ import annotations

import collections.abc
import enum
import importlib
import inspect
import json
import os
import typing
import unittest
from typing import Any, Dict, Iterator, List, Tuple

import fakenode  # noqa: F401  (puts the library on sys.path)
from facts import plain_type
from rserve import _model

#: Modules in which every public name has a docstring.
DOCUMENTED = (
    "ray.exceptions ray.serve ray.serve.batching ray.serve.config ray.serve.context "
    "ray.serve.exceptions ray.serve.gang ray.serve.grpc_util ray.serve.handle ray.serve.schema "
    "ray.serve.task_consumer"
).split()

DATA = os.path.join(os.path.dirname(__file__), "..", "..", "testdata", "names")


def facts(name: str) -> Any:
    with open(os.path.join(DATA, name), encoding="utf-8") as f:
        return json.load(f)


def on_purpose() -> Dict[str, str]:
    """What may be missing, with the reason. `a.b.*` means `a.b` and all below it."""
    out: Dict[str, str] = {}
    with open(os.path.join(DATA, "missing.txt"), encoding="utf-8") as f:
        for line in f:
            if line.strip() and not line.startswith("#"):
                name, colon, reason = line.partition(": ")
                assert colon and reason.strip(), f"no reason: {line!r}"
                assert name not in out, f"twice: {name}"
                out[name.strip()] = reason.strip()
    return out


def signature(function: Any) -> str:
    out: List[str] = []
    star = slash = False
    for p in inspect.signature(function).parameters.values():
        if slash and p.kind is not p.POSITIONAL_ONLY:
            out.append("/")
        slash = p.kind is p.POSITIONAL_ONLY
        if p.kind is p.KEYWORD_ONLY and not star:
            out.append("*")
            star = True
        if p.kind is p.VAR_POSITIONAL:
            out.append(f"*{p.name}")
            star = True
        elif p.kind is p.VAR_KEYWORD:
            out.append(f"**{p.name}")
        elif p.default is p.empty:
            out.append(p.name)
        else:
            out.append(f"{p.name}={p.default!r}")
    return ", ".join(out + (["/"] if slash else []))


def same(kind: str, asked: Any, found: Any) -> Iterator[Tuple[str, str]]:
    if asked != found:
        yield "", f"{kind} is {found}, in Ray {asked}"


def _own(name: str) -> Any:
    """The library's own class of a model."""
    from rserve import _config, _details, _schema

    return next((getattr(m, name) for m in (_config, _schema, _details) if hasattr(m, name)), None)


def type_text(kind: Any) -> str:
    """A type in the words of the facts."""
    if kind is type(None):
        return "NoneType"
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if hasattr(kind, "__metadata__"):
        bounds = ", ".join(repr(b) for b in kind.__metadata__)
        return f"Annotated[{type_text(kind.__origin__)}, {bounds}]"
    if origin is typing.Literal:
        return f"Literal[{', '.join(repr(a) for a in arguments)}]"
    if isinstance(kind, type) and not arguments:
        return kind.__name__
    if not arguments:
        return plain_type(str(kind))
    if origin is collections.abc.Callable or arguments == (Any, Any):
        return "Dict" if origin is dict else "Callable"
    inside = ["..." if a is Ellipsis else type_text(a) for a in arguments]
    if origin is typing.Union:
        some = [a for a in inside if a != "NoneType"]
        if len(some) == 1 and len(inside) == 2:
            return f"Optional[{some[0]}]"
        return f"Union[{', '.join(some + ['NoneType'] * (len(some) != len(inside)))}]"
    name = {list: "List", dict: "Dict", tuple: "Tuple"}.get(origin, str(origin))
    return f"{name}[{', '.join(inside)}]"


def fields(cls: Any) -> Dict[str, List[str]]:
    """Type and default of each field of a model, of ours or of pydantic's making."""
    out = {}
    if hasattr(cls, "model_fields"):
        for name, f in cls.model_fields.items():
            default = "factory" if f.default_factory is not None else repr(f.default)
            out[name] = [type_text(f.annotation), "required" if f.is_required() else default]
        return out
    for name, f in cls._fields().items():
        kind = f.type.__origin__ if hasattr(f.type, "__metadata__") else f.type
        default = "factory" if f.factory is not None else repr(f.make_default())
        out[name] = [type_text(kind), default]
    return out


def compare_class(fact: Dict[str, Any], cls: Any) -> Iterator[Tuple[str, str]]:
    """Pairs of what is different (`.method`, or "" for the class itself) and how."""
    if not inspect.isclass(cls):
        yield "", "not a class"
        return
    bases = {b.__name__ for b in cls.__mro__[1:]}
    asked = {b for b in fact["bases"] if b != "BaseModel" or _model.pydantic() is not None}
    if asked - bases:
        yield "", f"does not derive from {', '.join(sorted(asked - bases))}"
    if "members" in fact:
        members = {m.name: m.value for m in cls} if issubclass(cls, enum.Enum) else {}
        yield from same("members", fact["members"], members)
    if "fields" in fact:
        ours = fields(cls)
        for name, (kind, default) in fact["fields"].items():
            if name not in ours:
                yield f".{name}", "no such field"
            elif ours[name] != [kind, default]:
                yield f".{name}", f"{kind} = {default}, ours {ours[name]}"
    if "init" in fact:
        own = cls.__init__ is not object.__init__
        found = signature(cls.__init__ if own else cls)
        found = ", ".join(p for p in found.split(", ") if p != "self")
        if found != fact["init"] and [fact["init"], found] != ["*args, **kwargs", ""]:
            yield ".__init__", f"({fact['init']}), ours ({found})"
    for name, call in fact.get("methods", {}).items():
        if not callable(getattr(cls, name, None)):
            yield f".{name}", "no such method"
        elif signature(getattr(cls, name)) != call:
            yield f".{name}", f"({call}), ours ({signature(getattr(cls, name))})"
    for name in fact.get("properties", ()):
        if not hasattr(cls, name):
            yield f".{name}", "no such property"


def differences() -> Iterator[Tuple[str, str]]:
    for module_name, names in facts("ray-2.60.json").items():
        try:
            module = importlib.import_module(module_name)
        except ImportError as e:
            yield module_name, f"cannot be imported: {e}"
            continue
        for name, fact in names.items():
            where = f"{module_name}.{name}"
            try:
                ours = getattr(module, name)
            except AttributeError:
                yield where, "no such name"
                continue
            if "call" in fact:
                if not callable(ours):
                    yield where, "not callable"
                elif signature(ours) != fact["call"]:
                    yield where, f"({fact['call']}), ours ({signature(ours)})"
            elif "value" in fact:
                # sets in any order, long reprs were cut
                asked, found = (sorted(v[:100]) for v in (fact["value"], repr(ours)))
                if asked != found and not fact["value"].startswith("frozenset"):
                    yield where, f"{fact['value']}, ours {ours!r}"
            else:
                for part, what in compare_class(fact, ours):
                    yield where + part, what


class Names(unittest.TestCase):
    maxDiff = None

    def test_names_signatures_fields(self) -> None:
        allowed = on_purpose()
        needed = set()
        problems = []
        for name, what in differences():
            parts = name.split(".")
            for line in [name] + [".".join(parts[:n]) + ".*" for n in range(len(parts), 0, -1)]:
                if line in allowed:
                    needed.add(line)
                    break
            else:
                problems.append(f"{name}: {what}")
        self.assertEqual([], problems, "differs from Ray without a line in missing.txt")
        unneeded = [n for n in allowed if n not in needed]
        self.assertEqual([], unneeded, "lines of missing.txt that nothing needs: remove them")

    def test_everything_says_what_it_is(self) -> None:
        silent = []
        for module_name, names in facts("ray-2.60.json").items():
            if module_name not in DOCUMENTED:
                continue
            module = importlib.import_module(module_name)
            for name, fact in names.items():
                item = getattr(module, name, None)
                if "value" in fact or item is None:
                    continue
                doc = vars(item).get("__doc__") if inspect.isclass(item) else item.__doc__
                if not doc or doc.startswith(f"{name}("):
                    silent.append(f"{module_name}.{name}")
                validators = {n for n, _ in getattr(_own(name), "_validators", ())}
                for part in [*fact.get("methods", ()), *fact.get("properties", ())]:
                    member = inspect.getattr_static(item, part, None)
                    member = getattr(member, "__func__", member)
                    if member is None or part in validators:
                        continue
                    if not getattr(member, "__doc__", None):
                        silent.append(f"{module_name}.{name}.{part}")
        self.assertEqual([], silent)

    def test_constants(self) -> None:
        from ray.serve._private import constants

        known = facts("constants-2.60.json")
        ours = {n: v for n, v in vars(constants).items() if n.isupper() and n[0] != "_"}
        self.assertGreater(len(ours), 40)
        for name, value in ours.items():
            self.assertTrue(name in known, f"{name} is none of Ray's constants")
            value = sorted(value) if isinstance(value, (set, frozenset)) else value
            self.assertEqual(known[name], value, name)

    def test_names_of_ray_serve(self) -> None:
        from ray import serve

        self.assertEqual(sorted(facts("ray-2.60.json")["ray.serve"]), sorted(serve.__all__))
        for name in serve.__all__:
            self.assertTrue(hasattr(serve, name), name)


if __name__ == "__main__":
    unittest.main()
