"""What `fit` does for a table on disk."""

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from kappaflow.data import Table, TableOnDisk
from kappaflow.data.domains import Bounds, bounds_of, domains_of, within
from kappaflow.data.repeats import Duplicates
from kappaflow.data.rows_folder import Asked, Divided
from kappaflow.errors import ArgumentError, DataWarning
from kappaflow.flows import Flow, set_bounds
from kappaflow.locking import locked
from kappaflow.ranks import is_first
from kappaflow.training.budget import correlation_note
from kappaflow.training.callbacks import Callback
from kappaflow.training.distributed import check_trainable
from kappaflow.training.fit_tables import fit_tables
from kappaflow.training.on_disk import divided_for, looked_at, rows_while
from kappaflow.training.rows import as_table, held_out_like
from kappaflow.training.settings import Settings
from kappaflow.training.trained import FitResult


def fit_on_disk(
    flow: Flow,
    data: TableOnDisk,
    validation: Any,  # noqa: ANN401
    settings: Settings,
    *,
    duplicates: Duplicates,
    bounds: Bounds | None,
    out: str | Path | None,
    device: str | torch.device | None,
    progress: bool | None,
    callbacks: Sequence[Callback],
) -> FitResult:
    """Returns what a training on a table on disk came to; the arguments are those of `fit`."""
    if out is None:
        raise ArgumentError(
            "'out' should be given for a TableOnDisk: the rows to train on are written there."
        )
    check_trainable(flow.dtype)
    folder = Path(out)
    with locked(folder), rows_while(folder):
        asked = Asked(
            data,
            fractions=(0.9, 0.1) if validation is None else (),
            seed=settings.seed,
            dtype=str(flow.dtype).removeprefix("torch."),
            duplicates=duplicates,
        )
        found = divided_for(
            asked, out=folder, device=device or flow.device.type, progress=progress
        )
        sample, notes, warned = looked_at(found, duplicates)
        if bounds:
            domains = domains_of(bounds, sample)
            within(sample, domains, offered=())
            set_bounds(flow, bounds_of(domains, sample.columns) or (), seed=settings.seed)
        held_out = _held_out(found, validation)
        if settings.condition_budget is not None:
            said = correlation_note(sample, settings.condition_budget)
            warned += () if said is None else (said,)
        for note in warned if is_first() else ():
            warnings.warn(note, DataWarning, stacklevel=3)
        result = fit_tables(
            flow,
            found.train,
            held_out,
            settings,
            out=folder,
            device=device,
            progress=progress,
            callbacks=callbacks,
        )
    return dataclasses.replace(result, notes=notes + warned)


def _held_out(found: Divided, validation: Any) -> Table:  # noqa: ANN401
    """Returns the rows to stop by, those that were given or those that were held out."""
    if validation is None:
        return found.held_out[0]
    return held_out_like(as_table(validation, every=True), found.train.sample)
