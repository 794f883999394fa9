"""Conditioner networks: they map tensors to tensors and know nothing of flows."""

from kappaflow.nets.angles import AnglesIn
from kappaflow.nets.conv import ConvNet
from kappaflow.nets.mlp import MLP
from kappaflow.nets.residual import ResidualConvNet
from kappaflow.nets.residual_mlp import ResidualMLP
from kappaflow.nets.standardize import StandardizeInputs
from kappaflow.nets.twin_mlp import TwinMLP
from kappaflow.nets.vit import VisionTransformer

__all__ = [
    "MLP",
    "AnglesIn",
    "ConvNet",
    "ResidualConvNet",
    "ResidualMLP",
    "StandardizeInputs",
    "TwinMLP",
    "VisionTransformer",
]
