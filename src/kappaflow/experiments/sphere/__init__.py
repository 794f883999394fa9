"""`sphere`: the mixture of the depth bound, its generator, and flows of growing depth."""

from pathlib import Path

from kappaflow.experiments.sphere.cases import SphereSettings, cases
from kappaflow.experiments.sphere.findings import findings
from kappaflow.experiments.sphere.measure import measure
from kappaflow.experiments.study import Study

SPHERE = Study(
    name="sphere",
    title="Depth against parameters: mixtures on a sphere",
    about="a mixture of Gaussians on a sphere: its shallow generator, and flows of depth 1 to 32",
    claim=(
        "A generator of constant depth makes a mixture of k Gaussians around random points of a "
        "sphere; flows made of few Lipschitz layers with few parameters each miss some such "
        "mixture: with p parameters a layer they need a depth of the order of k / p."
    ),
    settings=SphereSettings,
    presets=Path(__file__).with_name("presets.toml"),
    cases=cases,
    measure=measure,
    findings=findings,
)

__all__ = ["SPHERE"]
