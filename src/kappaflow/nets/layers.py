"""What the networks for images share: checks, layout, contexts, layers that start at zero."""

from typing import TypeVar

import torch
from torch import Tensor, nn

from kappaflow._checks import batch, positive_int
from kappaflow.autograd.checkpoint import is_transformed
from kappaflow.errors import ArgumentError

M = TypeVar("M", bound=nn.Module)


class FirstLayer(nn.Module):
    """A 3x3 convolution of the input, plus a linear map of the context that is added everywhere.

    Args:
        inputs: Channels of the input; 0 where only the context speaks.
        hidden: Channels of the answer.
        context_features: Width of the context; 0 for none.
    """

    def __init__(self, inputs: int, hidden: int, context_features: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.convolution = nn.Conv2d(inputs, hidden, 3, padding=1) if inputs else None
        self.context = context_map(context_features, hidden, bias=not inputs)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Returns (B, hidden, H, W), a new tensor that autograd lets be changed in place."""
        shift, read = self.shift(x, context), self.convolution
        h = x.new_zeros(1, 1, *x.shape[2:]) if read is None else read(fast_layout(x))
        return h if shift is None else h + shift[:, :, None, None]

    def shift(self, x: Tensor, context: Tensor | None) -> Tensor | None:
        """Returns what the context adds, (B, hidden), or None; refuses what does not fit."""
        return context_shift(self.context, context, len(image("x", x, self.inputs)))


def image(name: str, x: Tensor, channels: int) -> Tensor:
    """Returns `x` if it has shape (B, channels, H, W), or raises ArgumentError."""
    if x.dim() != 4 or x.shape[1] != channels:
        raise ArgumentError(
            f"'{name}' should have shape (batch, {channels}, height, width), got {tuple(x.shape)}."
        )
    return x


def fast_layout(x: Tensor) -> Tensor:
    """Returns x with its channels side by side in memory, where that makes convolutions faster.

    On a CPU it does: `python -m benchmarks convolutions`. The convolutions that follow answer in
    the same layout, and convert their weights, which are small. A network lays its last answer out
    as usual again, since a coupling would otherwise mix the two layouts, number by number. Batches
    of `torch.func.vmap` know no such layout.
    """
    faster = x.device.type == "cpu" and not is_transformed()
    return x.contiguous(memory_format=torch.channels_last) if faster else x


def context_map(context_features: int, hidden: int, *, bias: bool) -> nn.Linear | None:
    """Returns a linear map from contexts to hidden channels, or None where there is no context."""
    return nn.Linear(context_features, hidden, bias=bias) if context_features else None


def context_shift(by: nn.Linear | None, context: Tensor | None, rows: int) -> Tensor | None:
    """Returns what a context adds to the hidden channels, (B, hidden), or None without one."""
    if by is None and context is None:
        return None
    if by is None:
        raise ArgumentError(
            "'context' should be None, got a tensor: the network was made with context_features=0."
        )
    if context is None:
        raise ArgumentError(f"'context' should be given, of shape (batch, {by.in_features}).")
    if len(batch("context", context, (by.in_features,))) != rows:
        raise ArgumentError(f"'context' should have {rows} rows, as 'x' has, got {len(context)}.")
    return by(context)


def check_something_to_read(inputs: int, context_features: int) -> None:
    """Raises `ArgumentError` for a network that has neither an input nor a context."""
    why = "a network needs something to read."
    positive_int("inputs + context_features", inputs + context_features, why)


def zeroed(module: M) -> M:
    """Returns the module, its parameters set to zero in place."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
