"""Bananas turned at random: a table of which the density is known, and no feature is special."""

import math

import numpy as np
import torch
from torch import Tensor

from kappaflow_studies import ensembles

BEND = 1.0  # of each banana


def bananas(n: int, features: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    r"""Returns points and their log-density, in float64.

    Pairs of features are bananas, :math:`(a, b + a^2 - 1)` of normal a and b, and all together are
    turned by one random rotation, the same for so many features.

    Args:
        n: How many.
        features: An even number.
        generator: Draws them.

    Returns:
        Points (n, features), and (n,) in nats. Their entropy is that of a standard normal: the
        bends and the rotation preserve volume.

    Example:
        >>> x, log_prob = bananas(5, 4, torch.Generator().manual_seed(0))
        >>> x.shape, log_prob.shape
        (torch.Size([5, 4]), torch.Size([5]))
    """
    z = torch.randn(n, features, dtype=torch.float64, generator=generator)
    bent = z.clone()
    bent[:, 1::2] += BEND * (z[:, ::2].square() - 1)
    turn = torch.from_numpy(np.ascontiguousarray(ensembles.draw("orthogonal", features, 0)))
    log_prob = -0.5 * z.square().sum(1) - 0.5 * features * math.log(2 * math.pi)
    return bent @ turn.mT, log_prob
