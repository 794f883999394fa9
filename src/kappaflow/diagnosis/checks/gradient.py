"""KF209, KF213, KF404: the gradient of log_prob, and the flow after a step along it."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kappaflow.conditioning import TRUSTED, layers_of
from kappaflow.diagnosis.check import Symptom, check, measurement
from kappaflow.diagnosis.checks.dtypes import dtypes
from kappaflow.diagnosis.checks.log_dets import solver_tolerance
from kappaflow.diagnosis.checks.state import state
from kappaflow.diagnosis.measurements import Measurements
from kappaflow.finding import Evidence
from kappaflow.flows import Flow
from kappaflow.foreign import Wrapped

SETTLE = 2  # directions in which the differences must converge
STEP = 1e-5  # step of the differences, relative to the size of a parameter
SETTLED = 1e-4  # relative difference allowed between two step lengths
WRONG = 1e-3  # relative difference allowed between autograd and finite differences
WRONG_SOLVED = 0.3  # the same where a solver has a tolerance, which a small step cannot resolve
LEARNING_RATE = 1e-3  # of the step that is tried
LOST = 0.1  # relative rounding error of the gradient that is reported
Function = Callable[[Flow], Tensor]
Direction = list[Tensor]  # one part for each trained parameter


@dataclass(frozen=True)
class Gradient:
    """Derivatives of the mean log_prob along one direction in parameter space, in nats.

    It is the direction with the largest error among the tried ones.

    Attributes:
        autograd: Derivative by autograd in the dtype of the flow.
        autograd64: Derivative by autograd in float64.
        difference: Central difference in float64.
        size: Root of the sum of squares of the contributions of the parameters.
        layer: The first layer with a wrong derivative.
        solved: Whether a solver of differential equations computes the flow, with a tolerance.
    """

    autograd: float
    autograd64: float
    difference: float
    size: float
    layer: str | None
    solved: bool

    @property
    def is_wrong(self) -> bool:
        """Whether autograd and differences disagree in float64."""
        allowed = WRONG_SOLVED if self.solved else WRONG
        return abs(self.autograd64 - self.difference) > allowed * self.size


@measurement("gradients", checked="gradients")
def gradient(m: Measurements) -> Gradient | None:
    """Differentiates log_prob at a few points.

    Returns None if the flow has no trainable parameters or no copy in float64, or if the
    differences do not converge.
    """
    rows, directions = m.effort.points // 4, m.effort.points // 16
    x, context = m.points[:rows], None if m.context is None else m.context[:rows]
    same, wide = m.copy(), m.copy(torch.float64)
    if same is None or wide is None or not _trained(wide):
        return None
    x64, context64 = x.double(), None if context is None else context.double()
    try:
        result = _compare(wide, lambda one: _mean_log_prob(one, x64, context64), directions)
        if result is None:
            return None
        seed, in_float64, difference, size = result
        own = _product(
            _gradients(same, lambda one: _mean_log_prob(one, x, context)), _direction(same, seed)
        )[0]
        measured = Gradient(own, in_float64, difference, size, None, solver_tolerance(wide) > 0)
        if measured.is_wrong:
            return dataclasses.replace(
                measured, layer=_wrong_layer(wide, x64, context64, directions)
            )
    except Exception:  # a library that mixes float64 and float32, or forbids derivatives
        return None
    return measured


@check(
    "KF209",
    "the gradient does not match log_prob",
    cause="A log_det or a value is detached, or a custom backward pass is wrong.",
    fix="Check the layer with torch.autograd.gradcheck in float64.",
)
def gradient_wrong(m: Measurements) -> Iterator[Symptom]:
    """The doctor compares the derivative of log_prob by autograd with central differences in
    float64, and names the first layer with a wrong one. Such a flow silently trains another
    objective than the likelihood. It is a warning if the formula is right but the backward pass
    loses digits, for example because it inverts layers in float32.

    Example:
        class Detached(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.log_scale = torch.nn.Parameter(torch.zeros(2))

            def encode(self, x):
                return x * self.log_scale.exp(), self.log_scale.detach().sum().expand(len(x))

            def decode(self, z):
                return z * (-self.log_scale).exp(), -self.log_scale.detach().sum().expand(len(z))


        flow = Detached()
        x = torch.randn(64, 2)
    """
    result = gradient(m)
    if result is None or state(m).stale or dtypes(m).changed or dtypes(m).changed_in_float64:
        return  # KF211 and KF702 explain more: without float64, differences are noise
    if training_not_finite(m):
        return
    evidence: Evidence = {
        "autograd": result.autograd,
        "autograd_in_float64": result.autograd64,
        "differences_in_float64": result.difference,
    }
    if result.is_wrong:
        yield Symptom(
            f"Along one direction of the parameters, the gradient of log_prob is "
            f"{result.autograd64:.3g}, but log_prob changes by {result.difference:.3g}.",
            evidence,
            layer=result.layer,
        )
    elif (
        abs(result.autograd - result.autograd64) > LOST * result.size
        and m.profile.eps * m.profile.condition_number.amax().item() <= TRUSTED  # else see KF301
    ):
        yield Symptom(
            f"Along one direction of the parameters, the gradient of log_prob is "
            f"{result.autograd:.3g}, and {result.autograd64:.3g} in float64.",
            evidence,
            severity="warning",
            cause="The backward pass loses digits: it inverts layers, or subtracts large numbers.",
            fix="Store activations instead of inverting layers, or train in float64.",
        )


@dataclass(frozen=True)
class Step:
    """The gradients of log_prob at the points, and log_prob after one step of Adam.

    `bad` holds the names of the parameters with a gradient that is not finite, of `trained`
    trainable ones, and `idle` of those that log_prob does not depend on. `lost` is the number of
    points with a log_prob that is only finite before the step.
    """

    bad: list[str]
    idle: list[str]
    trained: int
    lost: int


@measurement("a step of training", checked="a step of training")
def step(m: Measurements) -> Step | None:
    """Takes one step of Adam on a copy. Returns None if the flow cannot be copied or trained."""
    own = m.copy()
    if own is None or not _trained(own):
        return None
    named = [
        (name.removeprefix("source."), one)
        for name, one in own.named_parameters()
        if one.requires_grad and one.is_floating_point()
    ]
    optimizer = torch.optim.Adam([one for _, one in named], lr=LEARNING_RATE)
    try:
        with torch.enable_grad():
            loss = _with_graph(own, lambda: -_mean_log_prob(own, m.points, m.context))
            if not loss.requires_grad:
                return None
            loss.backward()
    except Exception:  # a library that forbids derivatives
        return None
    bad = [
        name
        for name, one in named
        if one.grad is not None and not bool(torch.isfinite(one.grad).all())
    ]
    optimizer.step()
    _clear_caches(own)
    after = own.augmented_log_prob(m.points, m.context)
    lost = torch.isfinite(m.log_prob) & ~torch.isfinite(after)
    idle = [name for name, one in named if one.grad is None]
    return Step(bad, idle, len(named), int(lost.sum()))


@check(
    "KF213",
    "training makes the flow not finite",
    cause="A derivative divides by zero, or multiplies zero by infinity: torch.where hides such a "
    "value, but not its derivative.",
    fix="Replace the argument by a safe value before the function, not its result afterwards.",
)
def training_not_finite(m: Measurements) -> Iterator[Symptom]:
    """log_prob is finite at the points, and its gradient is not, or log_prob is not after one
    step of Adam with a learning rate of 0.001.

    Example:
        class Rooted(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.scale = torch.nn.Parameter(torch.zeros(2))

            def encode(self, x):
                s = torch.where(self.scale > 0, self.scale.sqrt(), torch.ones(2))
                return x * s, s.log().sum().expand(len(x))

            def decode(self, z):
                s = torch.where(self.scale > 0, self.scale.sqrt(), torch.ones(2))
                return z / s, -s.log().sum().expand(len(z))


        flow = Rooted()
        x = torch.randn(64, 2)
    """
    result = step(m)
    if result is None or not bool(torch.isfinite(m.log_prob).all()):
        return
    if result.bad:
        also = f" and {len(result.bad) - 1} more" if len(result.bad) > 1 else ""
        yield Symptom(
            "log_prob is finite, but its gradient is not, for the parameter "
            f"{result.bad[0]}{also} of {result.trained}.",
            {"parameters": len(result.bad)},
        )
    elif result.lost:
        yield Symptom(
            f"After one step of training, log_prob is not finite at {result.lost} of the "
            f"{len(m.points)} points.",
            {"points": result.lost},
            cause="A scale or a shift changes too much in one step.",
            fix="Bound the log-scales, and use a parameterization that cannot leave its domain.",
        )


@check(
    "KF404",
    "some parameters do not train",
    severity="note",
    cause="requires_grad is off, or log_prob does not use the parameter.",
    fix="If this is not intended: parameter.requires_grad_(True), and check where it is used.",
)
def parameters_do_not_train(m: Measurements) -> Iterator[Symptom]:
    """Some parameters have no gradient of log_prob and others do.

    Example:
        flow = kf.real_nvp(2, depth=2, hidden=(8,))
        next(flow.parameters()).requires_grad_(False)
        x = torch.randn(64, 2)
    """
    result = step(m)
    if result is None:
        return
    frozen = [
        name.removeprefix("source.")
        for name, one in m.flow.named_parameters()
        if not one.requires_grad
    ]
    for names, what in ((frozen, "frozen"), (result.idle, "not used by log_prob")):
        if names:
            are = "is" if len(names) == 1 else "are"
            yield Symptom(
                f"{len(names)} of {len(frozen) + result.trained} parameters {are} {what}; the "
                f"first is {names[0]}.",
                {"parameters": len(names)},
            )


def _mean_log_prob(flow: Flow, x: Tensor, context: Tensor | None) -> Tensor:
    own = flow.own_log_prob(x, context) if isinstance(flow, Wrapped) else None
    return (flow.augmented_log_prob(x, context) if own is None else own).mean()


def _trained(flow: Flow) -> list[Tensor]:
    return [one for one in flow.parameters() if one.requires_grad and one.is_floating_point()]


def _direction(flow: Flow, seed: int) -> Direction:
    """Returns a random direction, scaled to the size of each parameter; the same in all dtypes."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(one.shape, generator=generator, dtype=torch.float64)
            * (one.detach().double().square().mean().sqrt().item() + 1e-2)
        ).to(one)
        for one in _trained(flow)
    ]


