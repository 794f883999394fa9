"""`depth-conditioning`: what depth does to conditioning and likelihood, here and elsewhere."""

from pathlib import Path

from kappaflow_studies.depth_conditioning.findings import findings
from kappaflow_studies.depth_conditioning.measure import DepthConditioningSettings, cases, measure
from kappaflow_studies.engine.study import Study

DEPTH_CONDITIONING = Study(
    name="depth-conditioning",
    title="Conditioning against depth",
    about="RealNVPs of five libraries, 2 to 64 couplings deep, and ideal layers that whiten",
    claim=(
        "Good flows tend to be very deep and ill-conditioned, with vanishing or exploding "
        "gradients: the extreme singular values of a composition are products of those of its "
        "layers."
    ),
    settings=DepthConditioningSettings,
    presets=Path(__file__).with_name("presets.toml"),
    cases=cases,
    measure=measure,
    findings=findings,
)
