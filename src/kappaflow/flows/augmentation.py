"""Augmentations: random features or noise that are joined to a point before the bijection."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from kappaflow.bijection import log_det_dtype

Shape = tuple[int, ...]
LogProb = Callable[[Tensor, Tensor | None], Tensor]  # of joined points, given contexts
ROWS_AT_ONCE = 4096  # rows times samples in one pass


class Augmentation(nn.Module, ABC):
    """A distribution of e given x, and the map that joins x and e into an input of the bijection.

    The laws: `drop(join(x, e))` is x, and the second result of `draw` equals `log_prob(e, x)`, in
    nats.

    If `has_density` is False, there is a single e for each x and q has no density. Its log is
    then 0 at that e and -inf elsewhere, and the log_prob of the flow is not a likelihood of x.
    """

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
        """Fits the scale to training rows x, (N, *event), once, if e depends on x.

        `weights`, (N,), weight the rows; all rows have the same weight by default.
        """

    @abstractmethod
    def join(self, x: Tensor, e: Tensor) -> Tensor:
        """Returns the joined points."""

    @abstractmethod
    def drop(self, joined: Tensor) -> tuple[Tensor, Tensor]:
        """Returns x and e of joined points."""

    def event_shape(self, joint_shape: Sequence[int]) -> Shape:
        """Returns the shape of x for joined points of a shape."""
        return tuple(joint_shape)


def log_weights(
    augment: Augmentation,
    log_prob: LogProb,
    x: Tensor,
    context: Tensor | None,
    samples: int,
    generator: torch.Generator | None,
) -> Iterator[Tensor]:
    """Yields log p(x, e) - log q(e | x) of samples e for each x, (B, *event), in chunks, (k, B).

    `log_prob` returns log p of joined points and their contexts.
    """
    at_once = max(1, ROWS_AT_ONCE // max(1, x.shape[0])) if samples > 1 else 1
    for start in range(0, samples, at_once):
        count = min(at_once, samples - start)
        rows = x.repeat(count, *(1,) * (x.dim() - 1))
        contexts = None if context is None else context.repeat(count, 1)
        e, log_q = augment.draw(rows, generator=generator)
        yield (log_prob(augment.join(rows, e), contexts) - log_q).reshape(count, x.shape[0])


def uniform_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Returns uniform samples on [0, 1) with the shape, dtype and device of x."""
    where = x.device if generator is None else generator.device
    drawn = torch.rand(x.shape, dtype=log_det_dtype(x.dtype), device=where, generator=generator)
    return drawn.to(x)
