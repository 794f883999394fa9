"""Experiments that can be repeated: what is trained, what is measured, and a page of it."""

from kappaflow.experiments.all import reproduce_all
from kappaflow.experiments.catalog import EXPERIMENTS, experiment_named
from kappaflow.experiments.experiment import Experiment, Reproduced
from kappaflow.experiments.faces import FacesPreset, OneSize, reproduce_faces
from kappaflow.experiments.run_study import run_study
from kappaflow.experiments.study import Case, Row, Study, StudySettings

__all__ = [
    "EXPERIMENTS",
    "Case",
    "Experiment",
    "FacesPreset",
    "OneSize",
    "Reproduced",
    "Row",
    "Study",
    "StudySettings",
    "experiment_named",
    "reproduce_all",
    "reproduce_faces",
    "run_study",
]
