"""Invertible 1x1 convolutions: a learned linear map of the channels, the same at each pixel."""

import torch
from torch import Tensor

from kappaflow._checks import one_of, positive_int
from kappaflow.bijection import Bijection
from kappaflow.bijections.factored import LULinear, QRLinear, SVDLinear
from kappaflow.bijections.linear import Linear, LinearMap
from kappaflow.errors import ArgumentError
from kappaflow.linearization import Linearization
from kappaflow.registry import register

FORMS = ("plain", "lu", "qr", "svd", "orthogonal")


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
        self.form = one_of("form", form, FORMS)
        if condition_bound is not None and form != "svd":
            raise ArgumentError(
                f"'condition_bound' should be left out for form={form!r}: \"svd\" can keep one."
            )
        self.linear = _layer(self.channels, form, condition_bound)
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


@torch.no_grad()
def _layer(channels: int, form: str, condition_bound: float | None) -> LinearMap:
    """Returns the layer of a form, its matrix orthogonal; of "lu" the determinant may be -1."""
    if form == "lu":
        return _rotated_lu(channels)
    if form == "plain":
        layer = Linear(channels)
        turn = _orthogonal(channels)
        turn[0] *= torch.linalg.det(turn).sign()
        layer.weight.copy_(turn)
        return layer
    if form == "qr":
        layer = QRLinear(channels)
        layer.reflections.normal_()
        return layer
    layer = SVDLinear(channels, condition_bound=1.0 if form == "orthogonal" else condition_bound)
    layer.left.normal_()
    layer.right.normal_()
    return layer


def _rotated_lu(channels: int) -> LULinear:
    """Returns P L U, orthogonal, with a positive diagonal in U."""
    layer = LULinear(channels)
    order, lower, upper = torch.linalg.lu(_orthogonal(channels))
    upper = upper * upper.diagonal().sign()  # some columns of the matrix change their signs
    layer.permutation.index.copy_(order.argmax(1))
    layer.triangles.copy_(lower.tril(-1) + upper.triu(1) + upper.diagonal().log().diag())
    return layer


def _orthogonal(n: int) -> Tensor:
    """Returns a random orthogonal matrix, in float64."""
    factor, triangle = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64))
    return factor * triangle.diagonal().sign()
