"""The tests' application with the gateway installed and task logs attached, as a worker runs it."""
from __future__ import annotations

import logging
import os
import sys

from app import app

import taskgate
import taskgate.logs

taskgate.install(app, os.environ["TASKGATE_URL"])
taskgate.logs.attach(app, max_bytes=1 << 18)


@app.task(name="lib.talk")
def talk(lines):
    for number in range(lines):
        logging.getLogger("shop").info("line %d", number)
    return lines


@app.task(name="lib.print")
def say():
    with taskgate.capture_output():
        print("to the output")
        print("to the errors", file=sys.stderr)
        print("without an end", end="")


@app.task(name="lib.flood")
def flood(lines):
    with taskgate.capture_output():
        for _ in range(lines):
            print("y")
    return lines


@app.task(name="lib.state_of")
def state_of(task_id):
    """Inside of a task a result is read from the worker's own backend."""
    return type(app.backend).__name__
