"""`load_table` and `load_matrix`: from a file, a name, a data frame or an array to numbers."""

import difflib
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kappaflow.data.columns import Condition, choose_columns, find_column, matches, parse_condition
from kappaflow.data.files import STDIN, path_and_table, read_file, standard_input
from kappaflow.data.labels import with_labels
from kappaflow.data.memory import array_columns, read_memory
from kappaflow.data.naming import BoolArray, FloatArray
from kappaflow.data.raw import (
    NO_MISSING,
    Column,
    RawTable,
    Reading,
    collect,
    no_rows,
    quoted,
    without_missing,
)
from kappaflow.data.shipped import path_of, shipped_names
from kappaflow.data.table import Table, weighted, whole_columns
from kappaflow.data.text import read_delimited
from kappaflow.data.toys import toy, toy_names
from kappaflow.errors import ArgumentError, DataError, FileError


def load_table(
    source: object,
    *,
    columns: Sequence[str] | None = None,
    exclude: Iterable[str] = (),
    context: Iterable[str] = (),
    where: str | Iterable[str] | None = None,
    decimal: Literal[".", ","] | None = None,
    missing: str | Iterable[str] = (),
    separator: str | None = None,
    comment: str | None = None,
) -> Table:
    """Returns the numbers of a source as a table.

    Text, dates, booleans, the index of a data frame and numbers that count the rows are left out;
    `Table.notes` names each such column, and says how numbers with a decimal comma, separators
    between thousands, or a unit were read. Missing values become NaN (`examine` reports them).
    Arrays and tensors name their columns x0, x1, ...; none of these is left out.

    Args:
        source: A path to a file: csv, tsv, dat, txt or ecsv, also compressed; parquet, arrow,
            feather, ipc, npy or npz; h5, fits, root, sqlite, duckdb or xlsx, where a table of
            several is named as in "events.root::Events". "-" for CSV on standard input; the name
            of a shipped data set or of one that `toy` draws, where no file of that name exists; a
            data frame of any library, a numpy array, or a torch tensor. Pickles are never read.
        columns: The columns to model, in that order; all columns of numbers if None. Booleans that
            are named here count as 0 and 1.
        exclude: Columns to leave out.
        context: Columns that the density is conditioned on; they are not modeled. One of text
            becomes a column of 0 and 1 for each of its labels, such as "region=north".
        where: A condition that rows have to meet, or several: "class=g", "class!=g",
            "fAlpha<45". A missing value meets none. A text column used here is not modeled, nor
            is one that "=" has made constant.
        decimal: The decimal sign of a text file, "." or ","; recognized if None, where the file
            leaves no doubt.
        missing: A value that means a missing one, or several, as text: "-999", "n.a."; "none" if
            numbers such as -999 are measurements.
        separator: The sign between the fields of a text file, such as ";"; " " stands for any run
            of blanks. Recognized if None.
        comment: The sign that starts a comment line at the top of a text file, such as "#". If
            None, "#" or "%" in .dat, .txt and .ecsv files; a csv or tsv file has none.

    Returns:
        The table, its row numbers counted from 1 in the source.

    Raises:
        ArgumentError: If a column or a condition does not fit the source, or the source is of no
            usable type.
        DataError: If there is no numeric column, no row, text in a column of numbers, or a number
            that means another with a decimal comma than with a decimal point.
        FileError: If the file is missing, damaged, of an unknown kind, or no table.

    Example:
        >>> table = load_table("magic", where="class=g", columns=["fAlpha", "fDist"])
        >>> table.values.shape
        (12332, 2)
    """
    reading = Reading.of(columns, exclude, context, where, decimal, missing, separator, comment)
    return read_table(source, reading)


def check_same_order(rows: object, others: object, argument: str) -> None:
    """Raises ArgumentError if two pandas objects have the same index labels in another order."""
    first: Any = getattr(rows, "index", None)
    second: Any = getattr(others, "index", None)
    if not (hasattr(first, "equals") and hasattr(second, "equals")) or first.equals(second):
        return
    if len(first) == len(second) and set(first) == set(second):
        raise ArgumentError(
            f"'{argument}' should have its rows in the order of the data, its index has the same "
            "labels in another order: pass it with .loc[data.index]."
        )


def read_table(
    source: object,
    reading: Reading,
    weights: object = None,
    *,
    names: Sequence[str] | None = None,
) -> Table:
    """Returns the table of a source, with the weights of its rows.

    `weights` has a number for each row of the source, or is the name of its column. `names`
    replace the names of all columns of the source.
    """
    check_same_order(source, weights, "weights")
    raw = read_source(source, reading)
    return table_of(raw if names is None else raw.renamed(names), reading, weights)


