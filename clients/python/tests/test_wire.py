"""What the client makes of answers, errors and broken connections, without a gateway."""
from __future__ import annotations

import json

import httpx
import pytest

import taskgate
from taskgate import errors
from taskgate._version import fits
from taskgate.sse import Parser


def client_of(answer, **options):
    return taskgate.Client("http://gate", transport=httpx.MockTransport(answer), **options)


def problem(status, slug, **more):
    body = {"type": f"/problems/{slug}", "title": "t", "status": status, "detail": "d", **more}
    return httpx.Response(status, json=body, headers={"content-type": "application/problem+json", "retry-after": "3"})


def test_each_kind_of_problem_has_its_exception():
    kinds = {
        (422, "invalid-request"): errors.InvalidRequest,
        (403, "task-not-allowed"): errors.TaskNotAllowed,
        (401, "unauthorized"): errors.Unauthorized,
        (404, "task-not-found"): errors.NotFound,
        (410, "task-pruned"): errors.Pruned,
        (413, "payload-too-large"): errors.PayloadTooLarge,
        (429, "rate-limited"): errors.RateLimited,
        (503, "backlog-full"): errors.Unavailable,
        (409, "something-new"): errors.Problem,
    }
    for (status, slug), kind in kinds.items():
        with pytest.raises(kind) as caught:
            client_of(lambda _, status=status, slug=slug: problem(status, slug)).task("x")
        assert type(caught.value) is kind
        assert (caught.value.slug, caught.value.status, caught.value.retry_after) == (slug, status, 3.0)


def test_a_problem_names_the_places():
    refused = problem(422, "invalid-request", errors=[{"pointer": "/args/0", "detail": "must be a number"}])
    with pytest.raises(errors.InvalidRequest, match="/args/0: must be a number"):
        client_of(lambda _: refused).submit("a")


def test_a_lost_answer_is_asked_for_again_and_the_task_is_submitted_once():
    accepted = []

    def gateway(request):
        body = json.loads(request.content)
        if body["task_id"] in accepted:
            return problem(409, "id-taken")
        accepted.append(body["task_id"])
        raise httpx.ReadError("cut", request=request)

    handle = client_of(gateway).submit("a.b")
    assert accepted == [handle.id]


def test_an_id_that_was_taken_before_is_refused():
    with pytest.raises(errors.IdTaken):
        client_of(lambda _: problem(409, "id-taken")).submit("a.b", options={"task_id": taskgate.signatures.new_id()})


def test_an_answer_that_never_comes_is_not_called_a_refusal():
    def gateway(request):
        raise httpx.ReadError("cut", request=request)

    with pytest.raises(errors.OutcomeUnknown):
        client_of(gateway, attempts=2).submit("a.b")


def test_nobody_there_means_nothing_happened():
    def gateway(request):
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(errors.GatewayUnavailable, match="http://gate"):
        client_of(gateway).submit("a.b")


def test_a_canvas_is_repeated_under_one_key():
    keys = []

    def gateway(request):
        keys.append(request.headers["idempotency-key"])
        if len(keys) == 1:
            raise httpx.ReadError("cut", request=request)
        return httpx.Response(202, json={"group_id": "g"})

    assert client_of(gateway).submit_signature({"group": []}).is_group
    assert len(keys) == 2 and len(set(keys)) == 1


def test_a_gateway_of_another_version_is_told():
    def gateway(_):
        return httpx.Response(200, json={}, headers={"taskgate-version": "99.0.0"})

    with pytest.raises(errors.IncompatibleGateway, match=r"taskgate 99\.0\.0.*pip install taskgate==99\.0\.0"):
        client_of(gateway).task("x")


def test_newer_gateways_of_the_same_major_version_fit_and_the_one_before():
    assert fits("0.1.0", "0.2.3") and fits("1.4.0", "1.9.0") and fits("1.4.0", "1.3.0") and fits("1.0.0-rc.1", "1.0.0")
    assert not fits("0.4.0", "0.2.0") and not fits("1.0.0", "2.0.0") and not fits("2.0.0", "1.9.0")
    assert fits("0.1.0", "something"), "what is no version is not judged"


def test_something_else_at_the_address_is_told():
    with pytest.raises(errors.IncompatibleGateway, match="is a taskgate"):
        client_of(lambda _: httpx.Response(404, text="<html>")).task("x")


def test_the_token_is_sent():
    seen = []

    def gateway(request):
        seen.append(request.headers.get("authorization"))
        return httpx.Response(200, json={})

    taskgate.Client("http://gate", "tg_x", transport=httpx.MockTransport(gateway)).task("x")
    assert seen == ["Bearer tg_x"]


def test_a_frame_that_was_cut_off_is_no_event():
    parser = Parser()
    lines = ["retry: 1500", ": hello", "id: 7", "event: state", 'data: {"a":', "data: 1}"]
    assert [event for line in lines for event in parser.feed(line)] == []
    (event,) = parser.feed("")
    assert (event.id, event.kind, event.data, parser.retry) == ("7", "state", {"a": 1}, 1.5)
    assert list(parser.feed("")) == []
