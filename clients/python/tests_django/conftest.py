"""A gateway and a Celery worker for the Django project in `site/`."""
from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE / "site")]


@pytest.fixture(scope="session")
def stack(tmp_path_factory):
    from stack import Stack

    with Stack(tmp_path_factory.mktemp("django"), os.environ["TASKGATE_TEST_BINARY"]) as stack:
        os.environ["TASKGATE_URL"] = stack.url
        os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
        os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE / "site"), os.environ.get("PYTHONPATH", "")])
        stack.redis()
        stack.gateway()
        stack.worker("worker", "celery,mail")
        import django

        django.setup()
        yield stack
