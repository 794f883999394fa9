"""`ConditionalFlowDensity`: the density of targets given features."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import narwhals as nw
import numpy as np
import torch
from narwhals.dependencies import is_into_dataframe, is_into_series
from numpy.typing import ArrayLike
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.validation import check_is_fitted

from kappaflow._checks import positive_int
from kappaflow.data import Table
from kappaflow.data.domains import Bounds
from kappaflow.data.load import check_same_order, read_table
from kappaflow.data.naming import require_finite
from kappaflow.data.raw import Reading
from kappaflow.diagnosis import Diagnosis
from kappaflow.errors import ArgumentError
from kappaflow.estimator.base import (
    BaseFlowEstimator,
    Floats,
    RandomState,
    column_names,
    estimator,
    seed_of,
)
from kappaflow.flows import quantile
from kappaflow.flows.quantiles import check_one_column, checked_levels, no_cdf_because
from kappaflow.goodness import Conformal, conformal
from kappaflow.options import Repair, described
from kappaflow.training import batch_of

LEVELS = 200  # number of quantiles that `predict` averages
SAMPLES = 1000  # for quantiles and means of several targets, which have no closed form


@estimator
class ConditionalFlowDensity(BaseFlowEstimator):
    """The density p(y | X) of targets given features, by a conditional flow.

    Quantiles of a single target are exact: for each row of features the flow is then an
    increasing or decreasing map of the target.

    Attributes:
        flow_: The trained `kappaflow.Flow` of the targets in float64; its context is the features.
        n_targets_: Number of targets.
        calibration_scores_: Scores that calibrate `predict_interval`, ascending, as of
            `kappaflow.conformal`; None if there are several targets, a circular one, or weights.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> X = rng.uniform(-1, 1, (300, 1))
        >>> y = X[:, 0] + 0.1 * rng.normal(size=300)
        >>> settings = dict(hidden=(8,), max_epochs=5, random_state=0)
        >>> density = ConditionalFlowDensity(**settings).fit(X, y)
        >>> density.log_prob(X, y).shape, density.quantile(X[:2], [0.05, 0.95]).shape
        ((300,), (2, 2))
    """

    _default_model: ClassVar[str] = "spline"

    model: str | None = described(
        '"spline" (the default), "autoregressive", "real_nvp" or "nice". For one target the last '
        "two are a Gaussian with a mean and standard deviation that depend on the features.",
        default=None,
        kw_only=False,
    )
    depth: int | None = described("Number of couplings; 1 is enough for one target.", default=None)
    bounds: Bounds | None = described(
        'Domains of targets, by index or name: "y0", "y1", ... where y has no names.', default=None
    )
    repair: Repair | None = described(
        '"drop", "jitter" or "dequantize" for targets that have no density, or "keep".',
        default=None,
    )
    columns: Sequence[str] | None = described(
        "The features to condition on; if left out, all columns of numbers, and of text with 2 to "
        '50 labels. Each label becomes a feature of 0 and 1, such as "region=north".',
        default=None,
    )
    exclude: str | Sequence[str] = described("Features to leave out.", default=())
    missing: str | Sequence[str] = described(
        'Values of features that mean a missing one, such as "-999".', default=()
    )

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Trains the flow.

        Args:
            X: Features (n, features).
            y: Targets (n,) or (n, targets).
            sample_weight: Weights (n,), 0 or more; equal if left out.

        Returns:
            The estimator.

        Raises:
            ArgumentError: A parameter or a weight is invalid.
            DataError: The targets have no density that a flow can fit.
        """
        self._targets = None
        check_same_order(X, y, "y")
        table = self._joined(X, y, self._read(X, sample_weight))
        self._targets, self._one_target = table.columns, np.asarray(y).ndim == 1
        self.n_targets_ = len(table.columns)
        validation, *_ = self._train(self._prepared(table, merges=self._merges_copies(table)))
        can_calibrate = no_cdf_because(self.flow_) is None and validation.weights is None
        self.calibration_scores_ = self._scores(validation) if can_calibrate else None
        return self

    def calibrate(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Calibrates `predict_interval` on rows that `fit` has not seen.

        Args:
            X: Features (n, features).
            y: Target (n,) or (n, 1).

        Returns:
            The estimator.

        Raises:
            ArgumentError: There are several targets, or a circular one.
        """
        table = self._noisy(self._joined(X, y, self._to_score(X)))
        self.calibration_scores_ = self._scores(table)
        return self

    def _scores(self, table: Table) -> Floats:
        """Returns the conformal scores of rows, (n,)."""
        batch = batch_of(table, self.flow_)
        return conformal(self.flow_, batch.x, batch.context).scores.numpy()

    def log_prob(self, X: ArrayLike, y: ArrayLike) -> Floats:
        """Returns log p(y | X) of each row in nats, in the units of the targets.

        Args:
            X: Features (n, features).
            y: Targets (n,) or (n, targets).

        Returns:
            Log-densities (n,).
        """
        return self._log_prob(self._joined(X, y, self._to_score(X)))

    def score(self, X: ArrayLike, y: ArrayLike) -> float:
        """Returns the mean of log p(y | X) over rows in nats.

        Args:
            X: Features (n, features).
            y: Targets (n,) or (n, targets).

        Returns:
            The mean.
        """
        return float(self.log_prob(X, y).mean())

    def diagnose(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, X: ArrayLike, y: ArrayLike
    ) -> Diagnosis:
        """Diagnoses the flow at these rows with `kappaflow.doctor`.

        Args:
            X: Features (n, features), of held-out rows if possible.
            y: Targets (n,) or (n, targets).

        Returns:
            The diagnosis.
        """
        return self._diagnosis(self._joined(X, y, self._to_score(X)))

    def sample(self, X: ArrayLike, n_samples: int = 1, random_state: RandomState = None) -> Floats:
        """Returns samples of the targets for each row of features.

        Args:
            X: Features (n, features).
            n_samples: Number of samples per row.
            random_state: Seed of the samples.

        Returns:
            Samples (n_samples, n), or (n_samples, n, targets) for several targets.
        """
        context = torch.tensor(self._to_score(X).values)
        generator = torch.Generator().manual_seed(seed_of(random_state))
        n = positive_int("n_samples", n_samples)
        samples = self._rounded(self.flow_.sample(n, context, generator=generator).numpy())
        return samples[..., 0] if self._one_target else samples

    def quantile(self, X: ArrayLike, q: float | Sequence[float]) -> Floats:
        """Returns quantiles of the target for each row of features.

        Exact for one target. For several, the quantiles of each target in 1,000 samples.

        Args:
            X: Features (n, features).
            q: One level between 0 and 1, or m levels.

        Returns:
            Quantiles (n,) for one level and (m, n) for several; (..., n, targets) for several
            targets.

        Raises:
            ArgumentError: A level is not between 0 and 1, or a target is circular.
        """
        check_is_fitted(self)
        domain = self.flow_.domain
        if domain is not None and any(column and column.circular for column in domain.domains):
            raise ArgumentError(
                "quantiles and means are not defined for a circular target: use sample or "
                "log_prob."
            )
        levels = checked_levels(q)
        if self.flow_.event_shape != (1,):
            samples = self.sample(X, SAMPLES, random_state=0)
            return np.quantile(samples, levels.numpy(), axis=0)
        values = quantile(self.flow_, levels, self._to_score(X).values).numpy().T
        rounded = self._rounded(values[..., None])
        return rounded[..., 0] if self._one_target else rounded

    def predict(self, X: ArrayLike, quantiles: Sequence[float] | None = None) -> Floats:
        """Returns the mean of the targets for each row of features, or quantiles.

        The mean of 200 quantiles for one target, of 1,000 samples for several.

        Args:
            X: Features (n, features).
            quantiles: Levels of m quantiles to return in place of the mean, as for `quantile`, but
                with the rows first, as scikit-learn needs them.

        Returns:
            Means (n,), or (n, targets) for several targets; quantiles (n, m) or (n, targets, m).
        """
        check_is_fitted(self)
        if quantiles is not None:
            return np.moveaxis(self.quantile(X, list(quantiles)), 0, -1)
        if self.n_targets_ > 1:
            return self.sample(X, SAMPLES, random_state=0).mean(0)
        return self.quantile(X, ((np.arange(LEVELS) + 0.5) / LEVELS).tolist()).mean(0)

    def predict_interval(self, X: ArrayLike, coverage: float = 0.9) -> Floats:
        """Returns an interval that contains the target with a probability, for each row.

        The intervals are those of `kappaflow.conformal`. After `fit` they are calibrated on the
        validation rows, which also decided when training stopped, so that the probability is
        approximate. After `calibrate` it is guaranteed on average over rows like those.

        Args:
            X: Features (n, features).
            coverage: The probability, between 0 and 1.

        Returns:
            Lower and upper ends (n, 2).

        Raises:
            ArgumentError: There are several targets or a circular one, the rows of `fit` have
                weights, or `coverage` needs more calibration rows.
        """
        features = self._to_score(X).values
        check_one_column(self.flow_)
        if self.calibration_scores_ is None:
            raise ArgumentError(
                "'predict_interval' should be called after calibrate(X, y) with rows that count "
                "equally: the rows of fit have weights, or are repeated."
            )
        calibrated = Conformal(self.flow_, torch.from_numpy(self.calibration_scores_))
        ends = calibrated.interval(coverage, features).numpy()
        return self._rounded(ends[..., None])[..., 0]

    def _table(self, X: ArrayLike, reading: Reading, *args: object, **options: Any) -> Table:
        """Returns features as a table, with columns of true and false, and of labels of text."""
        return super()._table(X, replace(reading, every=True, labels=True), *args, **options)

    def _to_score(self, X: ArrayLike) -> Table:
        """Returns finite features, if the estimator is fitted."""
        check_is_fitted(self)
        reading = Reading.of(columns=self._context_columns, missing=self.missing)
        table = self._table(X, replace(reading, purpose="score"))
        require_finite(table, table.source)
        return table

    def _joined(self, X: ArrayLike, y: ArrayLike, features: Table) -> Table:
        """Returns the targets as a table, with the features as its context."""
        if y is None:
            raise ArgumentError("'y' should hold the targets, got None.")
        check_consistent_length(X, y)
        targets = targets_of(y, self._targets).select(features.rows - 1)
        if self._targets is not None:
            require_finite(targets, targets.source)
            targets = targets.without_columns(set(self._targets) - set(self._columns))
        return replace(
            targets,
            rows=features.rows,
            labels=features.labels,
            weights=features.weights,
            context=features.values,
            context_columns=features.columns,
            notes=features.notes + targets.notes,
        )


def targets_of(y: Any, names: Sequence[str] | None) -> Table:
    """Returns targets as a table; `names` are those of the targets of `fit`, if it is done."""
    if is_into_series(y):
        series = nw.from_native(y, series_only=True)
        y = series.to_frame().to_native() if series.name else series.to_numpy()
    if is_into_dataframe(y):
        own = column_names(y)
    else:
        y = check_array(
            y, ensure_2d=False, dtype="float64", ensure_all_finite=False, input_name="y"
        )
        y = y.reshape(len(y), -1)
        own = [f"y{i}" for i in range(y.shape[1])]
    if names is not None and len(own) != len(names):
        raise ArgumentError(f"'y' should have {len(names)} targets, as in fit, got {len(own)}.")
    return read_table(y, Reading(every=True), names=names or own)
