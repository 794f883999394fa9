"""Which layer a value that is not finite comes from."""

import torch

from kappaflow.conditioning import layers_of
from kappaflow.conditioning.points import joined_points
from kappaflow.flows import Flow
from kappaflow.training.rows import Rows


@torch.no_grad()
def blame(flow: Flow, rows: Rows) -> str:
    """Returns the layer at which a step went wrong, in words.

    The first layer that turns finite values into others; if the values are finite, the last layer
    whose gradient is not, since gradients travel from the latent to the data.
    """
    x = flow.units(joined_points(flow, rows.x))[0]
    if not torch.isfinite(x).all():
        return "the data"
    layers = layers_of(flow.core, rows.context)
    for layer in layers:
        x, log_det = layer.bijection(x, layer.context)
        if not (torch.isfinite(x).all() and torch.isfinite(log_det).all()):
            return f"layer {layer.name}"
    for layer in reversed(layers):
        gradients = [p.grad for p in layer.bijection.parameters() if p.grad is not None]
        if any(not torch.isfinite(gradient).all() for gradient in gradients):
            return f"the gradient of layer {layer.name}"
    return "the sum over the batch"
