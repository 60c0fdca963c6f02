"""Log lines on their way out: bounded, numbered, and never in a task's way."""
from __future__ import annotations

import threading
import time

from conftest import PATIENCE

from taskgate import outbox
from taskgate.outbox import Line, Outbox, Source

SOURCE = Source("a", 1, "w@x")


def put(box, *texts, source=SOURCE):
    for text in texts:
        box.put(source, Line(1.5, "INFO", text))


def test_lines_are_gathered_and_numbered():
    events = []
    box = Outbox(lambda source, event: events.append(event))
    put(box, "one", "two")
    assert box.flush(PATIENCE)
    put(box, "three")
    assert box.flush(PATIENCE)
    assert events[0]["uuid"] == "a" and events[0]["retries"] == 1
    numbered = [(event["seq"] + place, line["text"]) for event in events for place, line in enumerate(event["lines"])]
    assert numbered == [(0, "one"), (1, "two"), (2, "three")]
    assert events[0]["lines"][0] == {"at": 1.5, "level": "INFO", "text": "one"}


def test_what_does_not_fit_is_dropped_and_counted(monkeypatch):
    monkeypatch.setattr(outbox, "MOST_LINES", 5)
    events, gate = [], threading.Event()

    def send(source, event):
        gate.wait(PATIENCE)
        events.append(event)

    box = Outbox(send)
    put(box, *(f"{number}" for number in range(50)))
    gate.set()
    assert box.flush(PATIENCE)
    put(box, "after")
    assert box.flush(PATIENCE)
    sent, dropped = sum(len(event["lines"]) for event in events), sum(event["dropped"] for event in events)
    assert sent + dropped == 51 and dropped >= 40
    expected = 0
    for event in events:
        assert event["seq"] == expected, "the numbers have no gap but what was dropped"
        expected += len(event["lines"]) + event["dropped"]


def test_a_broker_that_is_away_loses_no_line_and_stops_no_task(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    events, failures = [], iter([OSError("away")] * 3)

    def send(source, event):
        for error in failures:
            raise error
        events.append(event)

    box = Outbox(send)
    put(box, "one", "two", "three")
    assert box.flush(PATIENCE)
    assert [line["text"] for event in events for line in event["lines"]] == ["one", "two", "three"]
    assert events[0]["seq"] == 0


def test_a_line_that_is_too_long_is_cut():
    (cut,) = [Line(0, "INFO", "x" * 10_000).cut()]
    assert cut.text.endswith("… (1808 characters more)") and len(cut.text) < 8_300


def shown(events):
    """Numbers, levels and texts; the numbers have no gap but what was dropped."""
    expected, lines = 0, []
    for event in events:
        assert event["seq"] == expected
        lines += [(expected + place, line["level"], line["text"]) for place, line in enumerate(event["lines"])]
        expected += len(event["lines"]) + event["dropped"]
    return lines


def test_at_the_bound_of_an_attempt_one_last_line_says_so():
    events = []
    box = Outbox(lambda source, event: events.append(event))
    box.most_of_attempt = 10
    put(box, "1234", "ä78", "x", "y")
    assert box.flush(PATIENCE)
    put(box, "after")
    assert box.flush(PATIENCE) and box.has_ended(SOURCE)
    *lines, last = shown(events)
    assert [text for _, _, text in lines] == ["1234", "ä78", "x"]
    assert last[:2] == (3, "NOTE") and "at most 10 bytes of an attempt" in last[2]
    put(box, "again", source=Source("a", 2, "w@x"))
    assert not box.has_ended(Source("a", 2, "w@x"))


def test_a_task_that_writes_faster_than_is_sent_has_an_end_and_its_last_line_is_sent():
    events, gate = [], threading.Event()

    def send(source, event):
        gate.wait(PATIENCE)
        events.append(event)

    box = Outbox(send)
    box.most_of_attempt = 1 << 16
    written = 0
    while not box.has_ended(SOURCE):
        put(box, "")
        written += 1
    assert written < 40_000, "empty lines count too"
    gate.set()
    assert box.flush(PATIENCE)
    lines = shown(events)
    assert lines[-1][:2] == (written - 1, "NOTE"), "it follows what was dropped"
    assert len(lines) <= outbox.MOST_LINES + outbox.EVENT_LINES + 1


def test_a_last_line_that_was_not_sent_is_sent_again(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    events, failures = [], iter([OSError("away")] * 3)

    def send(source, event):
        if event["lines"] and event["lines"][-1]["level"] == "NOTE":
            for error in failures:
                raise error
        events.append(event)

    box = Outbox(send)
    box.most_of_attempt = 3
    put(box, "one", "two")
    assert box.flush(PATIENCE)
    assert [(seq, level) for seq, level, _ in shown(events)] == [(0, "INFO"), (1, "NOTE")]
