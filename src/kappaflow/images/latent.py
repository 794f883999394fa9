"""Reconstruction of points from their latents."""

import torch
from torch import Tensor

from kappaflow.errors import ArgumentError
from kappaflow.flows.eval_mode import evaluation_mode
from kappaflow.flows.flow import Flow
from kappaflow.flows.rows import flatten_batch


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
    if not isinstance(flow, Flow):
        raise ArgumentError(f"'flow' should be a Flow, got {type(flow).__name__}.")
    with evaluation_mode(flow):
        batch_shape, rows, context = flatten_batch(flow, x, context)
        joined = flow.augmented(rows, generator=torch.Generator().manual_seed(0))
        z = flow.bijection(joined, context)[0]
        back = flow.drop_augmentation(flow.bijection.inverse(z, context)[0])
        return back.reshape(*batch_shape, *flow.event_shape)
