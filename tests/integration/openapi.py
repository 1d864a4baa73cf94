"""As much of JSON Schema 2020-12 as the OpenAPI document uses, to hold answers against it."""

from typing import Any, Dict, List

TYPES = {"string": str, "boolean": bool, "object": dict, "array": list, "null": type(None)}
KNOWN = {"type", "enum", "anyOf", "$ref", "items", "properties", "required", "additionalProperties",
         "description"}


def is_type(value: Any, name: str) -> bool:
    if name == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if name == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, TYPES[name])


class Document:
    def __init__(self, document: Dict[str, Any]) -> None:
        self.document = document

    def faults(self, value: Any, schema: Any, at: str = "$") -> List[str]:
        """What about `value` is not as `schema` says; empty: nothing."""
        if schema is True or schema is False:
            return [] if schema else ["%s: is not in the schema" % at]
        unknown = set(schema) - KNOWN
        if unknown:
            return ["%s: the schema has %s, which this test does not know" % (at, unknown)]
        if "$ref" in schema:
            return self.faults(value, self.lookup(schema["$ref"]), at)
        if "anyOf" in schema:
            each = [self.faults(value, s, at) for s in schema["anyOf"]]
            return [] if any(not f for f in each) else min(each, key=len)
        found: List[str] = []
        types = schema.get("type", [])
        types = [types] if isinstance(types, str) else types
        if types and not any(is_type(value, t) for t in types):
            return ["%s: expected %s, got %.80r" % (at, "|".join(types), value)]
        if "enum" in schema and value is not None and value not in schema["enum"]:
            found.append("%s: expected one of %s, got %r" % (at, schema["enum"], value))
        if isinstance(value, dict):
            found += self.object_faults(value, schema, at)
        if isinstance(value, list) and "items" in schema:
            for i, v in enumerate(value):
                found += self.faults(v, schema["items"], "%s[%d]" % (at, i))
        return found

    def object_faults(self, value: Dict[str, Any], schema: Dict[str, Any], at: str) -> List[str]:
        members = schema.get("properties", {})
        found = ["%s: %s is missing" % (at, k) for k in schema.get("required", [])
                 if k not in value]
        for k, v in value.items():
            wanted = members.get(k, schema.get("additionalProperties", True))
            found += self.faults(v, wanted, "%s.%s" % (at, k))
        return found

    def lookup(self, ref: str) -> Any:
        node: Any = self.document
        for part in ref.lstrip("#/").split("/"):
            node = node[part]
        return node

    def answer_schema(self, path: str, method: str, status: int) -> Dict[str, Any]:
        """{content type: schema}"""
        known = self.document["paths"][path][method]["responses"]
        content = known.get(str(status), known["default"])["content"]
        return {k: v["schema"] for k, v in content.items()}
