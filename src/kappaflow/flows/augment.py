"""What joins a point before it enters a bijection, and noise that fills pixels."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kappaflow._checks import batch, positive_int
from kappaflow.bijection import log_det_dtype, zero_log_det
from kappaflow.errors import ArgumentError
from kappaflow.registry import register

Shape = tuple[int, ...]
LARGEST_BLIND_PART = 0.1  # of an interval, in which rounding leaves no room for noise


class Augmentation(nn.Module, ABC):
    """A draw e given x, and how the two are joined into what the bijection takes.

    The laws: `drop(join(x, e))` is x; `draw` returns log q(e | x) of its draw, in nats, as
    `log_prob` does. Shapes are those of one point.

    Where `has_density` is False, e is a single point for each x, and q has no density: its log is
    then 0 at that point and -inf elsewhere, and what a flow computes with it is no likelihood of
    x.
    """

    #: Whether q(e | x) is a density of e.
    has_density: bool = True

    @abstractmethod
    def draw(
        self, x: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns e for each x, and log q(e | x), (B,)."""

    @abstractmethod
    def log_prob(self, e: Tensor, x: Tensor) -> Tensor:
        """Returns log q(e | x) in nats, (B,)."""

    def fit(self, x: Tensor, weights: Tensor | None = None) -> None:
        """Takes the scale of training rows (N, *event), once, where the padding depends on x.

        Rows count by `weights`, (N,), or all alike.
        """

    @abstractmethod
    def join(self, x: Tensor, e: Tensor) -> Tensor:
        """Returns the joined points."""

    @abstractmethod
    def drop(self, joined: Tensor) -> tuple[Tensor, Tensor]:
        """Returns x and e of joined points."""

    def event_shape(self, joint_shape: Sequence[int]) -> Shape:
        """Returns the shape of x, where joined points have this shape."""
        return tuple(joint_shape)


@register("Dequantize")
class Dequantize(Augmentation):
    """Whole numbers 0 to values - 1 become intervals: y = x + e, e uniform on [0, 1).

    A density of y integrates over each interval to a probability of the number, of whose logarithm
    `Flow.log_prob` is a bound in the mean: so log_prob is in nats of the discrete x, and
    -log_prob / (D log 2) in bits per dimension.

    Args:
        values: How many values a pixel may have, such as 256.

    Source:
        Theis, van den Oord, Bethge 2016, A note on the evaluation of generative models, 3.1.

    Example:
        >>> e, log_q = Dequantize(4).draw(torch.tensor([[0.0, 3.0]]))
        >>> bool(((0 <= e) & (e < 1)).all()), log_q
        (True, tensor([0.]))
    """

    def __init__(self, values: int = 256) -> None:
        super().__init__()
        self.values = positive_int("values", values)

    def draw(
        self, x: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        check_whole(x, self.values)
        return below_one(uniform_like(x, generator), self.values), zero_log_det(x)

    def log_prob(self, e: Tensor, x: Tensor) -> Tensor:
        inside = ((e >= 0) & (e < 1)).flatten(1).all(1)
        return zero_log_det(e).masked_fill(~inside, -math.inf)

    def join(self, x: Tensor, e: Tensor) -> Tensor:
        return x + e

    def drop(self, joined: Tensor) -> tuple[Tensor, Tensor]:
        x = joined.floor().clamp(0, self.values - 1)
        return x, joined - x

    def extra_repr(self) -> str:
        return f"values={self.values}"


def check_whole(x: Tensor, values: int) -> None:
    """Refuses all but whole numbers from 0 to values - 1: bits per dimension would be wrong.

    Also types in which such a number and noise beside it are not told from the number alone.
    """
    if _blind_part(batch("x", x).dtype, values) > LARGEST_BLIND_PART:
        raise ArgumentError(
            f"'x' should be of a wider type than {x.dtype}, in which there is no room for noise "
            f"beside pixels of {values} values: take float32."
        )
    if x.numel() and not ((x == x.floor()) & (x >= 0) & (x < values)).all():
        raise ArgumentError(
            f"'x' should hold whole numbers from 0 to {values - 1}, as the dequantisation of this "
            "flow expects: give pixel values as they are, not scaled."
        )


def below_one(e: Tensor, values: int) -> Tensor:
    """Returns draws on [0, 1) so far from 1 that x + e is below x + 1 also after rounding."""
    return e.clamp_max(1 - _blind_part(e.dtype, values))


def _blind_part(dtype: torch.dtype, values: int) -> float:
    """Returns how near to 1 draws are no longer told from 1 once a pixel is added, and twice."""
    return 2 * values * torch.finfo(dtype).eps


def uniform_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Returns uniform draws on [0, 1) of the shape, type and device of x."""
    where = x.device if generator is None else generator.device
    drawn = torch.rand(x.shape, dtype=log_det_dtype(x.dtype), device=where, generator=generator)
    return drawn.to(x)
