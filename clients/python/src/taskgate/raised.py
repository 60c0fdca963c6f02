"""A task's error as the exception that Celery's own result backend would give.

The ledger keeps an exception's class name, its text and its traceback. The module is in the traceback's last line, and the arguments
can be read out of the text for the classes whose text is not their only argument.
"""
from __future__ import annotations

import ast
import builtins
import re
from typing import Any, Dict, List, Mapping, Optional

_ERRNO = re.compile(r"\[Errno (\d+)\] (.*)", re.DOTALL)


def record(body: Mapping[str, Any]) -> Optional[Dict[str, Any]]:
    """Celery's record of an exception: `exc_type`, `exc_message` (the arguments), `exc_module`."""
    error = body.get("error")
    if not error:
        return None
    kind, text = str(error.get("type")), str(error.get("message") or "")
    return {"exc_type": kind, "exc_message": arguments(kind, text), "exc_module": module(kind, body.get("traceback"))}


def module(kind: str, traceback: Optional[str]) -> Optional[str]:
    """Where the class is from."""
    for line in reversed((traceback or "").splitlines()):
        name = line.split(":", 1)[0].strip()
        if not line.startswith((" ", "\t")) and (name == kind or name.endswith(f".{kind}")):
            found = name[: -len(kind)].rstrip(".")
            if found:
                return found
            break
    if isinstance(getattr(builtins, kind, None), type):
        return "builtins"
    return "celery.exceptions"


def arguments(kind: str, text: str) -> List[Any]:
    """What the exception was made with."""
    cls = getattr(builtins, kind, None)
    errno = _ERRNO.fullmatch(text)
    if errno and isinstance(cls, type) and issubclass(cls, OSError):
        return [int(errno[1]), errno[2]]
    if kind in ("KeyError", "NotRegistered") or text.startswith("("):
        value = _literal(text)
        if isinstance(value, tuple):
            return list(value)
        if value is not None and not text.startswith("("):
            return [value]
    return [text] if text else []


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
