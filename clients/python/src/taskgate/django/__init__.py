"""Django's Tasks on the gateway.

    TASKS = {"default": {"BACKEND": "taskgate.django.TaskgateBackend", "OPTIONS": {"URL": "http://taskgate:8000"}}}

and, where the Celery worker's application is made, `taskgate.django.register(app)`. Needs Django 6, or an older one with the package
django-tasks, which has the same interface.
"""
from __future__ import annotations

from .backend import TaskgateBackend
from .worker import register

__all__ = ["TaskgateBackend", "register"]
