"""Convolutional conditioner networks of any depth: residual blocks."""

import torch
from torch import Tensor, nn

from kappaflow._checks import natural_int, positive_int
from kappaflow.nets.layers import FirstLayer, check_something_to_read, zeroed
from kappaflow.registry import register


class ResidualBlock(nn.Module):
    """h + Conv3x3(ReLU(Conv3x3(ReLU(h)))); the second convolution starts at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = zeroed(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, h: Tensor) -> Tensor:
        """Returns (B, channels, H, W), a new tensor."""
        # In place, since a convolution's derivatives do not ask for its answer.
        change = self.second(torch.relu_(self.first(torch.relu(h))))
        return change.add_(h)


@register("ResidualConvNet")
class ResidualConvNet(nn.Module):
    """A 3x3 convolution, residual blocks, ReLU, and a 1x1 convolution that starts at zero.

    A block adds to its input what two 3x3 convolutions make of it, each after a ReLU. The second
    one starts at zero too, so that at first a block changes nothing, however many follow each
    other. Each place of the output sees the places at most 1 + 2 * blocks away. Edges are padded
    with zeros, so that images of any height and width are taken.

    Args:
        inputs: Channels of the input; 0 where only the context speaks.
        outputs: Channels of the output.
        hidden: Channels of all hidden layers.
        blocks: How many residual blocks.
        context_features: Width of the context, of which a linear map is added to the first hidden
            layer, the same at all places.

    Raises:
        ArgumentError: A width is out of its range, or nothing is left to read.

    Note:
        RealNVP's own blocks have batch norm, which would make a row depend on the others.

    Source:
        Dinh, Sohl-Dickstein, Bengio 2017 (RealNVP); He et al. 2016 for the order within a block.

    Example:
        >>> net = ResidualConvNet(3, 6, 16, blocks=3)
        >>> net(torch.ones(2, 3, 5, 4)).shape
        torch.Size([2, 6, 5, 4])
        >>> net(torch.ones(2, 3, 5, 4)).abs().max().item()
        0.0
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: int = 64,
        *,
        blocks: int = 2,
        context_features: int = 0,
    ) -> None:
        super().__init__()
        self.inputs = natural_int("inputs", inputs)
        self.outputs = positive_int("outputs", outputs)
        self.hidden = positive_int("hidden", hidden)
        self.context_features = natural_int("context_features", context_features)
        check_something_to_read(self.inputs, self.context_features)
        self.first = FirstLayer(self.inputs, self.hidden, self.context_features)
        count = natural_int("blocks", blocks)
        self.blocks = nn.ModuleList(ResidualBlock(self.hidden) for _ in range(count))
        self.last = zeroed(nn.Conv2d(self.hidden, self.outputs, 1))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns (B, outputs, H, W) for x (B, inputs, H, W), context (B, context_features)."""
        h = self.first(x, context)
        for block in self.blocks:
            h = block(h)
        return self.last(torch.relu_(h)).contiguous()

    def extra_repr(self) -> str:
        return f"context_features={self.context_features}"
