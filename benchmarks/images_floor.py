"""What no Glow of the shape can do without: its networks."""

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
    """The networks of a Glow alone as plain modules, on images channel by channel in memory.

    One for each coupling and one for each learned prior of what is factored out, each on an input
    of its own of the right shape, which asks for its gradient as in a flow. The backward pass
    starts from ready gradients of the outputs.
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
        """Runs all networks, then all backward, as a flow would."""
        outputs = [place.network(place.x) for place in self._places]
        torch.autograd.backward(outputs, [place.gradient for place in self._places])

    @torch.no_grad()
    def forward(self) -> None:
        """Runs all networks, keeping nothing."""
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
