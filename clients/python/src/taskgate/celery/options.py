"""Celery's options of a call as the gateway's.

The queue is resolved here, by the application's own routes, because only it knows them. It is left out where the application says
nothing, so that the gateway's catalog may name one.
"""
from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone
from typing import Any, Dict, List, Mapping, Optional

from ..errors import ArgumentError
from ..signatures import moment
from .settings import check_task_serializer

log = logging.getLogger("taskgate.celery")

#: How Celery would publish it; the gateway does that in its own way.
_ABOUT_PUBLISHING = frozenset({
    "producer", "publisher", "router", "result_cls", "add_to_parent", "route_name", "retry", "retry_policy", "delivery_mode",
    "mandatory", "immediate", "compression", "expiration", "reply_to", "task_type", "declare", "timeout", "confirm_timeout",
    "origin", "argsrepr", "kwargsrepr", "replaced_task_nesting", "retries", "max_retries", "interval", "lang", "ignored",
})
#: The place in a canvas that a worker is carrying on. The gateway knows it by the signature's shape.
PLACE = ("group_id", "group_index", "chord", "chain", "root_id", "parent_id")
_KNOWN = frozenset({
    "queue", "exchange", "routing_key", "priority", "countdown", "eta", "expires", "ignore_result", "soft_time_limit", "time_limit",
    "task_id", "headers", "link", "link_error", "serializer", "shadow", "stamped_headers", "taskgate", *PLACE,
})
_told: set[str] = set()


def gateway_options(app: Any, name: str, args: Any, kwargs: Any, options: Mapping[str, Any], task_type: Any) -> Dict[str, Any]:
    """The options of one call, without its links and its id.

    Raises ArgumentError for what the gateway cannot express.
    """
    check_task_serializer(name, options.get("serializer"))
    if options.get("stamped_headers"):
        raise ArgumentError(f"{name}: stamped_headers", "stamps are not carried by the gateway; send the values as headers or labels")
    _tell_unknown(name, options)
    found: Dict[str, Any] = {
        "queue": queue(app, name, args, kwargs, options, task_type),
        "priority": priority(options.get("priority")),
        "expires": expires(options.get("expires")),
        "ignore_result": True if options.get("ignore_result") else None,
        "soft_time_limit": options.get("soft_time_limit"),
        "time_limit": options.get("time_limit"),
        "headers": options.get("headers") or None,
        **due(options.get("countdown"), options.get("eta")),
    }
    return {option: value for option, value in found.items() if value is not None}


def queue(app: Any, name: str, args: Any, kwargs: Any, options: Mapping[str, Any], task_type: Any) -> Optional[str]:
    """The queue that Celery would publish to; None when it is nobody's choice but Celery's default."""
    says = {key: options[key] for key in ("queue", "exchange", "routing_key") if options.get(key)}
    router, default = app.amqp.router, app.conf.task_default_queue
    if not says and not router.routes:
        return None if default == "celery" else str(default)
    routed = router.route(dict(says), name, args, kwargs, task_type)
    if "queue" not in says and ("exchange" in routed or "routing_key" in routed):
        return _bound(app, name, routed)
    chosen = routed.get("queue")
    chosen = getattr(chosen, "name", chosen)
    return None if chosen == default == "celery" and "queue" not in says else chosen


def _bound(app: Any, name: str, routed: Mapping[str, Any]) -> str:
    """The queue that an exchange and a routing key lead to."""
    exchange, key = routed.get("exchange"), routed.get("routing_key")
    exchange = getattr(exchange, "name", exchange)
    fitting: List[str] = [
        queue.name
        for queue in app.amqp.queues.values()
        if (exchange is None or queue.exchange.name == exchange) and (key is None or queue.routing_key == key)
    ]
    if len(fitting) != 1:
        raise ArgumentError(
            f"{name}: routing_key", f"exchange {exchange!r} with key {key!r} leads to {len(fitting)} queues of task_queues; name the queue"
        )
    return fitting[0]


def priority(value: Any) -> Optional[int]:
    """0 to 9; kombu clamps too."""
    return None if value is None else max(0, min(9, int(value)))


def due(countdown: Any, eta: Any) -> Dict[str, Any]:
    """`countdown` or `eta`, of which Celery lets the first win. One that is over means now."""
    if countdown is not None:
        if not isinstance(countdown, (int, float)):
            raise ArgumentError("countdown", f"is {countdown!r}; it must be a number of seconds")
        return {"countdown": float(countdown)} if countdown > 0 else {}
    if isinstance(eta, datetime):
        return {"eta": moment(eta)}
    return {"eta": eta} if eta else {}


def expires(value: Any) -> Any:
    """Seconds or a time. What is over already is a time in the past, which ends as Celery's REVOKED."""
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, (int, float)) and value <= 0:
        return moment(datetime.now(timezone.utc) + timedelta(seconds=float(value)))
    return value


def _tell_unknown(name: str, options: Mapping[str, Any]) -> None:
    """Once for each: an option that changes nothing should not look as if it did."""
    unknown = {option for option, value in options.items() if value is not None} - _KNOWN - _ABOUT_PUBLISHING
    if options.get("shadow"):
        unknown.add("shadow")
    for option in unknown - _told:
        _told.add(option)
        log.warning("the gateway does not carry the option %s (first seen at a call of %s)", option, name)
