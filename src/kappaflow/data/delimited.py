"""CSV and TSV, read as text first, so that messages can name the line of a text among numbers."""

import csv
import io
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from kappaflow.data.raw import (
    AS_USUAL,
    INDEX_NAMES,
    Column,
    RawTable,
    ReadOptions,
    collect,
    missing_note,
    refuse_wide,
    shortened,
)
from kappaflow.data.table import IntArray
from kappaflow.data.text_numbers import (
    Facts,
    Kind,
    cleaned,
    facts_of,
    kinds_to_read,
    named_missing,
    of_kind,
)
from kappaflow.errors import DataError, FileError

if TYPE_CHECKING:
    import narwhals as nw
    import polars as pl

NEWLINE, QUOTE = b'\n"'
SEPARATORS = ",;\t"
LINES_TRIED = 5  # lines by which the separator is found


def read_delimited(
    data: bytes,
    source: str,
    subject: str,
    separator: str | None = None,
    options: ReadOptions = AS_USUAL,
) -> RawTable:
    """Returns the columns of text with a header line; the separator is recognised if not given."""
    text = decoded(data, subject)
    separator = separator or separator_of(text)
    header = header_of(text, separator, subject)
    frame = strings_of(text, separator, header, subject)
    lines = lines_of_rows(text, frame.height)
    texts = [
        series if name in options.texts else cleaned(series, options)
        for name, series in zip(header, frame.get_columns(), strict=True)
    ]
    facts = [facts_of(one)[0] for one in texts]
    columns = []
    kinds = kinds_to_read(header, facts, options)
    for name, series, one, known, kind in zip(header, frame, texts, facts, kinds, strict=True):
        if name or known.counts["present"]:
            column = text_column(
                name or f"column_{len(columns) + 1}",
                known,
                kind,
                subject=subject,
                decimal=options.decimal,
                name_row=lambda row: name_of_row(row, lines),
                is_first=not name and not columns,
            )
            notes = column.notes + _missing_note(column.name, series, options, lines)
            columns.append(replace(column, series=in_narwhals(of_kind(one, kind)), notes=notes))
    return collect(columns, source, subject, lines)


def _missing_note(
    name: str, series: "pl.Series", options: ReadOptions, lines: IntArray | None
) -> tuple[str, ...]:
    """Returns a sentence about values that the user named as missing, if there are any."""
    if not options.missing:
        return ()
    hit = named_missing(series.str.strip_chars(), options)
    if not hit.any():
        return ()
    first = name_of_row(hit.arg_true()[0] + 1, lines)
    return (missing_note(name, int(hit.sum()), options, first),)


def in_narwhals(series: "pl.Series") -> "nw.Series[Any]":
    """Returns a polars series as a narwhals series."""
    import narwhals as nw

    return nw.from_native(series, series_only=True)


def text_column(
    name: str,
    facts: Facts,
    kind: Kind,
    *,
    subject: str,
    decimal: str | None,
    name_row: Callable[[int], str],
    is_first: bool = False,
) -> Column:
    """Returns a column with its notes and its problem, and one empty value of its type.

    Args:
        name: Its name.
        facts: Facts about its texts.
        kind: What it is.
        subject: The file, for messages.
        decimal: The decimal sign that the user named.
        name_row: Returns the name of a row that is counted from 1, such as "line 4".
        is_first: Whether it is the first column and has no name.

    Returns:
        The column.
    """
    import polars as pl

    types = {"truth": pl.Boolean, "text": pl.String, "ambiguous": pl.String}
    series = in_narwhals(pl.Series([None], dtype=types.get(kind, pl.Float64)))
    unnamed = is_first or name in INDEX_NAMES
    whole = facts.counts["present"] == facts.counts["whole"] == facts.rows
    messages = _Messages(f"column '{name}'", facts, subject, decimal, name_row)
    return Column(
        name,
        series,
        problem=messages.problem(name, kind),
        notes=messages.notes(kind),
        what=messages.content() if kind == "text" else None,
        is_index=unnamed and whole and kind == "plain",
    )


def _series(text: str) -> "pl.Series":
    import polars as pl

    return pl.Series([text])


