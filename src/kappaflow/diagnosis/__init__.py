"""The doctor: checks of a flow, whose findings name a layer, a cause and a fix."""

from kappaflow.diagnosis.checks import CODES, check_codes
from kappaflow.diagnosis.checks.data import data_findings, warning_findings
from kappaflow.diagnosis.checks.likelihood import comparison_findings, image_likelihood_findings
from kappaflow.diagnosis.checks.training import training_findings
from kappaflow.diagnosis.depth_gains import DepthGains, depth_gains
from kappaflow.diagnosis.doctor import diagnose_flow, doctor
from kappaflow.diagnosis.measurements import ShowStep, quietly
from kappaflow.diagnosis.references import Comparison, compare, comparisons_of, references
from kappaflow.diagnosis.result import Diagnosis
from kappaflow.diagnosis.verdict import filter_findings, with_findings
from kappaflow.finding import SEVERITIES, Finding

__all__ = [
    "CODES",
    "SEVERITIES",
    "Comparison",
    "DepthGains",
    "Diagnosis",
    "Finding",
    "ShowStep",
    "check_codes",
    "compare",
    "comparison_findings",
    "comparisons_of",
    "data_findings",
    "depth_gains",
    "diagnose_flow",
    "doctor",
    "filter_findings",
    "image_likelihood_findings",
    "quietly",
    "references",
    "training_findings",
    "warning_findings",
    "with_findings",
]
