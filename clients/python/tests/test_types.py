"""Workers tell the hints of their tasks to whoever asks for registered tasks, also where Celery keeps `__annotations__` to itself."""
from __future__ import annotations

from typing import Optional

from celery import Celery, Task
from celery.worker.control import registered

import taskgate

app = Celery("typed", set_as_current=False)


class Own(Task):
    """An application's own base class."""


@app.task(name="typed.scale", base=Own)
def scale(x: int, label: Optional[str] = None) -> int:
    return x


@app.task(name="typed.bare")
def bare(x):
    return x


class State:
    """What Celery hands to a command."""

    def __init__(self) -> None:
        self.app = app


def told():
    return [line for line in registered(State(), ["taskgate_hints"]) if line.startswith("typed.")]


def test_hints_are_told_and_a_task_without_hints_stays_as_it_was():
    taskgate.tell_types()
    taskgate.tell_types()
    assert told() == ["typed.bare", "typed.scale [taskgate_hints={'x': 'int', 'label': 'Optional[str]', 'return': 'int'}]"]


def test_an_installed_application_tells_them_too():
    taskgate.install(app, url="http://127.0.0.1:1")
    try:
        assert "taskgate_hints=" in told()[1]
    finally:
        from taskgate.celery import uninstall

        uninstall(app)
