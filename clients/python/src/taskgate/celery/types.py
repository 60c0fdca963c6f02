"""Lets workers tell the signatures of their tasks to whoever asks for registered tasks, so that the gateway can learn them.

Celery 5.4 tells `__annotations__`; in newer versions attributes that begin with an underscore stay in the worker. No version tells which
arguments a task requires. `tell_types()` gives every task the attributes `taskgate_hints` and `taskgate_signature`, which Celery writes as it
writes any other. Nothing else of a task or a worker changes.
"""
from __future__ import annotations

import inspect
from typing import Any, Dict, List, Optional

from celery.app.task import Task

#: The attribute with the type hints.
PLACE = "taskgate_hints"
#: The attribute with the parameters.
SIGNATURE = "taskgate_signature"


def tell_types() -> None:
    """From now on a worker of this process tells the signatures of all its tasks. May be called again."""
    setattr(Task, PLACE, property(hints))
    setattr(Task, SIGNATURE, property(signature))


def hints(task: Any) -> Optional[Dict[str, Any]]:
    """The annotations of the task's function; None without one."""
    return dict(getattr(task.run, "__annotations__", None) or {}) or None


def signature(task: Any) -> Optional[str]:
    """The parameters as `(order, /, label=?, *rest, region, **more)`: values of defaults stay in the worker.

    Read as Celery reads them before it sends a call: without following `functools.wraps`, because a decorator may add arguments. None for a
    task with `typing = False`, whose calls Celery does not compare either.
    """
    if not task.typing:
        return None
    try:
        parameters = list(inspect.signature(task.run, follow_wrapped=False).parameters.values())
    except (TypeError, ValueError):
        return None
    return f"({', '.join(_listed(parameters))})"


def _listed(parameters: List[inspect.Parameter]) -> List[str]:
    found: List[str] = []
    by_position, is_marked = False, False
    for one in parameters:
        if by_position and one.kind is not one.POSITIONAL_ONLY:
            found.append("/")
        by_position = one.kind is one.POSITIONAL_ONLY
        if one.kind is one.KEYWORD_ONLY and not is_marked:
            found.append("*")
        is_marked = is_marked or one.kind in (one.VAR_POSITIONAL, one.KEYWORD_ONLY)
        before = "*" if one.kind is one.VAR_POSITIONAL else "**" if one.kind is one.VAR_KEYWORD else ""
        found.append(f"{before}{one.name}{'' if one.default is one.empty else '=?'}")
    return [*found, "/"] if by_position else found
