"""Couplings whose scales are sigmoids: never far above 1."""

from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from kappaflow._checks import positive_float
from kappaflow.bijections.coupling import Coupling, bounded
from kappaflow.partition import AnyPartition
from kappaflow.registry import register

LOG_TWO = 0.6931471805599453


@register("SigmoidCoupling")
class SigmoidCoupling(Coupling):
    r"""Changed features are scaled and shifted: :math:`z_2 = 2 \sigma(r) x_2 + t`.

    The scale is at most 2, and 1 where the conditioner answers zero. What it lacks at the other
    end, where samples would be divided by almost nothing, is a bound on r: :math:`r = c \tanh(r_0
    / c)`, so that the scale is at least :math:`2 \sigma(-c)`.

    Args:
        partition: What is kept (x_1) and changed (x_2).
        conditioner: A network from (B, kept, ...), and the context where there is one, to
            (B, 2 * changed, ...): first the raw r_0, then the shifts t.
        scale_bound: The bound c, above 0: 4 lets scales be from 0.036 to 1.96.
        context_features: Width of the context; 0 for none.
        memory: "recompute" or "store": what is kept for the backward pass.

    Source:
        Kolesnikov, Pinto, Tschannen 2024 (Jet), without a bound.

    Example:
        >>> import torch, kappaflow as kf
        >>> coupling = SigmoidCoupling(kf.Partition.half(4), kf.MLP(2, 4, (8,)))
        >>> coupling(torch.ones(3, 4))[1].tolist()
        [0.0, 0.0, 0.0]
    """

    parameters_per_feature = 2

    def __init__(
        self,
        partition: AnyPartition,
        conditioner: nn.Module,
        *,
        scale_bound: float = 4.0,
        context_features: int = 0,
        memory: str = "recompute",
    ) -> None:
        super().__init__(partition, conditioner, context_features=context_features, memory=memory)
        self.scale_bound = positive_float("scale_bound", scale_bound)

    def change(
        self, kept: Tensor, changed: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._log_scale_and_shift(kept, context, exact=False)
        value = changed * log_scale.exp() + shift
        return value.to(changed.dtype), log_scale.flatten(1).sum(1)

    def restore(
        self, kept: Tensor, changed: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._log_scale_and_shift(kept, context, exact=True)
        value = (changed - shift) * (-log_scale).exp()
        return value.to(changed.dtype), -log_scale.flatten(1).sum(1)

    def _log_scale_and_shift(
        self, kept: Tensor, context: Tensor | None, *, exact: bool
    ) -> tuple[Tensor, Tensor]:
        raw, shift = self.parameters_from(kept, context, exact=exact).chunk(2, dim=1)
        return logsigmoid(bounded(raw, self.scale_bound)) + LOG_TWO, shift

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scale_bound={self.scale_bound:.4g}"
