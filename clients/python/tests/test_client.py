"""The client on a real gateway with a real worker."""
from __future__ import annotations

import asyncio
import threading

import httpx
import pytest
from conftest import PATIENCE

import taskgate
from taskgate import errors, signature


def test_a_submitted_task_comes_back(client):
    task = client.submit("demo.echo", 1, {"a": [None]}, options={"labels": {"team": "ops"}}, 이름="값")
    assert client.wait(task, PATIENCE) == {"args": [1, {"a": [None]}], "kwargs": {"이름": "값"}}
    assert client.task(task)["labels"] == {"team": "ops"}
    assert client.wait(task.id, PATIENCE) == client.result(task)["result"]


def test_a_group_gives_the_list_of_its_results(client):
    group = client.submit_signature({"group": [signature("demo.add", number, number) for number in range(3)]})
    assert group.is_group and len(group.children) == 3
    assert client.wait(group, PATIENCE) == [0, 2, 4]


def test_a_failure_has_type_message_and_traceback(client):
    with pytest.raises(taskgate.TaskFailed) as caught:
        client.wait(client.submit("demo.fail", "KeyError", "gone"), PATIENCE)
    failed = caught.value
    assert failed.type == "KeyError" and "gone" in failed.message and "Traceback" in failed.traceback


def test_a_member_that_fails_fails_its_group(client):
    group = client.submit_signature({"group": [signature("demo.add", 1, 1), signature("demo.fail")]})
    with pytest.raises(taskgate.TaskFailed) as caught:
        client.wait(group, PATIENCE)
    assert caught.value.type == "ValueError"


def test_what_is_held_is_revoked_for_certain(client):
    task = client.submit("demo.add", 1, 2, options={"countdown": 600})
    assert client.revoke(task, reason="not needed")["verdict"] == "prevented"
    with pytest.raises(taskgate.TaskRevoked):
        client.wait(task, PATIENCE)


FAILING = {"dag": {"nodes": {
    "first": {"task": "demo.add", "args": [1, 2]}, "second": {"task": "demo.fail", "args": ["KeyError"], "after": ["first"]},
}}}


def test_what_failed_of_a_dag_is_resumed(client):
    dag = client.submit_signature(FAILING)
    with pytest.raises(taskgate.TaskFailed):
        client.wait(dag, PATIENCE)
    again = client.resume(dag, idempotency_key=f"again-{dag.id}")
    assert again.id != dag.id and client.resume(dag, idempotency_key=f"again-{dag.id}").id == again.id
    with pytest.raises(taskgate.TaskFailed) as caught:
        client.wait(again, PATIENCE)
    assert caught.value.type == "KeyError"
    with pytest.raises(errors.Problem) as refused:
        client.resume(client.submit("demo.add", 1, 2))
    assert refused.value.slug == "not-replayable"


def test_waiting_ends_in_time_and_the_task_goes_on(client):
    task = client.submit("demo.add", 1, 2, options={"countdown": 600})
    with pytest.raises(taskgate.WaitTimeout):
        client.wait(task, timeout=0.2)
    assert not client.result(task)["ready"]
    client.revoke(task)


def test_an_unknown_id_is_not_found(client):
    with pytest.raises(errors.NotFound):
        client.wait("0192f0c1-6c1e-7d3e-9f2a-3b8f0a5d1c42", PATIENCE)


def test_a_batch_has_a_verdict_for_each(client):
    good, bad, other = client.batch([signature("demo.add", 1, 2), {"task": ""}, signature("not.allowed")])
    assert client.wait(good, PATIENCE) == 3
    assert isinstance(bad, errors.InvalidRequest) and isinstance(other, errors.TaskNotAllowed)
    with pytest.raises(errors.Problem):
        client.batch([signature("demo.add", 1, 2), {"task": ""}], atomic=True)


def test_a_stream_ends_with_the_result(client):
    events = list(client.stream(client.submit("demo.progress", 3), last_event_id="0", timeout=PATIENCE))
    assert events[-1].is_end and events[-1].data["result"] == {"steps": 3}
    assert [event.meta["progress"] for event in events if event.kind == "progress"] == [1, 2, 3]
    assert [int(event.id) for event in events] == sorted({int(event.id) for event in events}), "in order, each once"


def test_a_finished_task_streams_its_end_and_no_more(client):
    task = client.submit("demo.add", 1, 2)
    client.wait(task, PATIENCE)
    (end,) = client.stream(task, timeout=PATIENCE)
    assert end.is_end
    assert list(client.stream(task, last_event_id=end.id, timeout=PATIENCE)) == []


class Cutting(httpx.BaseTransport):
    """Cuts every stream after so many bytes, in the middle of whatever that is."""

    def __init__(self, after: int) -> None:
        self.inner, self.after, self.cuts = httpx.HTTPTransport(), after, 0

    def handle_request(self, request):
        response = self.inner.handle_request(request)
        if response.headers.get("content-type") == "text/event-stream":
            response.stream = CutStream(self, response.stream)
        return response


class CutStream(httpx.SyncByteStream):
    def __init__(self, transport: Cutting, stream) -> None:
        self.transport, self.stream = transport, stream

    def __iter__(self):
        left = self.transport.after
        for chunk in self.stream:
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                self.transport.cuts += 1
                raise httpx.ReadError("cut")

    def close(self):
        self.stream.close()


def test_a_stream_that_is_cut_goes_on_where_it_was(url, client):
    task = client.submit("demo.progress", 20, 0.02)
    transport = Cutting(after=700)
    with taskgate.Client(url, transport=transport) as cut:
        events = list(cut.stream(task, last_event_id="0", timeout=PATIENCE))
    assert transport.cuts > 2
    assert [event.meta["progress"] for event in events if event.kind == "progress"] == list(range(1, 21))
    assert [int(event.id) for event in events] == list(range(1, len(events) + 1)), "every event once, in order"


def test_one_client_serves_many_threads(client):
    results = []

    def run(number):
        results.append(client.wait(client.submit("demo.add", number, 1), PATIENCE))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(1, 9))


def test_the_async_client_does_the_same(url):
    async def main():
        async with taskgate.AsyncClient(url) as client:
            task = await client.submit("demo.progress", 3)
            kinds = [event.kind async for event in client.stream(task, last_event_id="0", timeout=PATIENCE)]
            assert kinds[-1] == "end" and kinds.count("progress") == 3
            assert await client.wait(task, PATIENCE) == {"steps": 3}
            good, bad = await client.batch([signature("demo.add", 1, 2), {"task": ""}])
            assert await client.wait(good, PATIENCE) == 3 and isinstance(bad, errors.InvalidRequest)
            held = await client.submit("demo.add", 1, 2, options={"countdown": 600})
            assert (await client.revoke(held))["verdict"] == "prevented"
            with pytest.raises(taskgate.TaskRevoked):
                await client.wait(held, PATIENCE)
            assert (await client.task(held))["phase"] == "revoked"
            dag = await client.submit_signature(FAILING)
            with pytest.raises(taskgate.TaskFailed):
                await client.wait(dag, PATIENCE)
            assert (await client.resume(dag)).id != dag.id

    asyncio.run(main())


def test_a_progress_bar_follows_the_task(client):
    from io import StringIO

    out = StringIO()
    shown = taskgate.progress(client, client.submit("demo.progress", 4, 0.1), timeout=PATIENCE, file=out, mininterval=0)
    assert shown == {"steps": 4}
    assert "4/4" in out.getvalue()
