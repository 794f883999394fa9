"""`linear-depth`: how many linear couplings a map takes, by descent and by factorization."""

from pathlib import Path

from kappaflow_studies.engine.study import Study
from kappaflow_studies.linear_depth.cases import LinearDepthSettings, cases
from kappaflow_studies.linear_depth.findings import findings
from kappaflow_studies.linear_depth.measure import measure

LINEAR_DEPTH = Study(
    name="linear-depth",
    title="How many couplings a linear map takes",
    about="linear couplings of depth 1 to 48, fitted by descent, beside the exact factorization",
    claim=(
        "Alternating affine couplings of a fixed partition represent every invertible linear map "
        "with a constant number of layers, at most 47 whatever the dimension, and some maps need "
        "more than four; fits by gradient descent get better with up to some 16."
    ),
    settings=LinearDepthSettings,
    presets=Path(__file__).with_name("presets.toml"),
    cases=cases,
    measure=measure,
    findings=findings,
)

__all__ = ["LINEAR_DEPTH"]
