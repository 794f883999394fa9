"""Which model a table is given: of a few that are trained briefly, the cheapest that does well.

All begin from the same seed and see the same rows. Those that did best are trained again, three
times as long. Of these the cheapest is taken whose likelihood on held-out rows is within one
standard error of the best; differences are taken row by row, so that rows that are hard for all do
not count.
"""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from kappaflow.data import Table
from kappaflow.errors import FileError, NumericalError
from kappaflow.files import CONFIG, read_config
from kappaflow.runs.job import Tables
from kappaflow.runs.recipes import Model, build_flow, with_bounds
from kappaflow.training import Settings, fit_tables, log_prob_of, rows_of
from kappaflow.training.measure import units_log_det
from kappaflow.training.progress import steps_shown

ROWS = (40_000, 120_000)  # what a training of each round sees, repeats counted
SURVIVORS = 2  # of the first round
HELD_OUT = 4_000  # rows to compare on
# Recipe and number of couplings, by what a step costs.
Candidate = tuple[str, int]
CANDIDATES: tuple[Candidate, ...] = (
    ("real_nvp", 8),
    ("real_nvp", 16),
    ("spline", 8),
    ("spline", 16),
)


@dataclass(frozen=True)
class Pilot:
    """A choice that is to be made.

    Attributes:
        arguments: What all recipes are given beside their depth.
        seconds: When they are over, no other training is begun.
    """

    arguments: dict[str, Any] = field(default_factory=dict)
    seconds: float = 60.0


class Trial(BaseModel):
    """What a model came to in the longest training that it was given.

    Attributes:
        recipe: Of the model.
        depth: Number of couplings.
        rows: How many rows the training saw, repeats counted.
        nll: Mean negative log-likelihood of held-out rows, in nats on standardised columns.
        behind: How far that is behind the best of its round, in nats.
        error: The standard error of that difference.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str
    depth: int
    rows: int
    nll: float
    behind: float
    error: float

    def named(self) -> str:
        """Returns the model in words."""
        return f"{self.recipe} of {self.depth} couplings"


class Choice(BaseModel):
    """What a pilot came to.

    Attributes:
        taken: The model that is taken.
        arguments: What it is given beside its depth.
        trials: What each model came to: those of the last round first, and the best first.
        time_s: How long it took.
        cut_short: Whether its time was over before all models were tried.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    taken: Trial
    arguments: dict[str, Any]
    trials: tuple[Trial, ...]
    time_s: float
    cut_short: bool

    @property
    def model(self) -> Model:
        """The model that is taken."""
        return Model(self.taken.recipe, {**self.arguments, "depth": self.taken.depth})

    def in_words(self) -> str:
        """Returns what was chosen and why."""
        taken, best = self.taken, self.trials[0]
        why = f"{taken.nll:.3f} nats on held-out rows"
        if taken != best:
            why += (
                f", which is within one standard error ({taken.error:.3f}) of {best.named()}, "
                f"{best.nll:.3f}, and cheaper"
            )
        for rows in sorted({one.rows for one in self.trials}, reverse=True):
            others = [one for one in self.trials if one.rows == rows and one not in (taken, best)]
            listed = ", ".join(f"{one.named()} {one.nll:.3f}" for one in others)
            after = "" if rows == taken.rows else f" after {rows / taken.rows:.2g} of the training"
            why += f"; {listed}{after}" if others else ""
        end = ", which its limit cut short" if self.cut_short else ""
        return f"chose {taken.named()} by a pilot of {self.time_s:.0f} s{end}: {why}"


def chosen_before(folder: Path) -> Choice | None:
    """Returns what a pilot of a run has chosen already."""
    if not (folder / CONFIG).exists():
        return None
    kept = (read_config(folder / CONFIG).run or {}).get("pilot")
    try:
        return None if kept is None else Choice.model_validate(kept)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise FileError(f"{folder / CONFIG} does not say what a pilot chose ({place}).") from None


