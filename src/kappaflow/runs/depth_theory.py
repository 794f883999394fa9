"""What theory says of the data of a depth curve: its correlations, and two groups of rows."""

import numpy as np
import torch

from kappaflow.conditioning.profile import profile
from kappaflow.data import Table
from kappaflow.errors import KappaflowError
from kappaflow.extensions import load_by_name
from kappaflow.factor import factor_linear
from kappaflow.factor.whiten import DEPENDENT
from kappaflow.flows import Flow
from kappaflow.report.depth import LinearPart, Modes
from kappaflow.training import batch_of

LINES, PLACES = 32, 8  # between two groups of rows, where a flow is the steepest


def modes_of(flow: Flow, train: Table, test: Table) -> Modes | None:
    """Returns what two groups of rows demand of a flow, and what its layers have.

    It is None without two groups, and where the flow cannot be measured between them.
    """
    rows, others = batch_of(train, flow).x, batch_of(test, flow).x
    standardized = (flow.standardization(x)[0].double().numpy() for x in (rows, others))
    modes = load_by_name("separated_modes")(*standardized)
    if modes is None or modes.lipschitz <= 1:
        return None
    with torch.no_grad():
        latents = flow.bijection(others)[0]
        first, second = (latents[torch.from_numpy(modes.groups == side)] for side in (0, 1))
        nearest = first[torch.cdist(second[:LINES], first).argmin(1)]
        along = torch.linspace(0, 1, PLACES, dtype=latents.dtype)[:, None, None]
        between = (1 - along) * nearest + along * second[:LINES]
        points = flow.bijection.inverse(between.flatten(0, 1))[0]
    try:
        measured = profile(flow, points[torch.isfinite(points).all(dim=1)])
    except KappaflowError:
        return None
    layers = (1 / measured.layer_sigma_min).amax(dim=1).sort(descending=True).values
    enough = (layers.cumprod(0) >= modes.lipschitz).nonzero()
    return Modes(
        distance=modes.distance,
        shares=modes.shares,
        between=modes.between,
        lipschitz=modes.lipschitz,
        layer_lipschitz=layers[0].item(),
        flow_lipschitz=(1 / measured.sigma_min[-1]).max().item(),
        layers=int(enough[0]) + 1 if len(enough) else None,
    )


def linear_part(train: Table) -> LinearPart | None:
    """Returns the map that takes the correlations out of the columns, as couplings."""
    with np.errstate(invalid="ignore", divide="ignore"):  # a constant column
        correlation = np.corrcoef(train.values.T)
    if not np.isfinite(correlation).all():
        return None
    variances, directions = np.linalg.eigh(correlation)
    if variances[0] < DEPENDENT * variances[-1]:
        return None
    root = directions / np.sqrt(variances) @ directions.T
    try:
        factors = factor_linear(root)
    except KappaflowError:
        return None
    bound = load_by_name("scaled_lower_bound")
    return LinearPart(
        condition_number=float(np.sqrt(variances[-1] / variances[0])),
        couplings=len(factors.couplings),
        coupling_condition_number=factors.condition_number,
        lower_bound=None if len(root) % 2 else bound(root, max(1, len(factors.couplings))),
    )