def table_of(raw: RawTable, reading: Reading, weights: object = None) -> Table:
    """Returns the table of a source whose columns have been read, as `read_table` does."""
    if raw.row_count == 0:
        raise no_rows(raw.subject, reading.purpose)
    if isinstance(weights, str):
        reading = replace(reading, exclude=(*reading.exclude, weights))
        weights = find_column(raw, weights, "weights").numbers()
    conditions = [parse_condition(text, raw) for text in reading.where]
    keep = kept_rows(raw, conditions)
    raw, reading, labeled = with_labels(raw, reading, keep)
    choice = choose_columns(raw, reading, conditions)
    values = _stack(choice.modeled, keep)
    names = tuple(column.name for column in choice.modeled)
    context_names = tuple(column.name for column in choice.context)
    used = {*names, *context_names, *labeled}
    table = Table(
        values=values,
        columns=names,
        context=_stack(choice.context, keep) if context_names else None,
        context_columns=context_names,
        rows=np.flatnonzero(keep).astype(np.int64) + 1,
        lines=None if raw.lines is None else raw.lines[keep],
        labels=None if raw.labels is None else raw.labels[keep],
        left_out=tuple(name for name in raw.columns if name not in used),
        source=raw.source,
        integer_columns=whole_columns(values, names),
        notes=(*raw.notes, *choice.notes),
        warnings=choice.warnings,
        texts={name: _texts(raw, name, keep) for name in reading.texts},
        has_codes=NO_MISSING not in reading.missing,
    )
    return weighted(table, weights, keep)


def _texts(raw: RawTable, name: str, keep: BoolArray) -> NDArray[np.str_]:
    result = find_column(raw, name, "id").texts()
    return np.array(["" if text is None else text for text in result], dtype=np.str_)[keep]


def read_source(source: object, reading: Reading) -> RawTable:
    """Returns the columns of a file, a name, a data frame or an array."""
    if not isinstance(source, (str, os.PathLike)):
        return without_missing(read_memory(source), reading)
    if source == "-":
        return read_delimited(standard_input(), STDIN, STDIN, reading=reading)
    text = os.fsdecode(source)
    path, table = path_and_table(text)
    if isinstance(source, str) and source in table_names() and not path.is_file():
        if source in toy_names():
            return collect(array_columns(toy(source).values, source), source, source)
        return read_file(path_of(source), source, reading)
    if not path.exists():
        missing = no_such_file(path, table_names())
        raise FileError(
            f"{missing}: give a path, or the name of a shipped data set "
            f"({', '.join(table_names())})."
        )
    return read_file(path, text, reading, table)


def table_names() -> tuple[str, ...]:
    """Returns the names of the built-in tables, shipped or drawn."""
    return (*shipped_names(), *toy_names())


def no_such_file(path: Path, names: Sequence[str] = ()) -> str:
    """Returns a clause that there is no such file, with the most similar name if there is one."""
    try:
        nearby = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        nearby = []
    close = difflib.get_close_matches(path.name, [*nearby, *names], n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    return f"there is no file '{path}'{hint}"


def kept_rows(raw: RawTable, conditions: list[Condition]) -> BoolArray:
    """Returns which rows of a source meet all conditions; DataError if none does."""
    keep = np.ones(raw.row_count, dtype=np.bool_)
    for condition in conditions:
        met = matches(raw, condition)
        keep &= met
        if not keep.any():
            shown = f"{condition.column}{condition.sign}{condition.value}"
            raise DataError(
                f"no row of {raw.subject} meets where='{shown}'{_describe_values(raw, condition)}."
            )
    return keep


def _describe_values(raw: RawTable, condition: Condition) -> str:
    """Returns a clause on the values of the column of a condition, to reveal a typing error."""
    column = raw.columns[condition.column]
    if column.is_number:
        numbers = column.numbers()
        finite = numbers[np.isfinite(numbers)]
        return (
            f": its values lie between {finite.min():g} and {finite.max():g}"
            if finite.size
            else ""
        )
    values = sorted({text for text in column.texts() if text is not None})
    return f": its values are {quoted(values, 6)}" if values else ""


def _stack(columns: list[Column], keep: BoolArray) -> FloatArray:
    values = np.empty((int(keep.sum()), len(columns)))
    for index, column in enumerate(columns):
        values[:, index] = column.numbers()[keep]
    return values
