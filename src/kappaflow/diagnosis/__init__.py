"""The doctor: measurements of a flow become findings with a code, a layer, a cause and a cure."""

from kappaflow.diagnosis.examination import doctor
from kappaflow.diagnosis.finding import Diagnosis, Finding

__all__ = ["Diagnosis", "Finding", "doctor"]
