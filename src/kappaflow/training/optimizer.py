"""The optimizer of all trainings, its learning rates, and the average of the weights."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from kappaflow.stack.joint import JointParameters
from kappaflow.training.checkpoint import copied_as

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # torch's defaults


class AdamW:
    """Takes the steps of `torch.optim.AdamW(..., fused=True)`, bit for bit."""

    # Constructors of torch's optimizers import its compiler, which takes longer than a training.
    # The parameters of stacks are moved together: call `gather_gradients` after a backward pass.

    def __init__(self, module: nn.Module, *, lr: float, weight_decay: float) -> None:
        self._joint = JointParameters(module)
        parameters = list(self._joint.tensors.values())
        self.param_groups: list[dict[str, Any]] = [{"params": parameters, "lr": lr}]
        self.weight_decay = weight_decay
        self._state: dict[int, dict[str, Tensor]] = {}

    @property
    def parameters(self) -> list[Tensor]:
        return self.param_groups[0]["params"]

    def set_rate(self, rate: float, highest: float) -> bool:
        """Returns True, after setting the learning rate; `highest` is that of the settings."""
        self.param_groups[0]["lr"] = rate
        return True

    def end_epoch(self, validation_nll: float) -> None:
        """Does nothing: an `OwnOptimizer` moves its scheduler."""

    def zero_grad(self) -> None:
        self._joint.zero_grad()

    def joined(self) -> AbstractContextManager[None]:
        """Returns a context for a step of one process, in which autograd handles few tensors."""
        return self._joint.joined()

    def gather_gradients(self) -> None:
        self._joint.gather_gradients()

    def scatter_gradients(self) -> None:
        """Gives each parameter its gradient, to find the layers with one that is not finite."""
        self._joint.scatter_gradients()

    @torch.no_grad()
    def step(self) -> None:
        indices = [i for i, p in enumerate(self.parameters) if p.grad is not None]
        moved = [self.parameters[i] for i in indices]
        states = [self._state_of(i) for i in indices]
        adamw(
            moved,
            [p.grad for p in moved],  # pyright: ignore[reportArgumentType]
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=BETA_1,
            beta2=BETA_2,
            lr=self.param_groups[0]["lr"],
            weight_decay=self.weight_decay,
            eps=EPSILON,
            maximize=False,
        )

    def _state_of(self, index: int) -> dict[str, Tensor]:
        if index not in self._state:
            self._state[index] = _new_state(self.parameters[index])
        return self._state[index]

    def state_dict(self) -> dict[int, dict[str, Tensor]]:
        """Returns "step", "exp_avg" and "exp_avg_sq" of each parameter that was moved."""
        return self._state

    def plain_state(self) -> None:
        """Returns None: `state_dict` is the whole state."""

    def load_state_dict(self, state: dict[int, dict[str, Tensor]], plain: object = None) -> None:
        """Restores what `state_dict` returned; ValueError if it is of other parameters."""
        unknown = state.keys() - set(range(len(self.parameters)))
        if unknown:
            raise ValueError(f"the optimizer has no parameter {min(unknown)}")
        self._state = {
            i: copied_as(entries, _new_state(self.parameters[i])) for i, entries in state.items()
        }


def learning_rate_at(step: float, steps: int, *, highest: float, warmup: float) -> float:
    """Returns the learning rate of a step: a linear rise, then half a cosine to zero."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return highest * (step + 1) / rise
    return highest * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def _new_state(parameter: Tensor) -> dict[str, Tensor]:
    return {
        "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
        "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
        "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
    }


class WeightEMA:
    """Exponential moving averages of the parameters of a module; the decay is smaller at first."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._joint = JointParameters(module)
        self.parameters = self._joint.tensors
        self.averages = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Updates the averages after a step, counted from 1."""
        self._joint.follow()
        decay = min(self.decay, step / (step + 10))  # forgets the initial weights soon
        averages = [self.averages[name] for name in self.parameters]
        torch._foreach_lerp_(averages, list(self.parameters.values()), 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Loads the averages into the module, and restores the parameters afterwards."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state(self) -> dict[str, Tensor]:
        return self.averages

    def restore(self, state: dict[str, Tensor]) -> None:
        self.averages = copied_as(state, self.averages)

    @torch.no_grad()
    def _swap(self) -> None:
        self._joint.follow()
        for name, parameter in self.parameters.items():
            before = parameter.detach().clone()
            parameter.copy_(self.averages[name])
            self.averages[name].copy_(before)
