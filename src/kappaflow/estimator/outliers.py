"""`FlowOutlierDetector`: rows of low density, with calibrated p-values."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import OutlierMixin

from kappaflow._checks import one_of
from kappaflow.data.domains import Bounds
from kappaflow.data.table import Repair
from kappaflow.errors import ArgumentError, DataWarning
from kappaflow.estimator.base import Floats, FlowEstimator, RandomState
from kappaflow.training import batch_of, log_prob_of


class FlowOutlierDetector(OutlierMixin, FlowEstimator):
    """Finds rows of much lower density than the training rows.

    Trains a flow on one part of the rows, and computes p-values from its log p on a held-out part.
    On average over calibrations, at most a share `level` of new rows from the same distribution is
    called an outlier, whatever the distribution and whatever the flow has learned. `FlowDensity`
    describes the arguments that both have in full.

    Args:
        level: Largest rate of false alarms.
        calibration_fraction: Share of the rows held out for the p-values. With m such rows a
            p-value is at least 1 / (m + 1).
        model: A recipe; if model, depth, hidden and options are left out, a search chooses.
        depth: Number of couplings, or layers of another kind.
        hidden: Widths of the couplings' networks.
        options: More arguments of the recipe, by name.
        search_time: Time budget of the model search in CPU seconds; 0 skips it.
        max_epochs: Largest number of epochs.
        max_time_s: Time limit for the training in seconds; None for no limit.
        batch_size: Rows per step.
        learning_rate: Peak learning rate of Adam.
        patience: Number of epochs without improvement before training stops.
        validation_fraction: Share of the rows held out for early stopping.
        condition_budget: Upper bound for the 95 % quantile of the condition number.
        bounds: Domains of columns by name or index.
        repair: "drop", "jitter" or "dequantize"; None for neither.
        duplicates: "keep" rows that repeat earlier ones (the default) or "drop" them. They cannot
            be weighed, because p-values count rows.
        columns: Columns to model, by name.
        exclude: Columns to leave out.
        context: Columns that the density is conditioned on.
        where: A condition that the rows of `fit` have to meet, or several.
        missing: Values that mean a missing one.
        device: The device for training, "cpu" or "cuda".
        random_state: Seed for weights, splits and the order of rows.
        verbose: Whether to show a progress bar.

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

    def __init__(
        self,
        level: float = 0.05,
        *,
        calibration_fraction: float = 0.2,
        model: str | None = None,
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
        duplicates: Literal["keep", "drop"] | None = None,
        columns: Sequence[str] | None = None,
        exclude: str | Sequence[str] = (),
        context: str | Sequence[str] = (),
        where: str | Sequence[str] | None = None,
        missing: str | Sequence[str] = (),
        device: str | None = None,
        random_state: RandomState = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            model,
            depth=depth,
            hidden=hidden,
            options=options,
            search_time=search_time,
            max_epochs=max_epochs,
            max_time_s=max_time_s,
            batch_size=batch_size,
            learning_rate=learning_rate,
            patience=patience,
            validation_fraction=validation_fraction,
            condition_budget=condition_budget,
            bounds=bounds,
            repair=repair,
            duplicates=duplicates,
            columns=columns,
            exclude=exclude,
            context=context,
            where=where,
            missing=missing,
            device=device,
            random_state=random_state,
            verbose=verbose,
        )
        self.level = level
        self.calibration_fraction = calibration_fraction

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "offset_")

    def fit(self, X: ArrayLike, y: object = None) -> Self:  # noqa: N803
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
        table = self._read(X, at_least=3)
        (calibration,) = self._train(self._prepared(table), kept=(self.calibration_fraction,))
        if self._widths:  # with the noise of rows to score, which follows from their values
            calibration = self._noisy(table.select(np.isin(table.rows, calibration.rows)))
        rows = batch_of(calibration, self.flow_)
        scores = np.sort(log_prob_of(self.flow_, rows).numpy())
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

    def score_samples(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Returns log p of each row in nats; lower for outliers.

        Args:
            X: Rows (n, features).

        Returns:
            Log-densities (n,).
        """
        return self._log_prob(self._to_score(X))

    def p_values(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Returns the probability that a row like those of `fit` has at most this density.

        Args:
            X: Rows (n, features).

        Returns:
            P-values (n,) from 1 / (calibration rows + 1) to 1.
        """
        scores = self.score_samples(X)
        below = np.searchsorted(self.calibration_scores_, scores, side="right")
        return (1 + below) / (1 + len(self.calibration_scores_))

    def decision_function(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Returns log p minus `offset_`; negative for outliers.

        Args:
            X: Rows (n, features).

        Returns:
            Values (n,).
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:  # noqa: N803
        """Returns -1 for outliers, rows with a p-value of at most `level`, and 1 for the others.

        Args:
            X: Rows (n, features).

        Returns:
            Labels (n,).
        """
        return np.where(self.decision_function(X) < 0, -1, 1)
