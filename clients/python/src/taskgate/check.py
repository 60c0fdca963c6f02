"""Says what an application's settings mean for the gateway: `python -m taskgate.check shop.celery`.

Nothing is connected: it reads the settings as a worker would. `taskgate check` looks at the running system instead. Exit code 1 when
something would not work.
"""
from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Iterator, List, Optional

from .application import load, tasks
from .export import toml

#: Celery's default on Redis: what a worker does not acknowledge for so long is delivered again.
VISIBILITY = 3_600
#: The gateway takes results within seconds, and needs a few rounds after a fault.
SHORTEST_EXPIRY = 300


#: kombu's options that decide where messages lie: keys of the gateway's [broker] of the same name.
_SHARED = (
    "global_keyprefix", "sep", "priority_steps", "queue_order_strategy", "fanout_prefix", "fanout_patterns", "unacked_key",
    "unacked_index_key", "unacked_mutex_key",
)


@dataclass(frozen=True)
class Finding:
    """`weight`: `ok`, `note` (worth knowing), `warning` (surprises are near), `problem` (does not work)."""

    weight: str
    setting: str
    text: str


def findings(app: Any) -> List[Finding]:
    """All findings, in the order of the settings' importance."""
    return [*_serializers(app), *_broker(app), *_results(app), *_delivery(app), *_sending(app), *_each_task(app)]


def _serializers(app: Any) -> Iterator[Finding]:
    conf = app.conf
    if conf.task_serializer != "json":
        yield Finding("problem", "task_serializer", f"is {conf.task_serializer!r}; the gateway carries JSON: set it to 'json'")
    else:
        yield Finding("ok", "task_serializer", "is 'json'")
    if conf.accept_content and not {"json", "application/json"} & set(conf.accept_content):
        yield Finding("problem", "accept_content", "lacks 'json': workers would refuse what the gateway publishes")
    if conf.result_serializer == "pickle":
        text = "is 'pickle'; the gateway opens no pickle, so results are shown as bytes: set it to 'json'"
        yield Finding("warning", "result_serializer", text)
    elif conf.result_serializer != "json":
        yield Finding("note", "result_serializer", f"is {conf.result_serializer!r}: results become JSON in the ledger")
    if conf.task_protocol != 2:
        yield Finding("problem", "task_protocol", f"is {conf.task_protocol}; the gateway speaks version 2")


def _broker(app: Any) -> Iterator[Finding]:
    conf = app.conf
    url = str((conf.broker_read_url or conf.broker_url or "amqp://") if not isinstance(conf.broker_url, list) else conf.broker_url[0])
    transport = url.split(":", 1)[0].split("+")[0]
    options = dict(conf.broker_transport_options or {})
    if transport not in ("redis", "rediss", "sentinel", "amqp", "amqps", "pyamqp"):
        yield Finding("problem", "broker_url", f"is {transport}://; the gateway speaks to Redis, to Sentinel, and to RabbitMQ")
        return
    yield Finding("ok", "broker_url", f"is {transport}://: give the gateway the same one as broker.url")
    if not transport.endswith(("amqp", "amqps")):
        for name in _SHARED:
            if name in options:
                text = f"is not the default, and the gateway has to use the same: write broker.{name} = {toml(options[name])}"
                yield Finding("warning", f"broker_transport_options.{name}", text)
        yield from _visibility(app, options)


def _visibility(app: Any, options: Any) -> Iterator[Finding]:
    name = "broker_transport_options.visibility_timeout"
    seconds = options.get("visibility_timeout", VISIBILITY)
    if seconds != VISIBILITY:
        yield Finding("note", name, f"is {seconds} s: write broker.visibility_timeout = {seconds}")
    late = [(task, _limit(app, one)) for task, one in tasks(app).items() if one.acks_late]
    longest = max((limit for _, limit in late if limit), default=0)
    unlimited = [task for task, limit in late if not limit]
    if longest > seconds:
        text = f"is {seconds} s and a task with acks_late may run {longest:g} s: only the gateway's renewal keeps it from running twice"
        yield Finding("warning", name, text)
    elif unlimited:
        text = f"is {seconds} s, and {_some(unlimited)} with acks_late and no time_limit may run longer; the gateway renews their leases"
        yield Finding("note", name, text)


