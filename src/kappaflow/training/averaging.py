"""An exponential moving average of the weights: what is validated and kept."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from kappaflow.training.checkpoint import copied_as


class Average:
    """Averages of the parameters of a module, with a memory that is short at first.

    Args:
        module: Whose parameters are averaged.
        decay: Weight of the past at each step; 0 follows the parameters exactly.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = dict(module.named_parameters())
        self.averages = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the parameters after a step, counted from 1."""
        decay = min(
            self.decay, step / (step + 10)
        )  # short memory at first: the start is soon forgotten
        for name, parameter in self.parameters.items():
            self.averages[name].lerp_(parameter, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Puts the averages in the module's place, and the parameters back afterwards."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state(self) -> dict[str, Tensor]:
        """Returns the averages by parameter name."""
        return self.averages

    def restore(self, state: dict[str, Tensor]) -> None:
        """Takes over averages that `state` returned."""
        self.averages = copied_as(state, self.averages)

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self.parameters.items():
            held = parameter.detach().clone()
            parameter.copy_(self.averages[name])
            self.averages[name].copy_(held)
