"""Django tasks; a Celery worker runs them (`worker.py`)."""
try:
    from django.tasks import task
except ImportError:  # Before Django 6 the package django-tasks has them.
    from django_tasks import task


@task(queue_name="shop", priority=50)
def pack(item: str, quantity: int) -> dict:
    """Packs an order."""
    return {"item": item, "pieces": quantity}
