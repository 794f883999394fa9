"""Flows, and the recipes that assemble them: functions, never subclasses."""

from kappaflow.flows.augment import Augmentation, Dequantize
from kappaflow.flows.base import Base, NormalMixture, StandardNormal
from kappaflow.flows.bounded import set_bounds
from kappaflow.flows.flow import Flow
from kappaflow.flows.glow import glow
from kappaflow.flows.importance import importance_weighted_log_prob
from kappaflow.flows.invertible_network import invertible_network
from kappaflow.flows.jet import jet
from kappaflow.flows.latent import interpolate, reconstruct
from kappaflow.flows.nice import nice
from kappaflow.flows.pad import Pad, Padding, UniformPad, ZeroPad
from kappaflow.flows.pad_given import CopyPad, LearnedPad
from kappaflow.flows.pad_kinds import padding_in, padding_of_kind
from kappaflow.flows.padded import DequantizeAndPad
from kappaflow.flows.planar import planar
from kappaflow.flows.radial import radial
from kappaflow.flows.real_nvp import real_nvp
from kappaflow.flows.real_nvp_image import real_nvp_image
from kappaflow.flows.spline import spline
from kappaflow.flows.variational import VariationalDequantize
from kappaflow.flows.zuko_flow import zuko_flow

__all__ = [
    "Augmentation",
    "Base",
    "CopyPad",
    "Dequantize",
    "DequantizeAndPad",
    "Flow",
    "LearnedPad",
    "NormalMixture",
    "Pad",
    "Padding",
    "StandardNormal",
    "UniformPad",
    "VariationalDequantize",
    "ZeroPad",
    "glow",
    "importance_weighted_log_prob",
    "interpolate",
    "invertible_network",
    "jet",
    "nice",
    "padding_in",
    "padding_of_kind",
    "planar",
    "radial",
    "real_nvp",
    "real_nvp_image",
    "reconstruct",
    "set_bounds",
    "spline",
    "zuko_flow",
]
