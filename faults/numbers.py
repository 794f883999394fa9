"""The part "numbers": values that are not finite, planted in trainings and in streams."""

import math
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import torch
from torch import Tensor

import kappaflow as kf
from faults.outcome import Outcome
from kappaflow.errors import DataWarning
from kappaflow.runs import ModelConfig, TableConfig, fit_run, write_scores

ROWS, FEATURES, EPOCHS, BATCH = 400, 2, 6, 50
STREAMED = 600_000  # rows; more than one chunk


class Faulty(kf.Bijection):
    """A learned shift that returns wrong values in some of its training calls.

    Args:
        answers: Returns the number that is added to the output, from the number of the call.
    """

    def __init__(self, answers: Callable[[int], float]) -> None:
        super().__init__()
        self.answers, self.calls = answers, 0
        self.shift = torch.nn.Parameter(torch.zeros(FEATURES))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns x, shifted."""
        if self.training:
            self.calls += 1
            x = x + self.answers(self.calls)
        return x + self.shift, x.new_zeros(len(x))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns z, shifted back."""
        return z - self.shift, z.new_zeros(len(z))


@dataclass(frozen=True)
class Planted:
    """A training with a fault, and its expected end.

    Attributes:
        fault: Description of the fault.
        answers: Returns the number that a layer adds to the output of a call.
        rows: Returns the rows of the table from standard normal rows.
        skips: Expected number of skipped steps; None for any number.
        stops: Pattern of the diagnosis if it should stop; None if it should not stop; "" if it
            may.
        settings: Settings of the training.
    """

    fault: str
    answers: Callable[[int], float] = lambda call: 0.0
    rows: Callable[[Tensor], Tensor] = lambda x: x
    skips: int | None = 0
    stops: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)


def same_rows(x: Tensor) -> Tensor:
    """Returns rows that are mostly equal, so that some batches have only one distinct row."""
    return torch.cat((x[:40], x[:1].expand(len(x) - 40, -1)))


PLANTED = (
    Planted(
        "NaN in the middle of an epoch", lambda call: math.nan if call == 12 else 0.0, skips=1
    ),
    Planted(
        "a layer that is infinite once in 1,000 calls",
        lambda call: math.inf if call % 1000 == 0 else 0.0,
        skips=1,
        settings={"batch_size": 8, "max_epochs": 30},
    ),
    Planted(
        "a layer that is infinite from a call on",
        lambda call: math.inf if call > 20 else 0.0,
        skips=None,
        stops=r"starting at layer \d+ Faulty.*learning_rate",
        settings={"most_skipped": 8},
    ),
    Planted("a learning rate of 1000", skips=None, stops="", settings={"learning_rate": 1e3}),
    Planted("batches of one row, again and again", rows=same_rows, settings={"batch_size": 4}),
    Planted("batches of a single row", settings={"batch_size": 1, "max_epochs": 2}),
)


def numbers(*, long: bool, seed: int, folder: Path) -> Iterator[Outcome]:
    """Yields the results of trainings and streams with numbers that are not finite."""
    seeds = range(seed, seed + (3 if long else 1))
    for planted in PLANTED:
        yield _counted(planted.fault, "trainings", [survives(planted, one) for one in seeds])
    yield _counted("a training in float16", "trainings", [refuses_float16() for _ in seeds])
    with tempfile.TemporaryDirectory(dir=folder) as place:
        found = [leaves_infinite_row_empty(Path(place), one) for one in seeds]
    yield _counted("an infinite row in the middle of a stream", "streams", found)


def _counted(fault: str, unit: str, good: list[bool]) -> Outcome:
    return Outcome(fault, unit, len(good), sum(good))


def survives(planted: Planted, seed: int) -> bool:
    """Returns whether a training with a fault ends as it should, with its best weights."""
    generator = torch.Generator().manual_seed(seed)
    x = planted.rows(torch.randn(ROWS, FEATURES, generator=generator))
    held_out = torch.randn(100, FEATURES, generator=generator)
    torch.manual_seed(seed)
    flow = kf.real_nvp(FEATURES, depth=3, hidden=(8,))
    flow = kf.Flow(flow.base, kf.Chain([*cast(kf.Chain, flow.bijection), Faulty(planted.answers)]))
    kept = Kept()
    settings = {"batch_size": BATCH, "max_epochs": EPOCHS, "seed": seed, **planted.settings}
    try:
        with warnings.catch_warnings(action="ignore", category=DataWarning):
            result = kf.fit(
                flow, x, validation=held_out, progress=False, callbacks=[kept], **settings
            )
    except kf.errors.NumericalError as error:
        ended = planted.stops is not None and bool(re.search(planted.stops, str(error)))
    else:
        skipped = result.history[-1]["skipped_steps"]
        ended = not planted.stops and planted.skips in {None, skipped}
    return ended and kept.are_of(flow)


class Kept(kf.training.Callback):
    """Keeps the initial weights of a training, then the weights of each better epoch."""

    def on_start(self, flow: kf.Flow, settings: Any) -> None:  # noqa: ANN401
        """Keeps the weights."""
        self.weights = {name: p.detach().clone() for name, p in flow.named_parameters()}

    def on_best(self, flow: kf.Flow, figures: dict[str, Any]) -> None:
        """Keeps the weights."""
        self.on_start(flow, None)

    def are_of(self, flow: kf.Flow) -> bool:
        """Returns whether a flow has these weights, and whether they are finite."""
        return all(
            torch.equal(p, self.weights[name]) and bool(p.isfinite().all())
            for name, p in flow.named_parameters()
        )


def refuses_float16() -> bool:
    """Returns whether a flow in float16, which overflows at 65,504, is refused before training."""
    try:
        kf.fit(kf.real_nvp(FEATURES, depth=2, hidden=(4,)).half(), torch.randn(ROWS, FEATURES))
    except kf.errors.ArgumentError as error:
        return "float32 or float64" in str(error)
    return False


def leaves_infinite_row_empty(folder: Path, seed: int) -> bool:
    """Returns whether a row that cannot be scored, among many others, has an empty score."""
    x = np.random.default_rng(seed).normal(size=(STREAMED, FEATURES))
    data, run, out = folder / f"{seed}.parquet", folder / f"{seed}", folder / f"{seed}.csv"
    _frame(x[:ROWS]).write_parquet(data)
    model = ModelConfig("real_nvp", {"depth": 2, "hidden": (4,)})
    fit_run(TableConfig(data=str(data)), model, run, progress=False, max_epochs=1)
    x[STREAMED // 2, 1] = math.inf
    _frame(x).write_parquet(data)
    found = write_scores(run, str(data), str(out))
    empty = pl.read_csv(out).filter(pl.col("log_prob").is_null())["row"].to_list()
    return (
        found.empty == 1
        and found.first_empty == STREAMED // 2 + 1
        and empty == [found.first_empty]
        and not list(folder.glob(".*.parts"))
    )


def _frame(x: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame({name: x[:, place] for place, name in enumerate("ab")})
