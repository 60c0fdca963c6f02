"""Every canvas gives through the gateway what it gives without: each case runs on the same worker both ways."""
from __future__ import annotations

import app as demo
import pytest
from celery import chain, chord, group
from celery.canvas import maybe_signature
from conftest import PATIENCE
from kombu.utils.json import dumps, loads

add, mul, xsum, identity = demo.add, demo.mul, demo.xsum, demo.identity


def read_back(canvas):
    return maybe_signature(loads(dumps(canvas)), app=demo.app)


CASES = {
    "delay": lambda: add.delay(2, 3),
    "a partial signature": lambda: add.s(2).apply_async((3,)),
    "send_task": lambda: demo.app.send_task("demo.add", (1, 2)),
    "keyword arguments": lambda: demo.echo.apply_async((1, {"a": [None]}), {"이름": "값"}),
    "chain": lambda: (add.s(2, 3) | mul.s(10)).delay(),
    "a chain in a chain": lambda: chain(add.s(1, 1), add.s(2), chain(mul.s(3), add.s(1)))(),
    "a chain with partial arguments": lambda: chain(add.s(1), mul.s(4)).apply_async((2,)),
    "a chain with an immutable step": lambda: chain(add.s(1, 1), add.si(5, 5))(),
    "group": lambda: group(add.s(number, number) for number in range(4))(),
    "a group with partial arguments": lambda: group(add.s(number) for number in range(4))(10),
    "a group in a group": lambda: group(add.s(1, 1), group(add.s(2, 2), add.s(3, 3)))(),
    "chord": lambda: chord((add.s(number, number) for number in range(4)), xsum.s())(),
    "a group and a task": lambda: (group(add.s(number, number) for number in range(4)) | xsum.s()).delay(),
    "a group of one and a task": lambda: (group([add.s(1, 1)]) | identity.s()).delay(),
    "a chain of a group of one and a task": lambda: chain(group([add.s(1, 1)]), identity.s()).delay(),
    "a group within a chain": lambda: chain(add.s(1, 1), group(add.s(1), add.s(2)), xsum.s(), mul.s(2))(),
    "a group at the end of a chain": lambda: chain(add.s(1, 1), group(add.s(1), add.s(2)))(),
    "two groups in a chain": lambda: chain(group(add.s(1, 1), add.s(2, 2)), group(xsum.s(), xsum.s()), xsum.s())(),
    "a chord within a chain": lambda: chain(add.s(1, 1), chord([add.s(1), add.s(2)], xsum.s()), mul.s(2))(),
    "a chord of chains": lambda: chord([chain(add.s(1, 1), mul.s(3)), add.s(1, 1)], chain(xsum.s(), mul.s(2)))(),
    "a chord with a group as body": lambda: chord([add.s(1, 1), add.s(2, 2)], group(xsum.s(), identity.s()))(),
    "a chord in a chord": lambda: chord([chord([add.s(1, 1), add.s(2, 2)], xsum.s()), add.s(3, 3)], xsum.s())(),
    "an empty header": lambda: chord([], xsum.s())(),
    "all in a group": lambda: group(
        chain(add.s(1, 1), mul.s(2)), chord([add.s(1, 2), add.s(3, 4)], xsum.s()), group(add.s(0, 1), add.s(0, 2))
    )(),
    "map": lambda: xsum.map([[1, 2], [3]]).delay(),
    "starmap": lambda: add.starmap([(1, 2), (3, 4)]).delay(),
    "chunks": lambda: add.chunks([(number, number) for number in range(6)], 2)(),
    "extract, transform, load": lambda: chain(demo.etl_extract.s("x"), demo.etl_transform.s(), demo.etl_load.s())(),
    "options of a chain": lambda: chain(add.s(1, 1), mul.s(2)).apply_async(countdown=0.1, priority=3),
    "a link": lambda: (add.s(1, 1) | mul.s(3)).apply_async(link=identity.s()),
    "a canvas read back from JSON": lambda: read_back(chain(add.s(1, 1), group(add.s(1), add.s(2)), xsum.s()))(),
}


@pytest.mark.parametrize("name", CASES)
def test_a_canvas_gives_what_celery_gives(celery_app, url, name):
    import taskgate
    from taskgate.celery import uninstall

    own = CASES[name]().get(timeout=PATIENCE)
    taskgate.install(celery_app, url)
    try:
        result = CASES[name]()
        assert result.get(timeout=PATIENCE) == own
        assert result.successful()
    finally:
        uninstall(celery_app)
    with taskgate.Client(url) as client:
        ids = [child.id for child in result] if hasattr(result, "results") else [result.id]
        assert all(client.task(one)["submitted_at"] for one in ids), "the ledger has them"


def test_parents_lead_back_to_the_first_task(installed):
    last = chain(add.s(1, 1), group(add.s(1), add.s(2)), xsum.s())()
    assert last.get(timeout=PATIENCE) == 7
    header = last.parent
    assert [member.get(timeout=PATIENCE) for member in header] == [3, 4]
    assert header.parent.get(timeout=PATIENCE) == 2 and header.parent.parent is None


def test_a_group_is_found_again_by_its_id(installed):
    result = group(add.s(1, 1), add.s(2, 2))()
    again = installed.GroupResult.restore(result.id)
    assert again.get(timeout=PATIENCE) == [2, 4]
    assert again.completed_count() == 2


def test_an_empty_group_sends_nothing(installed):
    assert group([]).apply_async().results == []


def test_a_chain_whose_first_step_fails_raises_its_error(installed):
    with pytest.raises(ValueError, match="boom"):
        chain(demo.fail.s(), identity.s())().get(timeout=PATIENCE)


def test_a_chord_whose_member_fails_raises_and_its_errback_runs(installed):
    body = xsum.s()
    body.link_error(demo.on_error.s())
    from celery.exceptions import ChordError

    with pytest.raises((ValueError, ChordError)):
        chord([add.s(1, 1), demo.fail.si()], body)().get(timeout=PATIENCE)
