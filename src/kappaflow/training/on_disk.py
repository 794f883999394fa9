"""Splits tables larger than memory into a file of training rows, shared by all local ranks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from kappaflow.data import Table
from kappaflow.data.on_disk import SplitRequest, SplitTable, clear_rows, read_split, split_on_disk
from kappaflow.data.prepare import DONE, prepare_table
from kappaflow.errors import DataError
from kappaflow.files import CONFIG
from kappaflow.ranks import is_first
from kappaflow.storage import make_directory
from kappaflow.training.collectives import from_rank_zero
from kappaflow.training.distributed import connect_ranks
from kappaflow.training.progress import rows_shown
from kappaflow.training.run_folder import RESULT, ROWS, refuse_other_files

Notes = tuple[str, ...]


@contextmanager
def rows_kept_until(out: Path) -> Iterator[None]:
    """Keeps the file of training rows in a run folder until the context ends.

    The file is removed when the context ends normally, or with an error before the run folder has
    a configuration. It stays if the training is interrupted, so that resuming can reuse it.
    """
    try:
        yield
    except Exception:
        if not (out / CONFIG).exists():
            _remove(out)
        raise
    _remove(out)


def split_for(
    request: SplitRequest,
    *,
    out: Path,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> SplitTable:
    """Returns the split of a table on disk, with the training rows in a file in the folder `out`.

    The file of an earlier process is reused if it was made from the same data. If the run is
    finished, nothing is written. Of several ranks the first writes the file, which all read.
    """
    connect_ranks(device or "cpu", chosen=False)
    folder = out / ROWS

    def by_the_first() -> bool:
        if (out / RESULT).exists():
            return False
        refuse_other_files(out)
        if read_split(folder, request) is None:
            split_shown(request, folder, progress)
        return True

    if not from_rank_zero(by_the_first):
        return split_shown(request, None, progress if is_first() else False)
    result = read_split(folder, request)
    if result is None:
        raise DataError(
            f"{folder} should hold the rows that the first rank has written: all machines should "
            "share the disk of the run folder, and have the same table."
        )
    return result


def split_shown(request: SplitRequest, folder: Path | None, progress: bool | None) -> SplitTable:
    """Returns the result of `kappaflow.data.on_disk.split_on_disk`, with a progress bar."""
    if folder is not None:
        clear_rows(folder)
        make_directory(folder)
    chunks = request.table.chunks(folder)
    with rows_shown("reading", 2 * chunks.rows, visible=progress) as show:
        return split_on_disk(chunks, request, folder, show)


def examine_sample(split_table: SplitTable) -> tuple[Table, Notes, Notes]:
    """Returns the examined sample of the training rows, notes, and warnings."""
    train, rows = split_table.train, f"{split_table.rows:,}"
    if len(train) < 2:
        raise DataError(
            f"'{train.source}' has {rows} rows, of which only {len(train)} is left to train on: "
            "give more rows."
        )
    sample, few = replace(train.sample, notes=()), len(train.sample) < len(train)
    if few:
        sample = replace(sample, source=f"{len(sample):,} random rows of {train.source}")
    prepared = prepare_table(sample, offered=())
    sample, prefix = prepared.table, f"{sample.source}: " * few
    warned = tuple(f"{prefix}{text}" for text in prepared.warnings)
    notes = [
        *train.sample.notes,
        f"read from disk: columns were examined on {len(sample):,} random rows of {len(train):,}",
    ]
    if split_table.repeats:
        notes.append(f"{split_table.repeats:,} of {rows} rows repeat earlier rows: {DONE['keep']}")
    if split_table.held_out:
        counts = [f"{len(part):,}" for part in split_table.held_out]
        notes.append(f"rows held out in memory: {' and '.join(counts)} of {rows}")
    return sample, tuple(notes), warned


def _remove(out: Path) -> None:
    if is_first():
        clear_rows(out / ROWS)
