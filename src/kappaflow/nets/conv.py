"""Convolutional conditioner networks: Glow's three layers."""

from typing import Any

import torch
from torch import Tensor, nn

from kappaflow._checks import natural_int, one_of, positive_int
from kappaflow.autograd.checkpoint import LAYER_MODES, is_transformed, modes_bypassed
from kappaflow.nets.as_made import has_hooks
from kappaflow.nets.conv_node import ThreeConvolutions
from kappaflow.nets.layers import FirstLayer, check_something_to_read, fast_layout, zeroed
from kappaflow.registry import register


@register("ConvNet")
class ConvNet(nn.Module):
    """Convolutions 3x3, 1x1, 3x3 with ReLU between them; the last one starts at zero.

    Each place of the output sees the 5x5 places around it. Edges are padded with zeros, so that
    images of any height and width are taken.

    Args:
        inputs: Channels of the input; 0 where only the context speaks.
        outputs: Channels of the output.
        hidden: Channels of both hidden layers.
        context_features: Width of the context, of which a linear map is added to the first hidden
            layer, the same at all places.
        memory: "store" or "recompute": whether the hidden layers are kept for the backward pass,
            or run again there. The gradients are the same, bit for bit.

    Raises:
        ArgumentError: A width is out of its range, or nothing is left to read.

    Note:
        Glow's own code has an activation norm after each hidden convolution, and a learned factor
        on the last one. Neither is in here.

    Source:
        Kingma, Dhariwal 2018 (Glow).

    Example:
        >>> net = ConvNet(3, 6, 16)
        >>> net(torch.ones(2, 3, 5, 4)).shape
        torch.Size([2, 6, 5, 4])
        >>> net(torch.ones(2, 3, 5, 4)).abs().max().item()
        0.0
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: int = 128,
        *,
        context_features: int = 0,
        memory: str = "store",
    ) -> None:
        super().__init__()
        self.inputs = natural_int("inputs", inputs)
        self.outputs = positive_int("outputs", outputs)
        self.hidden = positive_int("hidden", hidden)
        self.context_features = natural_int("context_features", context_features)
        self.memory = one_of("memory", memory, LAYER_MODES)
        check_something_to_read(self.inputs, self.context_features)
        self.first = FirstLayer(self.inputs, self.hidden, self.context_features)
        self.middle = nn.Conv2d(self.hidden, self.hidden, 1)
        self.last = zeroed(nn.Conv2d(self.hidden, self.outputs, 3, padding=1))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns (B, outputs, H, W) for x (B, inputs, H, W), context (B, context_features)."""
        if torch.is_grad_enabled() and self.is_plain(x):
            shift = self.first.shift(x, context)
            again, x = self.memory == "recompute", fast_layout(x)
            return ThreeConvolutions.apply(again, x, shift, *self.weights()).contiguous()
        relu = torch.relu if torch.is_grad_enabled() else torch.relu_
        h = relu(self.first(x, context))
        h = relu(self.middle(h))
        return self.last(h).contiguous()

    def is_plain(self, x: Tensor) -> bool:
        """Returns whether nobody need see the single layers: `three_convolutions` is all of it.

        Autograd has to under forward mode, `torch.func` and autocast, and where a layer was
        exchanged or has a hook.
        """
        if modes_bypassed() or is_transformed() or not self.inputs or x.is_meta or _rounds(x):
            return False
        if type(self.first) is not FirstLayer or has_hooks(self.first):
            return False
        paddings = zip(self._convolutions(), (1, 0, 1), strict=True)
        return all(_is_as_made(layer, padding) for layer, padding in paddings)

    def weights(self) -> list[Tensor]:
        """Returns weight and bias of each convolution, as `three_convolutions` takes them."""
        return [p for layer in self._convolutions() for p in (layer.weight, layer.bias)]

    def _convolutions(self) -> tuple[Any, ...]:
        return self.first.convolution, self.middle, self.last

    def extra_repr(self) -> str:
        return f"context_features={self.context_features}, memory={self.memory!r}"


def _is_as_made(layer: nn.Module, padding: int) -> bool:
    """Returns whether a layer is a plain convolution that answers for each place, with a bias."""
    return (
        type(layer) is nn.Conv2d
        and not has_hooks(layer)
        and layer.kernel_size == (2 * padding + 1, 2 * padding + 1)
        and layer.padding == (padding, padding)
        and layer.stride == layer.dilation == (1, 1)
        and (layer.groups, layer.padding_mode) == (1, "zeros")
        and layer.bias is not None
    )


def _rounds(x: Tensor) -> bool:
    """Returns whether autocast is at work where x lies."""
    return torch.is_autocast_enabled(x.device.type)
