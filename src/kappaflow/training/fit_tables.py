"""`fit_tables`: rows that are prepared and split, and a flow in, a trained flow out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from kappaflow.data import MappedTable, Table
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow.ranks import ranks
from kappaflow.training.callbacks import Callback
from kappaflow.training.distributed import make_engine
from kappaflow.training.mapped_rows import MappedRows
from kappaflow.training.rows import refuse_collapsed, refuse_outside, rows_of
from kappaflow.training.settings import Settings
from kappaflow.training.trained import FitResult, State, trained


def fit_tables(
    flow: Flow,
    train: Table | MappedTable,
    validation: Table,
    settings: Settings,
    *,
    out: str | Path | None = None,
    device: str | torch.device | None = None,
    progress: bool | None = None,
    about: dict[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    start: State | None = None,
) -> FitResult:
    """Does what `fit` does with tables that are prepared and split already.

    Args:
        flow: Trained in place.
        train: Rows to train on, in memory or in a file.
        validation: Rows to stop by.
        settings: How.
        out: A run folder to write and to resume from.
        device: Where to train; where the flow is if left out.
        progress: Show a progress bar; on a terminal only if left out.
        about: What else config.json should say of the run: where the tables came from.
        callbacks: Are told of each epoch.
        start: Where a training without a checkpoint begins, as a model search leaves it.

    Returns:
        The result, without notes.
    """
    if settings.condition_budget is not None and ranks() > 1:
        raise ArgumentError(
            "'condition_budget' should be left out under torchrun: its price follows the rows of "
            "one process; start the same training without torchrun."
        )
    engine = make_engine(flow, device, settings.precision)
    mapped = isinstance(train, MappedTable)
    refuse_collapsed(train.sample if mapped else train, flow)
    if flow.domain is not None:
        for part in (*(train.blocks() if mapped else [train]), validation):
            refuse_outside(part, flow)
    asked = {
        **(about or {}),
        "columns": list(train.columns),
        "context_columns": list(train.context_columns),
        "fingerprints": {"train": train.fingerprint(), "validation": validation.fingerprint()},
    }
    return trained(
        flow,
        MappedRows(train, flow) if mapped else rows_of(train, flow),
        rows_of(validation, flow),
        settings,
        engine,
        out=out,
        progress=progress,
        asked=asked,
        callbacks=callbacks,
        start=start,
    )
