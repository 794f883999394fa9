"""Experiments that can be repeated: what is trained, what is measured, and a page of it."""

from kappaflow_studies.catalog import EXPERIMENTS, experiment_named
from kappaflow_studies.engine.all import reproduce_all
from kappaflow_studies.engine.experiment import Experiment, Reproduced
from kappaflow_studies.engine.run_study import run_study
from kappaflow_studies.engine.study import Case, Row, Study, StudySettings
from kappaflow_studies.faces.study import FacesPreset, OneSize, reproduce_faces

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
