"""Training on an energy: the reverse KL divergence from an unnormalized log-density."""

from kappaflow.training.variational.fit import EnergyResult, fit_energy
from kappaflow.training.variational.settings import EnergySettings

__all__ = ["EnergyResult", "EnergySettings", "fit_energy"]
