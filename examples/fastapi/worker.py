"""The Celery application, used by the worker and by the programs that call its tasks."""
import os
import time

from celery import Celery

import taskgate

app = Celery("shop", broker=os.environ["CELERY_BROKER_URL"], backend=os.environ["CELERY_RESULT_BACKEND"])
app.conf.task_default_queue = "shop"

# With this line, `.delay()` goes through the gateway. In the worker it changes nothing.
taskgate.install(app, url=os.environ["TASKGATE_URL"], fallback="broker")


@app.task(name="shop.pack", bind=True)
def pack(self, item: str, quantity: int) -> dict:
    """Packs an order, item by item."""
    for piece in range(1, quantity + 1):
        self.update_state(state="PROGRESS", meta={"progress": piece, "total": quantity, "message": f"packed {item} {piece}"})
        time.sleep(0.1)
    return {"item": item, "pieces": quantity}


@app.task(name="shop.invoice")
def invoice(packed: dict, price: float) -> float:
    """Computes the price of the order."""
    return round(packed["pieces"] * price, 2)
