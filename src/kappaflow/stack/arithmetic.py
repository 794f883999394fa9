r"""What couplings do with the answer of their conditioner, on columns, and its gradients.

An affine coupling is :math:`y = x E + t` from data to latent and :math:`x = (y - t) E` back, with
E the exponential of the log-scale s or of -s. The last weights of its conditioner are scaled
beforehand, so that the raw answer r' gives :math:`s = 2 c\,\sigma(r') - c`, c tanh(r / c).
Log-scales are in bits here, not in nats: exp2 takes less than half the time of exp.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from kappaflow.stack.network import Activations, Slopes

_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input


class Found:
    """What is known of one coupling at a chunk of columns.

    Attributes:
        network: Of its conditioner.
        raw: The answer's part for the log-scale, (changed, columns); empty if it only shifts.
        shift: The answer's part that shifts, (changed, columns).
        sigmoid: Of `raw`.
        factor: E, by which the changed features are multiplied.
    """

    def __init__(self, network: Activations, *, affine: bool) -> None:
        self.network = network
        answer = network.answer
        changed = len(answer) // (2 if affine else 1)
        self.raw, self.shift = answer[: len(answer) - changed], answer[len(answer) - changed :]
        self.sigmoid, self.factor = torch.empty_like(self.raw), torch.empty_like(self.raw)


class Arithmetic(ABC):
    """A kind of coupling in one direction: the map x -> y of its changed features, on columns.

    Attributes:
        weight: What the gradient of the log_det is to be multiplied by before `pull`.
    """

    weight: float = 0.0

    @abstractmethod
    def prepare(self, found: Found, log_scales: Tensor | None) -> None:
        """Makes ready what the other methods need; adds log2 of the factor to `log_scales`."""

    @abstractmethod
    def apply(self, found: Found, x: Tensor, y: Tensor) -> None:
        """Writes y, which may be x."""

    @abstractmethod
    def undo(self, found: Found, y: Tensor) -> None:
        """Turns y back into x, in place."""

    @abstractmethod
    def pull(self, found: Found, x: Tensor, log_det: Tensor, slopes: Slopes, back: Tensor) -> None:
        """Takes the gradient of y, which stands in the last rows of `slopes.answer`, back.

        Args:
            found: As `prepare` left it.
            x: What was changed, (changed, columns).
            log_det: `weight` times the gradient of the log_det, (columns,).
            slopes: The gradient of the answer is written over that of y.
            back: Where the gradient of x is written, (changed, columns).
        """


class Affine(Arithmetic):
    """Scales and shifts; `direction` is 1 from data to latent and -1 back."""

    def __init__(self, bound: float, direction: int, like: Tensor) -> None:
        bits = bound * direction / math.log(2)
        self.direction, self.width = direction, 2 * bits
        self.weight = 4.0 * direction  # d s / d r = 4 sigma (1 - sigma); autograd has all but 4
        self.offset = torch.full((), -bits, dtype=like.dtype, device=like.device)

    def prepare(self, found: Found, log_scales: Tensor | None) -> None:
        torch.sigmoid(found.raw, out=found.sigmoid)
        torch.add(self.offset, found.sigmoid, alpha=self.width, out=found.factor)
        if log_scales is not None:
            log_scales.add_(found.factor)
        found.factor.exp2_()

    def apply(self, found: Found, x: Tensor, y: Tensor) -> None:
        if self.direction > 0:
            torch.addcmul(found.shift, x, found.factor, out=y)
        else:
            torch.sub(x, found.shift, out=y).mul_(found.factor)

    def undo(self, found: Found, y: Tensor) -> None:
        if self.direction > 0:
            y.sub_(found.shift).div_(found.factor)
        else:
            y.div_(found.factor).add_(found.shift)

    def pull(self, found: Found, x: Tensor, log_det: Tensor, slopes: Slopes, back: Tensor) -> None:
        changed = len(back)
        raw, shift = slopes.answer[:changed], slopes.answer[changed:]
        torch.mul(shift, found.factor, out=back)
        if self.direction < 0:
            torch.neg(back, out=shift)
            x = torch.sub(x, found.shift, out=raw)
        torch.addcmul(log_det, back, x, value=self.weight, out=raw)
        _sigmoid_backward(raw, found.sigmoid, grad_input=raw)


class Additive(Arithmetic):
    """Shifts; `direction` is 1 from data to latent and -1 back."""

    def __init__(self, direction: int) -> None:
        self.direction = direction

    def prepare(self, found: Found, log_scales: Tensor | None) -> None:
        pass

    def apply(self, found: Found, x: Tensor, y: Tensor) -> None:
        torch.add(x, found.shift, alpha=self.direction, out=y)

    def undo(self, found: Found, y: Tensor) -> None:
        y.sub_(found.shift, alpha=self.direction)

    def pull(self, found: Found, x: Tensor, log_det: Tensor, slopes: Slopes, back: Tensor) -> None:
        back.copy_(slopes.answer)
        if self.direction < 0:
            slopes.answer.neg_()
