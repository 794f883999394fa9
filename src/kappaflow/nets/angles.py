"""Angles as networks read them: by cosine and sine, so that there is no seam."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kappaflow._checks import positive_float
from kappaflow.registry import register


@register("AnglesIn")
class AnglesIn(nn.Module):
    """A network that reads some of its inputs as angles, by their cosine and sine.

    Args:
        network: From (B, inputs + angles), and the context where there is one. It reads all inputs
            with cosines in place of angles, and the sines behind them.
        angles: Which inputs are angles.
        half_period: What stands for half a turn.

    Example:
        >>> import kappaflow as kf
        >>> kf.AnglesIn(kf.MLP(3, 4, (8,)), [1], half_period=5.0)(torch.ones(6, 2)).shape
        torch.Size([6, 4])
    """

    def __init__(self, network: nn.Module, angles: Sequence[int], *, half_period: float) -> None:
        super().__init__()
        self.network, self.angles = network, list(angles)
        self.half_period = positive_float("half_period", half_period)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns what the network answers."""
        turned = x[:, self.angles] * (math.pi / self.half_period)
        index = torch.tensor(self.angles, device=x.device)
        inputs = torch.cat((x.index_copy(1, index, turned.cos()), turned.sin()), 1)
        return self.network(inputs) if context is None else self.network(inputs, context)

    def extra_repr(self) -> str:
        return f"angles={self.angles}, half_period={self.half_period:g}"
