"""The client of taskgate, the HTTP front door of a Celery fleet.

    client = taskgate.Client("http://127.0.0.1:8000")
    task = client.submit("app.add", 2, 3)
    client.wait(task, timeout=10)

An existing Celery application needs one line: `taskgate.install(app, url="http://127.0.0.1:8000")`.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any, ContextManager, Optional

from ._version import __version__
from .aclient import AsyncClient
from .client import Client
from .errors import (
    ArgumentError,
    GatewayUnavailable,
    IncompatibleGateway,
    NotFound,
    OutcomeUnknown,
    Problem,
    TaskFailed,
    TaskgateError,
    TaskRevoked,
    WaitTimeout,
)
from .handle import Handle
from .progress import progress
from .signatures import signature
from .sse import Event

if TYPE_CHECKING:
    from celery import Celery

    from .celery import Gateway

__all__ = [
    "ArgumentError", "AsyncClient", "Client", "Event", "GatewayUnavailable", "Handle", "IncompatibleGateway", "NotFound",
    "OutcomeUnknown", "Problem", "TaskFailed", "TaskRevoked", "TaskgateError", "WaitTimeout", "__version__", "capture_output",
    "install", "progress", "signature", "tell_types", "within",
]


def install(app: Celery, url: Optional[str] = None, token: Optional[str] = None, **options: Any) -> Gateway:
    """Sends what `app` submits through the gateway. See `taskgate.celery.install`."""
    from .celery import install as install_celery

    return install_celery(app, url=url, token=token, **options)


def tell_types() -> None:
    """Lets workers tell the type hints of their tasks, for `learn`. See `taskgate.celery.types.tell_types`."""
    from .celery.types import tell_types as tell

    tell()


def within(connection: Any) -> ContextManager[None]:
    """Inside of it, what an application installed with `via` submits is part of this connection's (or session's) transaction."""
    from .celery.via import within as inside

    return inside(connection)


def capture_output() -> ContextManager[None]:
    """Sends what the running task prints to the gateway. See `taskgate.logs.capture_output`."""
    from .logs import capture_output as capture

    return capture()
