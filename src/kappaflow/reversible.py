"""Backward passes by inversion: a run of invertible layers that keeps next to nothing.

A run of at most 32 layers is one autograd node. It keeps what comes in and what goes out, and one
number for each row and layer: the projection of the layer's input on a fixed random direction, its
*fingerprint*. The backward pass goes from the output to the input. At each layer it takes the
input back from the output, compares fingerprints, runs the layer again with gradients and pulls
the cotangents through. At the input of the run nothing is estimated: the original is at hand.

Where a comparison fails the gradients of the attempt are thrown away, and the run is done again
from its input, exactly and with a warning. From then on it keeps the inputs of its layers.

Source: Gomez, Ren, Urtasun, Grosse 2017 (RevNet) for the inversion; the fingerprints are ours.
"""

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
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
from kappaflow.memory import Replay, memory_modes_bypassed, run_layer, runs_plainly

LONGEST_RUN = 32

Map = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]
Rewind = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class Step:
    """One layer in the direction of the run.

    Attributes:
        number: Its place in the chain, from 1 at the data.
        module: What it draws on.
        run: x, context to z, log_det.
        rewind: z, context to x, z, log_det: x is a leaf, and the other two are `run` of it.
        inverse: Whether `run` goes from latent to data.
    """

    number: int
    module: nn.Module
    run: Map
    rewind: Rewind
    inverse: bool = False

    @property
    def name(self) -> str:
        """The name under which a profile shows the layer."""
        return f"{self.number} {type(self.module).__name__}"


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


class Run:
    """Steps that one autograd node runs, and where each finds its tensors.

    Args:
        steps: At least one.
        contexts: One a step.

    Attributes:
        steps: As given.
        key: Whether it is of the inverse, and its first and last layer.
        tensors: All contexts and parameters, each once; given up to the node.
        contexts: Where the context of each step is among them.
        parameters: Where the parameters of each step are.
    """

    def __init__(self, steps: Sequence[Step], contexts: Sequence[Tensor | None]) -> None:
        self.steps = steps
        numbers = [step.number for step in steps]
        self.key = (steps[0].inverse, min(numbers), max(numbers))
        tensors: dict[int, Tensor] = {}
        places: dict[int, int] = {}

        def place_of(tensor: Tensor) -> int:
            tensors[id(tensor)] = tensor
            return places.setdefault(id(tensor), len(places))

        self.contexts = [None if c is None else place_of(c) for c in contexts]
        self.parameters = [[place_of(p) for p in step.module.parameters()] for step in steps]
        self.tensors = list(tensors.values())

    def is_of(self, tensors: Sequence[Tensor]) -> bool:
        """Returns whether the parameters are still these: `functional_call` exchanges them."""
        return all(
            tensors[place] is now
            for step, places in zip(self.steps, self.parameters, strict=True)
            for place, now in zip(places, step.module.parameters(), strict=True)
        )


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
    if memory == "store" or runs_plainly():
        with memory_modes_bypassed():
            for step, context in zip(steps, contexts, strict=True):
                x, part = step.run(x, context)
                log_det = log_det + part
        return x, log_det
    for start in range(0, len(steps), LONGEST_RUN):
        own, theirs = steps[start : start + LONGEST_RUN], contexts[start : start + LONGEST_RUN]
        run = Run(own, theirs) if memory == "invert" else None
        if run is not None and not record.has(run):
            x, log_det = _Node.apply(run, record, x, log_det, *run.tensors)
            continue
        for step, context in zip(own, theirs, strict=True):
            plain = functools.partial(_bypassing, step.run)
            x, part = run_layer("recompute", plain, x, context, module=step.module)
            log_det = log_det + part
    return x, log_det


