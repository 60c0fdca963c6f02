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
    """Whether the client understands the gateway: one of its own major version and of its own minor release or a newer one, or the
    one before, which some replicas may still be in an upgrade."""
    mine, theirs = release(client), release(gateway)
    if (0, 0) in (mine, theirs):
        return True
    return mine[0] == theirs[0] and theirs[1] >= mine[1] - 1
