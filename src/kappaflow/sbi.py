"""Adapts conditional flows to the density estimator interface of the sbi package."""

import math
from collections.abc import Callable
from typing import Any

import torch
from sbi.neural_nets.estimators.base import ConditionalDensityEstimator
from torch import Tensor, nn

from kappaflow._checks import one_of
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow.runs.recipes import CONDITIONAL
from kappaflow.training.batches import Batch, fit_standardization

Shape = torch.Size | tuple[int, ...]


class FlowEstimator(ConditionalDensityEstimator):
    """Wraps a conditional `Flow` as a density estimator for sbi.

    Args:
        flow: A flow of rows (D,). Its context is the flattened condition.
        condition_shape: Shape of one condition.
    """

    def __init__(self, flow: Flow, condition_shape: Shape) -> None:
        super().__init__(flow, torch.Size(flow.event_shape), torch.Size(condition_shape))
        self.flow = flow

    @property
    def flow_to_examine(self) -> Flow:
        """The flow that `kappaflow.wrap` and `doctor` read; its context is the condition."""
        return self.flow

    @property
    def embedding_net(self) -> nn.Module:
        """The identity, because the flow itself embeds the conditions."""
        return nn.Identity()

    def log_prob(self, input: Tensor, condition: Tensor, **kwargs: object) -> Tensor:  # noqa: A002
        """Returns log p(input | condition) in nats, (samples, batch).

        Args:
            input: Rows (samples, batch, D) or (batch, D).
            condition: Conditions (batch, condition shape), or (samples, batch, condition shape).
            **kwargs: Ignored.
        """
        input, condition, _ = self._broadcast_and_align(input, condition)  # noqa: A001
        return self.flow.log_prob(input, self._rows(condition))

    def loss(self, input: Tensor, condition: Tensor, **kwargs: object) -> Tensor:  # noqa: A002
        """Returns the loss -log p(input | condition) in nats, (batch,)."""
        return -self.flow.log_prob(input, self._rows(condition))

    def sample(self, sample_shape: Shape, condition: Tensor, **kwargs: object) -> Tensor:
        """Returns samples (sample_shape, batch, D) for conditions (batch, condition shape)."""
        return self.sample_and_log_prob(sample_shape, condition)[0].detach()

    def sample_and_log_prob(
        self, sample_shape: Shape, condition: Tensor, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Returns samples like `sample`, and their log p in nats, (sample_shape, batch)."""
        shape = torch.Size(sample_shape)
        rows = self._rows(condition)
        x, log_prob = self.flow.sample_and_log_prob(math.prod(shape), rows)
        lead = (*shape, *rows.shape[:-1])
        return x.reshape(*lead, *self.input_shape), log_prob.reshape(lead)

    def _rows(self, condition: Tensor) -> Tensor:
        """Returns conditions (..., condition shape) flattened to contexts (..., C)."""
        self._check_condition_shape(condition)
        return condition.flatten(condition.dim() - len(self.condition_shape))


class _Embedding(nn.Module):
    """Restores the shape of flattened conditions before the embedding network reads them."""

    def __init__(self, net: nn.Module, shape: Shape) -> None:
        super().__init__()
        self.net, self.shape = net, tuple(shape)

    def forward(self, rows: Tensor) -> Tensor:
        return self.net(rows.reshape(-1, *self.shape))


def density_estimator(
    model: str = "real_nvp",
    *,
    embedding_net: nn.Module | None = None,
    depth: int = 8,
    hidden: tuple[int, ...] = (64, 64),
    **options: Any,  # noqa: ANN401
) -> Callable[[Tensor, Tensor], FlowEstimator]:
    """Returns a builder for the argument `density_estimator` of sbi's trainers (NPE, NLE).

    The builder fits the standardization of parameters and simulations to the rows it receives. To
    diagnose a trained estimator or its posterior, use
    `kappaflow.doctor(estimator, theta, x.flatten(1))`.

    Args:
        model: A recipe for conditional flows, such as "real_nvp".
        embedding_net: A network that maps conditions (B, condition shape) to rows (B, E).
        depth: Number of couplings.
        hidden: Widths of the couplings' networks.
        **options: Further arguments of the recipe.

    Returns:
        A function that takes parameters and simulations and returns an estimator.

    Raises:
        ArgumentError: model is not a recipe for conditional flows.

    Example:
        >>> build = density_estimator(depth=2, hidden=(8,))
        >>> theta, x = torch.randn(50, 2), torch.randn(50, 3)
        >>> build(theta, x).log_prob(theta[None], x).shape
        torch.Size([1, 50])
    """
    recipe = CONDITIONAL[one_of("model", model, tuple(CONDITIONAL))]

    def build(theta: Tensor, x: Tensor) -> FlowEstimator:
        if theta.dim() != 2:
            raise ArgumentError(f"'theta' should have shape (B, D), got {tuple(theta.shape)}.")
        shape, rows = x.shape[1:], x.flatten(1)
        width = rows.shape[1]
        arguments = {"depth": depth, "hidden": hidden, **options}
        if embedding_net is not None:
            arguments["embedding"] = _Embedding(embedding_net, shape)
        flow = recipe(theta.shape[1], context_features=width, **arguments)
        fit_standardization(flow, Batch(theta, rows))
        return FlowEstimator(flow, shape)

    return build
