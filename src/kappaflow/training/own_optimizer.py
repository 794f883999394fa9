"""Optimizers and schedulers of torch in a training, with states that a checkpoint can hold."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from numbers import Number
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from kappaflow.errors import ArgumentError

MakeOptimizer = Callable[[list[nn.Parameter]], Optimizer]
MakeScheduler = Callable[[Optimizer], Any]
EACH_STEP = (OneCycleLR, CyclicLR)  # torch documents these for steps, the others for epochs
# Entries of a state that fused kernels read without a check of their shape.
OF_SHAPE = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer"}
EXAMPLES = {
    "optimizer": "functools.partial(torch.optim.SGD, lr=0.01)",
    "scheduler": "functools.partial(torch.optim.lr_scheduler.StepLR, step_size=10)",
}


class OwnOptimizer:
    """An optimizer of torch with an optional scheduler, in the place of `AdamW`."""

    # Without a scheduler, each learning rate rises and falls as that of `AdamW`.

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        make_optimizer: MakeOptimizer,
        make_scheduler: MakeScheduler | None,
    ) -> None:
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        self._trained = trained
        self._optimizer = _made("optimizer", make_optimizer, trained, Optimizer)
        _check_optimizer(self._optimizer, trained)
        self._scheduler: Any = None
        for group in self.param_groups:
            group.setdefault("initial_lr", group.get("lr"))
        if make_scheduler is not None:
            kind = (LRScheduler, ReduceLROnPlateau)
            self._scheduler = _made("scheduler", make_scheduler, self._optimizer, kind)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self._optimizer.param_groups

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def describe(self) -> dict[str, Any]:
        """Returns the classes and their numbers, by which a run folder knows the training."""
        state = self._optimizer.state_dict()
        groups = {
            f"group {i}": {
                key: len(value) if key == "params" else _plain(value)
                for key, value in group.items()
            }
            for i, group in enumerate(state["param_groups"])
        }
        described: dict[str, Any] = {"optimizer": {"class": _name(self._optimizer), **groups}}
        if self._scheduler is not None:
            numbers = {key: _plain(value) for key, value in self._scheduler.state_dict().items()}
            described["scheduler"] = {"class": _name(self._scheduler), **numbers}
        return described

    def set_rate(self, rate: float, highest: float) -> bool:
        """Returns whether it scaled the rates by rate / highest; a scheduler does so itself."""
        if self._scheduler is not None:
            return False
        for group in self.param_groups:
            if group["initial_lr"] is not None:
                group["lr"] = group["initial_lr"] * (rate / highest)
        return True

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
        if isinstance(self._scheduler, EACH_STEP):
            self._move()

    def end_epoch(self, validation_nll: float) -> None:
        """Moves a scheduler of epochs, by the validation NLL if it waits for a plateau."""
        if isinstance(self._scheduler, ReduceLROnPlateau):
            self._move(validation_nll)
        elif self._scheduler is not None and not isinstance(self._scheduler, EACH_STEP):
            self._move()

    def _move(self, *metric: float) -> None:
        try:
            self._scheduler.step(*metric)
        except ValueError as error:
            raise ArgumentError(
                f"'scheduler' should last for the whole training: {error}."
            ) from None

    def state_dict(self) -> dict[int, dict[str, Tensor]]:
        """Returns the tensors of the state, by the paths that `plain_state` names."""
        tensors: dict[str, Tensor] = {}
        self._encoded(tensors)
        return {0: tensors}

    def plain_state(self) -> Any:  # noqa: ANN401
        """Returns the rest of the state as JSON values."""
        return self._encoded({})

    def load_state_dict(self, state: dict[int, dict[str, Tensor]], plain: Any) -> None:  # noqa: ANN401
        """Restores what `state_dict` and `plain_state` returned; ValueError if it does not fit."""
        optimizer, scheduler = decoded(plain, state.get(0, {}))
        if (scheduler is None) != (self._scheduler is None):
            raise ValueError("it was made with a scheduler, or without one")
        self._optimizer.load_state_dict(optimizer)
        if self._scheduler is not None:
            self._scheduler.load_state_dict(scheduler)
        for parameter, entries in self._optimizer.state.items():
            for name in OF_SHAPE & entries.keys():
                if entries[name] is not None and entries[name].shape != parameter.shape:
                    raise ValueError(f"{name!r} has the shape {tuple(entries[name].shape)}")

    def _encoded(self, tensors: dict[str, Tensor]) -> Any:  # noqa: ANN401
        scheduler = None if self._scheduler is None else self._scheduler.state_dict()
        return encoded([self._optimizer.state_dict(), scheduler], tensors, "state")


def encoded(value: Any, tensors: dict[str, Tensor], path: str) -> Any:  # noqa: ANN401
    """Returns a state as JSON values; its tensors are added to `tensors`, by their paths."""
    if isinstance(value, Tensor):
        tensors[path] = value
        return {"tensor": path}
    if isinstance(value, dict):
        items = [[key, encoded(item, tensors, f"{path}.{key}")] for key, item in value.items()]
        return {"items": items}
    if isinstance(value, list | tuple):
        parts = [encoded(item, tensors, f"{path}.{i}") for i, item in enumerate(value)]
        return {"tuple": parts} if isinstance(value, tuple) else parts
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ArgumentError(
        f"'out' should be left out: the state of the optimizer or the scheduler holds {path!r}, a "
        f"{type(value).__name__}, which a checkpoint cannot hold."
    )


def decoded(value: Any, tensors: dict[str, Tensor]) -> Any:  # noqa: ANN401
    """Returns the state that `encoded` returned as JSON values, with its tensors."""
    if isinstance(value, list):
        return [decoded(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "tuple" in value:
        return tuple(decoded(value["tuple"], tensors))
    return {key: decoded(item, tensors) for key, item in value["items"]}


def _made(name: str, make: Any, argument: object, kind: Any) -> Any:  # noqa: ANN401
    """Returns what a factory makes of an argument, or raises an error that shows an example."""
    how = f"a function such as {EXAMPLES[name]}"
    if isinstance(make, Optimizer | LRScheduler | ReduceLROnPlateau) or not callable(make):
        raise ArgumentError(f"'{name}' should be {how}, got {type(make).__name__}.")
    try:
        product = make(argument)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"'{name}' should be {how}; this one fails: {error}.") from None
    if not isinstance(product, kind):
        raise ArgumentError(f"'{name}' should return one of torch.optim, got {product!r}.")
    return product


def _check_optimizer(optimizer: Optimizer, trained: list[nn.Parameter]) -> None:
    """Raises an error for an optimizer that cannot move the parameters of the flow."""
    if isinstance(optimizer, LBFGS):
        raise ArgumentError("'optimizer' should take steps without a closure, got LBFGS.")
    known = {id(parameter) for parameter in trained}
    moved = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not moved or moved - known:
        raise ArgumentError(
            "'optimizer' should hold trainable parameters of the flow, and no others: use the "
            "list that the function is called with."
        )


def _name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Returns a number or a text itself, and anything else as a text."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    is_plain = value is None or isinstance(value, bool | int | str) or np.isscalar(value)
    if isinstance(value, Number) and not isinstance(value, bool) and not np.isfinite(value):  # pyright: ignore[reportArgumentType, reportCallIssue]
        return str(value)
    return value if is_plain else repr(value)
