"""`padding`: flows of the plane and of images, with and without padding of several kinds."""

from pathlib import Path

from kappaflow_studies.engine.study import Study
from kappaflow_studies.padding.cases import PaddingSettings, cases
from kappaflow_studies.padding.findings import findings
from kappaflow_studies.padding.measure import measure

PADDING = Study(
    name="padding",
    title="Padding, compared fairly",
    about="flows of the plane and of images without padding, with zeros, with noise of each kind",
    claim=(
        "Padding with zeros makes flows badly conditioned and their samples poor; with Gaussian "
        "noise flows are frequently better conditioned than without padding."
    ),
    settings=PaddingSettings,
    presets=Path(__file__).with_name("presets.toml"),
    cases=cases,
    measure=measure,
    findings=findings,
)
