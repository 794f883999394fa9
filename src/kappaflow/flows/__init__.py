"""Flows, and the recipes that assemble them: functions, never subclasses."""

from kappaflow.flows.augment import Augmentation, Dequantize, Pad
from kappaflow.flows.base import StandardNormal
from kappaflow.flows.flow import Flow
from kappaflow.flows.glow import glow
from kappaflow.flows.jet import jet
from kappaflow.flows.latent import interpolate, reconstruct
from kappaflow.flows.nice import nice
from kappaflow.flows.padded import DequantizeAndPad
from kappaflow.flows.real_nvp import real_nvp
from kappaflow.flows.real_nvp_image import real_nvp_image
from kappaflow.flows.variational import VariationalDequantize

__all__ = [
    "Augmentation",
    "Dequantize",
    "DequantizeAndPad",
    "Flow",
    "Pad",
    "StandardNormal",
    "VariationalDequantize",
    "glow",
    "interpolate",
    "jet",
    "nice",
    "real_nvp",
    "real_nvp_image",
    "reconstruct",
]
