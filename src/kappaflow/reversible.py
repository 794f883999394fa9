"""Backward passes that run layers again: from their inputs, or from inputs taken back.

A run of at most 32 layers is one autograd node. Its backward pass goes from the last layer to the
first: it makes a `Trace` of each and pulls the cotangents through.

In "recompute" the node keeps the input of each layer. In "invert" it keeps what comes in and what
goes out, and one number for each row and layer: the projection of the layer's input on a fixed
random direction, its *fingerprint*. Each input is then taken back from the output, and compared
by its fingerprint. At the input of the run nothing is estimated: the original is at hand. Where a
comparison fails the gradients of the attempt are thrown away, and the run is done again from its
input, exactly and with a warning. From then on it keeps the inputs of its layers.

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

from kappaflow.errors import ArgumentError, NumericalError, NumericalWarning
from kappaflow.fingerprints import (
    LARGEST_ERROR,
    direction_for,
    error_text,
    fingerprint,
    fingerprint_errors,
    relative_error,
)
from kappaflow.memory import as_it_is, memory_modes_bypassed, run_layer, runs_plainly
from kappaflow.replay import Precision, Replay
from kappaflow.steps import Run, Step
from kappaflow.trace import Map, Trace, gradients, hooks_set_aside, reads_others

LONGEST_RUN = 32


class Record:
    """The runs of one chain that keep their inputs, since taking them back was too inexact.

    It belongs to the object: a copy of the chain begins with an empty one.
    """

    def __init__(self) -> None:
        self._keys: set[tuple[bool, int, int]] = set()

    def __deepcopy__(self, _: object) -> "Record":
        return Record()

    def has(self, run: "Run") -> bool:
        """Returns whether a run keeps its inputs."""
        return run.key in self._keys

    def add(self, run: "Run") -> None:
        """Notes that a run keeps its inputs from here on."""
        self._keys.add(run.key)

    def in_words(self) -> str:
        """Returns what the chain's `repr` says of it; nothing if it is empty."""
        said = ""
        for inverse, of in ((False, ""), (True, " of the inverse")):
            keys = sorted(key for key in self._keys if key[0] == inverse)
            places = ", ".join(f"{first}-{last}" for _, first, last in keys)
            said += f", recomputing layers {places}{of}" if places else ""
        return said


def run_steps(
    memory: str,
    steps: Sequence[Step],
    contexts: Sequence[Tensor | None],
    x: Tensor,
    log_det: Tensor,
    record: Record,
) -> tuple[Tensor, Tensor]:
    """Returns the value after all steps, and log_det with theirs added, in a memory mode.

    Args:
        memory: One of `MEMORY_MODES`.
        steps: In the order of execution.
        contexts: One a step.
        x: (B, *event).
        log_det: (B,), what they are added to.
        record: Which runs keep their inputs although the mode is "invert"; added to.

    Returns:
        (B, *event) and (B,): the same bits in each mode.
    """
    if torch.compiler.is_compiling():
        if memory == "invert":
            return as_it_is(run_steps, memory, steps, contexts, x, log_det, record)
        for step, context in zip(steps, contexts, strict=True):
            x, part = run_layer(memory, step.run, x, context)
            log_det = log_det + part
        return x, log_det
    if memory == "store" or runs_plainly():
        with memory_modes_bypassed():
            for step, context in zip(steps, contexts, strict=True):
                x, part = step.run(x, context)
                log_det = log_det + part
        return x, log_det
    for start in range(0, len(steps), LONGEST_RUN):
        own, theirs = steps[start : start + LONGEST_RUN], contexts[start : start + LONGEST_RUN]
        x, log_det = _run(own, theirs, x, log_det, record if memory == "invert" else None)
    return x, log_det


def _run(
    steps: Sequence[Step],
    contexts: Sequence[Tensor | None],
    x: Tensor,
    log_det: Tensor,
    record: Record | None,
) -> tuple[Tensor, Tensor]:
    """Returns what the steps do, by one node that inverts, or keeps inputs if there is no record.

    A node gives gradients to parameters and contexts. A step that reads another tensor which wants
    one ends a node that keeps inputs, and is left to a checkpoint, whose graph knows that tensor.
    """
    run = Run(steps, contexts)
    record = None if record is None or record.has(run) else record
    x, log_det, stopped = _Node.apply(run, record, x, log_det, *run.tensors)
    if stopped is None:
        return x, log_det
    i, replay = stopped
    plain = functools.partial(_bypassing, steps[i].run)
    with replay:
        x, part = run_layer("recompute", plain, x, contexts[i], module=steps[i].module)
    log_det, i = log_det + part, i + 1
    return _run(steps[i:], contexts[i:], x, log_det, None) if i < len(steps) else (x, log_det)


