"""Workers tell the hints of their tasks to whoever asks for registered tasks, also where Celery keeps `__annotations__` to itself."""
from __future__ import annotations

import functools
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


@app.task(name="typed.many", bind=True)
def many(self, a, b="secret", /, *rest, c, d=None, **more):
    return a


@app.task(name="typed.named")
def named(a, *, b):
    return a


@app.task(name="typed.placed")
def placed(a, /):
    return a


def with_connection(function):
    """Adds an argument, as applications' decorators do."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function("connection", *args, **kwargs)

    return wrapper


@app.task(name="typed.wrapped")
@with_connection
def wrapped(connection, x):
    return x


@app.task(name="typed.untold", typing=False)
def untold(x):
    return x


class State:
    """What Celery hands to a command."""

    def __init__(self) -> None:
        self.app = app


def told(*attributes):
    lines = registered(State(), list(attributes))
    return {line.partition(" ")[0]: line.partition(" ")[2] for line in lines if line.startswith("typed.")}


def test_hints_are_told_and_a_task_without_hints_stays_as_it_was():
    taskgate.tell_types()
    taskgate.tell_types()
    lines = told("taskgate_hints")
    assert lines["typed.bare"] == ""
    assert lines["typed.scale"] == "[taskgate_hints={'x': 'int', 'label': 'Optional[str]', 'return': 'int'}]"


def test_required_arguments_are_told_without_the_values_of_defaults():
    taskgate.tell_types()
    assert told("taskgate_signature") == {
        "typed.bare": "[taskgate_signature=(x)]",
        "typed.many": "[taskgate_signature=(a, b=?, /, *rest, c, d=?, **more)]",
        "typed.named": "[taskgate_signature=(a, *, b)]",
        "typed.placed": "[taskgate_signature=(a, /)]",
        "typed.scale": "[taskgate_signature=(x, label=?)]",
        "typed.untold": "",
        "typed.wrapped": "[taskgate_signature=(*args, **kwargs)]",
    }


def test_an_installed_application_tells_them_too():
    taskgate.install(app, url="http://127.0.0.1:1")
    try:
        assert told("taskgate_signature")["typed.bare"] == "[taskgate_signature=(x)]"
    finally:
        from taskgate.celery import uninstall

        uninstall(app)
