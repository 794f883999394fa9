"""The optimizer of all trainings: its clipped steps and its learning rates."""

import math

import torch
from torch import Tensor, nn

from kappaflow.training.distributed import Engine


def optimizer_of(
    module: nn.Module, *, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Returns the optimizer of all trainings, AdamW."""
    return torch.optim.AdamW(
        module.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True
    )


def clipped_step(
    engine: Engine,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Tensor,
    *,
    clip_norm: float,
) -> float | None:
    """Takes a step along the gradient of a loss, clipped to a norm.

    Args:
        engine: Where the training runs, and in which precision.
        module: The module that is trained; its gradients are zero.
        optimizer: The optimizer of its parameters.
        loss: A finite number with a graph.
        clip_norm: Largest norm of the gradient.

    Returns:
        The norm before clipping; None if it is not finite, and then there was no step.
    """
    engine.backward(loss, optimizer)
    trained = [p for p in module.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in trained])  # pyright: ignore[reportArgumentType]
    if not torch.isfinite(norm):
        return None
    torch.nn.utils.clip_grads_with_norm_(trained, clip_norm, norm)
    engine.step(optimizer)
    return norm.item()


def learning_rate_at(step: float, steps: int, *, highest: float, warmup: float) -> float:
    """Returns the learning rate of a step: a linear rise, then half a cosine to zero."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return highest * (step + 1) / rise
    return highest * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
