"""Scores of rows and images by a finished run, in memory or written in chunks."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from kappaflow.data import Table, check_writable, write_table
from kappaflow.data.batches import domains_in
from kappaflow.data.chunks import Chunks, open_chunks
from kappaflow.data.load import read_table
from kappaflow.data.prepare import noisy
from kappaflow.data.raw import Decimal, Reading
from kappaflow.data.table import describe_rows
from kappaflow.data.write import TableWriter, table_writer
from kappaflow.errors import ArgumentError, DataError, FileError
from kappaflow.flows import Flow
from kappaflow.images import Images
from kappaflow.images.decode import readable
from kappaflow.images.images import Files
from kappaflow.runs.image_data import images_for
from kappaflow.runs.ranges import Outside, rows_outside, stored_ranges
from kappaflow.runs.stored import (
    is_image_run,
    load_on,
    read_calibration,
    read_image_run,
    read_table_run,
)
from kappaflow.runs.written import SCORES, Columns, Written, write_chunks, written
from kappaflow.storage import file_stamp
from kappaflow.training import batch_of, log_prob_of
from kappaflow.training.measure import (
    bits_per_dimension,
    has_bits,
    rows_at_once,
    scoring_generator,
)
from kappaflow.training.progress import rows_shown


def score_run(
    folder: Path,
    data: str,
    *,
    identifier: str | None = None,
    decimal: Decimal | None = None,
    device: str | None = None,
) -> Columns:
    """Returns the log-density and the percentile of each row or image of some data.

    A row with a value that is missing, text, or outside of the range of the flow's dtype has no
    score: its numbers are NaN. With padding that has no density, joint_log_prob, the density of a
    row and its padding, replaces log_prob. A percentile of 1 means that 99 % of the training data
    has a higher density. A column `identifier` of a table is copied, as text. Images are anything
    that `kappaflow.load_images` takes. The device is "cpu" (the default) or "cuda". A warning
    says if more than a tenth of the rows lie outside of the range of the training rows.

    Returns:
        Columns. For a table: row (its number, from 1), the identifier if one is named, log_prob
        (nats, in the units of the data) and percentile. For images: image (the name of the file,
        or its number from 0), bits_per_dimension (if the flow treats pixels as whole numbers),
        log_prob and percentile.

    Raises:
        ArgumentError: The data does not fit the run, an option is for tables only, or the device
            does not exist.
        FileError: The run is not finished, or a file cannot be read.
    """
    if is_image_run(folder):
        refuse_table_options(id=identifier, decimal=decimal)
        return _image_scores(folder, data, device)
    scores = Scores(folder, device)
    table = read_table(data, scores.reading(identifier, decimal))
    scores.outside(table).warn(len(table))
    return scores.of(table)


def refuse_table_options(**options: object) -> None:
    """Raises an error for options that were given and are for tables only."""
    for name, value in options.items():
        if value is not None:
            raise ArgumentError(f"'{name}' should be left out for images: it is for tables.")


def _image_scores(folder: Path, data: str, device: str | None) -> Columns:
    """Returns the scores of images, brought to the form of the run."""
    quantiles = _quantiles(folder)
    run, flow = read_image_run(folder), load_on(folder, device)
    crop = True if run.source is None else run.source.crop
    images = images_for(flow, data, crop=crop, classes=run.classes_of(flow))
    scores = log_prob_of(flow, images.batches(flow)).numpy()
    result: Columns = {"image": names_of(images)}
    if has_bits(flow):
        result["bits_per_dimension"] = -scores * bits_per_dimension(flow, 1.0)
    return result | {column_of(flow): scores, "percentile": percentiles(scores, quantiles)}


class Scores:
    """Scores the rows of tables by a finished run."""

    def __init__(self, folder: Path, device: str | None = None) -> None:
        self._quantiles = _quantiles(folder)
        self.run, self.flow = read_table_run(folder), load_on(folder, device)
        self._ranges = stored_ranges(folder)

    def reading(self, identifier: str | None, decimal: Decimal | None = None) -> Reading:
        """Returns how to read data to score; a column `identifier` is kept as text.

        Raises:
            ArgumentError: The identifier is one of the columns of the run.
        """
        if identifier in (*self.run.columns, *self.run.context_columns):
            raise ArgumentError(
                f"'id' should name a column that the run does not use, got {identifier!r}."
            )
        texts = () if identifier is None else (identifier,)
        return replace(
            self.run.reading(decimal),
            columns=tuple(self.run.columns),
            context=tuple(self.run.context_columns),
            texts=texts,
            lenient=True,
        )

    def outside(self, table: Table) -> Outside:
        """Returns how many rows lie outside of the range of the training rows."""
        return rows_outside(table, self._ranges)

    def of(self, table: Table, *, generator: torch.Generator | None = None) -> Columns:
        """Returns the scores of rows; NaN for a row that cannot be scored.

        Rounded columns get the same noise as the rows of the run. The generator continues from
        chunk to chunk of a table.
        """
        filled, gaps = _without_gaps(table, self.flow.dtype)
        filled = noisy(filled, self.run.widths, domains_in(self.flow, filled))
        scores = log_prob_of(self.flow, batch_of(filled, self.flow), generator=generator).numpy()
        scores[gaps] = np.nan
        return {
            "row": table.rows,
            **table.texts,
            column_of(self.flow): scores,
            "percentile": percentiles(scores, self._quantiles),
        }


def _without_gaps(table: Table, dtype: torch.dtype) -> tuple[Table, np.ndarray]:
    """Returns a table whose rows can all be scored, and a mask of the rows that were replaced.

    A row with gaps gets the values of the first row without gaps. So the batch keeps its size, on
    which the rounding of its other rows depends.
    """
    parts = [part for part in (table.values, table.context) if part is not None]
    most = torch.finfo(dtype).max
    gaps = ~np.logical_and.reduce([(np.abs(part) <= most).all(axis=1) for part in parts])
    if not gaps.any():
        return table, gaps
    first = int(np.argmin(gaps))

    def filled(part: np.ndarray) -> np.ndarray:
        other = np.zeros_like(part[0]) if gaps[first] else part[first]
        return np.where(gaps[:, None], other, part)

    context = None if table.context is None else filled(table.context)
    return replace(table, values=filled(table.values), context=context), gaps


def column_of(flow: Flow) -> str:
    """Returns the name of the column of scores: a joint density is no log_prob of a row."""
    return "joint_log_prob" if flow.likelihood == "joint" else "log_prob"


def _quantiles(folder: Path) -> np.ndarray:
    """Returns the quantiles of the training scores of a finished run."""
    quantiles = np.array(read_calibration(folder).log_prob_quantiles)
    if not np.isfinite(quantiles).all():
        raise FileError(
            f"{folder} has training rows whose score is not finite: there is no percentile."
        )
    return quantiles


def percentiles(scores: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Returns the percentiles, 0 to 100, of scores in a distribution of given quantiles."""
    return np.interp(scores, quantiles, np.linspace(0, 100, len(quantiles)))


