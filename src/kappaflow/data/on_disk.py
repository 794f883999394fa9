"""Splits a table on disk: training rows go to a file that is mapped, the others to memory."""

import functools
import hashlib
import io
import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from kappaflow.data.chunks import Chunks, OnRows, TableOnDisk, chunk_size
from kappaflow.data.dataset import Model
from kappaflow.data.duplicates import row_hashes
from kappaflow.data.naming import BoolArray, FloatArray, IntArray, require_finite
from kappaflow.data.rounding import splitmix64
from kappaflow.data.split import sizes_of_parts
from kappaflow.data.table import Table, whole_columns
from kappaflow.errors import DataError, FileError, KappaflowError, WriteError
from kappaflow.reading import parse_json
from kappaflow.storage import file_stamp, is_unfinished, make_directory, replace_file, write_bytes

if TYPE_CHECKING:
    from kappaflow.data.batches import MappedBatches

MOST_HELD_OUT = 100_000  # rows of a part, which stay in memory and are scored in each epoch
STREAM = 40961  # other draws than those of data made with default_rng(seed)
TRAIN, REST = "train.npy", "rest.npz"  # the rows to train on; all else
Take = Callable[[NDArray[Any]], object]


@dataclass(frozen=True, eq=False)
class MappedTable:
    """Rows to train on, in an npy file: the modeled columns, then those of the context.

    The file need not exist before the first row is read. `sample` has some rows in random order,
    `digest` is a SHA-256 over columns and rows, in hex, and `held_out` are the rows of the source
    that are not in the file, counted from 0, ascending.
    """

    path: Path
    length: int
    sample: Table
    digest: str
    held_out: IntArray

    def __len__(self) -> int:
        return self.length

    @property
    def columns(self) -> tuple[str, ...]:
        return self.sample.columns

    @property
    def context_columns(self) -> tuple[str, ...]:
        return self.sample.context_columns

    @property
    def source(self) -> str:
        return self.sample.source

    def fingerprint(self) -> str:
        """Returns the digest of the rows."""
        return self.digest

    def describe(self) -> dict[str, Any]:
        return self.sample.describe()

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.sample.warnings

    def batches(self, flow: Model) -> "MappedBatches":
        """Returns the rows in batches that are read when they are needed."""
        from kappaflow.data.batches import MappedBatches

        return MappedBatches(self, flow)

    def check(self, flow: Model, *, held_out: bool = False) -> None:
        """Raises DataError for values that a flow cannot represent."""
        from kappaflow.data.batches import check_domains, check_dtype

        check_dtype(self.sample, flow)
        for rows in () if flow.domain is None else self.blocks():
            check_domains(rows, flow)

    def at(self, index: IntArray | slice) -> NDArray[Any]:
        """Returns some of the rows, (n, columns and context), as a copy in the file's dtype."""
        return np.array(self.mapped[index])

    def blocks(self) -> Iterator[Table]:
        """Yields all rows as tables, a chunk at a time, with their numbers in the source."""
        width = len(self.columns)
        size = chunk_size(width + len(self.context_columns))
        before = self.held_out - np.arange(len(self.held_out))  # trained on, before each held out
        for start in range(0, self.length, size):
            result = self.at(slice(start, start + size)).astype(np.float64)
            numbers = np.arange(start, start + len(result))
            yield replace(
                self.sample,
                values=result[:, :width],
                context=result[:, width:] if self.context_columns else None,
                rows=numbers + np.searchsorted(before, numbers, side="right") + 1,
            )

    @functools.cached_property
    def mapped(self) -> NDArray[Any]:
        """The file as an array, (rows, columns and context)."""
        width = len(self.columns) + len(self.context_columns)
        try:
            result = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise FileError(f"{self.path} cannot be read ({error}).") from None
        if result.shape != (self.length, width):
            raise FileError(f"{self.path} does not hold the rows that it should: remove it.")
        return result.view(np.ndarray)


@dataclass(frozen=True)
class SplitRequest:
    """How to split a table on disk."""

    table: TableOnDisk
    fractions: tuple[float, ...]  # as for `divide`, as the seed
    seed: int
    dtype: str  # of the training rows, as numpy names it

    def made_of(self) -> dict[str, Any]:
        """Returns all that determines the rows, as plain values."""
        values = {**asdict(self), "data": file_stamp(self.table.path), "numpy": np.__version__}
        return json.loads(json.dumps(values, default=str))


