"""`universal`: any law by three affine couplings, and what it costs in conditioning."""

from pathlib import Path

from kappaflow_studies.engine.study import Study
from kappaflow_studies.universal.approximation import Approximation, approximate
from kappaflow_studies.universal.cases import UniversalSettings, cases
from kappaflow_studies.universal.construction import Recoding, Scales, universal_flow
from kappaflow_studies.universal.findings import findings
from kappaflow_studies.universal.measure import measure
from kappaflow_studies.universal.power import PowerLaw, power_law
from kappaflow_studies.universal.quantizer import Grid, staircase
from kappaflow_studies.universal.targets import (
    TARGETS,
    Banana,
    Checkerboard,
    Ring,
    Target,
    TruncatedMixture,
    UniformCube,
)
from kappaflow_studies.universal.wasserstein import TransportError, transport_error, two_sample_w2

UNIVERSAL = Study(
    name="universal",
    title="Any law by three couplings, and the price",
    about="the explicit construction with three couplings: its error in W2, its singular values",
    claim=(
        "Three affine couplings on one partition bring a normal distribution as close as one "
        "likes, in W2, to any law on a bounded set that has a density, provided that the Jacobian "
        "may come close to singular."
    ),
    settings=UniversalSettings,
    presets=Path(__file__).with_name("presets.toml"),
    cases=cases,
    measure=measure,
    findings=findings,
)

__all__ = [
    "UNIVERSAL",
    "Approximation",
    "Banana",
    "Checkerboard",
    "Grid",
    "PowerLaw",
    "Recoding",
    "Ring",
    "Scales",
    "TARGETS",
    "Target",
    "TransportError",
    "TruncatedMixture",
    "UniformCube",
    "approximate",
    "power_law",
    "staircase",
    "transport_error",
    "two_sample_w2",
    "universal_flow",
]
