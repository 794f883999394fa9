"""Estimators for scikit-learn: densities and an outlier detector."""

from kappaflow.estimator.conditional import ConditionalFlowDensity
from kappaflow.estimator.density import FlowDensity
from kappaflow.estimator.outliers import FlowOutlierDetector

__all__ = ["ConditionalFlowDensity", "FlowDensity", "FlowOutlierDetector"]