@dataclass(frozen=True)
class _Messages:
    """The messages about a column of texts."""

    column: str
    facts: Facts
    subject: str
    decimal: str | None
    name_row: Callable[[int], str]

    def notes(self, kind: Kind) -> tuple[str, ...]:
        """Returns how numbers that are not plain were read, with an example."""
        names = {"point": ("point",), "comma": ("comma", "split")}.get(kind, ())
        examples = [self.facts.firsts[name] for name in names if name in self.facts.firsts]
        if not examples:
            return ()
        row, text = examples[0]
        number = of_kind(_series(text), kind)[0]
        count = self.facts.counts[kind]
        return (
            f"{self.column} holds numbers written like {text!r} ({self.name_row(row)}), which is "
            f"read as {number:.10g} ({count:,} {'value' if count == 1 else 'values'})",
        )

    def problem(self, name: str, kind: Kind) -> str | None:
        """Returns why the column cannot be used, with the way out."""
        if kind == "ambiguous":
            row, text = self.facts.firsts["split"]
            point, comma = (of_kind(_series(text), one)[0] for one in ("point", "comma"))
            return (
                f"{self.column} of {self.subject} holds {text!r} at {self.name_row(row)}, which "
                f"is {point:.10g} with a decimal point and {comma:.10g} with a decimal comma: say "
                "which with decimal='.' or decimal=',' (--decimal . or --decimal ,)"
            )
        best = self._best
        present, counts = self.facts.counts["present"], self.facts.counts
        others = present - counts[best]
        if kind != "text" or not others or 2 * max(counts["point"], counts["comma"]) <= present:
            return None
        row, text = self.facts.firsts[f"not {best}"]
        out = f"leave the column out (exclude={name!r}, --exclude {shlex.quote(name)})"
        if self.decimal is not None and max(counts["point"], counts["comma"]) == present:
            return (
                f"{self.column} of {self.subject} holds {text!r} at {self.name_row(row)}, which "
                f"is no number with a decimal {best}: do not name 'decimal' (--decimal), or {out}"
            )
        counted = "a text" if others == 1 else f"{others:,} texts, first"
        shown = shlex.quote(text)
        option = f"--missing={shown}" if text.startswith("-") else f"--missing {shown}"
        return (
            f"{self.column} of {self.subject} holds numbers and {counted} {text!r} at "
            f"{self.name_row(row)}: correct it, read it as missing (missing=[{text!r}], {option}),"
            f" or {out}"
        )

    def content(self) -> str:
        """Returns what the column holds instead of numbers."""
        facts, present = self.facts, self.facts.counts["present"]
        if not present:
            return "nothing"
        row, text = facts.firsts["present"]
        counted = "1 value" if present == 1 else f"{present:,} values"
        example = f"such as {shortened(text)!r} at {self.name_row(row)} ({counted})"
        if facts.counts["date"] == present:
            return f"dates or times, {example}"
        if facts.counts[self._best] == present:
            named = [f"{one!r} at {self.name_row(at)}" for at, one in sorted(facts.units.values())]
            return f"numbers in several units, {' and '.join(named[:2])}: convert them to one unit"
        return f"text, {example}"

    @property
    def _best(self) -> str:
        """The decimal sign with which most texts are numbers."""
        if self.decimal is not None:
            return "point" if self.decimal == "." else "comma"
        return max(("point", "comma"), key=self.facts.counts.__getitem__)


def decoded(data: bytes, subject: str) -> str:
    """Returns UTF-8 as text with one kind of line end, or says what it is instead."""
    text = in_utf8(data, subject)
    if "\n" not in text:
        text = text.replace("\r", "\n")
    if not text.strip():
        raise FileError(f"{subject} is empty: it should hold a header line and rows of numbers.")
    return text.rstrip("\r\n") + "\n"


