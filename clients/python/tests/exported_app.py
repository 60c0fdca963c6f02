"""An application with typed tasks, for `taskgate.export` and `taskgate.check`."""
from __future__ import annotations

from typing import Literal, Optional

from celery import Celery
from pydantic import BaseModel

app = Celery("shop", broker="redis://127.0.0.1:1/0", backend="redis://127.0.0.1:1/1")
app.conf.task_routes = {"lib.heavy.*": {"queue": "heavy"}}
app.conf.imports = ()


class Address(BaseModel):
    street: str
    zip: int


class Order(BaseModel):
    id: int
    to: Address
    tags: list[str] = []


@app.task(name="lib.add")
def add(x: int, y: int = 2) -> int:
    """Adds two numbers.

    The second one may be left out.
    """
    return x + y


@app.task(name="lib.heavy.order", bind=True, time_limit=60, priority=3, rate_limit="10/m")
def order(self, order: Order, *, how: Literal["fast", "cheap"] = "fast", note: Optional[str] = None):
    """Sends an "order"."""
    return [order, how, note]


@app.task(name="lib.anything")
def anything(*args, **kwargs):
    return [args, kwargs]


@app.task(name="lib.odd", acks_late=True)
def odd(x: "int | None", when=print):
    return x
