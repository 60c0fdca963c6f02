"""The lines of running tasks on their way out: bounded, in order, sent by one thread of the process.

Invariants: `put` never blocks and never raises; a task's `seq` counts its lines without gaps, dropped ones included; lines of a task
leave in order. While the broker is away they wait, within the bound; what is too much is dropped and counted. An event whose sending
failed is sent again under the same numbers, so a reader drops what it has. The log of an attempt is bounded: a last line says that it ends,
and what follows costs almost nothing.
"""
from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Callable, ClassVar, Dict, List, Optional, Tuple

log = logging.getLogger("taskgate.logs")

#: How long lines are gathered, in seconds.
PERIOD = 0.1
#: How much waits in one process, in lines and in characters.
MOST_LINES = 2_000
MOST_TEXT = 1 << 20
#: How much is in one event.
EVENT_LINES = 200
EVENT_TEXT = 64 << 10

#: How many bytes are sent of an attempt's log, unless `attach` says otherwise, and the line that passes them: by it a gateway with the same
#: bound, which is its default, knows that there is more.
MOST_OF_ATTEMPT = 1 << 20
#: A log ends when it has written this many times as much, however much of that was dropped.
WRITTEN = 16
#: What a line counts besides its text, so that empty lines have an end too.
LINE_BYTES = 32

#: Sources whose last number is remembered.
MOST_SOURCES = 4_096


@dataclass(frozen=True)
class Line:
    """`at`: seconds since 1970."""

    LONGEST: ClassVar[int] = 8_192
    at: float
    level: str
    text: str

    def cut(self) -> Line:
        if len(self.text) <= self.LONGEST:
            return self
        return Line(self.at, self.level, f"{self.text[: self.LONGEST]} … ({len(self.text) - self.LONGEST} characters more)")


@dataclass(frozen=True)
class Source:
    """One attempt of one task, in the application that runs it."""

    uuid: str
    retries: int
    hostname: str = field(compare=False)
    app: Any = field(compare=False, repr=False, default=None)


@dataclass
class _Waiting:
    """The lines of one source. `seq` is that of the first line that waits; what was dropped came after all that wait."""

    seq: int = 0
    lines: List[Line] = field(default_factory=list)
    dropped: int = 0
    #: Bytes of the lines that were taken, and of all.
    sent: int = 0
    written: int = 0
    has_ended: bool = False
    #: The last line of a log that has ended, until it is sent. It follows what was dropped.
    last: Optional[Line] = None

    def is_open(self) -> bool:
        """Whether something of it has to be sent."""
        return bool(self.lines or self.dropped or self.last)


