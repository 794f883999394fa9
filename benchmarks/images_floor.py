"""A lower limit for any Glow of the shape: its networks."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.row import ImageShape


@dataclass(frozen=True)
class _Place:
    """A network of the flow with its input and the gradient of its output."""

    network: nn.Module
    x: Tensor
    gradient: Tensor


class ImageFloor:
    """Only the networks of a Glow, as plain modules, on images in channels-first layout.

    There is a network for each coupling and one for each learned prior of factored-out channels.
    Each has an input of the right shape that requires a gradient, as in a flow. The backward pass
    starts from given gradients of the outputs.
    """

    def __init__(self, shape: ImageShape) -> None:
        self._places = list(_places(shape))
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


def _places(shape: ImageShape) -> Iterator[_Place]:
    for channels, (height, width), couplings in shape.scales():
        kept = channels // 2
        for _ in range(couplings):
            outputs = 2 * (channels - kept)
            network = shape.network(kept, outputs)
            x = torch.randn(shape.batch, kept, height, width, requires_grad=True)
            # About the size of the gradient of a mean over the rows.
            gradient = torch.full((shape.batch, outputs, height, width), 1 / shape.batch)
            yield _Place(network, x, gradient)
