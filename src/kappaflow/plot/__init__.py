"""Plots of results: the charts of the reports, drawn by matplotlib or plotly.

Each function takes a result, or a flow and data. It returns a `matplotlib.axes.Axes`, or an array
of them if there are several panels. This needs ``pip install "kappaflow[figures]"``. With
``interactive=True`` it returns a `plotly.graph_objects.Figure` instead, which needs no further
package.

A flow is a `Flow`, or what `fit`, `fit_auto` or `fit_energy` returned. Data are a tensor, array,
data frame, `Table`, path or shipped name; for a conditional flow the pair (x, context). For a flow
of images they are `Images`, their path or name, or a tensor.
"""

from kappaflow.plot.flows import (
    depth_curve,
    depth_gains,
    depth_profile,
    factorization,
    latent,
    pairs,
    spectrum,
    training,
)
from kappaflow.plot.goodness import coverage, marginals, pit

__all__ = [
    "coverage",
    "depth_curve",
    "depth_gains",
    "depth_profile",
    "factorization",
    "latent",
    "marginals",
    "pairs",
    "pit",
    "spectrum",
    "training",
]
