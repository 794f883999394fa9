"""One training for all libraries: Adam on new draws at each step, the rate falling to zero."""

import torch
from torch import Tensor

from kappaflow.conditioning.layers import layers_of
from kappaflow.flows import Flow
from kappaflow_studies.depth_conditioning.laws import Law


def train(
    flow: Flow, law: Law, *, steps: int, batch: int, rate: float, generator: torch.Generator
) -> int | None:
    """Trains a flow in place, in the type of its numbers.

    Args:
        flow: With a plain `log_prob`.
        law: Draws are made at each step: nothing can be learnt by heart.
        steps: Of Adam.
        batch: Draws of a step.
        rate: Learning rate at the start; it falls to zero as half a cosine.
        generator: Of the draws.

    Returns:
        The step at which a loss or a gradient was not finite, where training ended; None for none.
    """
    parameters = [parameter for parameter in flow.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    flow.train()
    for step in range(steps):
        optimizer.zero_grad()
        loss = -flow.log_prob(law.sample(batch, generator).to(flow.dtype)).mean()
        loss.backward()
        if not _finite(loss, parameters):
            return step
        optimizer.step()
        schedule.step()
    return None


def gradient_norms(flow: Flow, x: Tensor) -> list[float]:
    """Returns the norm of the gradient of -log p by the parameters of each layer that has some."""
    flow.zero_grad()
    (-flow.log_prob(x).mean()).backward()
    norms = []
    for layer in layers_of(flow.bijection):
        parts = [p.grad.square().sum() for p in layer.bijection.parameters() if p.grad is not None]
        if parts:
            norms.append(torch.stack(parts).sum().sqrt().item())
    flow.zero_grad()
    return norms


def _finite(loss: Tensor, parameters: list[torch.nn.Parameter]) -> bool:
    gradients = [p.grad for p in parameters if p.grad is not None]
    return bool(torch.isfinite(loss)) and all(bool(g.isfinite().all()) for g in gradients)
