"""KF209, KF213, KF404: the gradient of log_prob, and the flow after a step along it."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kappaflow.conditioning import TRUSTED, layers_of
from kappaflow.conditioning.round_trip import layer_by_layer
from kappaflow.diagnosis.check import Symptom, check, measurement
from kappaflow.diagnosis.checks.dtypes import dtypes
from kappaflow.diagnosis.checks.log_dets import solver_tolerance
from kappaflow.diagnosis.checks.state import state
from kappaflow.diagnosis.measurements import Measurements, library_log_prob, to_float64
from kappaflow.finding import Evidence
from kappaflow.flows import Flow

SETTLE = 2  # directions in which the differences must converge
STEP = 1e-5  # step of the differences, relative to the size of a parameter
SETTLED = 1e-4  # relative difference allowed between two step lengths
WRONG = 1e-3  # relative difference allowed between autograd and finite differences
WRONG_SOLVED = 0.3  # the same where a solver has a tolerance, which a small step cannot resolve
LEARNING_RATE = 1e-3  # of the step that is tried
LOST = 0.1  # relative rounding error of the gradient that is reported
Function = Callable[[Flow], Tensor]
Direction = list[Tensor]  # one part for each trained parameter


class Slope(NamedTuple):
    """A derivative along one direction in parameter space, by autograd and by differences."""

    seed: int  # of the direction
    autograd: float
    difference: float  # central, or one-sided at a kink
    size: float  # root of the sum of squares of the contributions of the parameters

    def is_wrong(self, allowed: float) -> bool:
        """Whether autograd and differences disagree."""
        return abs(self.autograd - self.difference) > allowed * self.size


class Gradient(NamedTuple):
    """Derivatives of the mean log_prob, in nats, along the direction with the largest error."""

    autograd: float  # in the dtype of the flow
    in_float64: Slope
    is_wrong: bool  # in float64
    layer: str | None = None  # the first layer with a wrong derivative


@measurement("gradients")
def gradient(m: Measurements) -> Gradient | None:
    """Differentiates log_prob at a few points; None if that is impossible or not accurate."""
    directions = m.effort.points // 16
    x, context = m.first(m.effort.points // 4)
    same, float64_copy = m.copy(), m.copy(torch.float64)
    if same is None or float64_copy is None or not _trained(float64_copy):
        return None
    x64, context64 = x.double(), to_float64(context)
    try:
        slope = _slope(float64_copy, lambda flow: _mean_log_prob(flow, x64, context64), directions)
        if slope is None:
            return None
        own = _gradients(same, lambda flow: _mean_log_prob(flow, x, context))
        autograd = _product(own, _direction(same, slope.seed))[0]
        if slope.is_wrong(WRONG_SOLVED if solver_tolerance(float64_copy) > 0 else WRONG):
            layer = _wrong_layer(float64_copy, x64, context64, directions)
            return Gradient(autograd, slope, True, layer)
    except Exception:  # a library that mixes float64 and float32, or forbids derivatives
        return None
    return Gradient(autograd, slope, False)


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
        class Detached(kf.bijections.ElementwiseAffine):
            def forward(self, x, context=None):
                z, log_det = super().forward(x)
                return z, log_det.detach()


        flow = kf.Flow(kf.StandardNormal(2), Detached(2))
        x = torch.randn(64, 2)
    """
    result = gradient(m)
    if result is None or state(m).stale or dtypes(m).changed or dtypes(m).changed_in_float64:
        return  # KF211 and KF702 explain more: without float64, differences are noise
    if training_not_finite(m):
        return
    own, _, in_float64, difference, size = result.autograd, *result.in_float64
    evidence: Evidence = {
        "autograd": own,
        "autograd_in_float64": in_float64,
        "differences_in_float64": difference,
    }
    start = "Along one direction of the parameters, the gradient of log_prob is"
    if result.is_wrong:
        message = f"{start} {in_float64:.3g}, but log_prob changes by {difference:.3g}."
        yield Symptom(message, evidence, layer=result.layer)
    elif (
        abs(own - in_float64) > LOST * size
        and m.profile.eps * m.profile.condition_number.amax().item() <= TRUSTED  # else see KF301
    ):
        yield Symptom(
            f"{start} {own:.3g}, and {in_float64:.3g} in float64.",
            evidence,
            severity="warning",
            cause="The backward pass loses digits: it inverts layers, or subtracts large numbers.",
            fix="Store activations instead of inverting layers, or train in float64.",
        )


class Step(NamedTuple):
    """The gradients of log_prob at the points, and log_prob after one step of Adam."""

    bad: list[str]  # names of the parameters with a gradient that is not finite
    idle: list[str]  # names of those that log_prob does not depend on
    trained: int  # number of trainable parameters
    lost: int  # number of points with a log_prob that is only finite before the step


