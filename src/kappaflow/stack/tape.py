"""Executes the operations of chunks: eagerly, or from a tape that was recorded once.

A tape is reused while the buffers and the addresses of the weights stay the same. Inputs that
change from pass to pass are copied into the buffers first.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from kappaflow.autograd.replay import without_autocast
from kappaflow.stack.operations import EAGER, NAMES, Entry, Operations, Recording
from kappaflow.stack.threads import run_all, single_products

MOST = 128  # tapes per set of buffers, which 4,096 couplings can share in log_prob
P = TypeVar("P")


class NativeBackend(Protocol):
    """Makes tapes and executes them; see `native`."""

    @property
    def codes(self) -> Mapping[str, int]:
        """The code of each operation, by name."""
        ...

    def tape(self, entries: Sequence[Entry]) -> Any:  # noqa: ANN401
        """Returns a tape of recorded operations."""
        ...

    def execute(self, tapes: Sequence[Any]) -> None:
        """Executes tapes in parallel, without the interpreter."""
        ...


@dataclass(frozen=True)
class Job:
    """Operations to execute.

    Attributes:
        describe: Calls the operations on an `Operations`.
        tapes: The tapes recorded so far.
        key: Identifies the calls, together with the owner of `tapes`; None if they will not be
            repeated.
        moved: Pairs of tensors: a native tape uses the second, of the same layout, in place of
            the first.
    """

    describe: Callable[[Operations], None]
    tapes: "TapeCache"
    key: Hashable
    moved: Sequence[tuple[Tensor, Tensor]] = ()


class TapeCache:
    """The most recent tapes for the same buffers, by the key of their job.

    A tape keeps all tensors alive that it reads and writes, also the weights of a deleted flow,
    which is why their number is limited. With more blocks than tapes, all are recorded again in
    each pass, and a pass takes about twice as long.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, object] = {}

    def get(self, kind: Hashable, job: Job, record: Callable[[Job], P]) -> P:
        """Returns the tape of a job; records it unless one with its kind and key exists."""
        if job.key is None:
            return record(job)
        key = kind, job.key
        tape = self._known.pop(key, None) or record(job)
        self._known[key] = tape  # most recently used last
        if len(self._known) > MOST:
            self._known.pop(next(iter(self._known)))
        return tape  # pyright: ignore[reportReturnType]


# Prepares a job, yields it, and continues when it is done; it may yield several jobs or none.
Work = Callable[[], Iterator[Job]]


class Executor:
    """Executes operations eagerly.

    Args:
        device_type: Device type of the tensors.

    Attributes:
        moves: Whether it heeds `Job.moved`.
    """

    moves = False

    def __init__(self, device_type: str) -> None:
        self._device_type = device_type

    def run(self, lanes: Sequence[Sequence[Work]]) -> None:
        """Runs lanes in parallel, and the work of each lane in order."""

        def follow(lane: Sequence[Work]) -> None:
            with self._default_modes():
                for work in lane:
                    for job in work():
                        self._execute(job)

        with single_products():
            run_all([partial(follow, lane) for lane in lanes])

    def _execute(self, job: Job) -> None:
        if job.key is None:
            job.describe(EAGER)
            return
        # Threads share the interpreter, and a recorded list of calls needs less of its time.
        for call in job.tapes.get("eager", job, _calls):
            call()

    @contextmanager
    def _default_modes(self) -> Iterator[None]:
        """Switches gradients, inference mode and autocast off on this thread."""
        autocast_off = without_autocast(self._device_type)
        with torch.inference_mode(False), torch.no_grad(), autocast_off:
            yield


class NativeExecutor(Executor):
    """Executes tapes with the native backend.

    Args:
        backend: The backend that makes and executes tapes.
    """

    moves = True

    def __init__(self, backend: NativeBackend) -> None:
        super().__init__("cpu")
        self._backend = backend

    def run(self, lanes: Sequence[Sequence[Work]]) -> None:
        with self._default_modes():
            for works in zip_longest(*lanes):
                running = [work() for work in works if work is not None]
                while jobs := [job for work in running if (job := next(work, None))]:
                    tapes = [job.tapes.get("native", job, self._record) for job in jobs]
                    for tape, job in zip(tapes, jobs, strict=True):
                        tape.move(job.moved)
                    self._backend.execute(tapes)

    def _record(self, job: Job) -> Any:  # noqa: ANN401
        return self._backend.tape(entries_of(job, self._backend.codes))


def entries_of(job: Job, codes: Mapping[str, Any]) -> list[Entry]:
    """Returns the operations of a job: code and operands of each."""
    recording = Recording(codes)
    job.describe(recording)
    return recording.take()


def _calls(job: Job) -> list[Callable[[], None]]:
    return [partial(*entry) for entry in entries_of(job, _METHODS)]


_METHODS = {name: getattr(EAGER, name) for name in NAMES}
