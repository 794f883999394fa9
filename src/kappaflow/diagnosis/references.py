"""Gaussian densities fitted to training rows, which the doctor compares with a flow row by row.

A flow should not be worse than such a reference.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from torch import Tensor

from kappaflow.diagnosis.measurements import ShowStep, quietly
from kappaflow.diagnosis.tensors import in_chunks
from kappaflow.flows import Flow
from kappaflow.flows.mixture_fit import sample_of
from kappaflow.flows.standardization import standardization_log_det
from kappaflow.goodness.inputs import Rows, check_train
from kappaflow.goodness.pooled import to_array

FloatArray = NDArray[np.float64]
ReferenceKind = Literal["Gaussian", "Gaussian mixture"]
KINDS: tuple[str, ...] = get_args(ReferenceKind)

DEPENDENT = 1e-6  # share of a column's standard deviation that earlier columns leave unexplained
HALVED_ROWS = 200  # least number of rows to fit a reference to one half and compare on the other
COMPARED_ROWS = 5_000
COMPONENTS = (2, 4, 8, 16, 32)  # tried after 1, as long as the BIC improves
FIT_ROWS, ITERATIONS = 5_000, 30  # limits, so that all fits take some seconds
FLOOR = 1e-4  # added to the variances of a component, in units of the Gaussian's variance


@dataclass(frozen=True)
class Reference:
    """A density fitted to training rows, or to the residuals of a regression on a context."""

    kind: ReferenceKind
    components: int
    nll: FloatArray  # negative log-likelihood of each held-out row, (rows,), in nats


@dataclass(frozen=True)
class Comparison:
    """A flow compared with a reference on the same held-out rows.

    Attributes:
        kind: The reference: "Gaussian", "Gaussian mixture", or for images "independent pixels".
        conditional: Whether both densities are given a context.
        nll: Mean negative log-likelihood of the reference, in `unit` per row.
        nll_standardized: The same on standardized columns.
        difference: Mean NLL of the flow minus the reference's; negative if the flow is better.
        standard_error: Standard error of the difference, from the paired differences.
        fair: False if the reference was fitted to fewer rows than the flow may have seen. Then
            only "worse" is a sound conclusion.
    """

    kind: str
    components: int
    conditional: bool
    rows: int
    nll: float
    nll_standardized: float
    difference: float
    standard_error: float
    fair: bool = True
    unit: Literal["nats", "bits per dimension"] = "nats"

    @property
    def name(self) -> str:
        """The name of the reference in a sentence."""
        if self.kind not in KINDS:
            return self.kind
        if self.kind == "Gaussian":
            return "a linear-Gaussian regression" if self.conditional else "a Gaussian"
        if self.conditional:
            return f"a linear regression with noise of {self.components} Gaussians"
        return f"a Gaussian mixture ({self.components} component{'s' * (self.components > 1)})"


def references(
    train: FloatArray,
    test: FloatArray,
    train_context: FloatArray | None = None,
    test_context: FloatArray | None = None,
    weights: FloatArray | None = None,
    *,
    mixture: bool = True,
) -> tuple[Reference, ...]:
    """Fits a Gaussian and a Gaussian mixture to training rows and evaluates both at test rows.

    Rows are (n, columns), contexts (n, c), and weights of the training rows (n,). With a context,
    both are fitted to the residuals of a linear regression on it. The BIC chooses 1, 2, 4, 8, 16
    or 32 components, on 5,000 rows at most; 1 gives the Gaussian itself.

    Returns:
        The Gaussian and the mixture, or the Gaussian alone without `mixture`. The result is empty
        if a column is constant among the training rows or depends on others, because no such
        density exists then.

    Source:
        Schwarz 1978 (BIC); the mixtures are scikit-learn's.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(300, 2))
        >>> [one.components for one in references(x[:200], x[200:])]
        [1, 1]
    """
    train, test = _residuals(train, test, train_context, test_context, weights)
    whitened = _whitened(train, test, weights)
    if whitened is None:
        return ()
    fitted, tested, log_scale = whitened
    gaussian = Reference("Gaussian", 1, _normal_nll(tested) + log_scale)
    if not mixture:
        return (gaussian,)
    components, nll = _mixture(fitted, tested, weights)
    return gaussian, Reference("Gaussian mixture", components, nll + log_scale)


def comparisons_of(
    flow: Flow,
    x: Tensor,
    context: Tensor | None,
    train: Rows | None = None,
    progress: ShowStep = quietly,
    *,
    weights: FloatArray | None = None,
    train_weights: FloatArray | None = None,
    thorough: bool = False,
) -> tuple[Comparison, ...]:
    """Compares a flow with references at rows of a table, 5,000 at most unless `thorough`.

    Without training rows, the references are fitted to one half of the rows and compared on the
    other half, which puts them at a disadvantage. Rows and training rows may have weights.

    Returns:
        The comparisons. There are none for a flow without a likelihood, and none for fewer than
        200 rows if train is not given.

    Raises:
        ArgumentError: train does not fit x.
    """
    if train is not None:
        check_train(x, context, train)
    if x.dim() != 2 or flow.likelihood == "joint" or (train is None and len(x) < HALVED_ROWS):
        return ()
    progress("a Gaussian and a Gaussian mixture")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).to(x.device)
    half = len(x) // 2 if train is None else 0
    fitted, compared = order[:half], order[half:][: None if thorough else COMPARED_ROWS]
    train_rows, train_context = train or _rows(x, context, fitted)
    if weights is not None:
        train_weights = weights[fitted.cpu().numpy()] if train is None else train_weights
        weights = weights[compared.cpu().numpy()]
    x, context = _rows(x, context, compared)
    generator = None if flow.augment is None else torch.Generator().manual_seed(0)
    (log_prob,) = in_chunks(lambda *at: (flow.log_prob(*at, generator=generator),), x, context)
    return compare(
        -to_array(log_prob),
        references(
            to_array(train_rows),
            to_array(x),
            None if train_context is None else to_array(train_context),
            None if context is None else to_array(context),
            train_weights,
        ),
        weights=weights,
        conditional=context is not None,
        fair=train is not None,
        log_det=standardization_log_det(flow),
    )


def compare(
    nll: FloatArray,
    result: Sequence[Reference],
    *,
    conditional: bool = False,
    fair: bool = True,
    weights: FloatArray | None = None,
    log_det: float = 0.0,
) -> tuple[Comparison, ...]:
    """Returns the comparison of a flow with each reference, from its NLL of each row in nats.

    `weights`, (rows,), weight the rows; all rows have the same weight by default. `log_det` is
    that of the standardization of the flow.

    Example:
        >>> one = compare(np.array([1.0, 2.0]), [Reference("Gaussian", 1, np.array([3.0, 3.0]))])
        >>> one[0].difference, one[0].standard_error
        (-1.5, 0.5)
    """
    rows = len(nll)
    shares = np.full(rows, 1 / rows) if weights is None else weights / weights.sum()
    comparisons = []
    for reference in result:
        with np.errstate(invalid="ignore"):
            paired = nll - reference.nll
            difference = float(shares @ paired)
            variance = np.square(shares * (paired - difference)).sum() * rows / max(1, rows - 1)
        mean = float(shares @ reference.nll)
        comparison = Comparison(
            kind=reference.kind,
            components=reference.components,
            conditional=conditional,
            rows=rows,
            nll=mean,
            nll_standardized=mean + log_det,
            difference=difference,
            standard_error=math.sqrt(variance) if rows > 1 else math.inf,
            fair=fair,
        )
        comparisons.append(comparison)
    return tuple(comparisons)


def _rows(x: Tensor, context: Tensor | None, index: Tensor) -> tuple[Tensor, Tensor | None]:
    return x[index], None if context is None else context[index]


def _residuals(
    train: FloatArray,
    test: FloatArray,
    train_context: FloatArray | None,
    test_context: FloatArray | None,
    weights: FloatArray | None,
) -> tuple[FloatArray, FloatArray]:
    """Returns the residuals of a linear regression on the context."""
    if train_context is None or test_context is None:
        return train, test
    from sklearn.linear_model import LinearRegression

    mean, deviation = train_context.mean(0), train_context.std(0)
    deviation[deviation == 0] = 1  # LinearRegression ignores columns much smaller than others
    train_context, test_context = ((c - mean) / deviation for c in (train_context, test_context))
    regression = LinearRegression().fit(train_context, train, weights)
    return train - regression.predict(train_context), test - regression.predict(test_context)


def _whitened(
    train: FloatArray, test: FloatArray, weights: FloatArray | None
) -> tuple[FloatArray, FloatArray, float] | None:
    """Returns both, whitened by the training rows, and the log-scale; None if impossible."""
    if len(train) < 2 or (train.min(0) == train.max(0)).any():
        return None
    mean = np.average(train, axis=0, weights=weights)
    spread = np.sqrt(np.average((train - mean) ** 2, axis=0, weights=weights))
    standardized = (train - mean) / spread
    correlation = np.atleast_2d(np.cov(standardized.T, ddof=0, aweights=weights))
    try:
        factor = np.linalg.cholesky(correlation)
    except np.linalg.LinAlgError:
        return None
    # A pivot is the standard deviation of a column that earlier columns do not explain.
    if not factor.diagonal().min() >= DEPENDENT:
        return None
    fitted, tested = (
        solve_triangular(factor, rows.T, lower=True).T
        for rows in (standardized, (test - mean) / spread)
    )
    return fitted, tested, float(np.log(spread).sum() + np.log(factor.diagonal()).sum())


def _normal_nll(z: FloatArray) -> FloatArray:
    return 0.5 * (z**2).sum(1) + 0.5 * z.shape[1] * math.log(2 * math.pi)


def _mixture(
    fitted: FloatArray, tested: FloatArray, weights: FloatArray | None
) -> tuple[int, FloatArray]:
    """Returns the number of components with the smallest BIC, and the NLL of the tested rows."""
    from sklearn.mixture import GaussianMixture

    rows, width = min(len(fitted), FIT_ROWS), fitted.shape[1]
    shares = None if weights is None else torch.from_numpy(weights)
    fitted = fitted[sample_of(len(fitted), shares, FIT_ROWS).numpy()]
    parameters = width * (width + 3) / 2
    best, components = 2 * rows * _normal_nll(fitted).mean() + parameters * math.log(rows), 1
    nll = _normal_nll(tested)
    for count in COMPONENTS:
        if count * parameters > rows:
            break
        mixture = GaussianMixture(
            count, reg_covar=FLOOR, max_iter=ITERATIONS, random_state=0, init_params="kmeans"
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a mixture that did not converge is a valid density
            fit = -2 * rows * mixture.fit(fitted).score(fitted)
        bic = fit + (count * parameters + count - 1) * math.log(rows)
        if bic >= best:
            break
        best, components, nll = bic, count, -mixture.score_samples(tested)
    return components, nll
