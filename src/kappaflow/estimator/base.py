"""The base class of the estimators: parameters, preparation of rows, training, and pickling."""

import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import narwhals as nw
import numpy as np
from narwhals.dependencies import is_into_dataframe
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from kappaflow._checks import layer_widths, one_of
from kappaflow.data import Table, split, weigh_duplicate_rows
from kappaflow.data.batches import domains_in
from kappaflow.data.domains import Bounds, clip_to_domain, domains_of, unwrap_circles
from kappaflow.data.duplicates import DUPLICATES, Duplicates, settle_duplicates
from kappaflow.data.load import Reading, read_table
from kappaflow.data.prepare import describe_merged, few_to_train_on, noisy, prepare_table
from kappaflow.data.split import row_hashes
from kappaflow.data.table import REPAIRS, Repair, require_finite
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
from kappaflow.training.fit import warn_of
from kappaflow.training.session import State

Floats = NDArray[np.float64]
Packed = dict[str, bytes]
RandomState = int | np.random.RandomState | None
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
        columns: Sequence[str] | None = None,
        exclude: str | Sequence[str] = (),
        context: str | Sequence[str] = (),
        where: str | Sequence[str] | None = None,
        missing: str | Sequence[str] = (),
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
        self.columns = columns
        self.exclude = exclude
        self.context = context
        self.where = where
        self.missing = missing
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @property
    def flow_to_examine(self) -> Flow:
        """The flow that `kappaflow.wrap` and `doctor` read."""
        check_is_fitted(self)
        return self.flow_

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "flow_")

    def diagnose(self, X: ArrayLike) -> Diagnosis:  # noqa: N803
        """Diagnoses the flow at these rows with `kappaflow.doctor`.

        Args:
            X: Rows (n, features), held-out rows if possible.

        Returns:
            The diagnosis.
        """
        return self._diagnosis(self._to_score(X))

    def _diagnosis(self, table: Table) -> Diagnosis:
        """Returns the diagnosis at rows that get the noise of `fit`, in which copies differ."""
        return doctor(self.flow_, noisy(table, self._widths, domains_in(self.flow_, table)))

    def _read(self, X: ArrayLike, weights: object = None, *, at_least: int = 2) -> Table:  # noqa: N803
        """Returns the rows of `fit`, read as `kappaflow.fit_auto` reads them."""
        one_of("repair", self.repair, (None, *REPAIRS))
        one_of("duplicates", self.duplicates, (None, *DUPLICATES))
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)  # of an earlier fit, which this one may not replace
        return self._table(X, self._reading(), weights, at_least=at_least, reset=True)

    def _reading(self) -> Reading:
        """Returns the options of reading that were given to the estimator."""
        return Reading(self.columns, self.exclude, self.context, self.where, None, self.missing)

    def _table(
        self,
        X: ArrayLike,  # noqa: N803
        reading: Reading,
        weights: object = None,
        *,
        at_least: int = 1,
        reset: bool = False,
        every: bool = False,
    ) -> Table:
        """Returns rows as a table; `reset` stores the number and names of their columns."""
        if is_into_dataframe(X):
            rows = validate_data(self, X, reset=reset, skip_check_array=True)  # pyright: ignore
        else:
            rows = validate_data(
                self,
                X,  # pyright: ignore[reportArgumentType]
                reset=reset,
                dtype=np.float64,
                ensure_min_samples=at_least,
                ensure_all_finite=False,
            )
        if reset:
            self._input_columns = column_names(rows)
        return read_table(rows, reading, weights, every=every, names=self._input_columns)

    def _to_score(self, X: ArrayLike) -> Table:  # noqa: N803
        """Returns finite rows with the columns of the flow, if the estimator is fitted."""
        check_is_fitted(self)
        reading = Reading(self._columns, context=self._context_columns, missing=self.missing)
        table = self._table(X, reading)
        require_finite(table, table.source)
        return table

    def _prepared(self, table: Table, *, merges: bool = False) -> Table:
        """Returns rows to which a density can be fitted, and warns about problems.

        `merges` makes equal rows one row with the sum of their weights.
        """
        repeated: tuple[str, ...] = ()
        if merges:
            repeated, table = describe_merged(table), merged(table)
        if len(table) < 2:
            count = "there is 1 row" if repeated == () else "all rows are equal"
            raise DataError(f"{count}: a density needs at least 2 different rows.")
        how = "drop" if self.duplicates == "drop" else "keep"
        domains = domains_of(self.bounds, table)
        widths: dict[str, float] = {}
        if len(table) <= len(table.columns) and self.repair != "drop":
            require_finite(table, table.source)
            table, moved = clip_to_domain(table, domains, repair=self.repair)
            table = unwrap_circles(settle_duplicates(table, how), domains)
            few = (
                f"{len(table)} rows are too few for {len(table.columns)} columns, which then "
                "always depend on each other: the bounds of the flow determine the density"
            )
            notes, warned = (), (*moved, few)
        else:
            prepared = prepare_table(table, domains=domains, repair=self.repair, duplicates=how)
            notes, warned = prepared.notes[len(table.notes) :], prepared.warnings
            table, widths = prepared.table, prepared.widths
        self._widths, self._columns = widths, table.columns
        self._context_columns = table.context_columns
        self.notes_ = (*table.notes, *repeated, *notes, *warned)
        warn_of((*table.notes, *warned), stacklevel=4)
        return sorted_rows(table) if merges else table

    def _merges_copies(self) -> bool:
        """Returns whether equal rows become one row weighted by their number."""
        how = self.duplicates
        return how == "weigh" or (how is None and self.repair != "dequantize")

    def _noisy(self, table: Table) -> Table:
        """Returns rows with the noise of `fit`; that of a row depends on its values alone."""
        if not self._widths:
            return table
        hashes = row_hashes(table.all_values).view(np.int64)
        return noisy(replace(table, rows=hashes), self._widths, domains_in(self.flow_, table))

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
        few = few_to_train_on(len(train))
        train = replace(train, warnings=(*train.warnings, *few))
        for note in few:
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
        self.history_, self.findings_ = result.history, result.findings
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

    def _log_prob(self, table: Table) -> Floats:
        """Returns log p of each row in nats."""
        return log_prob_of(self.flow_, batch_of(self._noisy(table), self.flow_)).numpy()

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


def column_names(rows: Any) -> list[str]:  # noqa: ANN401
    """Returns the names of the columns of a data frame; x0, x1, ... for an array."""
    if is_into_dataframe(rows):
        return [str(name) for name in nw.from_native(rows).columns]
    return [f"x{i}" for i in range(rows.shape[1])]


def merged(table: Table) -> Table:
    """Returns a table of different rows with the sums of their weights, None where all are equal.

    The likelihood stays the same, and no row is both in the training and the validation part.
    """
    table, _ = weigh_duplicate_rows(table)
    alike = table.weights is not None and np.ptp(table.weights) == 0
    return replace(table, weights=None) if alike else table


def sorted_rows(table: Table) -> Table:
    """Returns a table with its rows in an order that depends on their values alone."""
    return table.select(np.lexsort(table.all_values.T[::-1]))


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
