"""Fingerprints: how accurately states are recovered from the output of a segment.

A fingerprint is the projection of each row of a state on a fixed random direction. An error of a
row, in any direction, changes it by the size of the error times a standard normal number.
"""

import functools
import math

import torch
from torch import Tensor

LARGEST_ERROR = 1e-4  # largest relative error of a recovered state that is accepted


def direction_for(x: Tensor) -> Tensor:
    """Returns the direction of fingerprints: N(0, 1) of a fixed seed, in float32 or wider."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    return random_direction(math.prod(x.shape[1:]), dtype, x.device)


@functools.lru_cache(maxsize=64)
def random_direction(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns a fixed vector of N(0, 1) entries, so that projections show errors of any kind."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(size, generator=generator, dtype=torch.float64, device="cpu")
    return drawn.to(device, dtype)


def fingerprint(x: Tensor, direction: Tensor) -> Tensor:
    """Returns the fingerprint of each row of x, which is its product with the direction."""
    # Not a matrix product, which autocast and TF32 would round.
    return (x.flatten(1) * direction).sum(1)


def relative_error(recovered: Tensor, kept: Tensor) -> Tensor:
    """Returns the largest of |found - kept| / |kept| over the rows, in the maximum norm.

    For a row smaller than the median size, the error is relative to the median size.
    """
    sum_dtype = torch.promote_types(kept.dtype, torch.float32)
    difference = (recovered.to(sum_dtype) - kept.to(sum_dtype)).abs().flatten(1)
    size = kept.to(sum_dtype).abs().flatten(1)
    if not kept.numel():
        return size.sum()
    return _worst(difference.amax(1), size.amax(1))


def fingerprint_errors(recovered: Tensor, kept: Tensor) -> Tensor:
    """Returns the `relative_error` of the fingerprints, (n, B), of each of n layers, (n,)."""
    return _worst((recovered - kept).abs(), kept.abs()) if kept.numel() else kept.sum(1)


def _worst(difference: Tensor, size: Tensor) -> Tensor:
    """Returns the largest relative difference over the rows, for tensors (..., B)."""
    typical = size.median(-1, keepdim=True).values
    typical = torch.where(typical > 0, typical, size.mean(-1, keepdim=True))
    scale = torch.maximum(size, typical).clamp_min(torch.finfo(size.dtype).tiny)
    return (difference / scale).amax(-1)


def error_text(layer: str, error: float, first: int, last: int, *, inverse: bool = False) -> str:
    """Returns the warning that a segment stores the inputs of its layers from now on."""
    of = "the inverse of " if inverse else ""
    many = last > first
    layers = f"layers {first} to {last} keep their" if many else f"layer {first} keeps its"
    return (
        f"memory='invert': the input of {of}layer {layer} was recovered with a relative error of "
        f"{error:.1g} (limit {LARGEST_ERROR:.0e}), so {of}{layers} inputs from now on, as with "
        "memory='recompute'. The gradients are exact. Either a layer is ill-conditioned, or its "
        "network rounds differently or draws other random numbers in the inverse direction: "
        "kappaflow.doctor finds the cause. memory='recompute' avoids the attempt."
    )
