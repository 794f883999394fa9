"""Splits tables larger than memory into a file of training rows, shared by all local ranks."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import torch

from kappaflow.data import Table
from kappaflow.data.duplicates import Duplicates
from kappaflow.data.on_disk import (
    SplitRequest,
    SplitTable,
    clear_rows,
    hashes_in,
    read_split,
    split_on_disk,
)
from kappaflow.data.prepare import DONE, prepare_table
from kappaflow.errors import DataError
from kappaflow.files import CONFIG
from kappaflow.ranks import is_first, is_first_here, machine
from kappaflow.storage import make_directory
from kappaflow.training.collectives import from_rank_zero, per_machine
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
    finished, nothing is written. Under torchrun one rank per machine writes the file, unless that
    machine can read the file of the first machine.
    """
    connect_ranks(device or "cpu")

    def read_or_split(folder: Path | None) -> SplitTable:
        result = None if folder is None else read_split(folder, request)
        return result or split_shown(request, folder, progress if is_first() else False)

    def by_the_first() -> str | None:
        if (out / RESULT).exists():
            return None
        refuse_other_files(out)
        return read_or_split(out / ROWS).train.digest

    def by_this_machine() -> tuple[Path, str | None]:
        for folder in (out / ROWS, own):
            result = read_split(folder, request)
            if result is not None and result.train.digest == digest:
                return folder, digest
        return own, read_or_split(own).train.digest

    digest, own = from_rank_zero(by_the_first), out / _own_name()
    if digest is None:
        return read_or_split(None)
    folder, own_digest = per_machine(by_this_machine)
    if own_digest != digest:
        raise DataError(f"{request.table.source} should be the same table on all machines.")
    return read_or_split(folder)


def split_shown(request: SplitRequest, folder: Path | None, progress: bool | None) -> SplitTable:
    """Returns the result of `kappaflow.data.on_disk.split_on_disk`, with progress bars."""
    if folder is not None:
        clear_rows(folder)
        make_directory(folder)
    chunks = request.table.chunks(folder)
    with rows_shown("reading", chunks.rows, visible=progress) as show:
        chunks.settle(show)
    with rows_shown("reading", chunks.rows, visible=progress) as show:
        hashes = hashes_in(chunks, show)
    with rows_shown("reading", chunks.rows, visible=progress) as show:
        return split_on_disk(chunks, request, folder, show, hashes)


def examine_sample(split_table: SplitTable, duplicates: Duplicates) -> tuple[Table, Notes, Notes]:
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
        notes.append(
            f"{split_table.repeats:,} of {rows} rows repeat earlier rows: {DONE[duplicates]}"
        )
    if split_table.held_out:
        counts = [f"{len(part):,}" for part in split_table.held_out]
        notes.append(f"rows held out in memory: {' and '.join(counts)} of {rows}")
    return sample, tuple(notes), warned


def _own_name() -> str:
    """Returns the name of this machine's folder of training rows."""
    return f"{ROWS}-{machine()}" if machine() else ROWS


def _remove(out: Path) -> None:
    if is_first_here():
        clear_rows(out / _own_name())
        if machine():  # on other machines the run folder may be empty now
            with suppress(OSError):
                out.rmdir()