class _Node(torch.autograd.Function):
    """A run of steps that keeps their inputs; or its own input and output, and fingerprints."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,  # noqa: ANN401
        run: Run,
        record: Record | None,
        x: Tensor,
        log_det: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor, tuple[int, Replay] | None]:
        run.tensors = []  # held by the context from here on, which lets go of them when it is done
        ctx.run, ctx.record, ctx.precision, ctx.replays = run, record, Precision(x.device), []
        leaves, stopped = run.leaves(tensors, ctx.needs_input_grad[4:]), None
        inputs, prints, z = [], [], x.detach()
        for i in range(len(run.steps)):
            replay = Replay(run.owners[i], z)
            answer = _ran(run, i, z, leaves, ctx.precision, traced=record is None)
            replay.called()
            if answer is None:
                stopped = (i, replay)
                break
            ctx.replays.append(replay)
            if record is None:
                inputs.append(z)
            else:
                prints.append(fingerprint(z, direction_for(z)))
            z, log_det = answer[0], log_det + answer[1]
        kept = inputs[1:] if record is None else [z, torch.stack(prints)]
        ctx.kept = len(kept)
        ctx.save_for_backward(x, *kept, *tensors)
        return z, log_det, stopped

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401, D102
        x, *saved = ctx.saved_tensors
        states, tensors = saved[: ctx.kept], saved[ctx.kept :]
        cotangents = (cotangents[0], cotangents[1])  # the third is of no tensor
        needed = ctx.needs_input_grad[4:]
        kept = _Kept(ctx.run, ctx.replays, ctx.precision, x, tensors, needed)
        if torch.is_grad_enabled() or not ctx.run.is_of(tensors):
            found = kept.by_plain_autograd(*cotangents)
        elif ctx.record is None:
            found = kept.from_inputs([x, *states], *cotangents)
        elif ctx.record.has(ctx.run):
            found = kept.from_inputs(kept.inputs(states[0]), *cotangents)
        else:
            found = kept.by_inversion(states[0], states[1], ctx.record, *cotangents)
        return (None, None, found[0], cotangents[1], *found[1:])


def _ran(
    run: Run, i: int, x: Tensor, leaves: list[Tensor], precision: Precision, *, traced: bool
) -> tuple[Tensor, Tensor] | None:
    """Returns value and log_det of a step, or None if it is traced and reads what is not its own.

    Traced, it makes its graph to see what it reads, and lets go of it.
    """
    step, context = run.steps[i], run.context(i, leaves)
    if not traced:
        with memory_modes_bypassed(), precision.again(), torch.set_grad_enabled(precision.rounds):
            value, log_det = step.run(x, context)
        return value.detach(), log_det.detach()
    with memory_modes_bypassed(), precision.again():
        trace = step.trace(x, context)
    if reads_others(trace.outputs, (trace.leaf, *run.own(i, leaves).values())):
        return None
    return trace.answer()


@dataclass(frozen=True)
class _Kept:
    """What a node has for its backward pass, and the three ways to go about it.

    Attributes:
        run: The steps, of which the node may have run only the first.
        replays: One for each that it has run.
        precision: That of the forward pass.
        x: The input.
        tensors: Contexts and parameters.
        needed: Which of these need a gradient.
    """

    run: Run
    replays: Sequence[Replay]
    precision: Precision
    x: Tensor
    tensors: Sequence[Tensor]
    needed: Sequence[bool]

    def by_inversion(
        self,
        z: Tensor,
        prints: Tensor,
        record: Record,
        cotangent: Tensor,
        log_det_cotangent: Tensor,
    ) -> list[Tensor | None]:
        """Returns gradients to x and the tensors from reconstructed inputs, or exactly.

        Args:
            z: The output.
            prints: (steps, B).
            record: Where a failure is noted.
            cotangent: Of the output.
            log_det_cotangent: (B,).
        """
        again, x = [], z.detach()

        def trace(i: int, context: Tensor | None) -> Trace:
            nonlocal x
            trace = self.run.steps[i].rewind(x, context)
            x = trace.x
            again.append(fingerprint(x, direction_for(x)))
            return trace

        found = self._pulled(trace, cotangent, log_det_cotangent, known=False)
        # Compared once for all steps: on a GPU each answer has to be waited for.
        errors = fingerprint_errors(torch.stack(again[::-1]), prints)
        errors[0] = torch.maximum(errors[0], relative_error(x, self.x.detach()))
        sizes = list(zip(self.run.steps, errors.tolist(), strict=True))
        for step, error in reversed(sizes):
            if not error <= LARGEST_ERROR:
                record.add(self.run)
                text = error_text(step.name, error, *self.run.key[1:], inverse=step.inverse)
                warnings.warn(text, NumericalWarning, stacklevel=2)
                return self.from_inputs(self.inputs(z), cotangent, log_det_cotangent)
        return found

    def inputs(self, z: Tensor) -> list[Tensor]:
        """Returns the input of each step, each run again; z is the output of the last."""
        inputs, leaves = [self.x.detach()], self.run.leaves(self.tensors, self.needed)
        for i in range(len(self.replays)):
            with self._again(i), torch.set_grad_enabled(self.precision.rounds):
                inputs.append(
                    self.run.steps[i].run(inputs[-1], self.run.context(i, leaves))[0].detach()
                )
        self._check_repeated(inputs.pop(), z.detach())
        return inputs

    def from_inputs(
        self, inputs: list[Tensor], cotangent: Tensor, log_det_cotangent: Tensor
    ) -> list[Tensor | None]:
        """Returns gradients to x and the tensors, each step run again from its own input."""

        def trace(i: int, context: Tensor | None) -> Trace:
            return self.run.steps[i].trace(inputs.pop(), context)

        return self._pulled(trace, cotangent, log_det_cotangent, known=True)

    def by_plain_autograd(
        self, cotangent: Tensor, log_det_cotangent: Tensor
    ) -> list[Tensor | None]:
        """Returns gradients that can be differentiated again, or to parameters since exchanged.

        What comes in is replaced by aliases of itself, so that no path from x or a context back to
        a parameter is counted here: those are of the graph outside.
        """
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            x, *aliases = (_alias(t, differentiable) for t in (self.x, *self.tensors))
            z, log_det = x, torch.zeros_like(log_det_cotangent)
            for i, step in enumerate(self.run.steps[: len(self.replays)]):
                places = self.run.parameters[i]
                names = [name for name, _ in step.module.named_parameters()]
                put = {f"held.{n}": aliases[p] for n, p in zip(names, places, strict=True)}
                with self._again(i):
                    held, given = _Held(step), (z, self.run.context(i, aliases))
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
        """A context in which a step runs as in the forward pass."""
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
        """Returns the gradients to x and the tensors, pulled through the trace of each step.

        Unless it is known already, each step is seen to read nothing else that wants one.
        """
        found: list[Tensor | None] = [None] * len(self.tensors)
        leaves = self.run.leaves(self.tensors, self.needed)
        with hooks_set_aside(self.tensors), memory_modes_bypassed():
            for i in reversed(range(len(self.replays))):
                with self.precision.again(), self.replays[i]:
                    trace = trace_of(i, self.run.context(i, leaves))
                own = self.run.own(i, leaves)
                if not known:
                    _check_sources(self.run.steps[i], trace.outputs, (trace.leaf, *own.values()))
                seeds = trace.seeds(cotangent, log_det_cotangent)
                of_leaf, *others = gradients(trace.outputs, (trace.leaf, *own.values()), seeds)
                cotangent = trace.cotangent(of_leaf)
                for place, more in zip(own, others, strict=True):
                    if more is not None:
                        before = found[place]
                        found[place] = more if before is None else before + more
        return [cotangent, *found]

    def _check_repeated(self, found: Tensor, z: Tensor) -> None:
        """Refuses layers that do not do the same again; where z is not finite nothing is said."""
        finite = z.isfinite()
        error = relative_error(found.where(finite, 0), z.where(finite, 0))
        if not error.item() <= LARGEST_ERROR:
            _, first, last = self.run.key
            raise NumericalError(
                f"memory='invert': one of the layers {first} to {last} does not give the same "
                f"value when it runs again (relative error {error.item():.1g}): it may draw from "
                "a generator of its own, or change a state that is no buffer. Take "
                "memory='store'."
            )


class _Held(nn.Module):
    """A step as a module, for `functional_call`."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.held = step.module
        self._step = step  # its `run` may be that module: as an attribute it would be held twice

    def forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns what the step does."""
        return self._step.run(x, context)


def _bypassing(function: Map, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    with memory_modes_bypassed():
        return function(x, context)


def _alias(tensor: Tensor, differentiable: bool) -> Tensor:
    """Returns the same numbers as another node of the graph, or as a leaf."""
    if differentiable:
        return tensor.view_as(tensor)
    return tensor.detach().requires_grad_(tensor.requires_grad)


def _check_sources(step: Step, outputs: Sequence[Tensor], known: Sequence[Tensor]) -> None:
    """Refuses a step whose outputs depend on a tensor that could get no gradient here."""
    if reads_others(outputs, known):
        raise ArgumentError(
            f"layer {step.name} reads a tensor that requires a gradient and is none of its "
            "parameters, so memory='invert' cannot give it one: make it a torch.nn.Parameter, "
            "or take memory='recompute'."
        )
