"""`check_base`: the laws of a base distribution, one function per law."""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor

from kappaflow.bijection import Chain, log_det_dtype
from kappaflow.errors import ArgumentError
from kappaflow.flows import Base, Flow
from kappaflow.flows.base import checked_base, log_prob_of_base, sample_of_base
from kappaflow.testing.bijections import check_files, reached
from kappaflow.testing.contract import SAFETY, fingerprint, jittered, require, require_close

SAMPLES, CENTERS = 16_384, 256  # to compare samples with the density
WIDTHS = (1.0, 0.25, 0.0625)  # of the kernels around samples, relative to the usual one
MOST_FEATURES = 32  # kernels miss the density in more dimensions
LEAST_SHARE = 0.02  # of the samples that count as independent, for a test of the density
ERRORS = 6.0  # tolerated standard errors


def check_base(base: Base, context: Tensor | None = None) -> None:
    """Raises an error unless a base distribution obeys every law of `Base`.

    Checks shapes, dtypes, independence of rows, hidden state, the generator, gradients, saving,
    that the density integrates to 1, and that samples follow it.

    Args:
        base: The base. It is copied and stays unchanged.
        context: At least two context rows (B, C), if the base is conditional.

    Raises:
        ContractError: A law is broken, or the density has too many features for a test.
        ArgumentError: The base lacks an attribute, a method or an argument, or needs a context.

    Note:
        The density is tested at the first two contexts, by importance sampling with 16,384 samples
        and six standard errors: it detects a deviation of samples that is wrong by 10 %, but not
        by 1 %. Up to 16 features can be tested, with heavy tails about 4. Saving is not checked if
        the class is not registered.

    Example:
        >>> import kappaflow as kf
        >>> kf.testing.check_base(kf.flows.StudentT(2, degrees=4.0))
    """
    width = checked_base(base, 0).context_features
    if width and (context is None or len(context) < 2 or context.shape[1:] != (width,)):
        got = "none" if context is None else tuple(context.shape)
        raise ArgumentError(
            f"'context' should have shape (B, {width}) with two rows or more, got {got}: this "
            "base is conditional."
        )
    flow = Flow(copy.deepcopy(base), Chain([])).eval()
    rows = context if width else None
    before = fingerprint(flow)
    check_forms(flow, rows)
    check_rows(flow, rows)
    check_seed(lambda seed: draw(flow, 5, rows, seed=seed))
    require(fingerprint(flow) == before, "log_prob and sample should change no state, but they do")
    check_parameters(flow, rows)
    for row in [None] if rows is None else rows[:2, None]:
        check_samples_against_density(flow, row)
    check_files(flow, draw(flow, 4, rows), expanded(rows, 4))


def draw(
    flow: Flow, n: int, context: Tensor | None, *, seed: int = 0, dtype: torch.dtype | None = None
) -> Tensor:
    """Returns n samples of the base, for context rows that take turns."""
    return sample_of_base(
        flow.base,
        n,
        context=expanded(context, n),
        dtype=dtype or flow.dtype,
        device=flow.device,
        generator=torch.Generator().manual_seed(seed),
    )


def expanded(context: Tensor | None, n: int) -> Tensor | None:
    """Returns n context rows, which take turns, or None for no context."""
    return (
        None if context is None else context[torch.arange(n, device=context.device) % len(context)]
    )


def check_forms(flow: Flow, context: Tensor | None) -> None:
    """Checks shapes and dtypes, for no rows too, and the log_prob in the dtype of z or wider."""
    for dtype in (flow.dtype, torch.float64):
        for n in (0, 3):
            draw(flow, n, context, dtype=dtype)
    z, rows = draw(flow, 3, context), expanded(context, 3)
    log_prob, least = log_prob_of_base(flow.base, z, rows), log_det_dtype(flow.dtype)
    require(
        torch.promote_types(log_prob.dtype, least) == log_prob.dtype,
        f"the dtype of log_prob should be {least} or wider, got {log_prob.dtype}",
    )
    require(torch.isfinite(log_prob).all(), "log_prob of samples should be finite, but is not")


def check_rows(flow: Flow, context: Tensor | None) -> None:
    """Checks that the log_prob of a row does not depend on the other rows."""
    z, rows = draw(flow, 8, context), expanded(context, 8)
    with torch.no_grad():
        together = flow.base.log_prob(z, rows)
        alone = [
            flow.base.log_prob(z[i : i + 1], None if rows is None else rows[i : i + 1])
            for i in range(len(z))
        ]
    tolerance = SAFETY * torch.finfo(flow.dtype).eps * (z[0].numel() + together.abs())
    law = "log_prob of a row should not depend on the other rows"
    require_close(law, torch.cat(alone), together, tolerance)


def check_seed(sample: Callable[[int], Tensor]) -> Tensor:
    """Returns samples after checking that the seed of a generator determines them."""
    state = torch.random.get_rng_state()
    first, same, other = map(sample, (1, 1, 2))
    require(
        torch.equal(first, same), "sample should repeat with the generator's seed, but does not"
    )
    require(
        not torch.equal(first, other), "sample should depend on the generator's seed, but does not"
    )
    require(
        torch.equal(state, torch.random.get_rng_state()),
        "sample with a generator should leave torch's global one unchanged, but does not",
    )
    return first


