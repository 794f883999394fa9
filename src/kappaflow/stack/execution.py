"""A pass of a batch through a block of couplings: rows in chunks, chunks on threads."""

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kappaflow.stack.buffers import POOL
from kappaflow.stack.chunk import Keep, Run, Scratch, Track, Undo
from kappaflow.stack.marks import Marks
from kappaflow.stack.native import operations
from kappaflow.stack.prepared import (
    prepared_gradients,
    prepared_transposes,
    prepared_weights,
)
from kappaflow.stack.route import Route
from kappaflow.stack.shape import BlockShape
from kappaflow.stack.threads import row_threads, run_all, single_products

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
        self.chunks = [Chunk(r, s) for r, s in zip(rows, seeds, strict=True)]

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
        other.chunks = [Chunk(chunk.rows, chunk.seeds) for chunk in self.chunks]
        return other

    @single_products()
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
        views = prepared_weights(self.shape, tensors, self.kind)
        run = Run(self.shape, self.direction, views, [], self.like)
        with torch.inference_mode(False):  # as the threads, which write them
            z = torch.empty_like(x, memory_format=torch.contiguous_format)
            log_det = x.new_empty(len(x))

        def one(chunk: Chunk, _: int) -> None:
            track, scratch = self._track(chunk), self._scratch(chunk)
            log_det[chunk.rows] = run.there(
                operations(self.like.device),
                track,
                scratch,
                x[chunk.rows].T,
                z[chunk.rows].T,
                self._columns(context, chunk),
                chunk.seeds,
                chunk.marks if self.marked else None,
            )
            POOL.give(self._kind("scratch"), chunk.columns, scratch)
            chunk.track = track
            if self.keep == "nothing":
                self._release(chunk)

        self._each(one)
        return z, log_det

    @single_products()
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
        reruns = self.keep != "everything"
        views = prepared_weights(self.shape, tensors, self.kind) if reruns else []
        turned = prepared_transposes(self.shape, tensors, self.kind)
        run = Run(self.shape, self.direction, views, turned, self.like)
        z_gradient, log_det_gradient = gradients
        x_gradient = z_gradient.new_empty(z_gradient.shape)
        context_gradient = context.new_zeros(context.shape)
        sets = [[torch.empty_like(t) for t in tensors]]
        sets += [self._spare(tensors) for _ in range(self.threads - 1)]
        by_thread = [prepared_gradients(self.shape, part) for part in sets]

        def one(chunk: Chunk, thread: int) -> None:
            track, scratch = chunk.track or self._track(chunk), self._scratch(chunk)
            chunk.track = track
            rows = chunk.rows
            run.back(
                operations(self.like.device),
                track,
                scratch,
                z_gradient[rows].T,
                log_det_gradient[rows],
                x_gradient[rows].T,
                self._columns(context, chunk),
                context_gradient[rows].T,
                chunk.seeds,
                by_thread[thread],
                int(chunk is not self.chunks[thread]),
                None if undo is None else Undo(undo[0][rows].T, undo[1][rows].T, chunk.marks),
            )
            POOL.give(self._kind("scratch"), chunk.columns, scratch)
            self._release(chunk)

        self._each(one)
        found, *others = sets
        self._share(lambda thread: _add_up([part[thread :: self.threads] for part in sets]))
        for other in others:
            POOL.give(self._kind("gradients"), 0, other)
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
            POOL.give(self._kind(self.keep), chunk.columns, track)

    def _route(self) -> Route:
        return self.shape.encode if self.direction > 0 else self.shape.decode

    def _each(self, do: Callable[[Chunk, int], None]) -> None:
        """Does something with every chunk; every n-th chunk is one of n threads'."""

        def some(thread: int) -> None:
            for chunk in self.chunks[thread :: self.threads]:
                do(chunk, thread)

        self._share(some)

    def _share(self, do: Callable[[int], None]) -> None:
        """Does something on every thread, of which each knows its number."""

        def plainly(thread: int) -> None:
            wide = torch.autocast(self.like.device.type, enabled=False)
            with torch.inference_mode(False), torch.no_grad(), wide:
                do(thread)

        run_all([functools.partial(plainly, thread) for thread in range(self.threads)])

    def _columns(self, context: Tensor, chunk: Chunk) -> Tensor:
        return context[chunk.rows].T.to(self.kind)

    def _kind(self, what: str) -> tuple[object, ...]:
        """Returns what buffers of this pass have in common with those of others."""
        way = self.direction if what in KEEP.values() else 0
        return what, self.shape, way, self.like.dtype, self.like.device, self.kind

    def _track(self, chunk: Chunk) -> Track:
        return POOL.take(
            self._kind(self.keep),
            chunk.columns,
            lambda: Track(
                self.shape, self._route(), chunk.columns, self.like, self.keep, self.kind
            ),
        )

    def _scratch(self, chunk: Chunk) -> Scratch:
        return POOL.take(
            self._kind("scratch"),
            chunk.columns,
            lambda: Scratch(self.shape, chunk.columns, self.like, self.kind),
        )

    def _spare(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return POOL.take(
            self._kind("gradients"), 0, lambda: [torch.empty_like(t) for t in tensors]
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


def _add_up(sets: Sequence[Sequence[Tensor]]) -> None:
    """Adds the tensors of the other sets to those of the first one."""
    for first, *others in zip(*sets, strict=True):
        for other in others:
            first.add_(other)
