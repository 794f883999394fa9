"""Goodness of fit: whether samples of a flow have the distribution of held-out rows.

two_sample   columns, pairs, a classifier and overfitting
calibration  ranks of rows among samples at their contexts
conformal    intervals that contain the right share of new rows
copies       whether samples repeat training rows
usefulness   whether a model learns from samples what it learns from rows
goodness     two samples and calibration, in sentences for the verdict
pooled       held-out rows and samples, side by side
scan         counts of both in cells of every width
"""

from kappaflow.goodness.calibration import Calibration, ContextBin, calibration
from kappaflow.goodness.conformal import Conformal, conformal
from kappaflow.goodness.copies import Copies, copies
from kappaflow.goodness.deviation import Deviation, Level
from kappaflow.goodness.goodness import Goodness, goodness_of
from kappaflow.goodness.marginals import Marginal
from kappaflow.goodness.two_sample import TwoSample, two_sample
from kappaflow.goodness.usefulness import Usefulness, usefulness

__all__ = [
    "Calibration",
    "Conformal",
    "ContextBin",
    "Copies",
    "Deviation",
    "Goodness",
    "Level",
    "Marginal",
    "TwoSample",
    "Usefulness",
    "calibration",
    "conformal",
    "copies",
    "goodness_of",
    "two_sample",
    "usefulness",
]