def _limit(app: Any, task: Any) -> float:
    return float(task.time_limit or app.conf.task_time_limit or 0)


def _results(app: Any) -> Iterator[Finding]:
    conf = app.conf
    backend = str(app.backend_cls or conf.result_backend or "")
    kind = backend.split(":", 1)[0].split("+")[0]
    if not backend or backend.startswith("disabled"):
        yield Finding("warning", "result_backend", "is not set: the gateway learns states from events, and no return values")
    elif kind in ("redis", "rediss", "sentinel"):
        yield Finding("ok", "result_backend", f"is {kind}://: give the gateway the same one as backend.url")
    elif kind == "rpc":
        yield Finding("note", "result_backend", "is rpc://: with RabbitMQ as broker the gateway names its own reply queue")
    else:
        yield Finding("warning", "result_backend", f"is {kind!r}: see which result backends your gateway reads")
    expires = conf.result_expires
    seconds = expires.total_seconds() if isinstance(expires, timedelta) else expires
    if seconds and seconds < SHORTEST_EXPIRY:
        text = f"is {seconds:g} s: a result may be gone before the gateway has read it after a fault; {SHORTEST_EXPIRY} s is safe"
        yield Finding("warning", "result_expires", text)
    else:
        yield Finding("ok", "result_expires", f"is {f'{seconds:g} s' if seconds else 'never'}: the ledger keeps results longer anyway")
    prefix = (conf.result_backend_transport_options or {}).get("global_keyprefix")
    if prefix:
        yield Finding("note", "result_backend_transport_options.global_keyprefix", f"write backend.key_prefix = {json.dumps(prefix)}")
    if conf.task_ignore_result:
        yield Finding("note", "task_ignore_result", "is on: tasks are settled by their events, without return values")


def _delivery(app: Any) -> Iterator[Finding]:
    conf = app.conf
    if conf.task_acks_late and not conf.task_reject_on_worker_lost:
        text = "is on and task_reject_on_worker_lost is off: a task whose process is killed fails instead of being delivered again"
        yield Finding("note", "task_acks_late", text)
    if not conf.task_acks_late:
        text = "is off: what a worker that dies had begun is settled by the gateway's `recovery`, by default reported and not run again"
        yield Finding("note", "task_acks_late", text)
    if conf.worker_prefetch_multiplier != 1:
        text = f"is {conf.worker_prefetch_multiplier}: a worker keeps tasks that others could run, and they cannot be revoked for certain"
        yield Finding("note", "worker_prefetch_multiplier", text)


def _sending(app: Any) -> Iterator[Finding]:
    conf = app.conf
    if conf.task_always_eager:
        yield Finding("warning", "task_always_eager", "is on: nothing is sent, neither to the gateway nor to a broker")
    if conf.task_default_queue != "celery":
        text = f"write broker.default_queue = {json.dumps(conf.task_default_queue)}, for those who submit over HTTP"
        yield Finding("note", "task_default_queue", text)
    if conf.task_routes:
        text = "are applied by taskgate.install; those who submit over HTTP need them in the gateway's [routes]"
        yield Finding("note", "task_routes", text)
    if not conf.worker_send_task_events:
        yield Finding("ok", "worker_send_task_events", "is off: the gateway switches events on by itself")
    if not conf.enable_utc:
        yield Finding("warning", "enable_utc", "is off: a naive eta is taken as UTC by the gateway and by workers of other settings")


def _each_task(app: Any) -> Iterator[Finding]:
    for name, task in tasks(app).items():
        if task.serializer not in (None, "json", app.conf.task_serializer):
            yield Finding("problem", name, f"has serializer={task.serializer!r}; the gateway carries JSON only")


def _some(names: List[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser("python -m taskgate.check", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("app", help="the application, as celery -A takes it: shop.celery or shop.celery:app")
    parser.add_argument("--json", action="store_true", help="one JSON array")
    given = parser.parse_args(arguments)
    found = findings(load(given.app))
    if given.json:
        json.dump([asdict(one) for one in found], sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        for one in found:
            sys.stdout.write(f"{one.weight:8} {one.setting}: {one.text}\n")
    return 1 if any(one.weight == "problem" for one in found) else 0


if __name__ == "__main__":
    raise SystemExit(main())
