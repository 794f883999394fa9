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
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import ValidationError

from kappaflow._checks import finite_float
from kappaflow.data import Table
from kappaflow.data.dataset import kind_of
from kappaflow.data.domains import Bounds, Domains, domains_of
from kappaflow.data.duplicates import Duplicates
from kappaflow.data.raw import Reading
from kappaflow.errors import ArgumentError, DataError, FileError, NumericalError
from kappaflow.files import CONFIG, read_config
from kappaflow.flows.mixture_fit import best_components
from kappaflow.options import Repair
from kappaflow.ranks import alone
from kappaflow.runs.race import (
    Candidate,
    ModelChoice,
    Racer,
    Starts,
    Stopwatch,
    preferred,
    raced,
    state_of,
    trials_of,
)
from kappaflow.runs.recipes import (
    DEFAULTS,
    ModelConfig,
    build_flow,
    is_one_feature,
    options_of,
    with_bounds,
)
from kappaflow.training import Callback, FitResult, Settings, checked_settings, fit_split, loop
from kappaflow.training.collectives import from_rank_zero
from kappaflow.training.distributed import connect_ranks
from kappaflow.training.fit import OPTIONS, split_rows, warn_of
from kappaflow.training.progress import Bar, bar_shown
from kappaflow.training.rows import as_table
from kappaflow.training.session import TrainingState
from kappaflow.training.settings import LEARNING_RATE

SLOWER = 1e-3  # maximum learning rate with a mixture as the base: its components are narrow
SHARE = 0.25  # of the limits of a run that a search may use
OF_TRAINING = 1 / 3  # of the time of the training after it
HELD_OUT = 4_000  # most validation rows to compare on
CALIBRATION_S = 0.15  # processor time of the training of each model that measures its speed
OF_CALIBRATION = 0.05  # of the time of the search that this may take
ONE_COLUMN = "a curve is fitted to the one column, which leaves couplings nothing to read"
NONE_TRAINED = "none of the models could be trained: choose one by --model."
LEAST_STEPS = 80  # of all models together; with fewer there is no race
TELLING_STEPS = 60  # of each model; with fewer, the one with the cheapest steps leads
OF_MIXTURE = 0.2  # of the time of the search that choosing and fitting a mixture may take
OF_RACE = 0.95  # of the time of the search after which no model is trained; the rest compares them
CONTEXT_BINS = 16  # of autoregressive splines with a context, which may have several branches
MOST_GAUSSIANIZED = 30  # columns of a context; twice as many inputs would be fitted to noise
ROWS_A_COLUMN = 3  # fewest rows per column to fit a start to
DROPOUT = ((300, 0.3), (700, 0.1), (5_000, 0.05), (math.inf, 0.0))  # by training rows a column


@dataclass(frozen=True)
class ModelSearch:
    """How to choose a model: arguments for all recipes, and a time limit."""

    arguments: dict[str, Any] = field(default_factory=dict)
    seconds: float = 60.0  # 0 is no search
    learning_rate: float | None = None  # that of each model if None

    def __post_init__(self) -> None:
        if finite_float("search_time", self.seconds) < 0:
            raise ArgumentError(
                f"'search_time' should be 0 or more seconds, got {self.seconds:g}."
            )


Searched = tuple[
    "ModelChoice", TrainingState | None
]  # and where the training of the winner starts


