"""A masked network: the outputs for each feature read the features before it."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from kappaflow._checks import positive_int
from kappaflow.nets.layers import zeroed
from kappaflow.nets.mlp import MLP, dropout
from kappaflow.registry import register


class MaskedLinear(nn.Linear):
    """A linear layer whose weight counts only where the mask, (outputs, inputs), is true."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.mask: Tensor
        self.register_buffer("mask", mask.to(self.weight), persistent=False)
        deviation = mask.sum(1, keepdim=True).clamp_min(1).rsqrt()  # LeCun et al. 1998
        self.weight = nn.Parameter(torch.randn(mask.shape) * deviation * self.mask)
        if not mask.any():  # a parameter that nothing reads would never be trained
            del self.weight
            self.register_buffer("weight", torch.zeros_like(self.mask), persistent=False)
        nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight * self.mask, self.bias)


@register("MaskedMLP")
class MaskedMLP(MLP):
    """An `MLP` whose outputs for feature i read the context and the features before i.

    Each hidden unit has a degree, the number of features that it may read. Degrees increase within
    a layer and are about equally frequent.

    Args:
        features: Number D of features.
        outputs: Number of outputs for each feature. The output, (B, outputs * D), has the first
            output for all features, then the second one for all, and so on.
        hidden: Widths of the hidden layers.
        context_features: Width of the context, which all units read.
        **options: `residual`, `dropout`, `activation` and `slope`, as in `MLP`; skip connections
            are between hidden layers only.

    Source:
        Germain, Gregor, Murray, Larochelle 2015, MADE: Masked autoencoder for distribution
        estimation. Hidden units of degree 0, which read only the context, are ours.

    Example:
        >>> MaskedMLP(3, 2, (16, 16)).layers[0].mask.sum(0)  # units that read each feature
        tensor([16.,  8.,  0.])
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        hidden: Sequence[int] = (128, 128),
        *,
        context_features: int = 0,
        **options: Any,
    ) -> None:
        self.features, count = positive_int("features", features), positive_int("outputs", outputs)
        super().__init__(
            features, features * count, hidden, context_features=context_features, **options
        )
        lowest = 1 if features > 1 and not context_features else 0
        degrees = [torch.tensor([*range(1, features + 1), *[0] * context_features])]
        degrees += [lowest + torch.arange(n) * (features - lowest) // n for n in hidden]
        degrees += [torch.arange(features).repeat(count)]
        self.layers = nn.ModuleList(MaskedLinear(a[:, None] >= b) for b, a in pairwise(degrees))
        zeroed(self.layers[-1])
        # Number of units of each hidden layer whose degree is at most 0, 1, ..., D - 1.
        counts = [torch.bincount(some, minlength=features).cumsum(0) for some in degrees[1:-1]]
        self.counts: list[list[int]] = [some.tolist() for some in counts]

    def skips(self, number: int) -> bool:
        return number > 0 and super().skips(number)

    def in_turn(
        self, x: Tensor, context: Tensor | None, solve: Callable[[int, Tensor], Tensor]
    ) -> Tensor:
        """Returns the columns that `solve` computes, each from its number and its outputs.

        Each unit is computed once. Of x, (B, D), only the shape and the dtype count.
        """
        layers: list[Any] = list(self.layers)
        weights = [layer.weight for layer in layers]
        weights[0] = weights[0].roll(self.context_features, 1)  # the context comes first here
        units = [[x[:, :0]] for _ in layers]  # what each layer reads, in its order
        units[0] += [] if context is None else [context]
        ones = [x.new_ones(x.shape[0], counts[-1]) for counts in self.counts]
        kept = [dropout(some, self.dropout, training=self.training) for some in ones]

        def read(number: int, rows: slice) -> Tensor:
            h = torch.cat(units[number], 1)
            return linear(h, weights[number][rows, : h.shape[1]], layers[number].bias[rows])

        for feature in range(self.features):
            for number, counts in enumerate(self.counts):
                rows = slice(counts[feature - 1] if feature else 0, counts[feature])
                new = self._activate(read(number, rows)) * kept[number][:, rows]
                before = self.counts[number - 1] if self.skips(number) else None
                units[number + 1].append(new + units[number][-1] if before == counts else new)
            units[0].append(solve(feature, read(-1, slice(feature, None, self.features))))
        return torch.cat(units[0][-self.features :], 1)
