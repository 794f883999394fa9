"""Fits the first layers of a flow to the rows or images that it is trained on."""

import torch

from kappaflow.bijections import ActNorm
from kappaflow.data.batches import Batches
from kappaflow.flows import Flow
from kappaflow.flows.mixture_fit import sample_of

ACTNORM_ROWS = 256  # rows used to initialize an ActNorm


def fit_standardization(flow: Flow, train: Batches) -> None:
    """Fits the standardization and ActNorm layers of a flow, unless they are already fitted."""
    # An `ActNorm` is initialized here, so that weight averages leave out its first parameters.
    rows = train.examples()
    flow.standardization.fit_new(rows.x, rows.context, rows.weights)
    flow.unchecked = False
    if any(isinstance(part, ActNorm) and not part.initialized for part in flow.modules()):
        few = rows.at(slice(0, ACTNORM_ROWS))
        if few.weights is not None:
            few = few.at(sample_of(len(few), few.weights, ACTNORM_ROWS))
        flow.train()
        with torch.no_grad():
            flow.log_prob(few.x, few.context)
