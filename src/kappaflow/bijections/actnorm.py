"""Activation normalization: a learned scale and shift per feature, set by the first batch."""

import torch
from torch import Tensor, nn

from kappaflow._checks import feature_batch, positive_int
from kappaflow.bijection import Bijection, at_each_place, log_det_dtype
from kappaflow.linearization import ElementwiseLinearization, Linearization, beside_features
from kappaflow.nets.inputs import flag_text, moments
from kappaflow.registry import register


@register("ActNorm")
class ActNorm(Bijection):
    """z = x * exp(log_scale) + shift with a learned pair for each feature.

    The map is the identity until the first `forward` in training mode, which sets the parameters
    so that this batch has mean 0 and deviation 1. A batch whose mean or deviation is not finite
    passes unchanged, and the next batch can set the parameters. The buffer `initialized` records
    whether they are set; it is saved with the parameters and shown in the `repr`. For a constant
    feature, or a batch with a single number per feature, only the shift is set. With several
    processes, all take the values of the first one.

    Args:
        features: Number of features (dimension 1 of the points); channels for images.

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
        self._last_read: tuple[Tensor, int, bool] | None = None

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.start(feature_batch("x", x, self.features))
        x_wider, log_scale, shift = self._numbers(x)
        return (x_wider * log_scale.exp() + shift).to(x.dtype), self._log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z_wider, log_scale, shift = self._numbers(feature_batch("z", z, self.features))
        return ((z_wider - shift) * (-log_scale).exp()).to(z.dtype), -self._log_det(z)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        value, log_det = self(x)  # runs first, because it may set the scales
        log_scale = self._numbers(x)[1]
        return ElementwiseLinearization(value, log_det, log_scale.exp(), (-log_scale).exp())

    def _numbers(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns x in the dtype of the computation, and broadcastable log-scales and shifts."""
        log_scale, shift = (beside_features(p, x) for p in (self.log_scale, self.shift))
        return x.to(log_det_dtype(x.dtype)), log_scale, shift

    def _log_det(self, x: Tensor) -> Tensor:
        return at_each_place(self.log_scale.to(log_det_dtype(x.dtype)).sum(), x)

    def is_initialized(self) -> bool:
        """Returns `initialized`; reads it from a GPU only if it may have changed."""
        flag = self.initialized
        if flag.device.type == "cpu":
            return bool(flag)
        last = self._last_read
        if last is None or last[0] is not flag or last[1] != flag._version:
            last = self._last_read = flag, flag._version, bool(flag)
        return last[2]

    def start(self, x: Tensor) -> None:
        """Sets scale and shift from x, (B, features, ...), in training if they are not set yet."""
        if self.training and not self.is_initialized():
            self._start_from(x)

    @torch.no_grad()
    def _start_from(self, x: Tensor) -> None:
        mean, deviation = moments(x)
        start = torch.stack((-deviation.log(), -mean / deviation)).to(self.shift)
        # Broadcast before the check, so that all processes decide alike.
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.broadcast(start, 0)
        if not torch.isfinite(start).all():
            return
        self.log_scale.copy_(start[0])
        self.shift.copy_(start[1])
        self.initialized.fill_(True)

    def extra_repr(self) -> str:
        return f"features={self.features}, initialized={flag_text(self.initialized)}"
