"""The gateway as a Celery application sees it: submits, reads and revokes; and decides what happens while it is away."""
from __future__ import annotations

import functools
import json
import logging
import threading
import time
from typing import Any, Dict, List, Mapping, Optional

from kombu.utils import json as kombu_json

from .. import wire
from ..client import Client
from ..errors import ArgumentError, GatewayUnavailable, NotFound
from ..signatures import encode, new_id

log = logging.getLogger("taskgate.celery")

#: For how many seconds after a failure nobody tries the gateway again when calls can go to the broker instead.
REST = 2.0

#: What the top level of a submission may have besides a signature; given as `apply_async(taskgate={…})`.
WISHES = frozenset({"labels", "unique", "limits", "webhooks", "retry"})

Call = Dict[str, Any]


class Gateway:
    """What `taskgate.install` returns.

    `fallback`: `"broker"` publishes directly while the gateway is away, with a warning for each task; None raises.
    """

    def __init__(self, app: Any, client: Client, fallback: Optional[str]) -> None:
        if fallback not in (None, "broker"):
            raise ValueError(f"fallback is {fallback!r}; it may be None or 'broker'")
        self.app, self.client, self.fallback = app, client, fallback
        self._lock = threading.Lock()
        self._rests_until = 0.0
        self._local = threading.local()

    # -- submitting ------------------------------------------------------------------------------------------------

    def submit(self, call: Call, wishes: Optional[Mapping[str, Any]] = None) -> Optional[Mapping[str, Any]]:
        """The gateway's answer; None when the call shall be published directly instead.

        Raises GatewayUnavailable without a fallback; OutcomeUnknown when the answer was lost, because a second way could run the task
        twice.
        """
        call = {**call, **wished(wishes)}
        body = encode(call, dumps)
        headers = {"content-type": "application/json"}
        if "task" not in call:
            headers["idempotency-key"] = new_id()
        if self._rests():
            self._give_up(call, "it was away a moment ago")
            return None
        try:
            answer = self.client.send(wire.Request("POST", "/v1/tasks", body, headers)).json()
        except GatewayUnavailable as error:
            if self.fallback is None:
                raise
            self._rest()
            self._give_up(call, error)
            return None
        return answer  # type: ignore[no-any-return]

    def _give_up(self, call: Call, why: object) -> None:
        name = call.get("task") or f"a {next(iter(call), 'canvas')}"
        log.warning("publishing %s to the broker, because the gateway %s cannot take it: %s", name, self.client.url, why)

    def _rests(self) -> bool:
        return self.fallback is not None and time.monotonic() < self._rests_until

    def _rest(self) -> None:
        with self._lock:
            self._rests_until = time.monotonic() + REST

    # -- stepping aside ----------------------------------------------------------------------------------------------

    def is_bypassed(self) -> bool:
        """Whether this call is Celery's own business: in a worker, in eager mode, and inside of a direct publication."""
        from .install import is_worker

        return is_worker() or bool(self.app.conf.task_always_eager) or getattr(self._local, "bypassed", False)

    def directly(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls Celery's own function; whatever it calls in turn is Celery's own too."""
        before, self._local.bypassed = getattr(self._local, "bypassed", False), True
        try:
            return function(*args, **kwargs)
        finally:
            self._local.bypassed = before

    # -- reading and revoking ----------------------------------------------------------------------------------------

    def result(self, task_id: str, wait: float = 0.0) -> Optional[Dict[str, Any]]:
        """The body of `GET /result/{id}` with Celery's own types in it; None for an id that the ledger never saw."""
        try:
            response = self.client.send(wire.result(task_id, wait))
        except NotFound:
            return None
        return kombu_json.loads(response.text)  # type: ignore[no-any-return]

    def revoke(self, task_ids: List[str], terminate: bool, signal: Optional[str]) -> List[str]:
        """Revokes what the ledger has, and returns the ids that it does not have."""
        unknown = []
        for task_id in task_ids:
            try:
                self.client.revoke(task_id, terminate=terminate, signal=_signal(signal) if terminate else None)
            except NotFound:
                unknown.append(task_id)
        return unknown

    def close(self) -> None:
        self.client.close()


dumps = functools.partial(json.dumps, cls=kombu_json.JSONEncoder)


def wished(wishes: Optional[Mapping[str, Any]]) -> Mapping[str, Any]:
    unknown = set(wishes or ()) - WISHES
    if unknown:
        raise ArgumentError(f"taskgate.{sorted(unknown)[0]}", f"is not one of {', '.join(sorted(WISHES))}")
    return wishes or {}


def _signal(signal: Any) -> Optional[str]:
    """`SIGTERM`, `TERM` and 15 are the same to Celery."""
    import signal as numbers

    if isinstance(signal, int):
        return numbers.Signals(signal).name
    if signal is None:
        return None
    return signal if str(signal).startswith("SIG") else f"SIG{signal}"
