"""How long `.delay()` takes through the gateway: with Redis there, with Redis stopped, and beside Celery's own.

    PYTHONPATH=src TASKGATE_TEST_BINARY=../../target/release/taskgate python bench/delay.py [calls]

It starts a gateway (SQLite) and a Redis of its own. One caller, one call after the other.
"""
from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from celery import Celery  # noqa: E402
from stack import Stack  # noqa: E402

import taskgate  # noqa: E402


def measure(name: str, app: Celery, calls: int) -> None:
    task = app.signature("demo.add", (1, 2))
    task.delay()  # The connection is opened once.
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        task.delay()
        times.append((time.perf_counter() - start) * 1000)
    times.sort()
    p99 = times[int(len(times) * 0.99)]
    print(f"{name:32} p50 {statistics.median(times):6.2f} ms   p99 {p99:6.2f} ms   slowest {times[-1]:6.2f} ms")


def main(calls: int) -> None:
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder), os.environ["TASKGATE_TEST_BINARY"]) as stack:
        stack.redis()
        stack.gateway()
        own = Celery("own", broker=stack.broker, backend=stack.backend, set_as_current=False)
        measure("Celery's own", own, calls)
        app = Celery("shop", broker=stack.broker, backend=stack.backend, set_as_current=False)
        taskgate.install(app, stack.url)
        measure("through the gateway", app, calls)
        stack.kill("redis")
        measure("through the gateway, Redis stopped", app, calls)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
