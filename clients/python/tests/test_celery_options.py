"""What a call's options become, seen at the gateway's door; nothing is connected."""
from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import httpx
import pytest
from celery import Celery, chain, chord, group
from kombu import Exchange, Queue

import taskgate
from taskgate.celery import uninstall
from taskgate.celery.settings import WrongSetting


@pytest.fixture
def door():
    """An application, and the submissions that its gateway got."""
    sent = []

    def gateway(request):
        body = json.loads(request.content)
        sent.append(body)
        answer = {"task_id": body["task_id"]} if "task" in body else {"group_id": "11111111-1111-7111-8111-111111111111"}
        return httpx.Response(202, json={**answer, "status": "PENDING"})

    app = Celery("shop", broker="redis://127.0.0.1:1/0", backend="redis://127.0.0.1:1/1", set_as_current=False)
    client = taskgate.Client("http://gate", transport=httpx.MockTransport(gateway))
    taskgate.install(app, client=client)

    @app.task(name="shop.add", shared=False, priority=4, soft_time_limit=30, time_limit=60)
    def add(x, y=0):
        return x + y

    @app.task(name="shop.quiet", shared=False, ignore_result=True, queue="quiet")
    def quiet():
        pass

    yield app, sent
    uninstall(app)


def without_ids(call):
    if isinstance(call, dict):
        return {name: without_ids(member) for name, member in call.items() if name != "task_id"}
    return [without_ids(member) for member in call] if isinstance(call, list) else call


def test_a_task_s_own_options_go_with_it(door):
    app, sent = door
    app.tasks["shop.add"].delay(1, y=2)
    app.tasks["shop.quiet"].delay()
    assert without_ids(sent) == [
        {"task": "shop.add", "args": [1], "kwargs": {"y": 2}, "priority": 4, "soft_time_limit": 30, "time_limit": 60},
        {"task": "shop.quiet", "queue": "quiet", "ignore_result": True},
    ]


def test_a_call_s_options_win(door):
    app, sent = door
    app.tasks["shop.add"].apply_async(
        (1,), queue="urgent", priority=99, countdown=5, expires=60, headers={"tenant": "a"}, time_limit=90, retry=False
    )
    expected = {
        "task": "shop.add", "args": [1], "queue": "urgent", "priority": 9, "countdown": 5.0, "expires": 60, "headers": {"tenant": "a"},
        "soft_time_limit": 30, "time_limit": 90,
    }
    assert without_ids(sent) == [expected]


def test_times_become_rfc_3339(door):
    app, sent = door
    at = datetime(2030, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=9)))
    app.send_task("any.thing", eta=at, expires=at + timedelta(hours=1))
    app.send_task("any.thing", eta=datetime(2030, 1, 2), expires=timedelta(minutes=2), countdown=None)
    app.send_task("any.thing", countdown=-3, expires=-1)
    assert (sent[0]["eta"], sent[0]["expires"]) == ("2030-01-01T18:04:00Z", "2030-01-01T19:04:00Z")
    assert (sent[1]["eta"], sent[1]["expires"]) == ("2030-01-02T00:00:00Z", 120.0)
    assert "countdown" not in sent[2] and sent[2]["expires"].endswith("Z"), "what is over is over"


def test_queues_follow_the_application_s_routes(door):
    app, sent = door
    app.conf.task_routes = {"shop.mail.*": {"queue": "mail"}, "shop.media.*": {"routing_key": "video"}}
    app.conf.task_queues = [Queue("celery"), Queue("mail"), Queue("media", Exchange("media"), routing_key="video")]
    for name in ("shop.mail.send", "shop.media.cut", "shop.other"):
        app.send_task(name)
    assert [call.get("queue") for call in sent] == ["mail", "media", None]
    with pytest.raises(taskgate.ArgumentError, match="leads to 0 queues"):
        app.send_task("shop.other", routing_key="nowhere")


def test_another_default_queue_is_named(door):
    app, sent = door
    app.conf.task_default_queue = "shop"
    app.send_task("any.thing")
    assert sent[0]["queue"] == "shop"


def test_canvases_become_signatures(door):
    app, sent = door
    add = app.tasks["shop.add"].s
    plain = {"priority": 4, "soft_time_limit": 30, "time_limit": 60}
    call = lambda *args, **more: {"task": "shop.add", "args": list(args), **plain, **more}  # noqa: E731
    failed = app.signature("shop.failed")
    chain(add(1), add(2).set(queue="q", immutable=True), app=app).apply_async(countdown=3, link_error=failed, priority=1)
    group(add(1), chain(add(2), add(3)), app=app)(10)
    chord([add(1), add(2)], add(), app=app).apply_async(queue="q")
    errback = [{"task": "shop.failed"}]
    chained, grouped, chorded = without_ids(sent)
    assert chained == {"chain": [
        call(1, countdown=3.0, link_error=errback, priority=1), call(2, queue="q", immutable=True, link_error=errback),
    ]}
    assert grouped == {"group": [call(1) | {"args": [10, 1]}, {"chain": [call(2) | {"args": [10, 2]}, call(3)]}]}
    body = {name: value for name, value in call(queue="q").items() if name != "args"}
    assert chorded == {"chord": {"header": [call(1, queue="q"), call(2, queue="q")], "body": body}}


def test_every_task_of_a_canvas_has_an_id_that_its_result_has(door):
    app, sent = door
    add = app.tasks["shop.add"].s
    result = group(add(1), add(2), app=app)()
    assert [member.id for member in result] == [call["task_id"] for call in sent[0]["group"]]
    assert result.id == "11111111-1111-7111-8111-111111111111"


def test_what_the_gateway_cannot_carry_is_refused(door):
    app, sent = door
    with pytest.raises(WrongSetting, match="serializer='pickle'"):
        app.send_task("any.thing", serializer="pickle")
    with pytest.raises(taskgate.ArgumentError, match=r"taskgate\.color"):
        app.send_task("any.thing", taskgate={"color": 1})
    stamped = app.signature("any.thing")
    stamped.stamp(tenant="a")
    with pytest.raises(taskgate.ArgumentError, match="stamps"):
        stamped.apply_async()
    with pytest.raises(taskgate.ArgumentError, match=r"kwargs\.user"):
        app.send_task("any.thing", kwargs={"user": object()})
    assert sent == []


def test_an_option_without_an_effect_is_said_once(door, caplog):
    app, _ = door
    app.send_task("any.thing", unheard_of=1)
    app.send_task("any.thing", unheard_of=2)
    assert [record.getMessage() for record in caplog.records].count(
        "the gateway does not carry the option unheard_of (first seen at a call of any.thing)"
    ) == 1


def test_eager_mode_stays_eager(door):
    app, sent = door
    app.conf.task_always_eager = True
    assert app.tasks["shop.add"].delay(1, 2).get() == 3
    assert chain(app.tasks["shop.add"].s(1, 2), app.tasks["shop.add"].s(3), app=app)().get() == 6
    assert sent == []


def test_an_application_is_given_back(door):
    app, sent = door
    uninstall(app)
    assert "send_task" not in vars(app) and "revoke" not in vars(app.control)
    assert type(app.backend).__name__ == "RedisBackend"
    assert sent == []


def test_other_applications_are_left_alone(door):
    _, sent = door
    other = Celery("other", broker="memory://", backend="cache+memory://", set_as_current=False)
    chain(other.signature("a"), other.signature("b"), app=other)()
    group(other.signature("a"), app=other)()
    assert sent == []
