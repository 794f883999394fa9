"""Forward and backward passes of a block of couplings on a chunk of rows.

Here features come first: a chunk is (features, columns), and each column is a row of the batch.
"""

import functools
import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from kappaflow.autograd.fingerprints import fingerprint_errors, random_direction
from kappaflow.stack.arithmetic import CouplingState, arithmetic_of
from kappaflow.stack.network import Activations, DropoutMasks, NetworkBackward, Slopes, evaluate
from kappaflow.stack.operations import EAGER, Operations
from kappaflow.stack.shape import BlockShape, CouplingStep, NetworkShape, Order, Route
from kappaflow.stack.tape import Job, TapeCache
from kappaflow.stack.weights import GradientSet, Views, layer_weights, storage_key


class Fingerprints:
    """A fingerprint of each state of a chunk: one random projection for each row."""

    kept: Tensor | None = None  # of the features that each layer changes, (layers, columns)
    replayed: Tensor | None = None  # of the same features as recomputed from the output

    def errors(self) -> Tensor | None:
        """Returns the relative error of the worst row of each layer; None before a replay."""
        if self.kept is None or self.replayed is None:
            return None
        return fingerprint_errors(self.replayed, self.kept)


def write_fingerprint(ops: Operations, x: Tensor, fingerprint: Tensor) -> None:
    """Writes the fingerprint (columns,) of features x, (changed, columns)."""
    ops.project(x, random_direction(len(x), x.dtype, x.device), fingerprint)


Keep = Literal["nothing", "states", "everything"]


class Gather:
    """Moves features from one split into halves to another split."""

    def __init__(self, order: Order | None, device: torch.device) -> None:
        self._forward = self._backward = None
        if order is not None:
            self._forward = torch.tensor(order, device=device)
            self._backward = self._forward.argsort()

    def forward(
        self, ops: Operations, sources: Sequence[Tensor], targets: Sequence[Tensor]
    ) -> None:
        """Writes the features of the sources into the targets, in the order of the targets."""
        ops.move(self._forward, *_two(sources), *_two(targets))

    def backward(
        self, ops: Operations, sources: Sequence[Tensor], targets: Sequence[Tensor]
    ) -> None:
        """Undoes `forward`: copies its targets to its sources."""
        ops.move(self._backward, *_two(sources), *_two(targets))


