"""The environment of these tests: a gateway with a real Redis and a real Celery worker, which `tests/it/clients.rs` starts.

By hand: start them, set TASKGATE_TEST_URL, CELERY_BROKER_URL and CELERY_RESULT_BACKEND, and TASKGATE_TEST_BINARY to the built binary.
"""
from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import taskgate

sys.path.insert(0, str(Path(__file__).parent))

from stack import PATIENCE, ROOT  # noqa: E402

__all__ = ["PATIENCE", "ROOT"]
sys.path.insert(0, str(ROOT / "tests" / "celery_app"))


def setting(name: str) -> str:
    if name not in os.environ:
        pytest.fail(f"{name} is not set: run these tests by `cargo test --test it -- clients`, or see conftest.py")
    return os.environ[name]


@pytest.fixture(scope="session")
def url() -> str:
    return setting("TASKGATE_TEST_URL")


@pytest.fixture(scope="session")
def binary() -> str:
    return setting("TASKGATE_TEST_BINARY")


@pytest.fixture
def client(url):
    with taskgate.Client(url) as client:
        yield client


@pytest.fixture(scope="session")
def celery_app():
    """The application that the worker runs, as any caller imports it."""
    setting("CELERY_BROKER_URL")
    import app

    return app.app


@pytest.fixture
def installed(celery_app, url):
    """The same application, with the gateway in between."""
    taskgate.install(celery_app, url)
    yield celery_app
    from taskgate.celery import uninstall

    uninstall(celery_app)
