"""Model search: short trainings of a few models race for a table, and the winner trains on.

All models begin from the same seed and see the same rows, in the same order. Each is trained for
the same processor time at a constant learning rate. After each round those leave that are
certainly worse, row by row on validation rows, until one is left or the time is over. The clock
limits the search as a whole, so on a busy machine it does less.
Nothing of the winner's training is lost: its weights, its optimizer and its history are where the
training of the run begins.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import ValidationError

from kappaflow.data import Table
from kappaflow.data.dataset import kind_of
from kappaflow.data.domains import Bounds, Domains, domains_of
from kappaflow.data.duplicates import Duplicates
from kappaflow.data.raw import Reading
from kappaflow.errors import ArgumentError, DataError, FileError, NumericalError
from kappaflow.files import CONFIG, read_config
from kappaflow.options import Repair
from kappaflow.ranks import is_first, ranks
from kappaflow.runs.candidate import Candidate, ModelSearch, candidates_of
from kappaflow.runs.race import (
    ModelChoice,
    Standing,
    as_good_as_the_best,
    trials_of,
    with_winner_first,
)
from kappaflow.runs.racers import Racer, Racers, RacerState, Starts, Stopwatch, raced
from kappaflow.runs.recipes import ModelConfig, is_one_feature
from kappaflow.training import Callback, FitResult, Settings, checked_settings, fit_split, loop
from kappaflow.training.collectives import check_same, from_rank_zero
from kappaflow.training.distributed import connect_ranks
from kappaflow.training.fit import OPTIONS, split_rows, warn_of
from kappaflow.training.progress import Bar, bar_shown
from kappaflow.training.rows import as_table
from kappaflow.training.session import TrainingState

SHARE = 0.25  # of the limits of a run that a search may use
OF_TRAINING = 1 / 3  # of the time of the training after it
HELD_OUT = 4_000  # most validation rows to compare on
CALIBRATION_STEPS = 16  # of each model, which measure its speed
OF_CALIBRATION = 0.05  # of the time of the search that this may take
ONE_COLUMN = "a curve is fitted to the one column, which leaves couplings nothing to read"
NONE_TRAINED = "none of the models could be trained: choose one by --model."
LEAST_STEPS = 80  # of all models together; with fewer there is no race
TELLING_STEPS = 60  # of each model; with fewer, the one with the cheapest steps leads
OF_MIXTURE = 0.2  # of the time of the search that choosing and fitting a mixture may take
OF_RACE = 0.95  # of the time of the search after which no model is trained; the rest compares them

Searched = tuple[ModelChoice, TrainingState | None]  # and where the winner's training starts


def chosen_before(folder: Path) -> ModelChoice | None:
    """Returns the choice of an interrupted run, also if it was killed before a checkpoint."""
    if not (folder / CONFIG).exists():
        return None
    stored = (read_config(folder / CONFIG).run or {}).get("model_search")
    try:
        return None if stored is None else ModelChoice.model_validate(stored)
    except ValidationError as error:
        path = ".".join(map(str, error.errors()[0]["loc"]))
        raise FileError(
            f"{folder / CONFIG} does not hold the choice of a model search ({path})."
        ) from None


def fit_auto(
    data: Any,
    *,
    validation: Any = None,
    weights: Any = None,
    out: str | Path | None = None,
    device: str | torch.device | None = None,
    repair: Repair | None = None,
    duplicates: Duplicates = "keep",
    bounds: Bounds | None = None,
    columns: Sequence[str] | None = None,
    exclude: str | Iterable[str] = (),
    context: str | Iterable[str] = (),
    where: str | Iterable[str] | None = None,
    missing: str | Iterable[str] = (),
    decimal: Literal[".", ","] | None = None,
    separator: str | None = None,
    comment: str | None = None,
    search_time: float = 60.0,
    progress: bool | None = None,
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> FitResult:
    """Chooses a model for a table, trains it, and returns it with its history.

    Short trainings of a few models race, and the winner continues to train, as in `kappaflow fit
    DATA`, but without a report. `kappaflow.fit` trains a flow of your own.

    Args:
        data: A tensor, array, data frame, `Table`, path or shipped name; with a context, (x,
            context). Or a dataset or a loader of torch, as for `kappaflow.fit`.
        validation: Rows that decide when to stop; a tenth of `data` by default.
        weights: As for `kappaflow.fit`.
        out: A folder to write to and to resume from, as for `kappaflow.fit`.
        device: Where to train, "cpu" or "cuda".
        repair: As for `kappaflow.fit`.
        duplicates: As for `kappaflow.fit`.
        bounds: Domains of columns by name, such as {"mass": "positive"}.
        columns: Columns to model, by name; all columns of numbers by default.
        exclude: Columns to leave out.
        context: Columns that the density is conditioned on.
        where: A condition that rows have to meet, such as "class=g", or several.
        missing: Values that mean a missing one, such as "-999".
        decimal: The decimal sign of a text file.
        separator: The sign between the fields of a text file.
        comment: The sign of comment lines at the top of a text file. This and the seven before are
            as for `kappaflow.fit`.
        search_time: Time limit of the search in seconds; 0 skips it. A search takes at most about
            a quarter of `max_time_s` or of `max_epochs`; on a busy machine it does less.
        progress: Show what is being trained; by default on a terminal and in a notebook.
        callbacks: Called after each epoch, as for `kappaflow.fit`.
        **settings: `max_time_s`, `max_epochs`, `seed` and the other fields of
            `kappaflow.training.Settings`. The learning rate is 5e-3 if left out.

    Returns:
        The result. `flow` is the trained flow, and the last of `notes` says what was chosen.

    Raises:
        ArgumentError: An argument is wrong, or `out` was made with other data or arguments.
        DataError: The data has no density that a flow could fit.
        NumericalError: None of the models could be trained.

    Example:
        >>> import kappaflow as kf
        >>> x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0)).exp()
        >>> result = kf.fit_auto(x, max_epochs=3)
        >>> result.flow.sample(5).shape
        torch.Size([5, 2])
    """
    if kind_of(data) is not None:
        raise ArgumentError(
            "'data' should be a table: for images choose a recipe, such as kappaflow.glow, and "
            "train it by kappaflow.fit."
        )
    search = ModelSearch(seconds=search_time, learning_rate=settings.get("learning_rate"))
    checked = checked_settings(OPTIONS, **settings)
    reading = Reading.of(columns, exclude, context, where, decimal, missing, separator, comment)
    table = as_table(data, reading, weights)
    domains = domains_of(bounds, table)
    rows = split_rows(
        table, validation, domains, checked, reading, repair=repair, duplicates=duplicates
    )
    warn_of(rows.warnings, stacklevel=3)
    choice, start = search_model(
        rows.train,
        rows.validation,
        search,
        checked,
        folder=None if out is None else Path(out),
        domains=domains,
        device=device,
        progress=progress,
    )
    result = fit_split(
        choice.build(rows.train, domains, checked.seed),
        rows.train,
        rows.validation,
        choice.settings(checked),
        out=out,
        device=device,
        progress=progress,
        about={"model_search": choice.model_dump(mode="json")},
        callbacks=callbacks,
        start=start,
    )
    return replace(result, notes=(*rows.notes, str(choice)))


def search_model(
    train: Table,
    validation: Table,
    search: ModelSearch,
    settings: Settings,
    *,
    folder: Path | None = None,
    domains: Domains | None = None,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> Searched:
    """Returns the choice of a model for a table by short trainings, and the winner's state.

    The state, from which the winner continues to train, is None if there was no race. The models
    of a round are dealt to the ranks, and all ranks return the same. The limits of the settings
    bind the search too. The choice of an interrupted run is read from its folder.
    """
    device = connect_ranks(device or "cpu", chosen=device is not None)
    if ranks() > 1:
        check_same((train.fingerprint(), validation.fingerprint(), settings.model_dump()))
    stored = from_rank_zero(lambda: None if folder is None else chosen_before(folder))
    if stored is not None:
        return stored, None
    held_out = validation.select(slice(0, HELD_OUT))
    race = _Race(train, held_out, domains or {}, settings, search, device)
    with bar_shown("model search", visible=progress if is_first() else False) as show:
        return race.run(show)


@dataclass(frozen=True)
class _Race:
    """The rows on which models race, and the settings of the training that follows."""

    train: Table
    validation: Table
    domains: Domains
    settings: Settings
    search: ModelSearch
    device: torch.device

    def run(self, show: Bar) -> Searched:
        """Returns the choice, and the state from which the winner continues."""
        watch, steps = Stopwatch(), self._most_steps()
        first = self._candidates(0)[0]
        reason = self._why_none(first, steps)
        if reason is not None:
            return ModelChoice(**first._asdict(), reason=reason), None
        entrants = from_rank_zero(lambda: self._candidates(OF_MIXTURE * self._limit))
        racers = Racers(partial(self._racer, Starts()))
        standings, left_out = self._entered(racers, entrants, steps, watch)
        if not standings:
            raise NumericalError(NONE_TRAINED)
        racers.processor_share = watch.processor_share
        limit = from_rank_zero(lambda: self._time_limit(standings, watch.processor_share))
        left = max(0.0, steps - sum(standing.step for standing in standings))
        ranked = raced(racers, standings, watch.started + OF_RACE * limit, left, show)
        tied = from_rank_zero(partial(as_good_as_the_best, ranked))
        if len(tied) > 1:
            models = [(standing.entry, standing.candidate) for standing in tied]
            tied = racers.each(models, Racer.measure_condition)
        ranked = with_winner_first(ranked, tied)
        winner = ranked[0]
        if math.isinf(winner.nll):
            raise NumericalError(NONE_TRAINED)
        choice = from_rank_zero(
            lambda: ModelChoice(
                **winner.candidate._asdict(),
                trials=trials_of(ranked),
                seconds=round(watch.seconds, 1),
                left_out=left_out,
            )
        )
        others = sum(standing.step for standing in ranked[1:])
        others = 0 if self.settings.max_epochs is None else others
        return choice, racers.start_of(winner, watch.seconds, others)

    def _candidates(self, seconds: float) -> list[Candidate]:
        """Returns the models that may race; `seconds` is about the time to choose a mixture."""
        plain = self.settings.condition_budget is not None
        return candidates_of(
            self.train, self.search, domains=self.domains, plain=plain, seconds=seconds
        )

    def _why_none(self, first: Candidate, steps: float) -> str | None:
        """Returns the reason why nothing races and the first model is taken; None if some do."""
        curve = first.arguments["start"] == "gaussianize" and not self.train.context_columns
        epochs = self.settings.max_epochs
        reasons = (
            (curve and is_one_feature(ModelConfig(*first[:2]), self.train), ONE_COLUMN),
            (not self.search.seconds, "the search time is 0"),
            (self.settings.condition_budget is not None, "nothing races with a condition budget"),
            (steps < LEAST_STEPS, f"max_epochs={epochs} leaves no time for one"),
        )
        return next((text for is_so, text in reasons if is_so), None)

    def _entered(
        self, racers: Racers, entrants: list[Candidate], steps: float, watch: Stopwatch
    ) -> tuple[list[Standing], int]:
        """Returns the models after a few steps each, and how many were left out for lack of time.

        The first one that can be trained is always built. Others, one on each rank, are built if,
        at the pace of the slowest so far, they and those before can be trained for `TELLING_STEPS`
        each.
        """
        standings, longest, limit = list[Standing](), 0.0, OF_RACE * self._limit
        models, most = list(enumerate(entrants)), min(CALIBRATION_STEPS, steps / 2 / len(entrants))

        def is_too_late() -> bool:
            needed = sum(s.step_s * max(0, TELLING_STEPS - s.step) for s in standings) / ranks()
            needed += TELLING_STEPS * max(standing.step_s for standing in standings)
            return needed > watch.processor_share * (limit - watch.seconds - longest)

        def calibrate(racer: Racer) -> None:
            racer.race(math.inf, most, loop.clock() + OF_CALIBRATION * limit)

        for i in range(0, len(models), ranks()):
            begun = watch.seconds
            if standings and from_rank_zero(is_too_late):
                return standings, len(models) - i
            built = racers.each(models[i : i + ranks()], calibrate)
            standings += [standing for standing in built if not math.isinf(standing.nll)]
            longest = max(longest, watch.seconds - begun)
        return standings, 0

    def _most_steps(self) -> float:
        """Returns the steps of all models together that a limit on epochs allows."""
        most, rows = self.settings.max_epochs, len(self.train)
        if most is None:
            return math.inf
        return SHARE * most * rows / self.settings.rows_a_step(rows)

    def _racer(
        self, starts: Starts, candidate: Candidate, state: RacerState | None
    ) -> Racer | None:
        """Returns a model in training; None if it cannot be built."""
        settings = self.settings.model_copy(update={"compile": False})
        try:
            flow = candidate.build(self.train, self.domains, settings.seed)
            rows = self.train, self.validation
            return Racer(candidate, flow, *rows, settings, self.device, starts, state)
        except ArgumentError:
            return None
        except DataError:
            if "components" in candidate.arguments:  # a mixture that does not fit; the others may
                return None
            raise

    def _time_limit(self, standings: list[Standing], share: float) -> float:
        """Returns the time of the search: by its limits, and by the time of the training.

        A limit on epochs limits the steps of the search instead, whatever time they take.
        """
        if self.settings.max_epochs is not None:
            return self._limit
        step_s = float(np.median([standing.step_s for standing in standings])) / max(share, 1e-9)
        training = min(standings[0].max_time_s, standings[0].steps * step_s)
        return min(self._limit, OF_TRAINING * training)

    @property
    def _limit(self) -> float:
        """The time of the search by the limits that were given."""
        return min(self.search.seconds, SHARE * (self.settings.max_time_s or math.inf))
