"""Figures of a report as plain dictionaries for plotly.js, with the words that go with them."""

from kappaflow.report.figures.base import Figure
from kappaflow.report.figures.densities import latent_coordinates, latent_histogram, separation
from kappaflow.report.figures.depth import Depth, condition, envelope, round_trips, worst_layers
from kappaflow.report.figures.samples import MOST_MARGINALS, MOST_PAIRED_COLUMNS, marginals, pairs
from kappaflow.report.figures.scales import Scale, scales_of
from kappaflow.report.figures.training import image_learning_curves, learning_curves

__all__ = [
    "MOST_MARGINALS",
    "MOST_PAIRED_COLUMNS",
    "Depth",
    "Figure",
    "Scale",
    "condition",
    "envelope",
    "image_learning_curves",
    "latent_coordinates",
    "latent_histogram",
    "learning_curves",
    "marginals",
    "pairs",
    "round_trips",
    "scales_of",
    "separation",
    "worst_layers",
]
