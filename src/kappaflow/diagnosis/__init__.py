"""The doctor: measurements of a flow become findings with a code, a layer, a cause and a cure."""

from kappaflow.diagnosis.codes import CODES
from kappaflow.diagnosis.examination import chosen, doctor, with_findings
from kappaflow.diagnosis.finding import Diagnosis, Finding
from kappaflow.diagnosis.likelihood import image_likelihood_findings, likelihood_findings

__all__ = [
    "CODES",
    "Diagnosis",
    "Finding",
    "chosen",
    "doctor",
    "image_likelihood_findings",
    "likelihood_findings",
    "with_findings",
]
