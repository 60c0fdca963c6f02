"""Reads server-sent events, piece by piece, without I/O.

A frame counts when its empty line has arrived: what a broken connection cut off is sent again by the gateway after
`Last-Event-ID`, so every event is seen once.
"""
from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional


@dataclass(frozen=True)
class Event:
    """One event of a stream. `kind` is `snapshot`, `state`, `progress` or `end`; of a group also what the gateway names."""

    id: str
    kind: str
    data: Dict[str, Any]

    @property
    def status(self) -> Optional[str]:
        """Celery's word, or the task's own state."""
        return self.data.get("status")

    @property
    def meta(self) -> Any:
        """The object that the task gave to `update_state`."""
        return self.data.get("meta")

    @property
    def is_end(self) -> bool:
        return self.kind == "end"


class Parser:
    """Takes lines, gives events. `retry` is the pause in seconds that the gateway asks for before the next connection."""

    def __init__(self) -> None:
        self.retry = 1.0
        self._id = ""
        self._kind = ""
        self._data: List[str] = []

    def feed(self, line: str) -> Iterator[Event]:
        """One line without its end."""
        if line == "":
            yield from self._dispatch()
            return
        field, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if field == "id":
            self._id = value
        elif field == "event":
            self._kind = value
        elif field == "data":
            self._data.append(value)
        elif field == "retry" and value.isdigit():
            self.retry = int(value) / 1000

    def _dispatch(self) -> Iterator[Event]:
        data, kind = "\n".join(self._data), self._kind or "message"
        self._data, self._kind = [], ""
        if data:
            yield Event(self._id, kind, json.loads(data))
