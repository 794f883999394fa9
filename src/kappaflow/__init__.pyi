import kappaflow_studies.theory as theory

from . import (
    bijections,
    conditioning,
    data,
    depth,
    diagnosis,
    energies,
    errors,
    factor,
    flows,
    goodness,
    images,
    interop,
    linearization,
    nets,
    plot,
    registry,
    rewrite,
    testing,
    training,
)
from .bijection import Bijection, Chain, Inverse
from .bijections import AffineCoupling
from .conditioning import profile, round_trip, spectrum
from .data import load_table
from .depth import prune
from .diagnosis import depth_gains, doctor
from .errors import KappaflowError
from .factor import factor_linear
from .files import load, save
from .flows import (
    Flow,
    StandardNormal,
    autoregressive,
    cdf,
    interval,
    invertible_network,
    nice,
    planar,
    quantile,
    radial,
    real_nvp,
    spline,
    zuko_flow,
)
from .foreign import wrap
from .goodness import calibration, conformal, two_sample
from .images import glow, jet, load_images, real_nvp_image
from .interop.exports import export
from .mixed import TableModel
from .partition import Partition, SpatialPartition
from .registry import register
from .report import write_diagnosis
from .rewrite import fuse, rewrite_fixed_partition
from .runs import candidates, depth_curve, fit_auto, fit_table, write_report
from .stack import CouplingStack
from .training import fit, fit_energy

__version__: str
__all__ = [
    "AffineCoupling",
    "Bijection",
    "Chain",
    "CouplingStack",
    "Flow",
    "Inverse",
    "KappaflowError",
    "Partition",
    "SpatialPartition",
    "StandardNormal",
    "TableModel",
    "autoregressive",
    "bijections",
    "calibration",
    "candidates",
    "cdf",
    "conditioning",
    "conformal",
    "data",
    "depth",
    "depth_curve",
    "depth_gains",
    "diagnosis",
    "doctor",
    "energies",
    "errors",
    "export",
    "factor",
    "factor_linear",
    "fit",
    "fit_auto",
    "fit_energy",
    "fit_table",
    "flows",
    "fuse",
    "glow",
    "goodness",
    "images",
    "interop",
    "interval",
    "invertible_network",
    "jet",
    "linearization",
    "load",
    "load_images",
    "load_table",
    "nets",
    "nice",
    "planar",
    "plot",
    "profile",
    "prune",
    "quantile",
    "radial",
    "real_nvp",
    "real_nvp_image",
    "register",
    "registry",
    "rewrite",
    "rewrite_fixed_partition",
    "round_trip",
    "save",
    "spectrum",
    "spline",
    "testing",
    "theory",
    "training",
    "two_sample",
    "wrap",
    "write_diagnosis",
    "write_report",
    "zuko_flow",
]
