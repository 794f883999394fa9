"""Couplings whose scales are sigmoids: never far above 1."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from kappaflow.bijections.coupling import ScaledCoupling
from kappaflow.bijections.scaled import bounded
from kappaflow.registry import register

LOG_TWO = 0.6931471805599453


@register("SigmoidCoupling")
class SigmoidCoupling(ScaledCoupling):
    r"""Changed features are scaled and shifted: :math:`z_2 = 2 \sigma(r) x_2 + t`.

    The scale is at most 2, and 1 where the conditioner answers zero. What it lacks at the other
    end, where samples would be divided by almost nothing, is a bound on r: :math:`r = c \tanh(r_0
    / c)`, so that the scale is at least :math:`2 \sigma(-c)`.

    Args:
        partition: What is kept (x_1) and changed (x_2).
        conditioner: A network from (B, kept, ...), and the context where there is one, to
            (B, 2 * changed, ...): first the raw r_0, then the shifts t.
        scale_bound: The bound c, above 0: 2 lets scales be from 0.24 to 1.76, 4 from 0.036 to
            1.96.
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

    def log_scale(self, raw: Tensor) -> Tensor:
        return logsigmoid(bounded(raw, self.scale_bound)) + LOG_TWO
