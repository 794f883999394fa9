"""A batch through a block: rows in chunks, chunks on threads, buffers kept from step to step."""

import copy
import functools
import os
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from kappaflow.stack.chunk import (
    ChunkKernel,
    Fingerprints,
    InverseReplay,
    Keep,
    SavedStates,
    Workspace,
)
from kappaflow.stack.native import executor
from kappaflow.stack.shape import BlockShape, Route
from kappaflow.stack.tape import Executor, Job, Work
from kappaflow.stack.threads import row_threads
from kappaflow.stack.weights import GradientSet, new_gradients

# Limits measured on two cores. With fewer rows or less arithmetic per coupling, a second thread
# mostly waits for the interpreter. With more rows, the data of a coupling does not fit the cache.
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
class ExecutionMode:
    """How a batch is executed by the blocks of a stack."""

    direction: int  # 1 from data to latent, -1 from latent to data
    memory: str  # a memory mode, or "score" if no gradient is needed
    product_dtype: torch.dtype
    seed: int | None  # of the dropout masks, the same in both directions


@dataclass
class Chunk:
    """Some rows of the batch, and the states stored for their backward pass."""

    rows: slice
    thread: int
    seeds: Tensor | None
    saved: SavedStates | None = None
    fingerprints: Fingerprints = field(default_factory=Fingerprints)

    @property
    def columns(self) -> int:
        """Number of rows."""
        return self.rows.stop - self.rows.start


