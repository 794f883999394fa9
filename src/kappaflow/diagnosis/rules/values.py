"""Rules on values, round trips and conditioning: each finds one fault, or nothing."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from kappaflow.conditioning import TRUSTED, Profile
from kappaflow.diagnosis.finding import Finding
from kappaflow.diagnosis.measured import Measured
from kappaflow.diagnosis.rules.growth import growth_of
from kappaflow.diagnosis.rules.log_dets import LOST


def not_finite(m: Measured) -> Iterator[Finding]:
    """KF101, KF102: a likelihood or a sample that is not finite."""
    bad, points = _not_finite(m.log_prob)
    if bad:
        yield Finding(
            code="KF101",
            severity="error",
            layer=_first_not_finite(m.profile),
            message=f"log_prob is not finite at {bad} of the {points} points.",
            cause="A scale or a shift overflowed, or the parameters are not finite.",
            cure="Bound the log-scales (scale_bound of real_nvp) and train again.",
            evidence={"finite_share": 1 - bad / points},
        )
    bad, draws = _not_finite(m.drawn)
    if bad:
        yield Finding(
            code="KF102",
            severity="error",
            layer=None,
            message=f"{bad} of {draws} samples are not finite.",
            cause="The inverse divides by scales that have become too small.",
            cure="Bound the log-scales (scale_bound of real_nvp) and train again.",
            evidence={"finite_share": 1 - bad / draws},
        )


def round_trip_not_finite(m: Measured) -> Iterator[Finding]:
    """KF201, KF202: a way back that is not finite although likelihoods and samples are."""
    if any(not_finite(m)):
        return  # it says more, and this follows from it
    found = False
    for code, side, errors, layer in (
        ("KF201", "data -> latent -> data", m.profile.round_trip_data[0], m.fault_from_data),
        (
            "KF202",
            "latent -> data -> latent",
            m.profile.round_trip_latent[-1],
            m.fault_from_latent,
        ),
    ):
        bad, points = _not_finite(errors)
        if not bad:
            continue
        found = True
        yield Finding(
            code=code,
            severity="error",
            layer=layer,
            message=f"The round trip {side} is not finite at {bad} of the {points} points.",
            cause="A layer is not defined at values that the other direction produces.",
            cure="Check the layer with kappaflow.testing.check_bijection at such values.",
            evidence={"finite_share": 1 - bad / points},
        )
    if not found and m.profile.status == "not finite":
        yield _singular_values_not_finite(m.profile)


def _singular_values_not_finite(profile: Profile) -> Finding:
    """Returns KF201 for values that are finite but whose derivatives are not."""
    own = torch.stack((profile.layer_sigma_max, profile.layer_sigma_min))
    whole = torch.stack((profile.sigma_max, profile.sigma_min))
    values = torch.cat((own, whole)).permute(2, 0, 1)  # (B, 4, L)
    usable = torch.where(values > 0, values, torch.nan)
    bad, points = _not_finite(usable)
    faulty = (~torch.isfinite(usable)).any(dim=0).any(dim=0)
    return Finding(
        code="KF201",
        severity="error",
        layer=profile.layers[int(faulty.int().argmax())],
        message=(
            "The singular values of the Jacobian are not finite and above 0 at "
            f"{bad} of the {points} points."
        ),
        cause="A derivative is zero, infinite or not a number, where the values are finite.",
        cure="Check the layer with kappaflow.testing.check_bijection at such values.",
        evidence={"finite_share": 1 - bad / points},
    )


def round_trip_lost(m: Measured) -> Iterator[Finding]:
    """KF201, KF202: the flow is not its own inverse, on the data or on draws of the base."""
    predicted = _largest(m.profile.predicted_round_trip / m.norm_data.clamp_min(1))
    for code, side, errors, norms in (
        ("KF201", "data -> latent -> data", m.profile.round_trip_data[0], m.norm_data),
        ("KF202", "latent -> data -> latent", m.profile.round_trip_latent[-1], m.norm_latent),
    ):
        worst = _largest(errors / norms.clamp_min(1))
        if not worst > LOST:
            continue
        # A prediction of 1 and more says that no digit is left, and bounds nothing any longer.
        rounding = math.isfinite(predicted) and (worst <= 100 * predicted or predicted >= 1)
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


def ill_conditioned(m: Measured) -> Iterator[Finding]:
    """KF301: the condition number is too large for the float type, or soon will be."""
    kappa = _worst_condition(m)
    if not math.isfinite(kappa):
        return
    layer = m.profile.layers[m.profile.worst_layer]
    lost = m.profile.eps * kappa
    if lost <= TRUSTED / 10:
        return
    error = lost > TRUSTED
    digits = max(0, round(-math.log10(lost)))
    left = ("no digit", "about 1 digit")[digits] if digits < 2 else f"about {digits} digits"
    growth = growth_of(m.profile)
    yield Finding(
        code="KF301",
        severity="error" if error else "warning",
        layer=layer,
        message=(
            f"The condition number reaches {kappa:.1e}, which leaves {left} of a result at the "
            "worst point."
        ),
        cause=(
            "Some directions are stretched and others squeezed by much: "
            f"{growth.in_words(m.name_row(growth.point))}."
        ),
        cure=(
            "Score and sample in float64, and train with a smaller scale_bound."
            if error
            else "Watch it over training: far from the data it can be worse. float64 has room."
        ),
        evidence={
            "condition_number_max": kappa,
            "eps_times_it": lost,
            "worst_point": growth.point,
            "layers_growing": growth.growing,
            "factor_a_layer": growth.a_layer,
            "largest_factor": growth.largest,
            "largest_factor_layer": growth.layer,
        },
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
            f"One layer has a condition number of {each[worst].item():.1e}, where the median of "
            f"the others is {others.median().item():.1e}."
        ),
        cause="It alone does a change of scale that others could share.",
        cure="Give it a smaller scale_bound, or standardise the data in front of it.",
        evidence={"layer": each[worst].item(), "others_median": others.median().item()},
    )


def _worst_condition(m: Measured) -> float:
    return _largest(m.profile.condition_number[-1])


def _largest(values: Tensor) -> float:
    """Returns the largest of the values that are finite; nan if none is."""
    finite = values[torch.isfinite(values)]
    return finite.max().item() if len(finite) else math.nan


def _not_finite(values: Tensor) -> tuple[int, int]:
    """Returns at how many points a value is not finite, and how many points there are."""
    finite = torch.isfinite(values.reshape(len(values), -1)).all(dim=1)
    return int((~finite).sum()), len(finite)


def _first_not_finite(profile: Profile) -> str | None:
    bad = ~torch.isfinite(profile.layer_log_det).all(dim=1)
    return profile.layers[int(bad.int().argmax())] if bad.any() else None


def _layer_not_inverse(profile: Profile) -> str:
    """Returns the layer that misses most on its own."""
    missed = profile.layer_round_trip.nan_to_num(0, posinf=0)
    return profile.layers[int(missed.amax(dim=1).argmax())]
