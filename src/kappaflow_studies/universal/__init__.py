"""`universal`: any distribution by three or four affine couplings, and their conditioning."""

from pathlib import Path

from kappaflow_studies.engine.study import Study
from kappaflow_studies.universal.findings import findings
from kappaflow_studies.universal.measure import UniversalSettings, cases, measure

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
