"""KF105, KF211, KF212, KF214, KF401, KF402: calls of a flow, and the state that they change."""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kappaflow.bijections import ActNorm, Domain, Gaussianize, Standardize
from kappaflow.conditioning import layers_of
from kappaflow.conditioning.round_trip import layer_by_layer
from kappaflow.diagnosis.check import Symptom, check, measurement
from kappaflow.diagnosis.checks.dtypes import unconverted
from kappaflow.diagnosis.checks.log_prob import log_prob_random
from kappaflow.diagnosis.isolation import isolated_copy, original_of
from kappaflow.diagnosis.measurements import Measurements, library_log_prob
from kappaflow.diagnosis.tensors import differ, largest_difference
from kappaflow.errors import one_line
from kappaflow.factor import Whiten
from kappaflow.flows import Flow
from kappaflow.foreign import Wrapped
from kappaflow.nets import StandardizeInputs

FINE, BROKEN = 1e-5, 1e-3  # reconstruction error of a sound flow, and of one with a stale part
MOVED = 0.05  # step of the parameters, relative to their size
Stored = dict[str, Tensor]


class State(NamedTuple):
    """The effects of calls and of parameter changes on a flow."""

    first: tuple[str, ...]  # parameters and buffers that only the first calls changed
    later: tuple[str, ...]  # those that the second calls changed
    stale: float  # error after a change of the parameters if the flow was called before
    stale_layer: str | None  # the first layer with stale results


@measurement("changes by calls")
def state(m: Measurements) -> State:
    """Calls the flow twice, before anything else is measured; the changes by these calls stay."""
    flow, x, context = m.flow, m.points, m.context
    fresh, stored = m.copy(), [_stored(flow)]
    for _ in range(2):
        _call(flow, x, context)
        stored.append(_stored(flow))
    first, later = _changed(*stored[:2]), _changed(*stored[1:])
    called = None if fresh is None or first or later else moved_copy(m, None)
    stale, layer = 0.0, None
    if fresh is not None and called is not None:
        _move_parameters(fresh)
        stale, layer = _stale(called, fresh, x, context)
        # If both agree, the caches of both may have been filled before.
        stale = stale or _unmoved(flow, fresh, x, context)
    first = tuple(name for name in first if name not in later)
    return State(first, later, stale, layer)


@check(
    "KF211",
    "results are stale after the parameters change",
    cause="A layer keeps a cached matrix, inverse or log_det when the weights change.",
    fix="Clear the cache in train() and load_state_dict(), or do not cache.",
)
def results_stale(m: Measurements) -> Iterator[Symptom]:
    """Two copies of the flow, of which only one was called before, differ after a change of
    their parameters like that of a training step. Or the change has no effect, or only one
    direction follows it, because the flow was called before the doctor saw it.

    Example:
        class Caching(kf.bijections.ElementwiseAffine):
            cached = None

            def forward(self, x, context=None):
                if self.cached is None:
                    self.cached = super().forward(x.new_ones(1, 2))[0]
                return x * self.cached, super().forward(x)[1]


        flow = kf.Flow(kf.StandardNormal(2), Caching(2))
        x = torch.randn(64, 2)
    """
    worst = state(m).stale
    if worst and not log_prob_random(m):
        yield Symptom(
            f"After the parameters change, results are off by up to {worst:.2g} if the flow was "
            "called before.",
            {"worst": worst},
            layer=state(m).stale_layer,
        )


@check(
    "KF212",
    "the state_dict does not hold the whole flow",
    cause="The flow chooses a mask, a permutation or a flag that is not a parameter or buffer.",
    fix="Register it (register_buffer), so that it is saved with the weights.",
)
def state_incomplete(m: Measurements) -> Iterator[Symptom]:
    """A new flow with the loaded state_dict has another log_prob. The doctor needs a function
    that builds it: `doctor(flow, x, make=make)`, or `kappaflow doctor FILE.py:make` with a
    function that takes less than five seconds.

    Example:
        class Shuffled(kf.bijections.ElementwiseAffine):
            def __init__(self):
                super().__init__(8, log_scale=torch.linspace(-1, 1, 8))
                self.order = torch.randperm(8)

            def forward(self, x, context=None):
                return super().forward(x[:, self.order])

            def inverse(self, z, context=None):
                x, log_det = super().inverse(z)
                return x[:, self.order.argsort()], log_det


        make = lambda: kf.Flow(kf.StandardNormal(8), Shuffled())
        flow = make()
        x = torch.randn(64, 8)
    """
    original, x, context = original_of(m.flow), m.points, m.context
    try:
        other = None if m.make is None else m.make()
    except Exception:  # make worked before, but may work only once
        return
    if not isinstance(original, nn.Module) or not isinstance(other, nn.Module):
        return
    try:
        other.to(dtype=m.flow.dtype, device=m.flow.device)
        other.load_state_dict(copy.deepcopy(original.state_dict()))
    except RuntimeError as error:
        text = " ".join(str(error).split())
        yield Symptom(f"A new flow cannot load the state_dict of this one: {text}")
        return
    new = isolated_copy(other, x, context)
    if new is None:
        return
    off = _difference([m.flow.augmented_log_prob(x, context)], [_call(new, x, context)])
    if off:
        yield Symptom(
            f"A new flow that loads the state_dict differs in log_prob by up to {off:.2g} nats.",
            {"worst_nats": off},
        )


