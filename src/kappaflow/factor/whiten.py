"""Whitening of the data by six linear couplings of a fixed partition."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kappaflow._checks import batch, positive_int
from kappaflow.bijection import Bijection, Chain
from kappaflow.errors import ArgumentError, DataError
from kappaflow.factor.coupling import LinearCoupling
from kappaflow.factor.linear import factor_linear
from kappaflow.linearization import Linearization
from kappaflow.nets.inputs import flag_text
from kappaflow.options import option
from kappaflow.partition import Partition
from kappaflow.registry import register

COUPLINGS = 6
DEPENDENT = 1e-12  # smallest variance in any direction, relative to the largest
SHOWN, SMALL_SHARE = 6, 0.01  # columns that a message names, of shares above this of the largest


@register("Whiten")
class Whiten(Bijection):
    r"""Six linear couplings on alternating halves that decorrelate the rows they were fitted to.

    It is the identity until `kappaflow.fit` fits it, to the symmetric square root of the inverse
    covariance: :math:`z = \Sigma^{-1/2} x`. After that, its couplings are trained like all others.

    Args:
        features: Number of features, at least 2.

    Raises:
        ArgumentError: There is only one feature, so there is nothing to decorrelate.

    Source:
        Ours.

    Example:
        >>> x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)).cumsum(1)
        >>> whiten = Whiten(3)
        >>> whiten.fit(x)
        >>> covariance = torch.cov(whiten(x)[0].detach().T, correction=0)
        >>> bool((covariance - torch.eye(3)).abs().max() < 1e-5)
        True
    """

    is_linear = True

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = positive_int("features", features)
        if features < 2:
            raise ArgumentError("'features' should be at least 2, got 1: nothing to decorrelate.")
        self.couplings = Chain(LinearCoupling(self._turn(i)) for i in range(COUPLINGS))
        self.fitted: Tensor
        self.register_buffer("fitted", torch.tensor(False))

    def _turn(self, number: int) -> Partition:
        """Returns the partition of one of the couplings."""
        half = Partition.half(self.features)
        return half if number % 2 else half.swapped()

    @torch.no_grad()
    def fit(
        self, x: Tensor, weights: Tensor | None = None, names: Sequence[str] | None = None
    ) -> None:
        """Sets the couplings so that these rows have unit covariance.

        Args:
            x: The rows, (N, features).
            weights: Weight of each row, (N,); None for equal weights.
            names: Names of the features for messages; x0, x1, ... if None.

        Raises:
            DataError: There are too few rows, some combination of the features does not vary, or
                the covariance is not finite.
        """
        rows = batch("x", x, (self.features,)).double()
        counts = None if weights is None else weights.to(rows)
        covariance = torch.tensor(torch.nan)
        if len(rows):
            covariance = torch.cov(rows.T, correction=0, aweights=counts)
        if not covariance.isfinite().all():
            raise DataError(
                "the rows cannot be whitened: their covariance is not finite. Likely causes: (a) "
                "nan or inf in the rows, see x.isfinite(); (b) no rows; (c) numbers beyond 1e150."
            )
        if len(rows) <= self.features:
            raise DataError(
                f"{len(rows)} row{'s are' if len(rows) > 1 else ' is'} too few to whiten "
                f"{self.features} columns: give at least {self.features + 1} training rows, or "
                f"{option('start', 'identity')}."
            )
        variances, directions = torch.linalg.eigh(covariance)
        if not variances[0] > DEPENDENT * variances[-1]:
            shares = directions[:, 0].abs()
            most = shares.argsort(descending=True)[:SHOWN]
            columns = [int(i) for i in most if shares[i] > SMALL_SHARE * shares.max()]
            listed = ", ".join(repr(names[i] if names else f"x{i}") for i in sorted(columns))
            drop = names[columns[0]] if names else f"x{columns[0]}"
            raise DataError(
                f"the rows cannot be whitened: some combination of the columns {listed} has next "
                f"to no variance ({variances[0]:.1e} compared with {variances[-1]:.1e}). Leave "
                f"out {drop!r} ({option('exclude', [drop])}), or start without whitening "
                f"({option('start', 'identity')})."
            )
        root = directions * variances.rsqrt() @ directions.mT
        found = list(factor_linear(root, couplings=COUPLINGS).couplings)[::-1]
        # There may be fewer than six, not beginning with the first: the others are the identity.
        idle = bool(found) and found[0].partition != self._turn(0)
        factors = [LinearCoupling(self._turn(i)) for i in range(COUPLINGS)]
        factors[idle : idle + len(found)] = found
        for own, factor in zip(self.couplings, factors, strict=True):
            own.load_state_dict(factor.state_dict())
        self.fitted.fill_(True)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.couplings(batch("x", x, (self.features,)))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.couplings.inverse(batch("z", z, (self.features,)))

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        return self.couplings.linearize(x)

    def extra_repr(self) -> str:
        return f"features={self.features}, fitted={flag_text(self.fitted)}"
