"""Finds the layer that first returns a value that is not finite."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kappaflow.conditioning import Layer, layers_of
from kappaflow.conditioning.points import joined_points
from kappaflow.conditioning.round_trip import first_not_finite
from kappaflow.data.batches import Batch
from kappaflow.flows import Flow


@torch.no_grad()
def first_nonfinite_layer(flow: Flow, rows: Batch) -> str:
    """Returns as text the layer at which a training step stopped being finite."""
    # If all values are finite, it is the last layer whose gradient is not: gradients propagate
    # from the latent to the data.
    x = flow.standardization(joined_points(flow, rows.x))[0]
    if not torch.isfinite(x).all():
        return "the data"
    layers = layers_of(flow.core, rows.context)
    for layer in layers:
        x, log_det = layer.bijection(x, layer.context)
        if not (torch.isfinite(x).all() and torch.isfinite(log_det).all()):
            return f"layer {layer.name}"
    if not torch.isfinite(flow.base.log_prob(x)).all():
        return "the log-density of the latents"
    return _blame_gradient(layers)


@torch.no_grad()
def first_nonfinite_layer_of_samples(flow: Flow, z: Tensor) -> str:
    """Returns the same for a step at samples of the base (B, *event), without a context."""
    layers = layers_of(flow.core)
    fault = first_not_finite(layers, z, from_latent=True)
    return _blame_gradient(layers) if fault is None else f"layer {fault}"


def _blame_gradient(layers: Sequence[Layer]) -> str:
    """Returns the last layer whose gradient is not finite, if there is one."""
    has_gradients = False
    for layer in reversed(layers):
        gradients = [p.grad for p in layer.bijection.parameters() if p.grad is not None]
        if any(not torch.isfinite(gradient).all() for gradient in gradients):
            return f"the gradient of layer {layer.name}"
        has_gradients = has_gradients or bool(gradients)
    return (
        "the sum over the batch" if has_gradients else "a value that is finite when computed again"
    )
