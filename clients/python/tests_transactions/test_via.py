"""A call of an existing Celery application is a task if, and only if, the transaction around it commits."""
from __future__ import annotations

import os

import psycopg
import pytest
from celery import chain, chord, group

import taskgate

PATIENCE = 60


def is_unknown(client, task_id) -> bool:
    try:
        client.result(task_id)
    except taskgate.NotFound:
        return True
    return False


@pytest.fixture(scope="session")
def engine(database):
    import sqlalchemy

    engine = sqlalchemy.create_engine(database.replace("postgres://", "postgresql+psycopg://"))
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def django_connection(database):
    import django
    from django.conf import settings

    connection = psycopg.conninfo.conninfo_to_dict(database)
    settings.configure(DATABASES={"default": {
        "ENGINE": "django.db.backends.postgresql", "NAME": connection["dbname"], "USER": connection["user"],
        "HOST": connection["host"], "PORT": connection["port"],
    }})
    django.setup()
    from django.db import connection as opened

    yield opened
    opened.close()


def test_a_call_in_a_session_commits_with_it(install, engine, client):
    from sqlalchemy.orm import Session

    add = install("sqlalchemy").tasks["demo.add"]
    with Session(engine) as session, session.begin():
        kept = add.delay(2, 3)
        assert is_unknown(client, kept.id)
    assert kept.get(timeout=PATIENCE) == 5
    with pytest.raises(RuntimeError, match="the order is wrong"), Session(engine) as session, session.begin():
        dropped = add.delay(2, 3)
        raise RuntimeError("the order is wrong")
    assert is_unknown(client, dropped.id)


def test_which_session_may_be_said(install, engine, client):
    from sqlalchemy.orm import Session

    add = install("sqlalchemy").tasks["demo.add"]
    with pytest.raises(taskgate.ArgumentError, match="no session has begun"):
        add.delay(1, 1)
    with Session(engine) as one, Session(engine) as other:
        one.begin(), other.begin()
        with pytest.raises(taskgate.ArgumentError, match="2 sessions"):
            add.delay(1, 1)
        with taskgate.within(other):
            said = add.delay(1, 1)
        one.rollback()
        other.commit()
    assert said.get(timeout=PATIENCE) == 2


def test_a_connection_of_the_core_will_do(install, engine):
    with engine.connect() as connection:
        add = install(connection).tasks["demo.add"]
        result = add.apply_async((3, 4), queue="celery", priority=3, countdown=0.1)
        connection.commit()
    assert result.get(timeout=PATIENCE) == 7


def test_django_says_its_connection_itself(install, django_connection, client):
    from django.db import transaction

    add = install("django").tasks["demo.add"]
    with transaction.atomic():
        kept = add.delay(4, 5)
    assert kept.get(timeout=PATIENCE) == 9
    with pytest.raises(ValueError, match="no"), transaction.atomic():
        dropped = add.delay(4, 5)
        raise ValueError("no")
    assert is_unknown(client, dropped.id)
    with transaction.atomic():
        before = add.delay(1, 1)
        point = transaction.savepoint()
        undone = add.delay(1, 1)
        transaction.savepoint_rollback(point)
    assert before.get(timeout=PATIENCE) == 2
    assert is_unknown(client, undone.id)


def test_a_connection_of_psycopg_will_do(install, database, client):
    with psycopg.connect(database) as connection:
        app = install(connection)
        kept = app.send_task("demo.add", (5, 6))
        connection.commit()
        dropped = app.send_task("demo.add", (5, 6))
        connection.rollback()
    assert kept.get(timeout=PATIENCE) == 11
    assert is_unknown(client, dropped.id)


def test_canvases_commit_whole(install, database, client):
    with psycopg.connect(database) as connection:
        app = install(lambda: connection)
        add, total = app.tasks["demo.add"], app.tasks["demo.xsum"]
        steps = chain(add.s(1, 2), add.s(3)).apply_async()
        members = group(add.s(n, n) for n in range(3)).apply_async()
        summed = chord([add.s(n, 1) for n in range(3)], total.s()).apply_async()
        connection.commit()
        dropped = chain(add.s(1, 2), add.s(3)).apply_async()
        connection.rollback()
    assert steps.get(timeout=PATIENCE) == 6
    assert members.get(timeout=PATIENCE) == [0, 2, 4]
    assert summed.get(timeout=PATIENCE) == 6
    assert is_unknown(client, dropped.id) and is_unknown(client, dropped.parent.id)


def test_what_cannot_be_meant_is_refused_at_once(install, celery_app):
    with pytest.raises(ValueError, match="'mongodb'"):
        install("mongodb")
    with pytest.raises(ValueError, match="fallback"):
        taskgate.install(celery_app, os.environ["TASKGATE_TEST_URL"], via="sqlalchemy", fallback="broker")
    add = install(object()).tasks["demo.add"]
    with pytest.raises(taskgate.ArgumentError, match="synchronous"):
        add.delay(1, 1)
