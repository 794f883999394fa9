"""KF102, KF206, KF208, KF704: the samples of a flow, and the log_prob returned with them."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kappaflow.conditioning.round_trip import latent_points
from kappaflow.conditioning.spectrum import DENSE_UP_TO
from kappaflow.diagnosis.advice import bound_scales, in_float64
from kappaflow.diagnosis.check import Symptom, check, measurement, table
from kappaflow.diagnosis.checks.log_dets import TOLERATED, log_det_wrong
from kappaflow.diagnosis.checks.log_prob import (
    NATS,
    ROUNDINGS,
    compare_densities,
    effect_of_rounding,
    log_prob_not_finite,
    log_prob_random,
)
from kappaflow.diagnosis.measurements import Measurements
from kappaflow.diagnosis.not_finite import explain
from kappaflow.diagnosis.result import Columns
from kappaflow.diagnosis.tensors import columns, count_not_finite, effective_rows, finite_rows
from kappaflow.flows import Flow
from kappaflow.foreign import Wrapped

SMALL = 64  # dimensions up to which most samples are compared
DIRECTIONS = 4
SEEDS = (0x5851F42D4C957F2D, 0x2545F4914F6CDD1D)  # far apart: streams of small seeds are alike
DOUBTFUL = 1e-3  # significance below which the comparison is repeated with other samples
RARE, FEW = 1e-3, 2  # share and number of samples whose log_prob may be lost to rounding
UNLIKELY = 1e-7  # significance below which the samples are reported as wrong


class SampledLogProbs(NamedTuple):
    """Log-densities of samples, (n,), in nats."""

    layers: Tensor  # through the layers
    returned: Tensor  # as returned with the samples
    rounding: Tensor  # change of `layers` when the samples are rounded differently


@measurement("log_prob returned with samples")
def sampled_log_probs(m: Measurements) -> SampledLogProbs | None:
    """Samples with log_prob. Returns None if the flow cannot return both."""
    flow, context = m.flow, m.context
    if flow.augment is not None:
        z = m.sample_latents
        x, log_det = flow.bijection.inverse(z, context)
        returned = flow.base.log_prob(z, context) - log_det
    else:
        n = len(m.points)
        if context is None and not isinstance(flow, Wrapped):
            n = n if math.prod(flow.joint_shape) > SMALL else m.effort.samples
        x, returned = _sample(flow, n, context, 1, with_log_prob=True)
        if x is None or returned is None:
            return None
    layers = flow.augmented_log_prob(x, context)
    return SampledLogProbs(layers, returned, effect_of_rounding(flow, x, context, layers))


@table("sample_densities")
def sample_densities(m: Measurements) -> Columns:
    """Returns log_prob at samples, through the layers and as returned with the samples."""
    result = sampled_log_probs(m)
    return {} if result is None else columns(layers=result.layers, with_samples=result.returned)


class SampleDistribution(NamedTuple):
    """The latents of the flow's own samples, compared with samples of its base."""

    number: int
    distance: float  # largest Kolmogorov-Smirnov distance of log_prob and of random projections
    significance: float  # probability of it for equal distributions, times the comparisons
    repeated: float  # largest difference between two sets of samples with the same seed


@measurement("the distribution of samples")
def sample_distribution(m: Measurements) -> SampleDistribution | None:
    """Compares the latents of samples with samples of the base, without histograms.

    Returns None for a flow that cannot sample, and for an augmented flow, because its samples lack
    the augmented features that its layers need.
    """
    flow, context = m.flow, m.context
    large = flow.base.sample(1, context=None if context is None else context[:1]).numel()
    n = m.effort.samples // (1 if large <= SMALL else 8 if large <= DENSE_UP_TO else 64)
    if context is not None:
        context = context[torch.arange(n, device=context.device) % len(context)]
    x, again = (_sample(flow, n, context, SEEDS[0])[0] for _ in range(2))
    if x is None or again is None:
        return None
    distance, significance = _distance_to_base(flow, x, context, SEEDS[0])
    if significance < DOUBTFUL:  # a chance result does not repeat with other samples
        other = _sample(flow, n, context, SEEDS[1])[0]
        second = (0.0, 1.0) if other is None else _distance_to_base(flow, other, context, SEEDS[1])
        distance, significance = min(distance, second[0]), max(significance, second[1])
    off = (x - again).abs().masked_fill((x == again) | (x.isnan() & again.isnan()), 0)
    return SampleDistribution(n, distance, significance, off.nan_to_num(torch.inf).max().item())


