"""`universal`: any law by three affine couplings, and what it costs in conditioning."""

from pathlib import Path

from kappaflow.experiments.study import Study
from kappaflow.experiments.universal.cases import UniversalSettings, cases
from kappaflow.experiments.universal.findings import findings
from kappaflow.experiments.universal.measure import measure

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

__all__ = ["UNIVERSAL"]
