"""`FlowDensity`: a density of rows."""

from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from sklearn.base import DensityMixin
from sklearn.utils.validation import check_is_fitted

from kappaflow._checks import positive_int
from kappaflow.data.raw import quoted
from kappaflow.errors import ArgumentError
from kappaflow.estimator.base import RandomState, estimator, seed_of
from kappaflow.estimator.rows import RowEstimator


@estimator
class FlowDensity(DensityMixin, RowEstimator):
    """The density of rows, by a normalizing flow trained with maximum likelihood.

    Columns are standardized internally, and a tenth of the rows is held out for early stopping.
    Problems with the rows (dependent or constant columns) give warnings before training.

    Attributes:
        choice_: The choice of the model search and its reason, as text.
        flow_: The trained `kappaflow.Flow`, in float64. With `kinds` that of the numbers given
            the labels; None if there are only labels, and then no history either.
        table_model_: With `kinds` the `kappaflow.mixed.TableModel`, which also completes rows.
        history_: The losses and other figures of each epoch.
        findings_: Findings on the training and on the rows, as in reports.
        validation_nll_: Mean negative log-likelihood of the validation rows, in nats.
        n_iter_: Number of epochs.
        notes_: Notes on the rows, one sentence each.
        n_features_in_: Number of columns.
        feature_names_in_: Names of the columns, if the rows had names.

    Example:
        >>> import numpy as np
        >>> X = np.random.default_rng(0).normal(3.0, 2.0, (300, 2))
        >>> density = FlowDensity(depth=2, hidden=(8,), max_epochs=5, random_state=0).fit(X)
        >>> density.score_samples(X[:3]).shape, density.sample(4, random_state=0).shape
        ((3,), (4, 2))
    """

    def fit(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Trains the flow.

        Args:
            X: Rows (n, features).
            y: Ignored.
            sample_weight: Weights (n,), 0 or more; equal if left out.

        Returns:
            The estimator.

        Raises:
            ArgumentError: A parameter or a weight is invalid.
            DataError: The rows have no density that a flow can fit.
        """
        if self.kinds is not None:
            self._fit_mixed(X, sample_weight)
            return self
        table = self._read(X, sample_weight)
        self._train(self._prepared(table, merges=self._merges_copies(table)))
        return self

    def score(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, X: ArrayLike, y: object = None
    ) -> float:
        """Returns the mean of log p over rows in nats.

        Args:
            X: Rows (n, features).
            y: Ignored.

        Returns:
            The mean.
        """
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, random_state: RandomState = None) -> Any:
        """Returns samples of the density.

        Args:
            n_samples: Number of samples.
            random_state: Seed of the samples.

        Returns:
            Samples (n_samples, columns), of the columns that the density models. Columns of few
            values, such as counts, have these values. With `kinds` a data frame with the dtypes
            of the rows.

        Raises:
            ArgumentError: The density has a context.
        """
        check_is_fitted(self)
        n, seed = positive_int("n_samples", n_samples), seed_of(random_state)
        if hasattr(self, "table_model_"):
            if names := [column.name for column in self.table_model_.encoding.context]:
                raise ArgumentError(
                    "'sample' does not know the context: call table_model_.sample(n, "
                    f"context=rows), with rows of {quoted(names)}."
                )
            return self.table_model_.sample(n, seed=seed)
        if self._context_columns:
            raise ArgumentError(
                "'sample' does not know the context: call flow_.sample(n, context), with rows "
                f"of {quoted(self._context_columns)}."
            )
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            return self._rounded(self.flow_.sample(n, generator=generator).numpy())
