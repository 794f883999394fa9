"""Couplings that scale and shift: `AffineCoupling` and `SigmoidCoupling`."""

import functools
from abc import abstractmethod
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from kappaflow._checks import one_of, positive_float
from kappaflow.autograd.trace import Trace
from kappaflow.bijection import log_det_dtype
from kappaflow.bijections.coupling import Coupling
from kappaflow.bijections.coupling_derivatives import AffineLinearization, AffineTrace
from kappaflow.bijections.log_scales import (
    SCALES,
    bounded,
    log_scale_of,
    scaled,
    slope_of,
    unscaled,
)
from kappaflow.linearization import Linearization
from kappaflow.partition import AnyPartition
from kappaflow.registry import register

LOG_TWO = 0.6931471805599453


class ScaledCoupling(Coupling):
    """Base of couplings z_2 = x_2 e^s + t; a subclass defines s of the raw numbers."""

    parameters_per_feature = 2
    parameters_of_a_feature = "a log-scale and a shift"

    def __init__(
        self,
        partition: AnyPartition,
        conditioner: nn.Module,
        *,
        scale_bound: float = 2.0,
        context_features: int = 0,
    ) -> None:
        super().__init__(partition, conditioner, context_features=context_features)
        self.scale_bound = positive_float("scale_bound", scale_bound)

    def change(
        self, kept: Tensor, changed: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return scaled(changed, *self._log_scale_and_shift(kept, context, exact=False))

    def restore(
        self, kept: Tensor, changed: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return unscaled(changed, *self._log_scale_and_shift(kept, context, exact=True))

    @abstractmethod
    def log_scale(self, raw: Tensor) -> Tensor:
        """Returns the log-scales for the raw outputs of the conditioner."""

    def _log_scale_and_shift(
        self, kept: Tensor, context: Tensor | None, *, exact: bool
    ) -> tuple[Tensor, Tensor]:
        raw, shift = self.parameters_from(kept, context, exact=exact).chunk(2, dim=1)
        return self.log_scale(raw), shift

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scale_bound={self.scale_bound:.4g}"


@register("AffineCoupling")
class AffineCoupling(ScaledCoupling):
    r"""Scales and shifts: :math:`z_1 = x_1`, :math:`z_2 = x_2 e^{s(x_1)} + t(x_1)`.

    The log-scale is bounded, :math:`s = c \tanh(r / c)`, so that one coupling scales by at most
    :math:`e^{\pm c}`. If the last layer of the conditioner starts at zero, the coupling starts as
    the identity. `scale` selects another curve, for couplings from other libraries.

    Args:
        partition: The kept features x_1 and the changed features x_2.
        conditioner: A network from (B, kept), and the context if there is one, to
            (B, 2 * changed): first the raw log-scales r, then the shifts t.
        scale_bound: The bound c on the log-scale of this coupling, above 0.
        context_features: Width of the context; 0 for none.
        scale: The curve: "tanh"; "softsign", :math:`r / (1 + |r| / c)`; "atan",
            :math:`2c/\pi \arctan(\pi r / 2c)`; "sigmoid", :math:`\log(\sigma(r) + e^{-c})`; or,
            with no bound on at least one side, "exp", s = r; "logsigmoid",
            :math:`\log\sigma(r)`; "softplus", :math:`-\log\sigma(-r)`.

    Source:
        Dinh, Sohl-Dickstein, Bengio 2017 (RealNVP); the conditional form is Ardizzone et al. 2019;
        the other curves: zuko, FrEIA, nflows, normflows.

    Example:
        >>> import torch, kappaflow as kf
        >>> coupling = AffineCoupling(kf.Partition.half(4), kf.nets.MLP(2, 4, (8,)))
        >>> z, log_det = coupling(torch.ones(3, 4))
        >>> z.shape, log_det.shape
        (torch.Size([3, 4]), torch.Size([3]))
    """

    def __init__(
        self,
        partition: AnyPartition,
        conditioner: nn.Module,
        *,
        scale_bound: float = 2.0,
        context_features: int = 0,
        scale: str = "tanh",
    ) -> None:
        super().__init__(
            partition,
            conditioner,
            scale_bound=scale_bound,
            context_features=context_features,
        )
        self.scale = one_of("scale", scale, SCALES)

    def log_scale(self, raw: Tensor) -> Tensor:
        return log_scale_of(self.scale, raw, self.scale_bound)

    def _trace_class(self, x: Tensor) -> Callable[..., Trace] | None:
        if self.scale != "tanh" or not self._is_as_defined(AffineCoupling, x):
            return None
        return functools.partial(AffineTrace, bound=self.scale_bound)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        net = self._linearized_conditioner(AffineCoupling, x, context)
        if net is None:
            return super().linearize(x, context)
        kept, changed = self.partition.split(x)
        raw, shift = net.value.to(log_det_dtype(x.dtype)).chunk(2, dim=1)
        log_scale = self.log_scale(raw)
        value = self.partition.merge(kept, (changed * log_scale.exp() + shift).to(x.dtype))
        slope = changed * slope_of(self.scale, raw, self.scale_bound)
        return AffineLinearization(self.partition, net, value, log_scale, slope)

    def extra_repr(self) -> str:
        text = super().extra_repr()
        return text if self.scale == "tanh" else f"{text}, scale={self.scale!r}"


@register("SigmoidCoupling")
class SigmoidCoupling(ScaledCoupling):
    r"""Scales by a sigmoid and shifts: :math:`z_1 = x_1`, :math:`z_2 = 2 \sigma(r) x_2 + t`.

    The scale is below 2, and it is 1 if the conditioner returns zero. Sampling divides by the
    scale, so r is bounded as :math:`r = c \tanh(r_0 / c)`, and the scale is at least
    :math:`2 \sigma(-c)`.

    Args:
        partition: The kept features x_1 and the changed features x_2.
        conditioner: A network from (B, kept, ...), and the context if there is one, to
            (B, 2 * changed, ...): first the raw numbers r_0, then the shifts t.
        scale_bound: The bound c, above 0. With 2 the scales are between 0.24 and 1.76, with 4
            between 0.036 and 1.96.
        context_features: Width of the context; 0 for none.

    Source:
        Kolesnikov, Pinto, Tschannen 2024 (Jet), without a bound.

    Example:
        >>> import torch, kappaflow as kf
        >>> coupling = SigmoidCoupling(kf.Partition.half(4), kf.nets.MLP(2, 4, (8,)))
        >>> coupling(torch.ones(3, 4))[1].tolist()
        [0.0, 0.0, 0.0]
    """

    def log_scale(self, raw: Tensor) -> Tensor:
        return logsigmoid(bounded(raw, self.scale_bound)) + LOG_TWO
