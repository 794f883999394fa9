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
from kappaflow.estimator.base import Floats, FlowEstimator, RandomState
from kappaflow.training import Batch, log_prob_of

LEVELS = 200  # number of quantiles that `predict` averages
SAMPLES = 1000  # for quantiles and means of several targets, which have no closed form


class ConditionalFlowDensity(FlowEstimator):
    """The density p(y | X) of targets given features, by a conditional flow.

    Quantiles of a single target are exact: for each row of features the flow is then an
    increasing map of the target. `FlowDensity` describes the arguments in full.

    Args:
        model: "spline" (the default), "real_nvp" or "nice". For one target the last two are a
            Gaussian with a mean and standard deviation that depend on the features.
        depth: Number of couplings; 1 is enough for one target.
        hidden: Widths of the couplings' networks.
        options: More arguments of the recipe, by name.
        search_time: Unused: there is no model search.
        max_epochs: Largest number of epochs.
        max_time_s: Time limit for the training in seconds; None for no limit.
        batch_size: Rows per step.
        learning_rate: Peak learning rate of Adam.
        patience: Number of epochs without improvement before training stops.
        validation_fraction: Share of the rows held out for early stopping.
        condition_budget: Upper bound for the 95 % quantile of the condition number.
        bounds: Domains of targets, by index or as "y0", "y1", ...
        repair: "jitter" or "dequantize"; None for neither.
        duplicates: "keep", "drop" or "weigh" rows that repeat earlier ones.
        device: The device for training, "cpu" or "cuda".
        random_state: Seed for weights, splits and the order of rows.
        verbose: Whether to show a progress bar.

    Attributes:
        flow_: The trained `kappaflow.Flow` of the targets in float64; its context is the features.
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
    _searches: ClassVar = False

    def fit(
        self,
        X: ArrayLike,  # noqa: N803
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
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
        features, targets = self._both(X, y, reset=True)
        self._one_target = targets.ndim == 1
        rows = targets.reshape(len(targets), -1)
        rows = self._in_domains(rows, [f"y{i}" for i in range(rows.shape[1])])
        table = self._table(rows, sample_weight, features, merges=self._merges_copies())
        self.n_targets_ = len(table.columns)
        self._train(table)
        return self

    def log_prob(self, X: ArrayLike, y: ArrayLike) -> Floats:  # noqa: N803
        """Returns log p(y | X) of each row in nats, in the units of the targets.

        Args:
            X: Features (n, features).
            y: Targets (n,) or (n, targets).

        Returns:
            Log-densities (n,).
        """
        return log_prob_of(self.flow_, Batch(*self._tensors(X, y))).numpy()

    def score(self, X: ArrayLike, y: ArrayLike) -> float:  # noqa: N803
        """Returns the mean of log p(y | X) over rows in nats.

        Args:
            X: Features (n, features).
            y: Targets (n,) or (n, targets).

        Returns:
            The mean.
        """
        return float(self.log_prob(X, y).mean())

    def diagnose(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        X: ArrayLike,  # noqa: N803
        y: ArrayLike,
    ) -> Diagnosis:
        """Diagnoses the flow at these rows with `kappaflow.doctor`.

        Args:
            X: Features (n, features), of held-out rows if possible.
            y: Targets (n,) or (n, targets).

        Returns:
            The diagnosis.
        """
        return doctor(self.flow_, *self._tensors(X, y))

    def _tensors(self, X: ArrayLike, y: ArrayLike) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: N803
        """Returns targets and features as inputs of the flow."""
        check_is_fitted(self)
        features, targets = self._both(X, y, reset=False)
        return torch.tensor(self._noisy(self._rows_of(targets))), torch.tensor(features)

    def sample(
        self,
        X: ArrayLike,  # noqa: N803
        n_samples: int = 1,
        random_state: RandomState = None,
    ) -> Floats:
        """Returns samples of the targets for each row of features.

        Args:
            X: Features (n, features).
            n_samples: Number of samples per row.
            random_state: Seed of the samples.

        Returns:
            Samples (n_samples, n), or (n_samples, n, targets) for several targets.
        """
        context = torch.tensor(self._checked(X))
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        generator = torch.Generator().manual_seed(seed)
        samples = self.flow_.sample(
            positive_int("n_samples", n_samples), context, generator=generator
        ).numpy()
        return samples[..., 0] if self._one_target else samples

    def quantile(self, X: ArrayLike, q: float | Sequence[float]) -> Floats:  # noqa: N803
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
        if domain is not None and any(one and one.circular for one in domain.domains):
            raise ArgumentError(
                "quantiles and means are not defined for a circular target: use sample or "
                "log_prob."
            )
        levels = np.asarray(q, dtype=np.float64)
        if levels.ndim > 1 or not ((levels > 0) & (levels < 1)).all():
            raise ArgumentError(f"'q' should be one or more numbers between 0 and 1, got {q!r}.")
        if self.flow_.event_shape != (1,) or self.flow_.augment is not None:
            samples = self.sample(X, SAMPLES, random_state=0)
            return np.quantile(samples, levels, axis=0)
        features = self._checked(X)
        z = np.repeat(ndtri(np.atleast_1d(levels)), len(features))[:, None]
        context = np.tile(features, (levels.size, 1))
        with torch.no_grad():
            y, _ = self.flow_.bijection.inverse(torch.tensor(z), torch.tensor(context))
        values = y.numpy().reshape(*levels.shape, len(features))
        return values if self._one_target else values[..., None]

    def predict(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Returns the mean of the targets for each row of features.

        The mean of 200 quantiles for one target, of 1,000 samples for several.

        Args:
            X: Features (n, features).

        Returns:
            Means (n,), or (n, targets) for several targets.
        """
        check_is_fitted(self)
        if self.n_targets_ > 1:
            return self.sample(X, SAMPLES, random_state=0).mean(0)
        return self.quantile(X, ((np.arange(LEVELS) + 0.5) / LEVELS).tolist()).mean(0)

    def _both(self, X: ArrayLike, y: ArrayLike, *, reset: bool) -> tuple[Floats, Floats]:  # noqa: N803
        """Returns finite features and targets in float64."""
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
        """Returns targets as rows after checking their number."""
        rows = targets.reshape(len(targets), -1)
        if rows.shape[1] != self.n_targets_:
            raise ArgumentError(
                f"'y' should have {self.n_targets_} targets, as in fit, got {rows.shape[1]}."
            )
        return rows
