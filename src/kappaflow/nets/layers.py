"""Helpers of networks for images: checks, memory layout, contexts, layers that start at zero."""

from typing import TypeVar

import torch
from torch import Tensor, nn

from kappaflow._checks import batch, natural_int, positive_int
from kappaflow.autograd.checkpoint import is_transformed
from kappaflow.errors import ArgumentError

M = TypeVar("M", bound=nn.Module)


class FirstLayer(nn.Module):
    """A 3x3 convolution of the input plus a linear map of the context, the same at all pixels."""

    def __init__(self, inputs: int, hidden: int, context_features: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.convolution = nn.Conv2d(inputs, hidden, 3, padding=1) if inputs else None
        self.context = context_map(context_features, hidden, bias=not inputs)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Returns a new tensor, (B, hidden, H, W), which may be changed in place."""
        shift, read = self.shift(x, context), self.convolution
        h = x.new_zeros(1, 1, *x.shape[2:]) if read is None else read(fast_layout(x))
        return h if shift is None else h + shift[:, :, None, None]

    def shift(self, x: Tensor, context: Tensor | None) -> Tensor | None:
        """Returns the linear map of the context, (B, hidden), or None without a context."""
        return context_shift(self.context, context, image("x", x, self.inputs).shape[0])


def image(name: str, x: Tensor, channels: int) -> Tensor:
    """Returns x if it has shape (B, channels, H, W), or raises an ArgumentError."""
    if x.dim() != 4 or x.shape[1] != channels:
        raise ArgumentError(
            f"'{name}' should have shape (batch, {channels}, height, width), got {tuple(x.shape)}."
        )
    return x


def fast_layout(x: Tensor) -> Tensor:
    """Returns x in the channels-last memory layout if this makes convolutions faster."""
    # Networks return the default layout, because mixing layouts is slow in a coupling.
    # `torch.func.vmap` does not support channels-last.
    faster = x.device.type == "cpu" and not is_transformed()
    return x.contiguous(memory_format=torch.channels_last) if faster else x


def context_map(context_features: int, hidden: int, *, bias: bool) -> nn.Linear | None:
    """Returns a linear map from contexts to hidden channels, or None without a context."""
    return nn.Linear(context_features, hidden, bias=bias) if context_features else None


def context_shift(by: nn.Linear | None, context: Tensor | None, rows: int) -> Tensor | None:
    """Returns the linear map of a checked context, (B, hidden), or None without a context."""
    if by is None and context is None:
        return None
    if by is None:
        raise ArgumentError(
            "'context' should be None, got a tensor: the network was made with context_features=0."
        )
    if context is None:
        raise ArgumentError(f"'context' should be given, of shape (batch, {by.in_features}).")
    if batch("context", context, (by.in_features,)).shape[0] != rows:
        raise ArgumentError(f"'context' should have {rows} rows, as 'x' has, got {len(context)}.")
    return by(context)


class ReadingNetwork(nn.Module):
    """A network with its widths; it has something to read, an input or a context."""

    def __init__(self, inputs: int, outputs: int, context_features: int) -> None:
        super().__init__()
        self.inputs = natural_int("inputs", inputs)
        self.outputs = positive_int("outputs", outputs)
        self.context_features = natural_int("context_features", context_features)
        width = self.inputs + self.context_features
        positive_int("inputs + context_features", width, "a network needs something to read.")


def zeroed(module: M) -> M:
    """Returns the module after setting its parameters to zero."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
