"""Convolutional conditioners: ConvNet and ResidualConvNet."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from kappaflow._checks import natural_int, one_of, positive_int
from kappaflow.autograd.checkpoint import LAYER_MODES, is_transformed, modes_bypassed
from kappaflow.autograd.replay import has_autocast
from kappaflow.autograd.trace import differentiable_gradients
from kappaflow.nets.exact_type import has_hooks
from kappaflow.nets.layers import FirstLayer, ReadingNetwork, fast_layout, zeroed
from kappaflow.registry import register

Weights = Sequence[Tensor]  # weight and bias of each convolution
Hidden = Sequence[Tensor]  # the two hidden layers


def three_convolutions(x: Tensor, shift: Tensor | None, weights: Weights) -> Tensor:
    """Returns the output of convolutions 3x3, 1x1 and 3x3 with ReLU between them."""
    return last_convolution(hidden_layers(x, shift, weights), weights)


def _three_convolutions(x: Tensor, shift: Tensor | None, *weights: Tensor) -> tuple[Tensor]:
    return (three_convolutions(x, shift, weights),)


def hidden_layers(x: Tensor, shift: Tensor | None, weights: Weights) -> Hidden:
    """Returns both hidden layers of `three_convolutions`, each (B, hidden, H, W)."""
    first = conv2d(x, weights[0], weights[1], padding=1)
    # In place is safe, because the derivatives of a convolution do not need its output.
    first = torch.relu_(first if shift is None else first + shift[:, :, None, None])
    return first, torch.relu_(conv2d(first, weights[2], weights[3]))


def last_convolution(hidden: Hidden, weights: Weights) -> Tensor:
    """Returns the output of `three_convolutions` from its hidden layers, (B, outputs, H, W)."""
    return conv2d(hidden[1], weights[4], weights[5], padding=1)


def pulled_back(
    cotangent: Tensor,
    x: Tensor,
    shift: Tensor | None,
    weights: Weights,
    hidden: Hidden,
    *,
    leading: bool = True,
) -> tuple[Tensor, Tensor | None, *tuple[Tensor, ...]]:
    """Returns the cotangents of x, the shift and the weights, given that of the output."""
    first, second = hidden
    cotangent = cotangent.contiguous(memory_format=torch.channels_last)
    by, *last = _convolution_backward(cotangent, second, weights[4], 1)
    by, *middle = _convolution_backward(_masked(by, second), first, weights[2], 0)
    by = _masked(by, first)
    by_shift = None if shift is None else by.sum((2, 3))
    by, *begin = _convolution_backward(by, x, weights[0], 1, leading=leading)
    return by, by_shift, *begin, *middle, *last


class ThreeConvolutions(torch.autograd.Function):
    """`three_convolutions` as one node, which stores the hidden layers or recomputes them."""

    @staticmethod
    def forward(
        ctx: Any, again: bool, x: Tensor, shift: Tensor | None, *weights: Tensor
    ) -> Tensor:
        hidden = hidden_layers(x, shift, weights)
        ctx.save_for_backward(x, shift, *weights, *(() if again else hidden))
        return last_convolution(hidden, weights)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        x, shift, *rest = ctx.saved_tensors
        weights, hidden = tuple(rest[:6]), rest[6:]
        if torch.is_grad_enabled():
            inputs = (x, shift, *weights)
            return None, *differentiable_gradients(_three_convolutions, inputs, cotangents)
        hidden = hidden or hidden_layers(x, shift, weights)
        leading = ctx.needs_input_grad[1]
        return None, *pulled_back(cotangents[0], x, shift, weights, hidden, leading=leading)


def _convolution_backward(
    cotangent: Tensor, x: Tensor, weight: Tensor, padding: int, *, leading: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the cotangents of input (if `leading`), weight and bias of a convolution."""
    return torch.ops.aten.convolution_backward.default(
        cotangent,
        x,
        weight,
        [len(weight)],
        [1, 1],
        [padding, padding],
        [1, 1],
        False,
        [0, 0],
        1,
        [leading, True, True],
    )


