"""`padding`: flows of the plane and of images, with and without padding of several kinds."""

from pathlib import Path

from kappaflow_studies.engine.study import Study
from kappaflow_studies.padding.cases import PaddingSettings, cases
from kappaflow_studies.padding.findings import findings
from kappaflow_studies.padding.measure import measure

PADDING = Study(
    name="padding",
    title="What padding does to a flow",
    about="flows of planar sets and images, without padding, with zeros, and with noise",
    claim=(
        "Flows with zero padding are very ill-conditioned and have poor samples. Flows with "
        "Gaussian padding are better conditioned and have better samples than flows without "
        "padding."
    ),
    settings=PaddingSettings,
    presets=Path(__file__).with_name("presets.toml"),
    cases=cases,
    measure=measure,
    findings=findings,
)

__all__ = ["PADDING"]
