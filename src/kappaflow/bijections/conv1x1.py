"""Learned linear maps that mix features, and the invertible 1x1 convolution."""

from typing import get_args

import torch
from torch import Tensor

from kappaflow._checks import one_of, positive_int
from kappaflow.bijection import Bijection
from kappaflow.bijections.factored import LULinear, QRLinear, SVDLinear
from kappaflow.bijections.linear import Linear, LinearMap
from kappaflow.errors import ArgumentError
from kappaflow.linearization import Linearization
from kappaflow.options import Mixing
from kappaflow.registry import register

FORMS: tuple[Mixing, ...] = get_args(Mixing)


def check_form(
    name: str,
    form: str | None,
    condition_bound: float | None,
    *,
    others: tuple[str | None, ...] = (),
) -> None:
    """Raises an error for an unknown form, or a bound on a form other than "svd"."""
    one_of(name, form, (*others, *FORMS))
    if condition_bound is not None and form != "svd":
        raise ArgumentError(
            f"'condition_bound' should be left out for {name}={form!r}: only \"svd\" has a bound."
        )


def mixing_layer(
    features: int,
    form: str,
    *,
    condition_bound: float | None = None,
    generator: torch.Generator | None = None,
) -> LinearMap:
    """Returns a linear layer of a form, which starts as a random rotation."""
    # For "lu" it may start as a rotation with a reflection. An "orthogonal" matrix remains a
    # rotation during training. `condition_bound` is for "svd" only.
    if form == "plain":
        layer = Linear(features)
    elif form == "lu":
        layer = LULinear(features)
    elif form == "qr":
        layer = QRLinear(features)
    else:
        bound = 1.0 if form == "orthogonal" else condition_bound
        layer = SVDLinear(features, condition_bound=bound)
    return rotated(layer, generator)


@torch.no_grad()
def rotated(layer: LinearMap, generator: torch.Generator | None = None) -> LinearMap:
    """Returns the layer with a random rotation as its matrix, of an `LULinear` up to a sign."""
    if isinstance(layer, Linear):
        turn = _orthogonal(layer.features, generator)
        turn[0] *= torch.linalg.det(turn).sign()
        layer.weight.copy_(turn)
    elif isinstance(layer, LULinear):
        _rotate_lu(layer, _orthogonal(layer.features, generator))
    elif isinstance(layer, QRLinear):
        _draw(layer.reflections, generator)
    elif isinstance(layer, SVDLinear):
        _draw(layer.left, generator)
        _draw(layer.right, generator)
    return layer


def _rotate_lu(layer: LULinear, turn: Tensor) -> None:
    """Sets P L U to an orthogonal matrix, with column signs that make diag(U) positive."""
    order, lower, upper = torch.linalg.lu(turn)
    upper = upper * upper.diagonal().sign()
    layer.permutation.index.copy_(order.argmax(1))
    layer.triangles.copy_(lower.tril(-1) + upper.triu(1) + upper.diagonal().log().diag())


def _orthogonal(n: int, generator: torch.Generator | None) -> Tensor:
    """Returns a random orthogonal matrix, in float64."""
    normal = torch.randn(n, n, dtype=torch.float64, generator=generator, device="cpu")
    factor, triangle = torch.linalg.qr(normal)
    return factor * triangle.diagonal().sign()


def _draw(parameter: Tensor, generator: torch.Generator | None) -> None:
    parameter.copy_(torch.randn(parameter.shape, generator=generator, device="cpu"))


@register("InvertibleConv1x1")
class InvertibleConv1x1(Bijection):
    """z = M x at each pixel of an image, as in Glow: a learned mixing of the channels.

    M starts as a random rotation from torch's global generator (for "lu", possibly with a
    reflection).

    Args:
        channels: Number n of channels (dimension 1 of the points).
        form: The form of M: "plain" (any matrix, see `Linear`), "lu" (`LULinear`), "qr"
            (`QRLinear`), "svd" (`SVDLinear`, whose condition number can be bounded) or
            "orthogonal" (always a rotation, with condition number 1).
        condition_bound: Largest condition number that training can reach, for "svd" only.

    Attributes:
        linear: The layer that holds the parameters.

    Note:
        There is no shift, because the `ActNorm` before it has one.

    Raises:
        ArgumentError: The form is unknown, or a bound is given for a form other than "svd".

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
        """Ratio of the largest to the smallest singular value of M; nan if M is not finite."""
        return self.linear.condition_number

    def matrix(self) -> Tensor:
        """Returns the matrix M, (n, n)."""
        return self.linear.matrix()

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.linear(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.linear.inverse(z)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        return self.linear.linearize(x)

    def extra_repr(self) -> str:
        return f"channels={self.channels}, form={self.form!r}"
