"""KF201, KF202, KF303: is the flow its own inverse, from data, from latents and far out?"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kappaflow.bijections import CircleToLine
from kappaflow.conditioning import Profile, layers_of
from kappaflow.conditioning.points import Layer
from kappaflow.conditioning.round_trip import distance, first_not_finite, states_of
from kappaflow.diagnosis.advice import bound_scales, in_float64
from kappaflow.diagnosis.check import Symptom, check, measurement, table
from kappaflow.diagnosis.checks.log_dets import TOLERATED
from kappaflow.diagnosis.checks.log_prob import log_prob_not_finite
from kappaflow.diagnosis.checks.samples import samples_not_finite
from kappaflow.diagnosis.finding import Table
from kappaflow.diagnosis.measurements import Measurements
from kappaflow.diagnosis.tensors import count_not_finite, largest, lengths, quantiles
from kappaflow.finding import Evidence

EXPLAINED = 100  # multiple of the predicted rounding error that rounding still explains
FEW = 20  # the same at one point, for small errors; healthy flows reach 5
SIGMAS = (0, 2, 4, 6, 8, 10)
DEFINED = 4  # sigmas up to which a density should be a number
NEAR, MANY = 2, 0.1  # distance in sigmas (a few samples in a hundred are there), and share lost
SEARCHED = 1e-5  # relative error that a careful search for an inverse leaves
SUSPECT = 8e-5  # relative error that no search leaves: those of zuko's NAF leave up to 6e-5
VISIBLE = 1e-3  # relative error from which the doctor looks for the layer
CHECK_THERE = "Call the layer alone at such values (kappaflow.testing.check_bijection)."
ROUNDED = 1e-3  # share of an error that remains in float64 if rounding caused it


@check(
    "KF201",
    "reconstruction error (data to latent to data)",
    cause="A layer is not its own inverse.",
    fix="Compare both directions of the layer alone (kappaflow.testing.check_bijection).",
)
def data_not_reconstructed(m: Measurements) -> Iterator[Symptom]:
    """The error exceeds a thousandth of |x|, or is not finite. If rounding, amplified by the
    condition number, explains it, the finding names the worst-conditioned layer, and float64
    helps. If not, the finding names the layer with the largest error. A smaller error that is more
    than 20 times what rounding explains is a warning above 8e-5 of |x|, and a note above 1e-5,
    as searches for an inverse leave it.

    Example:
        def decode(z):
            return z / 2 + 0.1, torch.full((len(z),), -1.3863)


        flow = (lambda x: (2 * x, torch.full((len(x),), 1.3863)), decode)
        x = torch.randn(64, 2)
    """
    yield from _not_finite(m, from_latent=False)
    if m.profile.status == "not finite" and not _explained(m):
        yield _singular_values_not_finite(m.profile)
    yield from _too_large(m, from_latent=False)


@check(
    "KF202",
    "reconstruction error (latent to data to latent)",
    cause="A layer is not its own inverse.",
    fix="Compare both directions of the layer alone (kappaflow.testing.check_bijection).",
)
def latents_not_reconstructed(m: Measurements) -> Iterator[Symptom]:
    """The same for latents. One of the two can fail alone: the data may be where the flow
    contracts, and the samples where it expands.

    Example:
        def decode(z):
            return torch.where(z > 1, z + 0.5, z), torch.zeros(len(z))


        flow = (lambda x: (x, torch.zeros(len(x))), decode)
        x = torch.zeros(64, 2)
    """
    yield from _not_finite(m, from_latent=True)
    yield from _too_large(m, from_latent=True)


def _not_finite(m: Measurements, *, from_latent: bool) -> Iterator[Symptom]:
    """Yields a symptom if a reconstruction is not finite although log_prob and samples are."""
    if log_prob_not_finite(m) or samples_not_finite(m):
        return  # these explain more
    bad, points = count_not_finite(m.latent_errors if from_latent else m.data_errors)
    if bad:
        layers = m.layers
        yield Symptom(
            f"The reconstruction ({_way(from_latent)}) is not finite at {bad} of the {points} "
            "points.",
            {"finite_share": 1 - bad / points},
            layer=first_not_finite(layers, _starts(m, from_latent), from_latent=from_latent),
            cause="A layer is not defined at values that the other direction produces.",
            fix=CHECK_THERE,
        )


def _explained(m: Measurements) -> bool:
    """Returns whether values that are not finite explain the singular values that are not."""
    values = (m.log_prob, m.samples, m.data_errors, m.latent_errors)
    return any(count_not_finite(one)[0] for one in values)


def _singular_values_not_finite(profile: Profile) -> Symptom:
    """Returns the KF201 symptom for finite values with derivatives that are not finite."""
    layers = torch.stack((profile.layer_sigma_max, profile.layer_sigma_min))
    whole = torch.stack((profile.sigma_max, profile.sigma_min))
    values = torch.cat((layers, whole)).permute(2, 0, 1)  # (n, 4, layers)
    usable = torch.where(values > 0, values, torch.nan)
    bad, points = count_not_finite(usable)
    faulty = (~torch.isfinite(usable)).any(dim=0).any(dim=0)
    return Symptom(
        f"The singular values of the Jacobian are not finite and positive at {bad} of the "
        f"{points} points.",
        {"finite_share": 1 - bad / points},
        layer=profile.layers[int(faulty.int().argmax())],
        cause="A derivative is zero, infinite or not a number where the values are finite.",
        fix=CHECK_THERE,
    )


def _too_large(m: Measurements, *, from_latent: bool) -> Iterator[Symptom]:
    """Yields a symptom for a finite error above a thousandth of |x|, or not by rounding."""
    errors = m.latent_errors if from_latent else m.data_errors
    worst = largest(errors)
    if not worst > TOLERATED:
        yield from _unexplained(m, errors, from_latent=from_latent)
        return
    predicted = largest(m.profile.predicted_round_trip / lengths(m.standardized))
    # A prediction of 1 or more means that no digit is left; it is no longer a bound.
    rounding = math.isfinite(predicted) and (worst <= EXPLAINED * predicted or predicted >= 1)
    message = _message(worst, from_latent=from_latent)
    evidence: Evidence = {"worst": worst, "predicted": predicted, "tolerance": TOLERATED}
    if rounding:
        condition_number = largest(m.profile.condition_number[-1])
        yield Symptom(
            f"{message}.",
            evidence,
            layer=m.profile.layers[m.profile.worst_layer],
            cause=f"A condition number of {condition_number:.1e} amplifies rounding.",
            fix=f"Score and sample in float64: {in_float64(m.flow)}. Or train with bounded "
            f"log-scales: {bound_scales(m.flow)}.",
        )
        return
    wide = _worst_in_float64(m, _starts(m, from_latent), from_latent=from_latent)
    if wide <= ROUNDED * worst:
        yield Symptom(
            f"{message}, and {wide:.1e} in float64.",
            {**evidence, "worst_in_float64": wide},
            layer=_least_inverse_layer(m.profile),
            cause="The formulas are correct, but lose digits: large numbers cancel.",
            fix=f"Score and sample in float64: {in_float64(m.flow)}. Or rewrite the layer.",
        )
    else:
        yield Symptom(
            f"{message}.",
            evidence,
            layer=_least_inverse_layer(m.profile),
            cause=f"A layer is not its own inverse: rounding explains only {predicted:.1e}.",
        )


def _unexplained(m: Measurements, errors: Tensor, *, from_latent: bool) -> Iterator[Symptom]:
    """Yields a symptom for small errors that the rounding of no layer explains.

    Each layer rounds its output, also where shifts make it large, and the inverse amplifies that.
    """
    states = states_of(m.layers, m.standardized)[0][1:]
    sizes = torch.stack([lengths(state) for state in states]) / lengths(m.standardized)
    amplified = torch.maximum(m.profile.condition_number, sizes / m.profile.sigma_min).amax(0)
    predicted = m.profile.eps * len(states) ** 0.5 * amplified
    # The condition number at the points of the latents is not known.
    limit = EXPLAINED * predicted.max() if from_latent else FEW * predicted
    worst = max(errors[errors > limit].tolist(), default=0.0)
    if not worst > SEARCHED:
        return
    wide = _worst_in_float64(m, _starts(m, from_latent), from_latent=from_latent)
    rounded = wide <= ROUNDED * worst
    explained = largest(predicted)
    yield Symptom(
        f"{_message(worst, from_latent=from_latent)}, where rounding explains {explained:.1e}.",
        {"worst": worst, "predicted": explained, "tolerance": TOLERATED},
        layer=_least_inverse_layer(m.profile),
        severity="warning" if worst > SUSPECT and not rounded else "note",
        cause="A layer is not quite its own inverse, computes in half precision, or is inverted "
        "by a search or a solver with a tolerance.",
        fix="Check the layer alone (kappaflow.testing.check_bijection), or lower the tolerance of "
        "the search or the solver.",
    )


def _message(worst: float, *, from_latent: bool) -> str:
    return (
        f"The reconstruction error ({_way(from_latent)}) reaches {worst:.1e} of the length of a "
        "point"
    )


def _starts(m: Measurements, from_latent: bool) -> Tensor:
    return m.latents if from_latent else m.standardized


def _worst_in_float64(m: Measurements, start: Tensor, *, from_latent: bool) -> float:
    """Returns the largest reconstruction error of a float64 copy, as a share; nan without one."""
    if m.float64_copy is None or m.flow.dtype == torch.float64:
        return math.nan
    start, context = start.double(), None if m.context is None else m.context.double()
    try:
        layers = layers_of(m.float64_copy.core, context)
        first, then = (_decode, _encode) if from_latent else (_encode, _decode)
        errors = distance(then(layers, first(layers, start)), start) / lengths(start)
    except Exception:  # a library that mixes float64 and float32
        return math.nan
    return errors.nan_to_num(math.inf).max().item()


def _way(from_latent: bool) -> str:
    return "latent to data to latent" if from_latent else "data to latent to data"


def _least_inverse_layer(profile: Profile) -> str:
    """Returns the single layer with the largest reconstruction error."""
    missed = profile.layer_round_trip.nan_to_num(0, posinf=0)
    return profile.layers[int(missed.amax(dim=1).argmax())]


@dataclass(frozen=True)
class Tails:
    """Reconstruction errors at growing distances, of latents and of the points decoded from them.

    Attributes:
        sigmas: Standard deviations beyond the samples of the base. Samples of a standard normal in
            n dimensions are at a distance of about sqrt(n), give or take 1.
        latent_errors: Relative errors of latents, (S, n); nan if not finite.
        data_errors: Relative errors of the decoded points, (S, n).
        inside: Whether each latent is in the support of the base, (S, n).
        undefined: Whether the decoded point or its log_prob is not a number, (S, n).
        faults: The first layer that produces a value that is not finite, for each distance.
    """

    sigmas: tuple[int, ...]
    latent_errors: Tensor
    data_errors: Tensor
    inside: Tensor
    undefined: Tensor
    faults: tuple[str | None, ...]


@measurement("latents far out", checked="latents far out")
def tails(m: Measurements) -> Tails:
    """Moves samples of the base away from their mean, decodes them and encodes them again."""
    layers, to_line = m.layers, None
    if layers and isinstance(layers[-1].bijection, CircleToLine):
        # All latents beyond some 5 sigma are next to the seam: compare points on the circle.
        layers, to_line = layers[:-1], layers[-1].bijection
    latent_errors, data_errors, inside, undefined, faults = [], [], [], [], []
    for sigma in SIGMAS:
        z = _moved_out(m, sigma)
        inside.append(torch.isfinite(m.flow.base.log_prob(z, m.context)))
        z = z if to_line is None else to_line.inverse(z)[0]
        x = _decode(layers, z)
        again = _encode(layers, x)
        back = _decode(layers, again)
        if to_line is not None:
            again, back = to_line.nearest_turn(again, z), to_line.nearest_turn(back, x)
        latent_errors.append(distance(again, z) / lengths(z))
        data_errors.append(distance(back, x) / lengths(x))
        latent, log_det = m.flow.core(x, m.context)
        log_prob = m.flow.base.log_prob(latent, m.context) + log_det
        undefined.append(inside[-1] & (x.flatten(1).sum(1) + log_prob).isnan())
        is_fine = not undefined[-1].any() and bool((latent_errors[-1] <= VISIBLE).all())
        faults.append(None if is_fine else first_not_finite(layers, z, from_latent=True))
    return Tails(
        SIGMAS,
        torch.stack(latent_errors),
        torch.stack(data_errors),
        torch.stack(inside),
        torch.stack(undefined),
        tuple(faults),
    )


def _moved_out(m: Measurements, sigma: int) -> Tensor:
    """Returns the latents after a move by some standard deviations away from their mean."""
    z = m.latents
    center = z.mean(0) if len(z) > 1 else torch.zeros_like(z[0])
    return center + (z - center) * (1 + sigma / z[0].numel() ** 0.5)


@table("far_out")
def far_out(m: Measurements) -> Table:
    """Returns quantiles of the errors at each distance."""
    result = tails(m)
    return {
        "sigma": list(result.sigmas),
        **quantiles(result.latent_errors, "latent_"),
        **quantiles(result.data_errors, "data_"),
    }


@check(
    "KF303",
    "far-out latents are not reconstructed",
    severity="note",
    cause="Scales grow or shrink without bound where the networks were not trained.",
    fix="Bound the log-scales, or sample in float64 and inspect the largest of many samples.",
)
def tails_lost(m: Measurements) -> Iterator[Symptom]:
    """The doctor moves samples of the base out by 2 to 10 standard deviations. It is a warning
    if more than a tenth is not reconstructed at 2 standard deviations, where a few samples in a
    hundred are, or if a decoded point or its log_prob is not a number up to 4, and a note
    otherwise. It is an error if log_prob is not a number at the samples. Absurd samples come from
    there.

    Example:
        def growth(z):
            return (z.abs().amax(1, keepdim=True) - 4).clamp_min(0) * 8


        def decode(z):
            return z * growth(z).exp(), 2 * growth(z)[:, 0]


        def encode(x):
            far = x.abs().amax(1, keepdim=True) > 4
            return torch.where(far, 4 * x.sign(), x), torch.zeros(len(x))


        flow = (encode, decode)
        x = torch.rand(64, 2)
    """
    if log_prob_not_finite(m) or samples_not_finite(m):
        return  # these explain more
    others = (*data_not_reconstructed(m), *latents_not_reconstructed(m))
    if any(one.severity == "error" for one in others):
        return  # so do these
    result = tails(m)
    if result.undefined[: SIGMAS.index(DEFINED) + 1].any():
        yield _not_a_number(result)
        return
    lost = [
        (~(errors <= TOLERATED))[inside].double().mean().item() if inside.any() else 0.0
        for errors, inside in zip(result.latent_errors, result.inside, strict=True)
    ]
    if lost[0]:
        return  # so does KF102
    for sigma, share, fault in zip(result.sigmas, lost, result.faults, strict=True):
        if share:
            wide = _worst_in_float64(m, _moved_out(m, sigma), from_latent=True)
            yield Symptom(
                f"{100 * share:.0f} % of the latents {sigma} sigma beyond the samples of the base "
                "are not reconstructed.",
                {
                    f"lost_at_{one}_sigma": value
                    for one, value in zip(result.sigmas, lost, strict=True)
                },
                layer=fault,
                severity="warning" if sigma <= NEAR and share > MANY else None,
                cause="Rounding grows with the scales; in float64 these latents are reconstructed."
                if wide <= TOLERATED
                else None,
                fix=f"Bound the log-scales: {bound_scales(m.flow)}. Or sample in float64 and "
                "inspect the largest of many samples.",
            )
            return


def _not_a_number(result: Tails) -> Symptom:
    """Returns the symptom of the first distance at which log_prob or a point is not a number."""
    number = int(result.undefined.any(1).int().argmax())
    share, sigma = result.undefined[number].double().mean().item(), result.sigmas[number]
    at = f"latents {sigma} sigma beyond the samples" if sigma else "samples"
    return Symptom(
        f"At {100 * share:.0f} % of the {at} of the base, the decoded point or its log_prob is "
        "not a number.",
        {"share": share, "sigma": sigma},
        layer=result.faults[number],
        severity="warning" if sigma else "error",
        cause="A function is not defined there, such as a logarithm or a root of a negative "
        "number: a little outside the data, the density is missing.",
        fix="Clamp the argument of the function, or use a map that is defined everywhere.",
    )


def _decode(layers: Sequence[Layer], z: Tensor) -> Tensor:
    for layer in reversed(layers):
        z = layer.decode(z)[0]
    return z


def _encode(layers: Sequence[Layer], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer.encode(x)[0]
    return x
