"""Splits a table on disk: training rows go to a file that is mapped, the others to memory."""

import hashlib
import io
import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kappaflow.data.chunks import Chunks, OnRows
from kappaflow.data.duplicates import Duplicates, PastedBlock
from kappaflow.data.on_disk import MappedTable, TableOnDisk
from kappaflow.data.split import (
    NO_COPIES,
    Copies,
    Division,
    copies_of,
    division,
    row_hashes,
)
from kappaflow.data.table import FloatArray, IntArray, Table, require_finite, whole_columns
from kappaflow.errors import ArgumentError, DataError, KappaflowError, WriteError
from kappaflow.reading import parse_json, read_small
from kappaflow.storage import as_of, is_unfinished, make_directory, put_in_place, write_bytes

TRAIN, KEPT, COPIES, NOTES = "train.npy", "kept.npy", "copies.npy", "rows.json"
Take = Callable[[NDArray[Any]], object]


@dataclass(frozen=True)
class SplitRequest:
    """How to split a table on disk; fractions and seed are as for `division`.

    `dtype` is that of the training rows, as numpy names it. `duplicates` is "keep", which keeps
    copies in the same part, or "drop".
    """

    table: TableOnDisk
    fractions: tuple[float, ...]
    seed: int
    dtype: str
    duplicates: Duplicates = "keep"

    def __post_init__(self) -> None:
        if self.duplicates not in {"keep", "drop"}:
            raise ArgumentError(
                f"'duplicates' should be 'keep' or 'drop' for a table on disk, got "
                f"{self.duplicates!r}: 'keep' counts a row as often as it occurs."
            )

    def made_of(self) -> dict[str, Any]:
        """Returns all that determines the rows, as plain values."""
        table = self.table
        return {
            "data": as_of(table.path),
            "columns": None if table.columns is None else list(table.columns),
            "exclude": list(table.exclude),
            "context": list(table.context),
            "decimal": table.decimal,
            "missing": list(table.missing),
            "fractions": list(self.fractions),
            "seed": self.seed,
            "dtype": self.dtype,
            "duplicates": self.duplicates,
            "numpy": np.__version__,
        }


@dataclass(frozen=True, eq=False)
class SplitTable:
    """The parts of a split table, which share no row; the held-out ones are in memory.

    `rows` is the number of rows of the table, `repeats` the number that repeat earlier ones, and
    `pasted` a block of rows that repeats an earlier one in the same order, or None.
    """

    train: MappedTable
    held_out: tuple[Table, ...]
    rows: int
    repeats: int
    pasted: PastedBlock | None


def clear_rows(folder: Path) -> None:
    """Removes what `split_on_disk` writes to a folder, and the folder if nothing else is in it."""
    with suppress(OSError):
        for path in folder.iterdir():
            if _is_ours(path):
                path.unlink()
        folder.rmdir()


def holds_only_rows(folder: Path) -> bool:
    """Returns whether a folder holds nothing but what `split_on_disk` writes."""
    return folder.is_dir() and all(map(_is_ours, folder.iterdir()))


def _is_ours(path: Path) -> bool:
    return path.name in (TRAIN, KEPT, COPIES, NOTES) or is_unfinished(path)


def read_split(folder: Path, requested: SplitRequest) -> SplitTable | None:
    """Returns the split in a folder; None if it is of another request, incomplete or damaged."""
    try:
        notes = dict(parse_json(read_small(folder / NOTES)))
        kept = np.load(folder / KEPT, allow_pickle=False)
        if notes.pop("made_of") != requested.made_of():
            return None
        copies = Copies(*np.load(folder / COPIES, allow_pickle=False))
        result = _put_together(requested, folder, kept, copies, **notes)
        return result if result.train.mapped.dtype == requested.dtype else None
    except (OSError, EOFError, ValueError, TypeError, KeyError):
        return None


def copies_in(chunks: Chunks, on_rows: OnRows) -> Copies:
    """Returns the rows of a table that repeat earlier ones, by hashes of 64 bits.

    They take 16 bytes of memory per row. `on_rows` is called with the number of rows done since
    the last call.
    """
    hashes = np.empty(chunks.rows, dtype=np.uint64)
    for chunk in range(len(chunks)):
        numbers = chunks.read(chunk).all_values
        hashes[chunk * chunks.size :][: len(numbers)] = row_hashes(numbers)
        on_rows(len(numbers))
    return copies_of(hashes)


