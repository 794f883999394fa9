"""Fully connected conditioner networks of residual blocks."""

import torch
from torch import Tensor, nn
from torch.nn.functional import sigmoid

from kappaflow._checks import natural_int, positive_int
from kappaflow.nets.activations import activation_of
from kappaflow.nets.layers import check_something_to_read, zeroed
from kappaflow.registry import register


@register("ResidualMLP")
class ResidualMLP(nn.Module):
    """A linear layer, residual blocks, and a linear layer that starts at zero.

    A block adds to its input what two linear layers make of it, each after an activation. With
    `gated`, what a block adds is multiplied by the sigmoid of a linear map of the context.

    Args:
        inputs: Width of the input; 0 where only the context speaks.
        outputs: Width of the output.
        hidden: Width of all hidden layers.
        blocks: How many residual blocks.
        context_features: Width of the context, which is read beside the input.
        gated: Have the context say how much of each block is added, too.
        activation: As in `MLP`.
        slope: Of "leaky_relu" below zero.

    Attributes:
        layers: The first layer, two for each block, and the last.
        gates: A linear map of the context for each block; None without.

    Raises:
        ArgumentError: A width is out of its range, or nothing is left to read.

    Source:
        He et al. 2016, with the activation first; nflows, whose networks these are.

    Example:
        >>> ResidualMLP(3, 2, 16)(torch.ones(4, 3)).abs().max().item()
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
        gated: bool = False,
        activation: str = "relu",
        slope: float = 0.01,
    ) -> None:
        super().__init__()
        self.inputs = natural_int("inputs", inputs)
        self.outputs = positive_int("outputs", outputs)
        self.context_features = natural_int("context_features", context_features)
        check_something_to_read(self.inputs, self.context_features)
        self.activation, self._activate = activation, activation_of(activation, slope)
        width, count = positive_int("hidden", hidden), 2 * natural_int("blocks", blocks)
        widths = [self.inputs + self.context_features, *[width] * (1 + count), self.outputs]
        self.layers = nn.ModuleList(
            nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.gates = None
        if gated:
            width_of_context = positive_int("context_features", self.context_features)
            self.gates = nn.ModuleList(nn.Linear(width_of_context, width) for _ in range(blocks))
        zeroed(self.layers[-1])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns (B, outputs) for inputs (B, inputs) and contexts (B, context_features)."""
        first, *inner = self.layers[:-1]
        h = first(x if context is None else torch.cat((x, context), dim=1))
        for block, (one, two) in enumerate(zip(inner[::2], inner[1::2], strict=True)):
            change = two(self._activate(one(self._activate(h))))
            if self.gates is not None:
                change = change * sigmoid(self.gates[block](context))
            h = h + change
        return self.layers[-1](h)

    def extra_repr(self) -> str:
        return f"context_features={self.context_features}, activation={self.activation!r}"
