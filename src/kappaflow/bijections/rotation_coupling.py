"""Couplings that rotate angles."""

import math

import torch
from torch import Tensor, nn

from kappaflow._checks import positive_float
from kappaflow.bijection import zero_log_det
from kappaflow.bijections.coupling import Coupling
from kappaflow.bijections.domain import wrapped
from kappaflow.partition import AnyPartition
from kappaflow.registry import register


@register("RotationCoupling")
class RotationCoupling(Coupling):
    r"""Rotates features on circles of length 2B around 0 by angles that depend on x_1.

    The conditioner returns two numbers a and b for each changed feature, and the rotation is the
    angle of the vector (1 + a, b). This way a coupling can represent :math:`z_2 = x_2 - x_1` on
    circles, which a shift that is continuous in x_1 cannot. If the last layer of the conditioner
    is zero, nothing is rotated. The log_det is zero.

    Args:
        partition: The kept features x_1 and the changed features x_2, which must all be angles.
        conditioner: A network from (B, kept), and the context if there is one, to
            (B, 2 * changed): first all a, then all b.
        half_period: Half of the period, B.
        context_features: Width of the context; 0 for none.

    Source:
        Rotation after a spline with fixed ends: Rezende et al. 2020, Normalizing flows on tori and
        spheres. Using the angle of a vector is ours.

    Example:
        >>> import kappaflow as kf
        >>> net = kf.nets.MLP(1, 2, (8,))
        >>> coupling = RotationCoupling(kf.Partition.half(2), net, half_period=5.0)
        >>> coupling(torch.tensor([[0.0, 6.0]]))[0].detach()
        tensor([[ 0., -4.]])
    """

    parameters_per_feature = 2
    parameters_of_a_feature = "two numbers, which give an angle,"

    def __init__(
        self,
        partition: AnyPartition,
        conditioner: nn.Module,
        *,
        half_period: float,
        context_features: int = 0,
    ) -> None:
        super().__init__(partition, conditioner, context_features=context_features)
        self.half_period = positive_float("half_period", half_period)

    def change(
        self, kept: Tensor, changed: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return self._turned(changed, self._turn(kept, context, exact=False))

    def restore(
        self, kept: Tensor, changed: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return self._turned(changed, -self._turn(kept, context, exact=True))

    def _turn(self, kept: Tensor, context: Tensor | None, *, exact: bool) -> Tensor:
        a, b = self.parameters_from(kept, context, exact=exact).chunk(2, dim=1)
        return torch.atan2(b, 1 + a) * (self.half_period / math.pi)

    def _turned(self, changed: Tensor, by: Tensor) -> tuple[Tensor, Tensor]:
        turned = wrapped(changed.to(by.dtype) + by, self.half_period)
        return turned.to(changed.dtype), zero_log_det(changed)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, half_period={self.half_period:g}"
