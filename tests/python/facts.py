#!/usr/bin/env python3
"""Names and signatures of modules as short text, for comparing ours with Ray's.

    facts.py API.json > testdata/names/ray-2.60.json

makes the file that test_names.py reads from what was read off an installed Ray by introspection
(modules -> names -> signatures, fields, members). Annotations of functions are left out: they name
classes inside Ray. Types of model fields stay.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any, Dict, List

BRACKETS = {"(": ")", "[": "]", "{": "}", "<": ">"}


def split(text: str, at: str) -> List[str]:
    """The parts of `text` between those `at` that stand outside of brackets and quotes."""
    parts, start, depth, quote = [], 0, 0, ""
    for i, c in enumerate(text):
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c in BRACKETS:
            depth += 1
        elif c in BRACKETS.values():
            if not (c == ">" and text[i - 1] == "-"):
                depth -= 1
        elif depth == 0 and text.startswith(at, i):
            parts.append(text[start:i])
            start = i + len(at)
    parts.append(text[start:])
    return [p.strip() for p in parts]


def bare(signature: str) -> str:
    """`(a: int = 1, *, b) -> str` as `a=1, *, b`."""
    depth, quote = 0, ""
    for i, c in enumerate(signature):
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c == "(":
            depth += 1
        elif c == ")":
            depth -= 1
            if depth == 0:
                break
    out = []
    for parameter in split(signature[1:i], ","):
        if not parameter:
            continue
        left = split(parameter, "=")
        name = split(left[0], ":")[0]
        default = "=".join(left[1:])
        if default.startswith("FieldInfo("):
            default = "None"
        out.append(f"{name}={default}" if len(left) > 1 else name)
    return ", ".join(out)


def plain_type(text: str) -> str:
    """A type without the modules its names come from."""
    text = re.sub(r"<(?:class|enum) '([^']*)'>", r"\1", text)
    text = re.sub(r"ForwardRef\('([^']*)'\)", r"\1", text)
    return re.sub(r"\b(?:[A-Za-z_]\w*\.)+([A-Za-z_]\w*)", r"\1", text)


def compact(api: Dict[str, Any]) -> Dict[str, Any]:
    out: Dict[str, Any] = {}
    for module, names in api.items():
        here = out[module] = {}
        for name, fact in sorted(names.items()):
            if name.startswith("!"):
                continue
            if isinstance(fact, str):
                here[name] = {"call": bare(fact)} if fact.startswith("(") else {"value": fact}
                continue
            if fact["kind"] == "function":
                here[name] = {"call": bare(fact["signature"])}
            elif fact["kind"] == "class":
                here[name] = entry = {"bases": fact.get("bases", [])}
                if "members" in fact:
                    entry["members"] = fact["members"]
                elif "fields" in fact:
                    entry["fields"] = {
                        n: [plain_type(f["type"]), f["default"]] for n, f in fact["fields"].items()
                    }
                elif fact.get("init") is not None:
                    entry["init"] = bare(fact["init"])
                if fact.get("methods"):
                    entry["methods"] = {n: bare(s) for n, s in fact["methods"].items()}
                if fact.get("properties"):
                    entry["properties"] = fact["properties"]
            else:
                here[name] = {"value": fact["value"]}
    return out


def main(path: str) -> None:
    with open(path, encoding="utf-8") as f:
        facts = compact(json.load(f))
    lines = []
    for module, names in facts.items():
        entries = ",\n".join(
            f"  {json.dumps(n)}: {json.dumps(v, sort_keys=True)}" for n, v in names.items()
        )
        lines.append(f" {json.dumps(module)}: {{\n{entries}\n }}")
    print("{\n" + ",\n".join(lines) + "\n}")


if __name__ == "__main__":
    main(sys.argv[1])
