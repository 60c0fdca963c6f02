"""Django tasks, as an app has them."""
import os
import time

try:
    from django.tasks import task
except ImportError:
    from django_tasks import task


class OutOfStock(Exception):
    pass


@task
def add(x, y=2):
    """Adds two numbers."""
    return x + y


@task(queue_name="mail", priority=50)
def send(to):
    return f"sent to {to}"


@task(takes_context=True)
def attempt(context):
    return {"attempt": context.attempt, "id": context.task_result.id}


@task
def fail(what):
    raise OutOfStock(what)


@task
async def later(value):
    return [value]


@task
def until(path):
    end = time.monotonic() + 600
    while not os.path.exists(path) and time.monotonic() < end:
        time.sleep(0.02)
