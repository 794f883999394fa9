"""`check_flow`: the laws of a flow, in addition to those of its bijection."""

import copy
import math

import torch
from torch import Tensor

from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow, StandardNormal
from kappaflow.testing.bases import check_base, check_seed, draw
from kappaflow.testing.bijections import check_bijection, check_files, reached
from kappaflow.testing.contract import (
    SAFETY,
    ReferenceJacobian,
    gradient,
    jittered,
    norm,
    reference_jacobian,
    require,
    require_close,
)

FAR = 8.0  # standard deviations within which latents have finite points and densities
SAMPLES = 2000  # to test whether their latents are standard normal


def check_flow(flow: Flow, x: Tensor, context: Tensor | None = None) -> None:
    """Raises an error unless a flow obeys its laws and its bijection those of `check_bijection`.

    Checks that log_prob is that of the base plus log_det, that samples come with their density,
    have latents that follow the base and the documented shapes, repeat with the generator's seed,
    and carry gradients in `rsample` only. Latents up to 8 standard deviations from 0 decode, in
    float32, to finite points with a finite log_prob. A base other than the standard normal has to
    obey the laws of `check_base`.

    Args:
        flow: The flow. It is copied and stays unchanged.
        x: At least two rows (B, *event), in the flow's dtype.
        context: Context rows (B, C) for a conditional flow.

    Raises:
        ContractError: A law is broken, or the rows are too ill-conditioned for a test.
        ArgumentError: The arguments are not a flow and a batch.

    Note:
        The test of the latents uses 2000 samples and six standard errors: it detects a
        temperature of 0.9, but not one of 0.99.

    Example:
        >>> import kappaflow as kf
        >>> _ = torch.manual_seed(0)  # a unit that is inactive in both rows has no gradient
        >>> x = torch.tensor([[0.5, -1.0, 2.0], [1.0, 0.25, -0.5]])
        >>> kf.testing.check_flow(kf.real_nvp(3, depth=2, hidden=(4,)), x)
    """
    if not isinstance(flow, Flow):
        raise ArgumentError(f"'flow' should be a Flow, got {type(flow).__name__}.")
    check_bijection(flow.bijection, x, context)
    if type(flow.base) is not StandardNormal:
        check_base(flow.base, context)
    twin = copy.deepcopy(flow).eval()
    check_density(twin, x, context)
    check_samples(twin, context)
    check_generator(twin, context)
    check_latents(twin, context)
    check_far_latents(twin, context)
    check_sample_gradients(twin, context)
    check_files(twin, x, context)


def check_density(flow: Flow, x: Tensor, context: Tensor | None) -> None:
    """Checks log_prob against that of the base plus log|det|, for any batch shape."""
    at = reference_jacobian("forward", flow.bijection.forward, x, context)
    with torch.no_grad():
        log_prob = flow.log_prob(x, context)
        twice = flow.log_prob(x.expand(2, *x.shape), context)
    require(
        log_prob.shape == x.shape[:1],
        f"log_prob should have shape (B,), got {tuple(log_prob.shape)}",
    )
    law = "log_prob should be that of the latent plus log|det|"
    expected, tolerance = true_log_prob(flow, at, context)
    require_close(law, log_prob, expected, tolerance)
    require(
        twice.shape == (2, len(x)),
        f"log_prob of (2, B, *event) should have shape (2, B), got {tuple(twice.shape)}",
    )
    require_close("log_prob should not depend on leading shapes", twice[1], log_prob, tolerance)


