"""The base class of the estimators: parameters, preparation of rows, training, and pickling."""

import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar, dataclass_transform

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
from kappaflow.data.dataset import Dataset
from kappaflow.data.domains import Bounds, Domains, clip_to_domain, domains_of, unwrap_circles
from kappaflow.data.duplicates import DUPLICATES, Duplicates, row_hashes, settle_duplicates
from kappaflow.data.load import read_table
from kappaflow.data.naming import REPAIRS, require_finite
from kappaflow.data.prepare import describe_merged, few_to_train_on, noisy, prepare_table
from kappaflow.data.raw import Reading
from kappaflow.data.rounding import coarse_columns, rounded_samples
from kappaflow.diagnosis import Diagnosis, doctor
from kappaflow.errors import ArgumentError, DataError, DataWarning
from kappaflow.files import load, save
from kappaflow.flows import Flow
from kappaflow.options import Repair, TrainingOptions, described, descriptions, write_section
from kappaflow.runs.recipes import (
    RECIPES,
    ModelConfig,
    build_flow,
    with_bounds,
    with_defaults,
)
from kappaflow.table_options import TableOptions
from kappaflow.training import Settings, batch_of, checked_settings, fit_split, log_prob_of
from kappaflow.training.fit import warn_of
from kappaflow.training.session import TrainingState
from kappaflow.training.settings import LEARNING_RATE

Floats = NDArray[np.float64]
Packed = dict[str, bytes]
Tables = tuple[Table, Table, Table]
RandomState = int | np.random.RandomState | None
C = TypeVar("C", bound=type)
M = TypeVar("M")


@dataclass_transform(kw_only_default=True, field_specifiers=(field, described))
def estimator(cls: C) -> C:
    """Returns a class as a dataclass whose docstring describes all parameters."""
    cls = dataclass(kw_only=True, eq=False, repr=False)(cls)
    texts = descriptions(TrainingOptions) | descriptions(TableOptions) | descriptions(cls)
    write_section(cls, "Args", {option.name: texts[option.name] for option in fields(cls)})
    return cls


