"""What a flow takes from the training rows before the first step."""

import torch

from kappaflow.bijections import ActNorm
from kappaflow.flows import Flow
from kappaflow.training.rows import AnyRows

START_FROM = 256  # examples, for what starts from a batch


def fit_units(flow: Flow, train: AnyRows) -> None:
    """Fits what a flow takes from its data to rows; once only.

    An `ActNorm` starts from a batch of them here, so that averages of the weights begin where the
    training does.
    """
    rows = train.examples()
    flow.standardization.fit_new(rows.x, rows.context, rows.weights)
    flow.unchecked = False
    if any(isinstance(part, ActNorm) and not part.initialized for part in flow.modules()):
        few = rows.at(slice(0, START_FROM))
        flow.train()
        with torch.no_grad():
            flow.log_prob(few.x, few.context)
