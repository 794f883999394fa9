"""The rules: each looks at the measurements of a flow and finds one kind of fault, or nothing."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kappaflow.bijections import ActNorm, Standardize
from kappaflow.conditioning import Profile
from kappaflow.diagnosis.finding import Finding
from kappaflow.flows import Flow

# eps * condition number above this: a number in this float type has lost most of its digits.
UNUSABLE = 1e-2
# Round trips above this share of |x| are visible in likelihoods and samples.
LOST = 1e-3


@dataclass(frozen=True)
class Measured:
    """What the rules look at.

    Attributes:
        flow: The flow.
        profile: Its conditioning over depth at the points.
        norm_data: |x| of the standardised points, (B,).
        norm_latent: |z| of the draws of the base, (B,).
        log_prob: log p at the points, (B,).
        log_det_error: |log_det - log|det of the dense Jacobian|| of the core, (B,); None where the
            dimension is too large.
        samples_finite: Share of draws that are finite.
    """

    flow: Flow
    profile: Profile
    norm_data: Tensor
    norm_latent: Tensor
    log_prob: Tensor
    log_det_error: Tensor | None
    samples_finite: float


Rule = Callable[[Measured], Iterator[Finding]]


def not_finite(m: Measured) -> Iterator[Finding]:
    """KF101: a likelihood or a sample that is not finite."""
    share = torch.isfinite(m.log_prob).double().mean().item()
    if share < 1:
        yield Finding(
            code="KF101",
            severity="error",
            layer=_first_not_finite(m.profile),
            message=f"log_prob is finite at {share:.1%} of the points only.",
            cause="A scale or a shift overflowed, or the parameters are not finite.",
            cure="Bound the log-scales (scale_bound of real_nvp) and train again.",
            evidence={"finite_share": share},
        )
    if m.samples_finite < 1:
        yield Finding(
            code="KF102",
            severity="error",
            layer=None,
            message=f"{m.samples_finite:.1%} of the samples are finite only.",
            cause="The inverse divides by scales that have become too small.",
            cure="Bound the log-scales (scale_bound of real_nvp) and train again.",
            evidence={"finite_share": m.samples_finite},
        )


def round_trip_lost(m: Measured) -> Iterator[Finding]:
    """KF201, KF202: the flow is not its own inverse, on the data or on draws of the base."""
    for code, side, errors, norms in (
        ("KF201", "data -> latent -> data", m.profile.round_trip_data[0], m.norm_data),
        ("KF202", "latent -> data -> latent", m.profile.round_trip_latent[-1], m.norm_latent),
    ):
        worst = (errors / norms.clamp_min(1)).max().item()
        if not worst > LOST:  # what is not finite is KF101's and KF102's
            continue
        predicted = (m.profile.predicted_round_trip / m.norm_data.clamp_min(1)).max().item()
        rounding = math.isfinite(predicted) and worst <= 100 * predicted
        yield Finding(
            code=code,
            severity="error",
            layer=m.profile.layers[m.profile.worst_layer]
            if rounding
            else _layer_not_inverse(m.profile),
            message=f"The round trip {side} misses by {worst:.1e} of the length of a point.",
            cause=(
                f"Rounding, amplified by a condition number of {_worst_condition(m):.1e}."
                if rounding
                else f"Rounding explains {predicted:.1e} only: a layer is not its own inverse."
            ),
            cure=(
                "Score and sample in float64 (flow.double()), or train with a smaller scale_bound."
                if rounding
                else "Check the layer with kappaflow.testing.check_bijection."
            ),
            evidence={"worst": worst, "predicted": predicted, "tolerance": LOST},
        )


def log_det_wrong(m: Measured) -> Iterator[Finding]:
    """KF203: log_det is not log|det| of the Jacobian."""
    if m.log_det_error is None:
        return
    worst = m.log_det_error.max().item()
    kappa = _worst_condition(m)
    tolerance = max(
        1e-2, 10 * m.profile.eps * kappa * (1 + m.profile.log_det[-1].abs().max().item())
    )
    if worst > tolerance and m.profile.eps * kappa < UNUSABLE:
        yield Finding(
            code="KF203",
            severity="error",
            layer=None,
            message=f"log_det is off log|det| of the Jacobian by up to {worst:.2g} nats.",
            cause="A log_det with a wrong sign, without a term, or averaged where it should add.",
            cure="Check each layer with kappaflow.testing.check_bijection.",
            evidence={"worst_nats": worst, "tolerance_nats": tolerance},
        )


def ill_conditioned(m: Measured) -> Iterator[Finding]:
    """KF301: the condition number is too large for the float type, or soon will be."""
    kappa = _worst_condition(m)
    if not math.isfinite(kappa):
        return
    layer = m.profile.layers[m.profile.worst_layer]
    lost = m.profile.eps * kappa
    if lost <= UNUSABLE / 10:
        return
    error = lost > UNUSABLE
    left = f"about {max(0.0, -math.log10(lost)):.0f} digits of a result are left"
    yield Finding(
        code="KF301",
        severity="error" if error else "warning",
        layer=layer,
        message=f"The condition number reaches {kappa:.1e}: at the worst point {left}.",
        cause="Some directions are stretched and others squeezed by much, layer after layer.",
        cure=(
            "Score and sample in float64, and train with a smaller scale_bound."
            if error
            else "Watch it over training: far from the data it can be worse. float64 has room."
        ),
        evidence={"condition_number_max": kappa, "eps_times_it": lost},
    )


def one_layer_carries(m: Measured) -> Iterator[Finding]:
    """KF302: one layer is far worse conditioned than the others."""
    each = m.profile.layer_condition_number.median(dim=1).values
    worst = m.profile.worst_layer
    others = torch.cat((each[:worst], each[worst + 1 :]))
    if len(others) < 2 or not each[worst] > 1e2 * others.median():
        return
    yield Finding(
        code="KF302",
        severity="note" if each[worst] * m.profile.eps < 1e-4 else "warning",
        layer=m.profile.layers[worst],
        message=(
            f"One layer has a condition number of {each[worst].item():.1e}, "
            f"the median of the others is {others.median().item():.1e}."
        ),
        cause="It alone does a change of scale that others could share.",
        cure="Give it a smaller scale_bound, or standardise the data in front of it.",
        evidence={"layer": each[worst].item(), "others_median": others.median().item()},
    )


def not_started(m: Measured) -> Iterator[Finding]:
    """KF401: a data-dependent start that has not happened."""
    waiting = [
        name
        for name, module in m.flow.named_modules()
        if (isinstance(module, ActNorm) and not module.initialized)
        or (isinstance(module, Standardize) and not module.fitted)
    ]
    if waiting:
        yield Finding(
            code="KF401",
            severity="note",
            layer=waiting[0],
            message=f"{len(waiting)} of the layers still wait for their first data: {waiting[0]}.",
            cause="The flow has not been trained.",
            cure="Train it with kappaflow.fit, which fits the units first.",
            evidence={"layers": len(waiting)},
        )


RULES: tuple[Rule, ...] = (
    not_finite,
    round_trip_lost,
    log_det_wrong,
    ill_conditioned,
    one_layer_carries,
    not_started,
)


def _worst_condition(m: Measured) -> float:
    return m.profile.condition_number[-1].max().item()


def _first_not_finite(profile: Profile) -> str | None:
    bad = ~torch.isfinite(profile.layer_log_det).all(dim=1)
    return profile.layers[int(bad.int().argmax())] if bad.any() else None


def _layer_not_inverse(profile: Profile) -> str:
    """Returns the layer that misses most on its own."""
    return profile.layers[int(profile.layer_round_trip.nan_to_num(torch.inf).amax(dim=1).argmax())]
