"""Layers that transform the input of a network: standardization and angles."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kappaflow._checks import positive_float, positive_int
from kappaflow.registry import register


@register("StandardizeInputs")
class StandardizeInputs(nn.Module):
    """Subtracts a mean and divides by a standard deviation; the identity until it is fitted.

    Args:
        features: Width of the input.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = positive_int("features", features)
        self.shift: Tensor
        self.scale: Tensor
        self.fitted: Tensor
        self.register_buffer("shift", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("fitted", torch.tensor(False))

    @torch.no_grad()
    def fit(self, x: Tensor, weights: Tensor | None = None) -> None:
        """Fits mean and deviation to rows x, (N, features); a constant column is only shifted.

        `weights`, (N,), weight the rows; all rows have the same weight by default.
        """
        mean, deviation = moments(x, weights)
        self.shift.copy_(mean)
        self.scale.copy_(deviation)
        self.fitted.fill_(True)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (x - mean) / standard deviation, (B, features)."""
        return (x - self.shift) / self.scale

    def extra_repr(self) -> str:
        return f"features={self.features}, fitted={flag_text(self.fitted)}"


def flag_text(flag: Tensor) -> str:
    """Returns "True", "False", or "unknown" on the meta device, where nothing has a value."""
    return "unknown" if flag.is_meta else str(bool(flag))


def moments(x: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Returns mean and deviation of the features of x, (N, C, ...), each (C,) in float64."""
    x_double = x.double().movedim(1, -1).flatten(0, -2)
    if weights is None:
        mean, deviation = x_double.mean(0), x_double.std(0, correction=0)
    else:
        shares = weights.to(x_double).repeat_interleave(len(x_double) // len(x))
        shares = shares / shares.sum()
        mean = shares @ x_double
        deviation = (shares @ (x_double - mean).square()).sqrt()
    # The deviation of a constant column is rounding error, which must not become a divisor.
    constant = deviation <= 8 * torch.finfo(x.dtype).eps * mean.abs()
    return mean, torch.where(constant, torch.ones_like(deviation), deviation)


@register("SinCosEmbedding")
class SinCosEmbedding(nn.Module):
    """A network that reads some of its inputs as angles, by their cosine and sine.

    Args:
        network: A network from (B, inputs + angles), and the context if there is one. It reads all
            inputs, with cosines in place of angles, followed by the sines.
        angles: Indices of the inputs that are angles.
        half_period: The value of an input that stands for half a turn.

    Example:
        >>> import kappaflow as kf
        >>> net = kf.nets.SinCosEmbedding(kf.nets.MLP(3, 4, (8,)), [1], half_period=5.0)
        >>> net(torch.ones(6, 2)).shape
        torch.Size([6, 4])
    """

    def __init__(self, network: nn.Module, angles: Sequence[int], *, half_period: float) -> None:
        super().__init__()
        self.network, self.angles = network, list(angles)
        self.half_period = positive_float("half_period", half_period)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns the output of the network for inputs x, (B, inputs)."""
        # The host does not wait for this copy, as it would for one made by an index list.
        index = torch.tensor(self.angles).to(x.device, non_blocking=True)
        turned = x[:, index] * (math.pi / self.half_period)
        inputs = torch.cat((x.index_copy(1, index, turned.cos()), turned.sin()), 1)
        return self.network(inputs) if context is None else self.network(inputs, context)

    def extra_repr(self) -> str:
        return f"angles={self.angles}, half_period={self.half_period:g}"