def candidates(
    table: Table,
    search: ModelSearch,
    *,
    domains: Domains | None = None,
    plain: bool = False,
    seconds: float = math.inf,
) -> list[Candidate]:
    """Returns the models that race for a table, the most promising first.

    Without a context, one of them has a mixture of normals as its base, if that fits better than a
    single normal: other flows separate clusters late. The arguments and the learning rate of the
    search replace those of the models. With `plain` there are only splines without a start: they
    keep circular columns whole, and begin within any condition budget. Tables of very few rows
    get them too, since a start would be fitted to noise. `seconds` is about the time to choose
    the number of components. Where a domain or a start bends the columns, conditioners read the
    context bent as well as straight.
    """
    rows = len(table) / len(table.columns)
    dropout = next(share for below, share in DROPOUT if rows < below)
    bins = {"bins": CONTEXT_BINS} if table.context_columns else {}
    layers = {"depth": 3, "hidden": (96, 96), "activation": "silu", **bins}
    smooth = {**layers, "depth": 1, "start": "identity", "dropout": 0.0}
    common = {"partition": DEFAULTS["partition"], "memory": "store"}
    few = 0 < len(table.context_columns) <= MOST_GAUSSIANIZED
    bent = {"gaussianize_context": True} if few else {}
    affine = {"depth": 8, "hidden": (96, 96), "activation": "silu", **common}
    spline = {"depth": 8, "hidden": (64, 64), **common}
    single = len(table.columns) == 1
    linear = "identity" if single else "whiten"  # a single column leaves nothing to whiten
    sharp = {**layers, "activation": "relu"} if single else layers
    whitened = linear if table.context_columns else "whiten-gaussianize"
    splines = Candidate("spline", {**spline, "start": "gaussianize"}, LEARNING_RATE)
    masked = Candidate("autoregressive", {**layers, "start": "gaussianize"}, LEARNING_RATE)
    white_splines = Candidate("spline", {**spline, "start": "whiten-gaussianize"}, LEARNING_RATE)
    white_masked = Candidate("autoregressive", {**sharp, "start": whitened}, LEARNING_RATE)
    couplings = Candidate("real_nvp", {**affine, "start": linear}, LEARNING_RATE)
    one_layer = Candidate("autoregressive", smooth, LEARNING_RATE)
    if not table.context_columns:
        results = [splines, masked, white_masked, white_splines, couplings, one_layer]
    elif single:  # the only coupling would be part of an autoregressive layer
        results = [masked, white_masked, one_layer]
    else:  # each kind before a second start of one
        results = [masked, one_layer, splines, couplings, white_masked, white_splines]
    if plain or len(table) < ROWS_A_COLUMN * len(table.columns):
        results = [Candidate("spline", {**spline, "start": "identity"}, LEARNING_RATE)]
    elif not table.context_columns and seconds > 0:
        components = best_components(table.values, seconds, table.weights, clock=loop.clock)
        if components > 1:
            of_mixture = {**spline, "start": "identity", "components": components}
            results.insert(4, Candidate("spline", of_mixture, SLOWER))
    return [
        Candidate(
            recipe,
            {"dropout": dropout, **own}
            | (bent if domains or "gaussianize" in own["start"] else {})
            | {k: v for k, v in search.arguments.items() if k in options_of(recipe)},
            search.learning_rate or rate,
        )
        for recipe, own, rate in results
    ]


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

    The state, from which the winner continues to train, is None if there was no race. Under
    torchrun the first process searches, and all get the same answer. The limits of the settings
    bind the search too. The choice of an interrupted run is read from its folder.
    """
    connect_ranks(device or "cpu")

    def searched() -> Searched:
        stored = None if folder is None else chosen_before(folder)
        if stored is not None:
            return stored, None
        with alone(), bar_shown("model search", visible=progress) as show:
            race = _Race(train, validation.select(slice(0, HELD_OUT)), domains or {}, settings)
            return race.run(search, device, show)

    return from_rank_zero(searched)


@dataclass(frozen=True)
class _Race:
    """The rows on which models race, and the settings of the training that follows."""

    train: Table
    validation: Table
    domains: Domains
    settings: Settings

    def run(
        self, search: ModelSearch, device: str | torch.device | None, show: Bar
    ) -> tuple[ModelChoice, TrainingState | None]:
        """Returns the choice, and the state from which the winner continues."""
        settings, watch, steps = self.settings, Stopwatch(), self._most_steps()
        circles = any(domain.circular for domain in self.domains.values())
        budget = settings.condition_budget is not None
        of_table = partial(
            candidates, self.train, search, domains=self.domains, plain=circles or budget
        )
        first = of_table(seconds=0)[0]
        curve = first[1]["start"] == "gaussianize" and not self.train.context_columns
        reasons = (
            (curve and is_one_feature(ModelConfig(*first[:2]), self.train), ONE_COLUMN),
            (not search.seconds, "the search time is 0"),
            (budget, "nothing races with a condition budget"),
            (steps < LEAST_STEPS, f"max_epochs={settings.max_epochs} leaves no time for one"),
        )
        reason = next((text for is_so, text in reasons if is_so), None)
        seconds = OF_MIXTURE * self._limit(search.seconds)
        if reason is not None:
            recipe, arguments, rate = first
            named = {"recipe": recipe, "arguments": arguments, "learning_rate": rate}
            return ModelChoice(**named, reason=reason), None
        entrants = of_table(seconds=seconds)
        racers, left_out = self._racers(entrants, device, steps, search.seconds, watch)
        if not racers:
            raise NumericalError(NONE_TRAINED)
        share = watch.processor_share
        limit = OF_RACE * self._time_limit(racers, search.seconds, steps, share)
        left = max(0.0, steps - sum(racer.step for racer in racers))
        ranked = preferred(raced(racers, watch.started + limit, left, share, show))
        winner = ranked[0]
        if math.isinf(winner.nll):
            raise NumericalError(NONE_TRAINED)
        choice = ModelChoice(
            recipe=winner.recipe,
            arguments=winner.arguments,
            learning_rate=winner.learning_rate,
            trials=trials_of(ranked),
            seconds=round(watch.seconds, 1),
            left_out=left_out,
        )
        others = sum(racer.step for racer in ranked[1:])
        others = 0 if settings.max_epochs is None else others
        return choice, state_of(winner, watch.seconds, others)

    def _racers(
        self,
        entrants: list[Candidate],
        device: str | torch.device | None,
        steps: float,
        seconds: float,
        watch: Stopwatch,
    ) -> tuple[list[Racer], int]:
        """Returns the models after a few steps each, and how many were left out for lack of time.

        The first one that can be trained is always built. Another is built if, at the pace of the
        slowest so far, it and those before it can be trained for `TELLING_STEPS` each.
        """
        racers, longest, starts = list[Racer](), 0.0, Starts()
        limit = OF_RACE * self._limit(seconds)
        for i, candidate in enumerate(entrants):
            begun = watch.seconds
            if racers:
                share = watch.processor_share
                needed = sum(r.step_s * max(0, TELLING_STEPS - r.step) for r in racers)
                needed += TELLING_STEPS * max(r.step_s for r in racers)
                if needed > share * (limit - begun - longest):
                    return racers, len(entrants) - i
            most_s = OF_CALIBRATION * limit
            racer = self._entered(candidate, device, starts, steps / 2 / len(entrants), most_s)
            racers += [] if racer is None else [racer]
            longest = max(longest, watch.seconds - begun)
        return racers, 0

    def _most_steps(self) -> float:
        """Returns the steps of all models together that a limit on epochs allows."""
        most, rows = self.settings.max_epochs, len(self.train)
        if most is None:
            return math.inf
        return SHARE * most * rows / self.settings.rows_a_step(rows)

    def _entered(
        self,
        candidate: Candidate,
        device: str | torch.device | None,
        starts: Starts,
        steps: float,
        most_s: float,
    ) -> Racer | None:
        """Returns a model after a few steps; None if it cannot be built or is not finite."""
        settings = self.settings.model_copy(update={"compile": False})
        try:
            model = with_bounds(
                ModelConfig(candidate.recipe, candidate.arguments), self.domains, self.train
            )
            flow = build_flow(model, self.train, settings.seed)
            racer = Racer(candidate, flow, self.train, self.validation, settings, device, starts)
        except ArgumentError:
            return None
        except DataError:
            if "components" in candidate.arguments:  # a mixture that does not fit; the others may
                return None
            raise
        racer.race(CALIBRATION_S, steps, loop.clock() + most_s)
        return None if math.isinf(racer.nll) else racer

    def _time_limit(
        self, racers: list[Racer], seconds: float, most_steps: float, share: float
    ) -> float:
        """Returns the time of the search: by its limits, and by the time of the training."""
        limit = self.settings.max_time_s or math.inf
        step_s = float(np.median([racer.step_s for racer in racers])) / max(share, 1e-9)
        training = min(limit, racers[0].training.objective.steps * step_s)
        return min(self._limit(seconds), OF_TRAINING * training, most_steps * step_s)

    def _limit(self, seconds: float) -> float:
        """Returns the time of the search by the limits that were given."""
        return min(seconds, SHARE * (self.settings.max_time_s or math.inf))
