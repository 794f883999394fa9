"""What the estimators share: their parameters, a flow that is trained on rows, and pickling."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from kappaflow._checks import layer_widths, one_of
from kappaflow.data import Table, load_table, resolutions, split, weighted
from kappaflow.data.domains import Bounds, domains_of, put_back, within
from kappaflow.data.prepare import describe_merged, few_to_train_on, noisy, prepare_table
from kappaflow.data.repeats import DUPLICATES, Duplicates, settle_duplicates
from kappaflow.diagnosis import Diagnosis, doctor
from kappaflow.errors import ArgumentError, DataError, DataWarning
from kappaflow.estimator.packed import packed, unpacked
from kappaflow.estimator.rows import Floats, distinct, renamed
from kappaflow.flows import Flow
from kappaflow.runs.model_search import LEARNING_RATE, ModelSearch, search_model
from kappaflow.runs.recipes import CONDITIONAL, COUPLINGS, Model, build_flow, with_bounds
from kappaflow.training import Settings, checked_settings, fit_tables, log_prob_of, rows_of
from kappaflow.training.rows import domains_in
from kappaflow.training.trained import State

RandomState = int | np.random.RandomState | None
# What the command gives to couplings, where they are not told otherwise.
COUPLED, HIDDEN = 16, (128, 128)
Repair = Literal["jitter", "dequantize"]
OFFERED: tuple[Repair, ...] = ("jitter", "dequantize")  # what drops rows has another density
OF_COUPLINGS: dict[str, Any] = {"partition": "random-half", "dropout": 0.0}


class FlowEstimator(BaseEstimator):
    """A flow of rows with the parameters of its recipe and of its training."""

    _default_model: ClassVar = "real_nvp"
    _couplings: ClassVar = OF_COUPLINGS
    _searches: ClassVar = True  # for a model, where nothing of it is named

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
        """The flow that `kappaflow.wrap` and `doctor` look at."""
        check_is_fitted(self)
        return self.flow_

    def diagnose(self, X: ArrayLike) -> Diagnosis:  # noqa: N803
        """Returns what `kappaflow.doctor` says of the flow at rows.

        Args:
            X: (n, features), best rows that it was not trained on.

        Returns:
            The diagnosis.
        """
        x = torch.tensor(self._noisy(self._checked(X)))
        return doctor(self.flow_, x)

    def _names(self) -> Sequence[str] | None:
        """Returns the names that columns were given with."""
        return getattr(self, "feature_names_in_", None)

    def _within(self, values: Floats, names: Sequence[str] | None = None) -> Floats:
        """Returns rows whose values lie in the domains of their columns, or says which do not."""
        one_of("repair", self.repair, (None, *OFFERED))
        table = load_table(values)
        if names is not None:
            table = renamed(table, list(map(str, names)))
        domains = domains_of(self.bounds, table)
        rounded = resolutions(table) if self.repair == "dequantize" else ()
        table, notes = within(table, domains, repair=self.repair, offered=OFFERED, rounded=rounded)
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
        """Returns rows as a table that a density can be fitted to, and warns about problems.

        Args:
            values: What is modelled.
            weights: Of the rows.
            given: What it is conditioned on; the names of features are then those of it.
            merges: Merge equal rows into one row with the sum of their weights.
        """
        repeated: tuple[str, ...] = ()
        if merges:
            repeated = describe_merged(self._named(values, given))
            values, weights, given = distinct(values, weights, given)
        if len(values) < 2:
            raise DataError("all rows are the same: a density needs at least 2 different ones.")
        table = weighted(self._named(values, given), weights)
        how = "drop" if self.duplicates == "drop" else "keep"
        domains = domains_of(self.bounds, table)
        widths: dict[str, float] = {}
        if len(table) <= len(table.columns):
            table = put_back(settle_duplicates(table, how), domains)
            notes = warned = (
                f"{len(table)} rows are too few for {len(table.columns)} columns, which then "
                "always depend on each other: the bounds of the flow decide the density",
            )
        else:
            prepared = prepare_table(
                table, domains=domains, repair=self.repair, duplicates=how, offered=OFFERED
            )
            table, widths, warned = prepared.table, prepared.widths, prepared.warnings
            notes = prepared.notes + prepared.warnings
        self._widths = {table.columns.index(name): width for name, width in widths.items()}
        self.notes_ = (*repeated, *notes)
        for note in warned:
            warnings.warn(note, DataWarning, stacklevel=4)
        return table

    def _named(self, values: Floats, given: Floats | None) -> Table:
        """Returns rows, and what they are given, as a table with the names of the features."""
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
        """Returns whether rows that repeat are one row with their number as weight."""
        how = one_of("duplicates", self.duplicates, (None, *DUPLICATES))
        return how == "weigh" or (how is None and self.repair != "dequantize")

    def _noisy(self, values: Floats) -> Floats:
        """Returns rows with noise in the columns that were given some when the flow was fitted."""
        table = load_table(values)
        widths = {table.columns[place]: width for place, width in self._widths.items()}
        return noisy(table, widths, domains_in(self.flow_, table)).values

    def _train(self, table: Table, kept: tuple[float, ...] = ()) -> tuple[Table, ...]:
        """Trains a flow on a part of a table, and returns parts that it has not seen.

        Args:
            table: All rows.
            kept: The shares of the parts that are returned.

        Returns:
            As many parts.
        """
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        held_out = self.validation_fraction
        if not (isinstance(held_out, float | int) and 0 < held_out < 1 - sum(kept)):
            raise ArgumentError(
                "'validation_fraction' should be between 0 and the share that is left, "
                f"{1 - sum(kept):g}, got {held_out!r}."
            )
        fractions = (1 - held_out - sum(kept), held_out, *kept)
        train, validation, *others = split(table, fractions=fractions, seed=seed)
        for note in few_to_train_on(len(train)):
            self.notes_ = (*self.notes_, note)
            warnings.warn(note, DataWarning, stacklevel=3)
        settings = checked_settings(
            max_epochs=self.max_epochs,
            max_time_s=self.max_time_s,
            batch_size=self.batch_size,
            learning_rate=LEARNING_RATE if self.learning_rate is None else self.learning_rate,
            patience=self.patience,
            condition_budget=self.condition_budget,
            seed=seed,
        )
        flow, start, settings = self._started(table, train, validation, settings)
        result = fit_tables(
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
        """Returns a new flow, where its training starts if a search chose it, and settings."""
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
        """Returns a flow for a table, freshly initialised from a seed alone."""
        model = self._default_model if self.model is None else self.model
        arguments: dict[str, Any] = {} if self.depth is None else {"depth": self.depth}
        if model in COUPLINGS:
            arguments = {"depth": COUPLED, **arguments, **self._couplings}
        if model in CONDITIONAL:
            wanted = HIDDEN if self.hidden is None else self.hidden
            hidden = tuple(wanted) if isinstance(wanted, Iterable) else wanted
            arguments["hidden"] = layer_widths(hidden)
        elif table.context_columns:
            raise ArgumentError(
                f"'model' should be one of {', '.join(CONDITIONAL)}, which read a context, got "
                f"{model!r}."
            )
        try:
            asked = Model(model, {**arguments, **(self.options or {})})
            asked = with_bounds(asked, domains_of(self.bounds, table), table)
            flow = build_flow(asked, table, seed)
        except TypeError as error:
            raise ArgumentError(
                f"'options' should hold arguments of kappaflow.{model}: {error}."
            ) from None
        if flow.likelihood != "exact":
            raise ArgumentError(
                "'options' should add no padding: scores would be bounds, or joint densities, and "
                "no densities of rows."
            )
        return flow

    def _checked(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Returns rows of as many features as it was fitted to."""
        check_is_fitted(self)
        return self._rows(X, reset=False)

    def _rows(self, X: ArrayLike, *, reset: bool = True, at_least: int = 1) -> Floats:  # noqa: N803
        """Returns rows in float64, all finite; `reset` takes their number and names of columns."""
        return validate_data(  # pyright: ignore[reportReturnType]
            self,
            X,  # pyright: ignore[reportArgumentType]
            reset=reset,
            dtype=np.float64,
            ensure_min_samples=at_least,
        )

    def _log_prob(self, values: Floats) -> Floats:
        """Returns log p of each row, in nats."""
        rows = rows_of(load_table(self._noisy(values)), self.flow_)
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