def write_scores(
    folder: Path,
    data: str,
    out: str,
    *,
    identifier: str | None = None,
    repair: Literal["drop"] | None = None,
    decimal: Decimal | None = None,
    device: str | None = None,
) -> Written:
    """Writes the scores of `score_run` to a file or to standard output.

    A parquet, Arrow, npy, csv or tsv file with more rows than one chunk is read, scored and
    written a chunk at a time, with the same numbers. The file appears when all rows are scored. A
    NaN is written as empty; `repair` "drop" leaves out such rows of a table.

    Returns:
        A summary.

    Raises:
        ArgumentError: The file cannot hold text, such as an identifier; or an option is for
            tables only.
        DataError: The data changed while it was read.
    """
    check_writable(out, read=data)
    if is_image_run(folder):
        refuse_table_options(id=identifier, repair=repair, decimal=decimal)
        return _write_image_scores(folder, data, out, device)
    if identifier is not None and Path(out).suffix.lower() in (".npy", ".npz"):
        raise ArgumentError(
            f"'out' should be a csv, parquet or arrow file where 'id' names a column, got "
            f"{out!r}: identifiers are text, and such a file holds numbers."
        )
    scores = Scores(folder, device)
    with table_writer(out) as writer:
        chunks = open_chunks(
            data,
            scores.reading(identifier, decimal),
            multiple=rows_at_once(scores.flow),
            scratch=writer.folder,
        )
        return _score_chunks(scores, chunks, repair, writer)


def _write_image_scores(folder: Path, data: str, out: str, device: str | None) -> Written:
    """Returns a summary of written scores of images; an npy file cannot hold their names."""
    columns = _image_scores(folder, data, device)
    if out.lower().endswith(".npy") and columns["image"].dtype.kind == "U":
        raise ArgumentError(
            f"'out' should be a csv, parquet, arrow or npz file, got {out!r}: the names of the "
            "images are text, and an npy file holds numbers."
        )
    write_table(columns, out)
    return written(columns)


def _score_chunks(
    scores: Scores, chunks: Chunks, repair: Literal["drop"] | None, writer: TableWriter
) -> Written:
    """Returns a summary of the scores of a table, which are appended to a file."""
    generator = None if scores.flow.augment is None else scoring_generator()
    before = file_stamp(chunks.path) if chunks.path.is_file() else None
    outside, names = Outside(), []
    with rows_shown("reading", chunks.rows, 0) as show:
        chunks.settle(show)

    def scored() -> Iterator[Columns]:
        nonlocal outside
        for place in range(len(chunks)):
            table = chunks.read(place)
            outside += scores.outside(table)
            columns = scores.of(table, generator=generator)
            if before is not None and file_stamp(chunks.path) != before:
                raise DataError(
                    f"{chunks.source.name} has changed while it was read: score it when it is "
                    "whole."
                )
            first = written(columns).first_empty
            if first is not None and not names:
                names.append(describe_rows(table, [first - int(table.rows[0])])[0])
            yield _repaired(columns, repair)

    result = write_chunks("scoring", chunks.rows, scored(), writer)
    dropped = chunks.rows - result.rows
    return replace(result, outside=outside, first_name="".join(names), dropped=dropped)


def _repaired(columns: Columns, repair: Literal["drop"] | None) -> Columns:
    """Returns scores with NaN masked, or without the rows that have NaN."""
    scores = next(columns[name] for name in SCORES if name in columns)
    gaps = np.isnan(scores)
    if not gaps.any():
        return columns
    if repair == "drop":
        return {name: values[~gaps] for name, values in columns.items()}
    return {
        name: np.ma.masked_array(values, gaps) if name in (*SCORES, "percentile") else values
        for name, values in columns.items()
    }


def names_of(images: Images) -> np.ndarray:
    """Returns the file name of each image, or its number from 0."""
    if not isinstance(images.pixels.origin, Files):
        return images.index.copy()
    return np.array([readable(images.pixels.origin.name(i)) for i in images.index.tolist()])
