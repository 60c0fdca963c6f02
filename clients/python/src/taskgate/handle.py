"""What a submission gives back: an id, and the answer it came from."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Union


@dataclass(frozen=True)
class Handle:
    """A submitted task or canvas. For a group `id` is the group's id, and `wait` gives the list of its results."""

    id: str
    #: The gateway's answer: `status`, `phase`, `queue`, `links`, `children` …
    answer: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Handle:
        return cls(str(answer.get("task_id") or answer.get("group_id") or ""), answer)

    @property
    def is_group(self) -> bool:
        return "group_id" in self.answer and "task_id" not in self.answer

    @property
    def children(self) -> List[Dict[str, Any]]:
        """The tasks of a canvas; empty for a single task, and above 1,000."""
        return list(self.answer.get("children") or [])

    def __str__(self) -> str:
        return self.id


#: A handle, or an id from anywhere.
Task = Union[Handle, str]