@torch.enable_grad()
def true_log_prob(
    flow: Flow, at: ReferenceJacobian, context: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Returns the base's log p(z) plus log|det| of the dense Jacobian, and its tolerance, (B,).

    The tolerance is that of log_det plus that of log p(z), whose slope is its gradient by z.
    """
    z, n = at.value.detach().requires_grad_(), at.singular_values.shape[1]
    if type(flow.base) is StandardNormal:
        log_prob = -0.5 * z.double().square().flatten(1).sum(1) - 0.5 * n * math.log(2 * math.pi)
    else:
        log_prob = flow.base.log_prob(z, context).double()
    scale = norm(z) * norm(gradient(log_prob.sum(), z)) + n
    tolerance = at.log_det_tolerance + SAFETY * at.eps * at.condition_number * scale
    return log_prob.detach() + at.true_log_det, tolerance


def check_samples(flow: Flow, context: Tensor | None) -> None:
    """Checks shapes of samples, and the density that is returned with them."""
    contexts = None if context is None else context[:2]
    batch_shape = (3,) if contexts is None else (3, len(contexts))
    with torch.no_grad():
        samples, log_prob = flow.sample_and_log_prob(3, contexts, generator=seeded(0))
    expected = (*batch_shape, *flow.event_shape)
    require(
        tuple(samples.shape) == expected,
        f"samples should have shape {expected}, got {tuple(samples.shape)}",
    )
    require(
        tuple(log_prob.shape) == batch_shape,
        f"the log_prob of samples should have shape {batch_shape}, got {tuple(log_prob.shape)}",
    )
    none = flow.sample(0, contexts).shape
    require(
        none == (0, *expected[1:]),
        f"sample(0) should have shape {(0, *expected[1:])}, got {tuple(none)}",
    )
    rows = samples.reshape(-1, *flow.event_shape)
    row_contexts = None if contexts is None else contexts.expand(3, *contexts.shape).flatten(0, 1)
    at = reference_jacobian("forward", flow.bijection.forward, rows, row_contexts)
    expected, tolerance = true_log_prob(flow, at, row_contexts)
    require_close(
        "the log_prob of a sample should be the density there",
        log_prob.flatten(),
        expected,
        2 * tolerance,
    )


def check_generator(flow: Flow, context: Tensor | None) -> None:
    """Checks that a generator determines the samples, which carry no gradient."""
    contexts = None if context is None else context[:2]
    first = check_seed(lambda seed: flow.sample(3, contexts, generator=seeded(seed)))
    require(not first.requires_grad, "sample should carry no gradient, but does")


def check_latents(flow: Flow, context: Tensor | None) -> None:
    """Checks that latents of samples follow the base (six standard errors).

    Latents of a standard normal have mean 0 and mean square 1. Those of another base have the mean
    log_prob of other samples of it.
    """
    contexts = None if context is None else context[:1]
    samples = flow.sample(SAMPLES, contexts, generator=seeded(3))
    rows = None if contexts is None else contexts.expand(SAMPLES, -1)
    with torch.no_grad():
        latents = flow.bijection(samples.reshape(SAMPLES, *flow.event_shape), rows)[0]
        if type(flow.base) is not StandardNormal:
            others = draw(flow, SAMPLES, contexts, seed=4)
            own, expected = (flow.base.log_prob(z, rows).double() for z in (latents, others))
            off = (own.mean() - expected.mean()).abs().item()
            allowed = 6 * math.hypot(own.std().item(), expected.std().item()) / SAMPLES**0.5
            require(
                off <= allowed + SAFETY * torch.finfo(flow.dtype).eps,
                "the latents of samples should follow the base: their mean log_prob is off by "
                f"{off:.3g}, allowed {allowed:.3g}",
            )
            return
    z = latents.double()
    mean, excess = z.mean().abs().item(), (z.square().mean() - 1).abs().item()
    for what, error, allowed in (
        ("mean 0", mean, 6 / math.sqrt(z.numel())),
        ("mean square 1", excess, 6 * math.sqrt(2 / z.numel())),
    ):
        require(
            error < allowed,
            f"samples should have {what} in the latent: off by {error:.3g}, allowed {allowed:.3g}",
        )


def check_far_latents(flow: Flow, context: Tensor | None) -> None:
    """Checks that far latents of a standard normal have finite points and densities in float32."""
    if type(flow.base) is not StandardNormal:
        return
    twin = copy.deepcopy(flow).float()
    z = FAR * (2 * torch.rand(SAMPLES, *twin.base.event_shape, generator=seeded(5)) - 1)
    rows = None if context is None else context[:1].float().expand(SAMPLES, -1)
    with torch.no_grad():
        x, log_det = twin.bijection.inverse(z, rows)
        latent, again = twin.bijection(x, rows)
    parts = [part.flatten(1).isfinite().all(1) for part in (x, log_det[:, None], latent)]
    failed = int((~(parts[0] & parts[1] & parts[2] & again.isfinite())).sum())
    require(
        failed == 0,
        f"latents within {FAR:g} standard deviations should decode to finite points with a finite "
        f"log_prob in float32: {failed} of {SAMPLES} do not",
    )


def check_sample_gradients(flow: Flow, context: Tensor | None) -> None:
    """Checks that `rsample` carries gradients to the parameters, if there are any."""
    twin = jittered(copy.deepcopy(flow))
    contexts = None if context is None else context[:2]
    trained = any(parameter.requires_grad for parameter in twin.parameters())
    if not trained or not flow.base.has_rsample:
        return
    samples = twin.rsample(4, contexts, generator=seeded(4))
    require(
        samples.requires_grad and bool(reached(twin, samples.square().sum())),
        "rsample should carry gradients to the parameters, but does not",
    )


def seeded(seed: int) -> torch.Generator:
    """Returns a generator with this seed."""
    return torch.Generator().manual_seed(seed)
