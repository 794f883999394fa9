"""`ConditionalFlowDensity`: the density of targets given features."""

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import ndtri
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from kappaflow._checks import positive_int
from kappaflow.diagnosis import Diagnosis, doctor
from kappaflow.errors import ArgumentError
from kappaflow.estimator.base import FlowEstimator, RandomState
from kappaflow.estimator.rows import Floats
from kappaflow.training import Rows, log_prob_of

LEVELS = 200  # of quantiles, of which `predict` is the mean
DRAWS = 1000  # of several targets, where there are no quantiles in closed form


class ConditionalFlowDensity(FlowEstimator):
    """The density p(y | X) of targets given features, by a conditional flow.

    Of one target all quantiles are exact: the flow is then an increasing map of it for each row
    of features.

    Args:
        model: "spline" (if left out), "real_nvp" or "nice"; of one target the last two are a
            Gaussian whose mean and deviation follow the features.
        depth: As for `FlowDensity`; so are the arguments below. One target takes one coupling.
        hidden: See there.
        options: See there.
        search_time: Not used: nothing is searched.
        max_epochs: See there.
        max_time_s: See there.
        batch_size: See there.
        learning_rate: See there.
        patience: See there.
        validation_fraction: See there.
        condition_budget: See there.
        bounds: See there; of targets, by place or as "y0", "y1", ...
        repair: See there.
        duplicates: See there.
        device: See there.
        random_state: See there.
        verbose: See there.

    Attributes:
        flow_: The trained `kappaflow.Flow` of targets, whose context are features, in float64.
        n_targets_: Number of targets.

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

    _default_model: ClassVar = "spline"
    # Dropout blurs what a conditioner makes of the features, and quantiles with it.
    _searches: ClassVar = False
    _couplings: ClassVar = {"partition": "random-half", "dropout": 0.0}

    def fit(
        self,
        X: ArrayLike,  # noqa: N803
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Trains the flow.

        Args:
            X: Features, (n, features).
            y: Targets, (n,) or (n, targets).
            sample_weight: How much each row counts, (n,), 0 or more; all alike if left out.

        Returns:
            The estimator.

        Raises:
            ArgumentError: A parameter or a weight is wrong.
            DataError: The targets have no density that a flow could fit.
        """
        features, targets = self._both(X, y, reset=True)
        self._one_target = targets.ndim == 1
        rows = targets.reshape(len(targets), -1)
        rows = self._within(rows, [f"y{i}" for i in range(rows.shape[1])])
        table = self._table(rows, sample_weight, features, merges=self._merges_copies())
        self.n_targets_ = len(table.columns)
        self._train(table)
        return self

    def log_prob(self, X: ArrayLike, y: ArrayLike) -> Floats:  # noqa: N803
        """Returns log p(y | X) of each row, in nats, in the units of the targets.

        Args:
            X: (n, features).
            y: (n,) or (n, targets).

        Returns:
            (n,).
        """
        return log_prob_of(self.flow_, Rows(*self._points(X, y))).numpy()

    def score(self, X: ArrayLike, y: ArrayLike) -> float:  # noqa: N803
        """Returns the mean of log p(y | X) over rows, in nats.

        Args:
            X: (n, features).
            y: (n,) or (n, targets).

        Returns:
            The mean.
        """
        return float(self.log_prob(X, y).mean())

    def diagnose(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        X: ArrayLike,  # noqa: N803
        y: ArrayLike,
    ) -> Diagnosis:
        """Returns what `kappaflow.doctor` says of the flow at rows.

        Args:
            X: (n, features), best of rows that it was not trained on.
            y: (n,) or (n, targets).

        Returns:
            The diagnosis.
        """
        return doctor(self.flow_, *self._points(X, y))

    def _points(self, X: ArrayLike, y: ArrayLike) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: N803
        """Returns targets and features as the flow takes them."""
        check_is_fitted(self)
        features, targets = self._both(X, y, reset=False)
        return torch.tensor(self._noisy(self._rows_of(targets))), torch.tensor(features)

    def sample(
        self,
        X: ArrayLike,  # noqa: N803
        n_samples: int = 1,
        random_state: RandomState = None,
    ) -> Floats:
        """Returns draws of the targets for each row of features.

        Args:
            X: (n, features).
            n_samples: How many for each.
            random_state: Decides the draws.

        Returns:
            (n_samples, n), or (n_samples, n, targets) for several.
        """
        context = torch.tensor(self._checked(X))
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        generator = torch.Generator().manual_seed(seed)
        drawn = self.flow_.sample(
            positive_int("n_samples", n_samples), context, generator=generator
        ).numpy()
        return drawn[..., 0] if self._one_target else drawn

    def quantile(self, X: ArrayLike, q: float | Sequence[float]) -> Floats:  # noqa: N803
        """Returns quantiles of the target for each row of features.

        Exact for one target; of several, those of each in 1,000 draws.

        Args:
            X: (n, features).
            q: Levels between 0 and 1: one, or (m,).

        Returns:
            (n,) for one level and (m, n) for several; with several targets (..., n, targets).

        Raises:
            ArgumentError: A level is not between 0 and 1, or a target is circular.
        """
        check_is_fitted(self)
        domain = self.flow_.domain
        if domain is not None and any(one and one.circular for one in domain.domains):
            raise ArgumentError(
                "'y' should not be circular for quantiles and means, which a circle does not "
                "have: use sample or log_prob."
            )
        levels = np.asarray(q, dtype=np.float64)
        if levels.ndim > 1 or not ((levels > 0) & (levels < 1)).all():
            raise ArgumentError(f"'q' should be one or more numbers between 0 and 1, got {q!r}.")
        if self.flow_.event_shape != (1,) or self.flow_.augment is not None:
            drawn = self.sample(X, DRAWS, random_state=0)
            return np.quantile(drawn, levels, axis=0)
        features = self._checked(X)
        z = np.repeat(ndtri(np.atleast_1d(levels)), len(features))[:, None]
        context = np.tile(features, (levels.size, 1))
        with torch.no_grad():
            found = self.flow_.bijection.inverse(torch.tensor(z), torch.tensor(context))
        values = found[0].numpy().reshape(*levels.shape, len(features))
        return values if self._one_target else values[..., None]

    def predict(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Returns the mean of the targets for each row of features.

        Of one target that of 200 quantiles, of several that of 1,000 draws.

        Args:
            X: (n, features).

        Returns:
            (n,), or (n, targets) for several.
        """
        check_is_fitted(self)
        if self.n_targets_ > 1:
            return self.sample(X, DRAWS, random_state=0).mean(0)
        return self.quantile(X, ((np.arange(LEVELS) + 0.5) / LEVELS).tolist()).mean(0)

    def _both(self, X: ArrayLike, y: ArrayLike, *, reset: bool) -> tuple[Floats, Floats]:  # noqa: N803
        """Returns features and targets in float64, all finite."""
        features, targets = validate_data(  # pyright: ignore
            self,
            X,  # pyright: ignore[reportArgumentType]
            y,  # pyright: ignore[reportArgumentType]
            reset=reset,
            dtype=np.float64,
            multi_output=True,
            y_numeric=True,
            ensure_min_samples=2 if reset else 1,
        )
        return np.asarray(features, np.float64), np.asarray(targets, np.float64)

    def _rows_of(self, targets: Floats) -> Floats:
        """Returns targets as rows of as many as it was fitted to."""
        rows = targets.reshape(len(targets), -1)
        if rows.shape[1] != self.n_targets_:
            raise ArgumentError(
                f"'y' should have {self.n_targets_} targets, as it was fitted to, got "
                f"{rows.shape[1]}."
            )
        return rows
