"""Slopes of increasing maps: positive numbers, and their logarithms."""

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

SHIFT = math.log(math.e - 1)


def positive(raw: Tensor) -> Tensor:
    """Returns a positive number for each raw one: a softplus that is 1 at 0."""
    return softplus(raw + SHIFT)


def log_slope(excess: Tensor, slope: Tensor) -> Tensor:
    """Returns log(slope) of slope = 1 + excess, given both, from the one that is more accurate.

    Sums over many layers are as small as they should be where each is nearly the identity.
    """
    return torch.where(excess > -0.5, excess.clamp(min=-0.5).log1p(), slope.log())
