"""A coupling with linear ends: linear couplings of the same partition before and after it."""

from collections.abc import Iterator

from torch import Tensor

from kappaflow.bijection import Bijection, compose, linearize_parts, zero_log_det
from kappaflow.bijections import AdditiveCoupling, AffineCoupling
from kappaflow.errors import ArgumentError
from kappaflow.factor import LinearCoupling
from kappaflow.linearization import ChainLinearization, Linearization
from kappaflow.registry import register


@register("SandwichCoupling")
class SandwichCoupling(Bijection):
    """A coupling between two linear couplings of its partition; together one affine coupling.

    All three keep x_1 and change x_2 by a scale and a shift computed from x_1, so their
    composition does as well: with linear couplings (a, A) and (b, B) and a coupling (s, t),
    :math:`z_2 = a b e^s x_2 + b e^s A x_1 + b t + B x_1`.

    Args:
        coupling: The middle coupling.
        before: The linear coupling on the data side, or None.
        after: The linear coupling on the latent side, or None.

    Raises:
        ArgumentError: The partitions differ, or both linear couplings are None.

    Source:
        Ours.

    Example:
        >>> import torch
        >>> from kappaflow import Partition
        >>> from kappaflow.nets import MLP
        >>> half = Partition.half(2)
        >>> middle = AffineCoupling(half, MLP(1, 2, (8,)))
        >>> sandwich = SandwichCoupling(middle, after=LinearCoupling(half, [[3.0]]))
        >>> sandwich(torch.tensor([[1.0, 10.0]]))[0].detach()
        tensor([[ 1., 13.]])
    """

    def __init__(
        self,
        coupling: AffineCoupling | AdditiveCoupling,
        before: LinearCoupling | None = None,
        after: LinearCoupling | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(coupling, AffineCoupling | AdditiveCoupling):
            raise ArgumentError(
                "'coupling' should be an affine or an additive coupling, "
                f"got {type(coupling).__name__}."
            )
        for name, linear in {"before": before, "after": after}.items():
            if linear is not None and not isinstance(linear, LinearCoupling):
                raise ArgumentError(
                    f"'{name}' should be a LinearCoupling or None, got {type(linear).__name__}."
                )
            if linear is not None and linear.partition != coupling.partition:
                raise ArgumentError(
                    f"'{name}' should have the partition of the coupling, {coupling.partition}, "
                    f"got {linear.partition}."
                )
        if before is None and after is None:
            raise ArgumentError(
                "'before' or 'after' should be a LinearCoupling, got None for both."
            )
        self.coupling, self.before, self.after = coupling, before, after
        self.partition = coupling.partition
        self.context_features = coupling.context_features

    def parts(self) -> Iterator[Bijection]:
        """Yields the couplings in order, data to latent."""
        for part in (self.before, self.coupling, self.after):
            if part is not None:
                yield part

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return compose(self.parts(), x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return compose([part.inverse for part in reversed([*self.parts()])], z, context)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        parts = linearize_parts(((part, context) for part in self.parts()), x)
        log_det = sum((part.log_det for part in parts), zero_log_det(x))
        return ChainLinearization(parts, parts[-1].value, log_det)
