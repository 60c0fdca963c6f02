"""Puts the gateway between an application and its broker, and takes it away again.

Per application `send_task`, the result backend and `control.revoke` are replaced on the instance. The classes of canvases are Celery's,
for all applications of the process, so their `apply_async` gets a door once: it leads to the gateway of the canvas's own application,
or, where none is installed, to Celery's own code.
"""
from __future__ import annotations

import functools
import logging
import threading
from typing import Any, Dict, Optional
from weakref import WeakSet

import celery.app.base
from celery import signals
from celery.canvas import _chain, group
from celery.canvas import _chord as chord
from celery.utils.functional import maybe_list

from ..client import Client
from ..errors import GatewayUnavailable
from . import signals as publication
from .backend import GatewayBackend
from .convert import Converter, task_defaults
from .gateway import Gateway
from .options import PLACE
from .settings import check_serializers
from .types import tell_types
from .via import TransactionGateway

log = logging.getLogger("taskgate.celery")

#: Where an application keeps its gateway.
_PLACE = "_taskgate"
_apps: WeakSet[Any] = WeakSet()
_lock = threading.Lock()
_worker = False
#: Celery 5.7 looks up a registered task's options in `send_task` too.
_SENDS_WITH_DEFAULTS = hasattr(celery.app.base, "_OMITTED")


def install(
    app: Any, url: Optional[str] = None, token: Optional[str] = None, *, fallback: Optional[str] = None,
    client: Optional[Client] = None, via: Any = None, **client_options: Any,
) -> Gateway:
    """From now on what `app` submits goes through the gateway at `url`. Nothing is connected yet.

    `fallback="broker"`: while the gateway is away, publish directly, with a warning. Further options are those of `Client`.

    `via="django"`, `"django:ALIAS"`, `"sqlalchemy"`, a connection, or a function that returns one: calls are written into the transaction
    at hand, and become tasks when it commits. Results are read from the gateway all the same.

    Raises WrongSetting when the application's settings do not fit, naming the setting.
    """
    app = _itself(app)
    check_serializers(app)
    tell_types()
    client = client or Client(url, token, **{"timeout": 10.0, **client_options})
    if via is not None and fallback is not None:
        raise ValueError("fallback means nothing beside via: the call commits with its transaction, wherever the gateway is")
    gateway = Gateway(app, client, fallback) if via is None else TransactionGateway(app, client, via)
    with _lock:
        if installed(app) is not None:
            _remove(app)
        _open_doors()
        _replace(app, gateway)
    return gateway


def uninstall(app: Any) -> None:
    """Gives the application back to Celery."""
    app = _itself(app)
    with _lock:
        if installed(app) is not None:
            _remove(app)


def installed(app: Any) -> Optional[Gateway]:
    """The gateway of an application."""
    gateway: Optional[Gateway] = vars(_itself(app)).get(_PLACE)
    return gateway


def _itself(app: Any) -> Any:
    """Celery hands out proxies of the current application."""
    current = getattr(app, "_get_current_object", None)
    return current() if current is not None else app


def is_worker() -> bool:
    """Whether this process is a Celery worker, or runs a task: what is sent then belongs to that task's canvas."""
    from celery._state import get_current_worker_task

    return _worker or get_current_worker_task() is not None


@signals.celeryd_init.connect(weak=False)
@signals.worker_init.connect(weak=False)
@signals.worker_process_init.connect(weak=False)
def _become_worker(**_: Any) -> None:
    """In a worker nothing is left of the gateway but the doors, which are open."""
    global _worker
    _worker = True
    for app in list(_apps):
        _forget_backend(app)


# -- one application -------------------------------------------------------------------------------------------------


def _replace(app: Any, gateway: Gateway) -> None:
    vars(app)[_PLACE] = gateway
    _apps.add(app)
    app.send_task = functools.partial(_send_task, gateway, app.send_task)
    original_backend = app._get_backend
    app._get_backend = functools.partial(_get_backend, gateway, original_backend)
    _forget_backend(app)
    app.control.revoke = functools.partial(_revoke, gateway, app.control.revoke)


def _remove(app: Any) -> None:
    vars(app).pop(_PLACE).close()
    _apps.discard(app)
    for owner, name in ((app, "send_task"), (app, "_get_backend"), (app.control, "revoke")):
        vars(owner).pop(name, None)
    _forget_backend(app)


