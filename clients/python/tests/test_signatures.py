"""Calls as data: what JSON cannot carry is named by its path."""
from __future__ import annotations

import uuid
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest

from taskgate import ArgumentError, signature
from taskgate.signatures import encode, moment, new_id


def test_a_call_has_only_what_was_said():
    assert signature("a.b") == {"task": "a.b"}
    call = signature("a.b", 1, x=2, options={"queue": "mail", "expires": timedelta(minutes=1), "priority": None})
    assert call == {"task": "a.b", "args": [1], "kwargs": {"x": 2}, "queue": "mail", "expires": 60.0}


def test_times_are_written_in_utc():
    assert moment(datetime(2026, 1, 2, 3, 4)) == "2026-01-02T03:04:00Z"
    seoul = timezone(timedelta(hours=9))
    assert moment(datetime(2026, 1, 2, 12, 4, tzinfo=seoul)) == "2026-01-02T03:04:00Z"


@pytest.mark.parametrize(
    ("value", "path", "word"),
    [
        ({"args": [1, {"user": {"tags": {"a"}}}]}, "args[1].user.tags", "set"),
        ({"kwargs": {"at": datetime(2026, 1, 1)}}, "kwargs.at", ".isoformat()"),
        ({"args": [float("nan")]}, "args[0]", "nan"),
        ({"args": [Decimal("1.5")]}, "args[0]", "Decimal"),
        ({"kwargs": {"of": {(1, 2): 3}}}, "kwargs.of", "key"),
        ({"args": [b"x"]}, "args[0]", "base64"),
    ],
)
def test_what_json_cannot_carry_is_named_by_its_path(value, path, word):
    with pytest.raises(ArgumentError) as caught:
        encode(value)
    assert caught.value.path == path
    assert word in caught.value.detail


def test_a_value_that_contains_itself_is_refused():
    loop: list = []
    loop.append(loop)
    with pytest.raises(ArgumentError, match="contains itself|Circular"):
        encode({"args": loop})


def test_an_option_cannot_replace_the_call():
    with pytest.raises(ArgumentError, match="options.args"):
        signature("a", options={"args": [1]})


def test_later_ids_sort_later():
    ids = [new_id() for _ in range(50)]
    assert all(uuid.UUID(one).version == 7 and uuid.UUID(one).variant == uuid.RFC_4122 for one in ids)
    assert len(set(ids)) == 50
    assert [one[:13] for one in ids] == sorted(one[:13] for one in ids)
