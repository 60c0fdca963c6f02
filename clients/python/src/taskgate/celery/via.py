"""Submits inside of the caller's own transaction: a task if, and only if, that transaction commits.

What a call of Celery would send is written by `taskgate.enqueue` over the connection at hand; a gateway takes it from there after the
commit (`taskgate inbox install`, `[[inboxes]]`). Nothing here opens, commits or rolls back a transaction.
"""
from __future__ import annotations

import contextlib
import contextvars
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple

from ..client import Client
from ..errors import ArgumentError
from ..signatures import encode
from .convert import last
from .gateway import Call, Gateway, dumps, wished

#: The sessions of this thread or task whose transactions are open, the newest last; and what `within` said.
_open: contextvars.ContextVar[Tuple[Any, ...]] = contextvars.ContextVar("taskgate_open", default=())
_said: contextvars.ContextVar[Tuple[Any, ...]] = contextvars.ContextVar("taskgate_said", default=())

#: Whether sessions are heard. Once for the process.
_listens = False

ENQUEUE = "select taskgate.enqueue({}, {}, {}, {})"
ENQUEUE_CANVAS = "select taskgate.enqueue_canvas({}, {})"


class TransactionGateway(Gateway):
    """What `taskgate.install(app, via=…)` returns."""

    def __init__(self, app: Any, client: Client, via: Any) -> None:
        super().__init__(app, client, None)
        self._at_hand = at_hand(via)

    def submit(self, call: Call, wishes: Optional[Mapping[str, Any]] = None) -> Optional[Mapping[str, Any]]:
        """Writes the call into the transaction at hand. Raises what the driver raises: the caller's transaction is over then."""
        call = {**call, **wished(wishes)}
        encode(call, dumps)  # Names the path of a value that JSON cannot carry, before anything is written.
        if "task" in call:
            options = {name: value for name, value in call.items() if name not in ("task", "args", "kwargs")}
            texts = [call["task"], *(dumps(part) for part in (call.get("args", []), call.get("kwargs", {}), options))]
            statement = ENQUEUE
        else:
            texts, statement = [dumps(call), last(call)["task_id"]], ENQUEUE_CANVAS
        return {"task_id": execute(self._at_hand(), statement, texts)}


@contextlib.contextmanager
def within(connection: Any) -> Iterator[None]:
    """Inside of it, calls go through this connection or session."""
    token = _said.set((*_said.get(), connection))
    try:
        yield
    finally:
        _said.reset(token)


def at_hand(via: Any) -> Callable[[], Any]:
    """What finds the connection for a call."""
    if isinstance(via, str):
        kind, _, name = via.partition(":")
        finders: Dict[str, Callable[[], Callable[[], Any]]] = {
            "django": lambda: _django(name or "default"), "sqlalchemy": _sqlalchemy,
        }
        if kind not in finders or (name and kind != "django"):
            raise ValueError(f"via is {via!r}; it may be 'django', 'django:ALIAS', 'sqlalchemy', a connection, or a function that returns one")
        find = finders[kind]()
    elif callable(via) and not hasattr(via, "execute") and not hasattr(via, "cursor"):
        find = via
    else:
        find = lambda: via  # noqa: E731
    return lambda: _said.get()[-1] if _said.get() else find()


def _django(alias: str) -> Callable[[], Any]:
    from django.db import connections

    return lambda: connections[alias]


def _sqlalchemy() -> Callable[[], Any]:
    """The session whose transaction is open in this thread (or asyncio task)."""
    from sqlalchemy import event
    from sqlalchemy.orm import Session

    def begun(session: Any, transaction: Any) -> None:
        if transaction.parent is None:
            _open.set((*_open.get(), session))

    def ended(session: Any, transaction: Any) -> None:
        if transaction.parent is None:
            _open.set(tuple(one for one in _open.get() if one is not session))

    global _listens
    if not _listens:
        event.listen(Session, "after_transaction_create", begun)
        event.listen(Session, "after_transaction_end", ended)
        _listens = True

    def find() -> Any:
        found: List[Any] = [session for session in _open.get() if session.in_transaction()]
        if len(found) == 1:
            return found[0]
        told = "no session has begun a transaction here" if not found else f"{len(found)} sessions have open transactions here"
        raise ArgumentError("via", f"{told}: say which one to use, as `with taskgate.within(session): …`")

    return find


def execute(connection: Any, statement: str, texts: List[str]) -> str:
    """Runs one statement and returns the text that it answers."""
    module = type(connection).__module__.partition(".")[0]
    if module == "sqlalchemy" or hasattr(connection, "get_bind"):
        from sqlalchemy import text

        names = [f"p{index}" for index in range(len(texts))]
        places = [f"cast(:{name} as text)" for name in names]
        return str(connection.execute(text(statement.format(*places)), dict(zip(names, texts))).scalar_one())
    if not hasattr(connection, "cursor") or module in ("asyncpg", "aiopg") or "Async" in type(connection).__name__:
        raise ArgumentError(
            "via", f"{type(connection).__name__} is no connection that can be used here: give a synchronous one of psycopg, Django or SQLAlchemy"
        )
    with contextlib.closing(connection.cursor()) as cursor:
        cursor.execute(statement.format(*["%s::text"] * len(texts)), texts)
        return str(cursor.fetchone()[0])


__all__ = ["TransactionGateway", "at_hand", "execute", "within"]
