"""The version of this package, which is the version of the gateway that it was released with."""
from __future__ import annotations

from typing import Tuple

#: As in Cargo.toml; tests/test_package.py compares them.
__version__ = "0.1.0"


def release(text: str) -> Tuple[int, int]:
    """Major and minor number of `1.2.3` or `1.2.3-rc.1`; (0, 0) for anything else."""
    parts = text.split("-")[0].split(".")
    try:
        return int(parts[0]), int(parts[1])
    except (IndexError, ValueError):
        return 0, 0


def fits(client: str, gateway: str) -> bool:
    """Whether the two speak the same contract: the same major version, and neighbouring minor versions before 1.0."""
    mine, theirs = release(client), release(gateway)
    if (0, 0) in (mine, theirs):
        return True
    if mine[0] != theirs[0]:
        return False
    return mine[0] > 0 or abs(mine[1] - theirs[1]) <= 1
