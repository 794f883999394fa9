"""What a flow begins with, fitted to the training rows: units, whitening, the first batch."""

import torch

from kappaflow.bijection import Chain
from kappaflow.bijections import ActNorm, Domain, Standardize
from kappaflow.conditioning.points import joined_points
from kappaflow.factor import Whiten
from kappaflow.flows import Flow
from kappaflow.nets import StandardizeInputs
from kappaflow.training.rows import AnyRows

START_FROM = 256  # examples, for what starts from a batch


def fit_units(flow: Flow, train: AnyRows) -> None:
    """Fits what a flow begins with, and what its context begins with, to rows; once only.

    An `ActNorm` behind starts from a batch of them here, so that averages of the weights begin
    where the training does.
    """
    rows = train.examples()
    if flow.augment is not None:
        flow.augment.fit(rows.x)
    x = joined_points(flow, rows.x)
    for part in flow.bijection if isinstance(flow.bijection, Chain) else ():
        if not isinstance(part, Domain | Standardize | Whiten):
            break
        if not part.fitted:
            part.fit(x)
        with torch.no_grad():
            x = part(x)[0]
    first = flow.bijection.embedding if isinstance(flow.bijection, Chain) else None
    if isinstance(first, torch.nn.Sequential) and len(first):
        first = first[0]
    if isinstance(first, StandardizeInputs) and rows.context is not None and not first.fitted:
        first.fit(rows.context)
    if any(isinstance(part, ActNorm) and not part.initialized for part in flow.modules()):
        few = rows.at(slice(0, START_FROM))
        flow.train()
        with torch.no_grad():
            flow.log_prob(few.x, few.context)
