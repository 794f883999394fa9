"""Density estimators of sbi: a flow of nflows or zuko, its standardisation, and an embedding."""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import AffineTransform

from kappaflow.adapters import nflows, zuko
from kappaflow.adapters.parts import ForeignLayer, Parts, drawing_as
from kappaflow.errors import ArgumentError

ESTIMATORS = {
    "NFlowsFlow": nflows.parts_of,
    "ZukoFlow": zuko.parts_of,
    "ZukoUnconditionalFlow": zuko.parts_of,
}
# What else sbi makes, and why it is no flow.
OTHERS = {
    "ConditionalVectorFieldEstimator": "its density is the solution of a differential equation",
    "RatioEstimator": "it is a ratio of densities, of which nothing is drawn",
    "MixedDensityEstimator": "a part of what it describes is discrete",
    "CategoricalMassEstimator": "what it describes is discrete",
    "MixtureDensityEstimator": "a mixture of Gaussians has no latent",
    "MultivariateGaussianMDN": "a mixture of Gaussians has no latent",
    "TabPFNFlow": "it has no latent and no inverse",
    "NeuralPosterior": "it draws by other means than those of a flow",
}


def parts_of(flow: Any, x: Tensor | None, context: Tensor | None) -> Parts:  # noqa: ANN401, ARG001
    """Returns the layers of the flow in an estimator, which reads a condition as one row."""
    whole, kind = _estimator(flow)
    shape = tuple(whole.input_shape)
    condition = tuple(getattr(whole, "condition_shape", ()))
    _check_context(type(whole).__name__, condition, context)
    outside = kind == "ZukoFlow"  # nflows has the embedding within

    def shaped(given: Tensor | None) -> Tensor | None:
        return None if given is None else given.reshape(-1, *condition)

    def read(given: Tensor | None) -> Tensor | None:
        found = shaped(given)
        return whole.embedding_net(found) if outside and found is not None else found

    def given_to(given: Tensor | None) -> tuple[Tensor | None, ...]:
        return (shaped(given),) if condition else ()

    width = (math.prod(shape),)
    parts = ESTIMATORS[kind](whole.net, torch.zeros(1, *width), context, read)
    parts.layers[0].is_standardization = _standardises(whole.net)
    return dataclasses.replace(
        parts,
        library="sbi",
        layers=parts.layers if shape == width else [_flatten(shape, width), *parts.layers],
        module=whole,
        log_prob=lambda value, given: whole.log_prob(value[None], *given_to(given))[0],
        sample=lambda n, given: _drawn(whole, n, *given_to(given)),
        flow=whole,
    )


def _estimator(flow: Any) -> tuple[Any, str]:  # noqa: ANN401
    """Returns the estimator, or that of a posterior, and its kind; or says why it is no flow."""
    held = getattr(flow, "posterior_estimator", flow)  # of a DirectPosterior
    names = [one.__name__ for one in type(held).__mro__]
    kind = next((name for name in names if name in ESTIMATORS), None)
    if kind is not None:
        return held, kind
    why = next((OTHERS[name] for name in names if name in OTHERS), "it is no estimator")
    raise ArgumentError(
        f"'flow' should be a flow of sbi ({', '.join(ESTIMATORS)}) or a DirectPosterior with one, "
        f"got {type(held).__name__}: {why}."
    )


def _check_context(name: str, condition: tuple[int, ...], context: Tensor | None) -> None:
    """Says so if there is no condition, or one of another size, or not one row for each point."""
    columns = math.prod(condition)
    if not condition:
        if context is not None:
            raise ArgumentError(f"'context' should be left out: {name} has no condition.")
    elif context is None:
        raise ArgumentError(
            f"'context' should be given, (B, {columns}): {name} is a density given a condition of "
            f"shape {condition}."
        )
    elif context.shape[1:] != (columns,):
        raise ArgumentError(
            f"'context' should have shape (B, {columns}), conditions of shape {condition} with "
            f".flatten(1), got {tuple(context.shape)}."
        )


def _standardises(net: Any) -> bool:  # noqa: ANN401
    """Returns whether a flow begins with a shift and a scale for each feature, not learned."""
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
    """Returns the first step of an estimator of points that are no vectors."""
    layer = ForeignLayer(
        "Flatten",
        lambda value, given: (value.flatten(1), 0.0),
        lambda value, given: (value.reshape(-1, *shape), 0.0),
        (shape, width),
    )
    layer.is_standardization = True
    return layer


def _drawn(whole: Any, n: int, *condition: Tensor | None) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Returns n draws: one for each condition, since sbi 0.27 mixes up several for several."""
    with drawing_as(whole):
        x, log_prob = whole.sample_and_log_prob((1 if condition else n,), *condition)
    return (x[0], log_prob[0]) if condition else (x, log_prob)
