"""`FlowDensity`: a density of rows."""

from typing import Self

import torch
from numpy.typing import ArrayLike
from sklearn.base import DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from kappaflow._checks import positive_int
from kappaflow.data.raw import quoted
from kappaflow.errors import ArgumentError
from kappaflow.estimator.base import Floats, RandomState, RowEstimator, estimator


@estimator
class FlowDensity(DensityMixin, RowEstimator):
    """The density of rows, by a normalizing flow trained with maximum likelihood.

    Columns are standardized internally, and a tenth of the rows is held out for early stopping.
    Problems with the rows (dependent or constant columns) give warnings before training.

    Attributes:
        choice_: The choice of the model search and its reason, as text.
        flow_: The trained `kappaflow.Flow`, in float64.
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

    def fit(
        self,
        X: ArrayLike,  # noqa: N803
        y: object = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
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
        table = self._read(X, sample_weight)
        self._train(self._prepared(table, merges=self._merges_copies(table)))
        return self

    def score(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        X: ArrayLike,
        y: object = None,  # noqa: N803
    ) -> float:
        """Returns the mean of log p over rows in nats.

        Args:
            X: Rows (n, features).
            y: Ignored.

        Returns:
            The mean.
        """
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, random_state: RandomState = None) -> Floats:
        """Returns samples of the density.

        Args:
            n_samples: Number of samples.
            random_state: Seed of the samples.

        Returns:
            Samples (n_samples, columns), of the columns that the density models. Columns of few
            values, such as counts, have these values.

        Raises:
            ArgumentError: The density has a context.
        """
        check_is_fitted(self)
        if self._context_columns:
            raise ArgumentError(
                "'sample' does not know the context: call flow_.sample(n, context), with rows "
                f"of {quoted(self._context_columns)}."
            )
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        generator = torch.Generator().manual_seed(seed)
        n = positive_int("n_samples", n_samples)
        with torch.no_grad():
            return self._rounded(self.flow_.sample(n, generator=generator).numpy())
