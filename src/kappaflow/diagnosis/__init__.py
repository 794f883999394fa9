"""The doctor: measurements of a flow become findings with a code, a layer, a cause and a cure."""

from kappaflow.diagnosis.codes import CODES, check_codes
from kappaflow.diagnosis.examination import chosen, doctor, examined, with_findings
from kappaflow.diagnosis.finding import Diagnosis, Finding
from kappaflow.diagnosis.measures.references import Comparison, compare, references
from kappaflow.diagnosis.rules.data import data_findings
from kappaflow.diagnosis.rules.likelihood import (
    comparison_findings,
    image_likelihood_findings,
    training_findings,
    warning_findings,
)

__all__ = [
    "CODES",
    "Comparison",
    "Diagnosis",
    "Finding",
    "check_codes",
    "chosen",
    "compare",
    "comparison_findings",
    "data_findings",
    "doctor",
    "examined",
    "image_likelihood_findings",
    "references",
    "training_findings",
    "warning_findings",
    "with_findings",
]
