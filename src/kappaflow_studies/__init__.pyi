from . import theory
from .catalog import EXPERIMENTS, experiment_named, reproduce_all
from .engine.report import Experiment, Reproduced
from .engine.run import run_study
from .engine.study import Case, Row, Study, StudySettings
from .faces.study import FacesPreset, OneSize, reproduce_faces

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
    "theory",
]
