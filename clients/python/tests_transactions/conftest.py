"""Calls inside of the caller's transaction: a real gateway, worker and PostgreSQL, which `tests/it/clients.rs` starts."""
from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import taskgate

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests" / "celery_app"))


@pytest.fixture(scope="session")
def database() -> str:
    """Of the ledger, as psycopg writes it."""
    return os.environ["TASKGATE_TEST_DATABASE"]


@pytest.fixture(scope="session")
def celery_app():
    import app

    return app.app


@pytest.fixture
def client():
    with taskgate.Client(os.environ["TASKGATE_TEST_URL"]) as client:
        yield client


@pytest.fixture
def install(celery_app):
    """Puts the gateway in between for one test."""
    from taskgate.celery import uninstall

    def put(via):
        taskgate.install(celery_app, os.environ["TASKGATE_TEST_URL"], via=via)
        return celery_app

    yield put
    uninstall(celery_app)
