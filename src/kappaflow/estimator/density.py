"""`FlowDensity`: a density of rows."""

from typing import Self

import torch
from numpy.typing import ArrayLike
from sklearn.base import DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from kappaflow._checks import positive_int
from kappaflow.estimator.base import FlowEstimator, RandomState
from kappaflow.estimator.rows import Floats


class FlowDensity(DensityMixin, FlowEstimator):
    """The density of rows, by a normalizing flow trained with maximum likelihood.

    Columns are standardised inside, and a tenth of the rows decides when to stop. What is wrong
    with the rows (dependent columns, constant ones) is said before training.

    Args:
        model: A recipe: "real_nvp", "spline", "nice", "planar", "radial", "invertible_network",
            or one of zuko as `kappaflow.zuko_flow` names them, "zuko:nsf". If this and the next
            three are left out, a search chooses the model, as `kappaflow.fit_auto` does; it
            measures time, so that two fits may choose differently.
        depth: Number of couplings, or of what else the model is made of; 16 couplings, or what
            the recipe takes, if left out.
        hidden: Widths of the couplings' networks; (128, 128) if left out.
        options: More arguments of the recipe, by name; see `kappaflow.real_nvp`.
        search_time: Time budget of the search, in seconds of the processor; 0 skips it.
        max_epochs: Passes over the rows, at most; see `kappaflow.training.Settings`.
        max_time_s: Seconds of training, at most; None for no limit.
        batch_size: Rows a step.
        learning_rate: The highest of Adam. If left out, that of the model which a search chose;
            5e-3 without a search.
        patience: Epochs without a better validation likelihood after which training stops.
        validation_fraction: Share of the rows that decides when.
        condition_budget: Keeps the 95 % quantile of the condition number within this; None for no
            such request.
        bounds: Domains of columns by name or place, in which all samples then lie, such as
            {"mass": "positive", 1: (0, 1)}; a score outside of them is -inf.
        repair: "jitter" adds a little noise to columns that leave the rows without a density;
            "dequantize" adds uniform noise to rounded columns, exactly as wide as a step of their
            values, also to the rows that are scored: a score is then a bound. Each row gets its
            noise once, by its place and the column.
        duplicates: What to do with rows that repeat earlier ones: "weigh" each row by the number
            of its copies (if left out, but not with "dequantize"), so that a weight of two is the
            row twice; "keep" them, with all copies in one part of the split; or "drop" them.
        device: Where to train, "cpu" or "cuda".
        random_state: Decides weights, splits and the order of rows.
        verbose: Show a progress bar.

    Attributes:
        choice_: What a search chose, and why, as text.
        flow_: The trained `kappaflow.Flow`, in float64.
        history_: The figures of each epoch.
        validation_nll_: Mean negative log-likelihood of the validation rows, in nats.
        n_iter_: Number of epochs.
        notes_: What there is to know about the rows, one sentence each.
        n_features_in_: Number of columns.
        feature_names_in_: Their names, where rows were given with names.

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
            X: Rows, (n, features).
            y: Ignored.
            sample_weight: How much each row counts, (n,), 0 or more; all alike if left out.

        Returns:
            The estimator.

        Raises:
            ArgumentError: A parameter or a weight is wrong.
            DataError: The rows have no density that a flow could fit.
        """
        values = self._within(self._rows(X, at_least=2), self._names())
        self._train(self._table(values, sample_weight, merges=self._merges_copies()))
        return self

    def score_samples(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Returns log p of each row, in nats, in the units of the rows.

        Args:
            X: (n, features).

        Returns:
            (n,).
        """
        return self._log_prob(self._checked(X))

    def score(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        X: ArrayLike,
        y: object = None,  # noqa: N803
    ) -> float:
        """Returns the mean of log p over rows, in nats.

        Args:
            X: (n, features).
            y: Ignored.

        Returns:
            The mean.
        """
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, random_state: RandomState = None) -> Floats:
        """Returns draws from the density.

        Args:
            n_samples: How many.
            random_state: Decides the draws.

        Returns:
            (n_samples, features).
        """
        check_is_fitted(self)
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        generator = torch.Generator().manual_seed(seed)
        n = positive_int("n_samples", n_samples)
        with torch.no_grad():
            return self.flow_.sample(n, generator=generator).numpy()
