"""A flow of another library in the form of a `Flow`, so that all that measures flows takes it."""

from typing import Any

import torch
from torch import Tensor, nn

from kappaflow.adapters.parts import Parts, per_row, seeded
from kappaflow.bijection import Chain
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow


class Wrapped(Flow):
    """A flow of another library, which shares its parameters with it.

    `bijection` has a layer for each of the library's, data to latent; `log_prob` and `sample` go
    through these and `base`. What the library itself says is `own_log_prob` and `own_sample`:
    that both agree is for `kappaflow.doctor` to see, not assumed.

    Args:
        original: What was wrapped.
        parts: What the adapter found.
        context_features: Width of the context; 0 for none.
        like: Tells type and device where the flow has no state of its own.

    Attributes:
        library: Where it is from.
        original: What was wrapped, in a tuple of its own.
        source: The module that holds the parameters, if there is one.
    """

    def __init__(
        self, original: object, parts: Parts, context_features: int, like: Tensor | None
    ) -> None:
        nn.Module.__init__(self)
        self.original = (original,)  # as it is: a module would be registered a second time
        self.library = parts.library
        self.source = parts.module
        self.base = parts.base
        self.bijection = Chain(parts.layers)
        self.augment = None
        self._own = parts
        self._context_features = context_features
        place = torch.zeros(()) if like is None else torch.zeros_like(like).sum()
        self.register_buffer("_place", place, persistent=False)

    @property
    def joint_shape(self) -> tuple[int, ...]:
        return self._own.layers[0].event_shape if self._own.layers else self.base.event_shape

    @property
    def context_features(self) -> int:
        return self._context_features

    def own_log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor | None:
        """Returns log_prob (B,) as the library itself computes it; None if it has none."""
        if self._own.log_prob is None:
            return None
        found = self._own.log_prob(x.clone(), context)
        return per_row(found, x, f"log_prob of {self.library}")

    def own_sample(
        self,
        n: int,
        context: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor | None] | None:
        """Returns draws as the library itself makes them, and the log_prob that it gives for them.

        Args:
            n: How many.
            context: (n, C), a row for each draw.
            generator: Draws the seed of torch's global generator, which is left as it was.

        Returns:
            (n, *event) and (n,), or None for the latter; None where the library draws nothing.
        """
        if self._own.sample is None:
            return None
        with seeded(generator):
            x, log_prob = self._own.sample(n, context)
        x = x.reshape(n, *self.event_shape)
        return x, None if log_prob is None else per_row(log_prob, x, f"sample of {self.library}")

    def extra_repr(self) -> str:
        return f"library={self.library!r}"

    def __reduce__(self) -> Any:  # noqa: ANN401
        raise ArgumentError(
            f"a wrapped flow cannot be copied: copy the flow of {self.library}, and wrap that."
        )
