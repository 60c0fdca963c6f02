"""The client for ordinary code. `aclient.py` is the same for asyncio, method by method.

Thread-safe, and safe across `fork`: a child opens connections of its own. A repeated request has the effect of one (wire.py), so
connections that break are repeated here and not by the caller.
"""
from __future__ import annotations

import json
import os
import threading
import time
from types import TracebackType
from typing import Any, Dict, Iterator, List, Mapping, Optional, Type, Union

import httpx

from . import errors, wire
from .handle import Handle, Task
from .signatures import Signature, signature
from .sse import Event, Parser


class Client:
    """Talks to one gateway. `url` and `token` default to `TASKGATE_URL` and `TASKGATE_TOKEN`.

    `timeout`: seconds for one answer. `patience`: for how many seconds `wait` and `stream` go on while nobody answers, as in a
    restart. `transport`: any httpx transport, for tests and proxies.
    """

    def __init__(
        self,
        url: Optional[str] = None,
        token: Optional[str] = None,
        *,
        timeout: float = 10.0,
        patience: float = 60.0,
        attempts: int = 3,
        verify: Any = True,
        transport: Optional[httpx.BaseTransport] = None,
    ) -> None:
        self.url = wire.address(url)
        self.timeout, self.patience, self.attempts = timeout, patience, attempts
        self._headers, self._verify, self._transport = wire.default_headers(token), verify, transport
        self._lock = threading.Lock()
        self._http: Optional[httpx.Client] = None
        self._owner = 0

    # -- submitting ------------------------------------------------------------------------------------------------

    def submit(self, task: str, *args: Any, options: Optional[Mapping[str, Any]] = None, **kwargs: Any) -> Handle:
        """Submits one call. `options`: queue, priority, countdown, eta, expires, labels, unique and whatever else a signature has.

        When this returns, the task is on disk.
        """
        return self.submit_signature(signature(task, *args, options=options, **kwargs))

    def submit_signature(self, call: Signature, *, idempotency_key: Optional[str] = None) -> Handle:
        """Submits any signature: a task, or `{"chain": […]}`, `{"group": […]}`, `{"chord": {"header": […], "body": …}}`,
        `{"dag": {"nodes": {…}}}`."""
        request = wire.submit(call, idempotency_key)
        return Handle.of(self.send(request).json())

    def batch(self, calls: List[Signature], *, atomic: bool = False) -> List[Union[Handle, errors.Problem]]:
        """Submits many signatures at once; the verdicts are in their order. `atomic`: all are accepted, or none (an exception)."""
        return wire.handles(self.send(wire.batch(calls, atomic)).json())

    # -- following -------------------------------------------------------------------------------------------------

    def result(self, task: Task, *, wait: float = 0.0) -> Dict[str, Any]:
        """What is known now, or after the end within `wait` seconds (at most 60): the body of `GET /result/{id}`."""
        body: Dict[str, Any] = self.send(wire.result(task, wait)).json()
        return body

    def wait(self, task: Task, timeout: Optional[float] = None) -> Any:
        """The return value, as soon as there is one; of a group the list of them.

        Raises TaskFailed or TaskRevoked when the task ends otherwise, WaitTimeout when it does not end in time.
        """
        return wire.outcome(self.finished(task, timeout))

    def finished(self, task: Task, timeout: Optional[float] = None) -> Dict[str, Any]:
        """The body of `GET /result/{id}` once the task is finished, however it ended."""
        watch = _Watch(timeout, self.patience)
        while True:
            try:
                body = self.result(task, wait=watch.poll())
                if body["ready"]:
                    return body
                time.sleep(watch.answered())
            except (errors.GatewayUnavailable, errors.OutcomeUnknown) as error:
                watch.sleep(error)
            watch.check(wire.id_of(task))

    def stream(self, task: Task, *, last_event_id: Optional[str] = None, timeout: Optional[float] = None) -> Iterator[Event]:
        """The events of a task or group until its end. Connections that break are resumed: no event is missing or repeated."""
        watch, last = _Watch(timeout, self.patience), last_event_id
        while True:
            parser = Parser()
            try:
                with self._open(wire.events(task, last)) as response:
                    if response.status_code == 204:
                        return
                    watch.answered()
                    for line in response.iter_lines():
                        for event in parser.feed(line):
                            last = event.id
                            watch.answered()
                            yield event
                            if event.is_end:
                                return
                        watch.check(wire.id_of(task))
            except (httpx.TransportError, errors.GatewayUnavailable) as error:
                watch.sleep(error)
            else:
                watch.sleep(None, parser.retry)
            watch.check(wire.id_of(task))

    def task(self, task: Task) -> Dict[str, Any]:
        """Everything about one task: the body of `GET /v1/tasks/{id}`."""
        body: Dict[str, Any] = self.send(wire.Request("GET", f"/v1/tasks/{wire.at(task)}")).json()
        return body

    # -- acting ----------------------------------------------------------------------------------------------------

    def revoke(
        self, task: Task, *, terminate: bool = False, signal: Optional[str] = None, reason: Optional[str] = None
    ) -> Dict[str, Any]:
        """Takes the task back. `verdict`: `prevented` (it will never run), `signalled` (a worker has it) or `too_late`."""
        body: Dict[str, Any] = self.send(wire.revoke(task, terminate, signal, reason)).json()
        return body

    def resume(self, task: Task, *, idempotency_key: Optional[str] = None) -> Handle:
        """Runs again what failed of a DAG, and all that follows it. `task` is any task of the DAG; the handle is that of a new DAG."""
        return Handle.of(self.send(wire.resume(task, idempotency_key)).json())

    # -- the connection ----------------------------------------------------------------------------------------------

    def send(self, request: wire.Request) -> httpx.Response:
        """One request, repeated while that is harmless and may help.

        Raises Problem, GatewayUnavailable (nothing happened), or OutcomeUnknown.
        """
        lost: Optional[Exception] = None
        for attempt in range(self.attempts):
            try:
                response = self._once(request)
                wire.check(response)
                return response
            except errors.IdTaken as taken:
                if lost is None:
                    raise
                return _accepted_before(taken, request)
            except wire.NEVER_SENT as error:
                if lost is None:
                    raise wire.unavailable(error, self.url) from error
            except httpx.TransportError as error:
                lost = error
                if not request.repeat:
                    break
            if attempt + 1 < self.attempts:
                time.sleep(wire.pause(attempt))
        assert lost is not None, "the loop ends by an answer or an error"
        raise wire.unknown(lost, request, self.url) from lost

    def _once(self, request: wire.Request) -> httpx.Response:
        return self._client().request(
            request.method,
            request.path,
            content=request.body,
            headers=dict(request.headers),
            timeout=wire.timeouts(self.timeout, request.patience),
        )

    def _open(self, request: wire.Request) -> _Opened:
        timeout = httpx.Timeout(self.timeout, read=wire.STREAM_SILENCE)
        http = self._client()
        return _Opened(http, http.build_request("GET", request.path, headers=dict(request.headers), timeout=timeout))

    def _client(self) -> httpx.Client:
        with self._lock:
            if self._http is None or self._owner != os.getpid():
                # Of a parent process only the object is dropped: its connections are the parent's.
                self._http = httpx.Client(
                    base_url=self.url, headers=self._headers, verify=self._verify, transport=self._transport,
                    limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
                )
                self._owner = os.getpid()
            return self._http

    def close(self) -> None:
        """Closes the connections. The client opens new ones when it is used again."""
        with self._lock:
            if self._http is not None and self._owner == os.getpid():
                self._http.close()
            self._http = None

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()


