"""The doctor: measurements of a flow become findings with a code, a layer, a cause and a cure."""

from kappaflow.diagnosis.codes import CODES, check_codes
from kappaflow.diagnosis.examination import chosen, doctor, examined, with_findings
from kappaflow.diagnosis.finding import Diagnosis, Finding
from kappaflow.diagnosis.rules.data import data_findings
from kappaflow.diagnosis.rules.likelihood import image_likelihood_findings, likelihood_findings

__all__ = [
    "CODES",
    "Diagnosis",
    "Finding",
    "check_codes",
    "chosen",
    "data_findings",
    "doctor",
    "examined",
    "image_likelihood_findings",
    "likelihood_findings",
    "with_findings",
]
