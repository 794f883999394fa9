"""Couplings by rational-quadratic splines."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from kappaflow.autograd.checkpoint import is_transformed
from kappaflow.autograd.trace import Trace
from kappaflow.bijection import log_det_dtype
from kappaflow.bijections.coupling import Coupling
from kappaflow.bijections.coupling_derivatives import SplineLinearization
from kappaflow.bijections.spline import (
    Pieces,
    SplineNode,
    SplineShape,
    SplineTrace,
    numbers,
    pulled_back,
    splined,
    summed,
    unsplined,
)
from kappaflow.linearization import Linearization
from kappaflow.partition import AnyPartition
from kappaflow.registry import register


@register("SplineCoupling")
class SplineCoupling(Coupling):
    r"""Changed features go through monotone splines, whose knots and slopes are made from x_1.

    Within [-B, B] the spline is rational-quadratic, outside of it the identity; with a conditioner
    whose last layer is zero it is the identity everywhere, up to rounding. With K bins whose
    sides are at least m times those of equal bins, and slopes at knots from :math:`\delta` to
    :math:`1 / \delta`, all slopes dz/dx lie between :math:`\delta / \sigma^2` and
    :math:`\max(1 / \delta, 2 \sigma)`, where :math:`\sigma = (K - (K - 1) m) / m`: that is
    `slopes`, by default from 0.0012 to 26.
    With :math:`l \le 1 \le h` these ends, and :math:`\mu` the norm of the derivative of what is
    changed by what is kept, the condition number of the layer is at most
    :math:`(h + \mu)(1 + \mu) / l`: h / l where the conditioner answers the same for all.

    Args:
        partition: What is kept (x_1) and changed (x_2).
        conditioner: A network from (B, kept, ...), and the context where there is one, to
            (B, (3 bins - 1) * changed, ...): of all changed features first the width of the first
            bin, of all then that of the second, and so on; then heights, then the slopes at the
            inner knots. Any finite numbers will do.
        bins: K, at least 2.
        bound: B, in units of x: of standard deviations in a flow that standardises.
        min_bin: m, the least width and height of a bin as a share of 2 B / K, from 0.01 to 1.
        min_slope: :math:`\delta`, from 0.001 to 1.
        context_features: Width of the context; 0 for none.
        memory: "recompute" or "store": what is kept for the backward pass.

    Raises:
        ArgumentError: An argument is out of its range.

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
        memory: str = "recompute",
    ) -> None:
        super().__init__(partition, conditioner, context_features=context_features, memory=memory)
        self.shape = SplineShape(bins, bound, min_bin, min_slope)
        self.parameters_per_feature = self.shape.parameters
        self.parameters_of_a_feature = f"{self.shape.parameters} spline parameters"

    @property
    def slopes(self) -> tuple[float, float]:
        """The least and the largest slope that this coupling can have, whatever its network."""
        return self.shape.slopes

    def change(
        self, kept: Tensor, changed: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        answer = self.parameters_from(kept, context, exact=False)
        raw = numbers(answer, changed, self.shape)
        if torch.is_grad_enabled() and not is_transformed() and answer.dtype == changed.dtype:
            return SplineNode.apply(changed, raw, self.shape)
        return _typed(splined(changed.to(answer.dtype), raw, self.shape), changed)

    def restore(
        self, kept: Tensor, changed: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        answer = self.parameters_from(kept, context, exact=True)
        raw = numbers(answer, changed, self.shape)
        return _typed(unsplined(changed.to(answer.dtype), raw, self.shape), changed)

    def _own_trace(self, x: Tensor) -> Callable[..., Trace] | None:
        if not self._is_as_defined(SplineCoupling, x):
            return None
        return functools.partial(SplineTrace, shape=self.shape)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        net = self._recorded(SplineCoupling, x, context)
        if net is None:
            return super().linearize(x, context)
        kept, changed = self.partition.split(x)
        answer = net.value.to(log_det_dtype(x.dtype))
        wide = changed.to(answer.dtype)
        pieces = Pieces(wide, numbers(answer, changed, self.shape), self.shape)
        by_raw = pulled_back(pieces, torch.ones_like(wide))[1]
        value = self.partition.merge(kept, pieces.y.to(x.dtype))
        log_det = summed(pieces.log_slope)
        return SplineLinearization(self.partition, net, value, log_det, pieces.slope, by_raw)

    def extra_repr(self) -> str:
        shape = self.shape
        return (
            f"{super().extra_repr()}, bins={shape.bins}, bound={shape.bound:g}, "
            f"min_bin={shape.min_bin:g}, min_slope={shape.min_slope:g}"
        )


def _typed(found: tuple[Tensor, Tensor], like: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the value in the type of the input, and the log_det."""
    return found[0].to(like.dtype), summed(found[1])
