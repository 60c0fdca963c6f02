"""Celery through the gateway: one line in an application, and its calls are submitted over HTTP.

    app = Celery("shop", broker="redis://…", backend="redis://…")
    taskgate.install(app, url="http://taskgate:8000", token="tg_…")

`delay`, `apply_async`, `send_task`, chain, group and chord submit to the gateway; `AsyncResult` and `GroupResult` read it; `revoke`
asks it. Workers need no change and notice nothing: in a worker process all of this steps aside, because what a task sends belongs to
its canvas (parents, chords, retries), and that is Celery's own message.
"""
from __future__ import annotations

from .gateway import Gateway
from .install import install, uninstall

__all__ = ["Gateway", "install", "uninstall"]
