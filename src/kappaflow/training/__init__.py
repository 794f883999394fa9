"""Training by maximum likelihood, on Lightning Fabric: finite, resumable, and measured as it goes."""

from kappaflow.training.fit import FitResult, fit
from kappaflow.training.settings import Settings

__all__ = ["FitResult", "Settings", "fit"]
