"""Activation normalisation: a learned scale and shift a feature, started from the first batch."""

import torch
from torch import Tensor, nn

from kappaflow._checks import feature_batch, positive_int
from kappaflow.bijection import Bijection, at_each_place, log_det_dtype
from kappaflow.linearization import ElementwiseLinearization, Linearization, beside_features
from kappaflow.nets.inputs import flag_text, moments
from kappaflow.registry import register


@register("ActNorm")
class ActNorm(Bijection):
    """z = x * exp(log_scale) + shift, one pair for each feature, both learned.

    The first `forward` in training mode sets them so that this batch has mean 0 and deviation 1;
    until then the map is the identity, as in evaluation mode. A batch whose mean or
    deviation is not finite starts nothing: it passes unchanged, and the next one may start it.
    That it has happened is a buffer, which is saved with the parameters and shown in the `repr`. A
    batch of one number a feature sets the shift only, a constant feature likewise. Where several
    processes train, all take the first process's values, and wait where it waits.

    Args:
        features: Number of features: dimension 1 of the points, the channels of images.

    Source:
        Kingma, Dhariwal 2018 (Glow), section 3.1.
    """

    is_linear = True

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = positive_int("features", features)
        self.log_scale = nn.Parameter(torch.zeros(features))
        self.shift = nn.Parameter(torch.zeros(features))
        self.initialized: Tensor
        self.register_buffer("initialized", torch.tensor(False))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.start(feature_batch("x", x, self.features))
        wide, log_scale, shift = self._numbers(x)
        return (wide * log_scale.exp() + shift).to(x.dtype), self._log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        wide, log_scale, shift = self._numbers(feature_batch("z", z, self.features))
        return ((wide - shift) * (-log_scale).exp()).to(z.dtype), -self._log_det(z)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        value, log_det = self(x)  # before the slopes: it may start them
        log_scale = self._numbers(x)[1]
        return ElementwiseLinearization(value, log_det, log_scale.exp(), (-log_scale).exp())

    def _numbers(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns x in the dtype of the computation, with broadcastable log-scales and shifts."""
        log_scale, shift = (beside_features(p, x) for p in (self.log_scale, self.shift))
        return x.to(log_det_dtype(x.dtype)), log_scale, shift

    def _log_det(self, x: Tensor) -> Tensor:
        return at_each_place(self.log_scale.to(log_det_dtype(x.dtype)).sum(), x)

    def start(self, x: Tensor) -> None:
        """Sets scale and shift by what arrives, (B, features, ...), if they wait for it."""
        if self.training and not self.initialized:
            self._start_from(x)

    @torch.no_grad()
    def _start_from(self, x: Tensor) -> None:
        mean, deviation = moments(x)
        if x.numel() == self.features:
            deviation = torch.ones_like(deviation)
        start = torch.stack((-deviation.log(), -mean / deviation)).to(self.shift)
        # Before the decision, so that it is the same one in all processes.
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.broadcast(start, 0)
        if not torch.isfinite(start).all():
            return
        self.log_scale.copy_(start[0])
        self.shift.copy_(start[1])
        self.initialized.fill_(True)

    def extra_repr(self) -> str:
        return f"features={self.features}, initialized={flag_text(self.initialized)}"
