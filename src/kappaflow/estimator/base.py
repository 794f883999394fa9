"""The base class of the estimators: parameters, preparation of rows, training, and pickling."""

import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from kappaflow._checks import layer_widths, one_of
from kappaflow.data import Table, load_table, resolutions, split, weighted
from kappaflow.data.domains import Bounds, clip_to_domain, domains_of, unwrap_circles
from kappaflow.data.duplicates import DUPLICATES, Duplicates, settle_duplicates
from kappaflow.data.prepare import describe_merged, few_to_train_on, noisy, prepare_table
from kappaflow.diagnosis import Diagnosis, doctor
from kappaflow.errors import ArgumentError, DataError, DataWarning
from kappaflow.files import CONFIG, WEIGHTS, load, save
from kappaflow.flows import Flow
from kappaflow.runs.model_search import ModelSearch, search_model
from kappaflow.runs.recipes import (
    CONDITIONAL,
    LEARNING_RATE,
    RECIPES,
    ModelConfig,
    build_flow,
    options_of,
    with_bounds,
    with_defaults,
)
from kappaflow.training import Settings, batch_of, checked_settings, fit_split, log_prob_of
from kappaflow.training.batches import domains_in
from kappaflow.training.session import State

Floats = NDArray[np.float64]
Packed = dict[str, bytes]
RandomState = int | np.random.RandomState | None
Repair = Literal["jitter", "dequantize"]
REPAIRS: tuple[Repair, ...] = ("jitter", "dequantize")  # repairs that keep all rows
SETTINGS = (  # parameters that are fields of `kappaflow.training.Settings`
    "max_epochs",
    "max_time_s",
    "batch_size",
    "learning_rate",
    "patience",
    "condition_budget",
)


