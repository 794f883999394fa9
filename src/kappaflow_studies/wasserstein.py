"""Exact Wasserstein distances between two samples of one size."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def wasserstein(first: Tensor, second: Tensor, *, order: int) -> float:
    """Returns W1 or W2 between two equally large samples (B, n) with equal weights.

    It is above zero even for two samples of one distribution: compare it with this floor. The best
    matching is an optimal transport plan (Birkhoff). 2,000 points need about a second.
    """
    mode = "donot_use_mm_for_euclid_dist"
    costs = torch.cdist(first.double(), second.double(), compute_mode=mode).pow(order).numpy()
    rows, columns = linear_sum_assignment(costs)
    return float(costs[rows, columns].mean()) ** (1 / order)
