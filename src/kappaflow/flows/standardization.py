"""The first layers of a flow, which apply bounds and standardize its data and its context."""

import math
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

from kappaflow._checks import natural_int
from kappaflow.bijection import Bijection, Chain
from kappaflow.bijections import Domain, Gaussianize, OnFeatures, Standardize
from kappaflow.bijections.gaussianize import GaussianizeInputs
from kappaflow.domains import Bound, intervals
from kappaflow.errors import ArgumentError, DataError
from kappaflow.factor import Whiten
from kappaflow.flows.base import NormalMixture
from kappaflow.flows.eval_mode import evaluation_mode
from kappaflow.flows.mixture_fit import sample_of
from kappaflow.flows.parts import FlowParts
from kappaflow.flows.rows import flatten_batch
from kappaflow.nets import StandardizeInputs


def context_embedding(
    context_features: int, embedding: nn.Module | None, *, gaussianize: bool = False
) -> tuple[int, dict[str, Any]]:
    """Returns the width of the context that layers read, and arguments of `Chain` for it.

    The context is standardized and embedded, or with `gaussianize` standardized and made normal.
    """
    natural_int("context_features", context_features)
    if gaussianize and (embedding is not None or not context_features):
        other = "with an embedding" if context_features else "without a context"
        raise ArgumentError(f"'gaussianize_context' should be left out {other}.")
    if embedding is None and not context_features:
        return 0, {}
    if gaussianize:
        width, network = 2 * context_features, GaussianizeInputs(context_features)
    elif embedding is None:
        width, network = context_features, StandardizeInputs(context_features)
    else:
        width = _width_of(embedding, context_features)
        network = nn.Sequential(StandardizeInputs(context_features), embedding)
    return width, {"embedding": network, "context_features": context_features}


def _width_of(embedding: object, context_features: int) -> int:
    """Returns the width of embedded contexts, which are rows of numbers."""
    if not isinstance(embedding, nn.Module):
        raise ArgumentError(
            f"'embedding' should be a torch.nn.Module, got {type(embedding).__name__}."
        )
    if not context_features:
        raise ArgumentError("'context_features' should be given with an embedding.")
    try:
        with torch.no_grad(), evaluation_mode(embedding):
            batch, width = embedding(torch.zeros(2, context_features)).shape
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise ArgumentError(
            f"'embedding' should map rows of {context_features} numbers to rows (B, width): "
            f"{error}"
        ) from None
    if batch != 2:
        raise ArgumentError(f"'embedding' should return 2 rows for 2 contexts, got {batch}.")
    return width


Bounds = Sequence[Bound] | None
FIRST = Domain | Gaussianize | Standardize | Whiten
Fitted = FIRST | NormalMixture | StandardizeInputs

FAR_MEAN = 10.0  # largest absolute mean of a standardized column of a batch
FAR_DEVIATIONS = 0.05, 20.0  # range of the deviation of a standardized column of a batch


