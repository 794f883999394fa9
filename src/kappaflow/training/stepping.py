"""One step of an optimizer: what every training does with a loss, whatever it is the loss of."""

import math

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn


def optimizer_of(
    module: nn.Module, *, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Returns the optimizer of all trainings, AdamW."""
    return torch.optim.AdamW(
        module.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True
    )


def clipped_step(
    fabric: Fabric,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Tensor,
    *,
    clip_norm: float,
) -> float | None:
    """Takes a step down the gradient of a loss, which is clipped to a norm.

    Args:
        fabric: The engine.
        module: Whose parameters the optimizer moves; their gradients are zero.
        optimizer: Takes the step.
        loss: A finite number with a graph.
        clip_norm: Largest norm of the gradient.

    Returns:
        The norm before it was clipped; None where it is not finite, and nothing was moved.
    """
    fabric.backward(loss)
    fabric.strategy.precision.unscale_gradients(optimizer)
    trained = [p for p in module.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in trained])  # pyright: ignore[reportArgumentType]
    if not torch.isfinite(norm):
        return None
    torch.nn.utils.clip_grads_with_norm_(trained, clip_norm, norm)
    optimizer.step()
    return norm.item()


def learning_rate_at(step: float, steps: int, *, highest: float, warmup: float) -> float:
    """Returns the learning rate of a step: a linear rise, then half a cosine to zero."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return highest * (step + 1) / rise
    return highest * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
