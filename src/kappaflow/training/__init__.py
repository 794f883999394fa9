"""Training by maximum likelihood: finite, resumable, and measured as it goes."""

from kappaflow.training.budget import correlation_note
from kappaflow.training.fit import FitResult, fit, fit_tables
from kappaflow.training.measure import (
    budget_rows,
    condition_numbers,
    log_prob_of,
    quantile,
    units_log_det,
)
from kappaflow.training.rows import Rows, rows_of
from kappaflow.training.run_folder import read_metrics, read_result, write_result
from kappaflow.training.settings import Settings, checked_settings

__all__ = [
    "FitResult",
    "Rows",
    "Settings",
    "budget_rows",
    "checked_settings",
    "condition_numbers",
    "correlation_note",
    "fit",
    "fit_tables",
    "log_prob_of",
    "quantile",
    "read_metrics",
    "read_result",
    "rows_of",
    "units_log_det",
    "write_result",
]