class Standardization(Chain):
    """The first layers of a flow, which scale its data to mean 0 and deviation 1.

    They are part of the bijection, so log_prob is always in the units of x. Diagnostics skip them,
    because a change of units says nothing about conditioning.

    Example:
        >>> import kappaflow as kf
        >>> flow = kf.real_nvp(2, depth=2, hidden=(8,))
        >>> x = 1000 + 5 * torch.randn(256, 2)
        >>> flow.standardization.fit(x)
        >>> flow.standardization(x)[0].mean().abs().item() < 1e-4
        True
    """

    def __init__(self, flow: FlowParts) -> None:
        super().__init__([*takewhile(lambda part: part.is_standardization, flow.chain())])
        self._flow = (flow,)  # in a tuple, so that the flow is not registered as a submodule

    @property
    def fitted(self) -> bool:
        """Whether all layers that are fitted to data have been fitted."""
        return all(bool(layer.fitted) for layer in self.fitted_layers())

    def fit(self, x: Tensor, context: Tensor | None = None) -> None:
        """Fits means and deviations to training rows; call it before the first step.

        It also fits all other layers that depend on data: `Whiten` with start="whiten", a
        `NormalMixture`, padding that depends on the data, and the standardization of a context.
        `kappaflow.fit` does all of this. Fitting a trained flow again changes its density.

        Args:
            x: Rows, (N, *event), with the flow's dtype and device; all rows or a few thousand.
            context: Context, (N, C), for a conditional flow.

        Raises:
            ArgumentError: A shape, dtype or device does not fit.
            DataError: There are no rows, some are not finite or outside the domain of their
                column, or a combination of columns is constant and cannot be whitened.

        Example:
            >>> import kappaflow as kf
            >>> flow = kf.real_nvp(1, context_features=1)
            >>> flow.standardization.fit(torch.randn(64, 1), 100 + torch.randn(64, 1))
            >>> flow.standardization.fitted
            True
        """
        (flow,) = self._flow
        _, x, context = flatten_batch(flow, x, context)
        _check_rows(flow, x, context)
        for layer in self.fitted_layers():
            layer.fitted.fill_(False)
        self.fit_new(x, context)

    @torch.no_grad()
    def fit_new(
        self, x: Tensor, context: Tensor | None = None, weights: Tensor | None = None
    ) -> None:
        """Fits the layers that are not fitted yet to rows, (N, *event), with weights, (N,)."""
        (flow,) = self._flow
        if flow.augment is not None:
            flow.augment.fit(x, weights)
        points = _augmented(flow, x)
        for part in _first_parts(flow):
            layer = _fitted(part)
            own = part.own(points) if isinstance(part, OnFeatures) else points
            if not layer.fitted and isinstance(layer, Whiten):
                _fit_whiten(flow, part, own, weights, x)
            elif not layer.fitted:
                layer.fit(own, weights)
            points = part(points)[0]
        context_layer = context_standardization(flow)
        if context_layer is not None and context is not None and not context_layer.fitted:
            context_layer.fit(context, weights)
        if isinstance(flow.base, NormalMixture) and not flow.base.fitted:
            flow.base.fit(_latents(flow, x, context, weights))

    @torch.no_grad()
    def forgotten(self, x: Tensor, context: Tensor | None) -> str | None:
        """Returns a message if a batch is far from standardized, and nothing is fitted."""
        (flow,) = self._flow
        if self.fitted or not len(x):
            return None
        own = self(_augmented(flow, x))[0][:, : flow.event_shape[0]]
        angles = {i for layer in self if isinstance(layer, Standardize) for i in layer.left}
        name, far = "column", far_column(own, angles)
        layer = context_standardization(flow)
        if far is None and layer is not None and context is not None:
            name, far = "context column", far_column(layer(context), set())
        if far is None:
            return None
        number, mean, deviation = far
        arguments = "x" if context is None else "x, context"
        return (
            f"the standardization of this flow is not fitted, and {name} {number} (counted from "
            f"0) of the first training batch has mean {mean:.3g} and standard deviation "
            f"{deviation:.3g}: call flow.standardization.fit({arguments}) with the training rows "
            "before the first step, or train with kappaflow.fit."
        )

    def fitted_layers(self) -> Iterator[Fitted]:
        """Yields all layers that `fit` fits, in order; they are not all in the standardization."""
        (flow,) = self._flow
        yield from map(_fitted, _first_parts(flow))
        if flow.augment is not None:
            yield from (part for part in flow.augment.modules() if isinstance(part, Standardize))
        context_layer = context_standardization(flow)
        if context_layer is not None:
            yield context_layer
        if isinstance(flow.base, NormalMixture):
            yield flow.base


def _fit_whiten(
    flow: FlowParts, part: Bijection, own: Tensor, weights: Tensor | None, x: Tensor
) -> None:
    """Fits a layer to its features; an error for want of a covariance names columns of x."""
    names = list(flow.columns or (f"x{i}" for i in range(x[0].numel())))
    every = [*names, *(f"padding {i}" for i in range(own.shape[1]))]
    changed = part.changed if isinstance(part, OnFeatures) else range(own.shape[1])
    try:
        _fitted(part).fit(own, weights, [every[i] for i in changed])
    except DataError:
        from kappaflow.data.problems import refusal_of  # it loads polars, which tensors do without

        text = refusal_of(x.double().cpu().numpy(), names) if len(x) > own.shape[1] else None
        if text is None:
            raise
        raise DataError(f"the {len(x):,} training rows cannot be whitened: {text}.") from None


def _latents(flow: FlowParts, x: Tensor, context: Tensor | None, weights: Tensor | None) -> Tensor:
    """Returns the latents of a few thousand rows, which repeat in proportion to their weights."""
    sample = sample_of(len(x), weights).to(x.device)
    contexts = None if context is None else context[sample]
    with evaluation_mode(flow):
        return flow.bijection(_augmented(flow, x[sample]), contexts)[0]


