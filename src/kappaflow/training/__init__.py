"""Training by maximum likelihood or on an energy: finite, resumable, measured as it goes."""

from kappaflow.data.batches import Batch, Batches, batch_of
from kappaflow.training.budget import correlation_note
from kappaflow.training.callbacks import Callback, TensorBoard
from kappaflow.training.fit import fit
from kappaflow.training.fit_energy import fit_energy
from kappaflow.training.measure import (
    condition_at_test_rows,
    log_prob_of,
    quantile,
)
from kappaflow.training.results import EnergyResult, FitResult
from kappaflow.training.run_folder import read_metrics, read_result, write_result
from kappaflow.training.session import fit_split
from kappaflow.training.settings import EnergySettings, Settings, checked_settings

__all__ = [
    "Batch",
    "Batches",
    "Callback",
    "EnergyResult",
    "EnergySettings",
    "FitResult",
    "Settings",
    "TensorBoard",
    "batch_of",
    "checked_settings",
    "condition_at_test_rows",
    "correlation_note",
    "fit",
    "fit_energy",
    "fit_split",
    "log_prob_of",
    "quantile",
    "read_metrics",
    "read_result",
    "write_result",
]
