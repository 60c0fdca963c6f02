"""When something is away: the gateway, Redis, or both for a while."""
from __future__ import annotations

import threading

import app as demo
import celery
import pytest
from celery import chord
from conftest import PATIENCE
from stack import Stack, free_port

import taskgate
from taskgate.celery import uninstall


@pytest.fixture
def nowhere():
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture
def app_of():
    """Applications of other brokers, given back to Celery at the end."""
    apps = []

    def make(broker, backend, url, **options):
        app = celery.Celery("shop", broker=broker, backend=backend, set_as_current=False)
        app.conf.broker_connection_timeout = 2
        taskgate.install(app, url, **options)
        apps.append(app)
        return app

    yield make
    for app in apps:
        uninstall(app)


def test_without_the_gateway_a_call_says_so(celery_app, nowhere):
    taskgate.install(celery_app, nowhere)
    try:
        with pytest.raises(taskgate.GatewayUnavailable, match=nowhere):
            demo.add.delay(1, 2)
        with pytest.raises(taskgate.GatewayUnavailable):
            chord([demo.add.s(1, 1)], demo.xsum.s())()
    finally:
        uninstall(celery_app)


def test_with_a_fallback_calls_are_published_directly_and_said(celery_app, nowhere, caplog):
    gateway = taskgate.install(celery_app, nowhere, fallback="broker")
    gateway.client.patience = 1.0
    try:
        assert demo.add.delay(2, 3).get(timeout=PATIENCE) == 5
        assert chord([demo.add.s(1, 1), demo.add.s(2, 2)], demo.xsum.s())().get(timeout=PATIENCE) == 6
        assert (demo.add.s(1, 1) | demo.mul.s(5)).delay().get(timeout=PATIENCE) == 10
    finally:
        uninstall(celery_app)
    warnings = [record.getMessage() for record in caplog.records if record.name == "taskgate.celery"]
    assert len(warnings) == 3 and all(nowhere in warning for warning in warnings)
    assert warnings[0].startswith("publishing demo.add to the broker")


def test_a_call_while_redis_is_down_is_accepted_and_runs_later(tmp_path, binary, app_of):
    with Stack(tmp_path, binary) as stack:
        stack.gateway()
        app = app_of(stack.broker, stack.backend, stack.url)
        result = app.send_task("demo.add", (2, 3))
        canvas = chord([app.signature("demo.add", (1, 1)), app.signature("demo.add", (2, 2))], app=app)
        total = canvas(app.signature("demo.xsum"))
        assert (result.state, total.state) == ("PENDING", "PENDING")
        stack.redis()
        stack.worker()
        assert result.get(timeout=PATIENCE) == 5
        assert total.get(timeout=PATIENCE) == 6


def test_who_waits_and_who_watches_goes_on_after_a_restart(tmp_path, binary):
    stop = tmp_path / "stop"
    with Stack(tmp_path, binary) as stack:
        stack.redis()
        stack.gateway()
        stack.worker()
        with taskgate.Client(stack.url) as client:
            task = client.submit("demo.progress_until", str(stop), "done")
            events, waited = [], []
            waiter = threading.Thread(target=lambda: waited.append(client.wait(task, PATIENCE)))
            waiter.start()
            for event in client.stream(task, last_event_id="0", timeout=PATIENCE):
                events.append(event)
                if event.kind == "progress" and event.meta["progress"] == 3:
                    stack.kill("gateway")
                    stack.gateway()
                if event.kind == "progress" and event.meta["progress"] >= 8:
                    stop.touch()
            waiter.join(PATIENCE)
        ids = [int(event.id) for event in events]
        assert ids == list(range(1, len(ids) + 1)), "every event once, in order"
        assert events[-1].is_end and waited == ["done"]
