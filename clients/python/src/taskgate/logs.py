"""A task's own log lines as worker events, so that they can be read at the gateway while it runs and afterwards.

    taskgate.logs.attach(app)              # in the worker's application: what a task logs
    with taskgate.capture_output(): …      # in a task: what it prints

A line never waits for the broker: it goes into a bounded buffer, and one thread of the process sends what is there. What does not fit
is dropped and counted, and the next event says how many. The event is `task-log`; `docs/task-logs.md` describes it for readers.
Needs Celery.
"""
from __future__ import annotations

import contextlib
import logging
import sys
import time
from contextvars import ContextVar
from typing import Any, Iterator, Optional, TextIO, cast

from .outbox import Line, Outbox, Source

__all__ = ["TaskLogHandler", "attach", "capture_output"]

#: Celery turns what is printed into records of this logger.
_REDIRECTED = "celery.redirected"
_captured: ContextVar[bool] = ContextVar("taskgate_captured", default=False)


class TaskLogHandler(logging.Handler):
    """Sends the records of a running task; everything else passes it by."""

    def __init__(self, level: int = logging.INFO, outbox: Optional[Outbox] = None) -> None:
        super().__init__(level)
        self._outbox = outbox or Outbox.of_process()

    def emit(self, record: logging.LogRecord) -> None:
        if not _is_own(record.name):
            return
        task = running()
        if task is None:
            return
        try:
            self._outbox.put(task, Line(record.created, record.levelname, self.format(record)))
        except Exception:  # noqa: BLE001 - logging's own rule: a handler never breaks the program
            self.handleError(record)

    def close(self) -> None:
        self._outbox.flush(1.0)
        super().close()


def attach(app: Any, level: int = logging.INFO) -> TaskLogHandler:
    """From the start of the worker on, sends what its tasks log. Call it beside `taskgate.install`, before the worker starts."""
    from celery import signals

    handler = TaskLogHandler(level)

    def add(logger: Optional[logging.Logger] = None, **_: Any) -> None:
        for one in {logger or logging.getLogger(), logging.getLogger("celery.task")}:
            if handler not in one.handlers and not (one.propagate and one.parent and handler in one.parent.handlers):
                one.addHandler(handler)

    signals.after_setup_logger.connect(add, weak=False)
    signals.after_setup_task_logger.connect(add, weak=False)
    signals.worker_process_shutdown.connect(lambda **_: handler.close(), weak=False)
    signals.worker_shutdown.connect(lambda **_: handler.close(), weak=False)
    return handler


@contextlib.contextmanager
def capture_output(outbox: Optional[Outbox] = None) -> Iterator[None]:
    """What the running task prints becomes its log: standard output as INFO, standard error as ERROR. It is printed as before too."""
    task = running()
    if task is None:
        yield
        return
    outbox = outbox or Outbox.of_process()
    before = sys.stdout, sys.stderr
    token = _captured.set(True)
    out, err = _Tee(before[0], task, outbox, "INFO"), _Tee(before[1], task, outbox, "ERROR")
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield
    finally:
        out.finish()
        err.finish()
        sys.stdout, sys.stderr = before
        _captured.reset(token)


def running() -> Optional[Source]:
    """The task that this thread runs."""
    from celery._state import get_current_worker_task

    task = get_current_worker_task()
    if task is None or not task.request.id:
        return None
    return Source(task.request.id, task.request.retries or 0, task.request.hostname or "", task.app)


def _is_own(logger: str) -> bool:
    """Whether a task wrote it, and not the machinery around the task."""
    if logger == _REDIRECTED:
        return not _captured.get()
    return logger == "celery.task" or logger.split(".")[0] not in ("celery", "taskgate", "kombu", "amqp")


class _Tee:
    """A text stream that passes everything on and keeps whole lines."""

    def __init__(self, stream: TextIO, task: Source, outbox: Outbox, level: str) -> None:
        self._stream, self._task, self._outbox, self._level = stream, task, outbox, level
        self._rest = ""

    def write(self, text: str) -> int:
        self._stream.write(text)
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._outbox.put(self._task, Line(time.time(), self._level, line))
        if len(self._rest) > Line.LONGEST:
            self.finish()
        return len(text)

    def finish(self) -> None:
        """A last line needs no end."""
        rest, self._rest = self._rest, ""
        if rest:
            self._outbox.put(self._task, Line(time.time(), self._level, rest))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
