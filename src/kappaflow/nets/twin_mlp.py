"""Two fully connected conditioner networks side by side, in the weights of one."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from kappaflow._checks import layer_widths, natural_int, positive_int
from kappaflow.errors import ArgumentError
from kappaflow.nets.activations import activation_of
from kappaflow.nets.layers import check_something_to_read, zeroed
from kappaflow.registry import register


@register("TwinMLP")
class TwinMLP(nn.Module):
    """Two networks of one shape that read the same and answer one after the other.

    Behind the first layer the two halves of a layer read nothing of each other: of its weights
    two blocks count, and the others are zero and stay so. A coupling has one network for scales
    and one for shifts this way.

    Args:
        inputs: Width of the input; 0 where only the context speaks.
        outputs: Width of the output, an even number: half of it is answered by each.
        hidden: Widths of the hidden layers, even numbers, half of each for either network.
        context_features: Width of the context, which is read beside the input.
        activation: As in `MLP`.
        slope: Of "leaky_relu" below zero.

    Raises:
        ArgumentError: A width is out of its range or odd, or nothing is left to read.

    Source:
        normflows' `MaskedAffineFlow` and FrEIA's `RNVPCouplingBlock`, after Dinh, Sohl-Dickstein,
        Bengio 2017 (RealNVP).

    Example:
        >>> TwinMLP(3, 4, (16, 16))(torch.ones(2, 3)).abs().max().item()
        0.0
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: Sequence[int] = (128, 128),
        *,
        context_features: int = 0,
        activation: str = "relu",
        slope: float = 0.01,
    ) -> None:
        super().__init__()
        self.inputs = natural_int("inputs", inputs)
        self.outputs = positive_int("outputs", outputs)
        self.context_features = natural_int("context_features", context_features)
        check_something_to_read(self.inputs, self.context_features)
        self.activation, self._activate = activation, activation_of(activation, slope)
        inner = (*layer_widths(hidden), self.outputs)
        if any(width % 2 for width in inner):
            raise ArgumentError(
                f"'hidden' and 'outputs' should be even, got {inner}: each of the two "
                "networks has half."
            )
        widths = [self.inputs + self.context_features, *inner]
        self.layers = nn.ModuleList(
            nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False)
        )
        with torch.no_grad():
            for layer in self._linear()[1:]:
                (upper, left), (lower, right) = halves(layer.weight)
                layer.weight[upper, right] = 0
                layer.weight[lower, left] = 0
        zeroed(self.layers[-1])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns (B, outputs) for inputs (B, inputs) and contexts (B, context_features)."""
        first, *others = self._linear()
        h = first(x if context is None else torch.cat((x, context), dim=1))
        for layer in others:
            h, weight, bias = self._activate(h), layer.weight, layer.bias
            parts = [linear(h[:, c], weight[r, c], bias[r]) for r, c in halves(weight)]
            h = torch.cat(parts, dim=1)
        return h

    def _linear(self) -> list[nn.Linear]:
        return list(self.layers)  # pyright: ignore[reportReturnType]

    def extra_repr(self) -> str:
        return f"context_features={self.context_features}, activation={self.activation!r}"


def halves(weight: Tensor) -> tuple[tuple[slice, slice], ...]:
    """Returns the rows and columns of the two blocks of a weight that count."""
    rows, columns = (size // 2 for size in weight.shape)
    upper, lower = slice(0, rows), slice(rows, 2 * rows)
    return (upper, slice(0, columns)), (lower, slice(columns, 2 * columns))