def _forget_backend(app: Any) -> None:
    """Applications keep their backend, for all threads or for each."""
    app._backend_cache = None
    vars(app._local).pop("backend", None)


def _get_backend(gateway: Gateway, original: Any) -> Any:
    return original() if is_worker() else GatewayBackend(gateway, original())


def _send_task(
    gateway: Gateway, original: Any, name: str, args: Any = None, kwargs: Any = None, *positional: Any, **options: Any
) -> Any:
    """`app.send_task`, which `delay` and `apply_async` of a task end in too."""
    wishes = options.pop("taskgate", None)
    if positional or gateway.is_bypassed() or options.get("connection") or any(options.get(place) for place in PLACE):
        return gateway.directly(original, name, args, kwargs, *positional, **options)
    task_type = options.pop("task_type", None)
    merged: Dict[str, Any] = dict(options)
    if task_type is None and _SENDS_WITH_DEFAULTS:
        task_type = gateway.app._tasks.get(name)
        if task_type is not None:
            merged = {**task_defaults(task_type), **options}
    converter = Converter(gateway.app)
    call = converter.call(name, args or (), kwargs or {}, merged, task_type)
    publication.before(call)
    answer = gateway.submit(call, wishes)
    if answer is None:
        return gateway.directly(original, name, args, kwargs, **{**options, "task_id": call["task_id"], "task_type": task_type})
    publication.after(call)
    result = (options.get("result_cls") or gateway.app.AsyncResult)(answer.get("task_id") or call["task_id"])
    result.ignored = bool(call.get("ignore_result"))
    return result


def _revoke(gateway: Gateway, original: Any, task_id: Any, destination: Any = None, terminate: bool = False,
            signal: Any = "SIGTERM", **options: Any) -> Any:
    """`app.control.revoke`: a verdict for what the ledger has; the broadcast of Celery for what it does not have."""
    if gateway.is_bypassed() or destination:
        return original(task_id, destination=destination, terminate=terminate, signal=signal, **options)
    ids = [str(one) for one in maybe_list(task_id) or []]
    try:
        unknown = gateway.revoke(ids, terminate, signal)
    except GatewayUnavailable as error:
        if gateway.fallback is None:
            raise
        log.warning("revoking by broadcast, because the gateway is away: %s", error)
        unknown = ids
    if unknown:
        return original(unknown, terminate=terminate, signal=signal, **options)
    return [] if options.get("reply") else None


# -- canvases --------------------------------------------------------------------------------------------------------


def _open_doors() -> None:
    for kind in (_chain, group, chord):
        if not hasattr(kind.apply_async, "is_taskgate"):
            kind.apply_async = _door(kind.apply_async)


def _door(original: Any) -> Any:
    @functools.wraps(original)
    def apply_async(self: Any, args: Any = None, kwargs: Any = None, *positional: Any, **options: Any) -> Any:
        wishes = options.pop("taskgate", None)
        gateway = installed(self.app)
        if gateway is None or positional or options.get("connection") or gateway.is_bypassed() or _is_part(self, options):
            if gateway is not None:
                return gateway.directly(original, self, args, kwargs, *positional, **options)
            return original(self, args, kwargs, *positional, **options)
        return _apply(gateway, original, self, args, kwargs, wishes, options)

    apply_async.is_taskgate = True  # type: ignore[attr-defined]
    return apply_async


def _is_part(canvas: Any, options: Dict[str, Any]) -> bool:
    """An empty canvas, which Celery answers by itself, or one that a canvas outside of the gateway goes on with."""
    is_empty = isinstance(canvas, (_chain, group)) and isinstance(canvas.tasks, (list, tuple)) and not canvas.tasks
    return is_empty or any(options.get(place) for place in PLACE)


def _apply(gateway: Gateway, original: Any, canvas: Any, args: Any, kwargs: Any, wishes: Any, options: Dict[str, Any]) -> Any:
    if isinstance(canvas, group):
        for option in ("link", "link_error"):
            if options.get(option) is not None:
                raise TypeError("Cannot add link to group: use a chord, or do that on individual tasks")
    piece = Converter(gateway.app).convert(canvas, args or (), kwargs or {}, **options)
    answer = gateway.submit(piece.call, wishes)
    if answer is None:
        return gateway.directly(original, canvas, args, kwargs, **options)
    group_id = answer.get("group_id")
    if group_id and "task_id" not in answer:
        piece.result.id = group_id
    return piece.result
