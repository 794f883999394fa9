from . import theory
from .catalog import STUDIES, reproduce_all, study_named
from .engine.report import Reproduced
from .engine.run import run_study
from .engine.study import Case, Row, Study, StudySettings

__all__ = [
    "STUDIES",
    "Case",
    "Reproduced",
    "Row",
    "Study",
    "StudySettings",
    "reproduce_all",
    "run_study",
    "study_named",
    "theory",
]
