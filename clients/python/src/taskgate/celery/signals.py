"""Celery's signals of a publication, for those who listen: tracing adds its headers in `before_task_publish`.

They are sent for a call of one task, as Celery sends them, with what the gateway will publish; nobody publishes here, so there is no
exchange and no producer. Handlers may add headers; anything else that they change has no effect.
"""
from __future__ import annotations

from typing import Any, Dict

from celery.signals import after_task_publish, before_task_publish

Call = Dict[str, Any]

#: The headers that Celery makes itself; the gateway makes them too.
_OWN = frozenset({"task", "id", "eta", "expires", "ignore_result", "timelimit", "argsrepr", "kwargsrepr", "lang", "origin"})


def before(call: Call) -> None:
    """Lets handlers add headers to the call."""
    if not before_task_publish.receivers:
        return
    headers = _headers(call)
    before_task_publish.send(
        sender=call["task"], body=_body(call), exchange="", routing_key=call.get("queue"), declare=[], headers=headers, properties={},
        retry_policy={},
    )
    added = {name: value for name, value in headers.items() if name not in _OWN}
    if added:
        call["headers"] = added


def after(call: Call) -> None:
    """Tells handlers that the gateway has it."""
    if after_task_publish.receivers:
        after_task_publish.send(
            sender=call["task"], body=_body(call), headers=_headers(call), exchange="", routing_key=call.get("queue")
        )


def _headers(call: Call) -> Dict[str, Any]:
    return {
        **(call.get("headers") or {}), "task": call["task"], "id": call["task_id"], "eta": call.get("eta"), "expires": call.get("expires"),
        "ignore_result": call.get("ignore_result", False), "timelimit": [call.get("time_limit"), call.get("soft_time_limit")],
    }


def _body(call: Call) -> Any:
    return call.get("args", []), call.get("kwargs", {}), {}
