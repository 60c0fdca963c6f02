"""Type hints as JSON Schema: what a task's parameters say about themselves.

A hint that says nothing to JSON gives the schema that accepts everything. Pydantic models are asked themselves; pydantic is not needed
for anything else. References inside a model are written out, because a catalog's schema stands inside of another document.
"""
from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import types
import typing
import uuid
from typing import Any, Dict, List, Mapping, Sequence, Tuple

Schema = Dict[str, Any]

_PLAIN: Dict[Any, Schema] = {
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    datetime.datetime: {"type": "string", "format": "date-time"},
    datetime.date: {"type": "string", "format": "date"},
    datetime.time: {"type": "string", "format": "time"},
    uuid.UUID: {"type": "string", "format": "uuid"},
    decimal.Decimal: {"type": ["number", "string"]},
    list: {"type": "array", "items": {}},
    tuple: {"type": "array", "items": {}},
    set: {"type": "array", "items": {}, "uniqueItems": True},
    dict: {"type": "object"},
}
_UNIONS = (typing.Union, getattr(types, "UnionType", typing.Union))


def of(hint: Any) -> Schema:
    """The schema of one hint."""
    if hint in _PLAIN:
        return dict(_PLAIN[hint])
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return of(inner[0])
    if origin is typing.Literal:
        return {"enum": list(inner)}
    if origin in _UNIONS:
        return _union(inner)
    if origin is not None:
        return _container(origin, inner)
    if isinstance(hint, type):
        return _class(hint)
    return {}


def _union(inner: Sequence[Any]) -> Schema:
    members: List[Schema] = []
    for member in map(of, inner):
        if member not in members:
            members.append(member)
    if all(set(member) == {"type"} and isinstance(member["type"], str) for member in members):
        return {"type": [member["type"] for member in members]}
    return {"anyOf": members} if len(members) > 1 else members[0]


def _container(origin: Any, inner: Tuple[Any, ...]) -> Schema:
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": of(inner[1])} if len(inner) == 2 else {"type": "object"}
    if origin is tuple and Ellipsis not in inner:
        count = len(inner)
        return {"type": "array", "prefixItems": [of(one) for one in inner], "minItems": count, "maxItems": count}
    if isinstance(origin, type) and issubclass(origin, (typing.Collection, typing.Iterable)):
        return {"type": "array", "items": of(inner[0]) if inner else {}}
    return {}


def _class(hint: type) -> Schema:
    if hasattr(hint, "model_json_schema"):
        return inline(hint.model_json_schema())
    if issubclass(hint, enum.Enum):
        return {"enum": [member.value for member in hint]}
    if dataclasses.is_dataclass(hint) or hasattr(hint, "__total__"):
        return _fields(hint)
    for plain, schema in _PLAIN.items():
        if issubclass(hint, plain):
            return dict(schema)
    return {}


def _fields(hint: type) -> Schema:
    """A dataclass or a TypedDict."""
    hints = typing.get_type_hints(hint)
    required = set(getattr(hint, "__required_keys__", ()))
    for field in dataclasses.fields(hint) if dataclasses.is_dataclass(hint) else ():
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.add(field.name)
    found: Schema = {"type": "object", "properties": {name: of(one) for name, one in hints.items()}}
    return {**found, "required": sorted(required)} if required else found


def inline(schema: Schema) -> Schema:
    """The schema without `$defs`; where a model contains itself the inner one accepts any object."""
    definitions = schema.pop("$defs", {})

    def written(value: Any, inside: Tuple[str, ...]) -> Any:
        if isinstance(value, list):
            return [written(one, inside) for one in value]
        if not isinstance(value, dict):
            return value
        name = str(value.get("$ref", "")).rpartition("/")[2]
        if name:
            beside = {key: one for key, one in value.items() if key != "$ref"}
            whole = {"type": "object"} if name in inside else written(definitions.get(name, {}), (*inside, name))
            return {**whole, **beside}
        return {key: written(one, inside) for key, one in value.items()}

    result: Schema = written(schema, (str(schema.get("title", "")),))
    return result
