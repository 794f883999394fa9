"""The doctor: measurements of a flow become findings with a code, a layer, a cause and a cure."""

from kappaflow.diagnosis.examination import doctor, with_findings
from kappaflow.diagnosis.finding import Diagnosis, Finding
from kappaflow.diagnosis.likelihood import image_likelihood_findings, likelihood_findings

__all__ = [
    "Diagnosis",
    "Finding",
    "doctor",
    "image_likelihood_findings",
    "likelihood_findings",
    "with_findings",
]