class _Node(torch.autograd.Function):
    """A run of steps that keeps its input, its output and the fingerprints between."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,  # noqa: ANN401
        run: Run,
        record: Record,
        x: Tensor,
        log_det: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.run, ctx.record, ctx.precision = run, record, _Precision(x.device)
        ctx.replays, prints, z = [], [], x.detach()
        run.tensors = []  # held by the context from here on, which lets go of them when it is done
        for step, place in zip(run.steps, run.contexts, strict=True):
            context = None if place is None else tensors[place].detach()
            replay = Replay(step.module, z)
            with ctx.precision.again(gradients=False):
                value, part = step.run(z, context)
            ctx.replays.append(replay.called())
            prints.append(fingerprint(z, direction_for(z)))
            z, log_det = value.detach(), log_det + part.detach()
        ctx.save_for_backward(x, z, torch.stack(prints), *tensors)
        return z, log_det

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401, D102
        x, z, prints, *tensors = ctx.saved_tensors
        needed = ctx.needs_input_grad[4:]
        kept = _Kept(ctx.run, ctx.replays, ctx.precision, x, z, prints, tensors, needed)
        if torch.is_grad_enabled() or not ctx.run.is_of(tensors):
            found = kept.by_plain_autograd(*cotangents)
        elif ctx.record.has(ctx.run):
            found = kept.exactly(*cotangents)
        else:
            found = kept.by_inversion(ctx.record, *cotangents)
        return (None, None, found[0], cotangents[1], *found[1:])


@dataclass(frozen=True)
class _Kept:
    """What a node has for its backward pass, and the three ways to go about it.

    Attributes:
        run: The steps.
        replays: One a step.
        precision: That of the forward pass.
        x: The input.
        z: The output.
        prints: (steps, B).
        tensors: Contexts and parameters.
        needed: Which of these need a gradient.
    """

    run: Run
    replays: Sequence[Replay]
    precision: "_Precision"
    x: Tensor
    z: Tensor
    prints: Tensor
    tensors: Sequence[Tensor]
    needed: Sequence[bool]

    def by_inversion(
        self, record: Record, cotangent: Tensor, log_det_cotangent: Tensor
    ) -> list[Tensor | None]:
        """Returns gradients to x and the tensors from reconstructed inputs, or exactly."""
        pull, z = _Pull(cotangent, log_det_cotangent, len(self.tensors)), self.z.detach()
        leaves, prints = self._leaves(), []
        for i in reversed(range(len(self.run.steps))):
            with self._again(i):
                x, value, log_det = self.run.steps[i].rewind(z, self._context(i, leaves))
            z = x.detach()
            prints.append(fingerprint(z, direction_for(z)))
            self._through(pull, i, leaves, x, value, log_det)
        # Compared once for all steps: on a GPU each answer has to be waited for.
        errors = fingerprint_errors(torch.stack(prints[::-1]), self.prints)
        errors[0] = torch.maximum(errors[0], relative_error(z, self.x.detach()))
        sizes = list(zip(self.run.steps, errors.tolist(), strict=True))
        for step, error in reversed(sizes):
            if not error <= LARGEST_ERROR:
                record.add(self.run)
                text = error_text(step.name, error, *self.run.key[1:], inverse=step.inverse)
                warnings.warn(text, NumericalWarning, stacklevel=2)
                return self.exactly(cotangent, log_det_cotangent)
        return pull.found()

    def exactly(self, cotangent: Tensor, log_det_cotangent: Tensor) -> list[Tensor | None]:
        """Returns gradients to x and the tensors, each layer run again from its own input."""
        pull, inputs, z = _Pull(cotangent, log_det_cotangent, len(self.tensors)), [], self.x
        for i, step in enumerate(self.run.steps):
            inputs.append(z.detach())
            with self.precision.again(gradients=False), self.replays[i]:
                z = step.run(inputs[-1], self._context(i, self.tensors, detached=True))[0]
        self._check_repeated(z.detach())
        leaves = self._leaves()
        for i in reversed(range(len(self.run.steps))):
            x = inputs.pop().requires_grad_()
            with self._again(i):
                value, log_det = self.run.steps[i].run(x, self._context(i, leaves))
            self._through(pull, i, leaves, x, value, log_det)
        return pull.found()

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
            for i, step in enumerate(self.run.steps):
                places = self.run.parameters[i]
                names = [name for name, _ in step.module.named_parameters()]
                put = {f"held.{n}": aliases[p] for n, p in zip(names, places, strict=True)}
                with self._again(i):
                    held, given = _Held(step), (z, self._context(i, aliases))
                    value, part = functional_call(held, put, given)
                _check_sources(step, (value, part), [z, *aliases])
                z, log_det = value, log_det + part
            return _gradients(
                [z, log_det], [x, *aliases], [cotangent, log_det_cotangent], differentiable
            )

    def _leaves(self) -> list[Tensor]:
        """Returns the tensors, contexts cut off from what they were made of."""
        leaves = list(self.tensors)
        for place in {place for place in self.run.contexts if place is not None}:
            leaves[place] = leaves[place].detach().requires_grad_(self.needed[place])
        return leaves

    def _context(
        self, i: int, tensors: Sequence[Tensor], *, detached: bool = False
    ) -> Tensor | None:
        place = self.run.contexts[i]
        if place is None:
            return None
        return tensors[place].detach() if detached else tensors[place]

    @contextmanager
    def _again(self, i: int) -> Iterator[None]:
        """A context in which a step runs as in the forward pass, with gradients."""
        with self.precision.again(gradients=True), self.replays[i]:
            yield

    def _through(
        self,
        pull: "_Pull",
        i: int,
        leaves: Sequence[Tensor],
        x: Tensor,
        value: Tensor,
        log_det: Tensor,
    ) -> None:
        """Pulls the cotangents through one step."""
        place = self.run.contexts[i]
        places = [*self.run.parameters[i], *([] if place is None else [place])]
        own = {place: leaves[place] for place in places}
        _check_sources(self.run.steps[i], (value, log_det), [x, *own.values()])
        needed = {place: leaf for place, leaf in own.items() if self.needed[place]}
        pull.through(x, value, log_det, needed)

    def _check_repeated(self, z: Tensor) -> None:
        """Refuses layers that do not do the same again; where z is not finite nothing is said."""
        finite = self.z.isfinite()
        error = relative_error(z.where(finite, 0), self.z.detach().where(finite, 0))
        if not error.item() <= LARGEST_ERROR:
            _, first, last = self.run.key
            raise NumericalError(
                f"memory='invert': one of the layers {first} to {last} does not give the same "
                f"value when it runs again (relative error {error.item():.1g}): it may draw from "
                "a generator of its own, or change a state that is no buffer. Take "
                "memory='store'."
            )


class _Pull:
    """Cotangents on their way through a run, and the gradients that they leave."""

    def __init__(self, cotangent: Tensor, log_det_cotangent: Tensor, tensors: int) -> None:
        self._value, self._log_det = cotangent, log_det_cotangent
        self._found: list[Tensor | None] = [None] * tensors

    def through(
        self, x: Tensor, value: Tensor, log_det: Tensor, tensors: dict[int, Tensor]
    ) -> None:
        """Goes from the output of a step to its input x, and to tensors by their place."""
        with _hooks_set_aside(tensors.values()):
            gradient, *others = _gradients(
                [value, log_det],
                [x, *tensors.values()],
                [self._value, self._log_det.to(log_det.dtype)],
                differentiable=False,
            )
        self._value = torch.zeros_like(x) if gradient is None else gradient
        for place, other in zip(tensors, others, strict=True):
            before = self._found[place]
            self._found[place] = before if other is None else _sum(before, other)

    def found(self) -> list[Tensor | None]:
        """Returns the gradients to the input of the run, and to each tensor."""
        return [self._value, *self._found]


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


def _gradients(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    cotangents: Sequence[Tensor],
    differentiable: bool,
) -> list[Tensor | None]:
    """Returns a gradient for each input, None where there is no path or no wish."""
    pairs = [pair for pair in zip(outputs, cotangents, strict=True) if pair[0].requires_grad]
    wanted = [x for x in inputs if x.requires_grad]
    if not pairs or not wanted:
        return [None] * len(inputs)
    found = iter(
        torch.autograd.grad(
            [output for output, _ in pairs],
            wanted,
            [cotangent for _, cotangent in pairs],
            create_graph=differentiable,
            allow_unused=True,
        )
    )
    return [next(found) if x.requires_grad else None for x in inputs]


def _sum(before: Tensor | None, more: Tensor) -> Tensor:
    return more if before is None else before + more


def _alias(tensor: Tensor, differentiable: bool) -> Tensor:
    """Returns the same numbers as another node of the graph, or as a leaf."""
    if differentiable:
        return tensor.view_as(tensor)
    return tensor.detach().requires_grad_(tensor.requires_grad)


def _check_sources(step: Step, outputs: Sequence[Tensor], known: Sequence[Tensor]) -> None:
    """Refuses a step whose outputs depend on a tensor that could get no gradient here."""
    leaves = {id(tensor) for tensor in known}
    seen = {tensor.grad_fn for tensor in known}
    waiting = [output.grad_fn for output in outputs]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) not in leaves:
            raise ArgumentError(
                f"layer {step.name} reads a tensor that requires a gradient and is none of its "
                "parameters, so memory='invert' cannot give it one: make it a torch.nn.Parameter, "
                "or take memory='recompute'."
            )
        waiting += [following for following, _ in node.next_functions]


@contextmanager
def _hooks_set_aside(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Leaves hooks of tensors to the graph outside, where each gradient passes once, and whole."""
    hooks = [t._backward_hooks for t in tensors if t.is_leaf and t._backward_hooks]
    copies = [dict(each) for each in hooks]
    for each in hooks:
        each.clear()
    try:
        yield
    finally:
        for each, copy in zip(hooks, copies, strict=True):
            each.update(copy)


class _Precision:
    """Autocast on the device of a run, as it was in the forward pass."""

    def __init__(self, device: torch.device) -> None:
        kind = device.type
        self._settings: dict[str, Any] | None = None
        if torch.amp.is_autocast_available(kind):  # pyright: ignore[reportPrivateImportUsage]
            self._settings = {
                "device_type": kind,
                "dtype": torch.get_autocast_dtype(kind),
                "enabled": torch.is_autocast_enabled(kind),
                "cache_enabled": False,  # a weight cast without gradients is not for those with
            }

    @contextmanager
    def again(self, *, gradients: bool) -> Iterator[None]:
        """A context in which a layer computes as it did, modes bypassed.

        Without gradients, unless they decide over precision: under autocast conditioners round
        in a training step only, which they know by its gradients. There the graph of one layer is
        made and let go.
        """
        settings = self._settings
        rounds = settings is not None and settings["enabled"]
        precision = nullcontext() if settings is None else torch.autocast(**settings)
        with precision, memory_modes_bypassed(), torch.set_grad_enabled(gradients or rounds):
            yield