def split_on_disk(
    chunks: Chunks,
    requested: SplitRequest,
    folder: Path | None,
    on_rows: OnRows,
    copies: Copies = NO_COPIES,
) -> SplitTable:
    """Returns the parts of a table, after writing the training rows to a folder, if any.

    Raises:
        DataError: A value is missing or infinite, or the table changed while it was read.
        WriteError: There is no room.
    """
    made_of, source = requested.made_of(), str(requested.table.source)
    columns, context = chunks.columns, chunks.context
    width = len(columns) + len(context)
    plan = _plan(requested, chunks.rows, width, copies)
    shape, dtype = (plan.train, width), np.dtype(requested.dtype)
    sha = hashlib.sha256(repr((columns, context)).encode())
    with _rows_file(folder, shape, dtype) as write:

        def take(rows: NDArray[Any]) -> None:
            sha.update(rows.data)
            write(rows)

        kept = _gone_through(chunks, plan, dtype, source, take, on_rows)
        if requested.made_of() != made_of:
            raise DataError(f"{source} has changed while it was read: fit it when it is whole.")
    notes = {
        "rows": chunks.rows,
        "columns": list(columns),
        "context_columns": list(context),
        "left_out": list(chunks.left_out),
        "digest": sha.hexdigest(),
        "notes": list(chunks.notes),
        "warnings": list(chunks.warnings),
    }
    if folder is not None:
        for name, numbers in ((KEPT, kept), (COPIES, np.stack([copies.places, copies.first]))):
            array = io.BytesIO()
            np.save(array, numbers)
            write_bytes(folder / name, array.getvalue())
        write_bytes(folder / NOTES, json.dumps({"made_of": made_of, **notes}, indent=1).encode())
    return _put_together(requested, folder, kept, copies, **notes)


def _gone_through(
    chunks: Chunks, plan: Division, dtype: np.dtype[Any], source: str, take: Take, on_rows: OnRows
) -> FloatArray:
    """Returns the rows that stay in memory; `take` receives the others, in their order."""
    order = np.argsort(plan.kept)
    places = plan.kept[order]
    held_out = plan.not_trained_on
    kept = np.empty((len(places), len(chunks.columns) + len(chunks.context)))
    for chunk in range(len(chunks)):
        table, start = chunks.read(chunk), chunk * chunks.size
        require_finite(table, source)
        numbers = table.all_values
        ends = start, start + len(numbers)
        here = slice(*np.searchsorted(places, ends))
        kept[order[here]] = numbers[places[here] - start]
        trained = np.ones(len(numbers), dtype=np.bool_)
        trained[held_out[slice(*np.searchsorted(held_out, ends))] - start] = False
        with np.errstate(over="ignore"):  # as for a table in memory
            take(numbers[trained].astype(dtype))
        on_rows(len(numbers))
    return kept


@contextmanager
def _rows_file(
    folder: Path | None, shape: tuple[int, int], dtype: np.dtype[Any]
) -> Iterator[Take]:
    """Yields a function that writes rows to a file, which appears once all are written."""
    if folder is None:
        yield lambda rows: None
        return
    clear_rows(folder)
    _refuse_without_room(make_directory(folder), shape, dtype)
    path = folder / TRAIN
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    try:
        with temporary.open("xb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            yield lambda rows: file.write(rows.data)
        put_in_place(temporary, path)
    except KappaflowError:
        raise
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {error.strerror}.") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _refuse_without_room(folder: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
    needed, room = shape[0] * shape[1] * dtype.itemsize, shutil.disk_usage(folder).free
    if needed > room:
        raise WriteError(
            f"{folder} cannot hold the rows to train on: they take {needed / 2**30:.2f} GiB, and "
            f"its disk has {room / 2**30:.2f} GiB left."
        )


def _plan(requested: SplitRequest, rows: int, width: int, copies: Copies) -> Division:
    drop = requested.duplicates == "drop"
    return division(rows, width, requested.fractions, requested.seed, copies, drop=drop)


def _put_together(
    requested: SplitRequest,
    folder: Path | None,
    kept: FloatArray,
    copies: Copies,
    *,
    rows: int,
    columns: list[str],
    context_columns: list[str],
    left_out: list[str],
    digest: str,
    notes: list[str],
    warnings: list[str],
) -> SplitTable:
    """Returns the parts of a table from the kept rows and the stored notes."""
    width = len(columns)
    plan = _plan(requested, rows, width + len(context_columns), copies)
    if kept.shape != (len(plan.kept), width + len(context_columns)):
        raise ValueError("these are rows of another table")

    def table(source: str, start: int, places: IntArray) -> Table:
        numbers = kept[start : start + len(places)]
        values = np.ascontiguousarray(numbers[:, :width])
        return Table(
            values=values,
            columns=tuple(columns),
            context=np.ascontiguousarray(numbers[:, width:]) if context_columns else None,
            context_columns=tuple(context_columns),
            rows=places + 1,
            left_out=tuple(left_out),
            source=source,
            integer_columns=whole_columns(values, tuple(columns)),
            notes=tuple(notes),
            warnings=tuple(warnings),
        )

    source = str(requested.table.source)
    starts = np.cumsum([0, *map(len, plan.held_out)]).tolist()
    sample = table(source, starts[-1], plan.sample)
    held_out = [
        table(source, start, places) for start, places in zip(starts, plan.held_out, strict=False)
    ]
    train = MappedTable(
        path=(folder or Path()) / TRAIN,
        length=plan.train,
        sample=sample,
        digest=digest,
        held_out=plan.not_trained_on,
    )
    pasted = copies.pasted_block(rows) if len(copies) else None
    return SplitTable(train, tuple(held_out), rows, len(copies), pasted)