@estimator
class BaseFlowEstimator(BaseEstimator):
    """A flow trained on rows, with the parameters of its recipe and its training."""

    _default_model: ClassVar[str] = "real_nvp"

    model: str | None = described("A recipe.", default=None, kw_only=False)
    depth: int | None = described(
        "Number of couplings, or layers of another kind; 16 couplings, or the default of the "
        "recipe, if left out.",
        default=None,
    )
    hidden: Sequence[int] | None = described(
        "Widths of the couplings' networks; (128, 128) if left out.", default=None
    )
    options: Mapping[str, Any] | None = described(
        'More arguments of the recipe, by name, also those in its groups, such as {"dropout": '
        "0.1}; see `kappaflow.real_nvp`.",
        default=None,
    )
    max_epochs: int | None = None
    max_time_s: float | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    patience: int | None = None
    validation_fraction: float = described(
        "Share of the rows held out for early stopping.", default=0.1
    )
    condition_budget: float | None = None
    bounds: Bounds | None = described(
        'Domains of columns by name or index, such as {"mass": "positive", 1: (0, 1)}. All '
        "samples lie in them; the score of a row outside is -inf.",
        default=None,
    )
    repair: Repair | None = None
    duplicates: Duplicates | None = described(
        'How to treat rows that repeat earlier ones: "weigh" each row by the number of its copies '
        "(the default, except where rounded columns get noise), so that a weight of two equals "
        'two copies; "keep" them, with all copies in one part; or "drop" them.',
        default=None,
    )
    columns: Sequence[str] | None = described(
        "Columns to model, by name; all columns of numbers by default. The columns of an array "
        "are x0, x1, ...",
        default=None,
    )
    exclude: str | Sequence[str] = ()
    where: str | Sequence[str] | None = None
    missing: str | Sequence[str] = ()
    device: str | None = described('The device for training, "cpu" or "cuda".', default=None)
    random_state: RandomState = described(
        "Seed for weights, splits and the order of rows.", default=None
    )
    verbose: bool = described("Whether to show a progress bar.", default=False)

    @property
    def flow_to_examine(self) -> Flow:
        """The flow that `kappaflow.wrap` and `doctor` read."""
        check_is_fitted(self)
        if self.flow_ is None:
            raise ArgumentError("'X' should have a column of numbers: labels alone have no flow.")
        return self.flow_

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "flow_")

    def _diagnosis(self, table: Table) -> Diagnosis:
        """Returns the diagnosis at rows that get the noise of `fit`, in which copies differ."""
        return doctor(
            self.flow_to_examine, noisy(table, self._grids, domains_in(self.flow_, table))
        )

    def _read(self, X: ArrayLike, weights: object = None, *, at_least: int = 2) -> Table:
        """Returns the rows of `fit`, read as `kappaflow.fit_auto` reads them."""
        one_of("repair", self.repair, (None, *REPAIRS))
        one_of("duplicates", self.duplicates, (None, *DUPLICATES))
        self._forget()
        return self._table(X, self._reading(), weights, at_least=at_least, reset=True)

    def _forget(self) -> None:
        """Deletes the results of an earlier fit, which a fit that fails would leave in place."""
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)

    def _reading(self) -> Reading:
        """Returns the options of reading that were given to the estimator."""
        return Reading.of(self.columns, self.exclude, (), self.where, None, self.missing)

    def _table(
        self,
        X: ArrayLike,
        reading: Reading,
        weights: object = None,
        *,
        at_least: int = 1,
        reset: bool = False,
    ) -> Table:
        """Returns rows as a table; `reset` stores the number and names of their columns."""
        rows, names = self._validated(X, at_least=at_least, reset=reset)
        return read_table(rows, reading, weights, names=names)

    def _validated(
        self, X: ArrayLike, *, at_least: int = 1, reset: bool = False
    ) -> tuple[Any, list[str] | None]:
        """Returns rows and their columns' names, None where the rows have some of the columns."""
        if is_into_dataframe(X) and not reset and (self.columns or self.exclude):
            return X, None  # without columns left out
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
        return rows, self._input_columns

    def _prepared(self, table: Table, *, merges: bool = False) -> Table:
        """Returns rows with a density, after warnings; `merges` makes equal rows one."""
        repeated: tuple[str, ...] = ()
        if merges:
            repeated, table = describe_merged(table), merged(table)
        if len(table) < 2:
            count = "there is 1 row" if repeated == () else "all rows are equal"
            raise DataError(f"{count}: a density needs at least 2 different rows.")
        how = "drop" if self.duplicates == "drop" else "keep"
        domains = domains_of(self.bounds, table)
        repair = "keep" if merges and self.repair is None else self.repair
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
            prepared = prepare_table(table, domains=domains, repair=repair, duplicates=how)
            notes, warned = prepared.notes[len(table.notes) :], prepared.warnings
            table = prepared.table
        self._grids, self._columns = table.grids, table.columns
        self._context_columns = table.context_columns
        self.notes_ = (*table.notes, *repeated, *notes, *warned)
        warn_of((*table.notes, *warned), stacklevel=4)
        return sorted_rows(table) if merges else table

    def _merges_copies(self, table: Table) -> bool:
        """Returns whether equal rows become one row weighted by their number."""
        if self.duplicates is not None:
            return self.duplicates == "weigh"
        gets_noise = self.repair is None and coarse_columns(table)
        return self.repair != "dequantize" and not gets_noise

    def _rounded(self, samples: Floats) -> Floats:
        """Returns samples (..., columns) as values of the rounded columns."""
        return rounded_samples(samples, self._columns, self._grids)

    def _noisy(self, table: Table) -> Table:
        """Returns rows with the noise of `fit`; that of a row depends on its values alone."""
        if not self._grids:
            return table
        hashes = row_hashes(table.all_values).view(np.int64)
        return noisy(replace(table, rows=hashes), self._grids, domains_in(self.flow_, table))

    def _train(self, table: Table, kept: tuple[float, ...] = ()) -> tuple[Table, ...]:
        """Returns the validation rows, and parts of shares `kept`, after training on the rest."""
        seed = seed_of(self.random_state)
        train, validation, *others = split(table, fractions=self._fractions(kept), seed=seed)
        few = few_to_train_on(len(train))
        train = replace(train, warnings=(*train.warnings, *few))
        for note in few:
            self.notes_ = (*self.notes_, note)
            warnings.warn(note, DataWarning, stacklevel=3)
        domains = domains_of(self.bounds, table)
        self.flow_ = self._fitted(train, (table, train, validation), domains, seed)
        return (validation, *others)

    def _fractions(self, kept: tuple[float, ...]) -> tuple[float, ...]:
        """Returns the shares of the training rows, the validation rows, and the parts `kept`."""
        held_out = self.validation_fraction
        if not (isinstance(held_out, float | int) and 0 < held_out < 1 - sum(kept)):
            raise ArgumentError(
                "'validation_fraction' should be between 0 and the remaining share, "
                f"{1 - sum(kept):g}, got {held_out!r}."
            )
        return (1 - held_out - sum(kept), held_out, *kept)

    def _fitted(self, rows: Dataset, tables: Tables, domains: Domains, seed: int) -> Flow:
        """Returns a flow trained on rows; `tables` has all, the training and validation rows."""
        names = (setting.name for setting in fields(TrainingOptions))
        named = {name: getattr(self, name) for name in names if hasattr(self, name)}
        if named["learning_rate"] is None:
            named["learning_rate"] = LEARNING_RATE
        settings = checked_settings(**named, seed=seed)
        flow, start, settings = self._started(tables, domains, settings)
        result = fit_split(
            flow,
            rows,
            tables[-1],
            settings,
            device=self.device,
            progress=bool(self.verbose),
            start=start,
        )
        self.history_, self.findings_ = result.history, result.findings
        self.validation_nll_ = result.validation_nll
        self.n_iter_ = len(result.history)
        return result.flow.cpu().double()

    def _started(
        self, tables: Tables, domains: Domains, settings: Settings
    ) -> tuple[Flow, TrainingState | None, Settings]:
        """Returns a new flow, the state to continue from after a model search, and settings."""
        return self._built(tables[0], domains, settings.seed), None, settings

    def _built(self, table: Table, domains: Domains, seed: int) -> Flow:
        """Returns a new flow for a table, initialized from a seed."""
        model = self._default_model if self.model is None else self.model
        one_of("model", model, tuple(RECIPES))
        usual = {"depth": self.depth, "hidden": self.hidden}
        arguments: dict[str, Any] = {k: value for k, value in usual.items() if value is not None}
        if "hidden" in arguments:
            widths = arguments["hidden"]
            arguments["hidden"] = layer_widths(
                tuple(widths) if isinstance(widths, Iterable) else widths
            )
        try:
            config = with_defaults(ModelConfig(model, {**arguments, **(self.options or {})}))
            config = with_bounds(config, domains, table)
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
            state["flow_"] = packed(partial(save, state["flow_"]))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        files = self.__dict__.get("flow_")
        if isinstance(files, dict):
            self.flow_ = unpacked(files, load)


def seed_of(random_state: RandomState) -> int:
    """Returns a seed that follows from the state of scikit-learn's parameter."""
    return int(check_random_state(random_state).randint(2**31 - 1))


def column_names(rows: Any) -> list[str]:
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


def packed(write: Callable[[str], None]) -> Packed:
    """Returns the files of a saved model by name, as plain data for a pickle."""
    with tempfile.TemporaryDirectory() as folder:
        write(folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def unpacked(files: Packed, read: Callable[[str], M]) -> M:
    """Returns the model of these files; a damaged byte is an error, as in a model file."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        return read(folder)