class BlockPass:
    """A forward pass of a batch through a block, and its backward pass."""

    chunks: Sequence[Chunk] = ()  # in case `__init__` raises

    def __init__(
        self,
        shape: BlockShape,
        direction: int,
        x: Tensor,
        *,
        keep: Keep,
        fingerprinted: bool = False,
        product_dtype: torch.dtype,
        seed: int | None = None,
    ) -> None:
        self.shape, self.direction, self.product_dtype = shape, direction, product_dtype
        self.keep: Keep = keep
        self.fingerprinted = fingerprinted
        self.like = x.new_empty(0)
        threads, count = 1, 1
        if x.device.type == "cpu":
            threads = row_threads()
            count = _chunks(shape, len(x), threads)
        self.threads = min(threads, count)
        bounds = [len(x) * i // count for i in range(count + 1)]
        seeds: Sequence[Tensor | None] = [None] * count
        if seed is not None:
            draws = torch.Generator().manual_seed(seed)
            seeds = torch.randint(2**32, (count, shape.layers), generator=draws).unbind()
        rows = map(slice, bounds[:-1], bounds[1:])
        self.chunks = [
            Chunk(r, i % self.threads, s) for i, (r, s) in enumerate(zip(rows, seeds, strict=True))
        ]

    @property
    def ready(self) -> bool:
        """Whether the saved states are still available; `backward` releases them."""
        return all(chunk.saved is not None for chunk in self.chunks)

    @property
    def drops(self) -> bool:
        """Whether dropout is active."""
        return self.chunks[0].seeds is not None

    def again(self, keep: Keep) -> "BlockPass":
        """Returns the same pass, with the same dropout masks, for another `keep`."""
        other = copy.copy(self)
        other.keep, other.fingerprinted = keep, False
        other.chunks = [Chunk(chunk.rows, chunk.thread, chunk.seeds) for chunk in self.chunks]
        return other

    def forward(
        self, x: Tensor, context: Tensor, tensors: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Returns the output of the block and its log_det."""
        kernel = ChunkKernel(self.shape, self.direction, tensors, self.product_dtype, self.like)
        with torch.inference_mode(False):  # threads outside inference mode write these tensors
            z = torch.empty_like(x, memory_format=torch.contiguous_format)
            log_det = x.new_empty(len(x))

        def run(chunk: Chunk) -> Iterator[Job]:
            saved, workspace = self._saved(chunk), self._workspace(chunk)
            yield from kernel.forward(
                saved,
                workspace,
                x[chunk.rows].T,
                z[chunk.rows].T,
                context[chunk.rows].T,
                chunk.seeds,
                log_det[chunk.rows],
                chunk.fingerprints if self.fingerprinted else None,
            )
            POOL.give(self._pool_key("workspace", chunk.thread), chunk.columns, workspace)
            chunk.saved = saved
            if self.keep == "nothing":
                self._release(chunk)

        self._each(run, tensors)
        return z, log_det

    def backward(
        self,
        gradients: tuple[Tensor, Tensor],
        context: Tensor,
        tensors: Sequence[Tensor],
        replay: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Returns the gradients of x, of the context and of the tensors. Call it once."""
        kernel = ChunkKernel(self.shape, self.direction, tensors, self.product_dtype, self.like)
        z_gradient, log_det_gradient = gradients
        x_gradient = z_gradient.new_empty(z_gradient.shape)
        context_gradient = context.new_empty(context.shape)
        sets = [self._gradients(tensors, thread) for thread in range(self.threads)]
        tensor_gradients = new_gradients(self.shape, tensors)
        written = [part.tensors for part in sets]
        if self._executor(tensors).moves:
            sets[0].moved, written[0] = (
                list(zip(written[0], tensor_gradients, strict=True)),
                tensor_gradients,
            )

        def run(chunk: Chunk) -> Iterator[Job]:
            saved, workspace = chunk.saved or self._saved(chunk), self._workspace(chunk)
            chunk.saved = saved
            rows = chunk.rows
            yield from kernel.backward(
                saved,
                workspace,
                z_gradient[rows].T,
                log_det_gradient[rows],
                x_gradient[rows].T,
                context[rows].T,
                context_gradient[rows].T,
                chunk.seeds,
                sets[chunk.thread],
                int(chunk is not self.chunks[chunk.thread]),
                None
                if replay is None
                else InverseReplay(replay[0][rows].T, replay[1][rows].T, chunk.fingerprints),
            )
            POOL.give(self._pool_key("workspace", chunk.thread), chunk.columns, workspace)
            self._release(chunk)

        self._each(run, tensors)
        sets[0].moved = ()
        parts = [slice(thread, None, self.threads) for thread in range(self.threads)]
        self._run(
            [[functools.partial(_added_up, written, tensor_gradients, part)] for part in parts],
            tensors,
        )
        for thread, part in enumerate(sets):
            POOL.give(self._pool_key("gradients", thread), 0, part)
        return x_gradient, context_gradient, tensor_gradients

    def errors(self) -> dict[int, float]:
        """Returns the largest error of the recomputed states, by layer, last layer first."""
        steps = [step.layer for segment in self._route().segments for step in segment.steps]
        errors = [e for chunk in self.chunks if (e := chunk.fingerprints.errors()) is not None]
        worst = torch.stack(errors).amax(0).tolist() if errors else []  # NaN stays
        return {layer: worst[layer] for layer in reversed(steps)} if errors else {}

    def __del__(self) -> None:
        for chunk in self.chunks:
            self._release(chunk)

    def _release(self, chunk: Chunk) -> None:
        saved, chunk.saved = chunk.saved, None
        if saved is not None:
            POOL.give(self._pool_key(self.keep, chunk.thread), chunk.columns, saved)

    def _route(self) -> Route:
        return self.shape.encode if self.direction > 0 else self.shape.decode

    def _each(self, work: Callable[[Chunk], Iterator[Job]], tensors: Sequence[Tensor]) -> None:
        """Runs `work` on every chunk; with n threads, each takes every n-th chunk."""
        lanes = [self.chunks[thread :: self.threads] for thread in range(self.threads)]
        self._run([[functools.partial(work, chunk) for chunk in lane] for lane in lanes], tensors)

    def _run(self, lanes: Sequence[Sequence[Work]], tensors: Sequence[Tensor]) -> None:
        self._executor(tensors).run(lanes)

    def _executor(self, tensors: Sequence[Tensor]) -> Executor:
        return executor([self.like, *tensors], self.product_dtype)

    def _pool_key(self, what: str, thread: int) -> tuple[object, ...]:
        """Returns the key of buffers that other passes can reuse.

        Each thread has its own buffers, which it finds again at the next step.
        """
        way = self.direction if what in KEEP.values() else 0
        return what, self.shape, way, self.like.dtype, self.like.device, self.product_dtype, thread

    def _saved(self, chunk: Chunk) -> SavedStates:
        return POOL.take(
            self._pool_key(self.keep, chunk.thread),
            chunk.columns,
            lambda: SavedStates(
                self.shape, self._route(), chunk.columns, self.like, self.keep, self.product_dtype
            ),
        )

    def _workspace(self, chunk: Chunk) -> Workspace:
        return POOL.take(
            self._pool_key("workspace", chunk.thread),
            chunk.columns,
            lambda: Workspace(self.shape, chunk.columns, self.like, self.product_dtype),
        )

    def _gradients(self, tensors: Sequence[Tensor], thread: int) -> GradientSet:
        return POOL.take(
            self._pool_key("gradients", thread), 0, lambda: GradientSet(self.shape, tensors)
        )


def _chunks(shape: BlockShape, rows: int, threads: int) -> int:
    """Returns the number of chunks for a batch: a multiple of the threads, or fewer than them."""
    work = max(
        2 * sum(a * b for a, b in zip(network.inputs, network.outputs, strict=True))
        for network in shape.networks
    )
    worth = int(rows / max(LEAST_ROWS, LEAST_WORK / work))  # threads that have enough work
    share = max(1, min(threads, worth))
    return share * max(1, round(rows / (share * MOST_ROWS)))


def _added_up(
    parts: Sequence[Sequence[Tensor]], targets: Sequence[Tensor], which: slice
) -> Iterator[Job]:
    """Returns no job: adds up the gradients of all threads for some of the tensors."""
    for target, first, *others in zip(targets[which], *(p[which] for p in parts), strict=True):
        if not others and first is not target:
            target.copy_(first)
        for other in others:
            torch.add(first, other, out=target)
            first = target
    return iter(())


T = TypeVar("T")

IDLE_S = 10.0  # seconds without use after which idle buffers are freed
MOST_SIZES = 2  # number of sizes that are kept for each kind of buffer


class Pool:
    """Buffers that are expensive to allocate, by kind and size.

    Allocating them at each step would cost a fifth of the step in page faults. A buffer is checked
    out while it is in use, so two forward passes never share one. Idle buffers are freed after
    some seconds. Two sizes are kept of each kind, one for most batches and one for the last batch
    of an epoch; a new size replaces the oldest one.
    """

    def __init__(self) -> None:
        # Reentrant: garbage collection may return the buffers of a pass while the lock is held.
        self._lock = threading.RLock()
        self._free: dict[Hashable, OrderedDict[int, list[object]]] = defaultdict(OrderedDict)
        self._used = False
        self._sweeper: threading.Timer | None = None

    def take(self, kind: Hashable, size: int, make: Callable[[], T]) -> T:
        """Returns an idle buffer of this kind and size, or a new one."""
        with self._lock:
            self._used = True
            free = self._free[kind]
            if free.get(size):
                free.move_to_end(size)
                return free[size].pop()  # pyright: ignore[reportReturnType]
            while len(free) >= MOST_SIZES and size not in free:
                free.popitem(last=False)
        return make()

    def give(self, kind: Hashable, size: int, item: object) -> None:
        """Takes back a buffer that the caller no longer uses."""
        with self._lock:
            self._used = True
            free = self._free[kind]
            free.setdefault(size, []).append(item)
            free.move_to_end(size)
            if self._sweeper is None:
                self._watch()

    def idle(self) -> int:
        """Returns the number of idle buffers."""
        with self._lock:
            return sum(len(items) for sizes in self._free.values() for items in sizes.values())

    def forget(self) -> None:
        """Frees all idle buffers."""
        with self._lock:
            self._free.clear()

    def _watch(self) -> None:
        self._used = False
        self._sweeper = threading.Timer(IDLE_S, self._sweep)
        self._sweeper.daemon = True
        self._sweeper.start()

    def _sweep(self) -> None:
        with self._lock:
            self._sweeper = None
            if self._used:
                self._watch()
            else:
                self._free.clear()

    def _after_fork(self) -> None:
        """Resets the pool in a forked process, which has no sweeping thread."""
        self._lock, self._sweeper = threading.RLock(), None
        self._free.clear()


POOL = Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=POOL._after_fork)
