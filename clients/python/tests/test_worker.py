"""An application with the gateway installed, as a worker runs it: what its tasks send and say."""
from __future__ import annotations

import base64
import json

import httpx
import pytest
import redis
from conftest import PATIENCE
from stack import Stack, until

import taskgate
from taskgate import signature


@pytest.fixture(scope="module")
def stack(tmp_path_factory, binary):
    with Stack(tmp_path_factory.mktemp("worker"), binary) as stack:
        stack.redis()
        stack.gateway()
        stack.worker("worker_app")
        yield stack


@pytest.fixture
def client(stack):
    with taskgate.Client(stack.url) as client:
        yield client


def test_tasks_that_a_task_sends_are_its_children(client):
    task = client.submit("demo.children", 2)
    children = client.wait(task, PATIENCE)
    for child in children:
        until("the gateway saw the child end", lambda child=child: has_ended(client, child))
    assert [client.result(child)["parent_id"] for child in children] == [task.id, task.id]


def has_ended(client, task):
    try:
        return client.result(task)["ready"]
    except taskgate.NotFound:
        return False  # Seen by its events, a moment later.


def test_retries_replacements_and_later_steps_are_celery_s_own(client):
    assert client.wait(client.submit("demo.retry", 2, 0.1), PATIENCE) == 2
    assert client.wait(client.submit("demo.replace", 2, 3), PATIENCE) == 5
    chain = {"chain": [signature("demo.add", 1, 1), signature("demo.children"), signature("demo.xsum", [4, 5], options={"immutable": True})]}
    assert client.wait(client.submit_signature(chain), PATIENCE) == 9


def test_in_a_task_results_are_read_where_the_worker_writes_them(client):
    assert client.wait(client.submit("lib.state_of", "x"), PATIENCE) == "RedisBackend"


class Listener:
    """Collects `task-log` events from the channel that monitors listen on."""

    def __init__(self, stack) -> None:
        self.events = []
        self.channel = redis.Redis.from_url(stack.broker).pubsub()
        self.channel.subscribe("/0.celeryev/task.log")
        assert self.channel.get_message(timeout=PATIENCE)["type"] == "subscribe"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()

    def read(self):
        while message := self.channel.get_message(ignore_subscribe_messages=True, timeout=0.01):
            body = base64.b64decode(json.loads(message["data"])["body"])
            self.events.append(json.loads(body))

    def lines(self, task):
        self.read()
        mine = sorted((event for event in self.events if event["uuid"] == task.id), key=lambda event: event["seq"])
        return [line for event in mine for line in event["lines"]]


def test_what_a_task_logs_is_sent_in_order(client, stack):
    with Listener(stack) as listener:
        task = client.submit("lib.talk", 500)
        assert client.wait(task, PATIENCE) == 500
        lines = until("all lines came", lambda: len(listener.lines(task)) >= 500 and listener.lines(task))
        assert [line["text"] for line in lines] == [f"line {number}" for number in range(500)]
        assert {line["level"] for line in lines} == {"INFO"}
        event = next(event for event in listener.events if event["uuid"] == task.id)
        assert (event["hostname"], event["retries"], event["dropped"]) == ("w@own", 0, 0)


def test_what_a_task_prints_is_sent(client, stack):
    with Listener(stack) as listener:
        task = client.submit("lib.print")
        client.wait(task, PATIENCE)
        lines = until("all lines came", lambda: len(listener.lines(task)) == 3 and listener.lines(task))
        assert sorted((line["level"], line["text"]) for line in lines) == [
            ("ERROR", "to the errors"), ("INFO", "to the output"), ("INFO", "without an end"),
        ]


def test_output_without_end_ends_with_a_line_that_says_so(client, stack):
    task = client.submit("lib.flood", 150_000)
    assert client.wait(task, PATIENCE) == 150_000, "the task goes on"

    def ended():
        text = httpx.get(f"{stack.url}/v1/tasks/{task.id}/logs", headers={"accept": "text/plain"}).text
        return text if text.rstrip().endswith("what follows is not kept") else None

    text = until("the log has ended", ended)
    assert "the log ends here" in text.splitlines()[-1]
    assert "lost on the way" not in text, "the worker says what it dropped"


def test_the_gateway_keeps_what_a_task_logs(client, stack):
    task = client.submit("lib.talk", 1000)
    client.wait(task, PATIENCE)
    address = f"{stack.url}/v1/tasks/{task.id}/logs"

    def kept():
        page = httpx.get(address, params={"limit": 5000}).json()
        return page if len(page["lines"]) >= 1000 else None

    page = until("all lines are there", kept)
    assert [line["text"] for line in page["lines"]] == [f"line {number}" for number in range(1000)]
    assert [line["no"] for line in page["lines"]] == list(range(1, 1001))
    assert page["next"] is None
    text = httpx.get(address, headers={"accept": "text/plain"}).text.splitlines()
    assert len(text) == 1000 and text[-1].endswith("INFO    line 999")
    stream = httpx.get(address, headers={"accept": "text/event-stream", "last-event-id": "998"}, timeout=PATIENCE).text
    assert [line[4:] for line in stream.splitlines() if line.startswith("id: ")] == ["999", "1000", "1000"]
    assert "event: end" in stream
