"""`conformal`: intervals that contain the right share of new rows, also if the flow is wrong."""

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow, cdf, quantile
from kappaflow.flows.quantiles import checked_coverage, support
from kappaflow.flows.rows import PLAIN, Data, checked_context, read_rows
from kappaflow.summary import Facts, Summary


@dataclass(frozen=True, repr=False, eq=False)
class Conformal(Summary):
    """Intervals of a flow of one column, calibrated on rows that it was not trained on.

    Attributes:
        flow: The flow.
        scores: Distance of F(x | context) from 1/2 for each calibration row, (n,), ascending,
            where F is the distribution function of the flow.
    """

    flow: Flow
    scores: Tensor

    def interval(self, coverage: float, context: Data = None) -> Tensor:
        """Returns intervals that contain new rows with at least a probability `coverage`.

        The probability is an average over calibration rows and new rows, at all contexts together.
        It is at most 1 / (n + 1) above `coverage` if no scores are equal.

        Args:
            coverage: The probability, between 0 and 1, and at most n / (n + 1).
            context: Context, (*batch, C), for a conditional flow: a tensor, array or data frame.

        Returns:
            Lower and upper ends in the units of the data, (*batch, 2). They are the ends of the
            domain of the column, or infinite, if too many calibration rows lie so far out that F
            rounds to 0 or 1.

        Raises:
            ArgumentError: `coverage` needs more calibration rows, or the context does not fit.
        """
        rows = len(self.scores)
        share = Fraction(str(checked_coverage(coverage)))  # 0.9 of 10 rows is 9, without rounding
        rank = math.ceil((rows + 1) * share)
        if rank > rows:
            needed = math.ceil(share / (1 - share))
            raise ArgumentError(
                f"'coverage' should be at most {rows} / {rows + 1} with {rows} calibration rows, "
                f"got {coverage!r}: it needs at least {needed:,} rows."
            )
        distance = self.scores[rank - 1].item()
        levels = [0.5 - distance, 0.5 + distance]
        if 0 < levels[0] and levels[1] < 1:
            return quantile(self.flow, levels, context)
        context = checked_context(self.flow, context)
        batch_shape = () if context is None else context.shape[:-1]
        like = {"dtype": self.flow.dtype, "device": self.flow.device}
        return torch.tensor(support(self.flow), **like).expand(*batch_shape, 2)

    def _facts(self) -> Facts:
        rows = len(self.scores)
        return [
            ("calibration rows", f"{rows:,}"),
            ("largest coverage", f"{rows} / {rows + 1}"),
        ]


def conformal(flow: Flow, x: Data, context: Data = None) -> Conformal:
    r"""Calibrates the intervals of a flow of one column on rows that it was not trained on.

    For each of the n rows the score is :math:`|F(x \mid c) - 1/2|`, where F is `kappaflow.cdf`. An
    interval of coverage p goes from the quantile of level 1/2 - t to that of level 1/2 + t, where
    t is the score of rank :math:`\lceil (n + 1) p \rceil`. It contains a new row with at least the
    probability p, whatever the flow has learned, if new rows are exchangeable with these rows
    given the flow: none of them has had an influence on the training, not even by stopping it.

    The coverage holds on average over contexts, not at each context: `kappaflow.calibration` shows
    contexts at which the flow is wrong.

    Args:
        flow: A flow of one column, as for `kappaflow.cdf`.
        x: Rows, (n, 1), without weights.
        context: Context of each row, (n, C), for a conditional flow.

    Returns:
        The calibrated intervals: `interval(coverage, context)`.

    Raises:
        ArgumentError: There are no rows, rows have weights or are not finite, or an argument does
            not fit the flow, as for `kappaflow.cdf`.

    Source:
        Vovk, Gammerman, Shafer 2005, Algorithmic learning in a random world: split conformal
        prediction. Romano, Patterson, Candès 2019, Conformalized quantile regression. This score:
        Chernozhukov, Wüthrich, Zhu 2021, Distributional conformal prediction.

    Example:
        >>> import torch, kappaflow as kf
        >>> flow = kf.Flow(kf.StandardNormal(1), kf.bijections.ElementwiseAffine(1))
        >>> rows = 3 * torch.randn(999, 1, generator=torch.Generator().manual_seed(0))
        >>> calibrated = kf.conformal(flow, rows)  # the flow is too narrow by a factor of 3
        >>> calibrated
        Conformal(calibration rows: 999; largest coverage: 999 / 1000)
        >>> [round(end / 3, 1) for end in calibrated.interval(0.9).tolist()]
        [-1.7, 1.7]
    """
    source = x if isinstance(x, PLAIN) else read_rows("x", x)
    if getattr(source, "weights", None) is not None:
        raise ArgumentError(
            "'x' should have no weights: coverage is only guaranteed where all rows count equally."
        )
    scores = (cdf(flow, source, context) - 0.5).abs().flatten()
    if not len(scores) or scores.isnan().any():
        raise ArgumentError("'x' should hold at least one row, and finite numbers only.")
    return Conformal(flow, scores.sort().values)
