"""What tasks print, in one process: each task's lines are its own."""
from __future__ import annotations

import sys
import threading

from conftest import PATIENCE

from taskgate import logs
from taskgate.outbox import Outbox, Source


class Kept:
    """An outbox that keeps."""

    def __init__(self) -> None:
        self.events: list = []
        self.box = Outbox(lambda source, event: self.events.append(event))

    def lines(self, task):
        assert self.box.flush(PATIENCE)
        return [(line["level"], line["text"]) for event in self.events if event["uuid"] == task for line in event["lines"]]


def test_tasks_in_threads_are_told_apart(monkeypatch, capsys):
    local, kept, both = threading.local(), Kept(), threading.Barrier(2)
    monkeypatch.setattr(logs, "running", lambda: local.source)

    def run(task):
        local.source = Source(task, 0, "w@x")
        both.wait(PATIENCE)
        with logs.capture_output(kept.box):
            both.wait(PATIENCE)
            for number in range(50):
                print(f"{task} {number}")
            print(f"{task} failed", file=sys.stderr)
            if task == "a":
                both.wait(PATIENCE)
        if task == "b":
            both.wait(PATIENCE)

    threads = [threading.Thread(target=run, args=(task,)) for task in "ab"]
    before = sys.stdout, sys.stderr
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for task in "ab":
        assert kept.lines(task) == [*(("INFO", f"{task} {number}") for number in range(50)), ("ERROR", f"{task} failed")]
    assert (sys.stdout, sys.stderr) == before, "the streams are what they were"
    assert "a 49" in capsys.readouterr().out, "it is printed as before too"


def test_outside_of_a_task_nothing_is_captured(monkeypatch, capsys):
    kept = Kept()
    monkeypatch.setattr(logs, "running", lambda: None)
    with logs.capture_output(kept.box):
        print("hello")
    assert kept.events == [] and capsys.readouterr().out == "hello\n"


def test_a_line_without_an_end_is_bounded(monkeypatch, capsys):
    kept = Kept()
    monkeypatch.setattr(logs, "running", lambda: Source("a", 0, "w@x"))
    with logs.capture_output(kept.box):
        for _ in range(20):
            print("x" * 1_000, end="")
    pieces = [text for _, text in kept.lines("a")]
    assert len(pieces) == 3 and all(len(text) < 8_300 for text in pieces)
    assert pieces[0].endswith("… (808 characters more)")