@check(
    "KF401",
    "a layer is not initialized from data yet",
    severity="note",
    cause="The flow is not trained.",
    fix="Train it, or call it once on data before you save or compare it: "
    "flow.train(); flow.log_prob(x); flow.eval().",
)
def not_initialized(m: Measurements) -> Iterator[Symptom]:
    """Activation norms and the standardization of the columns start from the first rows.

    Example:
        flow = kf.real_nvp(2, depth=2, hidden=(8,))
        x = torch.randn(64, 2)
    """
    waiting = [
        name
        for name, module in m.flow.named_modules()
        if (isinstance(module, ActNorm) and not module.initialized)
        or (
            isinstance(module, (Domain, Gaussianize, Standardize, StandardizeInputs, Whiten))
            and not module.fitted
        )
    ]
    waiting += dict.fromkeys(name.rpartition(".")[0] or "the flow" for name in state(m).first)
    if waiting:
        subject = "1 layer waits" if len(waiting) == 1 else f"{len(waiting)} layers wait"
        yield Symptom(
            f"{subject} for data to initialize from; the first is {waiting[0]}.",
            {"layers": len(waiting)},
            layer=waiting[0],
        )


@check(
    "KF402",
    "calling the flow changes its state",
    severity="warning",
    cause="A normalization layer updates its statistics in evaluation mode, or a counter counts "
    "calls.",
    fix="Change state only in training mode; otherwise the density depends on earlier calls.",
)
def calls_change_state(m: Measurements) -> Iterator[Symptom]:
    """Each call in evaluation mode changes parameters or buffers.

    Example:
        class Running(kf.bijections.ElementwiseAffine):
            def forward(self, x, context=None):
                self.shift.data -= 0.1 * x.mean(0)
                return super().forward(x)


        flow = kf.Flow(kf.StandardNormal(2), Running(2))
        x = torch.randn(64, 2) + 3
    """
    names = state(m).later
    if len(names) > 0:
        also = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield Symptom(
            f"Each call of the flow in evaluation mode changes {names[0]}{also}.",
            {"changed": ", ".join(names)},
        )


@check(
    "KF214",
    "a call changes its input",
    cause="A layer writes into its argument, with an in-place operation or an assignment.",
    fix="Clone the argument first, or build the result with torch.cat.",
)
def input_overwritten(m: Measurements) -> Iterator[Symptom]:
    """After encode or decode, the tensor that was passed holds other numbers.

    Example:
        def encode(x):
            x *= 2
            return x, torch.full((len(x),), 1.3863)


        flow = (encode, lambda z: (z / 2, torch.full((len(z),), -1.3863)))
        x = torch.randn(64, 2)
    """
    for layer, x, z, _ in layer_by_layer(m.layers, m.standardized):
        encode, decode = unconverted(layer.bijection)
        for direction, call, value in (("forward", encode, x), ("inverse", decode, z)):
            before, argument = value.clone(), value.clone()
            call(argument, layer.context)
            if not torch.equal(argument.nan_to_num(0), before.nan_to_num(0)):
                text = f"The {direction} direction writes into the tensor that it is given."
                yield Symptom(text, layer=layer.name)
                return


@check(
    "KF105",
    "a call of the flow raises an error",
    cause="The method is not implemented for this layer, or not for these values.",
    fix="Call the method alone at the same values, and read where the error comes from.",
)
def call_raises(m: Measurements) -> Iterator[Symptom]:
    """The flow encodes the rows, but raises an error where it decodes samples of the base, or the
    library raises one in its own log_prob or sample. It is a warning if the method is not
    implemented. The checks that need the call are listed as not checked.

    Example:
        def decode(z):
            raise ValueError("no solution")


        flow = (lambda x: (x, torch.zeros(len(x))), decode)
        x = torch.randn(64, 2)
    """
    flow = m.flow
    calls: dict[str, Callable[[], object]] = {"Decoding samples of the base": lambda: m.samples}
    if isinstance(flow, Wrapped):
        calls[f"log_prob of {flow.library}"] = lambda: flow.own_log_prob(m.points, m.context)
        number = len(m.points) if m.context is None else len(m.context)
        calls[f"sample of {flow.library}"] = lambda: flow.own_sample(number, m.context)
    seen = set[str]()
    for name, call in calls.items():
        try:
            call()
        except Exception as error:
            if one_line(error) in seen:
                continue
            seen.add(one_line(error))
            yield Symptom(
                f"{name} raises {one_line(error)}.",
                layer=_layer_that_raises(m) if name.startswith("Decoding") else None,
                severity="warning" if isinstance(error, NotImplementedError) else None,
            )


