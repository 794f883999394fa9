"""A pass of a batch through a block of couplings: rows in chunks, chunks on threads."""

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kappaflow.stack.buffers import POOL
from kappaflow.stack.chunk import Keep, Run, Scratch, Track, Undo
from kappaflow.stack.marks import Marks
from kappaflow.stack.native import executor
from kappaflow.stack.prepared import GradientSet
from kappaflow.stack.programs import Job, Work
from kappaflow.stack.route import Route
from kappaflow.stack.shape import BlockShape
from kappaflow.stack.threads import row_threads

# Measured on two cores. With fewer rows, or less arithmetic in a coupling, a second thread waits
# for the interpreter most of its time; with more rows, what a coupling computes leaves the cache.
MOST_ROWS = 512
LEAST_ROWS = 64
LEAST_WORK = 8e6
KEEP: dict[str, Keep] = {
    "store": "everything",
    "recompute": "states",
    "invert": "nothing",
    "score": "nothing",
}


@dataclass(frozen=True)
class Manner:
    """How a batch goes through the blocks of a stack.

    Attributes:
        direction: 1 from data to latent, -1 back.
        memory: A memory mode, or "score" where no gradient is asked for.
        kind: The type of the conditioners' products.
        seed: Decides which hidden units are left out, in both directions alike; None for none.
    """

    direction: int
    memory: str
    kind: torch.dtype
    seed: int | None


@dataclass
class Chunk:
    """Some rows of the batch, and what is kept of them until the gradients are computed."""

    rows: slice
    thread: int
    seeds: list[int] | None
    track: Track | None = None
    marks: Marks = field(default_factory=Marks)

    @property
    def columns(self) -> int:
        """How many rows."""
        return self.rows.stop - self.rows.start


