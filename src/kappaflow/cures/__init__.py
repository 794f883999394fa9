"""Cures: what can be done about a finding without asking anyone, and lines of code."""

from kappaflow.cures.bounded import bounded
from kappaflow.cures.lines import lines_to_change
from kappaflow.cures.padded import padded
from kappaflow.cures.steps import CURES, Cure, Cured

__all__ = ["CURES", "Cure", "Cured", "bounded", "lines_to_change", "padded"]
