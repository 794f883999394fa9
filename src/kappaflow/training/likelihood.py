"""The likelihood that training differentiates, compiled or not.

A compiler can return wrong gradients with correct values: that of torch 2.13 does for zuko's
splines on a CPU (`python -m benchmarks compiling` of commit a797bcd8). Compiled gradients are
therefore compared with those of the uncompiled flow, at a batch of the first epoch and of the
epochs 2, 4, 8, ...
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kappaflow.autograd.replay import Replay, owners_of
from kappaflow.errors import BuildError
from kappaflow.flows import Flow
from kappaflow.training.collectives import all_gather

SAME_RANDOM: dict[str, Any] = {"fallback_random": True}  # the random numbers of uncompiled code
LARGEST_ERROR = 0.01  # of a gradient; reordered sums differ by far less
ROUNDINGS = 16  # allowed error in units of the rounding of a narrow type, if that is larger
NEGLIGIBLE = 0.01  # of the norm of the whole gradient


class CheckedLikelihood(nn.Module):
    """The log_prob of a flow in training steps; `torch.compile` runs full batches, if compiled."""

    def __init__(self, flow: Flow, *, compiled: bool) -> None:
        super().__init__()
        self.flow = flow
        self._compiled = None
        if compiled:
            # It warns about in-place operations; wrong gradients from these would be found below.
            logging.getLogger("torch._higher_order_ops.wrap").setLevel(logging.ERROR)
            self._compiled = torch.compile(_own_code(flow), dynamic=False, options=SAME_RANDOM)
        self._checked = False

    def forward(self, x: Tensor, context: Tensor | None, is_whole: bool) -> Tensor:
        """Returns the log_prob (B,) of a full batch, or of the last batch of an epoch."""
        if self._compiled is None or not is_whole:
            return self.flow.log_prob(x, context)
        return self._compiled(x, context)

    def check(self, x: Tensor, context: Tensor | None, epoch: int) -> None:
        """Compares compiled gradients with others in some epochs; BuildError if they differ."""
        if self._compiled is None or (self._checked and epoch & (epoch - 1)):
            return
        self._checked = True
        for fault in all_gather(self._fault(x, context)):
            if fault is not None:
                raise BuildError(f"compile=True: {fault}; leave it out.")

    def _fault(self, x: Tensor, context: Tensor | None) -> str | None:
        names, trained = zip(*self._trained(), strict=True)
        replay = Replay(owners_of(self.flow), x)

        def gradients(*, is_whole: bool) -> list[Tensor]:
            with replay:
                mean = self(x, context, is_whole).mean()
                result = torch.autograd.grad(mean, trained, allow_unused=True)
            return [
                p.new_zeros(()) if g is None else g for p, g in zip(trained, result, strict=True)
            ]

        expected = gradients(is_whole=False)
        try:
            result = gradients(is_whole=True)
        except Exception as error:  # torch.compile and the C++ compiler raise many kinds
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            return f"torch.compile, which needs a C++ compiler such as g++, failed here ({reason})"
        total = torch.nn.utils.get_total_norm(expected)
        if not total.isfinite():
            return None  # this step is skipped with and without the compiler
        allowed = max(LARGEST_ERROR, ROUNDINGS * self._rounding(x.device.type))
        errors = [
            ((a - b).norm() / (b.norm() + NEGLIGIBLE * total)).nan_to_num(torch.inf).item()
            for a, b in zip(result, expected, strict=True)
        ]
        worst = max(errors)
        if worst <= allowed:
            return None
        return (
            f"torch.compile returns wrong gradients for this flow, with a relative error of "
            f"{worst:.2g} at {names[errors.index(worst)]}"
        )

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self.flow.named_parameters() if p.requires_grad]

    def _rounding(self, device: str) -> float:
        """Returns the relative rounding error of the products in conditioners."""
        if torch.is_autocast_enabled(device):
            return torch.finfo(torch.get_autocast_dtype(device)).eps
        return torch.finfo(self.flow.dtype).eps


def _own_code(flow: Flow) -> Callable[[Tensor, Tensor | None], Tensor]:
    """Returns the log_prob of a flow as a function that shares no code object with others."""
    # torch counts compilations per code object, and does not compile the ninth.

    def log_prob(x: Tensor, context: Tensor | None) -> Tensor:
        return flow.log_prob(x, context)

    log_prob.__code__ = log_prob.__code__.replace()
    return log_prob
