"""What a converted flow will be made of: read first, made when all of it can be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kappaflow.bijection import Bijection
from kappaflow.nets.mlp import activation_of
from kappaflow.partition import Partition


class Refused(Exception):  # noqa: N818
    """Why one layer has no equal; its text goes behind the layer's name."""


@dataclass(frozen=True)
class Network:
    """A fully connected network, or one of three convolutions.

    Attributes:
        weights: Of each linear layer, or convolution.
        biases: Of each.
        activation: Between them.
        slope: Of "leaky_relu".
        blocks: Whether the layers are wired as those of a `ResidualMLP`.
        twins: Whether the halves of the layers behind the first one read nothing of each other.
        gates: Weight and bias of a linear map of the context for each block, if it has such.
        inputs: How many numbers it reads beside the context, which comes behind them.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    inputs: int
    activation: str = "relu"
    slope: float = 0.01
    blocks: bool = False
    twins: bool = False
    gates: tuple[tuple[Tensor, Tensor], ...] = ()

    @property
    def convolves(self) -> bool:
        """Whether it is for images."""
        return self.weights[0].dim() == 4

    @property
    def context_features(self) -> int:
        """Width of the context."""
        return self.weights[0].shape[1] - self.inputs

    @property
    def outputs(self) -> int:
        """How many numbers it answers."""
        return len(self.weights[-1])

    def tensors(self) -> list[Tensor]:
        """Returns all weights and biases."""
        return [*self.weights, *self.biases, *(tensor for gate in self.gates for tensor in gate)]

    def answer(self, x: Tensor) -> Tensor:
        """Returns what it makes of (B, inputs + context), by the definition."""
        activate = activation_of(self.activation, self.slope)
        context = x[:, self.inputs :]
        h = _linear(x, self.weights[0], self.biases[0])
        inner = list(zip(self.weights, self.biases, strict=True))[1:-1]
        if self.blocks:
            for block in range(len(inner) // 2):
                one, two = inner[2 * block : 2 * block + 2]
                change = _linear(activate(_linear(activate(h), *one)), *two)
                if self.gates:
                    change = change * torch.sigmoid(_linear(context, *self.gates[block]))
                h = h + change
        else:
            for layer in inner:
                h = _linear(activate(h), *layer)
        if len(self.weights) == 1:
            return h
        return _linear(h if self.blocks else activate(h), self.weights[-1], self.biases[-1])

    def with_answers(self, rows: Sequence[int], factors: Tensor | None = None) -> "Network":
        """Returns the network that answers some of the numbers, in this order, times factors."""
        index = torch.as_tensor(rows, device=self.weights[-1].device)
        weight, bias = self.weights[-1][index], self.biases[-1][index]
        if factors is not None:
            factors = factors.to(weight)  # given in float64
            weight = weight * factors.reshape(-1, *(1,) * (weight.dim() - 1))
            bias = bias * factors
        return self.with_last(weight, bias)

    def with_last(self, weight: Tensor, bias: Tensor) -> "Network":
        """Returns the network with another last layer."""
        return replace(
            self, weights=(*self.weights[:-1], weight), biases=(*self.biases[:-1], bias)
        )

    def with_first(self, weight: Tensor, bias: Tensor, inputs: int | None = None) -> "Network":
        """Returns the network with another first layer."""
        return replace(
            self,
            weights=(weight, *self.weights[1:]),
            biases=(bias, *self.biases[1:]),
            inputs=self.inputs if inputs is None else inputs,
        )


@dataclass(frozen=True)
class Coupling:
    """A coupling: affine where it has a curve of log-scales, else additive.

    Attributes:
        partition: What it keeps and changes.
        network: Answers raw log-scales, if it scales, and then shifts.
        scale: The curve; None for an additive coupling.
        bound: Of the curve.
        backwards: Whether it scales and shifts from latent to data.
    """

    partition: Partition
    network: Network
    scale: str | None = "tanh"
    bound: float = 2.0
    backwards: bool = False


@dataclass(frozen=True)
class Scaling:
    """z = x * exp(log_scale) + shift, each (n,)."""

    log_scale: Tensor
    shift: Tensor

    def inverse(self) -> "Scaling":
        """Returns the map back."""
        return Scaling(-self.log_scale, -self.shift * (-self.log_scale).exp())


@dataclass(frozen=True)
class Reordering:
    """z[:, i] = x[:, index[i]]."""

    index: tuple[int, ...]

    def inverse(self) -> "Reordering":
        """Returns the map back."""
        return Reordering(tuple(sorted(range(len(self.index)), key=self.index.__getitem__)))


@dataclass(frozen=True)
class Other:
    """Any other bijection, made when it is needed."""

    make: Callable[[], Bijection]
    backwards: bool = False


Part = Coupling | Scaling | Reordering | Other


@dataclass
class Plan:
    """What a whole flow will be made of.

    Attributes:
        parts: From data to latent.
        latent_shape: Of one latent.
        like: Tells type and device.
        embedding: Of the context, in front of all parts.
    """

    parts: list[Part]
    latent_shape: tuple[int, ...]
    like: Tensor
    embedding: Network | None = None


def inverse_of(parts: Sequence[Part]) -> list[Part]:
    """Returns the parts of the inverse map."""
    return [
        part.inverse()
        if isinstance(part, Scaling | Reordering)
        else replace(part, backwards=not part.backwards)
        for part in reversed(parts)
    ]


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if weight.dim() == 2:
        return torch.nn.functional.linear(x, weight, bias)
    return torch.nn.functional.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
