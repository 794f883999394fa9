"""Backward passes that run layers again, from stored inputs or from inputs recovered by inversion.

A segment of at most 32 layers is one autograd node. Its backward pass goes from the last layer to
the first: it makes a `Trace` of each layer and pulls the cotangents through it.

With memory mode "recompute" the node stores the input of each layer. With "invert" it stores the
input and the output of the segment, and a *fingerprint* of each layer's input: the projection of
each row on a fixed random direction. The backward pass recovers each input from the output and
compares fingerprints; at the first layer it compares the input itself. If a comparison fails, the
segment warns, discards these gradients, computes them from its input, and from then on stores the
inputs of its layers.

Source: Gomez, Ren, Urtasun, Grosse 2017 (RevNet) for the inversion; the fingerprints are ours.
"""

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from kappaflow.autograd.checkpoint import (
    call_eagerly,
    memory_modes_bypassed,
    rerun_later,
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
from kappaflow.autograd.segment import LayerCall, Segment
from kappaflow.autograd.trace import Map, Trace, gradients, hooks_set_aside, reads_others
from kappaflow.errors import ArgumentError, NumericalError, NumericalWarning

LONGEST = 32  # largest number of layers in a segment


class InversionFallbacks:
    """The segments of a chain that store inputs, because inversion was too inaccurate.

    A copy of the chain starts with an empty set.
    """

    def __init__(self) -> None:
        self._keys: set[tuple[bool, int, int]] = set()

    def __deepcopy__(self, _: object) -> "InversionFallbacks":
        return InversionFallbacks()

    def has(self, segment: Segment) -> bool:
        """Returns whether a segment stores its inputs."""
        return segment.key in self._keys

    def add(self, segment: Segment) -> None:
        """Makes a segment store its inputs from now on."""
        self._keys.add(segment.key)

    def as_text(self) -> str:
        """Returns the part of the chain's `repr`; empty if there are none."""
        text = ""
        for inverse, suffix in ((False, ""), (True, " of the inverse")):
            keys = sorted(key for key in self._keys if key[0] == inverse)
            places = ", ".join(f"{first}-{last}" for _, first, last in keys)
            text += f", recomputing layers {places}{suffix}" if places else ""
        return text


def run_steps(
    memory: str,
    steps: Sequence[LayerCall],
    contexts: Sequence[Tensor | None],
    x: Tensor,
    log_det: Tensor,
    fallbacks: InversionFallbacks,
) -> tuple[Tensor, Tensor]:
    """Runs layers in a memory mode; returns the value, and log_det plus their log-determinants.

    Args:
        memory: One of `MEMORY_MODES`.
        steps: The layers in the order of execution.
        contexts: The context of each layer.
        x: The input, (B, *event).
        log_det: The log_det before these layers, (B,).
        fallbacks: Segments that store inputs although the mode is "invert"; updated in place.

    Returns:
        The value, (B, *event), and the log_det, (B,), which are bit-identical in all modes.
    """
    if torch.compiler.is_compiling():
        if memory == "invert":
            return call_eagerly(run_steps, memory, steps, contexts, x, log_det, fallbacks)
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
        inverting = fallbacks if memory == "invert" else None
        x, log_det = _run_segment(steps[part], contexts[part], x, log_det, inverting)
    return x, log_det


def _run_segment(
    steps: Sequence[LayerCall],
    contexts: Sequence[Tensor | None],
    x: Tensor,
    log_det: Tensor,
    fallbacks: InversionFallbacks | None,
) -> tuple[Tensor, Tensor]:
    """Returns the result of steps as one node, which inverts inputs if `fallbacks` is given.

    A node computes gradients of parameters and contexts only. If a step reads another tensor that
    requires a gradient, a node that stores inputs ends before it, and the step runs as a
    checkpoint.
    """
    segment = Segment(steps, contexts)
    fallbacks = None if fallbacks is None or fallbacks.has(segment) else fallbacks
    x, log_det, stopped = _Node.apply(segment, fallbacks, x, log_det, *segment.tensors)
    if stopped is None:
        return x, log_det
    i, replay = stopped
    plain = functools.partial(_bypassing, steps[i].run)
    with replay:
        x, part = rerun_later(plain, x, contexts[i], module=steps[i].module)
    log_det, i = log_det + part, i + 1
    if i == len(steps):
        return x, log_det
    return _run_segment(steps[i:], contexts[i:], x, log_det, None)


class _Node(torch.autograd.Function):
    """Steps as one node, which stores all their inputs, or its input, output and fingerprints."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,  # noqa: ANN401
        segment: Segment,
        fallbacks: InversionFallbacks | None,
        x: Tensor,
        log_det: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor, tuple[int, Replay] | None]:
        segment.tensors = []  # ctx holds them now and frees them after the backward pass
        ctx.segment, ctx.fallbacks = segment, fallbacks
        ctx.precision, ctx.replays = Precision(x.device), []
        leaves, stopped = segment.leaves(tensors, ctx.needs_input_grad[4:]), None
        inputs, prints, z = [], [], x.detach()
        for i in range(len(segment.steps)):
            replay = Replay(segment.owners[i], z)
            answer = _run_step(segment, i, z, leaves, ctx.precision, traced=fallbacks is None)
            replay.called()
            if answer is None:
                stopped = (i, replay)
                break
            ctx.replays.append(replay)
            if fallbacks is None:
                inputs.append(z)
            else:
                prints.append(fingerprint(z, direction_for(z)))
            z, log_det = answer[0], log_det + answer[1]
        kept = inputs[1:] if fallbacks is None else [z, torch.stack(prints)]
        ctx.kept = len(kept)
        ctx.save_for_backward(x, *kept, *tensors)
        return z, log_det, stopped

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401, D102
        x, *saved = ctx.saved_tensors
        states, tensors = saved[: ctx.kept], saved[ctx.kept :]
        cotangents = (cotangents[0], cotangents[1])  # the third output is no tensor
        needed = ctx.needs_input_grad[4:]
        kept = _Kept(ctx.segment, ctx.replays, ctx.precision, x, tensors, needed)
        if torch.is_grad_enabled() or not ctx.segment.is_of(tensors):
            found = kept.by_plain_autograd(*cotangents)
        elif ctx.fallbacks is None:
            found = kept.from_inputs([x, *states], *cotangents)
        elif ctx.fallbacks.has(ctx.segment):
            found = kept.from_inputs(kept.inputs(states[0]), *cotangents)
        else:
            found = kept.by_inversion(states[0], states[1], ctx.fallbacks, *cotangents)
        return (None, None, found[0], cotangents[1], *found[1:])


def _run_step(
    segment: Segment,
    i: int,
    x: Tensor,
    leaves: list[Tensor],
    precision: Precision,
    *,
    traced: bool,
) -> tuple[Tensor, Tensor] | None:
    """Returns value and log_det of a step; None if it reads tensors outside the segment.

    With `traced`, it builds the graph of the step to find the tensors that it reads.
    """
    step, context = segment.steps[i], segment.context(i, leaves)
    if not traced:
        with memory_modes_bypassed(), precision.again(), torch.set_grad_enabled(precision.rounds):
            value, log_det = step.run(x, context)
        return value.detach(), log_det.detach()
    with memory_modes_bypassed(), precision.again():
        trace = step.trace(x, context)
    if reads_others(trace.outputs, (trace.leaf, *segment.own(i, leaves).values())):
        return None
    return trace.answer()


@dataclass(frozen=True)
class _Kept:
    """The stored state of a node, and the three ways to compute its gradients.

    Attributes:
        segment: The steps; the node may have run only the first of them.
        replays: The replay of each step that has run.
        precision: Autocast settings of the forward pass.
        x: The input.
        tensors: Contexts and parameters.
        needed: Whether each of the tensors needs a gradient.
    """

    segment: Segment
    replays: Sequence[Replay]
    precision: Precision
    x: Tensor
    tensors: Sequence[Tensor]
    needed: Sequence[bool]

    def by_inversion(
        self,
        z: Tensor,
        prints: Tensor,
        fallbacks: InversionFallbacks,
        cotangent: Tensor,
        log_det_cotangent: Tensor,
    ) -> list[Tensor | None]:
        """Returns gradients of x and the tensors from recovered inputs, if these are accurate.

        Args:
            z: The output.
            prints: Fingerprints of the inputs of the steps, (steps, B).
            fallbacks: Receives the segment if inversion is inaccurate.
            cotangent: Cotangent of the output.
            log_det_cotangent: Cotangent of the log_det, (B,).
        """
        recovered, x = [], z.detach()

        def trace(i: int, context: Tensor | None) -> Trace:
            nonlocal x
            trace = self.segment.steps[i].trace_from_output(x, context)
            x = trace.x
            recovered.append(fingerprint(x, direction_for(x)))
            return trace

        found = self._pulled(trace, cotangent, log_det_cotangent, known=False)
        # One comparison for all steps, since each would synchronize a GPU.
        errors = fingerprint_errors(torch.stack(recovered[::-1]), prints)
        errors[0] = torch.maximum(errors[0], relative_error(x, self.x.detach()))
        sizes = list(zip(self.segment.steps, errors.tolist(), strict=True))
        for step, error in reversed(sizes):
            if not error <= LARGEST_ERROR:
                if torch.isfinite(z).all():  # other outputs say nothing about the layers
                    fallbacks.add(self.segment)
                    text = error_text(
                        step.name, error, *self.segment.key[1:], inverse=step.inverse
                    )
                    warnings.warn(text, NumericalWarning, stacklevel=2)
                return self.from_inputs(self.inputs(z), cotangent, log_det_cotangent)
        return found

    def inputs(self, z: Tensor) -> list[Tensor]:
        """Returns the input of each step by running them again; z is the last output."""
        inputs, leaves = [self.x.detach()], self.segment.leaves(self.tensors, self.needed)
        for i in range(len(self.replays)):
            with self._again(i), torch.set_grad_enabled(self.precision.rounds):
                context = self.segment.context(i, leaves)
                inputs.append(self.segment.steps[i].run(inputs[-1], context)[0].detach())
        self._check_repeated(inputs.pop(), z.detach())
        return inputs

    def from_inputs(
        self, inputs: list[Tensor], cotangent: Tensor, log_det_cotangent: Tensor
    ) -> list[Tensor | None]:
        """Returns gradients of x and the tensors, running each step again from its input."""

        def trace(i: int, context: Tensor | None) -> Trace:
            return self.segment.steps[i].trace(inputs.pop(), context)

        return self._pulled(trace, cotangent, log_det_cotangent, known=True)

    def by_plain_autograd(
        self, cotangent: Tensor, log_det_cotangent: Tensor
    ) -> list[Tensor | None]:
        """Returns gradients by plain autograd, for second derivatives or replaced parameters.

        Inputs are replaced by aliases. Paths from x or a context back to a parameter belong to the
        outer graph and are not counted here.
        """
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            x, *aliases = (_alias(t, differentiable) for t in (self.x, *self.tensors))
            z, log_det = x, torch.zeros_like(log_det_cotangent)
            for i, step in enumerate(self.segment.steps[: len(self.replays)]):
                places = self.segment.parameters[i]
                names = [name for name, _ in step.module.named_parameters()]
                put = {f"held.{n}": aliases[p] for n, p in zip(names, places, strict=True)}
                with self._again(i):
                    held, given = _Held(step), (z, self.segment.context(i, aliases))
                    value, part = functional_call(held, put, given)
                _check_sources(step, (value, part), [z, *aliases])
                z, log_det = value, log_det + part
            return gradients(
                [z, log_det],
                [x, *aliases],
                [cotangent, log_det_cotangent],
                differentiable=differentiable,
            )

    @contextmanager
    def _again(self, i: int) -> Iterator[None]:
        """Returns a context in which a step runs as in the forward pass."""
        with memory_modes_bypassed(), self.precision.again(), self.replays[i]:
            yield

    def _pulled(
        self,
        trace_of: Callable[[int, Tensor | None], Trace],
        cotangent: Tensor,
        log_det_cotangent: Tensor,
        *,
        known: bool,
    ) -> list[Tensor | None]:
        """Returns the gradients of x and the tensors, pulled through the trace of each step.

        Unless `known`, it checks that no step reads another tensor that requires a gradient.
        """
        found: list[Tensor | None] = [None] * len(self.tensors)
        leaves = self.segment.leaves(self.tensors, self.needed)
        with hooks_set_aside(self.tensors), memory_modes_bypassed():
            for i in reversed(range(len(self.replays))):
                with self.precision.again(), self.replays[i]:
                    trace = trace_of(i, self.segment.context(i, leaves))
                own = self.segment.own(i, leaves)
                sources = (trace.leaf, *own.values())
                if not known:
                    _check_sources(self.segment.steps[i], trace.outputs, sources)
                seeds = trace.seeds(cotangent, log_det_cotangent)
                of_leaf, *others = gradients(trace.outputs, sources, seeds)
                cotangent = trace.cotangent(of_leaf)
                for place, more in zip(own, others, strict=True):
                    if more is not None:
                        before = found[place]
                        found[place] = more if before is None else before + more
        return [cotangent, *found]

    def _check_repeated(self, found: Tensor, z: Tensor) -> None:
        """Raises an error if layers give other values when they run again, where z is finite."""
        finite = z.isfinite()
        error = relative_error(found.where(finite, 0), z.where(finite, 0))
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


def _check_sources(step: LayerCall, outputs: Sequence[Tensor], known: Sequence[Tensor]) -> None:
    """Raises an error if outputs depend on a tensor that would get no gradient here."""
    if reads_others(outputs, known):
        raise ArgumentError(
            f"layer {step.name} reads a tensor that requires a gradient but is not one of its "
            "parameters. memory='invert' cannot compute this gradient: make the tensor a "
            "torch.nn.Parameter, or use memory='recompute'."
        )
