"""`padding`: flows of the plane and of images, with and without padding of several kinds."""

from pathlib import Path

from kappaflow_studies.engine.study import Study
from kappaflow_studies.padding.cases import PaddingSettings, cases
from kappaflow_studies.padding.findings import findings
from kappaflow_studies.padding.measure import measure

PADDING = Study(
    name="padding",
    title="What padding does to a flow",
    about="flows of the plane and of images without padding, with zeros, with noise of each kind",
    claim=(
        "Flows whose data is padded with zeros are very badly conditioned and draw poor samples; "
        "padded with Gaussian noise they are better conditioned and draw better samples than "
        "without padding."
    ),
    settings=PaddingSettings,
    presets=Path(__file__).with_name("presets.toml"),
    cases=cases,
    measure=measure,
    findings=findings,
)

__all__ = ["PADDING"]
