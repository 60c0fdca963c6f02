"""A shop's API that answers at once, while Celery workers do the work.

It shows both ways to submit: the client (`gate`), and Celery's own API, which goes through the gateway (`pack.s() | invoice.s()`).
"""
import json
import os
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from worker import invoice, pack

import taskgate

gate = taskgate.AsyncClient(os.environ["TASKGATE_URL"])


@asynccontextmanager
async def lifespan(_: FastAPI):
    yield
    await gate.close()


app = FastAPI(title="shop", lifespan=lifespan)


class Order(BaseModel):
    item: str
    quantity: int = Field(ge=1, le=100)


@app.get("/")
async def index():
    return {"try": "POST /orders {\"item\": \"tea\", \"quantity\": 3}, then GET /orders/{id} and /orders/{id}/events"}


@app.post("/orders", status_code=202)
async def order(order: Order):
    """When this returns, the order is on disk, whether Redis is up or not."""
    task = await gate.submit("shop.pack", order.item, order.quantity, options={"queue": "shop", "labels": {"item": order.item}})
    return {"id": task.id}


@app.post("/paid-orders", status_code=202)
def paid_order(order: Order, price: float):
    """A canvas, submitted with Celery's own API."""
    result = (pack.s(order.item, order.quantity) | invoice.s(price)).delay()
    return {"id": result.id}


@app.get("/orders/{order_id}")
async def status(order_id: str):
    try:
        found = await gate.result(order_id)
    except taskgate.NotFound as error:
        raise HTTPException(404, "there is no such order") from error
    return {"status": found["status"], "result": found["result"], "progress": found["progress"]}


@app.get("/orders/{order_id}/events")
async def events(order_id: str):
    """Serves an EventSource in the page. If the connection to the gateway breaks, the client resumes it."""

    async def lines():
        async for event in gate.stream(order_id):
            yield f"id: {event.id}\nevent: {event.kind}\ndata: {json.dumps(event.data)}\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")
