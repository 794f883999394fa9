"""KF201, KF202, KF303: is the flow its own inverse, from data, from latents and far out?"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kappaflow.bijections import CircleToLine
from kappaflow.conditioning import Profile, layers_of
from kappaflow.conditioning.points import Layer
from kappaflow.conditioning.round_trip import (
    distance,
    first_not_finite,
    reconstruction_errors,
    states_of,
)
from kappaflow.diagnosis.advice import bound_scales, in_float64
from kappaflow.diagnosis.check import Symptom, check, measurement, table
from kappaflow.diagnosis.checks.log_dets import TOLERATED
from kappaflow.diagnosis.checks.log_prob import log_prob_not_finite
from kappaflow.diagnosis.checks.samples import samples_not_finite
from kappaflow.diagnosis.measurements import Measurements
from kappaflow.diagnosis.result import Columns
from kappaflow.diagnosis.tensors import ROUNDED, count_not_finite, largest, lengths, quantiles
from kappaflow.finding import Evidence
from kappaflow.flows import Flow

EXPLAINED = 100  # multiple of the predicted rounding error that rounding still explains
FEW = 20  # the same at one point, for small errors; healthy flows reach 5
SIGMAS = (0, 2, 4, 6, 8, 10)
DEFINED = 4  # sigmas up to which a density should be a number
NEAR, MANY = 2, 0.1  # distance in sigmas (a few samples in a hundred are there), and share lost
SEARCHED = 1e-5  # relative error that a careful search for an inverse leaves
SUSPECT = 8e-5  # relative error that no search leaves: those of zuko's NAF leave up to 6e-5
VISIBLE = 1e-3  # relative error from which the doctor looks for the layer
CHECK_LAYER = "Call the layer alone at such values (kappaflow.testing.check_bijection)."


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
    trip = Reconstruction(m)
    yield from trip.not_finite()
    values = (m.log_prob, m.samples, m.data_errors, m.latent_errors)
    if m.profile.status == "not finite" and not any(count_not_finite(v)[0] for v in values):
        yield _singular_values_not_finite(m.profile)
    yield from trip.too_large()


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
    trip = Reconstruction(m, from_latent=True)
    yield from trip.not_finite()
    yield from trip.too_large()


class Reconstruction:
    """The error of a round trip of the points of a flow, or of latents, as a share of each."""

    def __init__(self, m: Measurements, *, from_latent: bool = False) -> None:
        self.m, self.from_latent = m, from_latent
        self.start = m.latents if from_latent else m.standardized
        self.errors = m.latent_errors if from_latent else m.data_errors
        self.words = "latent to data to latent" if from_latent else "data to latent to data"

    def message(self, worst: float) -> str:
        return (
            f"The reconstruction error ({self.words}) reaches {worst:.1e} of the length of a point"
        )

    def worst_in_float64(self) -> float:
        """Returns the largest error of a float64 copy; nan without one."""
        return _worst_in_float64(self.m, self.start, from_latent=self.from_latent)

    def worst_layer(self) -> str:
        """Returns the single layer with the largest reconstruction error."""
        missed = self.m.profile.layer_round_trip.nan_to_num(0, posinf=0)
        return self.m.profile.layers[int(missed.amax(dim=1).argmax())]

    def not_finite(self) -> Iterator[Symptom]:
        """Yields a symptom for an error that is not finite where log_prob and samples are."""
        bad, points = count_not_finite(self.errors)
        if bad and not log_prob_not_finite(self.m) and not samples_not_finite(self.m):
            yield Symptom(
                f"The reconstruction ({self.words}) is not finite at {bad} of the {points} "
                "points.",
                {"finite_share": 1 - bad / points},
                layer=first_not_finite(self.m.layers, self.start, from_latent=self.from_latent),
                cause="A layer is not defined at values that the other direction produces.",
                fix=CHECK_LAYER,
            )

    def too_large(self) -> Iterator[Symptom]:
        """Yields a symptom for a finite error above a thousandth of |x|, or not by rounding."""
        m, profile = self.m, self.m.profile
        worst = largest(self.errors)
        if not worst > TOLERATED:
            yield from self.unexplained()
            return
        predicted = largest(profile.predicted_round_trip / lengths(m.standardized))
        evidence: Evidence = {"worst": worst, "predicted": predicted, "tolerance": TOLERATED}
        message, layer, fix = f"{self.message(worst)}.", self.worst_layer(), None
        cause = f"A layer is not its own inverse: rounding explains only {predicted:.1e}."
        # A prediction of 1 or more means that no digit is left; it is no longer a bound.
        if math.isfinite(predicted) and (worst <= EXPLAINED * predicted or predicted >= 1):
            layer = profile.layers[profile.worst_layer]
            condition_number = largest(profile.condition_number[-1])
            cause = f"A condition number of {condition_number:.1e} amplifies rounding."
            fix = (
                f"Score and sample in float64: {in_float64(m.flow)}. Or train with bounded "
                f"log-scales: {bound_scales(m.flow)}."
            )
        elif (in_copy := self.worst_in_float64()) <= ROUNDED * worst:
            evidence["worst_in_float64"] = in_copy
            message = f"{self.message(worst)}, and {in_copy:.1e} in float64."
            cause = "The formulas are correct, but lose digits: large numbers cancel."
            fix = f"Score and sample in float64: {in_float64(m.flow)}. Or rewrite the layer."
        yield Symptom(message, evidence, layer=layer, cause=cause, fix=fix)

    def unexplained(self) -> Iterator[Symptom]:
        """Yields a symptom for small errors that the rounding of no layer explains.

        Each layer rounds its output, also where shifts make it large, and the inverse amplifies
        that.
        """
        m, profile = self.m, self.m.profile
        states = states_of(m.layers, m.standardized)[0][1:]
        sizes = torch.stack([lengths(state) for state in states]) / lengths(m.standardized)
        amplified = torch.maximum(profile.condition_number, sizes / profile.sigma_min).amax(0)
        predicted = profile.eps * len(states) ** 0.5 * amplified
        # The condition number at the points of the latents is not known.
        limit = EXPLAINED * predicted.max() if self.from_latent else FEW * predicted
        worst = max(self.errors[self.errors > limit].tolist(), default=0.0)
        if not worst > SEARCHED:
            return
        rounded = self.worst_in_float64() <= ROUNDED * worst
        explained = largest(predicted)
        yield Symptom(
            f"{self.message(worst)}, where rounding explains {explained:.1e}.",
            {"worst": worst, "predicted": explained, "tolerance": TOLERATED},
            layer=self.worst_layer(),
            severity="warning" if worst > SUSPECT and not rounded else "note",
            cause="A layer is not quite its own inverse, computes in half precision, or is "
            "inverted by a search or a solver with a tolerance.",
            fix="Check the layer alone (kappaflow.testing.check_bijection), or lower the "
            "tolerance of the search or the solver.",
        )


def _singular_values_not_finite(profile: Profile) -> Symptom:
    """Returns the KF201 symptom for finite values with derivatives that are not finite."""
    names = ("layer_sigma_max", "layer_sigma_min", "sigma_max", "sigma_min")
    values = torch.stack([getattr(profile, name) for name in names])  # (4, layers, points)
    usable = (torch.isfinite(values) & (values > 0)).all(0)
    bad, points = int((~usable.all(0)).sum()), usable.shape[1]
    return Symptom(
        f"The singular values of the Jacobian are not finite and positive at {bad} of the "
        f"{points} points.",
        {"finite_share": 1 - bad / points},
        layer=profile.layers[int((~usable).any(1).int().argmax())],
        cause="A derivative is zero, infinite or not a number where the values are finite.",
        fix=CHECK_LAYER,
    )


def _worst_in_float64(m: Measurements, start: Tensor, *, from_latent: bool) -> float:
    """Returns the largest reconstruction error of a float64 copy, as a share; nan without one."""

    def errors(flow: Flow, start: Tensor, context: Tensor | None) -> Tensor:
        layers = layers_of(flow.core, context)
        states = states_of(layers, start, decode=from_latent)[0]
        return reconstruction_errors(layers, states, from_latent=from_latent)[0] / lengths(start)

    result = m.in_float64(errors, start, m.context)
    return math.nan if result is None else result.nan_to_num(math.inf).max().item()


class FarOut(NamedTuple):
    """Latents some standard deviations beyond the samples of the base, and the decoded points.

    Samples of a standard normal in n dimensions are at a distance of about sqrt(n), give or
    take 1.
    """

    sigma: int
    latent_errors: Tensor  # relative errors of the latents, (n,); nan if not finite
    data_errors: Tensor  # of the decoded points
    inside: Tensor  # whether each latent is in the support of the base
    undefined: Tensor  # whether the decoded point or its log_prob is not a number
    fault: str | None  # the first layer that produces a value that is not finite

    @property
    def lost(self) -> float:
        """The share of the latents in the support of the base that are not reconstructed."""
        lost = ~(self.latent_errors <= TOLERATED)[self.inside]
        return lost.double().mean().item() if len(lost) else 0.0


@measurement("latents far out")
def tails(m: Measurements) -> list[FarOut]:
    """Moves samples of the base away from their mean, decodes them and encodes them again."""
    layers, to_line = m.layers, None
    if layers and isinstance(layers[-1].bijection, CircleToLine):
        # All latents beyond some 5 sigma are next to the seam: compare points on the circle.
        layers, to_line = layers[:-1], layers[-1].bijection
    return [_far_out(m, sigma, layers, to_line) for sigma in SIGMAS]


def _far_out(
    m: Measurements, sigma: int, layers: Sequence[Layer], to_line: CircleToLine | None
) -> FarOut:
    z = _moved_out(m, sigma)
    inside = torch.isfinite(m.flow.base.log_prob(z, m.context))
    z = z if to_line is None else to_line.inverse(z)[0]
    x = states_of(layers, z, decode=True)[0][-1]
    again = states_of(layers, x)[0][-1]
    back = states_of(layers, again, decode=True)[0][-1]
    if to_line is not None:
        again, back = to_line.nearest_turn(again, z), to_line.nearest_turn(back, x)
    latent_errors = distance(again, z) / lengths(z)
    latent, log_det = m.flow.core(x, m.context)
    log_prob = m.flow.base.log_prob(latent, m.context) + log_det
    undefined = inside & (x.flatten(1).sum(1) + log_prob).isnan()
    is_fine = not undefined.any() and bool((latent_errors <= VISIBLE).all())
    fault = None if is_fine else first_not_finite(layers, z, from_latent=True)
    return FarOut(sigma, latent_errors, distance(back, x) / lengths(x), inside, undefined, fault)


def _moved_out(m: Measurements, sigma: int) -> Tensor:
    """Returns the latents after a move by some standard deviations away from their mean."""
    z = m.latents
    center = z.mean(0) if len(z) > 1 else torch.zeros_like(z[0])
    return center + (z - center) * (1 + sigma / z[0].numel() ** 0.5)


@table("far_out")
def far_out(m: Measurements) -> Columns:
    """Returns quantiles of the errors at each distance."""
    return {
        "sigma": list(SIGMAS),
        **quantiles(torch.stack([tail.latent_errors for tail in tails(m)]), "latent_"),
        **quantiles(torch.stack([tail.data_errors for tail in tails(m)]), "data_"),
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
        def encode(x):
            return x.clamp(-5, 5), torch.zeros(len(x))


        flow = (encode, lambda z: (z, torch.zeros(len(z))))
        x = torch.rand(64, 2)
    """
    if log_prob_not_finite(m) or samples_not_finite(m):
        return  # these explain more
    others = (*data_not_reconstructed(m), *latents_not_reconstructed(m))
    if any(finding.severity == "error" for finding in others):
        return  # so do these
    result = tails(m)
    undefined = (tail for tail in result if tail.sigma <= DEFINED and tail.undefined.any())
    if first := next(undefined, None):
        share = first.undefined.double().mean().item()
        at = f"latents {first.sigma} sigma beyond the samples" if first.sigma else "samples"
        yield Symptom(
            f"At {100 * share:.0f} % of the {at} of the base, the decoded point or its log_prob "
            "is not a number.",
            {"share": share, "sigma": first.sigma},
            layer=first.fault,
            severity="warning" if first.sigma else "error",
            cause="A function is not defined there, such as a logarithm or a root of a negative "
            "number: a little outside the data, the density is missing.",
            fix="Clamp the argument of the function, or use a map that is defined everywhere.",
        )
        return
    tail = next((tail for tail in result if tail.lost), None)
    if tail is None or result[0].lost:
        return  # KF102 explains what is lost at the samples
    in_copy = _worst_in_float64(m, _moved_out(m, tail.sigma), from_latent=True)
    yield Symptom(
        f"{100 * tail.lost:.0f} % of the latents {tail.sigma} sigma beyond the samples of the "
        "base are not reconstructed.",
        {f"lost_at_{tail.sigma}_sigma": tail.lost for tail in result},
        layer=tail.fault,
        severity="warning" if tail.sigma <= NEAR and tail.lost > MANY else None,
        cause="Rounding grows with the scales; in float64 these latents are reconstructed."
        if in_copy <= TOLERATED
        else None,
        fix=f"Bound the log-scales: {bound_scales(m.flow)}. Or sample in float64 and "
        "inspect the largest of many samples.",
    )