def _two(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    return parts[0], parts[1] if len(parts) > 1 else None


@dataclass(frozen=True)
class StepBuffers:
    """Buffers of a coupling: the half that it reads, and the other half before and after it."""

    step: CouplingStep
    kept: Tensor
    x: Tensor
    y: Tensor


class SavedStates:
    """The stored intermediate states of a chunk, by the segments of its route.

    With "nothing", each state overwrites the one before. "states" stores all states, and
    "everything" also stores the results of the conditioners.
    """

    def __init__(
        self,
        shape: BlockShape,
        route: Route,
        columns: int,
        like: Tensor,
        keep: Keep,
        product_dtype: torch.dtype,
    ) -> None:
        orders = [*(segment.gather for segment in route.segments), route.gather]
        self.gathers = [Gather(order, like.device) for order in orders]
        self.entries: list[Tensor] = []
        self.step_buffers: list[list[StepBuffers]] = []
        self.ends: list[list[Tensor]] = []
        self.states: dict[int, CouplingState] = {}
        for i, segment in enumerate(route.segments):
            reuse = keep == "nothing" and i >= 2  # two buffers alternate between read and write
            entry = self.entries[i - 2] if reuse else like.new_empty(shape.features, columns)
            self.entries.append(entry)
            halves, step_buffers = list(entry.split(segment.sizes)), []
            for step in segment.steps:
                kept, x = halves[step.reads], halves[1 - step.reads]
                y = x if keep == "nothing" else torch.empty_like(x)
                halves[1 - step.reads] = y
                step_buffers.append(StepBuffers(step, kept, x, y))
                if keep == "everything":
                    network = shape.networks[shape.network_of[step.layer]]
                    self.states[step.layer] = new_state(
                        network, columns, like, product_dtype, shape.affine
                    )
            self.step_buffers.append(step_buffers)
            self.ends.append(halves)


def new_state(
    network: NetworkShape, columns: int, like: Tensor, product_dtype: torch.dtype, affine: bool
) -> CouplingState:
    """Returns empty buffers for the results of one coupling."""
    return CouplingState(Activations(network, columns, like, product_dtype), affine=affine)


@dataclass(frozen=True)
class InverseReplay:
    """A backward pass that recomputes the states from the output z, and writes the input x."""

    z: Tensor
    x: Tensor
    fingerprints: Fingerprints


class Workspace:
    """Buffers that a chunk needs only while it runs, and the tapes recorded on them."""

    def __init__(
        self, shape: BlockShape, columns: int, like: Tensor, product_dtype: torch.dtype
    ) -> None:
        self.states = [
            new_state(n, columns, like, product_dtype, shape.affine) for n in shape.networks
        ]
        self.masks = [DropoutMasks(n, columns, like.device) for n in shape.networks]
        sizes = {size for s in shape.encode.segments for size in s.sizes}
        sizes |= {size for s in shape.decode.segments for size in s.sizes}
        self.log_scales = {size: like.new_empty(size, columns) for size in sizes}
        rows = max(sum(network.outputs) for network in shape.networks)
        rows = max(rows, *sizes)
        buffers = [like.new_empty(rows, columns) for _ in range(3)]
        self.slopes = [[Slopes(n, buffer) for n in shape.networks] for buffer in buffers]
        self.halves = [{size: buffer[rows - size :] for size in sizes} for buffer in buffers]
        self.network_backward = [
            NetworkBackward(n, columns, like, product_dtype) for n in shape.networks
        ]
        self.context = like.new_empty(shape.context_features, columns, dtype=product_dtype)
        self.context_gradient = like.new_empty(shape.context_features, columns)
        self.log_det_gradient = like.new_empty(columns)
        self.x_gradient = like.new_empty(shape.features, columns)
        self.fingerprints = like.new_empty(shape.layers, columns)
        self.seeds = torch.zeros(shape.layers, dtype=torch.int64)
        self.tapes: WeakKeyDictionary[SavedStates, TapeCache] = WeakKeyDictionary()


class ChunkKernel:
    """Runs the couplings of a block, in one direction, on chunks of rows."""

    def __init__(
        self,
        shape: BlockShape,
        direction: int,
        tensors: Sequence[Tensor],
        product_dtype: torch.dtype,
        like: Tensor,
    ) -> None:
        self.shape, self._tensors, self._product_dtype = shape, tensors, product_dtype
        self.route = shape.encode if direction > 0 else shape.decode
        self.arithmetic = arithmetic_of(shape, direction, like)

    @functools.cached_property
    def views(self) -> list[Views]:
        """The weights of the conditioners, one entry for each coupling."""
        return layer_weights(self.shape, self._tensors, self._product_dtype)

    def forward(
        self,
        saved: SavedStates,
        workspace: Workspace,
        x: Tensor,
        z: Tensor,
        context: Tensor,
        seeds: Tensor | None,
        log_det: Tensor,
        fingerprints: Fingerprints | None = None,
    ) -> Iterator[Job]:
        """Yields the operations that compute the output z and the log_det of an input x."""
        workspace.context.copy_(context)
        if seeds is not None:
            workspace.seeds.copy_(seeds)
        for log_scales in workspace.log_scales.values():
            log_scales.zero_()
        saved.gathers[0].forward(EAGER, [x], [saved.entries[0]])
        variant = seeds is not None, fingerprints is not None
        yield Job(
            functools.partial(self._forward, saved, workspace, *variant),
            workspace.tapes.setdefault(saved, TapeCache()),
            self._key("forward", *variant),
        )
        if fingerprints is not None:
            fingerprints.kept = workspace.fingerprints.clone()
        saved.gathers[-1].forward(EAGER, saved.ends[-1], [z])
        log_det.copy_(sum_of(workspace.log_scales))

    def backward(
        self,
        saved: SavedStates,
        workspace: Workspace,
        z_gradient: Tensor,
        log_det_gradient: Tensor,
        x_gradient: Tensor,
        context: Tensor,
        context_gradient: Tensor,
        seeds: Tensor | None,
        gradients: GradientSet,
        beta: int,
        replay: InverseReplay | None = None,
    ) -> Iterator[Job]:
        """Yields the operations that compute gradients from the saved states."""
        workspace.context.copy_(context)
        if seeds is not None:
            workspace.seeds.copy_(seeds)
        workspace.context_gradient.zero_()
        torch.mul(log_det_gradient, self.arithmetic.weight, out=workspace.log_det_gradient)
        saved.gathers[-1].backward(EAGER, [z_gradient], self._halves(workspace, [0, 1], -1))
        if replay is not None:
            saved.gathers[-1].backward(EAGER, [replay.z], saved.ends[-1])
        variant = seeds is not None, gradients, beta, replay is not None
        yield Job(
            functools.partial(self._backward, saved, workspace, *variant),
            workspace.tapes.setdefault(saved, TapeCache()),
            self._key("backward", *variant),
            gradients.moved,
        )
        x_gradient.copy_(workspace.x_gradient)
        if replay is not None:
            replay.fingerprints.replayed = workspace.fingerprints.clone()
            saved.gathers[0].backward(EAGER, [saved.entries[0]], [replay.x])
        context_gradient.copy_(workspace.context_gradient)

    def _key(self, *parts: Hashable) -> Hashable:
        """Returns the key of a tape apart from its buffers; None if it changes every time."""
        if self._tensors[0].dtype != self._product_dtype:
            return None
        return storage_key(self._tensors), *parts

    def _forward(
        self,
        saved: SavedStates,
        workspace: Workspace,
        drops: bool,
        fingerprinted: bool,
        ops: Operations,
    ) -> None:
        for i, step_buffers in enumerate(saved.step_buffers):
            if i:
                saved.gathers[i].forward(ops, saved.ends[i - 1], [saved.entries[i]])
            for buffers in step_buffers:
                state = self._evaluate(ops, buffers, saved, workspace, drops)
                if fingerprinted:
                    mark = workspace.fingerprints[buffers.step.layer]
                    write_fingerprint(ops, buffers.x, mark)
                log_scales = workspace.log_scales[len(buffers.x)]
                self.arithmetic.apply(ops, state, buffers.x, buffers.y, log_scales)

    def _backward(
        self,
        saved: SavedStates,
        workspace: Workspace,
        drops: bool,
        gradients: GradientSet,
        beta: int,
        replays: bool,
        ops: Operations,
    ) -> None:
        holds, free = [0, 1], 2  # buffers: the gradient of each half, and the next to write
        for i in range(len(saved.step_buffers) - 1, -1, -1):
            for buffers in reversed(saved.step_buffers[i]):
                layer = buffers.step.layer
                network = self.shape.network_of[layer]
                kept, changed = holds[buffers.step.reads], holds[1 - buffers.step.reads]
                state = saved.states.get(layer)
                if state is None:
                    state = self._evaluate(ops, buffers, saved, workspace, drops)
                    self.arithmetic.prepare(ops, state)
                if replays:
                    self.arithmetic.invert(ops, state, buffers.x)
                    write_fingerprint(ops, buffers.x, workspace.fingerprints[layer])
                slopes = workspace.slopes[changed][network]
                back = workspace.halves[free][len(buffers.x)]
                self.arithmetic.pull(
                    ops, state, buffers.x, workspace.log_det_gradient, slopes.answer, back
                )
                workspace.network_backward[network](
                    ops,
                    self.views[layer],
                    buffers.kept,
                    workspace.context,
                    state.network,
                    slopes,
                    gradients.layers[layer],
                    workspace.halves[kept][len(buffers.kept)],
                    workspace.context_gradient,
                    beta,
                    workspace.masks[network].scale if drops else 1.0,
                )
                holds[1 - buffers.step.reads], free = free, changed
            if i:
                before = self._halves(workspace, holds, i - 1)
                saved.gathers[i].backward(ops, self._halves(workspace, holds, i), before)
                if replays:
                    saved.gathers[i].backward(ops, [saved.entries[i]], saved.ends[i - 1])
        saved.gathers[0].backward(ops, self._halves(workspace, holds, 0), [workspace.x_gradient])

    def _halves(self, workspace: Workspace, holds: Sequence[int], segment: int) -> list[Tensor]:
        """Returns the gradients of the two halves of a segment."""
        sizes = self.route.segments[segment].sizes
        return [workspace.halves[b][n] for b, n in zip(holds, sizes, strict=True)]

    def _evaluate(
        self,
        ops: Operations,
        buffers: StepBuffers,
        saved: SavedStates,
        workspace: Workspace,
        drops: bool,
    ) -> CouplingState:
        layer = buffers.step.layer
        network = self.shape.network_of[layer]
        state = saved.states.get(layer, workspace.states[network])
        masks = None
        if drops:
            masks = workspace.masks[network]
            masks.start(ops, workspace.seeds[layer])
        evaluate(
            ops,
            self.shape.networks[network],
            self.views[layer],
            buffers.kept,
            workspace.context,
            state.network,
            masks,
        )
        return state


def sum_of(log_scales: dict[int, Tensor]) -> Tensor:
    """Returns the log_det (columns,) from log-scales in bits, (changed, columns) by width."""
    first, *others = (part.sum(0) for part in log_scales.values())
    for other in others:
        first += other
    return first.mul_(math.log(2))
