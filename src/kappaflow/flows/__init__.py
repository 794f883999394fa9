"""Flows, and the recipes that assemble them: functions, never subclasses."""

from kappaflow.flows.augmentation import Augmentation
from kappaflow.flows.autoregressive import autoregressive
from kappaflow.flows.base import Base, NormalMixture, StandardNormal
from kappaflow.flows.base_distributions import (
    ClassConditionalNormal,
    DiagonalNormal,
    StudentT,
    UniformBox,
)
from kappaflow.flows.flow import Flow
from kappaflow.flows.importance import importance_weighted_log_prob
from kappaflow.flows.invertible_network import invertible_network
from kappaflow.flows.padding import (
    CopyPad,
    LearnedPad,
    Pad,
    Padding,
    UniformPad,
    ZeroPad,
    padding_in,
    padding_of_kind,
)
from kappaflow.flows.quantiles import cdf, interval, quantile
from kappaflow.flows.recipe import set_bounds
from kappaflow.flows.recipes_tabular import nice, planar, radial, real_nvp, spline
from kappaflow.flows.zuko_flow import zuko_flow
from kappaflow.options import (
    AffineOptions,
    AutoregressiveOptions,
    CouplingOptions,
    NetworkOptions,
    SplineOptions,
    StartOptions,
)

__all__ = [
    "AffineOptions",
    "Augmentation",
    "AutoregressiveOptions",
    "Base",
    "ClassConditionalNormal",
    "CopyPad",
    "CouplingOptions",
    "DiagonalNormal",
    "Flow",
    "LearnedPad",
    "NetworkOptions",
    "NormalMixture",
    "Pad",
    "Padding",
    "SplineOptions",
    "StandardNormal",
    "StartOptions",
    "StudentT",
    "UniformBox",
    "UniformPad",
    "ZeroPad",
    "autoregressive",
    "cdf",
    "importance_weighted_log_prob",
    "interval",
    "invertible_network",
    "nice",
    "padding_in",
    "padding_of_kind",
    "planar",
    "quantile",
    "radial",
    "real_nvp",
    "set_bounds",
    "spline",
    "zuko_flow",
]
