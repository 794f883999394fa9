"""The recipe for invertible feed-forward networks."""

import math
from typing import get_args

import torch
from numpy.polynomial.hermite_e import hermegauss

from kappaflow._checks import finite_float, natural_int, one_of, positive_int
from kappaflow.bijection import Bijection, Chain
from kappaflow.bijections import LeakyReLU, Linear, SVDLinear
from kappaflow.bijections.conv1x1 import rotated
from kappaflow.errors import ArgumentError
from kappaflow.flows.base import StandardNormal
from kappaflow.flows.flow import Flow
from kappaflow.flows.recipe import recipe
from kappaflow.flows.standardization import Bounds, input_layers
from kappaflow.options import LinearKind

NODES = 100  # number of quadrature nodes


@recipe("invertible_network")
def invertible_network(
    features: int,
    *,
    depth: int = 4,
    linear: LinearKind = "svd",
    condition_number: float = 10.0,
    negative_slope: float = 0.2,
    smoothing: float = 0.3,
    bounds: Bounds = None,
    seed: int = 0,
) -> Flow:
    """Returns an invertible feed-forward network of square linear layers and leaky ReLUs.

    Each linear layer starts as a random rotation with a factor and a shift. They bring normal
    points back to mean 0 and variance 1 after the preceding leaky ReLU.

    Args:
        features: Number of features.
        depth: Number of linear layers.
        linear: "svd" bounds the condition number of each layer, see `SVDLinear`. "plain" uses any
            matrix, without a bound, see `Linear`.
        condition_number: Largest condition number of a linear layer, 1 or more; for "svd" only.
        negative_slope: Slope of the leaky ReLU for negative inputs, above 0.
        smoothing: Width of the rounded corner, see `LeakyReLU`. 0 keeps the corner sharp, and
            maximum likelihood trains badly with it.
        bounds: The domain of each feature, as for `kappaflow.real_nvp`.
        seed: Seed of the rotations.

    Note:
        The condition number of the network is at most the product over all layers. For a leaky
        ReLU it is at most the negative slope or its reciprocal, whichever is larger.

    Source:
        Koehler, Mehta, Risteski 2021; their lower bound on the depth also covers such maps.

    Example:
        >>> invertible_network(4, depth=2).sample(3).shape
        torch.Size([3, 4])
    """
    layers: list[Bijection] = input_layers(features, bounds)
    positive_int("depth", depth, "depth counts linear layers.")
    one_of("linear", linear, get_args(LinearKind))
    if finite_float("condition_number", condition_number) < 1:
        raise ArgumentError(f"'condition_number' should be at least 1, got {condition_number}.")
    generator = torch.Generator().manual_seed(natural_int("seed", seed))
    for number in range(depth):
        bend = LeakyReLU(negative_slope, smoothing=smoothing)
        mean, deviation = _moments_after(bend) if number else (0.0, 1.0)
        layer = _layer(features, linear, condition_number, 1 / deviation, generator)
        with torch.no_grad():
            layer.shift.copy_(-mean * layer.matrix().sum(1))
        layers += [bend, layer] if number else [layer]
    return Flow(StandardNormal(features), Chain(layers))


@torch.no_grad()
def _moments_after(bend: LeakyReLU) -> tuple[float, float]:
    """Returns the mean and deviation of a leaky ReLU applied to N(0, 1), by quadrature."""
    points, weights = (torch.from_numpy(numbers) for numbers in hermegauss(NODES))
    values, weights = bend(points[:, None])[0][:, 0], weights / weights.sum()
    mean = (weights * values).sum()
    return mean.item(), (weights * (values - mean).square()).sum().sqrt().item()


@torch.no_grad()
def _layer(
    features: int, linear: str, bound: float, gain: float, generator: torch.Generator
) -> Linear | SVDLinear:
    """Returns a linear layer whose matrix is a rotation times the gain."""
    if linear == "plain":
        layer = Linear(features)
        rotated(layer, generator)
        layer.weight.mul_(gain)
        return layer
    layer = SVDLinear(features, condition_bound=bound, free_scale=True)
    rotated(layer, generator)
    layer.log_scale.fill_(math.log(gain))
    return layer