def _first_parts(flow: FlowParts) -> Iterator[Bijection]:
    """Returns the first parts of the bijection, as long as they are fitted to data."""
    return takewhile(lambda part: isinstance(_fitted(part), FIRST), flow.chain())


def _fitted(part: Bijection) -> Any:
    """Returns the layer that is fitted: the part, or what it applies to some of the features."""
    return part.bijection if isinstance(part, OnFeatures) else part


def context_standardization(flow: FlowParts) -> StandardizeInputs | None:
    """Returns the layer that standardizes the context, if there is one."""
    first = flow.bijection.embedding if isinstance(flow.bijection, Chain) else None
    if isinstance(first, nn.Sequential) and len(first):
        first = first[0]
    return first if isinstance(first, StandardizeInputs) else None


def _augmented(flow: FlowParts, x: Tensor) -> Tensor:
    """Returns augmented points, with random numbers from a fixed seed."""
    return flow.augmented(x, generator=torch.Generator().manual_seed(0))


def _check_rows(flow: FlowParts, x: Tensor, context: Tensor | None) -> None:
    """Raises an error for rows without a finite mean and deviation."""
    for name, rows in (("x", x), ("context", context)):
        if rows is None:
            continue
        if not len(rows):
            raise DataError(f"'{name}' should hold at least one row, got none.")
        bad = ~rows.flatten(1).isfinite().all(1)
        if bad.any():
            raise DataError(
                f"'{name}' should hold finite numbers, got nan or inf in "
                f"{int(bad.sum()):,} of {len(rows):,} rows."
            )
    if flow.domain is not None:
        outside = flow.domain.outside(_augmented(flow, x))
        if outside.any():
            raise DataError(
                f"'x' should be inside the domain of its columns, got {int(outside.sum()):,} of "
                f"{len(x):,} rows outside."
            )


def far_column(x: Tensor, left: set[int]) -> tuple[int, float, float] | None:
    """Returns index, mean and deviation of the first column that is far from standardized."""
    rows = x.double().movedim(1, -1).flatten(0, -2)
    means, deviations = rows.mean(0).tolist(), rows.std(0, correction=0).tolist()
    low, high = FAR_DEVIATIONS
    for i, (mean, deviation) in enumerate(zip(means, deviations, strict=True)):
        if i in left or not math.isfinite(mean):
            continue
        # A column may be constant within a batch, which says nothing about its scale.
        if abs(mean) > FAR_MEAN or (deviation > 0 and not low <= deviation <= high):
            return i, mean, deviation
    return None


def input_layers(
    features: int, bounds: Bounds = None, *, padding: int = 0, circle: float | None = None
) -> list[Bijection]:
    """Returns the first layers of a flow: a `Domain` if there are bounds, and a `Standardize`.

    Padding features come last. `circle` is half the length that circles get; None refuses them.
    """
    joint = features + padding
    if bounds is None or not any(intervals(bounds, features)):
        return [Standardize(joint, padding=padding)]
    angles = angles_of(features, bounds)
    if angles and circle is None:
        raise ArgumentError(
            f"'bounds' should have no circular column with this model, got one for feature "
            f"{angles[0]}: its layers do not map a circle to itself. Use the model 'spline' "
            "(kappaflow.spline), whose layers do."
        )
    domain = Domain([*bounds, *[None] * padding], circle=circle)
    return [domain, Standardize(joint, padding=padding, left=angles)]


def angles_of(features: int, bounds: Bounds) -> list[int]:
    """Returns the indices of the features on a circle."""
    result = () if bounds is None else intervals(bounds, features)
    return [i for i, domain in enumerate(result) if domain and domain.circular]


def standardization_log_det(flow: FlowParts) -> float:
    """Returns log|det| of the standardization in nats, which turns an NLL into a standardized one.

    For a flow with domains, it is that of the standard deviations of the columns. So flows with
    and without bounds can be compared.
    """
    if flow.domain is not None:
        return -flow.domain.deviation.double().log().sum().item()
    point = torch.zeros(1, *flow.joint_shape, dtype=flow.dtype, device=flow.device)
    return Standardization(flow)(point)[1].double().item()