def _compare(
    flow: Flow, function: Function, directions: int
) -> tuple[int, float, float, float] | None:
    """Returns the seed of the direction with the largest error, both derivatives, and their size.

    Returns None if the differences converge along too few directions.
    """
    results = []
    gradients = _gradients(flow, function)
    for seed in range(directions):
        along = _direction(flow, seed)
        derived, size = _product(gradients, along)
        fine, coarse = (_difference(flow, function, along, step) for step in (STEP, 4 * STEP))
        scale = max(size, abs(fine))
        if abs(fine - coarse) <= SETTLED * scale + 1e-9:
            if abs(derived - fine) > WRONG * scale:
                fine = _one_sided(flow, function, along, derived, fine, scale)
            results.append((seed, derived, fine, scale))
    if len(results) < SETTLE:
        return None
    return max(results, key=lambda one: abs(one[1] - one[2]) / max(one[3], 1e-12))


def _gradients(flow: Flow, function: Function) -> Sequence[Tensor | None]:
    """Returns the gradient by autograd, None for a parameter that has none."""
    parameters = _trained(flow)
    _clear_caches(flow)
    with torch.enable_grad():
        value = _with_graph(flow, lambda: function(flow))
        if not value.requires_grad:
            return [None for _ in parameters]
        return torch.autograd.grad(value, parameters, allow_unused=True)


