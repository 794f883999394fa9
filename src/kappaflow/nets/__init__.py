"""Conditioner networks, which map tensors to tensors and do not depend on flows."""

from kappaflow.nets.conv import ConvNet, ResidualConvNet
from kappaflow.nets.inputs import SinCosEmbedding, StandardizeInputs
from kappaflow.nets.masked import MaskedMLP
from kappaflow.nets.mlp import MLP, PairedMLP, ResidualMLP

__all__ = [
    "MLP",
    "MaskedMLP",
    "SinCosEmbedding",
    "ConvNet",
    "ResidualConvNet",
    "ResidualMLP",
    "StandardizeInputs",
    "PairedMLP",
]
