"""The Celery application that the tests run as the real peer.

    CELERY_BROKER_URL=… CELERY_RESULT_BACKEND=… celery -A app worker -P prefork -c 2

It has the example's tasks under their own names and more of them, `demo.*`, for every behaviour that a gateway must
cope with. `DEMO_CONF` (JSON) is applied last, so a test can run a worker with any setting. With `DEMO_LOG_LEVEL` set
to DEBUG the main process logs that a child began a task.
"""
import ctypes
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "celery-python"))

from celery.exceptions import Ignore, Reject  # noqa: E402
from celery.signals import worker_process_init  # noqa: E402
from celery.worker import request  # noqa: E402
from tasks import app  # noqa: E402

logging.getLogger("celery").setLevel(os.environ.get("DEMO_LOG_LEVEL", "NOTSET"))
request.__optimize__()  # It looked at the level when it was imported.

app.conf.update(json.loads(os.environ.get("DEMO_CONF", "{}")))


@worker_process_init.connect
def die_with_the_worker(**_):
    """No pool process survives a worker that was killed: PR_SET_PDEATHSIG."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Flaky(Exception):
    """Worth another try."""


# -- plain work ---------------------------------------------------------------

@app.task(name="demo.add")
def add(x, y):
    return x + y


if os.environ.get("DEMO_TELLS_TYPES"):
    import taskgate

    taskgate.tell_types()


@app.task(name="hinted.scale")
def scale(x: int, label: "str | None" = None, factor: float = 2.0):
    """Its hints are told to whoever asks for registered tasks."""
    return x * factor


@app.task(name="hinted.other")
def other(count: int):
    return count


if os.environ.get("DEMO_NEXT_VERSION"):

    @app.task(name="hinted.price")
    def price(order, region, note=None):
        """The next version of the application has renamed an argument."""
        return f"{order} in {region}"

else:

    @app.task(name="hinted.price")
    def price(order, zone, note=None):
        return f"{order} in {zone}"


@app.task(name="demo.mul")
def mul(x, y):
    return x * y


@app.task(name="demo.xsum")
def xsum(numbers):
    return sum(numbers)


@app.task(name="demo.tsum")
def tsum(*numbers):
    return sum(numbers)


@app.task(name="demo.echo")
def echo(*args, **kwargs):
    return {"args": list(args), "kwargs": kwargs}


@app.task(name="demo.identity")
def identity(value):
    return value


@app.task(name="demo.null")
def null(*_):
    return None


@app.task(name="demo.list")
def list_(n=3):
    return list(range(n))


@app.task(name="demo.unicode")
def unicode():
    return "héllo ☃ 안녕하세요 \U0001f680 \u0000 \u2028"


@app.task(name="demo.big")
def big(n):
    """A text of `n` bytes."""
    return "x" * n


@app.task(name="demo.sleep")
def sleep(seconds, value=None):
    time.sleep(seconds)
    return value


def await_file(path, every=0.02):
    """The test says when: a task that runs for some seconds is either over before a busy machine has looked, or too long."""
    until = time.monotonic() + 600
    while not os.path.exists(path):
        if time.monotonic() > until:
            raise TimeoutError(path)
        time.sleep(every)


@app.task(name="demo.until")
def until(path, value=None, every=0.02):
    """Runs until the file is there; hundreds at once should look less often."""
    await_file(path, every)
    return value


@app.task(name="demo.needs_file")
def needs_file(path, value=None):
    """Fails until the file is there."""
    if not os.path.exists(path):
        raise FileNotFoundError(path)
    return value


@app.task(name="demo.until_late", acks_late=True)
def until_late(path, value=None):
    """As `until`, and its message is reserved as long."""
    await_file(path)
    return value


@app.task(name="demo.ignore", ignore_result=True)
def ignore(value=None):
    return value


@app.task(name="demo.ignore_fail", ignore_result=True)
def ignore_fail():
    raise ValueError("ignored, but failing")


@app.task(name="demo.request_info", bind=True)
def request_info(self, *args, **kwargs):
    names = ("id", "task", "retries", "args", "kwargs", "group", "group_index", "root_id", "parent_id", "eta", "expires",
             "timelimit", "delivery_info", "ignore_result", "headers", "origin", "hostname", "reply_to", "stamps")
    return {name: getattr(self.request, name, None) for name in names}


@app.task(name="demo.headers", bind=True)
def headers(self):
    """The custom headers of the message."""
    return dict(self.request.headers or {})


@app.task(name="demo.etl_extract")
def etl_extract(source, rows=3):
    return [{"source": source, "row": row} for row in range(rows)]


@app.task(name="demo.etl_transform")
def etl_transform(rows):
    return [{**row, "value": row["row"] * 10} for row in rows]


@app.task(name="demo.etl_load")
def etl_load(rows):
    return {"loaded": len(rows), "sum": sum(row["value"] for row in rows)}


@app.task(name="demo.limited", rate_limit="2/s")
def limited(n):
    return n


# -- states ---------------------------------------------------------------------

@app.task(name="demo.progress", bind=True)
def progress(self, steps=3, delay=0.05):
    for step in range(1, steps + 1):
        self.update_state(state="PROGRESS", meta={"progress": step, "total": steps, "message": f"step {step}"})
        time.sleep(delay)
    return {"steps": steps}


@app.task(name="demo.steady", bind=True)
def steady(self, steps=3, delay=0.05):
    """As `progress`, but goes on when Redis is away and an update is lost."""
    for step in range(1, steps + 1):
        try:
            self.update_state(state="PROGRESS", meta={"progress": step, "total": steps})
        except self.backend.connection_errors:
            pass
        time.sleep(delay)
    return {"steps": steps}


@app.task(name="demo.progress_at", bind=True)
def progress_at(self, steps=3, delay=0.05):
    """As `progress`, with the worker's clock in it: how late a watcher is can be read off."""
    for step in range(1, steps + 1):
        self.update_state(state="PROGRESS", meta={"progress": step, "total": steps, "sent_at": time.time()})
        time.sleep(delay)
    return {"steps": steps}