class _Opened:
    """A streamed answer that is closed at the end of the block, whatever ends it."""

    def __init__(self, http: httpx.Client, request: httpx.Request) -> None:
        self._http, self._request = http, request
        self._response: Optional[httpx.Response] = None

    def __enter__(self) -> httpx.Response:
        response = self._http.send(self._request, stream=True)
        self._response = response
        try:
            if response.status_code >= 400:
                response.read()
            wire.check(response)
        except BaseException:
            response.close()
            raise
        return response

    def __exit__(self, *_: object) -> None:
        if self._response is not None:
            self._response.close()


class _Watch:
    """When to stop: at the caller's timeout, or when nobody has answered for the client's patience."""

    def __init__(self, timeout: Optional[float], patience: float) -> None:
        self._start = time.monotonic()
        self._timeout, self._patience = timeout, patience
        self._failures, self._silent_since, self._polled_at = 0, self._start, self._start

    def left(self) -> float:
        return float("inf") if self._timeout is None else self._timeout - (time.monotonic() - self._start)

    def is_over(self) -> bool:
        return self.left() <= 0

    def poll(self) -> float:
        """How many seconds the next long poll may wait; less than one means that it does not wait."""
        self._polled_at = time.monotonic()
        return max(0.0, min(wire.LONGEST_POLL, self.left()))

    def answered(self) -> float:
        """Somebody is there. The pause before the next poll: none after a long one."""
        self._failures, self._silent_since = 0, time.monotonic()
        return max(0.0, min(0.1 - (self._silent_since - self._polled_at), self.left()))

    def check(self, task: str) -> None:
        if self.is_over():
            raise errors.WaitTimeout(f"task {task} is not finished after {self._timeout} seconds")

    def pause(self, error: Optional[Exception], floor: float = 0.1) -> float:
        """The pause before the next try; raises `error` when the patience is over."""
        if error is not None and time.monotonic() - self._silent_since > self._patience:
            if isinstance(error, errors.TaskgateError):
                raise error
            raise errors.GatewayUnavailable(f"the gateway was away for {self._patience} seconds: {error}") from error
        self._failures += 1
        return max(0.0, min(wire.pause(self._failures, floor), self.left()))

    def sleep(self, error: Optional[Exception], floor: float = 0.1) -> None:
        time.sleep(self.pause(error, floor))


def _accepted_before(taken: errors.IdTaken, request: wire.Request) -> httpx.Response:
    """The first try was accepted and its answer lost: the refusal of the second proves it."""
    task_id = json.loads(request.body or b"{}").get("task_id")
    if task_id is None:
        raise taken
    return httpx.Response(202, json={"task_id": task_id, "status": "PENDING", "phase": "accepted"})
