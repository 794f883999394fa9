"""The likelihood that a training takes the gradient of: that of the flow, or a compiled one.

A compiler can be wrong, and quietly: that of torch 2.13 makes gradients of zuko's splines that
are off on a CPU, with the right values (`python -m benchmarks compiling`). So what it makes is
compared with the flow as it is, at a batch of the first epoch and of the epochs 2, 4, 8, ...
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

AS_DRAWN: dict[str, Any] = {"fallback_random": True}  # by torch's own generator, as without it
LARGEST_ERROR = 0.01  # of a gradient; a compiler reorders sums, which is far below
ROUNDINGS = 16  # of a narrow type: so many make up an error where that is more
LITTLE = 0.01  # of the norm of the whole gradient; parameters below it are negligible


class Likelihood(nn.Module):
    """The log_prob of a flow, in training steps.

    Args:
        flow: Whose parameters are trained.
        compiled: Whether whole batches go through `torch.compile`. Others do not: each size would
            be compiled for itself.
    """

    def __init__(self, flow: Flow, *, compiled: bool) -> None:
        super().__init__()
        self.flow = flow
        self._compiled = None
        if compiled:
            # It warns of operations in place, which the comparison of gradients would find.
            logging.getLogger("torch._higher_order_ops.wrap").setLevel(logging.ERROR)
            self._compiled = torch.compile(_own_code(flow), dynamic=False, options=AS_DRAWN)
        self._checked = False

    def forward(self, x: Tensor, context: Tensor | None, is_whole: bool) -> Tensor:
        """Returns the log_prob (B,) of a batch, which is whole or the rest of an epoch."""
        if self._compiled is None or not is_whole:
            return self.flow.log_prob(x, context)
        return self._compiled(x, context)

    def check(self, x: Tensor, context: Tensor | None, epoch: int) -> None:
        """Compares compiled gradients with plain ones, in some epochs; nothing else is changed.

        Args:
            x: A whole batch; of several ranks, this one's share.
            context: (B, C), where there is one.
            epoch: Counted from 1.

        Raises:
            BuildError: The flow cannot be compiled here, or its gradients come out otherwise.
        """
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
                found = torch.autograd.grad(mean, trained, allow_unused=True)
            return [
                p.new_zeros(()) if g is None else g for p, g in zip(trained, found, strict=True)
            ]

        expected = gradients(is_whole=False)
        try:
            found = gradients(is_whole=True)
        except Exception as error:  # whatever a compiler of Python, and that of C++, can raise
            messages = str(error).strip().partition("\n")[0] or type(error).__name__
            return (
                f"torch.compile, which needs a C++ compiler such as g++, failed here ({messages})"
            )
        whole = torch.nn.utils.get_total_norm(expected)
        if not whole.isfinite():
            return None  # a step that is skipped, compiled or not
        allowed = max(LARGEST_ERROR, ROUNDINGS * self._rounding(x.device.type))
        errors = [
            ((a - b).norm() / (b.norm() + LITTLE * whole)).nan_to_num(torch.inf).item()
            for a, b in zip(found, expected, strict=True)
        ]
        worst = max(errors)
        if worst <= allowed:
            return None
        return (
            f"torch.compile makes gradients of this flow that are wrong, off by {worst:.2g} of "
            f"their length at {names[errors.index(worst)]}"
        )

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self.flow.named_parameters() if p.requires_grad]

    def _rounding(self, device: str) -> float:
        """Returns the relative rounding of the products of conditioners."""
        if torch.is_autocast_enabled(device):
            return torch.finfo(torch.get_autocast_dtype(device)).eps
        return torch.finfo(self.flow.dtype).eps


def _own_code(flow: Flow) -> Callable[[Tensor, Tensor | None], Tensor]:
    """Returns the log_prob of a flow as a function whose code no other flow shares.

    torch counts what it has compiled for each code, and leaves the ninth to Python.
    """

    def log_prob(x: Tensor, context: Tensor | None) -> Tensor:
        return flow.log_prob(x, context)

    log_prob.__code__ = log_prob.__code__.replace()
    return log_prob
