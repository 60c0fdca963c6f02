"""The client for asyncio: `client.py` method by method, with `await`.

One client belongs to one event loop, as httpx's connections do.
"""
from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, AsyncIterator, Dict, List, Mapping, Optional, Type, Union

import httpx

from . import errors, wire
from .client import _accepted_before, _Watch
from .handle import Handle, Task
from .signatures import Signature, signature
from .sse import Event, Parser


class AsyncClient:
    """Talks to one gateway. The parameters are those of `Client`."""

    def __init__(
        self,
        url: Optional[str] = None,
        token: Optional[str] = None,
        *,
        timeout: float = 10.0,
        patience: float = 60.0,
        attempts: int = 3,
        verify: Any = True,
        transport: Optional[httpx.AsyncBaseTransport] = None,
    ) -> None:
        self.url = wire.address(url)
        self.timeout, self.patience, self.attempts = timeout, patience, attempts
        self._http = httpx.AsyncClient(
            base_url=self.url, headers=wire.default_headers(token), verify=verify, transport=transport,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
        )

    # -- submitting ------------------------------------------------------------------------------------------------

    async def submit(self, task: str, *args: Any, options: Optional[Mapping[str, Any]] = None, **kwargs: Any) -> Handle:
        """As `Client.submit`."""
        return await self.submit_signature(signature(task, *args, options=options, **kwargs))

    async def submit_signature(self, call: Signature, *, idempotency_key: Optional[str] = None) -> Handle:
        """As `Client.submit_signature`."""
        return Handle.of((await self.send(wire.submit(call, idempotency_key))).json())

    async def batch(self, calls: List[Signature], *, atomic: bool = False) -> List[Union[Handle, errors.Problem]]:
        """As `Client.batch`."""
        return wire.handles((await self.send(wire.batch(calls, atomic))).json())

    # -- following -------------------------------------------------------------------------------------------------

    async def result(self, task: Task, *, wait: float = 0.0) -> Dict[str, Any]:
        """As `Client.result`."""
        body: Dict[str, Any] = (await self.send(wire.result(task, wait))).json()
        return body

    async def wait(self, task: Task, timeout: Optional[float] = None) -> Any:
        """As `Client.wait`."""
        return wire.outcome(await self.finished(task, timeout))

    async def finished(self, task: Task, timeout: Optional[float] = None) -> Dict[str, Any]:
        """As `Client.finished`."""
        watch = _Watch(timeout, self.patience)
        while True:
            try:
                body = await self.result(task, wait=watch.poll())
                if body["ready"]:
                    return body
                await asyncio.sleep(watch.answered())
            except (errors.GatewayUnavailable, errors.OutcomeUnknown) as error:
                await asyncio.sleep(watch.pause(error))
            watch.check(wire.id_of(task))

    async def stream(
        self, task: Task, *, last_event_id: Optional[str] = None, timeout: Optional[float] = None
    ) -> AsyncIterator[Event]:
        """As `Client.stream`: `async for event in client.stream(task)`."""
        watch, last = _Watch(timeout, self.patience), last_event_id
        while True:
            parser = Parser()
            try:
                response = await self._open(wire.events(task, last))
                try:
                    if response.status_code == 204:
                        return
                    watch.answered()
                    async for line in response.aiter_lines():
                        for event in parser.feed(line):
                            last = event.id
                            watch.answered()
                            yield event
                            if event.is_end:
                                return
                        watch.check(wire.id_of(task))
                finally:
                    await response.aclose()
            except (httpx.TransportError, errors.GatewayUnavailable) as error:
                await asyncio.sleep(watch.pause(error))
            else:
                await asyncio.sleep(watch.pause(None, parser.retry))
            watch.check(wire.id_of(task))

    async def task(self, task: Task) -> Dict[str, Any]:
        """As `Client.task`."""
        body: Dict[str, Any] = (await self.send(wire.Request("GET", f"/v1/tasks/{wire.at(task)}"))).json()
        return body

    # -- acting ----------------------------------------------------------------------------------------------------

    async def revoke(
        self, task: Task, *, terminate: bool = False, signal: Optional[str] = None, reason: Optional[str] = None
    ) -> Dict[str, Any]:
        """As `Client.revoke`."""
        body: Dict[str, Any] = (await self.send(wire.revoke(task, terminate, signal, reason))).json()
        return body

    async def resume(self, task: Task, *, idempotency_key: Optional[str] = None) -> Handle:
        """As `Client.resume`."""
        return Handle.of((await self.send(wire.resume(task, idempotency_key))).json())

    # -- the connection ----------------------------------------------------------------------------------------------

    async def send(self, request: wire.Request) -> httpx.Response:
        """As `Client.send`."""
        lost: Optional[Exception] = None
        for attempt in range(self.attempts):
            try:
                response = await self._http.request(
                    request.method, request.path, content=request.body, headers=dict(request.headers),
                    timeout=wire.timeouts(self.timeout, request.patience),
                )
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
                await asyncio.sleep(wire.pause(attempt))
        assert lost is not None, "the loop ends by an answer or an error"
        raise wire.unknown(lost, request, self.url) from lost

    async def _open(self, request: wire.Request) -> httpx.Response:
        timeout = httpx.Timeout(self.timeout, read=wire.STREAM_SILENCE)
        response = await self._http.send(
            self._http.build_request("GET", request.path, headers=dict(request.headers), timeout=timeout), stream=True
        )
        try:
            if response.status_code >= 400:
                await response.aread()
            wire.check(response)
        except BaseException:
            await response.aclose()
            raise
        return response

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.close()
