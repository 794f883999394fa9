"""Density estimators of sbi for `wrap`: flows of nflows or zuko with standardized parameters."""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import AffineTransform

from kappaflow.errors import ArgumentError
from kappaflow.interop import nflows, zuko
from kappaflow.interop.foreign import ForeignLayer, Parts, default_dtype_of

ESTIMATORS = {
    "NFlowsFlow": nflows.parts_of,
    "ZukoFlow": zuko.parts_of,
    "ZukoUnconditionalFlow": zuko.parts_of,
}
# Other estimators and posteriors of sbi, and why they cannot be wrapped.
OTHERS = {
    "ConditionalVectorFieldEstimator": "its density is the solution of a differential equation",
    "RatioEstimator": "it is a ratio of densities, which cannot be sampled",
    "MixedDensityEstimator": "a part of its data is discrete",
    "CategoricalMassEstimator": "its data are discrete",
    "MixtureDensityEstimator": "a mixture of Gaussians has no latent",
    "MultivariateGaussianMDN": "a mixture of Gaussians has no latent",
    "TabPFNFlow": "it has no latent and no inverse",
    "NeuralPosterior": "it does not sample from a flow",
}


def parts_of(flow: Any, x: Tensor | None, context: Tensor | None) -> Parts:  # noqa: ANN401, ARG001
    """Returns the layers of the flow in an estimator; the context holds one condition per row."""
    whole, kind = _estimator(flow)
    shape = tuple(whole.input_shape)
    condition = tuple(getattr(whole, "condition_shape", ()))
    _check_context(type(whole).__name__, condition, context)
    embeds = kind == "ZukoFlow"  # flows of nflows apply the embedding themselves

    def shaped(given: Tensor | None) -> Tensor | None:
        return None if given is None else given.reshape(-1, *condition)

    def read(given: Tensor | None) -> Tensor | None:
        value = shaped(given)
        return whole.embedding_net(value) if embeds and value is not None else value

    def given_to(given: Tensor | None) -> tuple[Tensor | None, ...]:
        return (shaped(given),) if condition else ()

    width = (math.prod(shape),)
    parts = ESTIMATORS[kind](whole.net, torch.zeros(1, *width), context, read)
    parts.layers[0].is_standardization = _standardizes(whole.net)
    return dataclasses.replace(
        parts,
        library="sbi",
        layers=parts.layers if shape == width else [_flatten(shape, width), *parts.layers],
        module=whole,
        log_prob=lambda value, given: whole.log_prob(value[None], *given_to(given))[0],
        sample=lambda n, given: _sample(whole, n, *given_to(given)),
        flow=whole,
    )


def _estimator(flow: Any) -> tuple[Any, str]:  # noqa: ANN401
    """Returns the estimator itself or the one in a posterior, and its kind.

    Raises:
        ArgumentError: The estimator is not a flow.
    """
    held = getattr(flow, "posterior_estimator", flow)  # of a DirectPosterior
    names = [one.__name__ for one in type(held).__mro__]
    kind = next((name for name in names if name in ESTIMATORS), None)
    if kind is not None:
        return held, kind
    why = next((OTHERS[name] for name in names if name in OTHERS), "it is not an estimator")
    raise ArgumentError(
        f"'flow' should be a flow of sbi ({', '.join(ESTIMATORS)}) or a DirectPosterior with one, "
        f"got {type(held).__name__}: {why}."
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


def _standardizes(net: Any) -> bool:  # noqa: ANN401
    """Returns whether a flow starts with a fixed shift and scale for each feature."""
    if hasattr(net, "_transform"):
        first = getattr(net._transform, "_transforms", [net._transform])[0]
        return type(first).__name__ == "PointwiseAffineTransform"
    first = getattr(net.transform, "transforms", [net.transform])[0]
    if type(first).__name__ != "UnconditionalTransform" or any(True for _ in first.parameters()):
        return False
    made = first()
    both = (getattr(one, "base_transform", one) for one in (made, made.inv))
    return any(isinstance(one, AffineTransform) for one in both)


def _flatten(shape: tuple[int, ...], width: tuple[int, ...]) -> ForeignLayer:
    """Returns the layer that flattens rows that are not vectors."""
    layer = ForeignLayer(
        "Flatten",
        lambda value, given: (value.flatten(1), 0.0),
        lambda value, given: (value.reshape(-1, *shape), 0.0),
        (shape, width),
    )
    layer.is_standardization = True
    return layer


def _sample(whole: Any, n: int, *condition: Tensor | None) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Returns n samples, one per condition: sbi 0.27 mixes up several samples of several."""
    with default_dtype_of(whole):
        x, log_prob = whole.sample_and_log_prob((1 if condition else n,), *condition)
    return (x[0], log_prob[0]) if condition else (x, log_prob)
