"""Lower limits for any flow of the shape: its conditioners, and their matrix products."""

import torch
from torch import nn

from benchmarks.row import Shape, conditioner


class Floor:
    """The conditioners alone as plain torch modules, all on the same input (B, kept).

    The input requires a gradient, because in a flow every conditioner but the first has to pass
    one on. The backward pass starts from a given gradient of the outputs.
    """

    def __init__(self, shape: Shape) -> None:
        self.module = nn.ModuleList(conditioner(shape.widths, nn.ReLU) for _ in range(shape.depth))
        self._x = shape.data()[:, : shape.kept].contiguous().requires_grad_()
        # About the size of the gradient of a mean over the rows.
        self._gradient = torch.full((shape.batch, shape.widths[-1]), 1 / shape.batch)

    def zero_grad(self) -> None:
        """Frees all gradients."""
        self.module.zero_grad()
        self._x.grad = None

    def forward_backward(self) -> None:
        """Runs all conditioners forward, then all backward, like a flow."""
        outputs = [network(self._x) for network in self.module]
        torch.autograd.backward(outputs, [self._gradient] * len(outputs))

    @torch.no_grad()
    def forward(self) -> None:
        """Runs all conditioners without storing anything for a backward pass."""
        for network in self.module:
            network(self._x)


class Products:
    """Only the matrix products of the conditioners, into existing buffers.

    Each layer has its own weights and gradients. The activations share buffers, so that they stay
    in the cache: this is a lower limit.
    """

    def __init__(self, shape: Shape) -> None:
        widths = shape.widths
        pairs = list(zip(widths[1:], widths, strict=False))
        self._weights = [[torch.randn(pair) * 0.1 for pair in pairs] for _ in range(shape.depth)]
        self._weight_gradients = [[torch.zeros(pair) for pair in pairs] for _ in self._weights]
        self._activations = [torch.randn(shape.batch, width) for width in widths]
        self._gradients = [torch.randn(shape.batch, width) for width in widths]

    @torch.no_grad()
    def forward(self) -> None:
        """Computes three products per coupling."""
        for weights in self._weights:
            for i, weight in enumerate(weights):
                torch.mm(self._activations[i], weight.t(), out=self._activations[i + 1])

    @torch.no_grad()
    def forward_backward(self) -> None:
        """Computes three products per coupling, then six: for the weights and for the inputs."""
        self.forward()
        layers = list(zip(self._weights, self._weight_gradients, strict=True))
        for weights, gradients in reversed(layers):
            for i in reversed(range(len(weights))):
                upper = self._gradients[i + 1]
                torch.mm(upper.t(), self._activations[i], out=gradients[i])
                torch.mm(upper, weights[i], out=self._gradients[i])
