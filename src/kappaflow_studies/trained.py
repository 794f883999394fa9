"""Flows trained and judged on the parts of a table or of a set of images."""

import math

import polars as pl
from torch import Tensor

from kappaflow.data import Images, Table
from kappaflow.flows import Flow
from kappaflow.training import Rows, checked_settings, log_prob_of, rows_of, units_log_det
from kappaflow.training.fit_images import fit_images
from kappaflow.training.fit_tables import fit_tables
from kappaflow.training.image_rows import ImageRows
from kappaflow_studies.engine.study import Case, Row
from kappaflow_studies.sets import Parts

FAILED = "failed"  # the column of why a training stopped


def trained(flow: Flow, parts: Parts, case: Case) -> Flow:
    """Returns the flow, trained in place by maximum likelihood, in evaluation mode.

    Args:
        flow: Of tables or of images.
        parts: Of the same.
        case: Says "epochs", "batch_size", "learning_rate" and "seed".

    Returns:
        The flow.

    Raises:
        NumericalError: Steps were not finite, many in a row.
    """  # noqa: DOC502 - raised by the calls below
    settings = checked_settings(
        max_epochs=case["epochs"],
        patience=case["epochs"],
        conditioning_every=case["epochs"],
        batch_size=case["batch_size"],
        learning_rate=case["learning_rate"],
        seed=case["seed"],
    )
    train, validation = parts.train, parts.validation
    if isinstance(train, Images) and isinstance(validation, Images):
        fit_images(flow, train, validation, settings, progress=False)
    elif isinstance(train, Table) and isinstance(validation, Table):
        fit_tables(flow, train, validation, settings, progress=False)
    return flow.eval()


def that_ended(frame: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Returns the rows of trainings that ended, and a sentence on the others if there are any.

    Args:
        frame: Raw results; a training that stopped has why in the column "failed".

    Returns:
        Rows, and none or one sentence.

    Example:
        >>> raw = pl.DataFrame({"loss": [1.0, None], "failed": [None, "a loss is not finite."]})
        >>> that_ended(raw)[1]
        ['1 of 2 trainings stopped because steps were not finite; they are left out.']
    """
    if FAILED not in frame.columns:
        return frame, []
    ended = frame.filter(pl.col(FAILED).is_null())
    count = len(frame) - len(ended)
    trainings = "training" if len(frame) == 1 else "trainings"
    return ended, [
        f"{count} of {len(frame)} {trainings} stopped because steps were not finite; they are "
        "left out."
    ]


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
