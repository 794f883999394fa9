"""Executes what chunks consist of: at once, or recorded once and played from then on.

A program is played again as long as it means the same: the same buffers, and weights that lie
where they lay. What differs from pass to pass is copied into those buffers before.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import Any, Protocol, TypeVar

import torch

from kappaflow.stack.operations import AT_ONCE, NAMES, Entry, Operations, Recording
from kappaflow.stack.threads import run_all, single_products

MOST = 32  # blocks take turns with the same buffers where nothing is kept
P = TypeVar("P")


class Player(Protocol):
    """What makes and plays programs; see `native`."""

    def names(self) -> list[str]:
        """Returns the operations that it knows."""
        ...

    def Program(self, entries: list[Entry], exact: bool) -> object:  # noqa: N802
        """Returns a program; bit for bit like `Operations`, if it is to be `exact`."""
        ...

    def play(self, programs: list[object]) -> None:
        """Executes programs at the same time, without the interpreter."""
        ...


@dataclass(frozen=True)
class Job:
    """Operations to be executed.

    Attributes:
        describe: Calls them.
        programs: Those that are known.
        key: Whatever the calls depend on, besides the owner of `programs`; None if they will not
            come again.
    """

    describe: Callable[[Operations], None]
    programs: "Programs"
    key: Hashable


class Programs:
    """The programs last used for the same buffers, by what else they depend on.

    A program holds on to all that it reads and writes.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, object] = {}

    def get(self, kind: Hashable, job: Job, record: Callable[[Job], P]) -> P:
        """Returns the program of a job, recorded now unless one of its kind and key is known."""
        if job.key is None:
            return record(job)
        key = kind, job.key
        found = self._known.pop(key, None) or record(job)
        self._known[key] = found  # behind all others
        if len(self._known) > MOST:
            self._known.pop(next(iter(self._known)))
        return found  # pyright: ignore[reportReturnType]


# Prepares a job, hands it over, and goes on when it is done; some need none.
Work = Callable[[], Iterator[Job]]


class Executor:
    """Executes operations at once.

    Args:
        device_type: Of what they work on.
    """

    def __init__(self, device_type: str) -> None:
        self._device_type = device_type

    def run(self, lanes: Sequence[Sequence[Work]]) -> None:
        """Does the work of lanes at the same time, one after the other in each lane.

        Args:
            lanes: As many as threads are to be used.
        """

        def follow(lane: Sequence[Work]) -> None:
            with self._plainly():
                for work in lane:
                    for job in work():
                        self._execute(job)

        with single_products():
            run_all([partial(follow, lane) for lane in lanes])

    def _execute(self, job: Job) -> None:
        if job.key is None:
            job.describe(AT_ONCE)
            return
        # Threads share the interpreter: a list of calls needs less of it than what made it.
        for call in job.programs.get("at once", job, _calls):
            call()

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        """Has torch do what it is told to, whatever the caller has set; on this thread."""
        wide = torch.autocast(self._device_type, enabled=False)
        with torch.inference_mode(False), torch.no_grad(), wide:
            yield


class PlayingExecutor(Executor):
    """Has operations played, by the threads that torch has for its products.

    Args:
        player: Makes programs and plays them.
        codes: Its number of each operation.
        exact: Whether every bit is to be that of `Operations`.
    """

    def __init__(self, player: Player, codes: Mapping[str, int], *, exact: bool = False) -> None:
        super().__init__("cpu")
        self._player, self._codes, self._exact = player, codes, exact

    def run(self, lanes: Sequence[Sequence[Work]]) -> None:
        with self._plainly():
            for works in zip_longest(*lanes):
                under_way = [work() for work in works if work is not None]
                while jobs := [job for work in under_way if (job := next(work, None))]:
                    self._player.play([self._program(job) for job in jobs])

    def _program(self, job: Job) -> object:
        return job.programs.get(("played", self._exact), job, self._record)

    def _record(self, job: Job) -> object:
        return self._player.Program(entries_of(job, self._codes), self._exact)


def entries_of(job: Job, marks: Mapping[str, Any]) -> list[Entry]:
    """Returns the operations of a job, each as its mark and its operands."""
    recording = Recording(marks)
    job.describe(recording)
    return recording.take()


def _calls(job: Job) -> list[Callable[[], None]]:
    return [partial(*entry) for entry in entries_of(job, _METHODS)]


_METHODS = {name: getattr(AT_ONCE, name) for name in NAMES}
