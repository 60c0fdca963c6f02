"""A Celery canvas as the gateway's signature, with the result objects that Celery would return.

Ids are made here, so the results are known before anything is sent. The rules of who gets which arguments and options are those of
Celery's `apply_async` of each kind: partial arguments go to the first tasks, options too, links to the last, errbacks to all.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence

from celery.canvas import Signature, _chain, group, maybe_signature
from celery.canvas import _chord as chord
from celery.utils.functional import maybe_list

from ..errors import ArgumentError
from ..signatures import new_id
from .options import PLACE, gateway_options

Call = Dict[str, Any]


@dataclass
class Piece:
    """A part of a canvas. `first`: the result whose parent is what comes before this part in a chain."""

    call: Call
    result: Any
    first: Any

    def follows(self, before: Any) -> None:
        self.first.parent = before


class Converter:
    def __init__(self, app: Any) -> None:
        self._app = app

    def convert(
        self, signature: Any, args: Sequence[Any] = (), kwargs: Optional[Mapping[str, Any]] = None, *, is_first: bool = True,
        **options: Any,
    ) -> Piece:
        """What `signature.apply_async(args, kwargs, **options)` would send."""
        signature = maybe_signature(signature, app=self._app)
        kwargs = dict(kwargs or {})
        for place in PLACE:
            options.pop(place, None)
        if isinstance(signature, _chain):
            return self._chain(signature, args, kwargs, is_first, options)
        if isinstance(signature, group):
            return self._group(signature, args, kwargs, is_first, options)
        if isinstance(signature, chord):
            return self._chord(signature, args, kwargs, is_first, options)
        return self._task(signature, args, kwargs, is_first, options)

    # -- one task --------------------------------------------------------------------------------------------------

    def _task(self, signature: Signature, args: Sequence[Any], kwargs: Dict[str, Any], is_first: bool, options: Dict[str, Any]) -> Piece:
        args, kwargs, options = signature._merge(args, kwargs, options)
        task_type = self.registered(signature["task"])
        if task_type is not None:
            options = {**task_defaults(task_type), **{name: value for name, value in options.items() if value is not None}}
            if is_first:
                _check_arguments(task_type, args, kwargs)
            dump = getattr(task_type, "_dump_pydantic_arguments", None)
            if dump is not None:
                args, kwargs = dump(args, kwargs)
        call = self.call(signature["task"], args, kwargs, options, task_type)
        if signature.immutable:
            call["immutable"] = True
        result = self._app.AsyncResult(call["task_id"])
        return Piece(call, result, result)

    def call(self, name: str, args: Any, kwargs: Any, options: Mapping[str, Any], task_type: Any = None) -> Call:
        """One call with all its options, links included."""
        call: Call = {"task": name, "task_id": options.get("task_id") or new_id()}
        if args:
            call["args"] = list(args)
        if kwargs:
            call["kwargs"] = dict(kwargs)
        call.update(gateway_options(self._app, name, args, kwargs, options, task_type))
        for option in ("link", "link_error"):
            signatures = [self.convert(link, is_first=False).call for link in maybe_list(options.get(option)) or ()]
            if signatures:
                call[option] = signatures
        return call

    def registered(self, name: str) -> Any:
        """The task of this name, if this process has it. Nothing is finalized for that."""
        return self._app.tasks.get(name)

    # -- compositions ----------------------------------------------------------------------------------------------

    def _chain(self, chain: Any, args: Sequence[Any], kwargs: Dict[str, Any], is_first: bool, options: Dict[str, Any]) -> Piece:
        options = {**chain.options, **options}
        for place in PLACE:
            options.pop(place, None)
        links, errbacks = maybe_list(options.pop("link", None)) or [], maybe_list(options.pop("link_error", None)) or []
        last_id = options.pop("task_id", None)
        args = tuple(args) + tuple(chain.args) if args and not chain.immutable else tuple(chain.args)
        steps = list(self._steps(chain.tasks))
        if not steps:
            raise ArgumentError("chain", "has no tasks")
        pieces: List[Piece] = []
        for index, step in enumerate(steps):
            its_args, its_kwargs, its_options = (args, kwargs, dict(options)) if index == 0 else ((), {}, {})
            if index == len(steps) - 1 and last_id:
                its_options["task_id"] = last_id
            pieces.append(self.convert(step, its_args, its_kwargs, is_first=is_first and index == 0, **its_options))
        for before, after in zip(pieces, pieces[1:]):
            after.follows(before.result)
        whole = pieces[0].call if len(pieces) == 1 else {"chain": [piece.call for piece in pieces]}
        self._link(whole, links)
        self._link_error(whole, errbacks)
        return Piece(whole, pieces[-1].result, pieces[0].first)

    def _steps(self, tasks: Iterable[Any]) -> Iterator[Any]:
        """The steps with inner chains opened, groups of one replaced by their only task, and empty groups left out."""
        for task in tasks:
            step = maybe_signature(task, app=self._app)
            if isinstance(step, group):
                members = list(step.tasks)
                if len(members) == 1:
                    step = maybe_signature(members[0], app=self._app)
                elif not members:
                    continue
            if isinstance(step, _chain):
                yield from self._steps(step.unchain_tasks())
            else:
                yield step

    def _group(self, whole: Any, args: Sequence[Any], kwargs: Dict[str, Any], is_first: bool, options: Dict[str, Any]) -> Piece:
        options = {**whole.options, **options}
        group_id = options.pop("task_id", None) or new_id()
        members = [self.convert(member, args, kwargs, is_first=is_first, **options) for member in self._members(whole)]
        result = self._app.GroupResult(group_id, [member.result for member in members])
        return Piece({"group": [member.call for member in members]}, result, result)

    def _members(self, whole: Any) -> Iterator[Any]:
        """The members with inner groups opened."""
        for task in getattr(whole, "tasks", whole):
            member = maybe_signature(task, app=self._app)
            if isinstance(member, group):
                yield from self._members(member)
            elif not (isinstance(member, _chain) and not member.tasks):
                yield member

    def _chord(self, whole: Any, args: Sequence[Any], kwargs: Dict[str, Any], is_first: bool, options: Dict[str, Any]) -> Piece:
        body = kwargs.pop("body", None) or whole.kwargs["body"]
        options = {**whole.options, **options}
        links, errbacks = maybe_list(options.pop("link", None)) or [], maybe_list(options.pop("link_error", None)) or []
        body_id = options.pop("task_id", None)
        args = tuple(args) + tuple(whole.args) if args and not whole.immutable else tuple(whole.args)
        kwargs = {**whole.kwargs.get("kwargs", {}), **kwargs}
        tasks = whole.tasks if isinstance(whole.tasks, group) else group(whole.tasks, app=self._app)
        header = self._group(tasks, args, kwargs, is_first, dict(options))
        for_body = {name: value for name, value in options.items() if name not in ("countdown", "eta")}
        if body_id:
            for_body["task_id"] = body_id
        ending = self.convert(body, is_first=False, **for_body)
        ending.follows(header.result)
        call = {"chord": {"header": header.call["group"], "body": ending.call}}
        self._link(call, links)
        self._link_error(call, errbacks)
        return Piece(call, ending.result, header.first)

    # -- callbacks ---------------------------------------------------------------------------------------------------

    def _link(self, call: Call, links: Sequence[Any]) -> None:
        for link in links:
            last(call).setdefault("link", []).append(self.convert(link, is_first=False).call)

    def _link_error(self, call: Call, errbacks: Sequence[Any]) -> None:
        with_header = bool(self._app.conf.task_allow_error_cb_on_chord_header)
        for errback in errbacks:
            for task in _ends(call, with_header):
                task.setdefault("link_error", []).append(self.convert(errback, is_first=False).call)


def last(call: Call) -> Call:
    """The task whose success is the success of the whole; of a group, as in Celery, the first."""
    if "chain" in call:
        return last(call["chain"][-1])
    if "group" in call:
        return last(call["group"][0])
    return last(call["chord"]["body"]) if "chord" in call else call


def _ends(call: Call, with_header: bool) -> Iterator[Call]:
    """The tasks whose failure is the failure of the whole."""
    members: List[Call] = call.get("chain") or call.get("group") or []
    if "chord" in call:
        members = [*(call["chord"]["header"] if with_header else []), call["chord"]["body"]]
    if not members and "task" in call:
        yield call
    for member in members:
        yield from _ends(member, with_header)


def task_defaults(task_type: Any) -> Dict[str, Any]:
    """The options that a task's class brings, as `Task.apply_async` merges them."""
    options = {name: value for name, value in task_type._get_exec_options().items() if value is not None}
    options.setdefault("ignore_result", task_type.ignore_result)
    if task_type.priority is not None:
        options.setdefault("priority", task_type.priority)
    return options


def _check_arguments(task_type: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """A call that does not fit the task's parameters is a TypeError here, as in `Task.apply_async`."""
    header = getattr(task_type, "__header__", None)
    if task_type.typing and header is not None:
        header(*args, **kwargs)
