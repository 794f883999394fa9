"""Flows as density estimators of sbi: a builder that its trainers take."""

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
from kappaflow.training.rows import Rows
from kappaflow.training.units import fit_units

Shape = torch.Size | tuple[int, ...]


class FlowEstimator(ConditionalDensityEstimator):
    """A conditional `Flow` that sbi trains, samples and makes posteriors of.

    Args:
        flow: Of points (D,), whose contexts are conditions in one row.
        condition_shape: Of one condition.
    """

    def __init__(self, flow: Flow, condition_shape: Shape) -> None:
        super().__init__(flow, torch.Size(flow.event_shape), torch.Size(condition_shape))
        self.flow = flow

    @property
    def flow_to_examine(self) -> Flow:
        """The flow that `kappaflow.wrap` and `doctor` look at; its context is the condition."""
        return self.flow

    @property
    def embedding_net(self) -> nn.Module:
        """Nothing: what embeds conditions is inside the flow."""
        return nn.Identity()

    def log_prob(self, input: Tensor, condition: Tensor, **kwargs: object) -> Tensor:  # noqa: A002
        """Returns log p(input | condition) in nats, (samples, batch).

        Args:
            input: (samples, batch, D), or (batch, D).
            condition: (batch, condition shape), or with samples in front.
            **kwargs: Ignored.
        """
        input, condition, _ = self._broadcast_and_align(input, condition)  # noqa: A001
        return self.flow.log_prob(input, self._rows(condition))

    def loss(self, input: Tensor, condition: Tensor, **kwargs: object) -> Tensor:  # noqa: A002
        """Returns -log p(input | condition), (batch,)."""
        return -self.flow.log_prob(input, self._rows(condition))

    def sample(self, sample_shape: Shape, condition: Tensor, **kwargs: object) -> Tensor:
        """Returns draws (sample_shape, batch, D) for conditions (batch, condition)."""
        return self.sample_and_log_prob(sample_shape, condition)[0].detach()

    def sample_and_log_prob(
        self, sample_shape: Shape, condition: Tensor, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Returns draws as `sample` does, and their log p in nats, (sample_shape, batch)."""
        shape = torch.Size(sample_shape)
        rows = self._rows(condition)
        x, log_prob = self.flow.sample_and_log_prob(math.prod(shape), rows)
        lead = (*shape, *rows.shape[:-1])
        return x.reshape(*lead, *self.input_shape), log_prob.reshape(lead)

    def _rows(self, condition: Tensor) -> Tensor:
        """Returns conditions (..., *condition) as contexts (..., C)."""
        self._check_condition_shape(condition)
        return condition.flatten(condition.dim() - len(self.condition_shape))


class _Embedding(nn.Module):
    """A network of conditions that are given as rows."""

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
    """Returns a builder for `density_estimator=` of sbi's trainers (NPE, NLE).

    Units of both are taken from the first rows that the builder is called with, and belong to the
    flow. `kappaflow.doctor(estimator, theta, x.flatten(1))` examines what was trained, or the
    posterior that it makes.

    Args:
        model: A recipe that reads contexts, such as "real_nvp".
        embedding_net: A network from conditions (B, condition shape) to rows (B, E).
        depth: Number of couplings.
        hidden: Widths of the couplings' networks.
        **options: More arguments of the recipe.

    Returns:
        A function of parameters and simulations that makes an estimator.

    Raises:
        ArgumentError: There is no such recipe, or it reads no contexts.

    Example:
        >>> build = density_estimator(depth=2, hidden=(8,))
        >>> theta, x = torch.randn(50, 2), torch.randn(50, 3)
        >>> build(theta, x).log_prob(theta[None], x).shape
        torch.Size([1, 50])
    """
    recipe = CONDITIONAL[one_of("model", model, tuple(CONDITIONAL))]

    def build(theta: Tensor, x: Tensor) -> FlowEstimator:
        if theta.dim() != 2:
            raise ArgumentError(
                f"'theta' should be rows, (B, D), for a flow, got shape {tuple(theta.shape)}."
            )
        shape, rows = x.shape[1:], x.flatten(1)
        width = rows.shape[1]
        arguments = {"depth": depth, "hidden": hidden, **options}
        if embedding_net is not None:
            arguments["embedding"] = _Embedding(embedding_net, shape)
        flow = recipe(theta.shape[1], context_features=width, **arguments)
        fit_units(flow, Rows(theta, rows))
        return FlowEstimator(flow, shape)

    return build
