"""A run of couplings on a chunk of rows: there, and back with gradients.

Inside, features come first: a chunk is (features, columns), a column being a row of the batch.
"""

import functools
import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from kappaflow.stack.arithmetic import Found, arithmetic_of
from kappaflow.stack.marks import Marks
from kappaflow.stack.network import Activations, Draws, Pull, Slopes, evaluate
from kappaflow.stack.operations import AT_ONCE, Operations
from kappaflow.stack.prepared import (
    GradientSet,
    prepared_transposes,
    prepared_weights,
    where_they_lie,
)
from kappaflow.stack.programs import Job, Programs
from kappaflow.stack.route import Order, Route, Step
from kappaflow.stack.shape import BlockShape, NetworkShape
from kappaflow.stack.weights import Transposes, Views

Keep = Literal["nothing", "states", "everything"]


class Move:
    """An index move between two splits of the features into halves."""

    def __init__(self, gather: Order | None, device: torch.device) -> None:
        self._there = self._back = None
        if gather is not None:
            self._there = torch.tensor(gather, device=device)
            self._back = self._there.argsort()

    def there(self, do: Operations, sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
        """Writes the features of the sources into the targets, in the order of the targets."""
        do.move(self._there, *_two(sources), *_two(targets))

    def back(self, do: Operations, sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
        """Undoes `there`: from what were its targets to what were its sources."""
        do.move(self._back, *_two(sources), *_two(targets))


def _two(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    return parts[0], parts[1] if len(parts) > 1 else None


@dataclass(frozen=True)
class Place:
    """Where a step finds the half that it reads, and the other one before and after."""

    step: Step
    kept: Tensor
    x: Tensor
    y: Tensor


class Track:
    """The states of a chunk on its route, as far as they are kept.

    Args:
        shape: The couplings.
        route: Their order.
        columns: How many rows of the batch.
        like: A tensor of the type and on the device of the states.
        keep: "nothing": each state takes the place of the one before; "states": all are kept;
            "everything": what the couplings compute on the way, too.
        kind: The type of the products.

    Attributes:
        moves: In front of each segment, and behind the last.
        entries: The features at the start of each segment, (features, columns).
        places: Where each step of a segment reads and writes.
        ends: The two halves at the end of each segment.
        found: What each layer computes; empty if that is not kept.
    """

    def __init__(
        self,
        shape: BlockShape,
        route: Route,
        columns: int,
        like: Tensor,
        keep: Keep,
        kind: torch.dtype,
    ) -> None:
        gathers = [*(segment.gather for segment in route.segments), route.gather]
        self.moves = [Move(gather, like.device) for gather in gathers]
        self.entries: list[Tensor] = []
        self.places: list[list[Place]] = []
        self.ends: list[list[Tensor]] = []
        self.found: dict[int, Found] = {}
        for i, segment in enumerate(route.segments):
            reuse = keep == "nothing" and i >= 2  # two take turns: one is read, one is written
            entry = self.entries[i - 2] if reuse else like.new_empty(shape.features, columns)
            self.entries.append(entry)
            halves, places = list(entry.split(segment.sizes)), []
            for step in segment.steps:
                kept, x = halves[step.reads], halves[1 - step.reads]
                y = x if keep == "nothing" else torch.empty_like(x)
                halves[1 - step.reads] = y
                places.append(Place(step, kept, x, y))
                if keep == "everything":
                    network = shape.networks[shape.network_of[step.layer]]
                    self.found[step.layer] = found_for(network, columns, like, kind, shape.affine)
            self.places.append(places)
            self.ends.append(halves)


def found_for(
    network: NetworkShape, columns: int, like: Tensor, kind: torch.dtype, affine: bool
) -> Found:
    """Returns buffers for what one coupling computes."""
    return Found(Activations(network, columns, like, kind), affine=affine)


@dataclass(frozen=True)
class Undo:
    """What a way back needs where no states were kept.

    Attributes:
        z: What came out, (features, columns).
        x: Where what comes back is written, (features, columns).
        marks: The fingerprints of the states, which are compared.
    """

    z: Tensor
    x: Tensor
    marks: Marks


class Scratch:
    """Buffers that one chunk needs while it runs.

    Attributes:
        context: (context, columns), in the type of the products.
        context_gradient: The same in the type of the states.
        log_det_gradient: (columns,).
        x_gradient: (features, columns).
        programs: Those that were recorded on these buffers, and on those of each track.
    """

    def __init__(self, shape: BlockShape, columns: int, like: Tensor, kind: torch.dtype) -> None:
        self.found = [found_for(n, columns, like, kind, shape.affine) for n in shape.networks]
        self.draws = [Draws(n, columns, like.device) for n in shape.networks]
        sizes = {size for s in shape.encode.segments for size in s.sizes}
        sizes |= {size for s in shape.decode.segments for size in s.sizes}
        self.log_scales = {size: like.new_empty(size, columns) for size in sizes}
        rows = max(sum(network.outputs) for network in shape.networks)
        rows = max(rows, *sizes)
        buffers = [like.new_empty(rows, columns) for _ in range(3)]
        self.slopes = [[Slopes(n, buffer) for n in shape.networks] for buffer in buffers]
        self.halves = [{size: buffer[rows - size :] for size in sizes} for buffer in buffers]
        self.pulls = [Pull(n, columns, like, kind) for n in shape.networks]
        self.context = like.new_empty(shape.context_features, columns, dtype=kind)
        self.context_gradient = like.new_empty(shape.context_features, columns)
        self.log_det_gradient = like.new_empty(columns)
        self.x_gradient = like.new_empty(shape.features, columns)
        self.programs: WeakKeyDictionary[Track, Programs] = WeakKeyDictionary()


class Run:
    """A run of couplings in one direction, with its weights, on chunks.

    Args:
        shape: The couplings.
        direction: 1 from data to latent, -1 back.
        tensors: Their weights and biases.
        kind: The type of the products.
        like: A tensor of the type and on the device of the states.
    """

    def __init__(
        self,
        shape: BlockShape,
        direction: int,
        tensors: Sequence[Tensor],
        kind: torch.dtype,
        like: Tensor,
    ) -> None:
        self.shape, self._tensors, self._kind = shape, tensors, kind
        self.route = shape.encode if direction > 0 else shape.decode
        self.arithmetic = arithmetic_of(shape, direction, like)

    @functools.cached_property
    def views(self) -> list[Views]:
        """Weights of the couplings, by layer."""
        return prepared_weights(self.shape, self._tensors, self._kind)

    @functools.cached_property
    def transposes(self) -> list[Transposes]:
        """The same, transposed."""
        return prepared_transposes(self.shape, self._tensors, self._kind)

    def there(
        self,
        track: Track,
        scratch: Scratch,
        x: Tensor,
        z: Tensor,
        context: Tensor,
        seeds: Sequence[int] | None,
        log_det: Tensor,
        marks: Marks | None = None,
    ) -> Iterator[Job]:
        """Writes z (features, columns) and the log_det (columns,) for x (features, columns).

        Args:
            track: Takes the states.
            scratch: Buffers.
            x: What comes in.
            z: What goes out.
            context: (context, columns).
            seeds: Of the dropout of each layer, or None for no dropout.
            log_det: Written.
            marks: Takes a fingerprint of each state, if any is wanted.

        Yields:
            What is to be executed, between what comes before and after it.
        """
        scratch.context.copy_(context)
        for log_scales in scratch.log_scales.values():
            log_scales.zero_()
        track.moves[0].there(AT_ONCE, [x], [track.entries[0]])
        yield Job(
            functools.partial(self._there, track, scratch, seeds, marks),
            scratch.programs.setdefault(track, Programs()),
            None if marks else self._key(seeds, "there"),
        )
        track.moves[-1].there(AT_ONCE, track.ends[-1], [z])
        log_det.copy_(sum_of(scratch.log_scales))

    def back(
        self,
        track: Track,
        scratch: Scratch,
        z_gradient: Tensor,
        log_det_gradient: Tensor,
        x_gradient: Tensor,
        context: Tensor,
        context_gradient: Tensor,
        seeds: Sequence[int] | None,
        gradients: GradientSet,
        beta: int,
        undo: Undo | None = None,
    ) -> Iterator[Job]:
        """Takes gradients back over the track.

        Args:
            track: As `there` left it.
            scratch: Buffers.
            z_gradient: (features, columns).
            log_det_gradient: (columns,).
            x_gradient: (features, columns), written.
            context: (context, columns).
            context_gradient: (context, columns), written.
            seeds: As for `there`.
            gradients: Of the weights; added to with `beta` 1, overwritten with 0.
            beta: 0 or 1.
            undo: Where nothing was kept: what comes out, from which the states come back.

        Yields:
            What is to be executed, between what comes before and after it.
        """
        scratch.context.copy_(context)
        scratch.context_gradient.zero_()
        torch.mul(log_det_gradient, self.arithmetic.weight, out=scratch.log_det_gradient)
        track.moves[-1].back(AT_ONCE, [z_gradient], self._halves(scratch, [0, 1], -1))
        if undo is not None:
            track.moves[-1].back(AT_ONCE, [undo.z], track.ends[-1])
        yield Job(
            functools.partial(self._back, track, scratch, seeds, gradients, beta, undo),
            scratch.programs.setdefault(track, Programs()),
            None if undo else self._key(seeds, "back", gradients, beta),
        )
        x_gradient.copy_(scratch.x_gradient)
        if undo is not None:
            track.moves[0].back(AT_ONCE, [track.entries[0]], [undo.x])
        context_gradient.copy_(scratch.context_gradient)

    def _key(self, seeds: object, *parts: Hashable) -> Hashable:
        """Returns what a program depends on, besides buffers; None if it changes every time."""
        if seeds is not None or self._tensors[0].dtype != self._kind:
            return None
        return where_they_lie(self._tensors), *parts

    def _there(
        self,
        track: Track,
        scratch: Scratch,
        seeds: Sequence[int] | None,
        marks: Marks | None,
        do: Operations,
    ) -> None:
        for i, places in enumerate(track.places):
            if i:
                track.moves[i].there(do, track.ends[i - 1], [track.entries[i]])
            for place in places:
                found = self._evaluate(do, place, track, scratch, seeds)
                if marks is not None:
                    marks.keep(do, place.step.layer, place.x)
                log_scales = scratch.log_scales[len(place.x)]
                self.arithmetic.apply(do, found, place.x, place.y, log_scales)

    def _back(
        self,
        track: Track,
        scratch: Scratch,
        seeds: Sequence[int] | None,
        gradients: GradientSet,
        beta: int,
        undo: Undo | None,
        do: Operations,
    ) -> None:
        holds, free = [0, 1], 2  # buffers: of the gradient of each half, and of what comes next
        for i in range(len(track.places) - 1, -1, -1):
            for place in reversed(track.places[i]):
                layer = place.step.layer
                network = self.shape.network_of[layer]
                kept, changed = holds[place.step.reads], holds[1 - place.step.reads]
                found = track.found.get(layer)
                if found is None:
                    found = self._evaluate(do, place, track, scratch, seeds)
                    self.arithmetic.prepare(do, found)
                if undo is not None:
                    self.arithmetic.undo(do, found, place.x)
                    undo.marks.compare(do, layer, place.x)
                slopes = scratch.slopes[changed][network]
                back = scratch.halves[free][len(place.x)]
                self.arithmetic.pull(
                    do, found, place.x, scratch.log_det_gradient, slopes.answer, back
                )
                scratch.pulls[network](
                    do,
                    self.transposes[layer],
                    place.kept,
                    scratch.context,
                    found.network,
                    slopes,
                    gradients.layers[layer],
                    scratch.halves[kept][len(place.kept)],
                    scratch.context_gradient,
                    beta,
                    1.0 if seeds is None else scratch.draws[network].scale,
                )
                holds[1 - place.step.reads], free = free, changed
            if i:
                before = self._halves(scratch, holds, i - 1)
                track.moves[i].back(do, self._halves(scratch, holds, i), before)
                if undo is not None:
                    track.moves[i].back(do, [track.entries[i]], track.ends[i - 1])
        track.moves[0].back(do, self._halves(scratch, holds, 0), [scratch.x_gradient])

    def _halves(self, scratch: Scratch, holds: Sequence[int], segment: int) -> list[Tensor]:
        """Returns the gradients of the halves of a segment, from the buffers that hold them."""
        sizes = self.route.segments[segment].sizes
        return [scratch.halves[b][n] for b, n in zip(holds, sizes, strict=True)]

    def _evaluate(
        self,
        do: Operations,
        place: Place,
        track: Track,
        scratch: Scratch,
        seeds: Sequence[int] | None,
    ) -> Found:
        layer = place.step.layer
        network = self.shape.network_of[layer]
        found = track.found.get(layer, scratch.found[network])
        draws = None
        if seeds is not None:
            draws = scratch.draws[network]
            draws.start(do, seeds[layer])
        evaluate(
            do,
            self.shape.networks[network],
            self.views[layer],
            place.kept,
            scratch.context,
            found.network,
            draws,
        )
        return found


def sum_of(log_scales: dict[int, Tensor]) -> Tensor:
    """Returns the log_det (columns,) of log-scales in bits (changed, columns), by their number."""
    first, *others = (part.sum(0) for part in log_scales.values())
    for other in others:
        first += other
    return first.mul_(math.log(2))
