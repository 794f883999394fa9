"""Experiments that can be repeated: what is trained, what is measured, and a page of it."""

from kappaflow.experiments.catalog import EXPERIMENTS, experiment_named
from kappaflow.experiments.experiment import Experiment, Reproduced
from kappaflow.experiments.faces import FacesPreset, OneSize, reproduce_faces

__all__ = [
    "EXPERIMENTS",
    "Experiment",
    "FacesPreset",
    "OneSize",
    "Reproduced",
    "experiment_named",
    "reproduce_faces",
]