@measurement("a step of training")
def step(m: Measurements) -> Step | None:
    """Takes one step of Adam on a copy. Returns None if the flow cannot be copied or trained."""
    own = m.copy()
    parameters = {} if own is None else _trained(own)
    if own is None or not parameters:
        return None
    optimizer = torch.optim.Adam(parameters.values(), lr=LEARNING_RATE)
    try:
        with torch.enable_grad():
            loss = _with_graph(own, lambda: -_mean_log_prob(own, m.points, m.context))
            if not loss.requires_grad:
                return None
            loss.backward()
    except Exception:  # a library that forbids derivatives
        return None
    slopes = {name: parameter.grad for name, parameter in parameters.items()}
    bad = [n for n, slope in slopes.items() if slope is not None and not slope.isfinite().all()]
    idle = [n for n, slope in slopes.items() if slope is None]
    optimizer.step()
    _clear_caches(own)
    after = own.augmented_log_prob(m.points, m.context)
    lost = torch.isfinite(m.log_prob) & ~torch.isfinite(after)
    return Step(bad, idle, len(parameters), int(lost.sum()))


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
        class Rooted(kf.bijections.ElementwiseAffine):
            def forward(self, x, context=None):
                z, log_det = super().forward(x)
                return z + 0 * torch.where(self.shift > 0, self.shift.sqrt(), 0.0), log_det


        flow = kf.Flow(kf.StandardNormal(2), Rooted(2))
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
        for name, parameter in m.flow.named_parameters()
        if not parameter.requires_grad
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
    own = library_log_prob(flow, x, context)
    return (flow.augmented_log_prob(x, context) if own is None else own).mean()


def _trained(flow: Flow) -> dict[str, Tensor]:
    """Returns the trainable parameters, by their names in the user's module."""
    return {
        name.removeprefix("source."): parameter
        for name, parameter in flow.named_parameters()
        if parameter.requires_grad and parameter.is_floating_point()
    }


def _direction(flow: Flow, seed: int) -> Direction:
    """Returns a random direction, scaled to the size of each parameter; the same in all dtypes."""
    generator = torch.Generator().manual_seed(seed)
    direction = []
    for parameter in _trained(flow).values():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        size = parameter.detach().double().square().mean().sqrt().item() + 1e-2
        direction.append((noise * size).to(parameter))
    return direction


def _slope(flow: Flow, function: Function, directions: int) -> Slope | None:
    """Returns the derivative with the largest error; None if too few differences converge.

    Splines and ReLU have kinks. There a central difference is the average of both sides, and the
    side that is closer to autograd counts.
    """
    slopes = []
    gradients = _gradients(flow, function)
    for seed in range(directions):
        along = _direction(flow, seed)
        derived, size = _product(gradients, along)
        values = _values(flow, function, along, [4 * STEP, STEP, 0.0, -STEP, -4 * STEP])
        coarse, fine = (values[0] - values[4]) / (8 * STEP), (values[1] - values[3]) / (2 * STEP)
        size = max(size, abs(fine))
        if abs(fine - coarse) <= SETTLED * size + 1e-9:
            up, down = (values[1] - values[2]) / STEP, (values[2] - values[3]) / STEP
            if abs(derived - fine) > WRONG * size and abs(up - down) > SETTLED * size:
                fine = up if abs(up - derived) <= abs(down - derived) else down
            slopes.append(Slope(seed, derived, fine, size))
    if len(slopes) < SETTLE:
        return None
    return max(slopes, key=lambda s: abs(s.autograd - s.difference) / max(s.size, 1e-12))


def _gradients(flow: Flow, function: Function) -> Sequence[Tensor | None]:
    """Returns the gradient by autograd, None for a parameter that has none."""
    parameters = list(_trained(flow).values())
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
    value = sum(product.sum().item() for product in products)
    return value, sum(product.square().sum().item() for product in products) ** 0.5


def _with_graph(flow: Flow, call: Callable[[], Tensor]) -> Tensor:
    """Returns the result of a call, in training mode if evaluation mode gives no graph."""
    value = call()
    if not value.requires_grad:
        flow.train()
        value = call()
        flow.eval()
    return value


def _values(
    flow: Flow, function: Function, along: Direction, steps: Sequence[float]
) -> list[float]:
    """Returns the values of the function after steps along a direction, and restores the flow."""
    parameters = list(_trained(flow).values())
    before = [parameter.detach().clone() for parameter in parameters]

    def move(step: float) -> None:
        for parameter, start, part in zip(parameters, before, along, strict=True):
            parameter.copy_(start + step * part)
        _clear_caches(flow)

    results = []
    for step in steps:
        move(step)
        results.append(function(flow).item())
    move(0.0)
    return results


def _clear_caches(flow: Flow) -> None:
    """Clears what a flow caches in evaluation mode, as training does."""
    flow.train()
    flow.eval()


def _wrong_layer(flow: Flow, x: Tensor, context: Tensor | None, directions: int) -> str | None:
    """Returns the first layer with a wrong derivative of value or log_det at fixed points."""
    generator = torch.Generator().manual_seed(1)
    layers = layers_of(flow.bijection, context)
    for i, (layer, before, value, _) in enumerate(layer_by_layer(layers, x)):
        weights = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)

        def weighted(own: Flow, i: int = i, at: Tensor = before, by: Tensor = weights) -> Tensor:
            z, log_det = layers_of(own.bijection, context)[i].encode(at)
            return (by * z).sum() + log_det.sum()

        slope = _slope(flow, weighted, directions)
        if slope and slope._replace(size=max(slope.size, 1e-9)).is_wrong(WRONG):
            return layer.name
    return None