@check(
    "KF102",
    "samples are not finite",
    cause="The inverse divides by scales that became too small.",
    fix="Bound the log-scales and train again.",
)
def samples_not_finite(m: Measurements) -> Iterator[Symptom]:
    """Some samples of the flow are nan or infinite.

    Example:
        scales = kf.bijections.ElementwiseAffine(2, log_scale=[-100.0, 0.0])
        flow = kf.Flow(kf.StandardNormal(2), scales)
        x = torch.randn(64, 2)
    """
    bad, samples = count_not_finite(m.samples)
    if bad:
        first = int(finite_rows(m.samples).int().argmin())
        context = None if m.context is None else m.context[first : first + 1]
        why = explain(m, m.sample_latents[first : first + 1], context, from_latent=True)
        yield Symptom(
            f"{bad} of {samples} samples are not finite.",
            {"finite_share": 1 - bad / samples},
            layer=why.layer,
            cause=why.cause,
            fix=why.fix or f"Bound the log-scales and train again: {bound_scales(m.flow)}.",
        )


@check(
    "KF206",
    "the log_prob returned with samples is wrong",
    cause="The log_det of the inverse is added where it should be subtracted, or left out.",
    fix="Until the sampling path is fixed, score samples again: "
    "x = flow.sample(n); log_prob = flow.log_prob(x).",
)
def sampled_log_prob_wrong(m: Measurements) -> Iterator[Symptom]:
    """torchflows 1.2.1 has this error in `sample(return_log_prob=True)`. It is a warning if more
    than one sample in a thousand is so close to a bound or to the cut of a circle that the float
    type cannot tell it from its neighbors, whose density differs.

    Example:
        class Sampling(kf.Flow):
            def sample_and_log_prob(self, n, context=None, *, generator=None):
                x, log_prob = super().sample_and_log_prob(n, context, generator=generator)
                return x, log_prob - 2 * self.bijection(x, context)[1]


        scales = kf.bijections.ElementwiseAffine(2, log_scale=[1.0, 0.0])
        flow = Sampling(kf.StandardNormal(2), scales)
        x = torch.randn(64, 2)
    """
    result = sampled_log_probs(m)
    if result is None or log_prob_random(m) or log_det_wrong(m):
        return  # these explain more
    missed = m.latent_errors.max().item()
    if not missed <= TOLERATED:
        return  # KF202: the latent of a sample is not the one it was decoded from
    few = slice(len(m.points))  # rare samples, far out, are left to KF303
    worst, tolerance = compare_densities(
        m, result.returned[few], result.layers[few], result.rounding[few]
    )
    tolerance += ROUNDINGS * missed * math.prod(m.flow.joint_shape)
    if worst > tolerance:
        yield Symptom(
            f"The log_prob that {_owner(m)} returns with its samples differs from log_prob at "
            f"these samples by up to {worst:.2g} nats.",
            {"worst_nats": worst, "tolerance_nats": tolerance},
        )
        return
    away = (result.returned - result.layers).abs().nan_to_num(math.inf)
    lost = (away > tolerance) & ~(ROUNDINGS * result.rounding <= NATS)
    if int(lost.sum()) <= max(FEW, RARE * len(lost)):
        return
    share, worst = lost.double().mean().item(), away[lost].max().item()
    dtype = str(m.flow.dtype).removeprefix("torch.")
    yield Symptom(
        f"log_prob at {100 * share:.2g} % of the samples differs from the log_prob returned with "
        f"them by more than {tolerance:.2g} nats, and by up to {worst:.2g} nats.",
        {"share": share, "worst_nats": worst},
        severity="warning",
        cause=f"These samples are next to a bound, or to the cut of a circle, where {dtype} "
        "cannot tell neighbors of different density apart.",
        fix=f"Score and sample in float64: {in_float64(m.flow)}. For a circle use "
        "kappaflow.spline, which does not cut it.",
    )


@check(
    "KF208",
    "samples do not follow the density",
    cause="sample skips a layer or applies layers in the wrong order, scales the base, or uses "
    "the context of another row.",
    fix="Sample with base.sample, followed by the inverse of each layer in reverse order.",
)
def samples_do_not_follow(m: Measurements) -> Iterator[Symptom]:
    """Encoded samples of a correct flow follow the base. The doctor compares the distributions of
    the base's log_prob and, without a context, of four projections (Kolmogorov-Smirnov) at a
    significance of one in ten million.

    Example:
        class Colder:
            def encode(self, x):
                return 2 * x, torch.full((len(x),), 1.3863)

            def decode(self, z):
                return z / 2, torch.full((len(z),), -1.3863)

            def sample(self, n):
                return 0.7 * torch.randn(n, 2) / 2


        flow = Colder()
        x = torch.randn(64, 2)
    """
    result = sample_distribution(m)
    if result is None or not result.significance <= UNLIKELY:
        return
    if log_prob_not_finite(m) or samples_not_finite(m):
        return
    if not m.latent_errors.max().item() <= TOLERATED:
        return  # KF202: the latent of a sample is not the one it was decoded from
    number, distance, significance, _ = result
    yield Symptom(
        f"The latents of {number} samples of {_owner(m)} do not follow the base: the "
        f"Kolmogorov-Smirnov distance is {distance:.2f}, which equal distributions reach with a "
        f"probability of {significance:.0e}.",
        {"kolmogorov_smirnov": distance, "significance": significance, "samples": number},
    )


