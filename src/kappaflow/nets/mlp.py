"""Fully connected conditioners: MLP, ResidualMLP and PairedMLP."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, sigmoid

from kappaflow._checks import layer_widths, natural_int, positive_int, share
from kappaflow.errors import ArgumentError
from kappaflow.nets.activations import Activation, AnyActivation, activation_of, named_activation
from kappaflow.nets.layers import ReadingNetwork, zeroed
from kappaflow.registry import register

LEVELS = 256  # number of values of a random byte, which decides whether an entry is dropped


def dropout(x: Tensor, share: float, *, training: bool) -> Tensor:
    """Returns x with a random share of its entries at zero, the others scaled up."""
    # The share is rounded to a multiple of 1/256, so that one 64-bit number from torch's global
    # generator decides eight entries. Source: Srivastava et al. 2014.
    left_out = levels_of(share)
    if not training or not left_out:
        return x
    numbers = _words(-(-x.numel() // 8), x.device).view(torch.uint8)[: x.numel()].view(x.shape)
    kept = numbers.to(x.dtype) >= left_out  # compiled loops over bytes are slower
    return x * (kept.to(x.dtype) * (LEVELS / (LEVELS - left_out)))


def _words(count: int, device: torch.device) -> Tensor:
    """Returns random 64-bit integers; the same ones with and without torch.compile."""
    if torch.compiler.is_compiling():  # it does not support random_
        words = torch.randint(-(2**63), 2**63 - 1, (count,), dtype=torch.int64, device=device)
        return words ^ -(2**63)
    return torch.empty(count, dtype=torch.int64, device=device).random_(-(2**63), None)


def levels_of(share: float) -> int:
    """Returns the number of the 256 values of a byte that drop an entry, at most 255."""
    return min(round(LEVELS * share), LEVELS - 1)


def _linear_layers(widths: Sequence[int]) -> nn.ModuleList:
    """Returns linear layers from each width to the next; the last one starts at zero."""
    pairs = zip(widths, widths[1:], strict=False)
    layers = nn.ModuleList(nn.Linear(inputs, outputs) for inputs, outputs in pairs)
    zeroed(layers[-1])
    return layers


@register("MLP")
class MLP(ReadingNetwork):
    """Linear layers with ReLU, or another activation, between them.

    The last layer starts at zero, so the output of a new network is zero.

    Args:
        inputs: Width of the input; 0 if the network reads only the context.
        outputs: Width of the output.
        hidden: Widths of the hidden layers: (a, b) is Linear-ReLU-Linear-ReLU-Linear.
        context_features: Width of the context, which is concatenated to the input.
        residual: Add skip connections between successive layers of equal width.
        dropout: Share of the hidden units that training drops; evaluation drops none. Must be 0
            or above 1/512, because shares are rounded to multiples of 1/256.
        activation: "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", "softplus", "tanh"
            or "sigmoid"; or the module, class or function of torch. Another `torch.nn.Module`, of
            which the network gets a copy, can be saved if its class is registered. Coupling stacks
            support only "relu".
        slope: Slope of "leaky_relu" below zero.

    Raises:
        ArgumentError: A width or the share is out of range, there is no such activation, or the
            network has neither an input nor a context.

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
        activation: AnyActivation | str = "relu",
        slope: float = 0.01,
    ) -> None:
        super().__init__(inputs, outputs, context_features)
        self.residual = residual
        kind = named_activation(activation)
        self.activation = kind if isinstance(kind, str) else type(kind).__name__
        self._activate: Activation | nn.Module
        if isinstance(kind, str):
            self._activate = activation_of(kind, slope)
        else:
            self._activate = copy.deepcopy(kind)
        self.dropout = share("dropout", dropout)
        if self.dropout and not levels_of(self.dropout):
            raise ArgumentError(
                f"'dropout' should be 0 or above 1/512, got {dropout}: "
                "shares are rounded to multiples of 1/256, and this one to 0."
            )
        widths = [self.inputs + self.context_features, *layer_widths(hidden), self.outputs]
        self.layers = _linear_layers(widths)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns (B, outputs) for inputs (B, inputs) and contexts (B, context_features)."""
        h = x if context is None else torch.cat((x, context), dim=1)
        for number, layer in enumerate(self.layers[:-1]):
            activated = self._activated(layer(h))
            h = h + activated if self.skips(number) and h.shape == activated.shape else activated
        return self.layers[-1](h)

    def skips(self, number: int) -> bool:
        """Returns whether a skip connection leads past a hidden layer, if its widths are equal."""
        return self.residual

    def _activated(self, h: Tensor) -> Tensor:
        """Returns h after the activation and dropout."""
        # The factors of dropout are not negative, so relu(f h) = f relu(h). With dropout before
        # relu, the input of the next layer is all that the derivative of relu needs.
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
class ResidualMLP(ReadingNetwork):
    """A residual network: a linear layer, residual blocks, and a last layer that starts at zero.

    A block is two linear layers, each after an activation, whose output is added to the block's
    input. With `gated`, that output is first multiplied by the sigmoid of a linear map of the
    context.

    Args:
        inputs: Width of the input; 0 if the network reads only the context.
        outputs: Width of the output.
        hidden: Width of all hidden layers.
        blocks: Number of residual blocks.
        context_features: Width of the context, which is concatenated to the input.
        gated: Multiply the output of each block by a gate computed from the context.
        activation: Name of the activation, as in `MLP`.
        slope: Slope of "leaky_relu" below zero.

    Attributes:
        layers: The first layer, two for each block, and the last.
        gates: A linear map of the context for each block; None without `gated`.

    Raises:
        ArgumentError: A width is out of range, or there is neither an input nor a context.

    Source:
        He et al. 2016, with the activation first. The same networks as in nflows.

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
        super().__init__(inputs, outputs, context_features)
        self.activation, self._activate = activation, activation_of(activation, slope)
        width, count = positive_int("hidden", hidden), 2 * natural_int("blocks", blocks)
        widths = [self.inputs + self.context_features, *[width] * (1 + count), self.outputs]
        self.layers = _linear_layers(widths)
        self.gates = None
        if gated:
            width_of_context = positive_int("context_features", self.context_features)
            self.gates = nn.ModuleList(nn.Linear(width_of_context, width) for _ in range(blocks))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns (B, outputs) for inputs (B, inputs) and contexts (B, context_features)."""
        first, *inner = self.layers[:-1]
        h = first(x if context is None else torch.cat((x, context), dim=1))
        for block, (lower, upper) in enumerate(zip(inner[::2], inner[1::2], strict=True)):
            change = upper(self._activate(lower(self._activate(h))))
            if self.gates is not None:
                change = change * sigmoid(self.gates[block](context))
            h = h + change
        return self.layers[-1](h)

    def extra_repr(self) -> str:
        return f"context_features={self.context_features}, activation={self.activation!r}"


@register("PairedMLP")
class PairedMLP(ReadingNetwork):
    """Two networks of equal shape with the same input and concatenated outputs.

    After the first layer, the two halves of each layer are independent: only the two diagonal
    blocks of its weight are used, and the others stay zero. This gives a coupling one network for
    the scales and one for the shifts.

    Args:
        inputs: Width of the input; 0 if the network reads only the context.
        outputs: Width of the output, an even number. Each network computes one half.
        hidden: Widths of the hidden layers, even numbers. Each network has half of each.
        context_features: Width of the context, which is concatenated to the input.
        activation: Name of the activation, as in `MLP`.
        slope: Slope of "leaky_relu" below zero.

    Raises:
        ArgumentError: A width is out of range or odd, or there is neither an input nor a
            context.

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
        super().__init__(inputs, outputs, context_features)
        self.activation, self._activate = activation, activation_of(activation, slope)
        inner = (*layer_widths(hidden), self.outputs)
        if any(width % 2 for width in inner):
            raise ArgumentError(
                f"'hidden' and 'outputs' should be even, got {inner}: each of the two "
                "networks has half."
            )
        widths = [self.inputs + self.context_features, *inner]
        self.layers = _linear_layers(widths)
        with torch.no_grad():
            for layer in self._linear()[1:]:
                (upper, left), (lower, right) = halves(layer.weight)
                layer.weight[upper, right] = 0
                layer.weight[lower, left] = 0

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
    """Returns the rows and columns of the two diagonal blocks of a weight."""
    rows, columns = (size // 2 for size in weight.shape)
    upper, lower = slice(0, rows), slice(rows, 2 * rows)
    return (upper, slice(0, columns)), (lower, slice(columns, 2 * columns))
