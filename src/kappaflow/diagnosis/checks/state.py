"""KF211, KF212, KF214, KF401, KF402: the stored state of a flow, and what calls change."""

import copy
from collections.abc import Iterator, Sequence
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
from kappaflow.factor import Whiten
from kappaflow.flows import Flow
from kappaflow.nets import StandardizeInputs

FINE, BROKEN = 1e-5, 1e-3  # reconstruction error of a sound flow, and of one with a stale part
MOVED = 0.05  # step of the parameters, relative to their size
Stored = dict[str, Tensor]


class State(NamedTuple):
    """The effects of calls and of parameter changes on a flow."""

    first: tuple[str, ...]  # parameters and buffers that only the first calls changed
    later: tuple[str, ...]  # those that the second calls changed
    stale: float | None  # error after a change of the parameters if the flow was called before
    stale_layer: str | None  # the first layer with stale results
    reloaded: float | None  # change of log_prob, in nats, when a new flow loads the state
    refused: str | None  # why the state could not be loaded, in one line


@measurement("changes by calls", checked="parameters and state")
def state(m: Measurements) -> State:
    """Calls the flow for the first time, and compares its state before and after.

    The doctor measures this before anything else. The changes by these calls stay.
    """
    flow, context = m.flow, m.context
    x = flow.bijection.inverse(m.sample_latents, context)[0] if m.rows is None else m.points
    fresh = m.copy(at=x)
    before = _stored(flow)
    _call(flow, x, context)
    once = _stored(flow)
    _call(flow, x, context)
    first, later = _changed(before, once), _changed(once, _stored(flow))
    stale, layer = None, None
    if fresh is not None and not first and not later:
        stale, layer = _stale(m.copy(at=x), fresh, x, context)
        if stale == 0:  # the caches of both may have been filled before
            stale = _unmoved(flow, fresh, x, context)
    first = tuple(name for name in first if name not in later)
    return State(first, later, stale, layer, *_reload(m, x))


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
    off, refused = state(m).reloaded, state(m).refused
    if refused is not None:
        yield Symptom(
            f"A new flow cannot load the state_dict of this one: {refused}", {"worst_nats": off}
        )
    elif off:
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


@measurement("inputs of calls")
def overwritten(m: Measurements) -> tuple[str, str] | None:
    """Returns the first layer that writes into its input, and its direction."""
    for layer, x, z, _ in layer_by_layer(m.layers, m.standardized):
        encode, decode = unconverted(layer.bijection)
        for name, call, value in (("forward", encode, x), ("inverse", decode, z)):
            own, before = value.clone(), value.clone()
            call(own, layer.context)
            if not torch.equal(own.nan_to_num(0), before.nan_to_num(0)):
                return layer.name, name
    return None


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
    if result := overwritten(m):
        layer, direction = result
        yield Symptom(
            f"The {direction} direction writes into the tensor that it is given.", layer=layer
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
    called: Flow | None, fresh: Flow, x: Tensor, context: Tensor | None
) -> tuple[float | None, str | None]:
    """Returns the error of a called flow against a fresh one, and the layer with the error."""
    if called is None or not any(True for _ in called.parameters()):
        return None, None
    for examined in (called, fresh):
        _move_parameters(examined)
    worst, blamed, at = 0.0, None, x
    pairs = (layers_of(examined.bijection, context) for examined in (called, fresh))
    for old, new in zip(*pairs, strict=True):
        results = new.encode(at)
        difference = max(
            _difference(old.encode(at), results),
            _difference(old.decode(results[0]), new.decode(results[0])),
        )
        blamed = blamed or (new.name if difference else None)
        worst, at = max(worst, difference), results[0]
    a, b = (library_log_prob(flow, x, context) for flow in (called, fresh))
    return max(worst, 0.0 if a is None or b is None else _difference([a], [b])), blamed


def _difference(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Returns the largest difference of results; 0 if rounding explains all."""
    pairs = zip(a, b, strict=True)
    return max(largest_difference(*pair) if differ(*pair) else 0.0 for pair in pairs)


def _unmoved(flow: Flow, moved: Flow, x: Tensor, context: Tensor | None) -> float:
    """Returns the reconstruction error that moved parameters cause, 1 if they change nothing.

    It is 0 if moved parameters change the flow and leave it its own inverse.
    """
    z = flow.bijection(x, context)[0]
    missed = _missed(flow, x, context)
    if not missed <= FINE:
        return 0.0
    value, log_det = moved.bijection(x, context)
    if torch.equal(value.flatten(1), x.flatten(1)):
        return 0.0  # the identity, whatever the parameters: KF405
    if not differ(value, z) and not differ(log_det, flow.bijection(x, context)[1]):
        base = moved.base.log_prob(z, context)
        return 0.0 if differ(base, flow.base.log_prob(z, context)) else 1.0
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


def _reload(m: Measurements, x: Tensor) -> tuple[float | None, str | None]:
    """Returns the change of log_prob in a new flow with the same state, or the loading error."""
    original = original_of(m.flow)
    try:
        other = None if m.make is None else m.make()
    except Exception:  # make worked before, but may work only once
        return None, None
    if not isinstance(original, nn.Module) or not isinstance(other, nn.Module):
        return None, None
    try:
        other.to(dtype=m.flow.dtype, device=m.flow.device)
        other.load_state_dict(copy.deepcopy(original.state_dict()))
    except RuntimeError as error:
        return None, " ".join(str(error).split())
    new = isolated_copy(other, x, m.context)
    if new is None:
        return None, None
    a, b = m.flow.augmented_log_prob(x, m.context), _call(new, x, m.context)
    return _difference([a], [b]), None
