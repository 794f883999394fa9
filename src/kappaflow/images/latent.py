"""Reconstruction and interpolation through the latent space."""

import torch
from torch import Tensor

from kappaflow._checks import positive_int
from kappaflow.errors import ArgumentError
from kappaflow.flows.eval_mode import evaluation_mode
from kappaflow.flows.flow import Flow
from kappaflow.flows.rows import flatten_batch

PARALLEL = 1e-4  # angle in radians below which the arc between two latents is taken as a line


@torch.no_grad()
def reconstruct(flow: Flow, x: Tensor, context: Tensor | None = None) -> Tensor:
    """Returns points mapped to the latent and back, which is x up to rounding.

    With an augmentation, the points are joined with a sample of it first, and it is dropped
    afterwards. The random numbers are the same in each call. Dequantized pixels come back as whole
    numbers, so they are restored exactly unless rounding moved one into the next interval.

    Args:
        flow: The flow, which is used in evaluation mode; its own mode does not change.
        x: Points, (*batch, *event).
        context: Context, (*batch, C), for a conditional flow.

    Returns:
        The reconstructed points, (*batch, *event).

    Raises:
        ArgumentError: A shape, type or device does not fit, or a context is missing or unexpected.

    Example:
        >>> import kappaflow as kf
        >>> pixels = {"dequantize": "uniform", "values": 9}
        >>> flow = kf.glow((1, 4, 4), levels=1, steps=1, hidden=4, pixels=pixels)
        >>> x = torch.arange(16.0).reshape(1, 1, 4, 4) % 9
        >>> bool((reconstruct(flow, x) == x).all())
        True
    """
    with evaluation_mode(_checked(flow)):
        batch_shape, rows, context = flatten_batch(flow, x, context)
        back = flow.bijection.inverse(_latent(flow, rows, context), context)[0]
        return flow.drop_augmentation(back).reshape(*batch_shape, *flow.event_shape)


@torch.no_grad()
def interpolate(
    flow: Flow,
    a: Tensor,
    b: Tensor,
    steps: int = 8,
    *,
    context: Tensor | None = None,
) -> Tensor:
    """Returns points between a and b on a path through the latent space, both ends included.

    Nearly all samples of a normal distribution in many dimensions have about the same length. The
    middle of a straight line between two of them is much shorter; an arc keeps the length.

    Args:
        flow: The flow, which is used in evaluation mode; its own mode does not change.
        a: First points, (B, *event).
        b: Last points, (B, *event).
        steps: Number of points on each path, 2 or more.
        context: Context, (B, C), for a conditional flow; the same at all steps.

    Returns:
        The points, (steps, B, *event). The first and the last are `reconstruct` of a and b.

    Raises:
        ArgumentError: There are fewer than 2 steps, a and b have different shapes, or one of them
            or the context does not fit the flow.

    Source:
        White 2016, Sampling generative networks, for the arc.

    Example:
        >>> import kappaflow as kf
        >>> flow = kf.glow((1, 4, 4), levels=1, steps=1, hidden=4)
        >>> interpolate(flow, torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4), 5).shape
        torch.Size([5, 2, 1, 4, 4])
    """
    if positive_int("steps", steps) < 2:
        raise ArgumentError(f"'steps' should be at least 2, both ends included, got {steps}.")
    with evaluation_mode(_checked(flow)):
        shape, first, rows_context = flatten_batch(flow, a, context)
        other, second, _ = flatten_batch(flow, b, context)
        if len(shape) != 1 or shape != other:
            raise ArgumentError(
                f"'a' and 'b' should each be one batch with the same number of points, got "
                f"leading shapes {tuple(shape)} and {tuple(other)}."
            )
        start, end = _latent(flow, first, rows_context), _latent(flow, second, rows_context)
        fractions = [step / (steps - 1) for step in range(steps)]
        points = [
            flow.drop_augmentation(flow.bijection.inverse(_arc(start, end, t), rows_context)[0])
            for t in fractions
        ]
        return torch.stack(points)


def _latent(flow: Flow, rows: Tensor, context: Tensor | None) -> Tensor:
    """Returns the latents of rows, joined with an augmentation from a fixed seed."""
    joined = flow.augmented(rows, generator=torch.Generator().manual_seed(0))
    return flow.bijection(joined, context)[0]


def _arc(start: Tensor, end: Tensor, fraction: float) -> Tensor:
    """Returns points on the arcs between two batches of latents, (B, *latent)."""
    if fraction in (0, 1):
        return end if fraction else start
    first, second = start.flatten(1).double(), end.flatten(1).double()
    cosine = torch.nn.functional.cosine_similarity(first, second, dim=1, eps=1e-12)
    angle = cosine.clamp(-1, 1).arccos()[:, None]
    # Opposite latents have no unique arc, and parallel latents need none.
    bent = (angle > PARALLEL) & (angle < torch.pi - PARALLEL)
    safe = torch.where(bent, angle, 1.0)
    arc = ((1 - fraction) * safe).sin() * first + (fraction * safe).sin() * second
    result = torch.where(bent, arc / safe.sin(), torch.lerp(first, second, fraction))
    return result.to(start.dtype).reshape(start.shape)


def _checked(flow: object) -> Flow:
    if not isinstance(flow, Flow):
        raise ArgumentError(f"'flow' should be a Flow, got {type(flow).__name__}.")
    return flow
