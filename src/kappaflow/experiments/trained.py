"""Flows trained and judged on the parts of a table or of a set of images."""

import math

from torch import Tensor

from kappaflow.data import Images, Table
from kappaflow.experiments.sets import Parts
from kappaflow.experiments.study import Row
from kappaflow.flows import Flow
from kappaflow.training import Rows, checked_settings, log_prob_of, rows_of, units_log_det
from kappaflow.training.fit import fit_images, fit_tables
from kappaflow.training.image_rows import ImageRows


def trained(
    flow: Flow, parts: Parts, *, epochs: int, batch_size: int, learning_rate: float, seed: int
) -> Flow:
    """Returns the flow, trained in place by maximum likelihood, in evaluation mode."""
    settings = checked_settings(
        max_epochs=epochs,
        patience=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        conditioning_every=epochs,
        seed=seed,
    )
    train, validation = parts.train, parts.validation
    if isinstance(train, Images) and isinstance(validation, Images):
        fit_images(flow, train, validation, settings, progress=False)
    elif isinstance(train, Table) and isinstance(validation, Table):
        fit_tables(flow, train, validation, settings, progress=False)
    return flow.eval()


def held_out(flow: Flow, parts: Parts) -> Row:
    """Returns how a flow does on the part to judge by, and the error of that.

    Tables of known density have their KL divergence from the flow as "loss", others the negative
    log-likelihood of standardised columns, both in nats; images have bits per dimension.
    """
    log_prob = log_prob_of(flow, rows_to_judge(flow, parts)).double()
    if isinstance(parts.test, Images):
        loss = -log_prob / (math.log(2) * math.prod(parts.test.shape))
    elif parts.log_prob is not None:
        loss = parts.log_prob - log_prob
    else:
        loss = -log_prob + units_log_det(flow)
    return {"loss": loss.mean().item(), "loss_error": loss.std().item() / math.sqrt(len(loss))}


def points(flow: Flow, parts: Parts, count: int) -> Tensor:
    """Returns the first rows or images to judge by, to measure at."""
    return rows_to_judge(flow, parts).at(slice(0, count)).x


def rows_to_judge(flow: Flow, parts: Parts) -> Rows | ImageRows:
    """Returns what the flow is judged by, in its type."""
    if isinstance(parts.test, Images):
        return ImageRows(parts.test, flow)
    return rows_of(parts.test, flow)
