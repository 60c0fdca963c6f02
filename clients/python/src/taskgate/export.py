"""Writes an application's tasks as the gateway's catalog: `python -m taskgate.export shop.celery > catalog.toml`.

Each task becomes an entry with a typed endpoint: its docstring, its parameters as a JSON Schema, and the queue, priority and limits that
the application gives it. What cannot be said in a catalog is left out and named in a comment.

Entries are `open`: Python passes an argument by place or by name, and an entry that is not open takes it in the written way only. With
`--strict` they are not, so calls by name are judged by the schema too.
"""
from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
import typing
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Optional, TextIO

from . import schema
from .application import load, tasks


@dataclass
class Entry:
    """One `[[tasks]]`, with what a person should know about it."""

    fields: Dict[str, Any]
    notes: List[str] = field(default_factory=list)


def entry(app: Any, name: str, task: Any, prefix: Optional[str] = "/tasks", is_open: bool = True) -> Entry:
    """The catalog entry of one task; without an endpoint when `prefix` is None or its parameters cannot be listed."""
    found = Entry({"name": name})
    summary, description = words(inspect.getdoc(task.run) if task.run.__doc__ else None)
    found.fields.update({key: text for key, text in (("summary", summary), ("description", description)) if text})
    _arguments(found, task, prefix)
    if is_open and "body" in found.fields:
        found.fields["open"] = True
    found.fields.update(settings(app, name, task))
    return found


def words(doc: Optional[str]) -> typing.Tuple[Optional[str], Optional[str]]:
    """The first sentence, and the rest."""
    head, _, rest = (doc or "").strip().partition("\n\n")
    return " ".join(head.split()) or None, rest.strip() or None


def _arguments(found: Entry, task: Any, prefix: Optional[str]) -> None:
    parameters = list(inspect.signature(task.run).parameters.values())
    open_ended = [one for one in parameters if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    if open_ended:
        found.notes.append(f"takes {' and '.join(str(one) for one in open_ended)}, which no schema can list: no endpoint")
        return
    if prefix is None:
        return
    hints = _hints(found, task)
    properties: Dict[str, Any] = {}
    args: List[str] = []
    kwargs: Dict[str, str] = {}
    required: List[str] = []
    for one in parameters:
        if not _has_json_default(one):
            found.notes.append(f"{one.name} is left out: its default {one.default!r} is no JSON, and only the worker knows it")
            continue
        is_positional = one.kind is not one.KEYWORD_ONLY and len(args) == len(properties) - len(kwargs) and not kwargs
        if is_positional and len(args) == parameters.index(one):
            args.append(f"{{{one.name}}}")
        else:
            kwargs[one.name] = f"{{{one.name}}}"
        properties[one.name] = _property(one, hints)
        if one.default is one.empty:
            required.append(one.name)
    found.fields["endpoint"] = f"POST {prefix.rstrip('/')}/{path(found.fields['name'])}"
    found.fields.update({key: value for key, value in (("args", args), ("kwargs", kwargs)) if value})
    if properties:
        body: Dict[str, Any] = {"type": "object", "properties": properties}
        found.fields["body"] = {**body, "required": required} if required else body


def _hints(found: Entry, task: Any) -> Dict[str, Any]:
    try:
        return typing.get_type_hints(task.run, include_extras=True)
    except Exception as error:  # noqa: BLE001 - hints are evaluated, so anything may be raised
        found.notes.append(f"its type hints cannot be read: {error}")
        return {}


def _has_json_default(parameter: inspect.Parameter) -> bool:
    if parameter.default is parameter.empty:
        return True
    try:
        json.dumps(parameter.default, allow_nan=False)
        return True
    except (TypeError, ValueError):
        return False


def _property(parameter: inspect.Parameter, hints: Dict[str, Any]) -> Dict[str, Any]:
    described = schema.of(hints[parameter.name]) if parameter.name in hints else {}
    if parameter.default is not parameter.empty and parameter.default is not None:
        described["default"] = parameter.default
    elif parameter.default is None and "type" in described and "null" not in described["type"]:
        kinds = described["type"] if isinstance(described["type"], list) else [described["type"]]
        described["type"] = [*kinds, "null"]
    return described


def path(name: str) -> str:
    """A task's name as one segment of a path."""
    return re.sub(r"[^A-Za-z0-9._~-]", "-", name)


def settings(app: Any, name: str, task: Any) -> Dict[str, Any]:
    """What the application says about every call of the task."""
    from .celery.options import queue

    options = {key: value for key, value in task._get_exec_options().items() if value is not None}
    found = {
        "queue": queue(app, name, (), {}, options, task),
        "priority": options.get("priority"),
        "soft_time_limit": task.soft_time_limit or app.conf.task_soft_time_limit,
        "time_limit": task.time_limit or app.conf.task_time_limit,
        "rate_limit": task.rate_limit if isinstance(task.rate_limit, str) else None,
        "ignore_result": True if task.ignore_result else None,
    }
    return {key: value for key, value in found.items() if value is not None}


# -- TOML ------------------------------------------------------------------------------------------------------------


def write(entries: Iterable[Entry], out: TextIO) -> None:
    for one in entries:
        for note in one.notes:
            out.write(f"# {one.fields['name']}: {' '.join(note.split())}\n")
        out.write("[[tasks]]\n")
        for key, value in one.fields.items():
            out.write(f"{key} = {toml(value)}\n")
        out.write("\n")


def toml(value: Any) -> str:
    """A value on one line. TOML has no null: a member that is null is left out."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        members = ", ".join(f"{key(name)} = {toml(one)}" for name, one in value.items() if one is not None)
        return f"{{ {members} }}" if members else "{}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml(one) for one in value if one is not None) + "]"
    if isinstance(value, (int, float)):
        return repr(value)
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser("python -m taskgate.export", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("app", help="the application, as celery -A takes it: shop.celery or shop.celery:app")
    parser.add_argument("--prefix", default="/tasks", help="where the endpoints stand (default /tasks)")
    parser.add_argument("--without-endpoints", action="store_true", help="only names, words and settings")
    parser.add_argument("--strict", action="store_true", help="calls by name are judged by the entry too")
    given = parser.parse_args(arguments)
    app = load(given.app)
    prefix = None if given.without_endpoints else given.prefix
    sys.stdout.write(f"# The tasks of {given.app}, written by `python -m taskgate.export {given.app}`.\n\n")
    write((entry(app, name, task, prefix, not given.strict) for name, task in tasks(app).items()), sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
