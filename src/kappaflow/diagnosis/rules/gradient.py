"""The rule on the gradient of log_prob."""

from collections.abc import Iterator

from kappaflow.conditioning import TRUSTED
from kappaflow.diagnosis.finding import Finding
from kappaflow.diagnosis.measured import Measured

LOST = 0.1  # of the size of a derivative, by rounding


def gradient_wrong(m: Measured) -> Iterator[Finding]:
    """KF209: what training follows is not the gradient of log_prob."""
    found = m.gradient
    if found is None or m.state.stale or m.precision.other_type or m.precision.in_float64:
        return  # KF211 and KF702 say more: without float64 differences are noise
    rounding = abs(found.own - found.wide)
    evidence: dict[str, float | int | str | None] = {
        "autograd": found.own,
        "autograd_in_float64": found.wide,
        "differences_in_float64": found.difference,
    }
    if found.is_wrong:
        yield Finding(
            code="KF209",
            severity="error",
            layer=found.layer,
            message=(
                f"The gradient of log_prob is {found.wide:.3g} along a direction in which "
                f"log_prob itself changes by {found.difference:.3g}."
            ),
            cause="A log_det or a value is detached, or a backward pass of its own is wrong.",
            cure="Check the layer with torch.autograd.gradcheck in float64.",
            evidence=evidence,
        )
    elif rounding > LOST * found.size and _conditioned(m):
        yield Finding(
            code="KF209",
            severity="warning",
            layer=None,
            message=(
                f"The gradient of log_prob is {found.own:.3g} along a direction in which it is "
                f"{found.wide:.3g} in float64."
            ),
            cause="The backward pass loses digits: it inverts layers, or subtracts large numbers.",
            cure="Keep activations instead of inverting, or train in float64.",
            evidence=evidence,
        )


def _conditioned(m: Measured) -> bool:
    """Returns whether KF301 does not say more."""
    worst = m.profile.condition_number.amax().item()
    return m.profile.eps * worst <= TRUSTED
