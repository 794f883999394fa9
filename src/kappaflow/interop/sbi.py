"""sbi: its density estimators for `wrap`, and conditional flows as its density estimators."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from sbi.neural_nets.estimators.base import ConditionalDensityEstimator
from torch import Tensor, nn
from torch.distributions import AffineTransform

from kappaflow._checks import one_of
from kappaflow.data.batches import Batch
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow.flows.recipe import from_options
from kappaflow.foreign.layers import ForeignLayer, Parts, default_dtype_of
from kappaflow.interop import nflows, zuko
from kappaflow.runs.recipes import CONDITIONAL
from kappaflow.training.batches import fit_standardization

Shape = torch.Size | tuple[int, ...]
ESTIMATORS = {
    "NFlowsFlow": nflows.parts_of,
    "ZukoFlow": zuko.parts_of,
    "ZukoUnconditionalFlow": zuko.parts_of,
}


def parts_of(flow: Any, x: Tensor | None, context: Tensor | None) -> Parts:
    """Returns the layers of the flow in an estimator; the context holds one condition per row."""
    estimator, kind = _estimator(flow)
    shape = tuple(estimator.input_shape)
    condition = tuple(getattr(estimator, "condition_shape", ()))
    _check_context(type(estimator).__name__, condition, context)
    embeds = kind == "ZukoFlow"  # flows of nflows apply the embedding themselves

    def shaped(context: Tensor | None) -> Tensor | None:
        return None if context is None else context.reshape(-1, *condition)

    def read(context: Tensor | None) -> Tensor | None:
        value = shaped(context)
        return estimator.embedding_net(value) if embeds and value is not None else value

    def conditions(context: Tensor | None) -> tuple[Tensor | None, ...]:
        return (shaped(context),) if condition else ()

    width = (math.prod(shape),)
    parts = ESTIMATORS[kind](estimator.net, torch.zeros(1, *width), context, read)
    parts.layers[0].is_standardization = _standardizes(estimator.net)
    return dataclasses.replace(
        parts,
        library="sbi",
        layers=parts.layers if shape == width else [_flatten(shape, width), *parts.layers],
        module=estimator,
        log_prob=lambda value, context: estimator.log_prob(value[None], *conditions(context))[0],
        sample=lambda n, context: _sample(estimator, n, *conditions(context)),
        flow=estimator,
    )


def _estimator(flow: Any) -> tuple[Any, str]:
    """Returns the estimator itself or the one in a posterior, and its kind."""
    estimator = getattr(flow, "posterior_estimator", flow)  # of a DirectPosterior
    names = [base.__name__ for base in type(estimator).__mro__]
    kind = next((name for name in names if name in ESTIMATORS), None)
    if kind is not None:
        return estimator, kind
    raise ArgumentError(
        f"'flow' should be a flow of sbi ({', '.join(ESTIMATORS)}) or a DirectPosterior with one, "
        f"got {type(estimator).__name__}."
    )


def _check_context(name: str, condition: tuple[int, ...], context: Tensor | None) -> None:
    """Checks that the context fits the conditions of the estimator."""
    columns = math.prod(condition)
    if not condition:
        if context is not None:
            raise ArgumentError(f"'context' should be left out: {name} takes no conditions.")
    elif context is None:
        raise ArgumentError(
            f"'context' should be given, (B, {columns}): {name} needs a condition of shape "
            f"{condition} for each row."
        )
    elif context.shape[1:] != (columns,):
        raise ArgumentError(
            f"'context' should have shape (B, {columns}), got {tuple(context.shape)}: pass "
            f"conditions of shape {condition} as .flatten(1)."
        )


def _standardizes(net: Any) -> bool:
    """Returns whether a flow starts with a fixed shift and scale for each feature."""
    if hasattr(net, "_transform"):
        first = getattr(net._transform, "_transforms", [net._transform])[0]
        return type(first).__name__ == "PointwiseAffineTransform"
    first = getattr(net.transform, "transforms", [net.transform])[0]
    if type(first).__name__ != "UnconditionalTransform" or any(True for _ in first.parameters()):
        return False
    transform = first()
    steps = (getattr(step, "base_transform", step) for step in (transform, transform.inv))
    return any(isinstance(step, AffineTransform) for step in steps)


def _flatten(shape: tuple[int, ...], width: tuple[int, ...]) -> ForeignLayer:
    """Returns the layer that flattens rows that are not vectors."""
    layer = ForeignLayer(
        "Flatten",
        lambda value, context: (value.flatten(1), 0.0),
        lambda value, context: (value.reshape(-1, *shape), 0.0),
        (shape, width),
    )
    layer.is_standardization = True
    return layer


def _sample(estimator: Any, n: int, *condition: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns n samples, one per condition: sbi 0.27 mixes up several samples per condition."""
    with default_dtype_of(estimator):
        x, log_prob = estimator.sample_and_log_prob((1 if condition else n,), *condition)
    return (x[0], log_prob[0]) if condition else (x, log_prob)


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

    def log_prob(self, input: Tensor, condition: Tensor, **kwargs: object) -> Tensor:
        """Returns log p(input | condition) in nats, (samples, batch).

        Args:
            input: Rows (samples, batch, D) or (batch, D).
            condition: Conditions (batch, condition shape), or (samples, batch, condition shape).
            **kwargs: Ignored.
        """
        input, condition, _ = self._broadcast_and_align(input, condition)
        return self.flow.log_prob(input, self._rows(condition))

    def loss(self, input: Tensor, condition: Tensor, **kwargs: object) -> Tensor:
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
    **options: Any,
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
        flow = from_options(recipe, theta.shape[1], context_features=width, **arguments)
        fit_standardization(flow, Batch(theta, rows))
        return FlowEstimator(flow, shape)

    return build
