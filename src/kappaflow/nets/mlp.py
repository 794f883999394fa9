"""Fully connected conditioners: MLP, ResidualMLP, PairedMLP."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.functional import linear, sigmoid

from kappaflow._checks import finite_float, layer_widths, natural_int, one_of, positive_int, share
from kappaflow.errors import ArgumentError
from kappaflow.nets.layers import check_something_to_read, zeroed
from kappaflow.registry import register

Activation = Callable[[Tensor], Tensor]

# As torch has them by default.
_BY_NAME: dict[str, Activation] = {
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    "gelu": F.gelu,
    "silu": F.silu,
    "softplus": F.softplus,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
ACTIVATIONS = tuple(_BY_NAME)


def activation_of(name: str, slope: float) -> Activation:
    """Returns an activation.

    Args:
        name: One of `ACTIVATIONS`.
        slope: Of "leaky_relu" below zero; the others have none.

    Returns:
        A function of tensors.

    Raises:
        ArgumentError: There is no such activation, or the slope is no finite number.

    Example:
        >>> activation_of("leaky_relu", 0.5)(torch.tensor([-2.0, 2.0]))
        tensor([-1.,  2.])
    """
    found = _BY_NAME[one_of("activation", name, ACTIVATIONS)]
    slope = finite_float("slope", slope)
    return partial(F.leaky_relu, negative_slope=slope) if name == "leaky_relu" else found


LEVELS = 256


def dropout(x: Tensor, share: float, *, training: bool) -> Tensor:
    """Returns x with a share of its entries set to zero and the others scaled up to keep the mean.

    The share is rounded to a multiple of 1/256, so that eight entries can be decided by one 64-bit
    draw from torch's global generator; up to 1/512 it is rounded to nothing, which `MLP` refuses.

    Args:
        x: Any shape.
        share: How much is left out, from 0 to below 1.
        training: Whether anything is left out at all.

    Returns:
        A tensor of the shape and type of x.

    Source:
        Srivastava et al. 2014.

    Example:
        >>> dropout(torch.ones(2), 0.5, training=False)
        tensor([1., 1.])
    """
    left_out = levels_of(share)
    if not training or not left_out:
        return x
    numbers = _words(-(-x.numel() // 8), x.device).view(torch.uint8)[: x.numel()].view(x.shape)
    kept = numbers.to(x.dtype) >= left_out  # of bytes a compiler makes a slower loop
    return x * (kept.to(x.dtype) * (LEVELS / (LEVELS - left_out)))


def _words(count: int, device: torch.device) -> Tensor:
    """Returns random words of 64 bits; the same when torch.compile traces them."""
    if torch.compiler.is_compiling():  # it knows nothing that draws into a tensor
        words = torch.randint(-(2**63), 2**63 - 1, (count,), dtype=torch.int64, device=device)
        return words ^ -(2**63)
    return torch.empty(count, dtype=torch.int64, device=device).random_(-(2**63), None)


def levels_of(share: float) -> int:
    """Returns how many of the 256 values of a byte mean "left out"; never all of them."""
    return min(round(LEVELS * share), LEVELS - 1)


@register("MLP")
class MLP(nn.Module):
    """Linear layers with ReLU, or another activation, between them.

    The last one starts at zero, so the output does too.

    Args:
        inputs: Width of the input; 0 where only the context speaks.
        outputs: Width of the output.
        hidden: Widths of the hidden layers: (a, b) is Linear-ReLU-Linear-ReLU-Linear.
        context_features: Width of the context, which is concatenated to the input.
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
            return self._activate(dropout(h, self.dropout, training=self.training))
        return dropout(self._activate(h), self.dropout, training=self.training)

    def extra_repr(self) -> str:
        activation = "" if self.activation == "relu" else f", activation={self.activation!r}"
        return (
            f"context_features={self.context_features}, residual={self.residual}, "
            f"dropout={self.dropout:g}{activation}"
        )


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
        context_features: Width of the context, which is concatenated to the input.
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


@register("PairedMLP")
class PairedMLP(nn.Module):
    """Two networks of one shape that read the same and answer one after the other.

    After the first layer the two halves of a layer are independent: of its weights
    two blocks count, and the others are zero and stay so. A coupling has one network for scales
    and one for shifts this way.

    Args:
        inputs: Width of the input; 0 where only the context speaks.
        outputs: Width of the output, an even number: half of it is answered by each.
        hidden: Widths of the hidden layers, even numbers, half of each for either network.
        context_features: Width of the context, which is concatenated to the input.
        activation: As in `MLP`.
        slope: Of "leaky_relu" below zero.

    Raises:
        ArgumentError: A width is out of its range or odd, or nothing is left to read.

    Source:
        normflows' `MaskedAffineFlow` and FrEIA's `RNVPCouplingBlock`, after Dinh, Sohl-Dickstein,
        Bengio 2017 (RealNVP).

    Example:
        >>> PairedMLP(3, 4, (16, 16))(torch.ones(2, 3)).abs().max().item()
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
