"""Fully connected conditioner networks."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kappaflow._checks import layer_widths, natural_int, positive_int, share
from kappaflow.errors import ArgumentError
from kappaflow.nets.activations import activation_of
from kappaflow.nets.dropout import dropout as drop_out
from kappaflow.nets.dropout import levels_of
from kappaflow.registry import register


@register("MLP")
class MLP(nn.Module):
    """Linear layers with ReLU, or another activation, between them.

    The last one starts at zero, so the output does too.

    Args:
        inputs: Width of the input; 0 where only the context speaks.
        outputs: Width of the output.
        hidden: Widths of the hidden layers: (a, b) is Linear-ReLU-Linear-ReLU-Linear.
        context_features: Width of the context, which is read beside the input.
        residual: Add to each hidden layer the one before it, where both have the same width.
        dropout: Share of the hidden units that a training step leaves out; none in evaluation.
            0, or above 1/512: shares are rounded to multiples of 1/256.
        activation: "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "softplus", "tanh" or
            "sigmoid". Coupling stacks take "relu" alone.
        slope: Of "leaky_relu" below zero.

    Raises:
        ArgumentError: A width or the share is out of its range, there is no such activation, or
            nothing is left to read.

    Example:
        >>> MLP(3, 2, (16, 16))(torch.ones(4, 3)).abs().max().item()
        0.0
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: Sequence[int] = (128, 128),
        *,
        context_features: int = 0,
        residual: bool = False,
        dropout: float = 0.0,
        activation: str = "relu",
        slope: float = 0.01,
    ) -> None:
        super().__init__()
        self.inputs = natural_int("inputs", inputs)
        self.outputs = positive_int("outputs", outputs)
        self.context_features = natural_int("context_features", context_features)
        self.residual = residual
        self.activation, self._activate = activation, activation_of(activation, slope)
        self.dropout = share("dropout", dropout)
        if self.dropout and not levels_of(self.dropout):
            raise ArgumentError(
                f"'dropout' should be 0 or above 1/512, got {dropout}: "
                "shares are rounded to multiples of 1/256, this one to none."
            )
        widths = [self.inputs + self.context_features, *layer_widths(hidden), self.outputs]
        positive_int("inputs + context_features", widths[0], "a network needs something to read.")
        self.layers = nn.ModuleList(
            nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False)
        )
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns (B, outputs) for inputs (B, inputs) and contexts (B, context_features)."""
        h = x if context is None else torch.cat((x, context), dim=1)
        for layer in self.layers[:-1]:
            activated = self._activated(layer(h))
            h = h + activated if self.residual and h.shape == activated.shape else activated
        return self.layers[-1](h)

    def _activated(self, h: Tensor) -> Tensor:
        """Returns the activation of h, some units left out in training.

        The factors of dropout are 0 or more, and relu(f h) is f relu(h): with the factors first,
        what the next layer reads is all that relu needs for its derivative.
        """
        if self.activation == "relu":
            return self._activate(drop_out(h, self.dropout, training=self.training))
        return drop_out(self._activate(h), self.dropout, training=self.training)

    def extra_repr(self) -> str:
        activation = "" if self.activation == "relu" else f", activation={self.activation!r}"
        return (
            f"context_features={self.context_features}, residual={self.residual}, "
            f"dropout={self.dropout:g}{activation}"
        )
