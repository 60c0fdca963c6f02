"""Finds a Celery application by its name, with all its tasks."""
from __future__ import annotations

import importlib
import os
import sys
from typing import Any, Dict


def load(name: str) -> Any:
    """`shop.celery`, `shop.celery:app` or `shop`, as Celery's own `-A` takes them.

    Raises SystemExit with a sentence when there is none.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        from celery.app.utils import find_app
    except ImportError:
        raise SystemExit("Celery is not installed here: pip install 'taskgate[celery]'") from None
    module, _, attribute = name.replace(":", ".").rpartition(".")
    try:
        app = find_app(name)
    except (ImportError, AttributeError) as error:
        if not module:
            raise SystemExit(f"there is no Celery application {name!r}: {error}") from error
        app = getattr(importlib.import_module(module), attribute, None)
    if not hasattr(app, "tasks"):
        raise SystemExit(f"{name!r} is no Celery application")
    app.loader.import_default_modules()
    app.finalize()
    return app


def tasks(app: Any) -> Dict[str, Any]:
    """The application's tasks by name, without Celery's own."""
    return {name: app.tasks[name] for name in sorted(app.tasks) if not name.startswith("celery.")}