@check(
    "KF704",
    "samples ignore torch's random seed",
    severity="warning",
    cause="They come from numpy, from a private generator, or from another device.",
    fix="Sample with torch's generator, or with one that the caller passes.",
)
def samples_not_repeatable(m: Measurements) -> Iterator[Symptom]:
    """`torch.manual_seed` does not reproduce the samples.

    Example:
        import numpy as np


        class Numpy:
            def encode(self, x):
                return x, torch.zeros(len(x))

            def decode(self, z):
                return z, torch.zeros(len(z))

            def sample(self, n):
                return torch.from_numpy(np.random.standard_normal((n, 2))).float()


        flow = Numpy()
        x = torch.randn(64, 2)
    """
    result = sample_distribution(m)
    if result is not None and result.repeated:
        is_own = not isinstance(m.flow, Wrapped)
        yield Symptom(
            f"Samples of {_owner(m)} differ although torch's generator has the same seed.",
            {"worst": result.repeated},
            cause="The base does not use the generator that its method sample gets."
            if is_own
            else None,
            fix="Pass generator=generator to each function that makes random numbers."
            if is_own
            else None,
        )


def _owner(m: Measurements) -> str:
    return m.flow.library if isinstance(m.flow, Wrapped) else "the flow"


def _distance_to_base(
    flow: Flow, x: Tensor, context: Tensor | None, seed: int
) -> tuple[float, float]:
    """Returns the distance of the latents of samples from the base, and its significance."""
    z = flow.bijection(x, context)[0]
    generator = torch.Generator().manual_seed(seed + 1)
    base = latent_points(flow, len(x), context, torch.Generator().manual_seed(seed >> 1))
    pairs = [(flow.base.log_prob(z, context), flow.base.log_prob(base, context))]
    if context is None:  # projections of rows with different contexts mix their distributions
        directions = torch.randn(
            DIRECTIONS, z[0].numel(), generator=generator, dtype=torch.float64
        )
        latents, based = z.flatten(1).cpu().double(), base.flatten(1).cpu().double()
        pairs += [(latents @ direction, based @ direction) for direction in directions]
    results = [kolmogorov_smirnov(a, b) for a, b in pairs]
    significance = min(1.0, len(results) * min(p_value for _, p_value in results))
    return max(distance for distance, _ in results), significance


def _sample(
    flow: Flow, n: int, context: Tensor | None, seed: int, *, with_log_prob: bool = False
) -> tuple[Tensor | None, Tensor | None]:
    """Returns samples by the flow's own method, in the dtype of the flow, and their log_prob."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(flow, Wrapped):
        x, log_prob = flow.own_sample(n, context, generator=generator) or (None, None)
        return None if x is None else x.to(flow.dtype), log_prob
    if flow.augment is not None:
        return None, None
    n = n if context is None else 1  # for each context
    if with_log_prob:
        results = flow.sample_and_log_prob(n, context, generator=generator)
    else:
        results = (flow.sample(n, context, generator=generator),)
    x, log_prob = (*(result if context is None else result[0] for result in results), None)[:2]
    return x, log_prob


def kolmogorov_smirnov(a: Tensor, b: Tensor, shares: Tensor | None = None) -> tuple[float, float]:
    """Returns the distance of two samples, and its p-value; `shares` are those of the rows a."""
    from scipy.stats import ks_2samp, kstwobign  # take half as long to load as torch

    a, b = a.double().cpu(), b.double().cpu()
    if shares is None:
        result: Any = ks_2samp(a.numpy(), b.numpy())
        return float(result.statistic), float(result.pvalue)
    order = a.argsort()
    below = torch.cat((shares.new_zeros(1), shares[order].cumsum(0)))
    at = torch.cat((a, b))
    of_a = below[torch.searchsorted(a[order], at, right=True)]
    of_b = torch.searchsorted(b.sort().values, at, right=True) / len(b)
    distance = (of_a - of_b).abs().max().item()
    n, m = effective_rows(shares), len(b)
    return distance, float(kstwobign.sf(distance * math.sqrt(n * m / (n + m))))
