r"""Coupling layers: a part of the features passes unchanged and decides what happens to the rest.

The readable definitions, and the reference against which every faster execution is tested.
"""

import functools
from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from kappaflow._checks import batch, natural_int, one_of, positive_float
from kappaflow.autograd.checkpoint import LAYER_MODES, run_layer, uses_plain_autograd
from kappaflow.autograd.trace import Trace
from kappaflow.bijection import Bijection, log_det_dtype, zero_log_det
from kappaflow.bijections.linearized import (
    AdditiveLinearization,
    AffineLinearization,
    RecordedConditioner,
)
from kappaflow.bijections.scaled import ScaledNode, scaled, unscaled
from kappaflow.bijections.scales import SCALES, log_scale_of, slope_of
from kappaflow.bijections.traced import AdditiveTrace, AffineTrace
from kappaflow.errors import ArgumentError
from kappaflow.linearization import Linearization
from kappaflow.nets import MLP, ConvNet
from kappaflow.nets.as_made import is_as_made, is_exactly
from kappaflow.nets.linearized import LinearizedMLP, is_plain
from kappaflow.nets.linearized_conv import LinearizedConvNet, is_plain_conv
from kappaflow.nets.recorded import RecordedNetwork
from kappaflow.partition import AnyPartition, Partition
from kappaflow.registry import register


