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
import threading
import time
from contextvars import ContextVar
from typing import Any, Iterator, Optional, TextIO

from .outbox import MOST_OF_ATTEMPT, Line, Outbox, Source

__all__ = ["TaskLogHandler", "attach", "capture_output"]

#: Celery turns what is printed into records of this logger.
_REDIRECTED = "celery.redirected"
_captured: ContextVar[Optional[_Capture]] = ContextVar("taskgate_captured", default=None)


class TaskLogHandler(logging.Handler):
    """Sends the records of a running task; everything else passes it by."""

    def __init__(self, level: int = logging.INFO, outbox: Optional[Outbox] = None) -> None:
        super().__init__(level)
        self._outbox = outbox or Outbox.of_process()

    def emit(self, record: logging.LogRecord) -> None:
        if not _is_own(record.name):
            return
        task = running()
        if task is None or self._outbox.has_ended(task):
            return
        try:
            self._outbox.put(task, Line(record.created, record.levelname, self.format(record)))
        except Exception:  # noqa: BLE001 - logging's own rule: a handler never breaks the program
            self.handleError(record)

    def close(self) -> None:
        self._outbox.flush(1.0)
        super().close()


def attach(app: Any, level: int = logging.INFO, max_bytes: int = MOST_OF_ATTEMPT) -> TaskLogHandler:
    """From the start of the worker on, sends what its tasks log. Call it beside `taskgate.install`, before the worker starts.

    `max_bytes` are sent of each attempt of a task, printed lines included; a last line says that there was more. The gateway's
    `logs.max_bytes` bounds what it keeps.
    """
    from celery import signals

    if max_bytes < 1:
        raise ValueError("max_bytes must be at least 1")
    Outbox.of_process().most_of_attempt = max_bytes
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
    """What the running task prints becomes its log: standard output as INFO, standard error as ERROR. It is printed as before too.

    Tasks in threads are told apart. A thread that the task itself starts is not captured.
    """
    task = running()
    if task is None:
        yield
        return
    capture = _Capture(task, outbox or Outbox.of_process())
    token = _captured.set(capture)
    _Standard.enter()
    try:
        yield
    finally:
        _Standard.leave()
        _captured.reset(token)
        capture.finish()


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
        return _captured.get() is None
    return logger == "celery.task" or logger.split(".")[0] not in ("celery", "taskgate", "kombu", "amqp")


class _Capture:
    """The lines of one task, from both streams."""

    LEVELS = {"stdout": "INFO", "stderr": "ERROR"}

    def __init__(self, task: Source, outbox: Outbox) -> None:
        self._task, self._outbox = task, outbox
        self._rest = {"stdout": "", "stderr": ""}

    def write(self, stream: str, text: str) -> None:
        if self._outbox.has_ended(self._task):
            return
        *lines, rest = (self._rest[stream] + text).split("\n")
        if len(rest) > Line.LONGEST:
            lines, rest = [*lines, rest], ""
        self._rest[stream] = rest
        for line in lines:
            self._put(stream, line)

    def finish(self) -> None:
        """A last line needs no end."""
        for stream, rest in self._rest.items():
            if rest:
                self._put(stream, rest)

    def _put(self, stream: str, line: str) -> None:
        self._outbox.put(self._task, Line(time.time(), self.LEVELS[stream], line))


class _Tee:
    """A standard stream that passes everything on, and gives it to the capture of the thread that writes."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self.name, self.stream = name, stream

    def write(self, text: str) -> int:
        self.stream.write(text)
        capture = _captured.get()
        if capture is not None:
            capture.write(self.name, text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _Standard:
    """The process has one standard output, whatever the number of captures: the first puts the tees in, the last takes them out."""

    _lock = threading.Lock()
    _captures = 0

    @classmethod
    def enter(cls) -> None:
        with cls._lock:
            cls._captures += 1
            for name in _Capture.LEVELS:
                if not isinstance(getattr(sys, name), _Tee):
                    setattr(sys, name, _Tee(name, getattr(sys, name)))

    @classmethod
    def leave(cls) -> None:
        with cls._lock:
            cls._captures -= 1
            for name in _Capture.LEVELS if cls._captures == 0 else ():
                tee = getattr(sys, name)
                if isinstance(tee, _Tee):
                    setattr(sys, name, tee.stream)
