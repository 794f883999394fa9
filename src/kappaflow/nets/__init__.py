"""Conditioner networks: they map tensors to tensors and know nothing of flows."""

from kappaflow.nets.mlp import MLP
from kappaflow.nets.standardize import StandardizeInputs

__all__ = ["MLP", "StandardizeInputs"]
