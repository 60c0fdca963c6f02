"""Runs Django's tasks in a Celery worker: each becomes a Celery task of its dotted name."""
from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any, Dict, Iterator, List

from django.apps import apps
from django.utils import timezone

from .api import Task, TaskContext, TaskResult, TaskResultStatus, task_finished, task_started
from .backend import TaskgateBackend


def register(app: Any) -> List[str]:
    """Makes Celery tasks of all Django tasks in the `tasks` modules of the installed apps, and returns their names.

    Call it where the Celery application is made, after `django.setup()`.
    """
    return [_register(app, task) for task in _tasks()]


def _tasks() -> Iterator[Task]:
    for config in apps.get_app_configs():
        if find_spec(f"{config.name}.tasks") is None:
            continue
        for task in vars(importlib.import_module(f"{config.name}.tasks")).values():
            if isinstance(task, Task) and isinstance(task.get_backend(), TaskgateBackend):
                yield task


def _register(app: Any, task: Task) -> str:
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _run(task, self.request, args, kwargs)

    run.__doc__ = task.func.__doc__
    app.task(name=task.module_path, bind=True, typing=False)(run)
    return str(task.module_path)


def _run(task: Task, request: Any, args: Any, kwargs: Dict[str, Any]) -> Any:
    """As Django's own backends do it: signals before and after, and a context for tasks that want one."""
    result = _result(task, request, args, kwargs)
    backend = type(task.get_backend())
    task_started.send(backend, task_result=result)
    try:
        value = task.call(*((TaskContext(task_result=result),) if task.takes_context else ()), *args, **kwargs)
    except Exception:
        _ended(result, TaskResultStatus.FAILED)
        task_finished.send(backend, task_result=result)
        raise
    object.__setattr__(result, "_return_value", value)
    _ended(result, TaskResultStatus.SUCCESSFUL)
    task_finished.send(backend, task_result=result)
    return value


def _result(task: Task, request: Any, args: Any, kwargs: Dict[str, Any]) -> TaskResult:
    now = timezone.now()
    return TaskResult(
        task=task, id=request.id, status=TaskResultStatus.RUNNING, enqueued_at=None, started_at=now, finished_at=None,
        last_attempted_at=now, args=list(args), kwargs=dict(kwargs), backend=task.backend, errors=[],
        worker_ids=[str(request.hostname)] * ((request.retries or 0) + 1),
    )


def _ended(result: TaskResult, status: Any) -> None:
    object.__setattr__(result, "status", status)
    object.__setattr__(result, "finished_at", timezone.now())
