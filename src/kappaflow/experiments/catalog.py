"""The experiments by their names."""

from kappaflow.errors import ArgumentError
from kappaflow.experiments.experiment import Experiment
from kappaflow.experiments.faces import reproduce_faces

EXPERIMENTS = {
    one.name: one
    for one in (
        Experiment(
            "faces",
            "a Glow of faces of 32 x 32 and 64 x 64 pixels, with and without Gaussian channels",
            reproduce_faces,
        ),
    )
}


def experiment_named(name: str) -> Experiment:
    """Returns an experiment, or says which ones there are."""
    if name not in EXPERIMENTS:
        raise ArgumentError(
            f"'experiment' should be one of {', '.join(EXPERIMENTS)}, got {name!r}."
        )
    return EXPERIMENTS[name]