@dataclass(frozen=True, eq=False)
class SplitTable:
    """The parts of a split table, which share no row."""

    train: MappedTable
    held_out: tuple[Table, ...]  # in memory
    rows: int  # of the table
    repeats: int  # rows that repeat earlier ones


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
    return path.name in (TRAIN, REST) or is_unfinished(path)


@dataclass(frozen=True, eq=False)
class Division:
    """Rows of a table, counted from 0, in random order; all others are trained on alone."""

    held_out: tuple[IntArray, ...]  # of each part that is not trained on
    sample: IntArray  # some training rows, or all if they are few

    @property
    def not_trained_on(self) -> IntArray:
        """All rows that are held out, ascending."""
        return np.sort(np.concatenate([np.empty(0, np.int64), *self.held_out]))

    @property
    def kept(self) -> IntArray:
        """All rows that stay in memory: the parts one after the other, then the sample."""
        return np.concatenate([*self.held_out, self.sample])


def divide(
    hashes: NDArray[np.uint64], width: int, fractions: tuple[float, ...], seed: int
) -> Division:
    """Returns a division of rows by hashes, so that equal rows are in one part.

    The hashes are scrambled with the seed, and the rows with the smallest ones are held out, then
    come those of the sample. A row with more copies than a part has rows is trained on.
    `fractions` are the shares of the training rows and of each part that is held out, which has no
    more than 100,000 rows; without them, all rows are trained on. `width`, the number of columns,
    limits the number of rows in memory.
    """
    keys = splitmix64(hashes ^ splitmix64(np.array([seed + STREAM], np.uint64)))
    expected = sizes_of_parts(len(keys), fractions) if fractions else [len(keys)]
    sizes = [min(size, MOST_HELD_OUT, chunk_size(width)) for size in expected[1:]]
    ordered = np.sort(keys)
    repeated, more = np.unique(ordered[1:][ordered[1:] == ordered[:-1]], return_counts=True)
    common = repeated[more >= min(sizes, default=len(keys))]
    if len(common):
        keys[_is_among(keys, common)] = np.iinfo(np.uint64).max
        ordered = np.sort(keys)
    few = min(len(keys), sum(sizes) + chunk_size(width))
    chosen = np.flatnonzero(keys <= ordered[few - 1])
    chosen = chosen[np.argsort(keys[chosen], kind="stable")][:few]
    ends = np.searchsorted(keys[chosen], ordered[np.cumsum(sizes, dtype=np.int64)])
    *held_out, sample = np.split(chosen, ends)
    if not all(map(len, held_out)):
        raise DataError(
            f"a table with {int(more.sum()):,} rows that repeat others has too few different rows "
            f"for {len(sizes) + 1} parts: equal rows stay in one part."
        )
    return Division(tuple(held_out), sample)


def _is_among(hashes: NDArray[np.uint64], few: NDArray[np.uint64]) -> BoolArray:
    """Returns which hashes are among others, sorted ones; `np.isin` takes several copies."""
    if not len(few):
        return np.zeros(len(hashes), dtype=np.bool_)
    return few[np.searchsorted(few, hashes).clip(max=len(few) - 1)] == hashes


def split_on_disk(
    chunks: Chunks, request: SplitRequest, folder: Path | None, on_rows: OnRows
) -> SplitTable:
    """Returns the parts of a table, after writing the training rows to a folder, if any.

    All rows are read twice; `on_rows` is called with the number of rows read since the last call.
    """
    made_of, hashes = request.made_of(), _hashes(chunks, on_rows)
    width = len(chunks.columns) + len(chunks.context)
    plan = divide(hashes, width, request.fractions, request.seed)
    shape = (chunks.rows - len(plan.not_trained_on), width)
    with _rows_file(folder, shape, np.dtype(request.dtype)) as write:
        kept, digest = _read_rows(chunks, plan, request, write, on_rows)
        if request.made_of() != made_of:
            raise DataError(
                f"{request.table.source} has changed while it was read: fit it when it is whole."
            )
    notes = {
        "made_of": made_of,
        "columns": chunks.columns,
        "context_columns": chunks.context,
        "left_out": chunks.left_out,
        "notes": chunks.notes,
        "warnings": chunks.warnings,
        "rows": chunks.rows,
        "repeats": len(hashes) - len(np.unique(hashes)),
        "digest": digest,
        "parts": [len(part) for part in plan.held_out],
    }
    content = io.BytesIO()
    np.savez(
        content,
        notes=np.frombuffer(json.dumps(notes).encode(), np.uint8),
        kept=kept,
        rows=plan.kept,
        not_trained_on=plan.not_trained_on,
    )
    if folder is not None:
        write_bytes(folder / REST, content.getvalue())
    return _split_of(request, folder, content)


