"""`Coupling`, the base of coupling layers, and `AdditiveCoupling`; the other kinds have own files.

In a coupling the conditioner, a network, reads the kept features. Its output parametrizes an
elementwise map of the changed features.
"""

import functools
from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from kappaflow._checks import batch, natural_int
from kappaflow.autograd.replay import has_autocast, without_autocast
from kappaflow.autograd.trace import Trace
from kappaflow.bijection import Bijection, log_det_dtype, zero_log_det
from kappaflow.bijections.coupling_derivatives import (
    AdditiveLinearization,
    AdditiveTrace,
    RecordedConditioner,
)
from kappaflow.errors import ArgumentError
from kappaflow.linearization import Linearization
from kappaflow.nets import ConvNet
from kappaflow.nets.exact_type import is_exact, is_exactly
from kappaflow.nets.linearized import (
    LinearizedConvNet,
    LinearizedMLP,
    RecordedNetwork,
    is_plain,
    is_plain_conv,
)
from kappaflow.partition import AnyPartition, Partition
from kappaflow.registry import register


class Coupling(Bijection):
    """Base of couplings: splits x, evaluates the conditioner, and merges the parts again.

    A subclass defines `change` and `restore`, and the number of parameters that it needs for each
    changed feature.
    """

    parameters_per_feature: int
    #: Names these parameters in the error about a conditioner of the wrong width.
    parameters_of_a_feature: str

    def __init__(
        self,
        partition: AnyPartition,
        conditioner: nn.Module,
        *,
        context_features: int = 0,
    ) -> None:
        super().__init__()
        self.partition = partition
        self.conditioner = conditioner
        self.context_features = natural_int("context_features", context_features)
        check_something_to_read(partition, self.context_features)

    @abstractmethod
    def change(
        self, kept: Tensor, changed: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Returns the changed features, data to latent, and the log_det, (B,)."""

    @abstractmethod
    def restore(
        self, kept: Tensor, changed: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Returns the changed features, latent to data, and the log_det, (B,)."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        kept, changed = self.partition.split(batch("x", x, self._event_of(x)))
        changed, log_det = self.change(kept, changed, self.own_context(context))
        return self.partition.merge(kept, changed), log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        kept, changed = self.partition.split(batch("z", z, self._event_of(z)))
        changed, log_det = self.restore(kept, changed, self.own_context(context))
        return self.partition.merge(kept, changed), log_det

    def trace_from_output(self, z: Tensor, context: Tensor | None = None) -> Trace:
        trace_class = self._trace_class(z)
        if trace_class is None:
            return super().trace_from_output(z, context)
        kept, changed = self.partition.split(batch("z", z, self._event_of(z)).detach())
        kept.requires_grad_()
        with torch.enable_grad():
            answer = self.parameters_from(kept, self.own_context(context), exact=False)
        return trace_class(self.partition, kept, changed, answer)

    def parameters_from(self, kept: Tensor, context: Tensor | None, *, exact: bool) -> Tensor:
        """Returns the output of the conditioner in float32 or wider; `exact` disables autocast."""
        # The kept half can differ in its last bit between the two directions. Rounded to bfloat16,
        # this can change the output, and the inverse would not be exact. So only training steps
        # are narrow.
        inputs = (kept,) if context is None else (kept, context)
        device_type = kept.device.type
        exact = exact or not (self.training and torch.is_grad_enabled())
        if exact and has_autocast(device_type):
            with without_autocast(device_type):
                answer = self.conditioner(*inputs)
        else:
            answer = self.conditioner(*inputs)
        answer = self._full_width(answer, kept)
        return self.partition.answer(answer.to(log_det_dtype(kept.dtype)))

    def own_context(self, context: Tensor | None) -> Tensor | None:
        """Returns the checked context, or None if this coupling reads no context."""
        return checked_context(context, self.context_features)

    def _full_width(self, answer: Tensor, kept: Tensor) -> Tensor:
        """Returns the output of a conditioner of the right width, expanded to all rows."""
        shape = (
            kept.shape[0],
            self.parameters_per_feature * len(self.partition.changed),
            *kept.shape[2:],
        )
        if not isinstance(answer, Tensor) or answer.shape[1:2] != shape[1:2]:
            raise ArgumentError(self._width_message(answer, shape))
        if answer.shape == shape:
            return answer
        try:
            return answer.expand(shape)
        except RuntimeError:
            raise ArgumentError(self._width_message(answer, shape)) from None

    def _width_message(self, answer: object, shape: tuple[int, ...]) -> str:
        """Returns the error message for an output of the wrong shape."""
        per_row, changed = len(shape) == 2, len(self.partition.changed)
        feature = "feature" if per_row else "channel"
        which = f"each of {changed} {feature}s" if changed > 1 else f"one {feature}"
        expected, got = f"a tensor of shape {shape}", type(answer).__name__
        if isinstance(answer, Tensor):
            got = f"shape {tuple(answer.shape)}"
            if answer.dim() == len(shape) and answer.shape[1] != shape[1]:
                expected = f"{shape[1]} {'numbers per row' if per_row else 'channels'}"
                got = str(answer.shape[1])
        return (
            f"{type(self).__name__}: the conditioner should return {expected} "
            f"({self.parameters_of_a_feature} for {which}), got {got}."
        )

    def _linearized_conditioner(
        self, kind: type["Coupling"], x: Tensor, context: Tensor | None
    ) -> RecordedConditioner | None:
        """Returns the linearized conditioner at x, or None for subclasses and under autocast."""
        kept, net = self.partition.split(batch("x", x, self._event_of(x)))[0], self.conditioner
        if has_autocast(x.device.type) or not is_exactly(self, kind):
            return None
        if is_plain(net) and x.dim() == 2:
            linearized = LinearizedMLP(net, kept, self.own_context(context))
            self._full_width(linearized.value, kept)
            return linearized
        is_unmasked = isinstance(self.partition, Partition) and x.dtype == log_det_dtype(x.dtype)
        if is_unmasked and isinstance(net, ConvNet) and is_plain_conv(net, kept):
            linearized = LinearizedConvNet(net, kept, self.own_context(context))
            self._full_width(linearized.value, kept)
            return linearized
        answer = functools.partial(self.parameters_from, exact=True)
        return RecordedNetwork(answer, kept, self.own_context(context))

    def _is_as_defined(self, kind: type["Coupling"], x: Tensor) -> bool:
        """Returns whether this is exactly `kind`, without hooks, and x needs no conversion."""
        return is_exact(self, kind) and x.dtype == log_det_dtype(x.dtype)

    def _trace_class(self, x: Tensor) -> Callable[..., Trace] | None:
        """Returns a `Trace` with only the conditioner's graph; None to trace the coupling."""
        return None

    def _event_of(self, x: object) -> tuple[int, ...] | None:
        rest = x.shape[2:] if isinstance(x, Tensor) and x.dim() > 1 else ()
        return (self.partition.features, *rest)

    def extra_repr(self) -> str:
        context = f", context_features={self.context_features}" if self.context_features else ""
        return f"{self.partition}{context}"


@register("AdditiveCoupling")
class AdditiveCoupling(Coupling):
    r"""Shifts: :math:`z_1 = x_1`, :math:`z_2 = x_2 + t(x_1)`. The log_det is zero.

    Args:
        partition: The kept features x_1 and the changed features x_2.
        conditioner: A network from (B, kept), and the context if there is one, to (B, changed).
        context_features: Width of the context; 0 for none.

    Source:
        Dinh, Krueger, Bengio 2015 (NICE).
    """

    parameters_per_feature = 1
    parameters_of_a_feature = "a shift"

    def change(
        self, kept: Tensor, changed: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        shift = self.parameters_from(kept, context, exact=False)
        return (changed + shift).to(changed.dtype), zero_log_det(changed)

    def restore(
        self, kept: Tensor, changed: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        shift = self.parameters_from(kept, context, exact=True)
        return (changed - shift).to(changed.dtype), zero_log_det(changed)

    def _trace_class(self, x: Tensor) -> Callable[..., Trace] | None:
        if not self._is_as_defined(AdditiveCoupling, x):
            return None
        return AdditiveTrace

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        net = self._linearized_conditioner(AdditiveCoupling, x, context)
        if net is None:
            return super().linearize(x, context)
        kept, changed = self.partition.split(x)
        value = self.partition.merge(kept, (changed + net.value).to(x.dtype))
        return AdditiveLinearization(self.partition, net, value, zero_log_det(x))


def check_something_to_read(partition: AnyPartition, context_features: int) -> None:
    """Raises an error if a partition leaves the conditioner nothing to read."""
    if not partition.kept and not context_features:
        raise ArgumentError(
            f"'partition' should leave between 1 and {max(1, partition.features - 1)} features "
            "unchanged, got 0: a coupling must both read and change something."
        )


def checked_context(context: Tensor | None, context_features: int) -> Tensor | None:
    """Returns the context of a layer that reads one of this width, or None for width 0."""
    if not context_features:
        return None
    if context is None:
        raise ArgumentError(f"'context' should be given, of shape (batch, {context_features}).")
    return batch("context", context, (context_features,))
