"""The number of processes that torchrun started, and the rank of this process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_working_alone = False


@contextmanager
def alone() -> Iterator[None]:
    """A context in which this process behaves as if torchrun had started no other."""
    global _working_alone
    before, _working_alone = _working_alone, True
    try:
        yield
    finally:
        _working_alone = before


def ranks() -> int:
    """Returns the number of processes that torchrun started on all machines; 1 without it."""
    if _working_alone:
        return 1
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def ranks_here() -> int:
    """Returns the number of ranks on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if ranks() > 1 else 1


def rank() -> int:
    """Returns the number of this rank, from 0."""
    return int(os.environ["RANK"]) if ranks() > 1 else 0


def rank_here() -> int:
    """Returns the number of this process on its machine, from 0."""
    return int(os.environ["LOCAL_RANK"]) if ranks() > 1 else 0


def is_first() -> bool:
    """Returns whether this rank writes files and messages for all ranks."""
    return rank() == 0
