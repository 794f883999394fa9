"""The face that scikit-learn knows: densities and outlier detectors with fit and score_samples."""

from kappaflow.estimator.conditional import ConditionalFlowDensity
from kappaflow.estimator.density import FlowDensity
from kappaflow.estimator.outliers import FlowOutlierDetector

__all__ = ["ConditionalFlowDensity", "FlowDensity", "FlowOutlierDetector"]
