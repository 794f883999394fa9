"""Reproducible studies of the source's claims: trainings, measurements and a page for each."""

from kappaflow_studies.catalog import EXPERIMENTS, experiment_named, reproduce_all
from kappaflow_studies.engine.report import Experiment, Reproduced
from kappaflow_studies.engine.run import run_study
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