class Outbox:
    _process: ClassVar[Optional[Outbox]] = None
    _guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, send: Optional[Send] = None) -> None:
        self._send = send or _publish
        self.most_of_attempt = MOST_OF_ATTEMPT
        self._start()
        # A child process begins anew: the thread and the lines are the parent's.
        os.register_at_fork(after_in_child=self._start)

    def _start(self) -> None:
        self._lock, self._wake, self._empty = threading.Lock(), threading.Event(), threading.Event()
        self._sources: OrderedDict[Source, _Waiting] = OrderedDict()
        self._count = self._text = 0
        self._thread: Optional[threading.Thread] = None

    @classmethod
    def of_process(cls) -> Outbox:
        """One for all handlers."""
        with cls._guard:
            if cls._process is None:
                cls._process = cls()
                atexit.register(cls._process.flush, 1.0)
            return cls._process

    def has_ended(self, source: Source) -> bool:
        """Whether the log of this attempt takes no further line. Cheap: it saves the work of making one."""
        waiting = self._sources.get(source)
        return waiting is not None and waiting.has_ended

    def put(self, source: Source, line: Line) -> None:
        if self.has_ended(source):
            return
        line = line.cut()
        with self._lock:
            self._add(self._sources.setdefault(source, _Waiting()), line)
            self._empty.clear()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="taskgate-logs", daemon=True)
                self._thread.start()
        self._wake.set()

    def _add(self, waiting: _Waiting, line: Line) -> None:
        if waiting.has_ended:
            return
        size = len(line.text.encode("utf-8", "replace")) + 1
        waiting.written += size + LINE_BYTES
        most = self.most_of_attempt
        if waiting.sent > most or waiting.written > most * WRITTEN:
            text = f"the log ends here: the worker sends at most {most} bytes of an attempt, what follows is not kept"
            waiting.has_ended, waiting.last = True, Line(line.at, "NOTE", text)
        elif waiting.dropped or self._count >= MOST_LINES or self._text + len(line.text) > MOST_TEXT:
            waiting.dropped += 1
        else:
            waiting.lines.append(line)
            waiting.sent += size
            self._count += 1
            self._text += len(line.text)

    def flush(self, timeout: float) -> bool:
        """Waits until all is sent, at most so many seconds."""
        if self._thread is None:
            return True
        self._wake.set()
        return self._empty.wait(timeout)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while self._pass():
                pass
            time.sleep(PERIOD)

    def _pass(self) -> bool:
        """Sends what waits now; whether there was anything."""
        with self._lock:
            sources = [source for source, waiting in self._sources.items() if waiting.is_open()]
            if not sources:
                self._forget()
                self._empty.set()
        for source in sources:
            seq, lines, dropped = self._take(source)
            try:
                self._send(source, event(source, seq, lines, dropped))
            except Exception as error:  # noqa: BLE001 - whatever the transport raises, the task goes on
                self._put_back(source, seq, lines, dropped)
                log.debug("log lines of task %s were not sent: %s", source.uuid, error)
                time.sleep(1.0)
        return bool(sources)

    def _take(self, source: Source) -> Tuple[int, List[Line], int]:
        with self._lock:
            waiting = self._sources[source]
            taken: List[Line] = []
            size = 0
            while waiting.lines and len(taken) < EVENT_LINES and size < EVENT_TEXT:
                taken.append(waiting.lines.pop(0))
                size += len(taken[-1].text)
            self._count -= len(taken)
            self._text -= size
            dropped = 0 if waiting.lines else waiting.dropped
            waiting.dropped -= dropped
            if waiting.last and not waiting.lines and not dropped:
                # It was not counted as waiting: there is always room for it.
                taken.append(waiting.last)
                waiting.last = None
            seq, waiting.seq = waiting.seq, waiting.seq + len(taken) + dropped
        return seq, taken, dropped

    def _put_back(self, source: Source, seq: int, lines: List[Line], dropped: int) -> None:
        with self._lock:
            waiting = self._sources[source]
            if dropped and waiting.lines:
                # Lines came after those that were dropped; in this order they have no numbers, so they are dropped too.
                self._count -= len(waiting.lines)
                self._text -= sum(len(line.text) for line in waiting.lines)
                dropped += len(waiting.lines)
                waiting.lines = []
            waiting.seq, waiting.lines, waiting.dropped = seq, lines + waiting.lines, dropped + waiting.dropped
            self._count += len(lines)
            self._text += sum(len(line.text) for line in lines)

    def _forget(self) -> None:
        """The oldest, when there are many: a source that was silent for so many others is over."""
        while len(self._sources) > MOST_SOURCES:
            self._sources.popitem(last=False)


Send = Callable[[Source, Dict[str, Any]], None]


def event(source: Source, seq: int, lines: List[Line], dropped: int) -> Dict[str, Any]:
    """The fields of `task-log`, besides those of every event."""
    shown = [{"at": line.at, "level": line.level, "text": line.text} for line in lines]
    return {"uuid": source.uuid, "retries": source.retries, "seq": seq, "lines": shown, "dropped": dropped}


def _publish(source: Source, event: Dict[str, Any]) -> None:
    with source.app.events.default_dispatcher(hostname=source.hostname) as dispatcher:
        dispatcher.send("task-log", retry=False, **event)
