"""Permutations of features by indexing, without a matrix product."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kappaflow._checks import batch, positive_int
from kappaflow.bijection import Bijection, zero_log_det
from kappaflow.errors import ArgumentError
from kappaflow.linearization import Linearization, RearrangedLinearization
from kappaflow.partition import shuffled
from kappaflow.registry import register


@register("Permutation")
class Permutation(Bijection):
    """Permutes features: z[:, i] = x[:, index[i]]. The log_det is zero.

    Args:
        index: The numbers from 0 to n - 1, each once.

    Raises:
        ArgumentError: `index` is not a permutation.

    Example:
        >>> Permutation((2, 0, 1))(torch.tensor([[10.0, 20.0, 30.0]]))[0]
        tensor([[30., 10., 20.]])
    """

    is_linear = True

    def __init__(self, index: Sequence[int] | Tensor) -> None:
        super().__init__()
        self.index: Tensor
        self.register_buffer("index", _whole_numbers(index))
        _check_order(index if isinstance(index, Sequence) else self.index.tolist())
        self.register_load_state_dict_post_hook(_check_loaded)

    @classmethod
    def random(cls, features: int, *, seed: int = 0) -> "Permutation":
        """Returns a random permutation of the features that depends only on the seed."""
        return cls(shuffled(positive_int("features", features), seed))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        batch("x", x, (len(self.index), *x.shape[2:]))
        return x.index_select(1, self.index), zero_log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        batch("z", z, (len(self.index), *z.shape[2:]))
        return torch.empty_like(z).index_copy(1, self.index, z), zero_log_det(z)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        batch("x", x, (len(self.index), *x.shape[2:]))
        index, back = self.index, self.index.argsort()
        return RearrangedLinearization(
            x, lambda v: v.index_select(1, index), lambda v: v.index_select(1, back)
        )

    def extra_repr(self) -> str:
        return f"features={len(self.index)}"


def _check_loaded(module: nn.Module, _: object) -> None:
    """Checks a loaded index; a function, because a lambda cannot be pickled."""
    if isinstance(module, Permutation):
        _check_order(module.index.tolist())


def _check_order(index: Sequence[int]) -> None:
    if sorted(index) != list(range(len(index))):
        raise ArgumentError(
            f"'index' should hold each of 0 to {len(index) - 1} once, got {list(index)}."
        )


def _whole_numbers(index: Sequence[int] | Tensor) -> Tensor:
    try:
        order = torch.as_tensor(index)
    except (TypeError, ValueError, RuntimeError):
        order = torch.empty(())
    if order.dim() != 1 or order.is_floating_point() or order.dtype == torch.bool:
        raise ArgumentError(f"'index' should be a list of whole numbers, got {index!r}.")
    return order.long().clone()
