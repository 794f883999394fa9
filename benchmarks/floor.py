"""What no flow of the shape can do without: its conditioners, and the products inside them."""

import torch
from torch import nn

from benchmarks.row import Shape, conditioner


class Floor:
    """The conditioners alone as plain torch modules, all on the same input (B, kept).

    The input asks for its gradient too: in a flow every conditioner but the first has to pass one
    on. The backward pass starts from a ready gradient of the outputs.
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
        """Runs all conditioners, then all backward, as a flow would."""
        outputs = [network(self._x) for network in self.module]
        torch.autograd.backward(outputs, [self._gradient] * len(outputs))

    @torch.no_grad()
    def forward(self) -> None:
        """Runs all conditioners, keeping nothing."""
        for network in self.module:
            network(self._x)


class Products:
    """The matrix products of the conditioners into buffers that are there, and nothing else.

    Weights and their gradients are each layer's own; the activations are not, so that they stay in
    the cache: a lower limit.
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
        """Three products a coupling."""
        for weights in self._weights:
            for i, weight in enumerate(weights):
                torch.mm(self._activations[i], weight.t(), out=self._activations[i + 1])

    @torch.no_grad()
    def forward_backward(self) -> None:
        """Three products a coupling, then six: for the weights and for the inputs."""
        self.forward()
        layers = list(zip(self._weights, self._weight_gradients, strict=True))
        for weights, gradients in reversed(layers):
            for i in reversed(range(len(weights))):
                upper = self._gradients[i + 1]
                torch.mm(upper.t(), self._activations[i], out=gradients[i])
                torch.mm(upper, weights[i], out=self._gradients[i])
