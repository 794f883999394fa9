"""The laws of a flow, beyond those of its bijection."""

import copy
import math

import torch
from torch import Tensor

from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow.testing.bijections import check_bijection, check_files, reached
from kappaflow.testing.contract import (
    SAFETY,
    Reference,
    jittered,
    norm,
    reference,
    require,
    require_close,
)

DRAWS = 2000  # of the latent, to see whether they are standard normal


def check_flow(flow: Flow, x: Tensor, context: Tensor | None = None) -> None:
    """Raises an error unless a flow keeps its laws, and its bijection those of `check_bijection`.

    log_prob is the base's plus log_det, the density that comes with a draw is that of the draw,
    draws are standard normal in the latent, have the shapes promised, repeat with the generator,
    and carry gradients where they should.

    Args:
        flow: It is copied, and not touched itself.
        x: Points, (B, *event), of the flow's type; at least two.
        context: (B, C) for a conditional flow.

    Raises:
        ContractError: A law is broken, or the points are too ill-conditioned to tell.
        ArgumentError: The arguments are not a flow and a batch.

    Note:
        Whether draws are standard normal is seen on 2000 of them, at six standard errors: a
        temperature of 0.9 is found, one of 0.99 is not.

    Example:
        >>> import kappaflow as kf
        >>> _ = torch.manual_seed(0)  # a unit that is off at both points has no gradient
        >>> x = torch.tensor([[0.5, -1.0, 2.0], [1.0, 0.25, -0.5]])
        >>> kf.testing.check_flow(kf.real_nvp(3, depth=2, hidden=(4,)), x)
    """
    if not isinstance(flow, Flow):
        raise ArgumentError(f"'flow' should be a Flow, got {type(flow).__name__}.")
    check_bijection(flow.bijection, x, context)
    twin = copy.deepcopy(flow).eval()
    check_density(twin, x, context)
    check_draws(twin, context)
    check_generator(twin, context)
    check_latents(twin, context)
    check_sample_gradients(twin, context)
    check_files(twin, x, context)


def check_density(flow: Flow, x: Tensor, context: Tensor | None) -> None:
    """log_prob is the standard normal's plus log|det| of the dense Jacobian, for any batch."""
    at = reference("forward", flow.bijection.forward, x, context)
    with torch.no_grad():
        found = flow.log_prob(x, context)
        twice = flow.log_prob(x.expand(2, *x.shape), context)
    require(found.shape == x.shape[:1], f"log_prob should be (B,), got {tuple(found.shape)}")
    law = "log_prob should be that of the latent plus log|det|"
    require_close(law, found, true_log_prob(at), log_prob_tolerance(at))
    require(
        twice.shape == (2, len(x)),
        f"log_prob of (2, B, *event) should have shape (2, B), got {tuple(twice.shape)}",
    )
    require_close(
        "log_prob should not depend on leading shapes", twice[1], found, log_prob_tolerance(at)
    )


def true_log_prob(at: Reference) -> Tensor:
    """Returns log N(z; 0, I) plus log|det| of the dense Jacobian, (B,)."""
    n = at.singular_values.shape[1]
    return -0.5 * norm(at.value) ** 2 - 0.5 * n * math.log(2 * math.pi) + at.true_log_det


def log_prob_tolerance(at: Reference) -> Tensor:
    """Returns the tolerance of log_det, and what the rounding of z makes of |z|^2, (B,)."""
    scale = norm(at.value) ** 2 + at.singular_values.shape[1]
    return at.log_det_tolerance + SAFETY * at.eps * at.condition_number * scale


def check_draws(flow: Flow, context: Tensor | None) -> None:
    """Draws have their shapes, and the density that comes with them is theirs."""
    contexts = None if context is None else context[:2]
    batch_shape = (3,) if contexts is None else (3, len(contexts))
    with torch.no_grad():
        draws, log_prob = flow.sample_and_log_prob(3, contexts, generator=seeded(0))
    wanted = (*batch_shape, *flow.event_shape)
    require(
        tuple(draws.shape) == wanted, f"draws should have shape {wanted}, got {tuple(draws.shape)}"
    )
    require(
        tuple(log_prob.shape) == batch_shape,
        f"the log_prob of draws should have shape {batch_shape}, got {tuple(log_prob.shape)}",
    )
    none = flow.sample(0, contexts).shape
    require(
        none == (0, *wanted[1:]),
        f"no draws should have shape {(0, *wanted[1:])}, got {tuple(none)}",
    )
    rows = draws.reshape(-1, *flow.event_shape)
    beside = None if contexts is None else contexts.expand(3, *contexts.shape).flatten(0, 1)
    at = reference("forward", flow.bijection.forward, rows, beside)
    require_close(
        "the log_prob that comes with a draw should be the density there",
        log_prob.flatten(),
        true_log_prob(at),
        2 * log_prob_tolerance(at),
    )


def check_generator(flow: Flow, context: Tensor | None) -> None:
    """A generator decides the draws, and the global one is then left alone."""
    contexts = None if context is None else context[:2]
    state = torch.random.get_rng_state()
    first, again, other = (flow.sample(3, contexts, generator=seeded(s)) for s in (1, 1, 2))
    require(
        torch.equal(first, again), "sample should repeat with the generator's seed, but does not"
    )
    require(
        not torch.equal(first, other), "sample should depend on the generator's seed, but does not"
    )
    require(
        torch.equal(state, torch.random.get_rng_state()),
        "sample with a generator should leave torch's global one alone, but does not",
    )
    require(not first.requires_grad, "sample should carry no gradient, but does")


def check_latents(flow: Flow, context: Tensor | None) -> None:
    """Draws, taken to the latent, have mean 0 and mean square 1 within six standard errors."""
    contexts = None if context is None else context[:1]
    draws = flow.sample(DRAWS, contexts, generator=seeded(3)).reshape(DRAWS, *flow.event_shape)
    beside = None if contexts is None else contexts.expand(DRAWS, -1)
    with torch.no_grad():
        z = flow.bijection(draws, beside)[0].double()
    mean, excess = z.mean().abs().item(), (z.square().mean() - 1).abs().item()
    for what, error, allowed in (
        ("mean 0", mean, 6 / math.sqrt(z.numel())),
        ("mean square 1", excess, 6 * math.sqrt(2 / z.numel())),
    ):
        require(
            error < allowed,
            f"draws should have {what} in the latent: off by {error:.3g}, allowed {allowed:.3g}",
        )


def check_sample_gradients(flow: Flow, context: Tensor | None) -> None:
    """`rsample` carries gradients to the parameters, where there are any."""
    twin = jittered(copy.deepcopy(flow))
    contexts = None if context is None else context[:2]
    if not any(parameter.requires_grad for parameter in twin.parameters()):
        return
    drawn = twin.rsample(4, contexts, generator=seeded(4))
    require(
        drawn.requires_grad and bool(reached(twin, drawn.square().sum())),
        "rsample should carry gradients to the parameters, but does not",
    )


def seeded(seed: int) -> torch.Generator:
    """Returns a generator with this seed."""
    return torch.Generator().manual_seed(seed)
