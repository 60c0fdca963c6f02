"""The Celery application whose traffic the vectors show. `record.py` runs it, nothing else does.

Task names are `fx.*`, as in all vectors, so that one case can be compared across Celery versions.
"""
import os
import signal
import socket
import time

# Node and origin names go into the messages; a machine's own name must not end up in the repository.
socket.gethostname = lambda: "host"

from celery import Celery  # noqa: E402  (the patch above comes first)
from celery.exceptions import Ignore  # noqa: E402

URL = os.environ["FIXTURE_REDIS_URL"]

app = Celery("fixture", broker=URL, backend=URL)
app.conf.update(broker_connection_retry_on_startup=True)


class Flaky(Exception):
    """What a task that is worth retrying raises."""


@app.task(name="fx.add")
def add(x, y):
    return x + y


@app.task(name="fx.mul")
def mul(x, y):
    return x * y


@app.task(name="fx.xsum")
def xsum(numbers):
    return sum(numbers)


@app.task(name="fx.noop")
def noop(*args, **kwargs):
    return None


@app.task(name="fx.echo")
def echo(*args, **kwargs):
    return {"args": list(args), "kwargs": kwargs}


@app.task(name="fx.sleepy")
def sleepy(seconds, value=None):
    time.sleep(seconds)
    return value


@app.task(name="fx.ignored", ignore_result=True)
def ignored(x=None):
    return x


@app.task(name="fx.progress", bind=True)
def progress(self, steps=3, delay=0.1):
    for done in range(1, steps + 1):
        self.update_state(state="PROGRESS", meta={"done": done, "total": steps})
        time.sleep(delay)
    return {"done": steps, "total": steps}


@app.task(name="fx.fail")
def fail(message="boom"):
    raise ValueError(message)


@app.task(name="fx.raise_ignore", bind=True)
def raise_ignore(self):
    self.update_state(state="MINE", meta={"kept": True})
    raise Ignore()


@app.task(name="fx.retry_manual", bind=True, max_retries=2)
def retry_manual(self, succeed_on=1, countdown=1):
    """Succeeds on attempt number `succeed_on`; 0 is the first run."""
    if self.request.retries < succeed_on:
        raise self.retry(exc=Flaky(f"attempt {self.request.retries}"), countdown=countdown)
    return self.request.retries


@app.task(name="fx.slow", soft_time_limit=1, time_limit=3)
def slow(seconds=5, swallow=False):
    try:
        time.sleep(seconds)
    except Exception:
        if not swallow:
            raise
        time.sleep(seconds)
    return "finished"


@app.task(name="fx.die")
def die():
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="fx.spawn")
def spawn(n=2):
    for i in range(n):
        add.delay(i, i)
    return n


@app.task(name="fx.on_err_id")
def on_err_id(task_id):
    """An errback with one argument is sent as a message and gets the failed task's id."""
    return task_id
