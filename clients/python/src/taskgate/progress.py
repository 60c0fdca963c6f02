"""A progress bar for terminals and notebooks, fed by a task's events. Needs tqdm: `pip install 'taskgate[progress]'`."""
from __future__ import annotations

from typing import Any, Mapping, Optional

from . import wire
from .client import Client
from .handle import Task
from .sse import Event


def progress(client: Client, task: Task, *, timeout: Optional[float] = None, **bar: Any) -> Any:
    """Shows a bar until the task ends, and returns what `client.wait` returns.

    It reads the words that tasks use for `update_state`: `progress`, `current`, `done` or `completed`, with `total`, and a
    `message`. Everything else in `bar` goes to tqdm.
    """
    from tqdm.auto import tqdm

    body: Optional[Mapping[str, Any]] = None
    with tqdm(**{"desc": wire.id_of(task)[:8], **bar}) as shown:
        for event in client.stream(task, timeout=timeout):
            if event.is_end:
                body = event.data
            else:
                _show(shown, event)
        if body is not None and body.get("successful") and shown.total:
            shown.update(shown.total - shown.n)
    return wire.outcome(body) if body is not None else client.wait(task, timeout=0.001)


def _show(shown: Any, event: Event) -> None:
    meta = event.meta if isinstance(event.meta, Mapping) else event.data
    done, total = position(meta)
    if total is not None:
        shown.total = total
    if done is not None:
        shown.update(done - shown.n)
    if isinstance(meta.get("message"), str):
        shown.set_postfix_str(meta["message"], refresh=False)
    shown.refresh()


def position(meta: Mapping[str, Any]) -> Any:
    """How much is done, and of how much; None for what the task does not say."""
    done = next((meta[word] for word in ("progress", "current", "done", "completed") if _is_number(meta.get(word))), None)
    total = meta.get("total")
    return done, total if _is_number(total) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