def _product(gradients: Sequence[Tensor | None], along: Direction) -> tuple[float, float]:
    """Returns the derivative along a direction, and its size."""
    products = [
        gradient.double() * part.double()
        for gradient, part in zip(gradients, along, strict=True)
        if gradient is not None
    ]
    value = sum(one.sum().item() for one in products)
    return value, sum(one.square().sum().item() for one in products) ** 0.5


def _with_graph(flow: Flow, call: Callable[[], Tensor]) -> Tensor:
    """Returns the result of a call, in training mode if evaluation mode gives no graph.

    Some libraries follow the parameters only in training mode.
    """
    value = call()
    if not value.requires_grad:
        flow.train()
        value = call()
        flow.eval()
    return value


def _difference(flow: Flow, function: Function, along: Direction, step: float) -> float:
    """Returns the derivative along a direction by central differences."""
    ahead, behind = _values(flow, function, along, (step, -step))
    return (ahead - behind) / (2 * step)


def _one_sided(
    flow: Flow,
    function: Function,
    along: Direction,
    derived: float,
    central: float,
    scale: float,
) -> float:
    """Returns a one-sided difference if log_prob has a kink at the point, to match autograd.

    Splines and ReLU have kinks. There a central difference is the average of both sides. Without
    a kink both sides are practically equal, and the central difference is returned.
    """
    ahead, here, behind = _values(flow, function, along, (STEP, 0.0, -STEP))
    sides = (ahead - here) / STEP, (here - behind) / STEP
    nearest = min(sides, key=lambda side: abs(side - derived))
    return nearest if abs(sides[0] - sides[1]) > SETTLED * scale else central


def _values(
    flow: Flow, function: Function, along: Direction, steps: Iterable[float]
) -> list[float]:
    """Returns the values of the function after steps along a direction, and restores the flow."""
    parameters = _trained(flow)
    kept = [one.detach().clone() for one in parameters]
    results = []
    for step in steps:
        for one, was, part in zip(parameters, kept, along, strict=True):
            one.copy_(was + step * part)
        _clear_caches(flow)
        results.append(function(flow).item())
    for one, was in zip(parameters, kept, strict=True):
        one.copy_(was)
    _clear_caches(flow)
    return results


def _clear_caches(flow: Flow) -> None:
    """Clears what a flow caches in evaluation mode, as training does."""
    flow.train()
    flow.eval()


def _wrong_layer(flow: Flow, x: Tensor, context: Tensor | None, directions: int) -> str | None:
    """Returns the first layer with a wrong derivative of value or log_det at fixed points."""
    generator = torch.Generator().manual_seed(1)
    state = x
    for i, layer in enumerate(layers_of(flow.bijection, context)):
        value = layer.encode(state)[0]
        weights = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)

        def weighted(one: Flow, i: int = i, at: Tensor = state, by: Tensor = weights) -> Tensor:
            same = layers_of(one.bijection, context)[i]
            z, log_det = same.bijection(at, same.context)
            return (by * z).sum() + log_det.sum()

        result = _compare(flow, weighted, directions)
        if result is not None and abs(result[1] - result[2]) > WRONG * max(result[3], 1e-9):
            return layer.name
        state = value
    return None
