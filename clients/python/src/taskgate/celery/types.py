"""Lets workers tell the type hints of their tasks to whoever asks for registered tasks, so that the gateway can learn them.

Celery 5.4 tells `__annotations__`; in newer versions attributes that begin with an underscore stay in the worker. `tell_types()` gives every task
the attribute `taskgate_hints`, which Celery writes as it writes any other. Nothing else of a task or a worker changes.
"""
from __future__ import annotations

from typing import Any, Dict, Optional

from celery.app.task import Task

#: The attribute that the gateway asks for.
PLACE = "taskgate_hints"


def tell_types() -> None:
    """From now on a worker of this process tells the hints of all its tasks. May be called again."""
    setattr(Task, PLACE, property(hints))


def hints(task: Any) -> Optional[Dict[str, Any]]:
    """The annotations of the task's function; None without one."""
    return dict(getattr(task.run, "__annotations__", None) or {}) or None