def in_utf8(data: bytes, subject: str, *, lines_before: int = 0) -> str:
    """Returns UTF-8 as text, or says what it is instead, and in which line of the whole file."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise FileError(f"{subject} is UTF-16 text: save it as UTF-8.")
    if b"\0" in data:
        raise FileError(f"{subject} holds binary data, not a table in text form.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = lines_before + data.count(b"\n", 0, error.start) + 1
        raise FileError(
            f"{subject} is not UTF-8 text (byte 0x{data[error.start]:02x} in line {line}): save "
            "it as UTF-8."
        ) from None


def separator_of(text: str) -> str:
    """Returns the separator that gives the first lines the most fields, as many each.

    If none does, it is the first of comma, semicolon and tab in the header.
    """
    start = text[: 10**6]
    widths = {mark: _width(start, mark) for mark in SEPARATORS}
    best = max(SEPARATORS, key=widths.__getitem__)
    if widths[best] > 1:
        return best
    header = text.split("\n", 1)[0]
    return next((mark for mark in SEPARATORS if mark in header), ",")


def _width(text: str, separator: str) -> int:
    """Returns the number of fields that the first lines have with a separator, 0 if it varies."""
    reader = csv.reader(io.StringIO(text), delimiter=separator)
    try:
        widths = {len(row) for row in islice(reader, LINES_TRIED) if row}
    except csv.Error:
        return 0
    return widths.pop() if len(widths) == 1 else 0


def header_of(text: str, separator: str, subject: str) -> list[str]:
    """Returns the names in the first line, or says why it is no header."""
    try:
        first = next(csv.reader(io.StringIO(text[: 10**6]), delimiter=separator))
    except csv.Error as error:
        raise FileError(f"the header of {subject} cannot be read: {error}.") from None
    refuse_wide(len(first), subject)
    names = [name.strip() for name in first]
    if all_numbers(names) and not consecutive(names):
        raise DataError(
            f"the first line of {subject} holds numbers ({', '.join(names[:3])}), not names of "
            "columns: add a header line."
        )
    return names


def all_numbers(names: list[str]) -> bool:
    """Returns whether each of the names is a number."""
    try:
        return bool([float(name) for name in names])
    except ValueError:
        return False


def consecutive(names: list[str]) -> bool:
    """Returns whether the names count up by one, as unnamed columns are written (0, 1, 2)."""
    if not all(name.isascii() and name.isdigit() for name in names):
        return False
    return (
        names == ["0"]
        or len(names) > 1
        and all(int(b) - int(a) == 1 for a, b in zip(names, names[1:], strict=False))
    )


def lines_of_rows(text: str, rows: int, *, lines_before: int = 0) -> IntArray | None:
    """Returns the line on which each row after the header starts, counted from 1.

    A line end within quotes ends no row. `lines_before` lines of the file come before the text.
    None if rows cannot be separated.
    """
    read = np.frombuffer(text.encode(), np.uint8)
    newlines, quotes = np.flatnonzero(read == NEWLINE), np.flatnonzero(read == QUOTE)
    ends = np.flatnonzero(np.searchsorted(quotes, newlines) % 2 == 0)
    return ends[:-1] + 2 + lines_before if len(ends) == rows + 1 else None


def name_of_row(row: int, lines: IntArray | None) -> str:
    """Returns "line 4" where the lines of rows are known, else "row 3", of a row from 1."""
    return f"row {row}" if lines is None else f"line {lines[row - 1]}"


def strings_of(
    text: str, separator: str, header: list[str], subject: str, *, lines_before: int = 0
) -> "pl.DataFrame":
    """Returns text with a header as columns of text; `lines_before` it are lines of the file."""
    import polars as pl

    try:
        frame = pl.read_csv(
            text.encode(),
            separator=separator,
            infer_schema=False,
        )
    except pl.exceptions.PolarsError:
        _refuse_ragged(text, separator, len(header), subject, lines_before)
        raise unclosed(subject) from None
    if frame.width != len(header) or (frame.height and frame.to_series(-1).null_count()):
        _refuse_ragged(text, separator, len(header), subject, lines_before)
    if frame.height == 0:
        raise DataError(f"{subject} has a header but no rows: there is nothing to fit.")
    return frame


def unclosed(subject: str) -> FileError:
    """Returns the error for text that cannot be split into rows."""
    return FileError(
        f"{subject} cannot be read as a table in text form, most likely because a "
        "quote is never closed."
    )


def _refuse_ragged(text: str, separator: str, width: int, subject: str, lines_before: int) -> None:
    """Raises FileError for the first row that has more or fewer fields than the header."""
    reader = csv.reader(io.StringIO(text), delimiter=separator)
    try:
        for row in reader:
            if row and len(row) != width:
                fields = "1 field" if len(row) == 1 else f"{len(row)} fields"
                line = lines_before + reader.line_num
                raise FileError(
                    f"line {line} of {subject} has {fields} where the header "
                    f"has {width}: correct that line, or quote the text that holds the separator "
                    f"'{separator}'."
                )
    except csv.Error as error:
        line = lines_before + reader.line_num
        raise FileError(f"line {line} of {subject} cannot be read: {error}.") from None
