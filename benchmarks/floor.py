"""Lower limits for any flow of a shape: its networks, and their matrix products."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.row import ImageShape, Shape, conditioner


@dataclass(frozen=True)
class Place:
    """A network of a flow with its input and the gradient of its output.

    The input requires a gradient, because in a flow every network but the first passes one on.
    """

    network: nn.Module
    x: Tensor
    gradient: Tensor


class Floor:
    """Only the networks of a flow, as plain torch modules.

    The backward pass starts from given gradients of the outputs.
    """

    def __init__(self, places: Iterable[Place]) -> None:
        self._places = list(places)
        self.module = nn.ModuleList(place.network for place in self._places)

    def zero_grad(self) -> None:
        """Frees all gradients."""
        self.module.zero_grad()
        for place in self._places:
            place.x.grad = None

    def forward_backward(self) -> None:
        """Runs all networks forward, then all backward, like a flow."""
        outputs = [place.network(place.x) for place in self._places]
        torch.autograd.backward(outputs, [place.gradient for place in self._places])

    @torch.no_grad()
    def forward(self) -> None:
        """Runs all networks without storing anything for a backward pass."""
        for place in self._places:
            place.network(place.x)


def coupling_floor(shape: Shape, activation: type[nn.Module] = nn.ReLU) -> Floor:
    """Returns the conditioners of couplings, all on the same input (B, kept)."""
    networks = [conditioner(shape.widths, activation) for _ in range(shape.depth)]
    x = shape.data()[:, : shape.kept].contiguous().requires_grad_()
    gradient = _gradient(shape.batch, shape.widths[-1])
    return Floor(Place(network, x, gradient) for network in networks)


def image_floor(shape: ImageShape) -> Floor:
    """Returns the networks of a Glow, on images in channels-first layout.

    There is a network for each coupling and one for each learned prior of factored-out channels.
    """
    places = []
    for channels, sides, couplings in shape.scales():
        kept = channels // 2
        for _ in range(couplings):
            outputs = 2 * (channels - kept)
            network = shape.network(kept, outputs)
            x = torch.randn(shape.batch, kept, *sides, requires_grad=True)
            places.append(Place(network, x, _gradient(shape.batch, outputs, *sides)))
    return Floor(places)


def _gradient(batch: int, *shape: int) -> Tensor:
    """Returns gradients of about the size of those of a mean over the rows."""
    return torch.full((batch, *shape), 1 / batch)


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
