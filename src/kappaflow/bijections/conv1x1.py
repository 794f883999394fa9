"""Invertible 1x1 convolutions: a learned linear map of the channels, the same at each pixel."""

import torch
from torch import Tensor

from kappaflow._checks import positive_int
from kappaflow.bijection import Bijection
from kappaflow.bijections.mixing import check_form, mixing_layer
from kappaflow.linearization import Linearization
from kappaflow.registry import register


@register("InvertibleConv1x1")
class InvertibleConv1x1(Bijection):
    """z = M x at each pixel of an image: Glow's mixing of the channels, begun at a rotation.

    Args:
        channels: Number of channels, n: dimension 1 of the points.
        form: What M is made of: "plain" (any matrix, see `Linear`), "lu" (`LULinear`), "qr"
            (`QRLinear`), "svd" (`SVDLinear`, whose condition number can be bounded) or
            "orthogonal" (a rotation for good, condition number 1).
        condition_bound: For "svd": the largest condition number that training can reach.

    Attributes:
        linear: The layer that holds the parameters.

    Note:
        There is no shift: an `ActNorm` beside it has one. The rotation at the start is random,
        from torch's global generator.

    Raises:
        ArgumentError: There is no such form, or a bound is given for another one.

    Source:
        Kingma, Dhariwal 2018 (Glow), section 3.2.

    Example:
        >>> layer = InvertibleConv1x1(3, form="svd", condition_bound=4.0)
        >>> layer(torch.ones(2, 3, 8, 8))[0].shape, round(layer.condition_number, 4)
        (torch.Size([2, 3, 8, 8]), 1.0)
    """

    is_linear = True

    def __init__(
        self, channels: int, *, form: str = "lu", condition_bound: float | None = None
    ) -> None:
        super().__init__()
        self.channels = positive_int("channels", channels)
        check_form("form", form, condition_bound)
        self.linear = mixing_layer(self.channels, form, condition_bound=condition_bound)
        self.form = form
        del self.linear.shift
        self.linear.register_buffer("shift", torch.zeros(channels), persistent=False)

    @property
    def condition_number(self) -> float:
        """Largest over smallest singular value of M, in float64; nan if it has nan."""
        return self.linear.condition_number

    def matrix(self) -> Tensor:
        """Returns M (n, n)."""
        return self.linear.matrix()

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.linear(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.linear.inverse(z)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        return self.linear.linearize(x)

    def extra_repr(self) -> str:
        return f"channels={self.channels}, form={self.form!r}"
