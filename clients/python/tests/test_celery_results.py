"""`AsyncResult` on the gateway: states, exceptions, values with Celery's own types, revocation."""
from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import app as demo
import celery.exceptions
import pytest
from celery.result import AsyncResult
from conftest import PATIENCE


def test_a_result_is_read_by_its_id_alone(installed):
    task_id = demo.add.delay(2, 3).id
    again = AsyncResult(task_id, app=installed)
    assert again.get(timeout=PATIENCE) == 5
    assert (again.state, again.successful(), again.name) == ("SUCCESS", True, "demo.add")
    assert again.date_done is not None


def test_an_exception_is_of_its_own_class(installed):
    result = demo.fail.delay("KeyError", "gone")
    with pytest.raises(KeyError) as caught:
        result.get(timeout=PATIENCE)
    assert caught.value.args == ("gone",)
    assert result.state == "FAILURE" and "Traceback" in result.traceback
    assert isinstance(result.get(propagate=False), KeyError)


def test_times_and_decimals_go_and_come_back_as_celery_does_it(installed):
    at = datetime(2026, 1, 2, 3, 4)
    assert demo.identity.delay(at).get(timeout=PATIENCE) == at
    assert demo.identity.delay({"price": Decimal("1.50")}).get(timeout=PATIENCE) == {"price": Decimal("1.50")}


def test_an_argument_that_json_cannot_carry_is_named(installed):
    import taskgate

    with pytest.raises(taskgate.ArgumentError, match=r"args\[0\]\.a\[1\]"):
        demo.identity.delay({"a": [1, object()]})


def test_a_task_that_waits_is_pending_and_can_be_revoked(installed):
    result = demo.add.apply_async((1, 2), countdown=600)
    assert result.state == "PENDING" and not result.ready()
    with pytest.raises(celery.exceptions.TimeoutError):
        result.get(timeout=0.2)
    result.revoke()
    assert result.state == "REVOKED"
    with pytest.raises(celery.exceptions.TaskRevokedError):
        result.get(timeout=PATIENCE)


def test_a_group_is_revoked_as_a_whole(installed):
    from celery import group

    result = group(demo.add.s(1, 1), demo.add.s(2, 2)).apply_async(countdown=600)
    result.revoke()
    assert [member.state for member in result] == ["REVOKED", "REVOKED"]


def test_a_state_of_the_task_s_own_has_its_meta(installed, tmp_path):
    stop = tmp_path / "stop"
    result = demo.progress_until.delay(str(stop))
    client = installed._taskgate.client
    next(event for event in client.stream(result.id, timeout=PATIENCE) if event.kind == "progress")
    assert result.state == "PROGRESS" and result.info["total"] == 6_000
    stop.touch()
    assert result.get(timeout=PATIENCE) is None


def test_every_state_is_told_to_who_asks_for_it(installed):
    seen = []
    result = demo.progress.delay(3)
    assert result.get(timeout=PATIENCE, on_message=seen.append) == {"steps": 3}
    assert [meta["result"]["progress"] for meta in seen if meta["status"] == "PROGRESS"] == [1, 2, 3]
    assert (seen[-1]["status"], seen[-1]["result"]) == ("SUCCESS", {"steps": 3})
    with pytest.raises(celery.exceptions.TimeoutError):
        demo.add.apply_async((1, 2), countdown=600).get(timeout=0.2, on_message=seen.append)


def test_headers_that_tracing_adds_arrive_at_the_worker(installed):
    from celery.signals import after_task_publish, before_task_publish

    published = []

    def trace(headers, **_):
        headers["traceline"] = f"{headers['task']}/{headers['id']}"

    def note(sender, headers, **_):
        published.append((sender, headers["id"]))

    before_task_publish.connect(trace)
    after_task_publish.connect(note)
    try:
        result = demo.headers.delay()
        assert result.get(timeout=PATIENCE)["traceline"] == f"demo.headers/{result.id}"
        assert published == [("demo.headers", result.id)]
    finally:
        before_task_publish.disconnect(trace)
        after_task_publish.disconnect(note)


def test_an_ignored_result_is_not_waited_for(installed):
    assert demo.ignore.delay(1).get(timeout=PATIENCE) is None


def test_children_of_a_task_are_its_children(installed):
    result = demo.children.delay(2)
    ids = result.get(timeout=PATIENCE)
    assert [child.id for child in result.children] == ids


def test_an_id_that_nobody_knows_is_pending(installed):
    assert AsyncResult("0192f0c1-6c1e-7d3e-9f2a-3b8f0a5d1c42", app=installed).state == "PENDING"


def test_labels_are_given_with_the_call(installed):
    result = demo.add.apply_async((1, 2), taskgate={"labels": {"team": "ops"}})
    assert installed._taskgate.client.task(result.id)["labels"] == {"team": "ops"}


def test_a_call_that_does_not_fit_the_task_is_a_type_error(installed):
    from celery import chain

    with pytest.raises(TypeError):
        demo.add.delay(1)
    with pytest.raises(TypeError):
        chain(demo.add.s(1), demo.mul.s(2))()