def _read_rows(
    chunks: Chunks, plan: Division, request: SplitRequest, write: Take, on_rows: OnRows
) -> tuple[FloatArray, str]:
    """Returns the rows that stay in memory and a digest of the others, which are written."""
    kept_rows, others = plan.kept, plan.not_trained_on
    kept = np.empty((len(kept_rows), len(chunks.columns) + len(chunks.context)))
    sha = hashlib.sha256(repr((chunks.columns, chunks.context)).encode())
    for table in _tables(chunks, on_rows):
        require_finite(table, str(request.table.source))
        start, numbers = int(table.rows[0]) - 1, table.all_values
        is_kept, is_other = (
            (rows >= start) & (rows < start + len(table)) for rows in (kept_rows, others)
        )
        kept[is_kept] = numbers[kept_rows[is_kept] - start]
        with np.errstate(over="ignore"):  # as for a table in memory
            stored = np.delete(numbers, others[is_other] - start, axis=0).astype(request.dtype)
        sha.update(stored.data)
        write(stored)
    return kept, sha.hexdigest()


def _hashes(chunks: Chunks, on_rows: OnRows) -> NDArray[np.uint64]:
    """Returns a hash of 64 bits for each row of a table."""
    hashes = np.empty(chunks.rows, dtype=np.uint64)
    for table in _tables(chunks, on_rows):
        hashes[table.rows - 1] = row_hashes(table.all_values)
    return hashes


def _tables(chunks: Chunks, on_rows: OnRows) -> Iterator[Table]:
    for number in range(len(chunks)):
        table = chunks.read(number)
        yield table
        on_rows(len(table))


def read_split(folder: Path, request: SplitRequest) -> SplitTable | None:
    """Returns the split in a folder; None if it is of another request, incomplete or damaged."""
    try:
        with (folder / REST).open("rb") as file:
            result = _split_of(request, folder, file)
        return result if result.train.mapped.dtype == request.dtype else None
    except (OSError, EOFError, ValueError, TypeError, KeyError, BadZipFile):
        return None


def _split_of(request: SplitRequest, folder: Path | None, content: IO[bytes]) -> SplitTable:
    """Returns the parts of a table from what `split_on_disk` stored."""
    content.seek(0)
    stored = dict(np.load(content, allow_pickle=False))
    notes = dict(parse_json(stored["notes"].tobytes()))
    if notes["made_of"] != request.made_of():
        raise ValueError("these are the rows of another request")
    columns, context = tuple(notes["columns"]), tuple(notes["context_columns"])
    values = np.ascontiguousarray(stored["kept"][:, : len(columns)])
    kept = Table(
        values=values,
        columns=columns,
        context=np.ascontiguousarray(stored["kept"][:, len(columns) :]) if context else None,
        context_columns=context,
        rows=stored["rows"] + 1,
        left_out=tuple(notes["left_out"]),
        source=str(request.table.source),
        notes=tuple(notes["notes"]),
        warnings=tuple(notes["warnings"]),
    )
    ends = np.cumsum(notes["parts"], dtype=np.int64)
    *held_out, sample = (
        replace(part, integer_columns=whole_columns(part.values, columns))
        for part in map(kept.select, np.split(np.arange(len(kept)), ends))
    )
    out = stored["not_trained_on"]
    path = (folder or Path()) / TRAIN
    train = MappedTable(path, notes["rows"] - len(out), sample, notes["digest"], out)
    return SplitTable(train, tuple(held_out), notes["rows"], notes["repeats"])


@contextmanager
def _rows_file(
    folder: Path | None, shape: tuple[int, int], dtype: np.dtype[Any]
) -> Iterator[Take]:
    """Yields a function that writes rows to a file, which appears once all are written."""
    if folder is None:
        yield lambda rows: None
        return
    path = make_directory(folder) / TRAIN
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    try:
        with temporary.open("xb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            yield lambda rows: file.write(rows.data)
        replace_file(temporary, path)
    except KappaflowError:
        raise
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {error.strerror}.") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
