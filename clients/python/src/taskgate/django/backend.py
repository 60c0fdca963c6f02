"""The backend that enqueues through the gateway and reads results from it, in any process.

A Django task is the gateway's task of the same dotted name, so it has a catalog entry, labels, history and a page like every other.
"""
from __future__ import annotations

from datetime import datetime
from typing import Any, Dict, List, Mapping, Optional

from django.utils import timezone
from django.utils.module_loading import import_string

from .. import wire
from ..client import Client
from ..errors import NotFound, Problem, Pruned
from ..raised import module
from ..signatures import Signature, moment
from .api import (
    DEFAULT_TASK_QUEUE_NAME,
    BaseTaskBackend,
    Task,
    TaskError,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
    task_enqueued,
)

#: By the gateway's phase; every other one is READY.
_STATUS = {
    "running": TaskResultStatus.RUNNING,
    "succeeded": TaskResultStatus.SUCCESSFUL,
    **dict.fromkeys(("failed", "revoked", "expired", "skipped", "lost", "ignored"), TaskResultStatus.FAILED),
}


class TaskgateBackend(BaseTaskBackend):
    """OPTIONS: `URL`, `TOKEN` (both default to the environment), `TIMEOUT` in seconds, `FIRST_PRIORITY`: what the broker runs first, 0
    for Redis (the default) or 9 for RabbitMQ."""

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: Dict[str, Any]) -> None:
        super().__init__(alias, params)
        self.client = Client(self.options.get("URL"), self.options.get("TOKEN"), timeout=self.options.get("TIMEOUT", 10.0))
        self._first = self.options.get("FIRST_PRIORITY", 0)
        if self._first not in (0, 9):
            raise ValueError(f"TASKS[{alias!r}] OPTIONS FIRST_PRIORITY is {self._first!r}: 0 for Redis, 9 for RabbitMQ")

    def enqueue(self, task: Task, args: Any, kwargs: Any) -> TaskResult:
        """On disk when this returns. Inside a transaction use `transaction.on_commit`, as with every backend that is no table."""
        self.validate_task(task)
        result = TaskResult(
            task=task, id="", status=TaskResultStatus.READY, enqueued_at=None, started_at=None, finished_at=None,
            last_attempted_at=None, args=list(args), kwargs=dict(kwargs), backend=self.alias, errors=[], worker_ids=[],
        )
        now = timezone.now()
        handle = self.client.submit_signature(self._signature(task, result.args, result.kwargs))
        object.__setattr__(result, "id", handle.id)
        object.__setattr__(result, "enqueued_at", now)
        task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> TaskResult:
        """Raises TaskResultDoesNotExist for an id that the ledger does not have, or that is no Django task."""
        try:
            body = self.client.send(wire.Request("GET", f"/v1/tasks/{wire.at(str(result_id))}")).json()
        except (NotFound, Pruned) as error:
            raise TaskResultDoesNotExist(result_id) from error
        except Problem as error:
            if error.status == 400:
                raise TaskResultDoesNotExist(result_id) from error
            raise
        task = _task(body.get("task"))
        if task is None:
            raise TaskResultDoesNotExist(result_id)
        return self._result(task, body)

    def _signature(self, task: Task, args: List[Any], kwargs: Dict[str, Any]) -> Signature:
        call: Signature = {"task": task.module_path, "args": args, "kwargs": kwargs, "priority": self.priority(task.priority)}
        if task.queue_name != DEFAULT_TASK_QUEUE_NAME:
            call["queue"] = task.queue_name
        if task.run_after is not None:
            call["eta"] = moment(task.run_after)
        return call

    def priority(self, value: int) -> int:
        """Django's -100 … 100, the highest first, as the broker's ten. Redis tells four of them apart: 0, 3, 6 and 9."""
        ninth = round((value + 100) * 9 / 200)
        return ninth if self._first == 9 else 9 - ninth

    def _result(self, task: Task, body: Mapping[str, Any]) -> TaskResult:
        status = _STATUS.get(body["phase"], TaskResultStatus.READY)
        started = _time(body.get("started_at"))
        result = TaskResult(
            task=task, id=body["task_id"], status=status, enqueued_at=_time(body["submitted_at"]), started_at=started,
            finished_at=_time(body.get("finished_at")), last_attempted_at=started, args=list(body.get("args") or []),
            kwargs=dict(body.get("kwargs") or {}), backend=self.alias, errors=_errors(body),
            worker_ids=[body["worker"]] * (body.get("retries", 0) + 1) if body.get("worker") else [],
        )
        object.__setattr__(result, "_return_value", body.get("result"))
        return result


def _task(name: Optional[str]) -> Optional[Task]:
    """The Django task of this dotted name."""
    try:
        found = import_string(name or "")
    except ImportError:
        return None
    return found if isinstance(found, Task) else None


def _errors(body: Mapping[str, Any]) -> List[TaskError]:
    error = body.get("error")
    if not error:
        return []
    kind, traceback = str(error["type"]), body.get("traceback")
    path = f"{module(kind, traceback) or 'builtins'}.{kind}"
    return [TaskError(exception_class_path=path, traceback=traceback or f"{kind}: {error.get('message')}")]


def _time(text: Optional[str]) -> Optional[datetime]:
    # Python before 3.11 does not read the Z.
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None
