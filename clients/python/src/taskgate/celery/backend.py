"""A result backend that reads the gateway: `AsyncResult` and `GroupResult` work on it unchanged.

What is written stays where it was: chords and results are the workers' business, so those calls go to the application's own backend.
With `fallback="broker"` that backend is also asked for what the gateway does not know, or cannot say.
"""
from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, Mapping, Optional

from celery import states
from celery.backends.base import BaseBackend
from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as CeleryTimeout

from ..client import _Watch
from ..errors import GatewayUnavailable, OutcomeUnknown, WaitTimeout
from ..raised import record
from .gateway import Gateway

Meta = Dict[str, Any]
#: Both places are asked in turn while the gateway does not know the id.
TURN = 0.25


class GatewayBackend(BaseBackend):
    """Reads results from the gateway."""

    supports_autoexpire = True
    persistent = True

    def __init__(self, gateway: Gateway, original: Any) -> None:
        super().__init__(gateway.app)
        self._gateway, self.original = gateway, original

    def as_uri(self, include_password: bool = False) -> str:
        return f"taskgate+{self._gateway.client.url}"

    # -- reading -----------------------------------------------------------------------------------------------------

    def _get_task_meta_for(self, task_id: str) -> Meta:
        body = self._read(task_id, 0.0)
        if body is None:
            return self._elsewhere(task_id)
        return self._meta(task_id, body)

    def wait_for(
        self, task_id: str, timeout: Optional[float] = None, interval: float = 0.5, no_ack: bool = True,
        on_interval: Optional[Callable[[], Any]] = None,
    ) -> Meta:
        """Waits at the gateway, which answers as soon as the task ends."""
        self._ensure_not_eager()
        watch = _Watch(timeout, self._gateway.client.patience)
        while True:
            # Parents are looked at between polls: one that failed is the reason why this task never ends.
            wait = min(watch.poll(), 1.0 if on_interval else watch.poll())
            try:
                body = self._read(task_id, wait)
                watch.answered()
            except (GatewayUnavailable, OutcomeUnknown) as error:
                time.sleep(watch.pause(error))
                continue
            meta = self._elsewhere(task_id) if body is None else self._meta(task_id, body)
            if on_interval:
                on_interval()
            if meta["status"] in states.READY_STATES or (body or {}).get("ready"):
                return meta
            if watch.is_over():
                raise CeleryTimeout("The operation timed out.")
            if body is None or wait < 1:
                time.sleep(max(0.0, min(TURN, interval, watch.left())))

    def wait_for_pending(
        self, result: Any, timeout: Optional[float] = None, interval: float = 0.5, no_ack: bool = True,
        on_message: Optional[Callable[[Meta], Any]] = None, on_interval: Optional[Callable[[], Any]] = None,
        callback: Optional[Callable[..., Any]] = None, propagate: bool = True,
    ) -> Any:
        """As Celery's; `on_message` gets every state of the task, the first one included."""
        if on_message is not None:
            self._watch(result.id, timeout, on_message)
        return super().wait_for_pending(
            result, timeout=timeout, interval=interval, no_ack=no_ack, on_interval=on_interval, callback=callback, propagate=propagate
        )

    def _watch(self, task_id: str, timeout: Optional[float], on_message: Callable[[Meta], Any]) -> None:
        try:
            for event in self._gateway.client.stream(task_id, last_event_id="0", timeout=timeout):
                if event.is_end:
                    on_message(self._meta(task_id, event.data))
                else:
                    on_message({"task_id": task_id, "status": event.status, "result": event.meta, "traceback": None, "children": []})
        except WaitTimeout as error:
            raise CeleryTimeout("The operation timed out.") from error

    def _read(self, task_id: str, wait: float) -> Optional[Mapping[str, Any]]:
        try:
            return self._gateway.result(task_id, wait)
        except (GatewayUnavailable, OutcomeUnknown):
            if self._gateway.fallback is None:
                raise
            return None

    def _elsewhere(self, task_id: str) -> Meta:
        """Of an id that the gateway cannot tell about."""
        if self._gateway.fallback == "broker":
            meta: Meta = self.original.get_task_meta(task_id, cache=False)
            return meta
        return {"task_id": task_id, "status": states.PENDING, "result": None}

    def _meta(self, task_id: str, body: Mapping[str, Any]) -> Meta:
        """As Celery's own backends have it."""
        status = body["status"]
        return {
            "task_id": task_id,
            "status": status,
            "result": self._outcome(status, body),
            "traceback": body.get("traceback"),
            "children": [_tree(child) for child in body.get("children") or []],
            "date_done": body.get("date_done"),
            "name": body.get("task"),
            "retries": body.get("retries"),
            "parent_id": body.get("parent_id"),
            "group_id": body.get("group_id"),
        }

    def _outcome(self, status: str, body: Mapping[str, Any]) -> Any:
        if status == states.SUCCESS:
            return body.get("result")
        if status in states.EXCEPTION_STATES:
            error = record(body)
            if error is not None:
                return self.exception_to_python(error)
            return TaskRevokedError("revoked") if status == states.REVOKED else body.get("progress")
        return body.get("progress")

    # -- groups ------------------------------------------------------------------------------------------------------

    def restore_group(self, group_id: str, cache: bool = True) -> Any:
        """A group that was submitted through the gateway needs no `save`."""
        body = self._read(group_id, 0.0)
        if body is None or "group_id" not in body or "task_id" in body:
            return self.original.restore_group(group_id, cache=cache) if self._gateway.fallback else None
        members = [self.app.AsyncResult(child["task_id"]) for child in body.get("children") or []]
        return self.app.GroupResult(group_id, members)

    def save_group(self, group_id: str, result: Any) -> Any:
        """The ledger has it; one that was published directly is saved where it is."""
        if self._read(group_id, 0.0) is None:
            self.original.save_group(group_id, result)
        return result

    def delete_group(self, group_id: str) -> Any:
        return self.original.delete_group(group_id)

    # -- writing: the application's own backend ----------------------------------------------------------------------

    def _forget(self, task_id: str) -> None:
        self.original.forget(task_id)

    def store_result(self, *args: Any, **kwargs: Any) -> Any:
        return self.original.store_result(*args, **kwargs)

    def on_task_call(self, producer: Any, task_id: str) -> Any:
        return self.original.on_task_call(producer, task_id)

    def apply_chord(self, *args: Any, **kwargs: Any) -> Any:
        return self.original.apply_chord(*args, **kwargs)

    def set_chord_size(self, *args: Any, **kwargs: Any) -> Any:
        return self.original.set_chord_size(*args, **kwargs)

    def ensure_chords_allowed(self) -> None:
        self.original.ensure_chords_allowed()

    def on_chord_part_return(self, *args: Any, **kwargs: Any) -> Any:
        return self.original.on_chord_part_return(*args, **kwargs)


def _tree(child: Mapping[str, Any]) -> Any:
    """Celery's result tuple: `((id, parent), members)`."""
    if "group_id" in child:
        members: List[Any] = [_tree(member) for member in child.get("children") or []]
        return ((child["group_id"], None), members)
    return ((child["task_id"], None), None)
