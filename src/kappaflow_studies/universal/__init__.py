"""`universal`: any distribution by three affine couplings, and what it costs in conditioning."""

from pathlib import Path

from kappaflow_studies.engine.study import Study
from kappaflow_studies.universal.approximation import (
    Approximation,
    PowerLaw,
    TransportError,
    approximate,
    power_law,
    transport_error,
    two_sample_w2,
)
from kappaflow_studies.universal.construction import Recoding, Scales, universal_flow
from kappaflow_studies.universal.findings import findings
from kappaflow_studies.universal.measure import UniversalSettings, cases, measure
from kappaflow_studies.universal.quantizer import Grid, quantizer_network
from kappaflow_studies.universal.targets import (
    TARGETS,
    Banana,
    Checkerboard,
    Ring,
    Target,
    TruncatedMixture,
    UniformCube,
)

UNIVERSAL = Study(
    name="universal",
    title="Any distribution by three couplings, and the price",
    about="the explicit construction with three couplings: its error in W2, its singular values",
    claim=(
        "Three affine couplings on one partition bring a normal distribution as close in W2 as "
        "one likes to any distribution with a density on a bounded set, if the Jacobian may be "
        "nearly singular."
    ),
    settings=UniversalSettings,
    presets=Path(__file__).with_name("presets.toml"),
    cases=cases,
    measure=measure,
    findings=findings,
)

__all__ = [
    "TARGETS", "UNIVERSAL", "Approximation", "Banana", "Checkerboard", "Grid", "PowerLaw",
    "Recoding", "Ring", "Scales", "Target", "TransportError", "TruncatedMixture", "UniformCube",
    "approximate", "power_law", "quantizer_network", "transport_error", "two_sample_w2",
    "universal_flow",
]  # fmt: skip
