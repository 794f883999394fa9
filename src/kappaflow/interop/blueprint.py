"""`Blueprint`: what `convert` reads from a flow of another library, before it builds a `Flow`.

The file of each library (`zuko`, `nflows`, `normflows`, `freia`) reads all layers into parts:
plain dataclasses that hold the weights. `convert` then builds the bijections and networks. So
nothing is built if a layer cannot be read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import linear

from kappaflow.bijection import Bijection
from kappaflow.nets.activations import activation_of
from kappaflow.partition import Partition


class Unsupported(Exception):
    """The reason why a layer cannot be converted; follows the layer's name in the message."""


@dataclass(frozen=True)
class NetworkWeights:
    """The weights of a conditioner, a fully connected network."""

    weights: tuple[Tensor, ...]  # weight of each linear layer
    biases: tuple[Tensor, ...]
    inputs: int  # number of inputs before the context
    activation: str = "relu"
    slope: float = 0.01
    blocks: bool = False  # whether the layers form residual blocks, as in `ResidualMLP`
    # Whether the layers after the first one are block diagonal with two blocks: two networks side
    # by side
    paired: bool = False
    # For each block the weight and bias of a linear map of the context, or empty
    gates: tuple[tuple[Tensor, Tensor], ...] = ()

    @property
    def context_features(self) -> int:
        return self.weights[0].shape[1] - self.inputs

    @property
    def outputs(self) -> int:
        return len(self.weights[-1])

    def tensors(self) -> list[Tensor]:
        return [*self.weights, *self.biases, *(tensor for gate in self.gates for tensor in gate)]

    def evaluate(self, x: Tensor) -> Tensor:
        """Returns the outputs for (B, inputs + context)."""
        activate = activation_of(self.activation, self.slope)
        context = x[:, self.inputs :]
        h = linear(x, self.weights[0], self.biases[0])
        inner = list(zip(self.weights, self.biases, strict=True))[1:-1]
        if self.blocks:
            for block in range(len(inner) // 2):
                first, second = inner[2 * block : 2 * block + 2]
                change = linear(activate(linear(activate(h), *first)), *second)
                if self.gates:
                    change = change * torch.sigmoid(linear(context, *self.gates[block]))
                h = h + change
        else:
            for layer in inner:
                h = linear(activate(h), *layer)
        if len(self.weights) == 1:
            return h
        return linear(h if self.blocks else activate(h), self.weights[-1], self.biases[-1])

    def select_outputs(
        self, rows: Sequence[int], factors: Tensor | None = None
    ) -> "NetworkWeights":
        """Returns the network with these outputs in this order, times factors."""
        index = torch.as_tensor(rows, device=self.weights[-1].device)
        weight, bias = self.weights[-1][index], self.biases[-1][index]
        if factors is not None:
            factors = factors.to(weight)  # from float64
            weight, bias = weight * factors[:, None], bias * factors
        return self.replace_last(weight, bias)

    def replace_last(self, weight: Tensor, bias: Tensor) -> "NetworkWeights":
        """Returns the network with another last layer."""
        return replace(
            self, weights=(*self.weights[:-1], weight), biases=(*self.biases[:-1], bias)
        )

    def replace_first(
        self, weight: Tensor, bias: Tensor, inputs: int | None = None
    ) -> "NetworkWeights":
        """Returns the network with another first layer."""
        return replace(
            self,
            weights=(weight, *self.weights[1:]),
            biases=(bias, *self.biases[1:]),
            inputs=self.inputs if inputs is None else inputs,
        )


@dataclass(frozen=True)
class CouplingPart:
    """An affine or additive coupling."""

    partition: Partition
    network: NetworkWeights  # returns raw log-scales, if the coupling is affine, and then shifts
    scale: str | None = "tanh"  # from raw log-scales to log-scales; None if additive
    bound: float = 2.0
    inverted: bool = False  # whether it maps from latent to data


@dataclass(frozen=True)
class ScalingPart:
    """The map z = x * exp(log_scale) + shift, with tensors (n,)."""

    log_scale: Tensor
    shift: Tensor

    def inverse(self) -> "ScalingPart":
        return ScalingPart(-self.log_scale, -self.shift * (-self.log_scale).exp())


@dataclass(frozen=True)
class ReorderingPart:
    """The permutation z[:, i] = x[:, index[i]]."""

    index: tuple[int, ...]

    def inverse(self) -> "ReorderingPart":
        return ReorderingPart(tuple(sorted(range(len(self.index)), key=self.index.__getitem__)))


@dataclass(frozen=True)
class OtherPart:
    """Any other bijection, built by `make`."""

    make: Callable[[], Bijection]
    inverted: bool = False


FlowPart = CouplingPart | ScalingPart | ReorderingPart | OtherPart


@dataclass
class Blueprint:
    """A whole flow that is read and not built yet."""

    parts: list[FlowPart]  # from data to latent
    latent_shape: tuple[int, ...]
    like: Tensor  # with the dtype and the device of the flow
    embedding: NetworkWeights | None = None  # of the context, before all parts read it


def inverse_of(parts: Sequence[FlowPart]) -> list[FlowPart]:
    """Returns the parts of the inverse map."""
    return [
        part.inverse()
        if isinstance(part, ScalingPart | ReorderingPart)
        else replace(part, inverted=not part.inverted)
        for part in reversed(parts)
    ]
