"""`TransformedDistribution` of torch and Pyro for `wrap`. Transforms go from latent to data."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from kappaflow.errors import ArgumentError
from kappaflow.foreign.layers import ForeignBase, ForeignLayer, Parts, seeded


def parts_of(flow: Any, x: Tensor | None, context: Tensor | None) -> Parts:
    """Returns the transforms of a distribution from data to latent."""
    if not hasattr(flow, "transforms"):
        raise ArgumentError(
            f"'flow' should be a TransformedDistribution, which {type(flow).__name__} is not."
        )

    def conditioned(context: Tensor | None) -> Any:
        return flow.condition(context) if hasattr(flow, "condition") else flow

    if hasattr(flow, "condition") and context is None:
        raise ArgumentError("'context' should be given: this distribution is conditional.")
    distribution = conditioned(context)
    scalar = not distribution.event_shape
    if scalar and not distribution.batch_shape:
        raise ArgumentError(
            "'flow' should be a distribution of vectors, got one of single numbers: make its base "
            "torch.distributions.Independent(base, 1) with a batch shape of (1,)."
        )
    shape = tuple(distribution.batch_shape[-1:] if scalar else distribution.event_shape)

    def as_vectors(distribution: Any) -> Any:
        return Independent(distribution, 1) if scalar else distribution

    width = 0 if context is None else context.shape[1]
    modules = [t for t in getattr(flow, "transforms", []) if isinstance(t, nn.Module)]

    def layer(i: int) -> ForeignLayer:
        def decode(z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
            transform = conditioned(context).transforms[i]
            value = transform(z)
            return value, _log_det(transform, z, value)

        def encode(value: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
            transform = conditioned(context).transforms[i]
            z = transform.inv(value)
            return z, -_log_det(transform, z, value)

        return ForeignLayer(_title(flow.transforms[i]), encode, decode, (shape, shape), width)

    base = as_vectors(distribution.base_dist)
    return Parts(
        "torch.distributions",
        [layer(i) for i in reversed(range(len(flow.transforms)))],
        ForeignBase(
            tuple(base.event_shape) or shape,
            lambda z, context: log_prob_in_support(as_vectors(conditioned(context).base_dist), z),
            lambda n, context: _sample(as_vectors(conditioned(context).base_dist), n),
        ),
        nn.ModuleList(modules) if modules else None,
        log_prob=lambda value, context: log_prob_in_support(
            as_vectors(conditioned(context)), value
        ),
        sample=lambda n, context: (_sample(as_vectors(conditioned(context)), n), None),
        like=_one_sample(base),
    )


def log_prob_in_support(distribution: Any, value: Tensor) -> Tensor:
    """Returns log_prob, minus infinity outside the support, which torch refuses."""
    try:
        return distribution.log_prob(value)
    except ValueError:
        inside = _inside(distribution, value)
        if not inside.any():
            return torch.full_like(inside, -torch.inf, dtype=value.dtype)
        shown = inside.reshape(-1, *(1,) * (value.dim() - 1))
        safe = torch.where(shown, value, value[inside.nonzero()[0, 0]])
        return distribution.log_prob(safe).masked_fill(~inside, -torch.inf)


def _inside(distribution: Any, value: Tensor) -> Tensor:
    """Returns which rows are in the support of a distribution and of its bases, (N,)."""
    if isinstance(distribution, Independent):
        return _inside(distribution.base_dist, value)
    inside = distribution.support.check(value).reshape(len(value), -1).all(1)
    for transform in reversed(getattr(distribution, "transforms", ())):
        value = transform.inv(value)
    base = getattr(distribution, "base_dist", None)
    return inside if base is None else inside & _inside(base, value)


def _log_det(transform: Any, z: Tensor, value: Tensor) -> Tensor:
    """Returns log_abs_det_jacobian with the rows of z, and the features if it has one for each."""
    log_det = transform.log_abs_det_jacobian(z, value)
    return log_det.expand(z.shape[: z.dim() - transform.domain.event_dim])


def _sample(distribution: Any, n: int) -> Tensor:
    return distribution.sample(() if distribution.batch_shape else (n,))


def _one_sample(distribution: Any) -> Tensor:
    """Returns one sample, for its dtype and device; torch's generator stays unchanged."""
    with seeded(torch.Generator().manual_seed(0)):
        return distribution.sample()


def _title(transform: Any) -> str:
    """Returns the class name; Pyro wraps a transform without context in another one."""
    inner = getattr(transform, "transform", None)
    return type(transform if inner is None else inner).__name__
