"""FastAPI in front of Celery, as people write it by hand: the peer to which the benches compare taskgate.

    DURABLE=1 also commits a row to PostgreSQL before the answer, as a careful author would. QUEUE is the queue of the tasks; no worker
    consumes the default one.
"""
import os
import uuid

from celery import Celery
from celery.result import AsyncResult
from fastapi import FastAPI
from pydantic import BaseModel

celery = Celery("peer", broker=os.environ["CELERY_BROKER_URL"], backend=os.environ["CELERY_RESULT_BACKEND"])
app = FastAPI()
durable = os.environ.get("DURABLE") == "1"
queue = os.environ.get("QUEUE", "bench")

if durable:
    from psycopg_pool import ConnectionPool

    pool = ConnectionPool(os.environ["DATABASE_URL"], min_size=4, max_size=16, open=True)
    with pool.connection() as connection:
        connection.execute("create table if not exists peer_task (id text primary key, name text, args text, at timestamptz)")


class Call(BaseModel):
    task: str
    args: list = []


@app.post("/v1/tasks", status_code=202)
def submit(call: Call):
    task_id = str(uuid.uuid4())
    if durable:
        with pool.connection() as connection:
            connection.execute("insert into peer_task values (%s, %s, %s, now())", (task_id, call.task, str(call.args)))
    celery.send_task(call.task, args=call.args, task_id=task_id, queue=queue)
    return {"task_id": task_id, "status": "PENDING"}


@app.get("/result/{task_id}")
def result(task_id: str):
    found = AsyncResult(task_id, app=celery)
    return {"task_id": task_id, "status": found.status, "result": found.result if found.ready() else None}
