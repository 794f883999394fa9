"""An optimizer of torch in a training, with a state that a checkpoint can hold."""

import json
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from kappaflow.errors import ArgumentError

MakeOptimizer = Callable[[list[nn.Parameter]], Optimizer]
# Entries of a state that fused kernels read without a check of their shape.
OF_SHAPE = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer"}


class OwnOptimizer:
    """An optimizer of torch in the place of `AdamW`, whose rates rise and fall alike."""

    def __init__(self, parameters: Iterable[nn.Parameter], make: MakeOptimizer) -> None:
        self._trained = [parameter for parameter in parameters if parameter.requires_grad]
        self._optimizer = _made(make, self._trained)
        for group in self.param_groups:
            group.setdefault("initial_lr", group.get("lr"))

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self._optimizer.param_groups

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def describe(self) -> dict[str, Any]:
        """Returns the class and its numbers, by which a run folder knows the training."""
        kind = type(self._optimizer)
        groups = self._optimizer.state_dict()["param_groups"]
        numbers = {f"group {i}": g | {"params": len(g["params"])} for i, g in enumerate(groups)}
        named = {"class": f"{kind.__module__}.{kind.__qualname__}", **numbers}
        return {"optimizer": json.loads(json.dumps(named, default=repr))}

    def set_rate(self, rate: float, highest: float) -> None:
        """Scales each rate by rate / highest."""
        for group in self.param_groups:
            if group["initial_lr"] is not None:
                group["lr"] = group["initial_lr"] * (rate / highest)

    def zero_grad(self) -> None:
        for parameter in self._trained:
            parameter.grad = None

    def joined(self) -> AbstractContextManager[None]:
        return nullcontext()

    def gather_gradients(self) -> None:
        """Does nothing: an `AdamW` moves the parameters of stacks together."""

    def scatter_gradients(self) -> None:
        """Does nothing, for the same reason."""

    def step(self) -> None:
        self._optimizer.step()

    def state_dict(self) -> dict[int, dict[str, Tensor]]:
        """Returns the tensors of each parameter."""
        state = self._optimizer.state_dict()["state"]
        return {i: _some(entries, tensors=True) for i, entries in state.items()}

    def plain_state(self) -> dict[str, Any]:
        """Returns the rest of the state as JSON values."""
        state = self._optimizer.state_dict()
        plain = {str(i): _some(entries, tensors=False) for i, entries in state["state"].items()}
        return state | {"state": plain}

    def load_state_dict(self, state: dict[int, dict[str, Tensor]], plain: Any) -> None:  # noqa: ANN401
        """Restores what `state_dict` and `plain_state` returned; ValueError if it does not fit."""
        numbers = {int(i): entries for i, entries in plain["state"].items()}
        entries = {i: {**numbers.get(i, {}), **state.get(i, {})} for i in numbers | state}
        self._optimizer.load_state_dict(plain | {"state": entries})
        for parameter, entries in self._optimizer.state.items():
            for name in OF_SHAPE & entries.keys():
                if entries[name] is not None and entries[name].shape != parameter.shape:
                    raise ValueError(f"{name!r} has the shape {tuple(entries[name].shape)}")


def _some(entries: dict[str, Any], *, tensors: bool) -> dict[str, Any]:
    """Returns the entries of a state that are tensors, or the others."""
    return {name: value for name, value in entries.items() if isinstance(value, Tensor) == tensors}


def _made(make: Any, trained: list[nn.Parameter]) -> Optimizer:  # noqa: ANN401
    """Returns an optimizer that can move parameters of the flow, or raises an error."""
    how = "a function such as functools.partial(torch.optim.SGD, lr=0.01)"
    if isinstance(make, Optimizer) or not callable(make):
        raise ArgumentError(f"'optimizer' should be {how}, got {type(make).__name__}.")
    try:
        optimizer = make(trained)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"'optimizer' should be {how}; this one fails: {error}.") from None
    if not isinstance(optimizer, Optimizer):
        raise ArgumentError(f"'optimizer' should return one of torch.optim, got {optimizer!r}.")
    if isinstance(optimizer, LBFGS):
        raise ArgumentError("'optimizer' should take steps without a closure, got LBFGS.")
    moved = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not moved or moved - {id(parameter) for parameter in trained}:
        raise ArgumentError(
            "'optimizer' should hold trainable parameters of the flow, and no others: use the "
            "list that the function is called with."
        )
    return optimizer
