"""Backward passes that run layers again, from stored inputs or from inputs recovered by inversion.

A segment of at most 32 layers is one autograd node. It runs without a graph, in pieces. Its
backward pass goes from the last piece to the first: it makes a `Trace` of each piece and pulls the
cotangents through it.

With memory mode "recompute" a piece has up to four layers, and the node stores the input of each
piece. With "invert" a piece is one layer. The node stores the input and the output of the segment,
and a *fingerprint* of each layer's input: the projection of each row on a fixed random direction.
The backward pass recovers each input from the output and compares fingerprints; at the first layer
it compares the input itself. If a comparison fails, the segment warns, discards these gradients,
computes them from its input, and uses "recompute" from then on.

Source: Gomez, Ren, Urtasun, Grosse 2017 (RevNet) for the inversion; the fingerprints are ours.
"""

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call

from kappaflow.autograd.checkpoint import (
    call_eagerly,
    memory_modes_bypassed,
    rerun_later,
    twice_differentiable,
    uses_plain_autograd,
)
from kappaflow.autograd.fingerprints import (
    LARGEST_ERROR,
    direction_for,
    error_text,
    fingerprint,
    fingerprint_errors,
    relative_error,
)
from kappaflow.autograd.replay import Precision, Replay
from kappaflow.autograd.segment import LayerCall, Segment, SegmentRecord
from kappaflow.autograd.trace import Map, Trace, gradients, hooks_set_aside, reads_others
from kappaflow.errors import ArgumentError, NumericalError, NumericalWarning

LONGEST = 32  # largest number of layers in a segment
TOGETHER = 4  # largest number of layers in a piece that runs again from its input


def run_steps(
    memory: str,
    steps: Sequence[LayerCall],
    contexts: Sequence[Tensor | None],
    x: Tensor,
    log_det: Tensor,
    record: SegmentRecord,
) -> tuple[Tensor, Tensor]:
    """Returns the value of layers run in a memory mode, and log_det plus theirs."""
    if torch.compiler.is_compiling():
        if memory == "invert":
            return call_eagerly(run_steps, memory, steps, contexts, x, log_det, record)
        for step, context in zip(steps, contexts, strict=True):
            if memory == "recompute":
                x, part = rerun_later(step.run, x, context)
            else:
                x, part = step.run(x, context)
            log_det = log_det + part
        return x, log_det
    if memory == "store" or uses_plain_autograd():
        with memory_modes_bypassed():
            for step, context in zip(steps, contexts, strict=True):
                x, part = step.run(x, context)
                log_det = log_det + part
        return x, log_det
    for start in range(0, len(steps), LONGEST):
        part = slice(start, start + LONGEST)
        x, log_det = _run_segment(memory, steps[part], contexts[part], x, log_det, record)
    return x, log_det


def _run_segment(
    memory: str,
    steps: Sequence[LayerCall],
    contexts: Sequence[Tensor | None],
    x: Tensor,
    log_det: Tensor,
    record: SegmentRecord,
) -> tuple[Tensor, Tensor]:
    """Returns the result of steps as one node.

    A node computes gradients of parameters and contexts only. If a piece reads another tensor that
    requires a gradient, a node that stores inputs ends before it. The piece runs as checkpoints.
    """
    segment = Segment(steps, contexts)
    inverts = memory == "invert" and segment.key not in record.inaccurate
    x, log_det, stopped = SegmentNode.apply(segment, inverts, record, x, log_det, *segment.tensors)
    if stopped is None:
        return x, log_det
    with stopped.replay:
        for i in stopped.steps:
            plain = functools.partial(_bypassing, steps[i].run)
            x, part = rerun_later(plain, x, contexts[i], module=steps[i].module)
            log_det = log_det + part
    following = stopped.steps.stop
    if following == len(steps):
        return x, log_det
    rest = steps[following:], contexts[following:]
    return _run_segment("recompute", *rest, x, log_det, record)


@dataclass(frozen=True)
class _Piece:
    """Consecutive steps that run again together: their numbers, and what repeats them exactly."""

    steps: range
    replay: Replay


