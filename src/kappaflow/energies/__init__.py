"""Energies: densities that are known up to a constant, and the weights of a flow's draws there."""

from kappaflow.energies.importance import ImportanceSamples, importance_sample
from kappaflow.energies.target import LogDensity, check_target, log_density_at, with_gradient

__all__ = [
    "ImportanceSamples",
    "LogDensity",
    "check_target",
    "importance_sample",
    "log_density_at",
    "with_gradient",
]
