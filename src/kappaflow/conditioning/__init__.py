"""How well conditioned a flow is: singular values of its Jacobian, and its rounding errors.

profile     singular values, log_det and round-trip errors, layer by layer
quantiles   their quantiles over the points, for JSON, reports and charts
spectrum    extreme singular values and the condition number of one bijection
round_trip  reconstruction errors in both directions, and what rounding predicts
points      checked inputs, the layers of a flow, float64 copies
lanczos     largest singular values without forming a matrix
stretched   condition numbers that can be differentiated
"""

from kappaflow.conditioning.points import Layer, layers_of
from kappaflow.conditioning.profile import Profile, profile
from kappaflow.conditioning.quantiles import ProfileQuantiles
from kappaflow.conditioning.round_trip import (
    TRUSTED,
    RoundTrip,
    predicted_round_trip,
    round_trip,
)
from kappaflow.conditioning.spectrum import Spectrum, spectrum

__all__ = [
    "TRUSTED",
    "Layer",
    "Profile",
    "ProfileQuantiles",
    "RoundTrip",
    "Spectrum",
    "layers_of",
    "predicted_round_trip",
    "profile",
    "round_trip",
    "spectrum",
]