class SegmentNode(torch.autograd.Function):
    """Steps as one node, which stores inputs of pieces, or its input, output and fingerprints."""

    @staticmethod
    def forward(
        ctx: Any,
        segment: Segment,
        inverts: bool,
        record: SegmentRecord,
        x: Tensor,
        log_det: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor, _Piece | None]:
        segment.tensors = []  # ctx holds them now and frees them after the backward pass
        ctx.segment, ctx.inverts, ctx.record = segment, inverts, record
        ctx.precision, ctx.pieces = Precision(x.device), []
        leaves, stopped = segment.leaves(tensors, ctx.needs_input_grad[5:]), None
        traced = not inverts and segment.key not in record.closed
        inputs, prints, z, log_det = [], [], x.detach(), log_det.detach()
        for numbers in segment.pieces(1 if inverts else TOGETHER):
            piece = _Piece(numbers, Replay(segment.owners_of(numbers), z))
            answer = _run_piece(segment, numbers, z, log_det, leaves, ctx.precision, traced=traced)
            piece.replay.called()
            if answer is None:
                stopped = piece
                break
            ctx.pieces.append(piece)
            if inverts:
                prints.append(fingerprint(z, direction_for(z)))
            else:
                inputs.append(z)
            z, log_det = answer
        if traced and stopped is None:
            record.closed.add(segment.key)
        kept = [z, torch.stack(prints)] if inverts else inputs[1:]
        ctx.kept = len(kept)
        ctx.save_for_backward(x, *kept, *tensors)
        return z, log_det, stopped

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        states, tensors = saved[: ctx.kept], saved[ctx.kept :]
        cotangents = (cotangents[0], cotangents[1])  # the third output is no tensor
        needed = ctx.needs_input_grad[5:]
        kept = _Kept(ctx.segment, ctx.pieces, ctx.precision, x, tensors, needed)
        if torch.is_grad_enabled() or not ctx.segment.is_of(tensors):
            computed = kept.by_plain_autograd(*cotangents)
        elif not ctx.inverts:
            computed = kept.from_inputs([x, *states], *cotangents)
        elif ctx.segment.key in ctx.record.inaccurate:
            computed = kept.from_inputs(kept.inputs(states[0]), *cotangents)
        else:
            computed = kept.by_inversion(states[0], states[1], ctx.record, *cotangents)
        return (None, None, None, computed[0], cotangents[1], *computed[1:])


def _run_piece(
    segment: Segment,
    numbers: range,
    x: Tensor,
    log_det: Tensor,
    leaves: list[Tensor],
    precision: Precision,
    *,
    traced: bool,
) -> tuple[Tensor, Tensor] | None:
    """Returns the value and log_det after some steps; None if they read other tensors.

    With `traced`, it builds a graph to find the tensors that the steps read. Hooks for stored
    tensors do not see this graph: a checkpoint around the flow would count its tensors.
    """
    leaf = x.detach().requires_grad_(x.is_floating_point()) if traced else x
    with (
        memory_modes_bypassed(),
        precision.again(),
        torch.set_grad_enabled(traced or precision.rounds),
        saved_tensors_hooks(Tensor.detach, lambda tensor: tensor) if traced else nullcontext(),
    ):
        outputs = segment.run(numbers, leaf, log_det, leaves)
    if traced and reads_others(outputs, (leaf, *segment.own(numbers, leaves).values())):
        return None
    return outputs[0].detach(), outputs[1].detach()


