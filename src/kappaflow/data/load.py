"""`load_table`: from a file, a name, a data frame or an array to a `Table`."""

import difflib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from kappaflow.data.files import read_file, read_standard_input
from kappaflow.data.memory import array_columns, read_memory
from kappaflow.data.raw import Column, Raw, collect, quoted
from kappaflow.data.shipped import path_of, shipped_names
from kappaflow.data.table import BoolArray, FloatArray, Table, whole_columns
from kappaflow.data.toys import toy, toy_names
from kappaflow.data.where import Condition, find_column, matches, parse_condition
from kappaflow.errors import ArgumentError, DataError, FileError


def load_table(
    source: object,
    *,
    columns: Sequence[str] | None = None,
    exclude: Iterable[str] = (),
    context: Iterable[str] = (),
    where: str | Iterable[str] | None = None,
) -> Table:
    """Returns the numbers of a source as a table, text columns left out.

    Booleans count as 0 and 1, decimals become float64, missing values NaN (`examine` reports
    them); text, dates and times are left out. Arrays and tensors name their columns x0, x1, ...

    Args:
        source: A path to a csv, csv.gz, tsv, parquet, arrow, feather, ipc, npy or npz file; "-"
            for CSV on standard input; the name of a shipped data set or of one that `toy` draws,
            where no file of that name exists; a data frame of any library, a numpy array, or a
            torch tensor. Pickles are never read.
        columns: The columns to model, in that order; all columns of numbers if None.
        exclude: Columns to leave out.
        context: Columns of numbers that the density is conditioned on; they are not modelled.
        where: A condition that rows have to meet, or several: "class=g", "class!=g",
            "fAlpha<45". A missing value meets none. A text column used here is not modelled, nor
            is one that "=" has made constant.

    Returns:
        The table, its row numbers counted from 1 in the source.

    Raises:
        ArgumentError: If a column or a condition does not fit the source, or the source is of no
            usable type.
        DataError: If there is no numeric column, no row, or text in a column of numbers.
        FileError: If the file is missing, damaged, of an unknown kind, or no table.

    Example:
        >>> table = load_table("magic", where="class=g", columns=["fAlpha", "fDist"])
        >>> table.values.shape
        (12332, 2)
    """
    return table_of(_read(source), columns=columns, exclude=exclude, context=context, where=where)


def table_of(
    raw: Raw,
    *,
    columns: Sequence[str] | None = None,
    exclude: Iterable[str] = (),
    context: Iterable[str] = (),
    where: str | Iterable[str] | None = None,
) -> Table:
    """Returns what was asked for of a source that has been read, as `load_table` does."""
    if raw.row_count == 0:
        raise DataError(f"{raw.subject} has no rows: there is nothing to fit.")
    conditions = [parse_condition(text, raw) for text in as_names(() if where is None else where)]
    behind = [_given(raw, name, "context") for name in as_names(context)]
    modelled = _modelled(raw, columns, as_names(exclude), [c.name for c in behind], conditions)
    keep = _kept_rows(raw, conditions)
    values = _stack(modelled, keep)
    names, behind_names = tuple(c.name for c in modelled), tuple(c.name for c in behind)
    return Table(
        values=values,
        columns=names,
        context=_stack(behind, keep) if behind else None,
        context_columns=behind_names,
        rows=np.flatnonzero(keep).astype(np.int64) + 1,
        lines=None if raw.lines is None else raw.lines[keep],
        left_out=tuple(name for name in raw.columns if name not in {*names, *behind_names}),
        source=raw.source,
        integer_columns=whole_columns(values, names),
    )


def as_names(given: str | Iterable[str]) -> tuple[str, ...]:
    """Returns one name or several as a tuple: a string is one name, not its letters."""
    return (given,) if isinstance(given, str) else tuple(given)


def _read(source: object) -> Raw:
    if not isinstance(source, (str, os.PathLike)):
        return read_memory(source)
    if source == "-":
        return read_standard_input()
    text = os.fspath(source)
    path = Path(os.fsdecode(text)).expanduser()
    if isinstance(source, str) and source in table_names() and not path.is_file():
        if source in toy_names():
            return collect(array_columns(toy(source).values, source), source, source)
        return read_file(path_of(source), source)
    if not path.exists():
        missing = no_such_file(path, table_names())
        raise FileError(
            f"{missing}: give a path, or the name of a shipped data set "
            f"({', '.join(table_names())})."
        )
    return read_file(path, os.fsdecode(text))


