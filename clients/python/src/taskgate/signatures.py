"""Calls as data: the one recursive type of the gateway's contract, and how Python values become JSON in it.

Nothing is converted silently: what JSON does not have is refused with its path. Options are the exception, because their meaning
is known: a `datetime` becomes an RFC 3339 time there and a `timedelta` its seconds.
"""
from __future__ import annotations

import json
import os
import time
import uuid
from datetime import datetime, timedelta, timezone
from typing import Any, Callable, Dict, Mapping, Optional

from .errors import ArgumentError

Json = Any
Signature = Dict[str, Any]

#: Members of a signature that are no options.
_CALL = ("task", "args", "kwargs")


def signature(task: str, *args: Any, options: Optional[Mapping[str, Any]] = None, **kwargs: Any) -> Signature:
    """A call as a signature, to be put into a chain, group or chord.

        client.submit_signature({"chain": [signature("app.add", 2, 3), signature("app.mul", 10)]})
    """
    call: Signature = {"task": task}
    if args:
        call["args"] = list(args)
    if kwargs:
        call["kwargs"] = kwargs
    for name, value in (options or {}).items():
        if name in _CALL:
            raise ArgumentError(f"options.{name}", "is given as an argument of the call")
        if value is not None:
            call[name] = option(value)
    return call


def option(value: Any) -> Any:
    """An option as JSON has it."""
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value


def moment(value: datetime) -> str:
    """RFC 3339 in UTC. A time without a zone is taken as UTC, as Celery does."""
    aware = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
    return aware.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


def new_id() -> str:
    """A UUIDv7: ids that are made later sort later, which keeps the ledger's index small."""
    number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    number = number & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62
    return str(uuid.UUID(int=number))


def encode(value: Any, dumps: Callable[..., str] = json.dumps) -> bytes:
    """The value as JSON text.

    Raises ArgumentError with the path of what JSON cannot carry.
    """
    try:
        return dumps(value, allow_nan=False, separators=(",", ":")).encode("utf-8")
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        path, detail = _culprit(value, "", dumps) or ("the call", str(error))
        raise ArgumentError(path, detail) from None


def _culprit(value: Any, path: str, dumps: Callable[..., str], depth: int = 0) -> Any:
    """The path and the fault of the first part that cannot be written."""
    if depth > 200:
        return path, "is nested too deeply, or contains itself"
    if isinstance(value, Mapping):
        for name in value:
            if not (name is None or isinstance(name, (str, int, float, bool))):
                return path or "the call", f"has the key {name!r}; JSON has text as keys only"
    members: Any = ()
    if isinstance(value, Mapping):
        members = ((f"{path}.{name}" if path else str(name), member) for name, member in value.items())
    elif isinstance(value, (list, tuple)):
        members = ((f"{path}[{index}]", member) for index, member in enumerate(value))
    for where, member in members:
        found = _culprit(member, where, dumps, depth + 1)
        if found:
            return found
    if isinstance(value, (Mapping, list, tuple)):
        return None
    try:
        dumps(value, allow_nan=False)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return path, _advice(value, error)
    return None


def _advice(value: Any, error: Exception) -> str:
    if isinstance(value, float):
        return f"is {value!r}, which JSON does not have; send null or text"
    kind = type(value).__name__
    hint = {"datetime": ".isoformat()", "date": ".isoformat()", "set": "a list", "bytes": "base64 text"}.get(kind)
    if isinstance(error, TypeError):
        return f"JSON cannot carry a {kind}" + (f"; send {hint}" if hint else "")
    return f"JSON cannot carry this {kind}: {error}"
