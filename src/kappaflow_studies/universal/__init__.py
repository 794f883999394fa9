"""`universal`: any distribution by three or four affine couplings, and their conditioning."""

from pathlib import Path

from kappaflow_studies.engine.study import Study
from kappaflow_studies.universal.approximation import (
    Approximation,
    PowerLaw,
    TransportError,
    approximate,
    power_law,
    total_variation,
    transport_error,
    two_sample_w2,
)
from kappaflow_studies.universal.commutators import EveryPoint, at_every_point, commutator_flow
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
from kappaflow_studies.universal.triangular import Cells, TriangularConditioner, triangular_flow

UNIVERSAL = Study(
    name="universal",
    title="Any distribution by three or four couplings, and the price",
    about="explicit constructions with three and four couplings: their error and singular values",
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
    "TARGETS", "UNIVERSAL", "Approximation", "Banana", "Cells", "Checkerboard", "EveryPoint",
    "Grid", "PowerLaw", "Recoding", "Ring", "Scales", "Target", "TransportError",
    "TriangularConditioner", "TruncatedMixture", "UniformCube", "approximate",
    "at_every_point", "commutator_flow", "power_law", "quantizer_network", "total_variation",
    "transport_error", "triangular_flow", "two_sample_w2", "universal_flow",
]  # fmt: skip