@app.task(name="demo.progress_until", bind=True)
def progress_until(self, path, value=None, delay=0.1):
    """As `progress`, until the file is there, with the worker's clock in it: how late a watcher is can be read off."""
    step = 0
    while not os.path.exists(path) and step < 6_000:
        step += 1
        self.update_state(state="PROGRESS", meta={"progress": step, "total": 6_000, "sent_at": time.time()})
        time.sleep(delay)
    return value


@app.task(name="demo.flood", bind=True)
def flood(self, steps, size):
    """As many updates as it can make, each with a text of `size` bytes."""
    for step in range(1, steps + 1):
        self.update_state(state="PROGRESS", meta={"progress": step, "text": "x" * size})
    return steps


@app.task(name="demo.custom_state", bind=True)
def custom_state(self, name, meta=None, seconds=0.2):
    self.update_state(state=name, meta=meta)
    time.sleep(seconds)
    return name


@app.task(name="demo.raise_ignore", bind=True)
def raise_ignore(self, name="MINE", meta=None):
    """Ends without a result of Celery's: the last word is the task's own."""
    self.update_state(state=name, meta=meta or {"kept": True})
    raise Ignore()


# -- failure ---------------------------------------------------------------------

@app.task(name="demo.fail")
def fail(type="ValueError", message="boom"):
    kinds = {"ValueError": ValueError, "KeyError": KeyError, "Flaky": Flaky, "RuntimeError": RuntimeError}
    raise kinds[type](message)


@app.task(name="demo.fail_custom_meta", bind=True)
def fail_custom_meta(self, meta=None):
    """A failure record written by the task itself: it has no `exc_type`."""
    self.update_state(state="FAILURE", meta=meta or {"code": 7, "why": "by hand"})
    raise Ignore()


