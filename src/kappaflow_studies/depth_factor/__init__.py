"""`depth-factor`: how many couplings a trained flow with linear maps takes without them."""

from pathlib import Path

from kappaflow_studies.depth_factor.cases import DepthFactorSettings, cases
from kappaflow_studies.depth_factor.findings import findings
from kappaflow_studies.depth_factor.measure import measure
from kappaflow_studies.engine.study import Study

DEPTH_FACTOR = Study(
    name="depth-factor",
    title="How much smaller: from 1x1 convolutions to couplings",
    about="trained flows with linear maps between couplings, and what they are without",
    claim=(
        "Flows with 1x1 convolutions can be between 5 and 47 times smaller than flows of fixed "
        "partitions that compute the same: at least five couplings, and at most 47, for each "
        "linear layer that is replaced."
    ),
    settings=DepthFactorSettings,
    presets=Path(__file__).with_name("presets.toml"),
    cases=cases,
    measure=measure,
    findings=findings,
)

__all__ = ["DEPTH_FACTOR"]
