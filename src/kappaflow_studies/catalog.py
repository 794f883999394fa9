"""The experiments by their names."""

from functools import partial

from kappaflow.errors import ArgumentError
from kappaflow_studies.depth_conditioning import DEPTH_CONDITIONING
from kappaflow_studies.depth_factor import DEPTH_FACTOR
from kappaflow_studies.engine.experiment import Experiment
from kappaflow_studies.engine.run_study import run_study
from kappaflow_studies.engine.study import Study
from kappaflow_studies.faces.study import reproduce_faces
from kappaflow_studies.factor_tradeoff import FACTOR_TRADEOFF
from kappaflow_studies.linear_depth import LINEAR_DEPTH
from kappaflow_studies.padding import PADDING
from kappaflow_studies.partition import PARTITION
from kappaflow_studies.sphere import SPHERE
from kappaflow_studies.universal import UNIVERSAL

# In the order of the source.
STUDIES: tuple[Study, ...] = (
    LINEAR_DEPTH,
    FACTOR_TRADEOFF,
    DEPTH_FACTOR,
    PARTITION,
    UNIVERSAL,
    DEPTH_CONDITIONING,
    SPHERE,
    PADDING,
)

FACES = Experiment(
    name="faces",
    title="Faces, with and without padding",
    about="a Glow of faces of 32 x 32 and 64 x 64 pixels, with and without Gaussian channels",
    claim=(
        "Flows of images are better conditioned when channels of Gaussian noise are trained "
        "beside those of the image, and their samples are no worse."
    ),
    run=reproduce_faces,
)


def _experiment(study: Study) -> Experiment:
    run = partial(run_study, study)
    return Experiment(study.name, study.title, study.about, study.claim, run)


EXPERIMENTS = {one.name: one for one in (*map(_experiment, STUDIES), FACES)}


def experiment_named(name: str) -> Experiment:
    """Returns an experiment, or says which ones there are."""
    if name not in EXPERIMENTS:
        raise ArgumentError(
            f"'experiment' should be one of {', '.join(EXPERIMENTS)} or all, got {name!r}."
        )
    return EXPERIMENTS[name]
