"""What an application's settings must be for the gateway, asked once at `install`."""
from __future__ import annotations

from typing import Any

from ..errors import TaskgateError


class WrongSetting(TaskgateError, ValueError):
    """A setting of the Celery application that the gateway cannot honour; the message names it and what to write."""


def check_serializers(app: Any) -> None:
    """The gateway carries JSON and nothing else: whoever can publish a pickle can run code in the worker.

    Raises WrongSetting.
    """
    serializer = app.conf.task_serializer
    if serializer != "json":
        raise WrongSetting(
            f"task_serializer is {serializer!r}, and the gateway carries JSON only: set app.conf.task_serializer = 'json' "
            "(and leave 'json' in accept_content of the workers)"
        )
    accepted = app.conf.accept_content
    if accepted and not {"json", "application/json"} & set(accepted):
        raise WrongSetting(
            f"accept_content is {sorted(accepted)!r}, so workers would refuse what the gateway publishes: add 'json' to "
            "app.conf.accept_content"
        )


def check_task_serializer(name: str, serializer: Any) -> None:
    """As `check_serializers`, for one task or one call."""
    if serializer not in (None, "json", "application/json"):
        raise WrongSetting(
            f"{name} asks for serializer={serializer!r}, and the gateway carries JSON only: remove it from the task or the call, "
            "or set it to 'json'"
        )
