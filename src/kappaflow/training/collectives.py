"""Communication between ranks, except for gradients, and detection of a lost rank.

A rank waits without a time limit while another rank works alone, so a timeout cannot show that the
other machine has lost power or network. TCP keepalive on the connections detects this instead.
"""

import functools
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from kappaflow.errors import ArgumentError, KappaflowError, RankError
from kappaflow.ranks import is_first, ranks

T = TypeVar("T")
TIMEOUT = timedelta(days=7)  # for a rank that works alone; the heartbeat notices a lost one
CONNECT_TIMEOUT = timedelta(minutes=5)  # for the ranks to meet
LOST_RANK_WORDS = ("gloo", "pair closure", "Connection")  # parts of torch's error messages

SILENT_S, QUESTIONS, EVERY_S = 15, 3, 10  # after 15 s of silence three probes, one per 10 s
HEARTBEAT = {
    "TCP_KEEPIDLE": SILENT_S,
    "TCP_KEEPALIVE": SILENT_S,  # the name on macOS
    "TCP_KEEPINTVL": EVERY_S,
    "TCP_KEEPCNT": QUESTIONS,
    "TCP_USER_TIMEOUT": 1000 * (SILENT_S + QUESTIONS * EVERY_S),  # for data not acknowledged
}
DESCRIPTORS = Path("/dev/fd")


def from_rank_zero(make: Callable[[], T]) -> T:
    """Returns on every rank the result or the error of a function that the first one calls."""
    # The other ranks wait without a time limit.
    if ranks() == 1:
        return make()
    message: list[Any] = [*_outcome(make, is_called=is_first())]
    with lost_ranks_as_errors():
        dist.broadcast_object_list(message, group=_patient_group(dist.group.WORLD))
    result, error = message
    if error is not None:
        raise error
    return result


def from_each_rank(make: Callable[[], T]) -> list[T]:
    """Returns on every rank what a function returns on each; an error of any is one of all."""
    results = list[T]()
    for result, error in all_gather(_outcome(make, is_called=True)):
        if error is not None:
            raise error
        results.append(result)  # pyright: ignore[reportArgumentType]
    return results


def _outcome(make: Callable[[], T], *, is_called: bool) -> tuple[T | None, Exception | None]:
    """Returns the result of a function or its error, or neither if it is not called."""
    try:
        return make() if is_called else None, None
    except KappaflowError as error:
        return None, error


def all_gather(value: T) -> list[T]:
    """Returns the value of each rank, in the order of the ranks."""
    if ranks() == 1:
        return [value]
    values: list[Any] = [None] * ranks()
    with lost_ranks_as_errors():
        dist.all_gather_object(values, value, group=_patient_group(dist.group.WORLD))
    return values


@contextmanager
def lost_ranks_as_errors() -> Iterator[None]:
    """Turns torch's own errors about a lost rank into a `RankError`."""
    try:
        yield
    except KappaflowError:
        raise
    except RuntimeError as error:
        if ranks() == 1 or not (
            isinstance(error, dist.DistError)
            or any(word in str(error) for word in LOST_RANK_WORDS)
        ):
            raise
        raise RankError(
            "another rank of this training has ended or does not answer. Run the same command "
            "again: it resumes from the last checkpoint, even with a different number of ranks."
        ) from None


def check_same(value: object) -> None:
    """Raises an error on all ranks if they are given different trainings, of which value tells."""
    if any(other != value for other in all_gather(value)):
        raise ArgumentError(
            f"the {ranks()} ranks should be given the same data, split and settings: they train "
            "one flow together, and each takes a share of each batch. For a flow of its own, "
            "start each process with WORLD_SIZE=1, and without a process group."
        )


def meet() -> None:
    """Waits for the other ranks, for a limited time if they have not met before."""
    _patient_group(dist.group.WORLD)


def disconnect() -> None:
    """Closes the connections over which ranks exchange results, and ends their threads."""
    # Without it nccl warns at the end of a process, and a thread of gloo that still frees a tensor
    # while Python shuts down aborts the process.
    _patient_group.cache_clear()
    if dist.is_initialized():
        dist.destroy_process_group()


@functools.cache
def _patient_group(whole: object) -> dist.ProcessGroup:
    """Returns a group of the ranks of `whole` that waits without a practical time limit."""
    try:
        first: Any = dist.new_group(backend="gloo", timeout=CONNECT_TIMEOUT)
        dist.barrier(first)
        dist.destroy_process_group(first)
    except RuntimeError:
        raise RankError(
            f"not all {ranks()} ranks came to this training within "
            f"{CONNECT_TIMEOUT.total_seconds():.0f} s: call it in each of them."
        ) from None
    with heartbeat():
        return dist.new_group(backend="gloo", timeout=TIMEOUT)  # pyright: ignore[reportReturnType]


@contextmanager
def heartbeat() -> Iterator[None]:
    """Sets keepalive on TCP connections opened inside, so that they fail after 45 s of silence."""
    before = _sockets()
    yield
    for descriptor in _sockets() - before:
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
            _keep_alive(connection)


def _sockets() -> set[int]:
    """Returns the descriptors of this process that are sockets."""
    descriptors = set()
    with suppress(OSError):
        for name in os.listdir(DESCRIPTORS):
            with suppress(OSError):  # the descriptor of the listing itself is closed by now
                if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                    descriptors.add(int(name))
    return descriptors


def _keep_alive(connection: socket.socket) -> None:
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in HEARTBEAT.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
