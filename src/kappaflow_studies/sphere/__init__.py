"""`sphere`: the mixture of the depth bound, its generator, and flows of growing depth."""

from pathlib import Path

from kappaflow_studies.engine.study import Study
from kappaflow_studies.sphere.findings import findings
from kappaflow_studies.sphere.measure import SphereSettings, cases, measure

SPHERE = Study(
    name="sphere",
    title="Deep flows against a shallow generator",
    about="a mixture of Gaussians on a sphere: its shallow generator, and flows of depth 1 to 32",
    claim=(
        "A generator of constant depth makes a mixture of k Gaussians around random points of a "
        "sphere; flows of invertible Lipschitz layers with p parameters each need a depth of the "
        "order of k / p for some such mixture."
    ),
    settings=SphereSettings,
    presets=Path(__file__).with_name("presets.toml"),
    cases=cases,
    measure=measure,
    findings=findings,
)