class Coupling(Bijection):
    """What couplings share: the partition, the conditioner, and what is kept for backward.

    A subclass says how many numbers it needs for each changed feature, and what it does with them.
    """

    parameters_per_feature: int
    #: What these numbers are, for the error about a conditioner of the wrong width.
    parameters_of_a_feature: str

    def __init__(
        self,
        partition: AnyPartition,
        conditioner: nn.Module,
        *,
        context_features: int = 0,
        memory: str = "recompute",
    ) -> None:
        super().__init__()
        self.partition = partition
        self.conditioner = conditioner
        self.context_features = natural_int("context_features", context_features)
        self.memory = one_of("memory", memory, LAYER_MODES)
        check_something_to_read(partition, self.context_features)

    @abstractmethod
    def change(
        self, kept: Tensor, changed: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Returns the changed features, data to latent, and the log_det (B,)."""

    @abstractmethod
    def restore(
        self, kept: Tensor, changed: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Returns the changed features, latent to data, and the log_det (B,)."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        kept, changed = self.partition.split(batch("x", x, self._event_of(x)))
        changed, log_det = run_layer(
            self.memory, self.change, kept, changed, self.own_context(context), module=self
        )
        return self.partition.merge(kept, changed), log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        kept, changed = self.partition.split(batch("z", z, self._event_of(z)))
        changed, log_det = run_layer(
            self.memory, self.restore, kept, changed, self.own_context(context), module=self
        )
        return self.partition.merge(kept, changed), log_det

    def trace(self, x: Tensor, context: Tensor | None = None) -> Trace:
        make = self._own_trace(x)
        if make is None:
            return super().trace(x, context)
        return self._traced(make, x, context, is_output=False)

    def trace_from_output(self, z: Tensor, context: Tensor | None = None) -> Trace:
        make = self._own_trace(z)
        if make is None:
            return super().trace_from_output(z, context)
        return self._traced(make, z, context, is_output=True)

    def parameters_from(self, kept: Tensor, context: Tensor | None, *, exact: bool) -> Tensor:
        """Returns the conditioner's answer in at least float32; `exact` switches autocast off.

        Mixed precision is for training steps only. A rounding to bfloat16 can flip between the two
        directions, since the kept half read back may differ in its last bit, and then the
        conditioner answers differently: the flow would no longer be its own inverse.
        """
        inputs, kind = (kept,) if context is None else (kept, context), kept.device.type
        exact = exact or not (self.training and torch.is_grad_enabled())
        if exact and torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):
                answer = self.conditioner(*inputs)
        else:
            answer = self.conditioner(*inputs)
        answer = self._full_width(answer, kept)
        return self.partition.answer(answer.to(log_det_dtype(kept.dtype)))

    def _full_width(self, answer: Tensor, kept: Tensor) -> Tensor:
        """Returns what a conditioner returned, in the shape that this coupling needs.

        Numbers for all rows, or all places, are expanded; an error says which width is wrong.
        """
        wanted = (
            kept.shape[0],
            self.parameters_per_feature * len(self.partition.changed),
            *kept.shape[2:],
        )
        if not isinstance(answer, Tensor) or answer.shape[1:2] != wanted[1:2]:
            raise ArgumentError(self._width_message(answer, wanted))
        if answer.shape == wanted:
            return answer
        try:
            return answer.expand(wanted)
        except RuntimeError:
            raise ArgumentError(self._width_message(answer, wanted)) from None

    def _width_message(self, answer: object, wanted: tuple[int, ...]) -> str:
        """Returns what a conditioner should return, and what this one did return."""
        per_row, changed = len(wanted) == 2, len(self.partition.changed)
        feature = "feature" if per_row else "channel"
        which = f"each of {changed} {feature}s" if changed > 1 else f"one {feature}"
        expected, got = f"a tensor of shape {wanted}", type(answer).__name__
        if isinstance(answer, Tensor):
            got = f"shape {tuple(answer.shape)}"
            if answer.dim() == len(wanted) and answer.shape[1] != wanted[1]:
                expected = f"{wanted[1]} {'numbers per row' if per_row else 'channels'}"
                got = str(answer.shape[1])
        return (
            f"{type(self).__name__}: the conditioner should return {expected} "
            f"({self.parameters_of_a_feature} for {which}), got {got}."
        )

    def _recorded(
        self, kind: type["Coupling"], x: Tensor, context: Tensor | None
    ) -> RecordedConditioner | None:
        """Returns the conditioner recorded at x, or None where only autograd knows the coupling.

        That is so with a subclass of this kind, and under autocast.
        """
        kept, net = self.partition.split(batch("x", x, self._event_of(x)))[0], self.conditioner
        if torch.is_autocast_enabled(x.device.type) or not is_exactly(self, kind):
            return None
        if is_plain(net) and x.dim() == 2:
            linearized = LinearizedMLP(net, kept, self.own_context(context))
            self._full_width(linearized.value, kept)
            return linearized
        answers_all = isinstance(self.partition, Partition) and x.dtype == log_det_dtype(x.dtype)
        if answers_all and isinstance(net, ConvNet) and is_plain_conv(net, kept):
            linearized = LinearizedConvNet(net, kept, self.own_context(context))
            self._full_width(linearized.value, kept)
            return linearized
        answer = functools.partial(self.parameters_from, exact=True)
        return RecordedNetwork(answer, kept, self.own_context(context))

    def _is_as_defined(self, kind: type["Coupling"], x: Tensor) -> bool:
        """Returns whether a call is what this kind defines, no type converted: no hook either."""
        return is_as_made(self, kind) and x.dtype == log_det_dtype(x.dtype)

    def _own_trace(self, x: Tensor) -> Callable[..., Trace] | None:
        """Returns what makes its traces, or None where autograd has to see the whole of it."""
        return None

    def _traced(
        self, make: Callable[..., Trace], state: Tensor, context: Tensor | None, *, is_output: bool
    ) -> Trace:
        """Returns a trace at an input, or an output, whose graph is that of the conditioner."""
        kept, changed = self.partition.split(batch("x", state, self._event_of(state)).detach())
        kept.requires_grad_()
        with torch.enable_grad():
            answer = self.parameters_from(kept, self.own_context(context), exact=False)
        return make(self.partition, kept, changed, answer, is_output=is_output)

    def own_context(self, context: Tensor | None) -> Tensor | None:
        """Returns the context if this coupling reads one."""
        if not self.context_features:
            return None
        if context is None:
            raise ArgumentError(
                f"'context' should be given, of shape (batch, {self.context_features})."
            )
        return batch("context", context, (self.context_features,))

    def _event_of(self, x: object) -> tuple[int, ...] | None:
        rest = x.shape[2:] if isinstance(x, Tensor) and x.dim() > 1 else ()
        return (self.partition.features, *rest)

    def extra_repr(self) -> str:
        context = f", context_features={self.context_features}" if self.context_features else ""
        return f"{self.partition}{context}, memory={self.memory!r}"


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


def mlp_conditioner(
    coupling: type[Coupling],
    partition: AnyPartition,
    hidden: Sequence[int],
    *,
    context_features: int = 0,
    residual: bool = False,
    dropout: float = 0.0,
) -> MLP:
    """Returns a fully connected conditioner of the right widths for a kind of coupling."""
    check_something_to_read(partition, context_features)
    outputs = coupling.parameters_per_feature * len(partition.changed)
    return MLP(
        len(partition.kept),
        outputs,
        hidden,
        context_features=context_features,
        residual=residual,
        dropout=dropout,
    )


def _shifted(changed: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    return (changed + shift).to(changed.dtype), zero_log_det(changed)


def _unshifted(changed: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    return (changed - shift).to(changed.dtype), zero_log_det(changed)


def check_something_to_read(partition: AnyPartition, context_features: int) -> None:
    """Refuses a partition that leaves a conditioner nothing to read."""
    if not partition.kept and not context_features:
        raise ArgumentError(
            f"'partition' should leave between 1 and {max(1, partition.features - 1)} features "
            "unchanged, got 0: a coupling must both read and change something."
        )