@app.task(name="demo.unserialisable")
def unserialisable():
    return object()


@app.task(name="demo.kill_self")
def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="demo.reject", bind=True, acks_late=True)
def reject(self, requeue=False):
    if requeue and self.request.delivery_info.get("redelivered"):
        return "second delivery"
    raise Reject("no thanks", requeue=requeue)


# -- retry ------------------------------------------------------------------------

@app.task(name="demo.retry", bind=True, max_retries=None)
def retry(self, times=1, delay=0.2):
    """Fails `times` times, then returns the number of the attempt that succeeded."""
    if self.request.retries < times:
        raise self.retry(exc=Flaky(f"attempt {self.request.retries}"), countdown=delay)
    return self.request.retries


@app.task(name="demo.retry_exhausted", bind=True, max_retries=1)
def retry_exhausted(self, delay=0.2):
    raise self.retry(exc=Flaky(f"attempt {self.request.retries}"), countdown=delay)


@app.task(name="demo.retry_backoff", bind=True, autoretry_for=(Flaky,), retry_backoff=1, retry_backoff_max=2,
          retry_jitter=False, max_retries=3)
def retry_backoff(self, times=1):
    if self.request.retries < times:
        raise Flaky(f"attempt {self.request.retries}")
    return self.request.retries


# -- limits and acknowledgement -----------------------------------------------------

@app.task(name="demo.soft_limit", soft_time_limit=1)
def soft_limit(seconds=5):
    time.sleep(seconds)


@app.task(name="demo.hard_limit", time_limit=1)
def hard_limit(seconds=5):
    time.sleep(seconds)


@app.task(name="demo.late", acks_late=True)
def late(seconds=0, value=None):
    time.sleep(seconds)
    return value


@app.task(name="demo.late_reject", bind=True, acks_late=True, reject_on_worker_lost=True)
def late_reject(self, seconds=0):
    """Kills its own process at the first delivery; says so at the second."""
    time.sleep(seconds)
    if not self.request.delivery_info.get("redelivered"):
        os.kill(os.getpid(), signal.SIGKILL)
    return {"redelivered": True}


@app.task(name="demo.late_first", bind=True, acks_late=True)
def late_first(self, seconds, value=None):
    """Takes its time at the first delivery, and none at a later one."""
    if not self.request.delivery_info.get("redelivered"):
        time.sleep(seconds)
    return value


# -- work whose every execution is written down, by somebody who is not the gateway ---------------

def journal(word, request):
    """One line, in one write: what happens to which task, and who says so when."""
    path = os.environ.get("DEMO_JOURNAL")
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{word} {request.id} {request.hostname}/{os.getpid()} {time.time():.3f}\n")


@app.task(name="demo.work", bind=True)
def work(self, *_, seconds=0):
    journal("start", self.request)
    time.sleep(seconds)
    journal("end", self.request)


@app.task(name="demo.work_late", bind=True, acks_late=True)
def work_late(self, *_, seconds=0):
    journal("start", self.request)
    time.sleep(seconds)
    journal("end", self.request)


# -- tasks that send tasks ------------------------------------------------------------

@app.task(name="demo.children")
def children(n=2):
    """Spawns `n` tasks and returns their ids."""
    return [add.delay(i, i).id for i in range(n)]


@app.task(name="demo.child_later")
def child_later(countdown, value=None):
    """Sends a task for later, which a worker keeps until then, and returns its id."""
    return identity.apply_async((value,), countdown=countdown).id


@app.task(name="demo.replace", bind=True)
def replace(self, x, y):
    return self.replace(add.s(x, y))


@app.task(name="demo.on_error")
def on_error(task_id):
    """An errback with one argument: sent as a message with the failed task's id."""
    return task_id


# Imported last: its tasks are made of those above.
import endings  # noqa: E402,F401
