"""An optimizer and a scheduler of torch in a training, with states that a checkpoint can hold."""

import json
import math
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
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


class OwnOptimizer:
    """An optimizer of torch in the place of `AdamW`; its rates rise and fall alike."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        make: MakeOptimizer,
        make_scheduler: MakeScheduler | None = None,
    ) -> None:
        self._trained = [parameter for parameter in parameters if parameter.requires_grad]
        self._optimizer = _optimizer_of(make, self._trained)
        for group in self.param_groups:
            scalars = {key: n for key, n in group.items() if isinstance(n, np.generic | Tensor)}
            group.update({key: n.item() for key, n in scalars.items()})  # as in a checkpoint
            group.setdefault("initial_lr", group.get("lr"))
        self._schedule = make_scheduler and Schedule(make_scheduler, self._optimizer)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self._optimizer.param_groups

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def describe(self) -> dict[str, Any]:
        """Returns the classes and their numbers, by which a run folder knows the training."""
        groups = self._optimizer.state_dict()["param_groups"]
        numbers = {f"group {i}": g | {"params": len(g["params"])} for i, g in enumerate(groups)}
        named = {"class": _class_of(self._optimizer), **numbers}
        described = {"optimizer": json.loads(json.dumps(named, default=repr))}
        return described | (self._schedule.describe() if self._schedule else {})

    def set_rate(self, rate: float, highest: float) -> bool:
        """Returns whether it scaled the rates by rate / highest; a scheduler sets them itself."""
        if self._schedule:
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
        if self._schedule:
            self._schedule.end_step()

    def end_epoch(self, validation_nll: float) -> None:
        """Moves a scheduler of epochs."""
        if self._schedule:
            self._schedule.end_epoch(validation_nll)

    def state_dict(self) -> dict[int, dict[str, Tensor]]:
        """Returns the tensors of each parameter."""
        state = self._optimizer.state_dict()["state"]
        return {i: _some(entries, tensors=True) for i, entries in state.items()}

    def plain_state(self) -> dict[str, Any]:
        """Returns the rest of the state as JSON values."""
        state = self._optimizer.state_dict()
        plain = {str(i): _some(entries, tensors=False) for i, entries in state["state"].items()}
        state |= {"state": plain, "moves": self._schedule and self._schedule.moves}
        return json.loads(json.dumps(state, default=_refuse))

    def load_state_dict(self, state: dict[int, dict[str, Tensor]], plain: Any) -> None:
        """Restores what `state_dict` and `plain_state` returned; ValueError if it does not fit."""
        moves = plain.pop("moves", None)
        if (moves is None) != (self._schedule is None):
            raise ValueError("it was made with a scheduler, or without one")
        if self._schedule:
            self._schedule.repeat(moves)
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


def _refuse(value: object) -> None:
    raise ArgumentError(
        f"'out' should be left out: the state of the optimizer holds a value of type "
        f"{type(value).__name__}, which a checkpoint cannot hold."
    )


def _optimizer_of(make: Any, trained: list[nn.Parameter]) -> Optimizer:
    """Returns an optimizer that can move parameters of the flow, or raises an error."""
    optimizer = _product("optimizer", make, trained, (Optimizer,))
    if isinstance(optimizer, LBFGS):
        raise ArgumentError("'optimizer' should take steps without a closure, got LBFGS.")
    moved = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not moved or moved - {id(parameter) for parameter in trained}:
        raise ArgumentError(
            "'optimizer' should hold trainable parameters of the flow, and no others: use the "
            "list that the function is called with."
        )
    return optimizer


class Schedule:
    """A scheduler of torch, which a resumed training moves again as often as before."""

    def __init__(self, make: MakeScheduler, optimizer: Optimizer) -> None:
        kinds = (LRScheduler, ReduceLROnPlateau)
        self._scheduler = _product("scheduler", make, optimizer, kinds)
        # The number of steps, and the validation NLL of each epoch; None if it is not finite.
        self.moves: dict[str, Any] = {"steps": 0, "epochs": []}

    def describe(self) -> dict[str, Any]:
        numbers = {key: repr(value) for key, value in self._scheduler.state_dict().items()}
        return {"scheduler": {"class": _class_of(self._scheduler), **numbers}}

    def end_step(self) -> None:
        self.moves["steps"] += 1
        if isinstance(self._scheduler, EACH_STEP):
            self._move()

    def end_epoch(self, validation_nll: float | None) -> None:
        nll = math.inf if validation_nll is None or math.isnan(validation_nll) else validation_nll
        self.moves["epochs"].append(nll if math.isfinite(nll) else None)
        if isinstance(self._scheduler, ReduceLROnPlateau):
            self._move(nll)
        elif not isinstance(self._scheduler, EACH_STEP):
            self._move()

    def repeat(self, moves: dict[str, Any]) -> None:
        """Moves as `moves` tells, which takes a scheduler to the same state."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the optimizer has made no step yet
            for _ in range(moves["steps"]):
                self.end_step()
            for validation_nll in moves["epochs"]:
                self.end_epoch(validation_nll)

    def _move(self, *metric: float) -> None:
        try:
            self._scheduler.step(*metric)
        except ValueError as error:
            raise ArgumentError(
                f"'scheduler' should last for the whole training: {error}."
            ) from None


EXAMPLES = {
    "optimizer": "functools.partial(torch.optim.SGD, lr=0.01)",
    "scheduler": "functools.partial(torch.optim.lr_scheduler.StepLR, step_size=10)",
}


def _product(name: str, make: Any, argument: object, kinds: tuple[type, ...]) -> Any:
    """Returns what a function of the caller makes, or raises an error that shows an example."""
    how = f"a function such as {EXAMPLES[name]}"
    if isinstance(make, kinds) or not callable(make):
        raise ArgumentError(f"'{name}' should be {how}, got {type(make).__name__}.")
    try:
        product = make(argument)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"'{name}' should be {how}; this one fails: {error}.") from None
    if not isinstance(product, kinds):
        raise ArgumentError(f"'{name}' should return one of torch.optim, got {product!r}.")
    return product


def _class_of(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
