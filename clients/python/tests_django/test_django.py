"""Django's Tasks through the gateway: what its documentation promises of a backend."""
from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest
from stack import until


@pytest.fixture
def tasks(stack):
    from shop import tasks

    return tasks


def finished(result):
    def look():
        result.refresh()
        return result.is_finished

    until(f"{result.id} is finished", look)
    return result


def test_a_task_is_enqueued_and_its_result_is_read(tasks):
    result = tasks.add.enqueue(3, y=4)
    assert result.status == "READY" and result.enqueued_at is not None and not result.is_finished
    with pytest.raises(ValueError):
        _ = result.return_value
    assert finished(result).return_value == 7
    assert (result.status, result.attempts, result.errors) == ("SUCCESSFUL", 1, [])
    assert result.started_at is not None and result.finished_at is not None


def test_a_result_is_found_by_its_id(tasks):
    result = finished(tasks.add.enqueue(1))
    again = tasks.add.get_result(result.id)
    assert (again.return_value, again.args, again.kwargs, again.task) == (3, [1], {}, tasks.add)


def test_a_result_of_another_task_is_refused(tasks):
    result = tasks.add.enqueue(1)
    with pytest.raises(Exception, match="does not match"):
        tasks.send.get_result(result.id)


@pytest.mark.parametrize("unknown", ["123", "0192f0c1-6c1e-7d3e-9f2a-3b8f0a5d1c42", "../x"])
def test_an_unknown_id_does_not_exist(tasks, unknown):
    from taskgate.django.api import TaskResultDoesNotExist

    with pytest.raises(TaskResultDoesNotExist):
        tasks.add.get_result(unknown)


def test_a_task_that_raises_has_its_error(tasks):
    result = finished(tasks.fail.enqueue("tea"))
    assert result.status == "FAILED"
    (error,) = result.errors
    assert error.exception_class is tasks.OutOfStock and "OutOfStock: tea" in error.traceback
    with pytest.raises(ValueError):
        _ = result.return_value


def test_a_task_may_ask_for_its_context(tasks):
    result = finished(tasks.attempt.enqueue())
    assert result.return_value == {"attempt": 1, "id": result.id}


def test_coroutines_run_and_can_be_enqueued_from_coroutines(tasks):
    async def main():
        result = await tasks.later.aenqueue("x")
        return await tasks.later.aget_result(result.id)

    result = asyncio.run(main())
    assert finished(result).return_value == ["x"]


def test_queue_and_priority_reach_the_broker(tasks, stack):
    from taskgate import Client

    result = tasks.send.enqueue("a@example.org")
    assert finished(result).return_value == "sent to a@example.org"
    with Client(stack.url) as client:
        task = client.task(result.id)
    assert (task["queue"], task["priority"]) == ("mail", 2)


def test_priorities_keep_their_order(stack):
    from taskgate.django.api import Task  # noqa: F401 - the interface is there
    from taskgate.django import TaskgateBackend

    redis = TaskgateBackend("a", {"OPTIONS": {"URL": stack.url}})
    rabbit = TaskgateBackend("b", {"OPTIONS": {"URL": stack.url, "FIRST_PRIORITY": 9}})
    asked = range(-100, 101)
    assert [redis.priority(value) for value in asked] == sorted((redis.priority(value) for value in asked), reverse=True)
    assert (redis.priority(100), redis.priority(-100)) == (0, 9)
    assert (rabbit.priority(100), rabbit.priority(-100)) == (9, 0)
    with pytest.raises(ValueError, match="FIRST_PRIORITY"):
        TaskgateBackend("c", {"OPTIONS": {"FIRST_PRIORITY": 5}})


def test_a_task_waits_for_its_time(tasks):
    from django.utils import timezone

    held = tasks.add.using(run_after=timezone.now() + timedelta(hours=1)).enqueue(1)
    held.refresh()
    assert held.status == "READY" and held.started_at is None
    soon = tasks.add.using(run_after=timezone.now() + timedelta(seconds=0.2)).enqueue(1)
    assert finished(soon).return_value == 3


def test_a_naive_time_and_a_strange_queue_are_refused(tasks):
    with pytest.raises(Exception, match="aware"):
        tasks.add.using(run_after=datetime(2030, 1, 1)).enqueue(1)
    with pytest.raises(Exception, match="not valid"):
        tasks.add.using(queue_name="nowhere").enqueue(1)


def test_arguments_that_json_cannot_carry_are_refused(tasks):
    with pytest.raises(TypeError):
        tasks.add.enqueue(object())


def test_a_running_task_is_running(tasks, tmp_path):
    result = tasks.until.enqueue(str(tmp_path / "stop"))

    def is_running():
        result.refresh()
        return result.status == "RUNNING"

    until("it runs", is_running)
    assert result.started_at is not None and result.worker_ids == ["w@own"]
    (tmp_path / "stop").touch()
    assert finished(result).return_value is None


def test_enqueueing_is_signalled(tasks):
    from taskgate.django.api import task_enqueued

    seen = []
    task_enqueued.connect(lambda task_result, **_: seen.append(task_result.id), weak=False, dispatch_uid="tests")
    result = tasks.add.enqueue(1)
    assert result.id in seen
    task_enqueued.disconnect(dispatch_uid="tests")
