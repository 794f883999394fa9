"""`FlowOutlierDetector`: rows of low density, with calibrated p-values."""

import math
import warnings
from dataclasses import field
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import OutlierMixin

from kappaflow._checks import one_of
from kappaflow.errors import ArgumentError, DataWarning
from kappaflow.estimator.base import Floats, estimator
from kappaflow.estimator.rows import RowEstimator
from kappaflow.options import Duplicates, described
from kappaflow.training import batch_of, log_prob_of


@estimator
class FlowOutlierDetector(OutlierMixin, RowEstimator):
    """Finds rows of much lower density than the training rows.

    Trains a flow on one part of the rows, and computes p-values from its log p on a held-out part.
    On average over calibrations, at most a share `level` of new rows from the same distribution is
    called an outlier, whatever the distribution and whatever the flow has learned.

    Attributes:
        flow_: The trained `kappaflow.Flow`, in float64.
        calibration_scores_: log p of the calibration rows, ascending.
        offset_: Rows with a lower log p are outliers.

    Source:
        Vovk, Gammerman, Shafer 2005: split conformal prediction. Bates, Candès, Lei, Romano,
        Sesia 2023: outliers by conformal p-values.

    Example:
        >>> import numpy as np
        >>> X = np.random.default_rng(0).normal(size=(400, 2))
        >>> settings = dict(depth=2, hidden=(8,), max_epochs=5, random_state=0)
        >>> detector = FlowOutlierDetector(**settings).fit(X)
        >>> detector.predict([[0.0, 0.0], [9.0, 9.0]])
        array([ 1, -1])
        >>> detector.p_values([[9.0, 9.0]]).round(3)
        array([0.012])
    """

    level: float = described("Largest rate of false alarms.", default=0.05, kw_only=False)
    calibration_fraction: float = described(
        "Share of the rows held out for the p-values. With m such rows a p-value is at least 1 / "
        "(m + 1).",
        default=0.2,
    )
    model: str | None = field(default=None, kw_only=True)
    duplicates: Duplicates | None = described(
        '"keep" rows that repeat earlier ones (the default) or "drop" them. They cannot be '
        "weighed, because p-values count rows.",
        default=None,
    )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "offset_")

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Trains the flow and calibrates the p-values.

        Args:
            X: Rows (n, features), few of them outliers.
            y: Ignored.

        Returns:
            The estimator.

        Raises:
            ArgumentError: A parameter is invalid.
            DataError: The rows have no density that a flow can fit.
        """
        for name in ("level", "calibration_fraction"):
            value = getattr(self, name)
            if not (isinstance(value, float | int) and 0 < value < 1):
                raise ArgumentError(f"'{name}' should be between 0 and 1, got {value!r}.")
        one_of("duplicates", self.duplicates, (None, "keep", "drop"))
        scores = np.sort(self._scores_after_fit(X))
        self.calibration_scores_ = scores
        lowest = math.floor(self.level * (len(scores) + 1))
        if not lowest:
            warnings.warn(
                f"no row can be called an outlier: a level of {self.level:g} needs at least "
                f"{math.ceil(1 / self.level) - 1:,} calibration rows, and there are "
                f"{len(scores):,}; pass more rows, or a larger calibration_fraction or level",
                DataWarning,
                stacklevel=2,
            )
        self.offset_ = float(scores[lowest - 1]) if lowest else -math.inf
        return self

    def _scores_after_fit(self, X: ArrayLike) -> Floats:
        """Returns log p of the calibration rows, after training on the others."""
        kept = (self.calibration_fraction,)
        if self.kinds is not None:
            (rows,) = self._fit_mixed(X, kept=kept)
            return self.table_model_.log_prob(rows).log_prob
        table = self._read(X, at_least=3)
        _, calibration = self._train(self._prepared(table), kept=kept)
        if self._grids:  # with the noise of rows to score, which follows from their values
            calibration = self._noisy(table.select(np.isin(table.rows, calibration.rows)))
        return log_prob_of(self.flow_, batch_of(calibration, self.flow_)).numpy()

    def p_values(self, X: ArrayLike) -> Floats:
        """Returns the probability that a row like those of `fit` has at most this density.

        Args:
            X: Rows (n, features).

        Returns:
            P-values (n,) from 1 / (calibration rows + 1) to 1.
        """
        scores = self.score_samples(X)
        below = np.searchsorted(self.calibration_scores_, scores, side="right")
        return (1 + below) / (1 + len(self.calibration_scores_))

    def decision_function(self, X: ArrayLike) -> Floats:
        """Returns log p minus `offset_`; negative for outliers.

        Args:
            X: Rows (n, features).

        Returns:
            Values (n,).
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Returns -1 for outliers, rows with a p-value of at most `level`, and 1 for the others.

        Args:
            X: Rows (n, features).

        Returns:
            Labels (n,).
        """
        return np.where(self.decision_function(X) < 0, -1, 1)
