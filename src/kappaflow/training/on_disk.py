"""Tables larger than memory: rows that all ranks of a machine read from one file."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import torch

from kappaflow.data import Table, prepare
from kappaflow.data.prepare import DONE
from kappaflow.data.repeats import Duplicates
from kappaflow.data.rows_folder import (
    Asked,
    Divided,
    clear_rows,
    copies_in,
    divide,
    read_divided,
)
from kappaflow.errors import DataError
from kappaflow.files import CONFIG
from kappaflow.ranks import is_first, is_first_here, machine
from kappaflow.training.collectives import from_rank_zero, per_machine
from kappaflow.training.distributed import connect_ranks
from kappaflow.training.progress import rows_shown
from kappaflow.training.run_folder import RESULT, ROWS, refuse_other_files

Notes = tuple[str, ...]


@contextmanager
def rows_while(out: Path) -> Iterator[None]:
    """A context with rows in a run folder: they stay if it is interrupted, to be used again.

    They are removed at its end, and after an error before there is a run.
    """
    try:
        yield
    except Exception:
        if not (out / CONFIG).exists():
            _remove(out)
        raise
    _remove(out)


def divided_for(
    asked: Asked,
    *,
    out: Path,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> Divided:
    """Returns the rows of a table by what they are for, those to train on in a file.

    That of a process before is used again where it was made of the same. Under torchrun one rank
    of each machine writes, and none where a machine sees the file of the first.

    Args:
        asked: Which table, and what to make of it.
        out: The run folder; where that is finished nothing is written.
        device: Where to train.
        progress: Show a progress bar; on a terminal only if left out.

    Returns:
        The rows.

    Raises:
        DataError: A value is missing or infinite; or machines have different tables.
        WriteError: There is no room.
    """  # noqa: DOC502 - raised by what is called
    connect_ranks(device or "cpu")

    def made(folder: Path | None) -> Divided:
        found = None if folder is None else read_divided(folder, asked)
        return found or divided(asked, folder, progress if is_first() else False)

    def of_the_first() -> str | None:
        if (out / RESULT).exists():
            return None
        refuse_other_files(out)
        return made(out / ROWS).train.digest

    def of_this_machine() -> tuple[Path, str | None]:
        for folder in (out / ROWS, own):
            found = read_divided(folder, asked)
            if found is not None and found.train.digest == digest:
                return folder, digest
        return own, made(own).train.digest

    digest, own = from_rank_zero(of_the_first), out / _own_name()
    if digest is None:
        return made(None)
    folder, here = per_machine(of_this_machine)
    if here != digest:
        raise DataError(f"{asked.table.source} should be the same table on all machines.")
    return made(folder)


def divided(asked: Asked, folder: Path | None, progress: bool | None) -> Divided:
    """Returns what `kappaflow.data.rows_folder.divide` does, with bars."""
    pieces = asked.table.pieces()
    with rows_shown("reading", pieces.rows, 0, visible=progress) as told:
        list(pieces.suspects(told))
    with rows_shown("reading", pieces.rows, 0, visible=progress) as told:
        copies = copies_in(pieces, told)
    with rows_shown("reading", pieces.rows, 0, visible=progress) as told:
        return divide(pieces, asked, folder, told, copies)


def looked_at(found: Divided, duplicates: Duplicates) -> tuple[Table, Notes, Notes]:
    """Returns the sample of the training rows, if a density can be fitted to them, and notes.

    Args:
        found: The rows.
        duplicates: What was done with those that repeat earlier ones.

    Returns:
        The sample; what was done with the table, and what there is to know of the sample, one
        sentence each.

    Raises:
        DataError: There is no density.
    """
    if len(found.train) < 2:
        raise DataError(
            f"'{found.train.sample.source}' has {found.rows:,} rows, of which only "
            f"{len(found.train)} is left to train on: give more rows."
        )
    sample, few = found.train.sample, len(found.train.sample) < len(found.train)
    if few:
        named = f"{len(sample):,} random rows of {sample.source}"
        sample = replace(sample, source=named)
    sample, said = prepare(replace(sample, notes=()), offered=())
    if few:
        said = tuple(f"{sample.source}: {one}" for one in said)
    counts = [f"{len(part):,}" for part in found.held_out]
    notes = (
        *found.train.sample.notes,
        f"read from disk: columns were examined on {len(sample):,} random rows of "
        f"{len(found.train):,}",
    )
    if found.repeats:
        done = DONE[duplicates]
        notes += (f"{found.repeats:,} of {found.rows:,} rows repeat earlier rows: {done}",)
    if counts:
        notes += (f"rows held out in memory: {' and '.join(counts)} of {found.rows:,}",)
    return sample, notes, said


def _own_name() -> str:
    """Returns the name of the folder of this machine, where it has not that of the first."""
    return f"{ROWS}-{machine()}" if machine() else ROWS


def _remove(out: Path) -> None:
    if is_first_here():
        clear_rows(out / _own_name())
        if machine():  # where nothing else of the run may be
            with suppress(OSError):
                out.rmdir()
