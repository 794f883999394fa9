"""Whether a density integrates to one, by importance sampling in few dimensions."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kappaflow.adapters import Wrapped
from kappaflow.flows import Flow

DIMENSIONS = 3  # above, proposals are too far from any density
CENTRES, DRAWS = 256, 8192
WIDTH = 0.3  # of a kernel, in deviations of the draws
FAR, FREEDOM = 0.3, 3.0  # share of draws from Student's t around all of them, and its freedom


@dataclass(frozen=True)
class Integral:
    """An estimate of the integral of a density.

    Attributes:
        value: Mean of p / q over draws of a proposal q.
        standard_error: Of that mean.
        effective: How many draws of p these are worth: (sum w)^2 / sum w^2.
    """

    value: float
    standard_error: float
    effective: float


def integral_of(flow: Flow, drawn: Tensor, context: Tensor | None) -> Integral | None:
    """Returns the integral of the density of a flow, None where it cannot be had.

    Proposals are kernels around draws of the flow, and Student's t around all of them for what the
    draws do not reach.

    Args:
        flow: In evaluation mode, of up to three dimensions.
        drawn: Some draws of it, (B, n).
        context: (B, C) or None; the density is that of the first row.

    Returns:
        The estimate.
    """
    if len(flow.joint_shape) != 1 or flow.joint_shape[0] > DIMENSIONS or flow.augment is not None:
        return None
    drawn = drawn[torch.isfinite(drawn).all(1)].cpu().double()[:CENTRES]
    if len(drawn) < 8:
        return None
    generator = torch.Generator().manual_seed(0)
    x, log_q = _proposed(drawn, generator)
    given = None if context is None else context[:1].expand(DRAWS, -1)
    points = x.to(flow.dtype).to(flow.device)
    own = flow.own_log_prob(points, given) if isinstance(flow, Wrapped) else None
    log_p = flow.joined_log_prob(points, given) if own is None else own
    weights = (log_p.cpu().double() - log_q).exp().nan_to_num(0, posinf=0)
    value, error = weights.mean().item(), weights.std().item() / math.sqrt(DRAWS)
    effective = weights.sum().square() / weights.square().sum().clamp_min(1e-300)
    return Integral(value, error, effective.item())


def _proposed(centres: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Returns draws of the proposal and its log-density there, (N, n) and (N,)."""
    n = centres.shape[1]
    middle, spread = centres.mean(0), centres.std(0).clamp_min(1e-12)
    noise = torch.randn(DRAWS, n, generator=generator, dtype=torch.float64)
    chosen = torch.randint(len(centres), (DRAWS,), generator=generator)
    near = centres[chosen] + WIDTH * spread * noise
    chi = torch.randn(DRAWS, int(FREEDOM), generator=generator, dtype=torch.float64)
    far = middle + spread * noise / (chi.square().sum(1, keepdim=True) / FREEDOM).sqrt()
    is_far = torch.rand(DRAWS, generator=generator) < FAR
    x = torch.where(is_far[:, None], far, near)
    return x, torch.logaddexp(
        math.log(1 - FAR) + _kernels(x, centres, WIDTH * spread),
        math.log(FAR) + _student(x, middle, spread),
    )


def _kernels(x: Tensor, centres: Tensor, width: Tensor) -> Tensor:
    away = ((x[:, None] - centres) / width).square().sum(2)
    constant = width.log().sum() + 0.5 * x.shape[1] * math.log(2 * math.pi)
    return torch.logsumexp(-0.5 * away, 1) - math.log(len(centres)) - constant


def _student(x: Tensor, middle: Tensor, spread: Tensor) -> Tensor:
    n = x.shape[1]
    away = ((x - middle) / spread).square().sum(1)
    constant = (
        math.lgamma((FREEDOM + n) / 2)
        - math.lgamma(FREEDOM / 2)
        - 0.5 * n * math.log(FREEDOM * math.pi)
    )
    return constant - spread.log().sum() - 0.5 * (FREEDOM + n) * torch.log1p(away / FREEDOM)
