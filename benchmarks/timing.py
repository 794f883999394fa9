"""Times of the rows of one group, which take turns with the floor."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.floor import Floor, Products, coupling_floor, image_floor
from benchmarks.names import (
    FLOOR,
    OWN_IMAGES,
    PRODUCTS,
    QUANTITIES,
    SILU_FLOOR,
    ZUKO_SPLINES,
)
from benchmarks.row import ImageShape, Row, Shape
from benchmarks.turns import in_turn, timed

Call = Callable[[], object]
RATIOS = {
    FLOOR: "to_floor",
    SILU_FLOOR: "to_floor",
    PRODUCTS: "to_products",
    OWN_IMAGES.format("store"): "to_store",
    ZUKO_SPLINES: "to_zuko",
}


@dataclass(frozen=True)
class Budget:
    """Limits for the number of repetitions of each row.

    Attributes:
        seconds: Approximate time for a quantity of all rows of a group together.
        at_least: Least number of repetitions, even if they take longer.
        at_most: Largest number of repetitions.
    """

    seconds: float = 6.0
    at_least: int = 3
    at_most: int = 101

    def repetitions(self, round_s: float) -> int:
        """Returns the number of rounds that take `round_s` seconds each."""
        return min(self.at_most, max(self.at_least, int(self.seconds / max(round_s, 1e-6))))


@dataclass(frozen=True)
class Subject:
    """An object that is timed.

    Attributes:
        name: Name of its row.
        prepare: Called before each repetition, not timed.
        calls: The timed calls, by quantity.
    """

    name: str
    prepare: Call
    calls: dict[str, Call]


def time_group(
    rows: list[Row], shape: Shape, budget: Budget, quantities: Sequence[str] = QUANTITIES
) -> dict[str, Any]:
    """Returns medians, quartiles and paired ratios of the rows of a group and of the floor."""
    torch.manual_seed(0)
    activation = rows[0].activation
    floor = SILU_FLOOR if activation is nn.SiLU else FLOOR
    found: dict[str, Any] = {floor: {}, PRODUCTS: {}}
    own = floor_subject(coupling_floor(shape, activation), found[floor], floor)
    subjects = [own, _products(shape)]
    subjects += flow_subjects(rows, shape, found)
    return times_of(subjects, quantities, budget, found)


def time_images(rows: list[Row], shape: ImageShape, budget: Budget) -> dict[str, Any]:
    """Returns medians, quartiles and paired ratios of the rows of images and of their floor."""
    torch.manual_seed(0)
    found: dict[str, Any] = {FLOOR: {}}
    subjects = [floor_subject(image_floor(shape), found[FLOOR])]
    subjects += flow_subjects(rows, shape, found)
    return times_of(subjects, QUANTITIES[1:], budget, found)


def flow_subjects(
    rows: list[Row], shape: Shape | ImageShape, found: dict[str, Any]
) -> list[Subject]:
    """Returns the rows that run, and writes the facts about each, or its error, into `found`."""
    subjects = []
    for row in rows:
        found[row.name] = {}
        try:
            subjects.append(_flow(row, shape, found[row.name]))
        except Exception as error:  # of any library; the other rows are still measured
            found[row.name] = {"error": f"{type(error).__name__}: {error}"}
    return subjects


def times_of(
    subjects: list[Subject], quantities: Sequence[str], budget: Budget, found: dict[str, Any]
) -> dict[str, Any]:
    """Returns `found`, by name, with the figures of each quantity of each subject."""
    # Garbage collection stays on, as for users, but skips the objects built above.
    gc.collect()
    gc.freeze()
    for quantity in quantities:
        times = interleaved(subjects, quantity, budget)
        for name in times:
            found[name][quantity] = figures(name, times)
    return found


def interleaved(subjects: list[Subject], quantity: str, budget: Budget) -> dict[str, list[float]]:
    """Returns the times in seconds of all subjects, which take turns after one untimed round."""
    subjects = [subject for subject in subjects if quantity in subject.calls]
    round_s = sum(_timed(subject, quantity) for subject in subjects)
    takes = {subject.name: partial(_timed, subject, quantity) for subject in subjects}
    return in_turn(takes, budget.repetitions(round_s))


def figures(name: str, times: dict[str, list[float]]) -> dict[str, float]:
    """Returns median and quartiles of a row, and its paired ratios to those in `RATIOS`."""
    own = times[name]
    low, _, high = quantiles(own, n=4, method="inclusive") if len(own) > 1 else own * 3
    found = {
        "median_ms": 1e3 * median(own),
        "low_ms": 1e3 * low,
        "high_ms": 1e3 * high,
        "repetitions": len(own),
    }
    for other, key in RATIOS.items():
        if other in times:
            found[key] = median(a / b for a, b in zip(own, times[other], strict=True))
    return found


def _timed(subject: Subject, quantity: str) -> float:
    subject.prepare()
    return timed(subject.calls[quantity])


def _flow(row: Row, shape: Shape | ImageShape, facts: dict[str, Any]) -> Subject:
    """Returns a flow that has run once, and writes the facts about it into `facts`."""
    model, x = row.build(shape), shape.data()

    def forward_backward() -> None:
        (-model.log_prob(x).mean()).backward()

    @torch.no_grad()
    def log_prob() -> Tensor:
        return model.log_prob(x)

    @torch.no_grad()
    def sample() -> None:
        model.sample(shape.batch)

    facts["parameters"] = _parameters(model.module)
    facts["finite_share"] = torch.isfinite(log_prob()).double().mean().item()
    calls: dict[str, Call] = {
        "train_step": _train_step(model.module, forward_backward, facts),
        "forward_backward": forward_backward,
        "log_prob": log_prob,
        "sample": sample,
    }
    for call in calls.values():
        call()
    return Subject(row.name, model.module.zero_grad, calls)


def floor_subject(floor: Floor, facts: dict[str, Any], name: str = FLOOR) -> Subject:
    """Returns the networks alone, and writes the facts about them into `facts`."""
    facts["parameters"] = _parameters(floor.module)
    calls: dict[str, Call] = {
        "train_step": _train_step(floor.module, floor.forward_backward, facts),
        "forward_backward": floor.forward_backward,
        "log_prob": floor.forward,
        "sample": floor.forward,
    }
    return Subject(name, floor.zero_grad, calls)


def _products(shape: Shape) -> Subject:
    products = Products(shape)
    calls: dict[str, Call] = {
        "forward_backward": products.forward_backward,
        "log_prob": products.forward,
        "sample": products.forward,
    }
    return Subject(PRODUCTS, lambda: None, calls)


def _train_step(module: nn.Module, forward_backward: Call, facts: dict[str, Any]) -> Call:
    """Returns zero_grad, forward, backward and a step of Adam, fused if possible."""
    # With this learning rate, hundreds of timed steps hardly change the flow.
    try:
        adam = torch.optim.Adam(module.parameters(), lr=1e-8, fused=True)
    except RuntimeError:
        adam = torch.optim.Adam(module.parameters(), lr=1e-8)
    facts["fused_adam"] = bool(adam.defaults["fused"])

    def step() -> None:
        adam.zero_grad()
        forward_backward()
        adam.step()

    return step


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
