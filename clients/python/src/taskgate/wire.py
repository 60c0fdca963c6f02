"""What both clients share: requests as data, and answers turned into values or exceptions. No I/O.

The caller makes the task's id, so a request whose answer was lost is repeated without harm: the gateway refuses the second with
`id-taken`, which then means "accepted".
"""
from __future__ import annotations

import logging
import os
import random
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Tuple, Type, Union
from urllib.parse import quote

import httpx

from . import errors
from ._version import __version__, fits
from .handle import Handle, Task
from .signatures import Signature, encode, new_id

log = logging.getLogger("taskgate")

DEFAULT_URL = "http://127.0.0.1:8000"
#: How long one long poll may wait at the gateway, in seconds. It allows 60; balancers often cut at 60 too.
LONGEST_POLL = 30.0
#: A stream has a comment every 15 seconds; three missing ones mean that the connection is dead.
STREAM_SILENCE = 45.0
VERSION_HEADER = "taskgate-version"


@dataclass(frozen=True)
class Request:
    """One request. `repeat`: sending it twice has the effect of sending it once."""

    method: str
    path: str
    body: Optional[bytes] = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeat: bool = True
    #: Added to the client's timeout: how long the gateway was asked to wait.
    patience: float = 0.0


def address(url: Optional[str]) -> str:
    return (url or os.environ.get("TASKGATE_URL") or DEFAULT_URL).rstrip("/")


def default_headers(token: Optional[str]) -> Dict[str, str]:
    token = token or os.environ.get("TASKGATE_TOKEN")
    headers = {"user-agent": f"taskgate-python/{__version__}", "accept": "application/json"}
    if token:
        headers["authorization"] = f"Bearer {token}"
    return headers


def id_of(task: Task) -> str:
    return task.id if isinstance(task, Handle) else str(task)


def at(task: Task) -> str:
    return quote(id_of(task), safe="")


def submit(signature: Mapping[str, Any], key: Optional[str] = None) -> Request:
    """`POST /v1/tasks`. A single task gets an id here, a canvas a key, so that either may be repeated."""
    signature, headers = dict(signature), {}
    if key:
        headers["idempotency-key"] = key
    elif "task" in signature:
        signature.setdefault("task_id", new_id())
    else:
        headers["idempotency-key"] = new_id()
    return post("/v1/tasks", signature, headers)


def batch(signatures: List[Signature], atomic: bool) -> Request:
    path = "/v1/tasks/batch" + ("?atomic=true" if atomic else "")
    return post(path, signatures, {"idempotency-key": new_id()})


def post(path: str, body: Any, headers: Optional[Mapping[str, str]] = None) -> Request:
    return Request("POST", path, encode(body), {"content-type": "application/json", **(headers or {})})


def result(task: Task, wait: float = 0.0) -> Request:
    headers = {"prefer": f"wait={int(wait)}"} if wait >= 1 else {}
    return Request("GET", f"/result/{at(task)}", headers=headers, patience=wait)


def revoke(task: Task, terminate: bool, signal: Optional[str], reason: Optional[str]) -> Request:
    body: Dict[str, Any] = {"terminate": True} if terminate else {}
    if signal is not None:
        body["signal"] = signal
    if reason is not None:
        body["reason"] = reason
    return post(f"/v1/tasks/{at(task)}/revoke", body)


def resume(task: Task, key: Optional[str]) -> Request:
    """`POST /v1/tasks/{id}/resume`, with a key, so that it may be repeated."""
    return post(f"/v1/tasks/{at(task)}/resume", {}, {"idempotency-key": key or new_id()})


def events(task: Task, last: Optional[str]) -> Request:
    headers = {"accept": "text/event-stream", "cache-control": "no-cache"}
    if last is not None:
        headers["last-event-id"] = last
    return Request("GET", f"/v1/tasks/{at(task)}/events", headers=headers)


def handles(answer: Mapping[str, Any]) -> List[Union[Handle, errors.Problem]]:
    """The verdicts of a batch in the order of its items: a handle, or the problem why it was refused."""
    verdicts: List[Union[Handle, errors.Problem]] = []
    for item in answer["items"]:
        refused = item.get("problem")
        verdicts.append(errors.problem(refused, int(refused.get("status", 0))) if refused else Handle.of(item))
    return verdicts


def outcome(body: Mapping[str, Any]) -> Any:
    """The return value of a finished task, the list of a group's.

    Raises TaskFailed, or TaskRevoked.
    """
    if body.get("successful") or ("group_id" in body and "task_id" not in body and body.get("status") == "SUCCESS"):
        return body.get("result")
    if body.get("status") == "REVOKED":
        raise errors.TaskRevoked(body)
    raise errors.TaskFailed(_first_failure(body))


def _first_failure(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a group the first member that failed stands for all."""
    if body.get("error") or "task_id" in body:
        return body
    failed = next((member for member in body.get("children") or [] if member.get("error")), None)
    return {**body, "error": failed["error"], "task_id": failed["task_id"]} if failed else body


def check(response: httpx.Response) -> None:
    """Raises what the answer says is wrong; reads the body only then."""
    version = response.headers.get(VERSION_HEADER)
    if version and not fits(__version__, version):
        raise errors.IncompatibleGateway(
            f"the gateway at {response.request.url.host} is taskgate {version}, this client is {__version__}: install the client "
            f"of the gateway's release, `pip install taskgate=={version}`"
        )
    if response.status_code < 400:
        return
    raise refusal(response)


def refusal(response: httpx.Response) -> errors.TaskgateError:
    """The exception for an answer of 400 and above, whose body has been read."""
    after, status = _seconds(response.headers.get("retry-after")), response.status_code
    if "json" in response.headers.get("content-type", ""):
        try:
            document = response.json()
        except ValueError:
            document = None
        if isinstance(document, dict) and "type" in document:
            return errors.problem(document, status, after)
    stranger = {"status": status, "title": response.reason_phrase, "detail": f"{response.request.url} answered {status}"}
    if status in (502, 503, 504):
        return errors.problem(stranger, status, after)
    return errors.IncompatibleGateway(
        f"{response.request.url} answered {status} without a problem document: is a taskgate of this client's release "
        f"({__version__}) there?"
    )


def _seconds(text: Optional[str]) -> Optional[float]:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def pause(attempt: int, floor: float = 0.1, cap: float = 5.0) -> float:
    """How long to wait before the next try: doubled each time, bounded, and never the same for all clients."""
    longest: float = min(cap, floor * 2.0**attempt)
    return longest * (0.5 + random.random() / 2)


def timeouts(timeout: float, patience: float = 0.0) -> httpx.Timeout:
    return httpx.Timeout(timeout + patience, connect=min(timeout, 5.0), pool=timeout)


def unavailable(error: Exception, url: str) -> errors.GatewayUnavailable:
    return errors.GatewayUnavailable(f"nobody answers at {url}: {error or type(error).__name__}")


def unknown(error: Exception, request: Request, url: str) -> errors.OutcomeUnknown:
    text = f"{url} did not finish its answer to {request.method} {request.path}: {error or type(error).__name__}"
    return errors.OutcomeUnknown(text)


#: The request never reached the gateway.
NEVER_SENT: Tuple[Type[Exception], ...] = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
