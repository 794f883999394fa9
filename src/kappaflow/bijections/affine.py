"""Couplings that scale and shift: affine, additive, sigmoid."""

import functools
from abc import abstractmethod
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from kappaflow._checks import one_of, positive_float
from kappaflow.autograd.checkpoint import uses_plain_autograd
from kappaflow.autograd.trace import Trace
from kappaflow.bijection import log_det_dtype, zero_log_det
from kappaflow.bijections.coupling import Coupling
from kappaflow.bijections.coupling_derivatives import (
    AdditiveLinearization,
    AdditiveTrace,
    AffineLinearization,
    AffineTrace,
)
from kappaflow.bijections.log_scales import (
    SCALES,
    ScaledNode,
    bounded,
    log_scale_of,
    scaled,
    slope_of,
    unscaled,
)
from kappaflow.linearization import Linearization
from kappaflow.partition import AnyPartition
from kappaflow.registry import register


class ScaledCoupling(Coupling):
    """What couplings share that scale and shift: z_2 = x_2 e^s + t, where (r, t) is read from x_1.

    A subclass says which log-scale s it makes of a raw number r.
    """

    parameters_per_feature = 2
    parameters_of_a_feature = "a log-scale and a shift"

    def __init__(
        self,
        partition: AnyPartition,
        conditioner: nn.Module,
        *,
        scale_bound: float = 2.0,
        context_features: int = 0,
        memory: str = "recompute",
    ) -> None:
        super().__init__(partition, conditioner, context_features=context_features, memory=memory)
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
        """Returns the log-scales of raw numbers."""

    def _log_scale_and_shift(
        self, kept: Tensor, context: Tensor | None, *, exact: bool
    ) -> tuple[Tensor, Tensor]:
        raw, shift = self.parameters_from(kept, context, exact=exact).chunk(2, dim=1)
        return self.log_scale(raw), shift

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scale_bound={self.scale_bound:.4g}"


@register("AffineCoupling")
class AffineCoupling(ScaledCoupling):
    r"""Changed features are scaled and shifted: :math:`z_2 = x_2 e^{s} + t`, (s, t) made from x_1.

    The log-scale is bounded, :math:`s = c \tanh(r / c)`, so that one coupling scales by at most
    :math:`e^{\pm c}`. With a conditioner whose last layer is zero the coupling starts as the
    identity. Other libraries make s of r by other curves; `scale` names one of them.

    Args:
        partition: What is kept (x_1) and changed (x_2).
        conditioner: A network from (B, kept), and the context where there is one, to
            (B, 2 * changed): first the raw log-scales r, then the shifts t.
        scale_bound: The bound c on the log-scale of this coupling, above 0.
        context_features: Width of the context; 0 for none.
        memory: "recompute" or "store": what is kept for the backward pass.
        scale: The curve: "tanh"; "softsign", :math:`r / (1 + |r| / c)`; "atan",
            :math:`2c/\pi \arctan(\pi r / 2c)`; "sigmoid", :math:`\log(\sigma(r) + e^{-c})`; or,
            with no bound on at least one side, "exp", s = r; "logsigmoid",
            :math:`\log\sigma(r)`; "softplus", :math:`-\log\sigma(-r)`.

    Source:
        Dinh, Sohl-Dickstein, Bengio 2017 (RealNVP); the conditional form is Ardizzone et al. 2019;
        the other curves: zuko, FrEIA, nflows, normflows.

    Example:
        >>> import kappaflow as kf
        >>> coupling = AffineCoupling(kf.Partition.half(4), MLP(2, 4, (8,)))
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
        memory: str = "recompute",
        scale: str = "tanh",
    ) -> None:
        super().__init__(
            partition,
            conditioner,
            scale_bound=scale_bound,
            context_features=context_features,
            memory=memory,
        )
        self.scale = one_of("scale", scale, SCALES)

    def log_scale(self, raw: Tensor) -> Tensor:
        return log_scale_of(self.scale, raw, self.scale_bound)

    def change(
        self, kept: Tensor, changed: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if uses_plain_autograd() or type(self) is not AffineCoupling or self.scale != "tanh":
            return super().change(kept, changed, context)
        answer = self.parameters_from(kept, context, exact=False)
        if answer.dtype == changed.dtype:
            return ScaledNode.apply(changed, answer, self.scale_bound)
        raw, shift = answer.chunk(2, dim=1)
        return scaled(changed, self.log_scale(raw), shift)

    def _own_trace(self, x: Tensor) -> Callable[..., Trace] | None:
        if self.scale != "tanh" or not self._is_as_defined(AffineCoupling, x):
            return None
        return functools.partial(AffineTrace, bound=self.scale_bound)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        net = self._recorded(AffineCoupling, x, context)
        if net is None:
            return super().linearize(x, context)
        kept, changed = self.partition.split(x)
        raw, shift = net.value.to(log_det_dtype(x.dtype)).chunk(2, dim=1)
        log_scale = self.log_scale(raw)
        value = self.partition.merge(kept, (changed * log_scale.exp() + shift).to(x.dtype))
        slope = changed * slope_of(self.scale, raw, self.scale_bound)
        return AffineLinearization(self.partition, net, value, log_scale, slope)

    def extra_repr(self) -> str:
        said = super().extra_repr()
        return said if self.scale == "tanh" else f"{said}, scale={self.scale!r}"


@register("AdditiveCoupling")
class AdditiveCoupling(Coupling):
    r"""Changed features are shifted: :math:`z_2 = x_2 + t(x_1)`; the log_det is zero.

    Args:
        partition: What is kept (x_1) and changed (x_2).
        conditioner: A network from (B, kept), and the context where there is one, to (B, changed).
        context_features: Width of the context; 0 for none.
        memory: "recompute" or "store": what is kept for the backward pass.

    Source:
        Dinh, Krueger, Bengio 2015 (NICE).
    """

    parameters_per_feature = 1
    parameters_of_a_feature = "a shift"

    def change(
        self, kept: Tensor, changed: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return _shifted(changed, *self._shift(kept, context, exact=False))

    def restore(
        self, kept: Tensor, changed: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return _unshifted(changed, *self._shift(kept, context, exact=True))

    def _own_trace(self, x: Tensor) -> Callable[..., Trace] | None:
        if not self._is_as_defined(AdditiveCoupling, x):
            return None
        return AdditiveTrace

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        net = self._recorded(AdditiveCoupling, x, context)
        if net is None:
            return super().linearize(x, context)
        kept, changed = self.partition.split(x)
        value = self.partition.merge(kept, (changed + net.value).to(x.dtype))
        return AdditiveLinearization(self.partition, net, value, zero_log_det(x))

    def _shift(self, kept: Tensor, context: Tensor | None, *, exact: bool) -> tuple[Tensor]:
        return (self.parameters_from(kept, context, exact=exact),)


def _shifted(changed: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    return (changed + shift).to(changed.dtype), zero_log_det(changed)


def _unshifted(changed: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    return (changed - shift).to(changed.dtype), zero_log_det(changed)


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
