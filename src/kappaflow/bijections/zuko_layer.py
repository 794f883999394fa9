"""A transform of zuko as a bijection of ours, with its parameters."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kappaflow.bijection import Bijection, log_det_dtype, zero_log_det


class ZukoLayer(Bijection):
    """A lazy transform of zuko, which makes a map for each context; its direction is ours.

    Args:
        transform: Of `zuko.lazy.LazyTransform`.
        context_features: Width of the context that it reads; 0 for none.
    """

    def __init__(self, transform: nn.Module, context_features: int = 0) -> None:
        super().__init__()
        self.transform = transform
        self.context_features = context_features

    def layer_name(self) -> str:
        return type(self.transform).__name__

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _answer(x, lambda: self._made(context).call_and_ladj(x))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _answer(z, lambda: self._made(context).inv.call_and_ladj(z))

    def __repr__(self) -> str:  # that of zuko draws random numbers, and asks numbers of masks
        return f"{type(self).__name__}({self.layer_name()})"

    def _made(self, context: Tensor | None) -> Any:  # noqa: ANN401
        """Returns the transform for contexts (B, C)."""
        return self.transform(context if self.context_features else None)


def _answer(x: Tensor, call: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Returns a value in the type of x, and a log_det (B,).

    Some transforms return one number for all rows, some one for each feature, and some do not take
    an empty batch.
    """
    if not len(x):
        return x.clone(), zero_log_det(x)
    with torch.autocast(x.device.type, enabled=False):
        value, log_det = call()
    log_det = log_det.to(log_det_dtype(x.dtype))
    return value.to(x.dtype), log_det.sum(1) if log_det.dim() > 1 else log_det.expand(len(x))
