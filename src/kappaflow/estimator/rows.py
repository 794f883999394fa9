"""`RowEstimator`: a density of rows, of numbers or of mixed columns."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from narwhals.dependencies import is_into_dataframe
from numpy.typing import ArrayLike
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted

from kappaflow.data import Table
from kappaflow.data.domains import Domains
from kappaflow.data.load import check_same_order, read_source
from kappaflow.data.naming import require_finite
from kappaflow.data.raw import RawTable, Reading, as_names
from kappaflow.diagnosis import Diagnosis
from kappaflow.errors import ArgumentError
from kappaflow.estimator.base import (
    BaseFlowEstimator,
    Floats,
    Tables,
    estimator,
    packed,
    seed_of,
    unpacked,
)
from kappaflow.flows import Flow
from kappaflow.mixed import TableModel, chosen_rows, completed_rows, prepared
from kappaflow.options import described
from kappaflow.runs.candidate import ModelSearch
from kappaflow.runs.fit_table import empty_like
from kappaflow.runs.mixed_data import NOT_MIXED, parsed_kinds
from kappaflow.runs.model_search import search_model
from kappaflow.training import Settings
from kappaflow.training.fit import warn_of
from kappaflow.training.session import TrainingState


@estimator
class RowEstimator(BaseFlowEstimator):
    """A density of rows, whose model a search chooses."""

    model: str | None = described(
        'A recipe: "real_nvp", "spline", "nice", "autoregressive", "planar", "radial", '
        '"invertible_network", or a flow of zuko by its name in `kappaflow.zuko_flow`, such as '
        '"zuko:nsf". If model, depth, hidden and options are left out, a model search chooses, as '
        "in `kappaflow.fit_auto`. It measures time, so two fits may choose differently.",
        default=None,
        kw_only=False,
    )
    search_time: float = described(
        "Time budget of the model search in CPU seconds; 0 skips it.", default=60.0
    )
    context: str | Sequence[str] = described(
        "Columns that the density is conditioned on. `flow_` then draws the samples, or "
        "`table_model_` with `kinds`.",
        default=(),
    )
    kinds: Literal["auto"] | Mapping[str, str] | None = described(
        "Model data frames of mixed columns with missing values, as `kappaflow.fit_table` does: "
        '"auto", or the kinds that are not recognized, such as {"region": "category"}. Without it '
        "only columns of numbers are modeled.",
        default=None,
    )

    def diagnose(self, X: ArrayLike) -> Diagnosis:
        """Diagnoses the flow at these rows with `kappaflow.doctor`.

        Args:
            X: Rows (n, features), held-out rows if possible.

        Returns:
            The diagnosis. With `kinds` it is that of the numbers given the labels.
        """
        return self._diagnosis(self._to_score(X))

    def score_samples(self, X: ArrayLike) -> Floats:
        """Returns log p of each row in nats, in the units of the rows; lower for outliers.

        Args:
            X: Rows (n, features).

        Returns:
            Log-densities (n,).
        """
        if hasattr(self, "table_model_"):
            return self.table_model_.log_prob(self._mixed_rows(X)).log_prob
        return self._log_prob(self._to_score(X))

    def _to_score(self, X: ArrayLike) -> Table:
        """Returns finite rows with the columns of the flow, if the estimator is fitted."""
        check_is_fitted(self)
        if hasattr(self, "table_model_"):
            return completed_rows(self.table_model_, self._mixed_rows(X))
        reading = Reading.of(
            columns=self._columns, context=self._context_columns, missing=self.missing
        )
        table = self._table(X, replace(reading, purpose="score"))
        require_finite(table, table.source)
        return table

    def _reading(self) -> Reading:
        return replace(super()._reading(), context=as_names(self.context, "context"))

    def _mixed_rows(self, X: ArrayLike, *, reset: bool = False) -> RawTable:
        """Returns the columns of a data frame, of any type."""
        if not is_into_dataframe(X):
            raise ArgumentError(
                "'X' should be a data frame with 'kinds', whose columns have types, got "
                f"{type(X).__name__}: leave out 'kinds' for numbers alone."
            )
        rows, _ = self._validated(X, reset=reset)
        return read_source(rows, Reading.of(missing=self.missing))

    def _fit_mixed(
        self, X: ArrayLike, weights: ArrayLike | None = None, kept: tuple[float, ...] = ()
    ) -> tuple[RawTable, ...]:
        """Returns parts of shares `kept`, after training a table model on the other rows."""
        self._forget()
        kinds = self._named_kinds()
        if weights is not None:
            check_same_order(X, weights, "weights")
            check_consistent_length(X, weights)
        raw, counts = chosen_rows(self._mixed_rows(X, reset=True), self._reading(), weights)
        seed = seed_of(self.random_state)
        context = as_names(self.context, "context")
        parts = prepared(raw, kinds, self._fractions(kept), seed, counts, context)
        self._grids, self.notes_ = {}, (*parts.notes, *parts.warnings)
        warn_of(parts.warnings, stacklevel=4)
        train, validation, *_ = parts.tables
        flow: Any = None
        if parts.encoding.numbers:
            flow = self._fitted(parts.train, (train, train, validation), parts.domains, seed)
        parts_of_model = parts.encoding, parts.labels, parts.proposals, flow, empty_like(X)
        self.flow_, self.table_model_ = flow, TableModel(*parts_of_model)
        return parts.sources[2:]

    def _named_kinds(self) -> dict[str, str]:
        """Returns the kinds that are named; raises ArgumentError for options without effect."""
        for name in NOT_MIXED:
            if getattr(self, name, None):
                raise ArgumentError(f"'{name}' should be left out with 'kinds'.")
        if self.duplicates not in {None, "keep"}:
            raise ArgumentError("'duplicates' should be keep with 'kinds'.")
        if isinstance(self.kinds, Mapping):
            return dict(self.kinds)
        return parsed_kinds([str(self.kinds)])

    def _started(
        self, tables: Tables, domains: Domains, settings: Settings
    ) -> tuple[Flow, TrainingState | None, Settings]:
        named = (self.model, self.depth, self.hidden, self.options or None)
        if any(value is not None for value in named):
            return super()._started(tables, domains, settings)
        _, train, validation = tables
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
        flow = choice.build(train, domains, settings.seed)
        return flow, start, choice.settings(settings)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        model = state.get("table_model_")
        if isinstance(model, TableModel):
            state |= {"table_model_": (packed(model.save), model.like), "flow_": None}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        stored = self.__dict__.get("table_model_")
        if isinstance(stored, tuple):
            model: Any = unpacked(stored[0], TableModel.load)
            self.table_model_, self.flow_, model.like = model, model.flow, stored[1]
