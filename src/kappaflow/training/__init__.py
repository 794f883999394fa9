"""Training by maximum likelihood or on an energy: finite, resumable, measured as it goes."""

from kappaflow.training.budget import correlation_note
from kappaflow.training.callbacks import Callback, TensorBoard
from kappaflow.training.fit import fit
from kappaflow.training.fit_tables import fit_tables
from kappaflow.training.measure import (
    log_prob_of,
    quantile,
    tested_condition,
    units_log_det,
)
from kappaflow.training.rows import Rows, rows_of
from kappaflow.training.run_folder import read_metrics, read_result, write_result
from kappaflow.training.settings import Settings, checked_settings
from kappaflow.training.trained import FitResult
from kappaflow.training.variational import EnergyResult, EnergySettings, fit_energy

__all__ = [
    "Callback",
    "EnergyResult",
    "EnergySettings",
    "FitResult",
    "Rows",
    "Settings",
    "TensorBoard",
    "checked_settings",
    "correlation_note",
    "fit",
    "fit_energy",
    "fit_tables",
    "log_prob_of",
    "quantile",
    "read_metrics",
    "read_result",
    "rows_of",
    "tested_condition",
    "units_log_det",
    "write_result",
]