def check_parameters(flow: Flow, context: Tensor | None) -> None:
    """Checks that gradients reach every parameter, of samples too if `has_rsample` is set."""
    names = {key for key, value in flow.named_parameters() if value.requires_grad}
    if not names:
        return
    moved = jittered(copy.deepcopy(flow))
    n = 64 if context is None else 16 * len(context)
    z, rows = draw(moved, n, context), expanded(context, n)
    outputs = {"log_prob": log_prob_of_base(moved.base, z.detach(), rows)}
    if moved.base.has_rsample:
        outputs["samples"] = z.square().flatten(1).sum(1)
    for what, values in outputs.items():
        missing = names - reached(moved, values.sum()) if values.requires_grad else names
        require(
            not missing,
            f"gradients of {what} should reach every parameter, but none reach {sorted(missing)}"
            + (": set has_rsample = False" if what == "samples" else ""),
        )


@torch.no_grad()
def check_samples_against_density(flow: Flow, context: Tensor | None) -> None:
    """Checks that the density integrates to 1 and that samples follow it, by importance sampling.

    The proposal is a sum of kernels around some samples: normal ones of several widths, and a
    Cauchy one for the tails. Its weights estimate the integral, and the means of bounded functions
    of the coordinates, which are compared with those of other samples.
    """
    count = math.prod(flow.base.event_shape)
    require(
        count <= MOST_FEATURES,
        f"the density is not testable with {count:,} features: use a base of at most 16",
    )
    z = draw(flow, CENTERS + SAMPLES, context, seed=3).double().flatten(1)
    low, middle, high = z.quantile(z.new_tensor([0.16, 0.5, 0.84]), dim=0)
    scale = 0.5 * (high - low)
    require((scale > 0).all(), "samples should vary in each coordinate, but one is constant")
    u = (z - middle) / scale
    centers, own = u.split([CENTERS, SAMPLES])
    proposals, log_q = kernels(centers)
    points = (middle + scale * proposals).to(flow.dtype)
    rows = None if context is None else context.expand(SAMPLES, -1)
    log_p = log_prob_of_base(flow.base, points.reshape(-1, *flow.base.event_shape), rows).double()
    require(
        not (log_p.isnan() | log_p.isposinf()).any(),
        "log_prob should be a number or -inf everywhere, got nan or inf",
    )
    weights = (log_p + scale.log().sum() - log_q).exp()
    share = (weights.mean() ** 2 / weights.square().mean()).nan_to_num().item()
    require(
        share >= LEAST_SHARE,
        f"the density is not testable with {count} features: the samples that estimate its "
        f"integral are worth {share:.2g} of their number and should be {LEAST_SHARE:g}. Use a "
        "base of fewer features, or check that samples lie where the density is",
    )
    off, error = weights.mean().item() - 1, ERRORS * deviation(weights).item()
    require(
        abs(off) <= error,
        f"exp(log_prob) should integrate to 1, got {1 + off:.4g} +- {error:.2g}",
    )
    by_samples, by_weights = features(own), weights[:, None] * features(proposals)
    differences = (by_samples.mean(0) - by_weights.mean(0)).abs()
    allowed = ERRORS * torch.hypot(deviation(by_samples), deviation(by_weights))
    worst = int((differences / allowed).argmax())
    require(
        bool((differences <= allowed).all()),
        f"samples should follow log_prob: the mean of a bounded function of coordinate "
        f"{worst % count} is off by {differences[worst]:.3g}, where {allowed[worst]:.3g} is "
        "allowed",
    )


def features(u: Tensor) -> Tensor:
    """Returns bounded functions of each coordinate and of it with the next one, (N, 3 D)."""
    bounded = u.tanh()
    return torch.cat((bounded, bounded.square(), bounded * bounded.roll(-1, 1)), 1)


def deviation(values: Tensor) -> Tensor:
    """Returns the standard error of the mean over rows."""
    return values.std(0) / math.sqrt(len(values))


def kernels(centers: Tensor) -> tuple[Tensor, Tensor]:
    """Returns draws of a sum of kernels around centers (K, D), and the log-density of the sum."""
    generator = torch.Generator().manual_seed(4)
    count, n = centers.shape
    usual = count ** (-1 / (n + 4))
    noise = torch.randn(SAMPLES, n, generator=generator, dtype=torch.float64)
    radii = torch.randn(SAMPLES, 1, generator=generator, dtype=torch.float64).abs()
    widths = usual * torch.tensor([*WIDTHS, WIDTHS[0]], dtype=torch.float64)
    kind = torch.arange(SAMPLES) % len(widths)
    is_cauchy = (kind == len(WIDTHS))[:, None]
    steps = (widths[kind][:, None] * noise / torch.where(is_cauchy, radii, 1.0)).to(centers)
    which = torch.randint(count, (SAMPLES,), generator=generator)
    draws = centers[which.to(centers.device)] + steps
    squares = torch.cdist(draws, centers).square()
    logs = [
        -0.5 * squares / width**2 - n * math.log(width * math.sqrt(2 * math.pi))
        for width in widths[:-1].tolist()
    ]
    constant = math.lgamma((1 + n) / 2) - math.lgamma(0.5) - n * math.log(usual)
    cauchy = constant - 0.5 * n * math.log(math.pi)
    logs.append(cauchy - 0.5 * (1 + n) * (squares / usual**2).log1p())
    return draws, torch.cat(logs, 1).logsumexp(1) - math.log(count * len(logs))