def _masked(cotangent: Tensor, activated: Tensor) -> Tensor:
    """Returns the cotangent of the input of a ReLU, after writing it over `cotangent`."""
    backward = torch.ops.aten.threshold_backward.grad_input
    return backward(cotangent, activated, 0, grad_input=cotangent)


@register("ConvNet")
class ConvNet(ReadingNetwork):
    """Convolutions 3x3, 1x1 and 3x3 with ReLU between them; the last one starts at zero.

    Each pixel of the output sees the 5x5 pixels around it. Edges are padded with zeros, so images
    can have any height and width.

    Args:
        inputs: Channels of the input; 0 if the network reads only the context.
        outputs: Channels of the output.
        hidden: Channels of both hidden layers.
        context_features: Width of the context. A linear map of it is added to the first hidden
            layer, the same at all pixels.
        memory: Whether to "store" the hidden layers for the backward pass or to "recompute" them.
            The gradients are bit-identical.

    Raises:
        ArgumentError: A width is out of its range, or the network has nothing to read.

    Note:
        The code of Glow also has an activation norm after each hidden convolution and a learned
        factor on the last one, which are left out here.

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
        super().__init__(inputs, outputs, context_features)
        self.hidden = positive_int("hidden", hidden)
        self.memory = one_of("memory", memory, LAYER_MODES)
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
        """Returns whether `three_convolutions` computes the same as the single layers.

        Otherwise the layers must run one by one: with forward-mode AD, `torch.func` or autocast,
        and if a layer was replaced or has a hook.
        """
        if modes_bypassed() or is_transformed() or not self.inputs or x.is_meta:
            return False
        if has_autocast(x.device.type):
            return False
        if type(self.first) is not FirstLayer or has_hooks(self.first):
            return False
        paddings = zip(self._convolutions(), (1, 0, 1), strict=True)
        return all(_is_as_made(layer, padding) for layer, padding in paddings)

    def weights(self) -> list[Tensor]:
        """Returns weight and bias of each convolution, in the order of `three_convolutions`."""
        return [p for layer in self._convolutions() for p in (layer.weight, layer.bias)]

    def _convolutions(self) -> tuple[Any, ...]:
        return self.first.convolution, self.middle, self.last

    def extra_repr(self) -> str:
        return f"context_features={self.context_features}, memory={self.memory!r}"


def _is_as_made(layer: nn.Module, padding: int) -> bool:
    """Returns whether a layer is a plain convolution with a bias that keeps the image size."""
    return (
        type(layer) is nn.Conv2d
        and not has_hooks(layer)
        and layer.kernel_size == (2 * padding + 1, 2 * padding + 1)
        and layer.padding == (padding, padding)
        and layer.stride == layer.dilation == (1, 1)
        and (layer.groups, layer.padding_mode) == (1, "zeros")
        and layer.bias is not None
    )


class ResidualBlock(nn.Module):
    """h + Conv3x3(ReLU(Conv3x3(ReLU(h)))); the second convolution starts at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = zeroed(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, h: Tensor) -> Tensor:
        """Returns a new tensor, (B, channels, H, W)."""
        # In place is safe, because the derivatives of a convolution do not need its output.
        change = self.second(torch.relu_(self.first(torch.relu(h))))
        return change.add_(h)


@register("ResidualConvNet")
class ResidualConvNet(ReadingNetwork):
    """A 3x3 convolution, residual blocks, ReLU, and a 1x1 convolution that starts at zero.

    A block adds the output of two 3x3 convolutions, each after a ReLU, to its input. The second
    convolution starts at zero, so a new block is the identity. Each pixel of the output sees the
    pixels at most 1 + 2 * blocks away. Edges are padded with zeros, so images can have any height
    and width.

    Args:
        inputs: Channels of the input; 0 if the network reads only the context.
        outputs: Channels of the output.
        hidden: Channels of all hidden layers.
        blocks: Number of residual blocks.
        context_features: Width of the context. A linear map of it is added to the first hidden
            layer, the same at all pixels.

    Raises:
        ArgumentError: A width is out of its range, or the network has nothing to read.

    Note:
        The blocks of RealNVP also have batch norm. It is left out, because it would make a row
        depend on the others.

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
        super().__init__(inputs, outputs, context_features)
        self.hidden = positive_int("hidden", hidden)
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
