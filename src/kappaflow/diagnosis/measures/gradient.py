"""The derivative of log_prob by the parameters, by autograd and by differences."""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from kappaflow.adapters import Wrapped
from kappaflow.conditioning import layers_of
from kappaflow.diagnosis.unchanged import another
from kappaflow.flows import Flow

ROWS = 16
DIRECTIONS, SETTLE = 4, 2  # and on how many differences must settle: on one noise can by chance
STEP = 1e-5  # of the size of a parameter
SETTLED = 1e-4  # of the size of a derivative: what two steps of differences may differ by
WRONG = 1e-3  # of it, too: what autograd and differences may differ by
Function = Callable[[Flow], Tensor]


@dataclass(frozen=True)
class Gradient:
    """Derivatives of the mean log_prob along a direction of all parameters, in nats.

    Of several directions it is the one on which autograd and differences are furthest apart.

    Attributes:
        own: By autograd in the type of the flow.
        wide: By autograd in float64.
        difference: By central differences in float64.
        size: How large they are by the products of single parameters, root of the sum of squares.
        layer: The first layer whose own derivatives are wrong.
    """

    own: float
    wide: float
    difference: float
    size: float
    layer: str | None

    @property
    def is_wrong(self) -> bool:
        """Whether autograd and differences, both in float64, say different things."""
        return abs(self.wide - self.difference) > WRONG * self.size


def gradient_of(
    flow: Flow, x: Tensor, context: Tensor | None, wide: Flow | None
) -> Gradient | None:
    """Returns the derivatives of log_prob at a few points.

    Args:
        flow: In evaluation mode.
        x: Points as its bijection takes them, (B, *event).
        context: (B, C) or None.
        wide: A copy in float64 that nobody needs any more.

    Returns:
        The derivatives; None where the flow has no parameters to train or no copy in float64, or
        where differences do not settle.
    """
    x, context = x[:ROWS], None if context is None else context[:ROWS]
    same = another(flow, x, context)
    if same is None or wide is None or not _trained(wide):
        return None
    x64, context64 = x.double(), None if context is None else context.double()
    try:
        found = _compared(wide, lambda one: _mean_log_prob(one, x64, context64))
        if found is None:
            return None
        worst, wide_value, difference, size = found
        own = _derived(same, lambda one: _mean_log_prob(one, x, context), [worst])[0][0]
        gradient = Gradient(own, wide_value, difference, size, None)
        if gradient.is_wrong:
            return dataclasses.replace(gradient, layer=_wrong_layer(wide, x64, context64))
    except Exception:  # a library in which float64 meets float32, or that forbids derivatives
        return None
    return gradient


def _mean_log_prob(flow: Flow, x: Tensor, context: Tensor | None) -> Tensor:
    own = flow.own_log_prob(x, context) if isinstance(flow, Wrapped) else None
    return (flow.joined_log_prob(x, context) if own is None else own).mean()


def _trained(flow: Flow) -> list[Tensor]:
    return [one for one in flow.parameters() if one.requires_grad and one.is_floating_point()]


def _direction(flow: Flow, seed: int) -> list[Tensor]:
    """Returns a direction: for each parameter one of its size, the same in each type."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(one.shape, generator=generator, dtype=torch.float64)
            * (one.detach().double().square().mean().sqrt().item() + 1e-2)
        ).to(one)
        for one in _trained(flow)
    ]


def _compared(flow: Flow, function: Function) -> tuple[int, float, float, float] | None:
    """Returns the direction on which both ways are furthest apart, both ways there, and the size.

    None where differences settle on too few directions.
    """
    found = []
    for seed, (derived, size) in enumerate(_derived(flow, function, range(DIRECTIONS))):
        fine, coarse = (_difference(flow, function, seed, step) for step in (STEP, 4 * STEP))
        scale = max(size, abs(fine))
        if abs(fine - coarse) <= SETTLED * scale + 1e-9:
            if abs(derived - fine) > WRONG * scale:
                fine = _beside_kink(flow, function, seed, derived, fine, scale)
            found.append((seed, derived, fine, scale))
    if len(found) < SETTLE:
        return None
    return max(found, key=lambda one: abs(one[1] - one[2]) / max(one[3], 1e-12))


def _derived(flow: Flow, function: Function, seeds: Iterable[int]) -> list[tuple[float, float]]:
    """Returns the derivatives by autograd along directions, and their sizes."""
    parameters = _trained(flow)
    _let_go(flow)
    with torch.enable_grad():
        value = function(flow)
        if not value.requires_grad:
            return [(0.0, 0.0) for _ in seeds]
        gradients = torch.autograd.grad(value, parameters, allow_unused=True)
    found = []
    for seed in seeds:
        pairs = zip(gradients, _direction(flow, seed), strict=True)
        products = [
            gradient.double() * direction.double()
            for gradient, direction in pairs
            if gradient is not None
        ]
        value = sum(one.sum().item() for one in products)
        found.append((value, sum(one.square().sum().item() for one in products) ** 0.5))
    return found


def _difference(flow: Flow, function: Function, seed: int, step: float) -> float:
    """Returns the derivative along a direction by central differences."""
    ahead, behind = _values(flow, function, seed, (step, -step))
    return (ahead - behind) / (2 * step)


def _beside_kink(
    flow: Flow, function: Function, seed: int, derived: float, central: float, scale: float
) -> float:
    """Returns the difference to one side where log_prob has a kink and autograd is of that side.

    The curves of splines, and ReLU, have one at some point of some flow: central differences are
    the mean of both sides. Without a kink both sides are as good as equal.
    """
    ahead, here, behind = _values(flow, function, seed, (STEP, 0.0, -STEP))
    sides = (ahead - here) / STEP, (here - behind) / STEP
    nearest = min(sides, key=lambda side: abs(side - derived))
    return nearest if abs(sides[0] - sides[1]) > SETTLED * scale else central


def _values(flow: Flow, function: Function, seed: int, steps: Iterable[float]) -> list[float]:
    """Returns the function after steps along a direction, the flow being left as it was."""
    parameters, direction = _trained(flow), _direction(flow, seed)
    kept = [one.detach().clone() for one in parameters]
    found = []
    for step in steps:
        for one, was, along in zip(parameters, kept, direction, strict=True):
            one.copy_(was + step * along)
        _let_go(flow)
        found.append(function(flow).item())
    for one, was in zip(parameters, kept, strict=True):
        one.copy_(was)
    _let_go(flow)
    return found


def _let_go(flow: Flow) -> None:
    """Lets a flow forget what it keeps in evaluation mode, as training does."""
    flow.train()
    flow.eval()


def _wrong_layer(flow: Flow, x: Tensor, context: Tensor | None) -> str | None:
    """Returns the first layer whose value and log_det, at a fixed point, derive otherwise."""
    generator = torch.Generator().manual_seed(1)
    state = x
    for i, layer in enumerate(layers_of(flow.bijection, context)):
        value = layer.bijection(state, layer.context)[0]
        weights = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)

        def weighed(one: Flow, i: int = i, at: Tensor = state, by: Tensor = weights) -> Tensor:
            there = layers_of(one.bijection, context)[i]
            z, log_det = there.bijection(at, there.context)
            return (by * z).sum() + log_det.sum()

        found = _compared(flow, weighed)
        if found is not None and abs(found[1] - found[2]) > WRONG * max(found[3], 1e-9):
            return layer.name
        state = value
    return None
