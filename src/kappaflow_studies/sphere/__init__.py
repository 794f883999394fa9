"""`sphere`: the mixture of the depth bound, its generator, and flows of growing depth."""

from pathlib import Path

from kappaflow_studies.engine.study import Study
from kappaflow_studies.sphere.bounds import (
    DepthBound,
    LayerClass,
    divergence_at_least,
    min_depth,
    min_parameters,
    tearing_bound,
    transport_divergence,
    volume_bound,
)
from kappaflow_studies.sphere.distances import RandomFamily, random_family, wasserstein_bounds
from kappaflow_studies.sphere.findings import findings
from kappaflow_studies.sphere.generator import MixtureGenerator
from kappaflow_studies.sphere.measure import SphereSettings, cases, measure
from kappaflow_studies.sphere.mixture import Estimate, SphereMixture
from kappaflow_studies.sphere.packing import (
    Packing,
    cap_share,
    code_size,
    gaussian_norm,
    mixture_packing,
    nearest_distance,
)

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

__all__ = [
    "SPHERE", "DepthBound", "Estimate", "LayerClass", "MixtureGenerator", "Packing",
    "RandomFamily", "SphereMixture", "cap_share", "code_size", "divergence_at_least",
    "gaussian_norm", "min_depth", "min_parameters", "mixture_packing", "nearest_distance",
    "random_family", "tearing_bound", "transport_divergence", "volume_bound", "wasserstein_bounds",
]  # fmt: skip
