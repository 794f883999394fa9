"""Conditioning: singular values of a flow's Jacobian over depth, and what rounding does to it."""

from kappaflow.conditioning.layers import Layer, layers_of
from kappaflow.conditioning.profile import Profile, profile
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
    "RoundTrip",
    "Spectrum",
    "layers_of",
    "predicted_round_trip",
    "profile",
    "round_trip",
    "spectrum",
]