class Pass:
    """One pass of a batch through a block, and the way back.

    Args:
        shape: The couplings.
        direction: 1 from data to latent, -1 back.
        x: (B, features).
        keep: What is kept of the states.
        marked: Whether fingerprints of the states are kept.
        kind: The type of the products.
        seed: Decides which units are left out; None for none.
    """

    chunks: Sequence[Chunk] = ()  # of a pass whose making was interrupted

    def __init__(
        self,
        shape: BlockShape,
        direction: int,
        x: Tensor,
        *,
        keep: Keep,
        marked: bool = False,
        kind: torch.dtype,
        seed: int | None = None,
    ) -> None:
        self.shape, self.direction, self.kind = shape, direction, kind
        self.keep: Keep = keep
        self.marked = marked
        self.like = x.new_empty(0)
        threads, count = 1, 1
        if x.device.type == "cpu":
            threads = row_threads()
            count = _chunks(shape, len(x), threads)
        self.threads = min(threads, count)
        bounds = [len(x) * i // count for i in range(count + 1)]
        seeds: list[Any] = [None] * count
        if seed is not None:
            draws = torch.Generator().manual_seed(seed)
            seeds = torch.randint(2**32, (count, shape.layers), generator=draws).tolist()
        rows = map(slice, bounds[:-1], bounds[1:])
        self.chunks = [
            Chunk(r, i % self.threads, s) for i, (r, s) in enumerate(zip(rows, seeds, strict=True))
        ]

    @property
    def ready(self) -> bool:
        """Whether what `there` kept is still here; `back` gives it up."""
        return all(chunk.track is not None for chunk in self.chunks)

    @property
    def drops(self) -> bool:
        """Whether units are left out."""
        return self.chunks[0].seeds is not None

    def again(self, keep: Keep) -> "Pass":
        """Returns the same pass, with the same units left out, that keeps something else."""
        other = copy.copy(self)
        other.keep, other.marked = keep, False
        other.chunks = [Chunk(chunk.rows, chunk.thread, chunk.seeds) for chunk in self.chunks]
        return other

    def there(
        self, x: Tensor, context: Tensor, tensors: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Returns z and log_det.

        Args:
            x: (B, features).
            context: (B, C).
            tensors: The stacked weights and the biases of each network.

        Returns:
            z (B, features) and log_det (B,).
        """
        run = Run(self.shape, self.direction, tensors, self.kind, self.like)
        with torch.inference_mode(False):  # as the threads, which write them
            z = torch.empty_like(x, memory_format=torch.contiguous_format)
            log_det = x.new_empty(len(x))

        def one(chunk: Chunk) -> Iterator[Job]:
            track, scratch = self._track(chunk), self._scratch(chunk)
            yield from run.there(
                track,
                scratch,
                x[chunk.rows].T,
                z[chunk.rows].T,
                context[chunk.rows].T,
                chunk.seeds,
                log_det[chunk.rows],
                chunk.marks if self.marked else None,
            )
            POOL.give(self._kind("scratch", chunk.thread), chunk.columns, scratch)
            chunk.track = track
            if self.keep == "nothing":
                self._release(chunk)

        self._each(one)
        return z, log_det

    def back(
        self,
        gradients: tuple[Tensor, Tensor],
        context: Tensor,
        tensors: Sequence[Tensor],
        undo: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Returns the gradients of x, of the context and of the tensors; once.

        Args:
            gradients: Of z, (B, features), and of log_det, (B,).
            context: (B, C).
            tensors: As they were given to `there`.
            undo: Where nothing was kept: z, and where the x that comes back is written.

        Returns:
            The gradients.
        """
        run = Run(self.shape, self.direction, tensors, self.kind, self.like)
        z_gradient, log_det_gradient = gradients
        x_gradient = z_gradient.new_empty(z_gradient.shape)
        context_gradient = context.new_empty(context.shape)
        sets = [self._set(tensors, thread) for thread in range(self.threads)]

        def one(chunk: Chunk) -> Iterator[Job]:
            track, scratch = chunk.track or self._track(chunk), self._scratch(chunk)
            chunk.track = track
            rows = chunk.rows
            yield from run.back(
                track,
                scratch,
                z_gradient[rows].T,
                log_det_gradient[rows],
                x_gradient[rows].T,
                context[rows].T,
                context_gradient[rows].T,
                chunk.seeds,
                sets[chunk.thread],
                int(chunk is not self.chunks[chunk.thread]),
                None if undo is None else Undo(undo[0][rows].T, undo[1][rows].T, chunk.marks),
            )
            POOL.give(self._kind("scratch", chunk.thread), chunk.columns, scratch)
            self._release(chunk)

        self._each(one)
        found = [torch.empty_like(t) for t in tensors]
        parts = [slice(thread, None, self.threads) for thread in range(self.threads)]
        self._run([[functools.partial(_added_up, sets, found, part)] for part in parts])
        for thread, part in enumerate(sets):
            POOL.give(self._kind("gradients", thread), 0, part)
        return x_gradient, context_gradient, found

    def errors(self) -> dict[int, float]:
        """Returns the worst error with which a state came back, by layer, in the order back."""
        found: dict[int, float] = {}
        for chunk in self.chunks:
            for layer, error in chunk.marks.errors().items():
                if not error <= found.get(layer, -1.0):  # a nan is larger than all
                    found[layer] = error
        return found

    def release(self) -> None:
        """Gives up what is kept."""
        for chunk in self.chunks:
            self._release(chunk)

    __del__ = release

    def _release(self, chunk: Chunk) -> None:
        track, chunk.track = chunk.track, None
        if track is not None:
            POOL.give(self._kind(self.keep, chunk.thread), chunk.columns, track)

    def _route(self) -> Route:
        return self.shape.encode if self.direction > 0 else self.shape.decode

    def _each(self, work: Callable[[Chunk], Iterator[Job]]) -> None:
        """Does something with every chunk; every n-th chunk is one of n threads'."""
        lanes = [self.chunks[thread :: self.threads] for thread in range(self.threads)]
        self._run([[functools.partial(work, chunk) for chunk in lane] for lane in lanes])

    def _run(self, lanes: Sequence[Sequence[Work]]) -> None:
        executor(self.like.device.type).run(lanes)

    def _kind(self, what: str, thread: int) -> tuple[object, ...]:
        """Returns what buffers of this pass have in common with those of others.

        Each thread has its own, so that the same ones meet again at the next step.
        """
        way = self.direction if what in KEEP.values() else 0
        return what, self.shape, way, self.like.dtype, self.like.device, self.kind, thread

    def _track(self, chunk: Chunk) -> Track:
        return POOL.take(
            self._kind(self.keep, chunk.thread),
            chunk.columns,
            lambda: Track(
                self.shape, self._route(), chunk.columns, self.like, self.keep, self.kind
            ),
        )

    def _scratch(self, chunk: Chunk) -> Scratch:
        return POOL.take(
            self._kind("scratch", chunk.thread),
            chunk.columns,
            lambda: Scratch(self.shape, chunk.columns, self.like, self.kind),
        )

    def _set(self, tensors: Sequence[Tensor], thread: int) -> GradientSet:
        return POOL.take(
            self._kind("gradients", thread), 0, lambda: GradientSet(self.shape, tensors)
        )


def _chunks(shape: BlockShape, rows: int, threads: int) -> int:
    """Returns into how many chunks so many rows are cut: a multiple of the threads, or few."""
    work = max(
        2 * sum(a * b for a, b in zip(network.inputs, network.outputs, strict=True))
        for network in shape.networks
    )
    worth = int(rows / max(LEAST_ROWS, LEAST_WORK / work))  # so many threads have enough to do
    share = max(1, min(threads, worth))
    return share * max(1, round(rows / (share * MOST_ROWS)))


def _added_up(
    sets: Sequence[GradientSet], targets: Sequence[Tensor], which: slice
) -> Iterator[Job]:
    """Returns no job: writes the sums of some of the tensors of sets into those targets."""
    parts = zip(*(part.tensors[which] for part in sets), strict=True)
    for target, (first, *others) in zip(targets[which], parts, strict=True):
        if not others:
            target.copy_(first)
        for other in others:
            torch.add(first, other, out=target)
            first = target
    return iter(())
