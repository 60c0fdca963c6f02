"""What can go wrong, as exceptions.

A refusal of the gateway is a `Problem` (RFC 9457); the common kinds have classes of their own, the others are told apart by
`error.slug`. A task that failed is a `TaskFailed`: the gateway did its work, the task did not.
"""
from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Type


class TaskgateError(Exception):
    """Everything that this package raises by itself."""


class ArgumentError(TaskgateError, ValueError):
    """An argument that JSON cannot carry, or an option that the gateway does not know. Nothing was sent."""

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(f"{path}: {detail}")
        self.path = path
        self.detail = detail


class GatewayUnavailable(TaskgateError, ConnectionError):
    """Nobody answers at the gateway's address, or it says that it cannot answer now. Nothing was accepted."""


class OutcomeUnknown(TaskgateError, ConnectionError):
    """The connection ended before the answer came. The task may have been accepted: ask for `task_id`, or send it again with
    the same id, which is accepted at most once."""

    def __init__(self, message: str, task_id: Optional[str] = None) -> None:
        super().__init__(message)
        self.task_id = task_id


class IncompatibleGateway(TaskgateError):
    """The gateway speaks another version of the contract."""


class WaitTimeout(TaskgateError, TimeoutError):
    """The task was not finished in time. It goes on; wait again, or revoke it."""


class TaskFailed(TaskgateError):
    """The task ended without success. `type`, `message` and `traceback` are the task's own; `result` is the whole answer."""

    def __init__(self, result: Mapping[str, Any]) -> None:
        error = result.get("error") or {}
        self.result = result
        self.task_id: Optional[str] = result.get("task_id") or result.get("group_id")
        self.status = str(result.get("status"))
        self.type: Optional[str] = error.get("type")
        self.message: Optional[str] = error.get("message")
        self.traceback: Optional[str] = result.get("traceback")
        what = f"{self.type}: {self.message}" if self.type else self.status
        super().__init__(f"task {self.task_id} ended with {what}")


class TaskRevoked(TaskFailed):
    """The task was revoked, expired before it started, or was skipped because a task before it failed."""


class Problem(TaskgateError):
    """A refusal. `slug` is the last part of `type`; `errors` has a `pointer` and a `detail` for each place of the request."""

    def __init__(self, document: Mapping[str, Any], status: int = 0, retry_after: Optional[float] = None) -> None:
        self.document = dict(document)
        self.type = str(document.get("type", "about:blank"))
        self.slug = self.type.rsplit("/", 1)[-1]
        self.status = int(document.get("status") or status)
        self.title = str(document.get("title", ""))
        self.detail = str(document.get("detail", ""))
        self.errors: List[Dict[str, str]] = list(document.get("errors") or [])
        self.retry_after = retry_after
        places = "; ".join(f"{place.get('pointer') or 'the body'}: {place.get('detail')}" for place in self.errors)
        text = self.detail if not places or places in self.detail else f"{self.detail} ({places})"
        super().__init__(f"{self.status} {self.slug}: {text or self.title}")


class InvalidRequest(Problem):
    """The request does not fit; `errors` names the places."""


class Unauthorized(Problem):
    """The token is missing, unknown, or lacks a scope."""


class TaskNotAllowed(Problem):
    """The gateway may not submit a task of this name: it is neither in the catalog nor in `[submit] allow`."""


class NotFound(Problem):
    """This ledger never saw the id."""


class Pruned(Problem):
    """The task finished so long ago that its record was removed."""


class IdTaken(Problem):
    """The ledger already has a task of this id."""


class PayloadTooLarge(Problem):
    """The body is larger than the gateway takes."""


class RateLimited(Problem):
    """The token's rate limit is used up; `retry_after` says for how many seconds."""


class Unavailable(Problem, GatewayUnavailable):
    """The gateway cannot do it now; `retry_after` says when to try again."""


#: By slug first; what has no entry goes by its status.
_BY_SLUG: Dict[str, Type[Problem]] = {
    "invalid-request": InvalidRequest,
    "invalid-json": InvalidRequest,
    "unauthorized": Unauthorized,
    "insufficient-scope": Unauthorized,
    "token-limited": TaskNotAllowed,
    "task-not-allowed": TaskNotAllowed,
    "task-not-found": NotFound,
    "task-pruned": Pruned,
    "id-taken": IdTaken,
    "payload-too-large": PayloadTooLarge,
    "rate-limited": RateLimited,
}
_BY_STATUS: Dict[int, Type[Problem]] = {401: Unauthorized, 502: Unavailable, 503: Unavailable, 504: Unavailable}


def problem(document: Mapping[str, Any], status: int, retry_after: Optional[float] = None) -> Problem:
    """The exception for a problem document."""
    slug = str(document.get("type", "")).rsplit("/", 1)[-1]
    kind = _BY_SLUG.get(slug) or _BY_STATUS.get(status) or Problem
    return kind(document, status, retry_after)
