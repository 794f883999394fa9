"""Executes the operations of chunks: eagerly, or from a tape that was recorded once.

A tape is reused while the buffers and the addresses of the weights stay the same. Inputs that
change from pass to pass are copied into the buffers first.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from kappaflow.autograd.replay import without_autocast
from kappaflow.stack.operations import EAGER, NAMES, Entry, Operations, Recording
from kappaflow.stack.threads import run_all, single_products

MOST = 128  # tapes per set of buffers, which 4,096 couplings can share in log_prob
P = TypeVar("P")


@dataclass(frozen=True)
class Job:
    """Operations to execute."""

    describe: Callable[[Operations], None]  # calls them on an `Operations`
    tapes: "TapeCache"
    key: Hashable  # identifies them within `tapes`; None if they will not be repeated
    # Pairs of tensors of one layout: a native tape uses the second ones
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
    """Executes operations eagerly."""

    moves = False  # whether it heeds `Job.moved`

    def __init__(self, device_type: str) -> None:
        self._device_type = device_type

    def run(self, lanes: Sequence[Sequence[Work]]) -> None:
        """Runs lanes in parallel, and the work of each lane in order."""

        def follow(lane: Sequence[Work]) -> None:
            with self.default_modes():
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
    def default_modes(self) -> Iterator[None]:
        """Switches gradients, inference mode and autocast off on this thread."""
        autocast_off = without_autocast(self._device_type)
        with torch.inference_mode(False), torch.no_grad(), autocast_off:
            yield


def entries_of(job: Job, codes: Mapping[str, Any]) -> list[Entry]:
    """Returns the operations of a job: code and operands of each."""
    recording = Recording(codes)
    job.describe(recording)
    return recording.take()


def _calls(job: Job) -> list[Callable[[], None]]:
    return [partial(*entry) for entry in entries_of(job, _METHODS)]


_METHODS = {name: getattr(EAGER, name) for name in NAMES}
