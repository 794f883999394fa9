"""`TransformedDistribution` of torch and of Pyro, whose transforms go from latent to data."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from kappaflow.adapters.parts import ForeignBase, ForeignLayer, Parts, seeded
from kappaflow.errors import ArgumentError


def parts_of(flow: Any, x: Tensor | None, context: Tensor | None) -> Parts:  # noqa: ANN401, ARG001
    """Returns the transforms of a distribution in the order of ours.

    Where its events are numbers, a batch of them is a vector of independent ones.
    """
    if not hasattr(flow, "transforms"):
        raise ArgumentError(
            f"'flow' should be a TransformedDistribution, {type(flow).__name__} has no transforms."
        )

    def at(given: Tensor | None) -> Any:  # noqa: ANN401
        return flow.condition(given) if hasattr(flow, "condition") else flow

    if hasattr(flow, "condition") and context is None:
        raise ArgumentError("'context' should be given: this distribution is conditional.")
    made = at(context)
    of_numbers = not made.event_shape
    if of_numbers and not made.batch_shape:
        raise ArgumentError(
            "'flow' should be over vectors: it is over single numbers, so make its base of one "
            "feature, torch.distributions.Independent(base, 1) with a batch shape of (1,)."
        )
    shape = tuple(made.batch_shape[-1:] if of_numbers else made.event_shape)

    def over_vectors(distribution: Any) -> Any:  # noqa: ANN401
        return Independent(distribution, 1) if of_numbers else distribution

    width = 0 if context is None else context.shape[1]
    modules = [one for one in getattr(flow, "transforms", []) if isinstance(one, nn.Module)]

    def layer(i: int) -> ForeignLayer:
        def decode(z: Tensor, given: Tensor | None) -> tuple[Tensor, Tensor]:
            transform = at(given).transforms[i]
            value = transform(z)
            return value, transform.log_abs_det_jacobian(z, value)

        def encode(value: Tensor, given: Tensor | None) -> tuple[Tensor, Tensor]:
            transform = at(given).transforms[i]
            z = transform.inv(value)
            return z, -transform.log_abs_det_jacobian(z, value)

        return ForeignLayer(_title(flow.transforms[i]), encode, decode, (shape, shape), width)

    base = over_vectors(made.base_dist)
    return Parts(
        "torch.distributions",
        [layer(i) for i in reversed(range(len(flow.transforms)))],
        ForeignBase(
            tuple(base.event_shape) or shape,
            lambda z, given: over_vectors(at(given).base_dist).log_prob(z),
            lambda n, given: _drawn(over_vectors(at(given).base_dist), n),
        ),
        nn.ModuleList(modules) if modules else None,
        log_prob=lambda value, given: over_vectors(at(given)).log_prob(value),
        sample=lambda n, given: (_drawn(over_vectors(at(given)), n), None),
        like=_one_draw(base),
    )


def _drawn(distribution: Any, n: int) -> Tensor:  # noqa: ANN401
    return distribution.sample(() if distribution.batch_shape else (n,))


def _one_draw(distribution: Any) -> Tensor:  # noqa: ANN401
    """Returns a draw, of which type and device matter; torch's generator stays as it was."""
    with seeded(torch.Generator().manual_seed(0)):
        return distribution.sample()


def _title(transform: Any) -> str:  # noqa: ANN401
    """Returns the class of a transform; Pyro hides those that read no context in another."""
    inner = getattr(transform, "transform", None)
    return type(transform if inner is None else inner).__name__