def table_names() -> tuple[str, ...]:
    """Returns the names of the tables that come along, shipped or drawn."""
    return (*shipped_names(), *toy_names())


def no_such_file(path: Path, names: Sequence[str] = ()) -> str:
    """Returns the beginning of a sentence, which names the nearest of the files and the names."""
    try:
        nearby = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        nearby = []
    close = difflib.get_close_matches(path.name, [*nearby, *names], n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    return f"there is no file '{path}'{hint}"


def _given(raw: Raw, name: str, argument: str) -> Column:
    """Returns a column that was asked for by name, or says why it cannot serve as numbers."""
    column = find_column(raw, name, argument)
    _refuse_stray(raw, column)
    if not column.is_number:
        raise ArgumentError(
            f"'{argument}' names column '{name}', which holds text: only numbers can be used "
            f"there (rows can be chosen by text, as in where='{name}=...')."
        )
    return column


def _refuse_stray(raw: Raw, column: Column) -> None:
    if column.stray is not None:
        where, text = column.stray
        raise DataError(
            f"column '{column.name}' of {raw.subject} holds text at {where}: {text!r}; mend it, "
            f"leave it empty, or leave the column out (exclude='{column.name}')."
        )


def _modelled(
    raw: Raw,
    columns: Sequence[str] | None,
    exclude: tuple[str, ...],
    context: list[str],
    conditions: list[Condition],
) -> list[Column]:
    """Returns the columns to model: those asked for, or all numbers without another role."""
    excluded = {find_column(raw, name, "exclude").name for name in exclude}
    filtered = {find_column(raw, c.column, "where").name for c in conditions}
    fixed = {condition.column for condition in conditions if condition.is_equality}
    asked = (
        None if columns is None else [_given(raw, name, "columns") for name in as_names(columns)]
    )
    _refuse_clashes([c.name for c in asked or []], excluded, context)
    if asked is None:
        idle = excluded | set(context) | fixed
        left = [column for name, column in raw.columns.items() if name not in idle]
        for column in left:
            if column.name not in filtered:
                _refuse_stray(raw, column)
        asked = [column for column in left if column.is_number]
    if columns is not None and not asked:
        raise ArgumentError("'columns' names no column: name one at least, or give None for all.")
    if not asked:
        raise DataError(
            f"{raw.subject} has no numeric column to model: its columns are "
            f"{quoted(tuple(raw.columns))}, and text, context and excluded columns do not count."
        )
    return asked


def _refuse_clashes(asked: list[str], excluded: set[str], context: list[str]) -> None:
    """Raises ArgumentError where a column is asked for in two roles, or twice in one."""
    for argument, names in (("columns", asked), ("context", context)):
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if twice:
            raise ArgumentError(f"'{argument}' names {quoted(twice)} twice: name it once.")
    pairs = (("columns", "context", set(asked) & set(context)),)
    pairs += (("columns", "exclude", set(asked) & excluded),)
    pairs += (("context", "exclude", set(context) & excluded),)
    for one, other, both in pairs:
        if both:
            raise ArgumentError(
                f"'{one}' and '{other}' both name {quoted(sorted(both))}: a column has one role."
            )


def _kept_rows(raw: Raw, conditions: list[Condition]) -> BoolArray:
    keep = np.ones(raw.row_count, dtype=np.bool_)
    for condition in conditions:
        met = matches(raw, condition)
        keep &= met
        if not keep.any():
            shown = f"{condition.column}{condition.sign}{condition.value}"
            raise DataError(
                f"no row of {raw.subject} meets where='{shown}'{_values_there(raw, condition)}."
            )
    return keep


def _values_there(raw: Raw, condition: Condition) -> str:
    """Returns what the column of a condition does hold, so that a typing error shows."""
    column = raw.columns[condition.column]
    if column.is_number:
        numbers = column.numbers()
        finite = numbers[np.isfinite(numbers)]
        return (
            f": its values lie between {finite.min():g} and {finite.max():g}"
            if finite.size
            else ""
        )
    held = sorted({text for text in column.texts() if text is not None})
    return f": its values are {quoted(held, 6)}" if held else ""


def _stack(columns: list[Column], keep: BoolArray) -> FloatArray:
    values = np.empty((int(keep.sum()), len(columns)))
    for place, column in enumerate(columns):
        values[:, place] = column.numbers()[keep]
    return values