@dataclass(frozen=True)
class _Kept:
    """The stored state of a node, and the three ways to compute its gradients."""

    segment: Segment
    pieces: Sequence[_Piece]
    precision: Precision
    x: Tensor
    tensors: Sequence[Tensor]
    needed: Sequence[bool]

    def by_inversion(
        self,
        z: Tensor,
        prints: Tensor,
        record: SegmentRecord,
        cotangent: Tensor,
        log_det_cotangent: Tensor,
    ) -> list[Tensor | None]:
        """Returns gradients of x and the tensors from recovered inputs, if these are accurate."""
        recovered, x = [], z.detach()

        def trace(numbers: range, leaves: list[Tensor]) -> Trace:
            nonlocal x
            (i,) = numbers
            context = self.segment.context(i, leaves)
            trace = self.segment.steps[i].trace_from_output(x, context)
            x = trace.x
            recovered.append(fingerprint(x, direction_for(x)))
            return trace

        pulled = self._pulled(trace, cotangent, log_det_cotangent)
        # One comparison for all steps, since each would synchronize a GPU.
        errors = fingerprint_errors(torch.stack(recovered[::-1]), prints)
        errors[0] = torch.maximum(errors[0], relative_error(x, self.x.detach()))
        sizes = list(zip(self.segment.steps, errors.tolist(), strict=True))
        for step, error in reversed(sizes):
            if not error <= LARGEST_ERROR:
                if torch.isfinite(z).all():  # other outputs say nothing about the layers
                    record.inaccurate.add(self.segment.key)
                    text = error_text(
                        step.name, error, *self.segment.key[1:], inverse=step.inverse
                    )
                    warnings.warn(text, NumericalWarning, stacklevel=2)
                return self.from_inputs(self.inputs(z), cotangent, log_det_cotangent)
        return pulled

    def inputs(self, z: Tensor) -> list[Tensor]:
        """Returns the input of each piece by running them again; z is the last output."""
        inputs, leaves = [self.x.detach()], self.segment.leaves(self.tensors, self.needed)
        unread = inputs[0].new_zeros(())  # log_det
        for piece in self.pieces:
            with self._again(piece), torch.set_grad_enabled(self.precision.rounds):
                value = self.segment.run(piece.steps, inputs[-1], unread, leaves)[0]
                inputs.append(value.detach())
        self._check_repeated(inputs.pop(), z.detach())
        return inputs

    def from_inputs(
        self, inputs: list[Tensor], cotangent: Tensor, log_det_cotangent: Tensor
    ) -> list[Tensor | None]:
        """Returns gradients of x and the tensors, running each piece again from its input."""

        def trace(numbers: range, leaves: list[Tensor]) -> Trace:
            def run(x: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor]:
                return self.segment.run(numbers, x, torch.zeros_like(log_det_cotangent), leaves)

            return Trace(run, inputs.pop(), None)

        return self._pulled(trace, cotangent, log_det_cotangent)

    def by_plain_autograd(
        self, cotangent: Tensor, log_det_cotangent: Tensor
    ) -> list[Tensor | None]:
        """Returns gradients by plain autograd, for second derivatives or replaced parameters.

        Inputs are replaced by aliases. Paths from x or a context back to a parameter belong to the
        outer graph and are not counted here.
        """
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad(), twice_differentiable() if differentiable else nullcontext():
            x, *aliases = (_alias(t, differentiable) for t in (self.x, *self.tensors))
            z, log_det = x, torch.zeros_like(log_det_cotangent)
            for piece in self.pieces:
                with self._again(piece):
                    for i in piece.steps:
                        value, part = self._called(i, z, aliases)
                        self._check_sources(range(i, i + 1), (value, part), [z, *aliases])
                        z, log_det = value, log_det + part
            return gradients(
                [z, log_det],
                [x, *aliases],
                [cotangent, log_det_cotangent],
                differentiable=differentiable,
            )

    def _called(self, i: int, x: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Returns the result of a step that reads these tensors instead of its parameters."""
        step, indices = self.segment.steps[i], self.segment.parameters[i]
        names = [name for name, _ in step.module.named_parameters()]
        put = {f"held.{name}": tensors[p] for name, p in zip(names, indices, strict=True)}
        return functional_call(_Held(step), put, (x, self.segment.context(i, tensors)))

    @contextmanager
    def _again(self, piece: _Piece) -> Iterator[None]:
        """Returns a context in which a piece runs as in the forward pass."""
        with memory_modes_bypassed(), self.precision.again(), piece.replay:
            yield

    def _pulled(
        self,
        trace_of: Callable[[range, list[Tensor]], Trace],
        cotangent: Tensor,
        log_det_cotangent: Tensor,
    ) -> list[Tensor | None]:
        """Returns the gradients of x and the tensors, pulled through the trace of each piece."""
        totals: list[Tensor | None] = [None] * len(self.tensors)
        leaves = self.segment.leaves(self.tensors, self.needed)
        # Bypassed while autograd runs too, since a checkpoint in a layer runs its part again then.
        with hooks_set_aside(self.tensors), memory_modes_bypassed():
            for piece in reversed(self.pieces):
                with self._again(piece):
                    trace = trace_of(piece.steps, leaves)
                own = self.segment.own(piece.steps, leaves)
                sources = (trace.leaf, *own.values())
                self._check_sources(piece.steps, trace.outputs, sources)
                seeds = trace.seeds(cotangent, log_det_cotangent)
                of_leaf, *others = gradients(trace.outputs, sources, seeds)
                cotangent = trace.cotangent(of_leaf)
                for index, more in zip(own, others, strict=True):
                    if more is not None:
                        before = totals[index]
                        totals[index] = more if before is None else before + more
        return [cotangent, *totals]

    def _check_sources(
        self, numbers: range, outputs: Sequence[Tensor], known: Sequence[Tensor]
    ) -> None:
        """Raises an error if outputs depend on a tensor that would get no gradient here."""
        if reads_others(outputs, known):
            names = " or ".join(self.segment.steps[i].name for i in numbers)
            raise ArgumentError(
                f"layer {names} reads a tensor that requires a gradient but is not one of its "
                "parameters. The tensor would get no gradient: make it a torch.nn.Parameter, or "
                "use memory='store'."
            )

    def _check_repeated(self, repeated: Tensor, z: Tensor) -> None:
        """Raises an error if layers give other values when they run again, where z is finite."""
        finite = z.isfinite()
        error = relative_error(repeated.where(finite, 0), z.where(finite, 0))
        if not error.item() <= LARGEST_ERROR:
            _, first, last = self.segment.key
            raise NumericalError(
                f"memory='invert': one of the layers {first} to {last} returns a different value "
                f"when it runs again (relative error {error.item():.1g}). It may use its own "
                "random generator, or change state that is not a buffer. Use memory='store'."
            )


class _Held(nn.Module):
    """A step as a module, for `functional_call`."""

    def __init__(self, step: LayerCall) -> None:
        super().__init__()
        self.held = step.module
        self._step = step  # `run` may be that module, which must be registered only once

    def forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns the value and log_det of the step."""
        return self._step.run(x, context)


def _bypassing(function: Map, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    with memory_modes_bypassed():
        return function(x, context)


def _alias(tensor: Tensor, differentiable: bool) -> Tensor:
    """Returns the tensor as another node of the graph, or as a leaf."""
    if differentiable:
        return tensor.view_as(tensor)
    return tensor.detach().requires_grad_(tensor.requires_grad)