class FlowEstimator(BaseEstimator):
    """A flow trained on rows, with the parameters of its recipe and its training."""

    _default_model: ClassVar = "real_nvp"
    _searches: ClassVar = True  # for a model, if no parameter of the model is given

    def __init__(
        self,
        model: str | None = None,
        *,
        depth: int | None = None,
        hidden: Sequence[int] | None = None,
        options: Mapping[str, Any] | None = None,
        search_time: float = 60.0,
        max_epochs: int | None = None,
        max_time_s: float | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        patience: int | None = None,
        validation_fraction: float = 0.1,
        condition_budget: float | None = None,
        bounds: Bounds | None = None,
        repair: Repair | None = None,
        duplicates: Duplicates | None = None,
        device: str | None = None,
        random_state: RandomState = None,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.depth = depth
        self.hidden = hidden
        self.options = options
        self.search_time = search_time
        self.max_epochs = max_epochs
        self.max_time_s = max_time_s
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.condition_budget = condition_budget
        self.bounds = bounds
        self.repair: Repair | None = repair
        self.duplicates = duplicates
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @property
    def flow_to_examine(self) -> Flow:
        """The flow that `kappaflow.wrap` and `doctor` read."""
        check_is_fitted(self)
        return self.flow_

    def diagnose(self, X: ArrayLike) -> Diagnosis:  # noqa: N803
        """Diagnoses the flow at these rows with `kappaflow.doctor`.

        Args:
            X: Rows (n, features), held-out rows if possible.

        Returns:
            The diagnosis.
        """
        x = torch.tensor(self._noisy(self._checked(X)))
        return doctor(self.flow_, x)

    def _names(self) -> Sequence[str] | None:
        """Returns the column names of the rows passed to `fit`, or None."""
        return getattr(self, "feature_names_in_", None)

    def _in_domains(self, values: Floats, names: Sequence[str] | None = None) -> Floats:
        """Returns rows with values in the domains of their columns, repaired where possible."""
        one_of("repair", self.repair, (None, *REPAIRS))
        table = load_table(values)
        if names is not None:
            table = renamed(table, list(map(str, names)))
        domains = domains_of(self.bounds, table)
        rounded = resolutions(table) if self.repair == "dequantize" else ()
        table, notes = clip_to_domain(
            table, domains, repair=self.repair, offered=REPAIRS, rounded=rounded
        )
        for note in notes:
            warnings.warn(note, DataWarning, stacklevel=3)
        return table.values

    def _table(
        self,
        values: Floats,
        weights: ArrayLike | None = None,
        given: Floats | None = None,
        *,
        merges: bool = False,
    ) -> Table:
        """Returns rows as a table to which a density can be fitted, and warns about problems.

        Args:
            values: The rows to model.
            weights: Their weights.
            given: The rows to condition on, to which the names of the features then belong.
            merges: Whether to merge equal rows into one row with the sum of their weights.
        """
        repeated: tuple[str, ...] = ()
        if merges:
            repeated = describe_merged(self._named(values, given))
            values, weights, given = distinct(values, weights, given)
        if len(values) < 2:
            raise DataError("all rows are equal: a density needs at least 2 different rows.")
        table = weighted(self._named(values, given), weights)
        how = "drop" if self.duplicates == "drop" else "keep"
        domains = domains_of(self.bounds, table)
        widths: dict[str, float] = {}
        if len(table) <= len(table.columns):
            table = unwrap_circles(settle_duplicates(table, how), domains)
            notes = warned = (
                f"{len(table)} rows are too few for {len(table.columns)} columns, which then "
                "always depend on each other: the bounds of the flow determine the density",
            )
        else:
            prepared = prepare_table(
                table, domains=domains, repair=self.repair, duplicates=how, offered=REPAIRS
            )
            table, widths, warned = prepared.table, prepared.widths, prepared.warnings
            notes = prepared.notes + prepared.warnings
        self._widths = {table.columns.index(name): width for name, width in widths.items()}
        self.notes_ = (*repeated, *notes)
        for note in warned:
            warnings.warn(note, DataWarning, stacklevel=4)
        return table

    def _named(self, values: Floats, given: Floats | None) -> Table:
        """Returns rows and the rows to condition on as a table with the names of the features."""
        table, names = load_table(values), self._names()
        if given is None:
            return table if names is None else renamed(table, list(map(str, names)))
        columns = [f"y{i}" for i in range(values.shape[1])]
        if names is None:
            names = [f"x{i}" for i in range(given.shape[1])]
        return replace(
            renamed(table, columns), context=given, context_columns=tuple(map(str, names))
        )

    def _merges_copies(self) -> bool:
        """Returns whether equal rows become one row weighted by their number."""
        how = one_of("duplicates", self.duplicates, (None, *DUPLICATES))
        return how == "weigh" or (how is None and self.repair != "dequantize")

    def _noisy(self, values: Floats) -> Floats:
        """Returns rows with noise in the columns to which `fit` added noise."""
        table = load_table(values)
        widths = {table.columns[place]: width for place, width in self._widths.items()}
        return noisy(table, widths, domains_in(self.flow_, table)).values

    def _train(self, table: Table, kept: tuple[float, ...] = ()) -> tuple[Table, ...]:
        """Trains a flow on one part of a table, and returns held-out parts.

        Args:
            table: All rows.
            kept: The share of each held-out part.

        Returns:
            The held-out parts.
        """
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        held_out = self.validation_fraction
        if not (isinstance(held_out, float | int) and 0 < held_out < 1 - sum(kept)):
            raise ArgumentError(
                "'validation_fraction' should be between 0 and the remaining share, "
                f"{1 - sum(kept):g}, got {held_out!r}."
            )
        fractions = (1 - held_out - sum(kept), held_out, *kept)
        train, validation, *others = split(table, fractions=fractions, seed=seed)
        for note in few_to_train_on(len(train)):
            self.notes_ = (*self.notes_, note)
            warnings.warn(note, DataWarning, stacklevel=3)
        given = {name: getattr(self, name) for name in SETTINGS}
        if given["learning_rate"] is None:
            given["learning_rate"] = LEARNING_RATE
        settings = checked_settings(**given, seed=seed)
        flow, start, settings = self._started(table, train, validation, settings)
        result = fit_split(
            flow,
            train,
            validation,
            settings,
            device=self.device,
            progress=bool(self.verbose),
            start=start,
        )
        self.flow_ = result.flow.cpu().double()
        self.history_ = result.history
        self.validation_nll_ = result.validation_nll
        self.n_iter_ = len(result.history)
        return tuple(others)

    def _started(
        self, table: Table, train: Table, validation: Table, settings: Settings
    ) -> tuple[Flow, State | None, Settings]:
        """Returns a new flow, the state to continue from after a model search, and settings."""
        named = (self.model, self.depth, self.hidden, self.options or None)
        if not self._searches or any(value is not None for value in named):
            return self._built(table, settings.seed), None, settings
        domains = domains_of(self.bounds, table)
        choice, start = search_model(
            train,
            validation,
            ModelSearch(seconds=self.search_time, learning_rate=self.learning_rate),
            settings,
            domains=domains,
            device=self.device,
            progress=bool(self.verbose),
        )
        self.choice_ = str(choice)
        model = with_bounds(choice.model, domains, train)
        flow = build_flow(model, train, settings.seed)
        return flow, start, choice.settings(settings)

    def _built(self, table: Table, seed: int) -> Flow:
        """Returns a new flow for a table, initialized from a seed."""
        model = self._default_model if self.model is None else self.model
        options = options_of(one_of("model", model, tuple(RECIPES)))
        if table.context_columns and model not in CONDITIONAL:
            raise ArgumentError(
                f"'model' should be one of {', '.join(CONDITIONAL)}, which read a context, got "
                f"{model!r}."
            )
        given = {"depth": self.depth, "hidden": self.hidden}
        arguments: dict[str, Any] = {k: value for k, value in given.items() if value is not None}
        for name in arguments:
            if name not in options:
                raise ArgumentError(
                    f"'{name}' should be left out for {model}, which has no such option."
                )
        if "hidden" in arguments:
            widths = arguments["hidden"]
            arguments["hidden"] = layer_widths(
                tuple(widths) if isinstance(widths, Iterable) else widths
            )
        try:
            config = with_defaults(ModelConfig(model, {**arguments, **(self.options or {})}))
            config = with_bounds(config, domains_of(self.bounds, table), table)
            flow = build_flow(config, table, seed)
        except TypeError as error:
            raise ArgumentError(
                f"'options' should hold arguments of kappaflow.{model}: {error}."
            ) from None
        if flow.likelihood != "exact":
            raise ArgumentError(
                "'options' should add no padding: scores would be bounds or joint densities, not "
                "densities of rows."
            )
        return flow

    def _checked(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Returns rows after checking that the estimator is fitted and the features match."""
        check_is_fitted(self)
        return self._rows(X, reset=False)

    def _rows(self, X: ArrayLike, *, reset: bool = True, at_least: int = 1) -> Floats:  # noqa: N803
        """Returns finite rows in float64; `reset` stores the number and names of the columns."""
        return validate_data(  # pyright: ignore[reportReturnType]
            self,
            X,  # pyright: ignore[reportArgumentType]
            reset=reset,
            dtype=np.float64,
            ensure_min_samples=at_least,
        )

    def _log_prob(self, values: Floats) -> Floats:
        """Returns log p of each row in nats."""
        rows = batch_of(load_table(self._noisy(values)), self.flow_)
        return log_prob_of(self.flow_, rows).numpy()

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())  # pyright: ignore
        if isinstance(state.get("flow_"), Flow):
            state["flow_"] = packed(state["flow_"])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        files = self.__dict__.get("flow_")
        if isinstance(files, dict):
            self.flow_ = unpacked(files)


def distinct(
    values: Floats, weights: ArrayLike | None, given: Floats | None = None
) -> tuple[Floats, Floats | None, Floats | None]:
    """Returns distinct rows with the sums of their weights, and the rows to condition on.

    The likelihood stays the same, and no row is both in the training and the validation part.

    Args:
        values: Rows (n, d).
        weights: Weights (n,), or None for equal ones.
        given: Rows to condition on (n, c), or None.

    Returns:
        Values, weights (None if still equal) and rows to condition on, in sorted order.

    Raises:
        ArgumentError: The weights do not fit the rows, or are negative or not finite.
    """
    table = weighted(load_table(values), weights)
    at = table.rows - 1
    counts = np.ones(len(at)) if table.weights is None else table.weights
    both = values[at] if given is None else np.hstack([values[at], given[at]])
    _, first, groups = np.unique(both, axis=0, return_index=True, return_inverse=True)
    sums = np.bincount(groups.reshape(-1), counts, minlength=len(first)).astype(np.float64)
    merged = sums if np.ptp(sums) else None
    return values[at][first], merged, None if given is None else given[at][first]


def renamed(table: Table, columns: Sequence[str]) -> Table:
    """Returns the table with these column names."""
    new = dict(zip(table.columns, columns, strict=True))
    whole = tuple(new[name] for name in table.integer_columns)
    return replace(table, columns=tuple(columns), integer_columns=whole)


def packed(flow: Flow) -> Packed:
    """Returns the files of a saved flow by name, as plain data for a pickle."""
    with tempfile.TemporaryDirectory() as folder:
        save(flow, folder)
        return {name: (Path(folder) / name).read_bytes() for name in (CONFIG, WEIGHTS)}


def unpacked(files: Packed) -> Flow:
    """Returns the flow of these files; a damaged byte is an error, as in a model file."""
    with tempfile.TemporaryDirectory() as folder:
        for name in (CONFIG, WEIGHTS):
            (Path(folder) / name).write_bytes(files[name])
        return load(folder)
