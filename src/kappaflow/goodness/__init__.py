"""Goodness of fit: whether samples of a flow have the distribution of held-out rows.

two_sample   columns, pairs, a classifier and overfitting
calibration  ranks of rows among samples at their contexts
conformal    intervals that contain the right share of new rows
goodness     two samples and calibration, in sentences for the verdict
pooled       held-out rows and samples, side by side
scan         counts of both in cells of every width
"""

from kappaflow.goodness.calibration import Calibration, ContextBin, calibration
from kappaflow.goodness.conformal import Conformal, conformal
from kappaflow.goodness.deviation import Deviation, Level
from kappaflow.goodness.goodness import Goodness, goodness_of
from kappaflow.goodness.marginals import Marginal
from kappaflow.goodness.two_sample import TwoSample, two_sample

__all__ = [
    "Calibration",
    "Conformal",
    "ContextBin",
    "Deviation",
    "Goodness",
    "Level",
    "Marginal",
    "TwoSample",
    "calibration",
    "conformal",
    "goodness_of",
    "two_sample",
]
