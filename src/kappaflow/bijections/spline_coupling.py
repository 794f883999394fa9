"""Couplings with rational-quadratic splines."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from kappaflow.autograd.trace import Trace
from kappaflow.bijection import log_det_dtype
from kappaflow.bijections.coupling import Coupling
from kappaflow.bijections.coupling_derivatives import SplineLinearization
from kappaflow.bijections.spline import Pieces, SplineTrace, numbers, pulled_back, spline_values
from kappaflow.bijections.spline_shape import SplineShape
from kappaflow.linearization import Linearization
from kappaflow.partition import AnyPartition
from kappaflow.registry import register


@register("SplineCoupling")
class SplineCoupling(Coupling):
    r"""Maps the changed features by monotone splines with knots and slopes computed from x_1.

    The spline is rational-quadratic within [-B, B] and the identity outside. If the last layer of
    the conditioner is zero, the coupling is the identity up to rounding.

    Let K be the number of bins, m the smallest side of a bin relative to equal bins, and
    :math:`\delta` to :math:`1 / \delta` the range of slopes at knots. Then all slopes dz/dx are
    between :math:`l = \delta / \sigma^2` and :math:`h = \max(1 / \delta, 2 \sigma)`, where
    :math:`\sigma = (K - (K - 1) m) / m`. This range is `slopes`; the default is 0.0012 to 26. With
    the norm :math:`\mu` of the derivative of the changed features by the kept ones, the condition
    number of the layer is at most :math:`(h + \mu)(1 + \mu) / l`. It is at most h / l if the
    output of the conditioner is constant.

    Args:
        partition: The kept features x_1 and the changed features x_2.
        conditioner: A network from (B, kept, ...), and the context if there is one, to
            (B, (3 bins - 1) * changed, ...), any finite numbers. The widths come first, then the
            heights, then the slopes at the inner knots. Each group holds the first bin of all
            changed features, then the second bin of all, and so on.
        bins: Number K of bins, at least 2.
        bound: The bound B, in units of x. In a flow with standardization these are standard
            deviations.
        min_bin: Smallest width and height m of a bin, relative to 2 B / K, at least 0.01 and below
            1.
        min_slope: Smallest slope :math:`\delta` at a knot, at least 0.001 and below 1.
        context_features: Width of the context; 0 for none.

    Source:
        Durkan, Bekasov, Murray, Papamakarios 2019, Neural spline flows. The bounds are ours.

    Example:
        >>> import kappaflow as kf
        >>> net = kf.nets.MLP(2, 2 * (3 * 4 - 1), (8,))
        >>> coupling = SplineCoupling(kf.Partition.half(4), net, bins=4)
        >>> z, log_det = coupling(torch.ones(3, 4))
        >>> z.shape, log_det.shape
        (torch.Size([3, 4]), torch.Size([3]))
    """

    def __init__(
        self,
        partition: AnyPartition,
        conditioner: nn.Module,
        *,
        bins: int = 8,
        bound: float = 5.0,
        min_bin: float = 0.4,
        min_slope: float = 0.2,
        context_features: int = 0,
    ) -> None:
        super().__init__(partition, conditioner, context_features=context_features)
        self.shape = SplineShape(bins, bound, min_bin, min_slope)
        self.parameters_per_feature = self.shape.parameters
        self.parameters_of_a_feature = f"{self.shape.parameters} spline parameters"

    @property
    def slopes(self) -> tuple[float, float]:
        """The smallest and the largest slope that this coupling can have with any network."""
        return self.shape.slopes

    def change(
        self, kept: Tensor, changed: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        answer = self.parameters_from(kept, context, exact=False)
        return self._values(changed, answer)

    def restore(
        self, kept: Tensor, changed: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        answer = self.parameters_from(kept, context, exact=True)
        return self._values(changed, answer, is_output=True)

    def _values(
        self, points: Tensor, answer: Tensor, *, is_output: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Returns y at x, or x at y, and the log_det, (B,), for an output of the conditioner."""
        raw, points_wider = numbers(answer, points, self.shape), points.to(answer.dtype)
        value, log_det = spline_values(points_wider, raw, self.shape, is_output=is_output)
        return value.to(points.dtype), log_det

    def _trace_class(self, x: Tensor) -> Callable[..., Trace] | None:
        if not self._is_as_defined(SplineCoupling, x):
            return None
        return functools.partial(SplineTrace, shape=self.shape)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        net = self._linearized_conditioner(SplineCoupling, x, context)
        if net is None:
            return super().linearize(x, context)
        kept, changed = self.partition.split(x)
        answer = net.value.to(log_det_dtype(x.dtype))
        changed_wider = changed.to(answer.dtype)
        pieces = Pieces(changed_wider, numbers(answer, changed, self.shape), self.shape)
        by_raw = pulled_back(pieces, torch.ones_like(changed_wider))[1]
        value, log_det = self._values(changed, answer)
        value = self.partition.merge(kept, value)
        return SplineLinearization(self.partition, net, value, log_det, pieces.slope, by_raw)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.shape.text}"
