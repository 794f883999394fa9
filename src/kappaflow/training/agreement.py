"""What the ranks of a training tell each other beside gradients, and that one of them is gone."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

from kappaflow.errors import KappaflowError, RankError
from kappaflow.ranks import is_first, is_first_here, machine, ranks
from kappaflow.training.connections import kept_alive

T = TypeVar("T")
PATIENCE = timedelta(days=7)  # with a rank that works alone; one that is gone is noticed anyway
LOST = ("gloo", "pair closure", "Connection")  # in what torch says then


def of_first(make: Callable[[], T]) -> T:
    """Returns what the first rank makes; the others wait for it, however long it takes.

    Args:
        make: Called on the first rank alone; what it returns can be sent to the others.

    Returns:
        The same on every rank.

    Raises:
        KappaflowError: It was raised on the first rank, and now is on every other.
        RankError: A rank is gone.
    """  # noqa: DOC502 - raised by what is called
    if ranks() == 1:
        return make()
    told: list[Any] = [None, None]
    if is_first():
        try:
            told[0] = make()
        except KappaflowError as error:
            told[1] = error
    with lost_ranks_in_words():
        dist.broadcast_object_list(told, group=_patient())
    made, error = told
    if error is not None:
        raise error
    return made


def of_machine(make: Callable[[], T]) -> T:
    """Returns what the first rank of this machine makes; all wait until each machine has made it.

    Args:
        make: Called on one rank of each machine; what it returns can be sent to the others.

    Returns:
        The same on every rank of a machine.

    Raises:
        KappaflowError: It was raised on a machine, and now is on every rank.
        RankError: A rank is gone.
    """  # noqa: DOC502 - raised by what is called
    made, error = None, None
    if is_first_here():
        try:
            made = make()
        except KappaflowError as raised:
            error = raised
    found = of_all((machine() if is_first_here() else None, made, error))
    for _, _, raised in found:
        if raised is not None:
            raise raised
    return next(made for place, made, _ in found if place == machine())  # pyright: ignore[reportReturnType]


def of_all(value: T) -> list[T]:
    """Returns what each rank has, in their order."""
    if ranks() == 1:
        return [value]
    found: list[Any] = [None] * ranks()
    with lost_ranks_in_words():
        dist.all_gather_object(found, value, group=_patient())
    return found


@contextmanager
def lost_ranks_in_words() -> Iterator[None]:
    """A context in which torch's own errors of a lost rank are a `RankError`."""
    try:
        yield
    except KappaflowError:
        raise
    except RuntimeError as error:
        if ranks() == 1 or not (
            isinstance(error, dist.DistError) or any(word in str(error) for word in LOST)
        ):
            raise
        raise RankError(
            "another rank of this training has ended, or does not answer: the same command goes "
            "on from the last checkpoint, also with another number of ranks."
        ) from None


@functools.cache
def _patient() -> dist.ProcessGroup:
    """Returns all ranks, as a group that waits."""
    with kept_alive():
        return dist.new_group(backend="gloo", timeout=PATIENCE)  # pyright: ignore[reportReturnType]