def pilot(
    tables: Tables,
    asked: Pilot,
    settings: Settings,
    *,
    device: str | None = None,
    progress: bool | None = None,
) -> Choice:
    """Returns which of a few models a table should be given.

    Args:
        tables: The rows of the run; test rows are not looked at.
        asked: What all models have in common, and for how long to try.
        settings: Of the training that follows.
        device: Where to train.
        progress: Show what is being trained; on a terminal only if left out.

    Returns:
        The choice.

    Raises:
        NumericalError: No model could be trained.
    """
    start = time.perf_counter()
    train, held_out = _few(tables.train, ROWS[-1]), _few(tables.validation, HELD_OUT)
    alive, trials, cut_short = list(CANDIDATES), [], False
    with steps_shown("pilot", len(CANDIDATES) + SURVIVORS, visible=progress) as show:
        for rows in ROWS:
            scores: dict[Candidate, Tensor] = {}
            for recipe, depth in alive:
                late = time.perf_counter() - start > asked.seconds
                cut_short = late and bool(scores or trials)
                if cut_short:
                    break
                show(f"{recipe} of {depth} couplings")
                model = Model(recipe, {**asked.arguments, "depth": depth})
                model = with_bounds(model, tables.domains, train)
                score = _score(model, train, held_out, settings, rows, device)
                if score is not None:
                    scores[recipe, depth] = score
            if cut_short and trials:  # trainings of unequal length say nothing of each other
                break
            found = _compared(scores, rows)
            trials = [*found, *trials[len(found) :]]
            survivors = {(one.recipe, one.depth) for one in found[:SURVIVORS]}
            alive = [one for one in alive if one in survivors]
            if cut_short:
                break
    if not trials:
        raise NumericalError(
            "none of the models that were tried could be trained: choose one by --model."
        )
    last = [one for one in trials if one.rows == trials[0].rows and one.behind <= one.error]
    order = [CANDIDATES.index((one.recipe, one.depth)) for one in last]
    taken = last[order.index(min(order))]
    return Choice(
        taken=taken,
        arguments=asked.arguments,
        trials=tuple(trials),
        time_s=round(time.perf_counter() - start, 1),
        cut_short=cut_short,
    )


def _few(table: Table, rows: int) -> Table:
    """Returns the first rows of a part of a table, which is in random order."""
    return table if len(table) <= rows else table.select(np.arange(rows))


def _score(
    model: Model,
    train: Table,
    held_out: Table,
    settings: Settings,
    rows: int,
    device: str | None,
) -> Tensor | None:
    """Returns log p of held-out rows after a short training; None where it failed."""
    epochs = max(1, round(rows / len(train)))
    short = settings.model_copy(
        update={
            "max_epochs": epochs,
            "max_time_s": None,
            "conditioning_every": epochs,
            "compile": False,  # which takes longer than all these epochs
        }
    )
    train = _few(train, rows)
    try:
        flow = build_flow(model, train, settings.seed)
        flow = fit_tables(flow, train, held_out, short, device=device, progress=False).flow
    except NumericalError:
        return None
    score = log_prob_of(flow, rows_of(held_out, flow)) - units_log_det(flow)
    return score if bool(torch.isfinite(score).all()) else None


def _compared(scores: dict[Candidate, Tensor], rows: int) -> list[Trial]:
    """Returns what models came to, the best first."""
    ranked = sorted(scores, key=lambda one: -scores[one].mean().item())
    return [_trial(one, rows, scores[one], scores[ranked[0]]) for one in ranked]


def _trial(one: Candidate, rows: int, score: Tensor, best: Tensor) -> Trial:
    difference = best - score
    error = difference.std().item() / math.sqrt(len(score))
    return Trial(
        recipe=one[0],
        depth=one[1],
        rows=rows,
        nll=-score.mean().item(),
        behind=difference.mean().item(),
        error=error,
    )
