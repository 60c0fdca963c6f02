"""Tasks that end in ways that a worker does not tell, or never end: what a gateway must not take for a loss.

Every execution is written into `DEMO_JOURNAL`, so that a test can count what the gateway cannot.
"""
import os
import signal
import threading
import time

from celery import chain, chord
from celery.exceptions import Ignore
from celery.signals import worker_init

from app import add, app, await_file, identity, journal, work, xsum


MAIN = None


@worker_init.connect
def remember_main(**_):
    """Pool processes are forked from it."""
    global MAIN
    MAIN = os.getpid()


@app.task(name="demo.end_ignored", bind=True)
def end_ignored(self):
    """Ends without a word to anybody."""
    journal("start", self.request)
    raise Ignore()


@app.task(name="demo.end_ignored_late", bind=True, acks_late=True)
def end_ignored_late(self):
    journal("start", self.request)
    raise Ignore()


@app.task(name="demo.end_by_hand", bind=True)
def end_by_hand(self, message="no such page"):
    """Writes its own failure and no exception."""
    journal("start", self.request)
    self.update_state(state="FAILURE", meta={"message": message})
    raise Ignore()


class Unpickleable(Exception):
    """Cannot leave its process: Celery puts a stand-in into the record."""

    def __init__(self, page):
        super().__init__(page)
        self.lock = threading.Lock()


@app.task(name="demo.end_unpickleable", bind=True)
def end_unpickleable(self):
    journal("start", self.request)
    raise Unpickleable("no such page")


@app.task(name="demo.end_with_odd_arguments", bind=True)
def end_with_odd_arguments(self):
    """JSON has no sets."""
    journal("start", self.request)
    raise ValueError("bad", {1})


@app.task(name="demo.slow_step", bind=True)
def slow_step(self, path, value):
    journal("start", self.request)
    await_file(path)
    return value


@app.task(name="demo.replace_chain", bind=True)
def replace_chain(self, path, value=1):
    """What takes its place begins with a step that takes its time."""
    journal("start", self.request)
    return self.replace(chain(slow_step.s(path, value), add.s(1)))


@app.task(name="demo.replace_brief", bind=True)
def replace_brief(self, seconds=0.3):
    """The step that has its id writes nothing down: of its executions there is one."""
    journal("start", self.request)
    return self.replace(chain(work.si(seconds=seconds), identity.si(seconds)))


@app.task(name="demo.replace_chord", bind=True)
def replace_chord(self, path, value=1):
    journal("start", self.request)
    return self.replace(chord([slow_step.s(path, value), add.s(1, 1)], xsum.s()))


@app.task(name="demo.poison", bind=True, acks_late=True, reject_on_worker_lost=True)
def poison(self, seconds=0.2):
    """Kills its process at every delivery."""
    journal("start", self.request)
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="demo.crash_loop", bind=True, acks_late=True)
def crash_loop(self):
    """Kills the whole worker at every delivery, whatever its pool: started again, it takes the same message."""
    journal("start", self.request)
    os.kill(MAIN, signal.SIGKILL)
    time.sleep(60)


@app.task(name="demo.unrecorded", bind=True, ignore_result=True)
def unrecorded(self, seconds=0):
    """Stores no result: without events nobody hears of it."""
    journal("start", self.request)
    time.sleep(seconds)