def _stored(flow: Flow) -> Stored:
    """Returns copies of the stored tensors, by their names in the user's module."""
    return {
        name.removeprefix("source."): value.detach().clone()
        for name, value in flow.state_dict().items()
        if isinstance(value, Tensor)
    }


def _changed(before: Stored, after: Stored) -> tuple[str, ...]:
    return tuple(
        name
        for name, value in after.items()
        if name not in before
        or (before[name].shape, before[name].dtype) != (value.shape, value.dtype)
        or not torch.allclose(before[name], value, rtol=0, atol=0, equal_nan=True)
    )


def _call(flow: Flow, x: Tensor, context: Tensor | None) -> Tensor:
    """Calls every direction of the flow once, and returns log_prob through the layers."""
    flow.bijection.inverse(flow.bijection(x, context)[0], context)
    library_log_prob(flow, x, context)
    return flow.augmented_log_prob(x, context)


def _stale(
    called: Flow, fresh: Flow, x: Tensor, context: Tensor | None
) -> tuple[float, str | None]:
    """Returns the error of a called flow against a fresh one, and the first layer with it."""
    a, b = (library_log_prob(flow, x, context) for flow in (called, fresh))
    worst, blamed = 0.0 if a is None or b is None else _difference([a], [b]), None
    pairs = (layers_of(flow.bijection, context) for flow in (called, fresh))
    for old, new in zip(*pairs, strict=True):
        z, log_det = new.encode(x)
        off = _difference([*old.encode(x), *old.decode(z)], [z, log_det, *new.decode(z)])
        blamed = blamed or (new.name if off else None)
        worst, x = max(worst, off), z
    return worst, blamed


def _difference(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Returns the largest difference of results; 0 if rounding explains all."""
    pairs = zip(a, b, strict=True)
    return max(largest_difference(*pair) if differ(*pair) else 0.0 for pair in pairs)


def _unmoved(flow: Flow, moved: Flow, x: Tensor, context: Tensor | None) -> float:
    """Returns the reconstruction error that moved parameters cause, 1 if they change nothing.

    It is 0 if moved parameters change the flow and leave it its own inverse.
    """
    if not _missed(flow, x, context) <= FINE:
        return 0.0
    z, log_det = flow.bijection(x, context)
    moved_z, moved_log_det = moved.bijection(x, context)
    if torch.equal(moved_z.flatten(1), x.flatten(1)):
        return 0.0  # the identity, whatever the parameters: KF405
    if not differ(moved_z, z) and not differ(moved_log_det, log_det):
        densities = (version.base.log_prob(z, context) for version in (flow, moved))
        return 0.0 if differ(*densities) else 1.0
    after = _missed(moved, x, context)
    return after if after > BROKEN else 0.0


def _missed(flow: Flow, x: Tensor, context: Tensor | None) -> float:
    """Returns the median over the rows of the reconstruction error, relative to the row."""
    back = flow.bijection.inverse(flow.bijection(x, context)[0], context)[0]
    errors = (back - x).flatten(1).norm(dim=1) / (1 + x.flatten(1).norm(dim=1))
    return errors.nan_to_num(torch.inf).median().item()


def moved_copy(m: Measurements, dtype: torch.dtype | None) -> Flow | None:
    """Returns a copy of a flow with moved parameters; None if it has none or no copy works."""
    own = m.copy(dtype)
    if own is None or not any(parameter.requires_grad for parameter in own.parameters()):
        return None
    _move_parameters(own)
    return own


def _move_parameters(flow: Flow) -> None:
    """Moves the parameters as a training step does, in training mode."""
    generator = torch.Generator().manual_seed(0)
    flow.train()
    for parameter in flow.parameters():
        if parameter.requires_grad and parameter.is_floating_point():
            size = parameter.detach().square().mean().sqrt().item() + 0.1
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_((MOVED * size * noise).to(parameter))
    flow.eval()


def _layer_that_raises(m: Measurements) -> str | None:
    """Returns the layer that raises an error where samples of the base are decoded."""
    z = m.sample_latents
    for layer in reversed(m.layers):
        try:
            z = layer.decode(z)[0]
        except Exception:
            return layer.name
    return None
