"""Detects what the strings of a column are: spelled numbers, truth values, dates, or text.

polars parses the numbers. Columns that it cannot fully parse are retried with a decimal comma and
with separators between thousands. A spelling is accepted for whole columns only.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from kappaflow.data.raw import (
    DATES,
    INDEX_NAMES,
    Column,
    Decimal,
    Reading,
    missing_note,
    text_example,
)
from kappaflow.options import option

if TYPE_CHECKING:
    import polars as pl

MISSING = ("", "NA", "N/A", "n/a", "nan", "NaN", "NAN", "NULL", "null", "None", "?")
TRUTHS = ("true", "false")
DATE = (
    r"^\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ].*)?$|^\d{1,2}[-/.]\d{1,2}[-/.](\d{2}|\d{4})( .*)?$"
    r"|^\d{1,2}:\d{2}(:\d{2}.*)?$"
)
SIGN, EXPONENT, SPACED = r"[+\-\u2212]?", r"(?:[eE][+-]?\d+)?", r"'’\s"
COLUMNS_AT_ONCE = 200

TextKind = Literal["plain", "point", "comma", "truth", "text", "ambiguous"]
Marks = Mapping[str, "pl.Expr"]


@dataclass(frozen=True)
class ColumnMarks:
    """How many texts of a column have each mark, and the first row that does, from 1."""

    counts: Counter[str] = field(default_factory=Counter)
    firsts: dict[str, int] = field(default_factory=dict)

    def is_all(self, mark: str) -> bool:
        """Returns whether all texts that are not missing have this mark."""
        return self.counts[mark] == self.counts["present"]


def column_marks(cells: "pl.LazyFrame", columns: int, reading: Reading) -> list[ColumnMarks]:
    """Returns the marks of columns of texts, named 0, 1, ..., in two passes over the rows."""
    marks = _count_marks(cells, range(columns), reading, ("plain",), _plain_marks)
    doubtful = [i for i, column in marks.items() if _is_doubtful(column.counts, reading)]
    kinds: tuple[TextKind, ...] = ("plain", "point", "comma")
    spelled = _count_marks(cells, doubtful, reading, kinds, _spelled_marks)
    for i, column in marks.items():
        counts = column.counts
        if i in spelled:
            counts.update(spelled[i].counts)
            column.firsts.update(spelled[i].firsts)
        else:
            counts["point"], counts["comma"] = counts["plain"], counts["plain"] - counts["dotted"]
    return list(marks.values())


def _is_doubtful(counts: Counter[str], reading: Reading) -> bool:
    """Returns whether a column is more than plain numbers, or their dots may mark thousands."""
    can_be_thousands = counts["dotted"] == counts["grouped"] or reading.decimal == ","
    return counts["plain"] < counts["present"] or (counts["dotted"] > 0 and can_be_thousands)


def _count_marks(
    cells: "pl.LazyFrame",
    columns: Sequence[int],
    reading: Reading,
    kinds: Sequence[TextKind],
    marks_of: Callable[[Callable[[str], "pl.Expr"]], Marks],
) -> dict[int, ColumnMarks]:
    """Returns how often each mark of each column is true, and in which row first.

    `marks_of` returns marks by name, from a function that returns the "text" of a cell, whether
    it is "user missing", or its value of a kind. Polars computes each of them once.
    """
    import polars as pl

    marks = {index: ColumnMarks() for index in columns}
    for start in range(0, len(columns), COLUMNS_AT_ONCE):
        batch = columns[start : start + COLUMNS_AT_ONCE]
        rows = _parse_cells(cells, batch, reading, kinds)
        expressions = {
            (i, name): mark.alias(f"{i} is {name}")
            for i in batch
            for name, mark in marks_of(lambda name, i=i: pl.col(f"{i} {name}")).items()
        }
        names = [f"{i} is {name}" for i, name in expressions]
        rows = rows.select("row", *expressions.values())
        counts = [pl.col(name).sum() for name in names]
        firsts = [pl.when(name).then("row").min().alias(f"{name} first") for name in names]
        values = rows.select(*counts, *firsts).collect(engine="streaming").row(0, named=True)
        for i, name in expressions:
            if values[f"{i} is {name}"]:
                marks[i].counts[name] = values[f"{i} is {name}"]
                marks[i].firsts[name] = values[f"{i} is {name} first"]
    return marks


def _parse_cells(
    cells: "pl.LazyFrame", columns: Sequence[int], reading: Reading, kinds: Sequence[TextKind]
) -> "pl.LazyFrame":
    """Returns the text of each cell, whether the user declared it missing, and its values."""
    import polars as pl

    texts = (cleaned(i, reading).alias(f"{i} text") for i in columns)
    missing = (_is_user_missing(i, reading).alias(f"{i} user missing") for i in columns)
    rows = cells.with_row_index("row", offset=1).select("row", *texts, *missing)
    return rows.with_columns(
        of_kind(pl.col(f"{i} text"), kind).alias(f"{i} {kind}") for i in columns for kind in kinds
    )


def _plain_marks(cell: Callable[[str], "pl.Expr"]) -> Marks:
    """Returns marks of a text that need no regular expression."""
    text, number = cell("text"), cell("plain")
    return {
        "present": text.is_not_null(),
        "missing": text.is_null(),
        "user missing": cell("user missing"),
        "plain": number.is_not_null(),
        "whole": number.is_finite() & (number == number.round()),
        "dotted": text.str.contains(".", literal=True),
        "grouped": text.str.slice(-4, 1) == ".",
    }


def _spelled_marks(cell: Callable[[str], "pl.Expr"]) -> Marks:
    """Returns marks of a text as a spelled number, a truth value or a date."""
    text, number, point, comma = (cell(kind) for kind in ("text", "plain", "point", "comma"))
    return {
        "point": point.is_not_null(),
        "comma": comma.is_not_null(),
        "not point": text.is_not_null() & point.is_null(),
        "not comma": text.is_not_null() & comma.is_null(),
        "spelled point": point.is_not_null() & number.is_null(),
        "spelled comma": comma.is_not_null() & number.is_null(),
        "readings differ": point != comma,
        "truth": text.str.to_lowercase().is_in(TRUTHS),
        "date": text.str.contains(DATE),
    }


def cleaned(index: int, reading: Reading) -> "pl.Expr":
    """Returns the texts of a column without spaces around them and null for missing values."""
    import polars as pl

    text = pl.col(str(index)).str.strip_chars()
    is_missing = text.is_in(MISSING)
    if reading.missing:
        is_missing |= _is_user_missing(index, reading)
    return pl.when(~is_missing).then(text)


def _is_user_missing(index: int, reading: Reading) -> "pl.Expr":
    """Returns whether the user declared a text missing, as this text or as the same number."""
    import polars as pl

    if not reading.missing:
        return pl.lit(value=False)
    text = pl.col(str(index)).str.strip_chars()
    numbers = text.cast(pl.Float64, strict=False)
    is_missing = text.is_in(reading.missing) | numbers.is_in(reading.missing_numbers)
    return is_missing.fill_null(value=False)


def of_kind(text: "pl.Expr", kind: TextKind) -> "pl.Expr":
    """Returns cleaned texts as values of a kind, null for other texts."""
    import polars as pl

    if kind == "comma":
        return _spelled(text, ",")
    if kind in {"plain", "point"}:
        plain = text.cast(pl.Float64, strict=False)
        return plain if kind == "plain" else plain.fill_null(_spelled(text, "."))
    return text.str.to_lowercase() == "true" if kind == "truth" else text


def _spelled(text: "pl.Expr", decimal: Decimal) -> "pl.Expr":
    """Returns the numbers with this decimal sign, null for other texts."""
    import polars as pl

    group, sign = (",", r"\.") if decimal == "." else (r"\.", ",")
    is_number = text.str.contains(
        rf"^{SIGN}(?:[1-9]\d{{0,2}}(?:[{group}{SPACED}]\d{{3}})+|\d*)(?:{sign}\d*)?{EXPONENT}$"
    )
    digits = text.str.replace_all(rf"[{group}{SPACED}]", "").str.replace(",", ".", literal=True)
    digits = digits.str.replace("\u2212", "-", literal=True)
    return pl.when(is_number).then(digits).cast(pl.Float64, strict=False)


def kinds_to_read(
    names: Sequence[str], columns: Sequence[ColumnMarks], reading: Reading
) -> list[TextKind]:
    """Returns the kind that each column of a file is read as.

    A column that can be read with a decimal point and with a decimal comma, as other numbers, is
    read as the other columns of the file are; it is ambiguous if these give no answer.
    """
    votes: set[Decimal] = {vote for marks in columns if (vote := _only_decimal(marks)) is not None}
    file_decimal = reading.decimal or (votes.pop() if len(votes) == 1 else None)
    kinds: list[TextKind] = []
    for name, marks in zip(names, columns, strict=True):
        is_text = name in reading.texts
        kind = "text" if is_text else _kind(marks, reading.decimal, file_decimal)
        if kind == "text" and reading.lenient and not is_text:
            kind = _kind(_numbers_only(marks, reading.decimal), reading.decimal, file_decimal)
        kinds.append(kind)
    return kinds


def _numbers_only(marks: ColumnMarks, decimal: Decimal | None) -> ColumnMarks:
    """Returns the marks as if texts that are not numbers were missing; unchanged without numbers.

    Numbers are those with the decimal sign that the user named, or else with the more common one.
    """
    counts = Counter(marks.counts)
    if decimal is None:
        counts["present"] = max(counts["point"], counts["comma"])
    else:  # a plain number can have the other decimal sign
        counts["present"], counts["plain"] = counts["point" if decimal == "." else "comma"], 0
    return replace(marks, counts=counts) if counts["present"] else marks


def _only_decimal(marks: ColumnMarks) -> Decimal | None:
    """Returns the decimal sign of a column that can be read with one of them only."""
    point, comma = marks.is_all("point"), marks.is_all("comma")
    return None if point == comma else "." if point else ","


def _kind(marks: ColumnMarks, decimal: Decimal | None, file_decimal: Decimal | None) -> TextKind:
    """Returns the kind of a column; `file_decimal` is that of the other columns."""
    point, comma = marks.is_all("point"), marks.is_all("comma")
    if decimal is not None:  # the user excludes the other reading
        point, comma = point and decimal == ".", comma and decimal == ","
    if not (point or comma):
        return "truth" if marks.counts["present"] and marks.is_all("truth") else "text"
    if point and comma and marks.counts["readings differ"]:
        if file_decimal is None and not marks.is_all("plain"):
            return "ambiguous"
        point, comma = file_decimal != ",", file_decimal == ","
    if marks.is_all("plain") and not (comma and marks.counts["readings differ"]):
        return "plain"
    return "point" if point else "comma"


@dataclass(frozen=True)
class TextColumn:
    """A column of texts, how it is read, and the messages about it."""

    name: str
    marks: ColumnMarks
    kind: TextKind
    subject: str
    reading: Reading
    text_at: Callable[[int], str]  # in a row that is counted from 1
    name_row: Callable[[int], str]  # such as "line 4"

    def column(self, *, is_first: bool) -> Column:
        """Returns the column with one empty value; `is_first`: first and without a name."""
        import narwhals as nw
        import polars as pl

        counts, reading = self.marks.counts, self.reading
        types = {"truth": pl.Boolean, "text": pl.String, "ambiguous": pl.String}
        series = pl.Series([None], dtype=types.get(self.kind, pl.Float64))
        is_whole = self.kind == "plain" and not counts["missing"] and self.marks.is_all("whole")
        notes = self._spelling()
        if counts["user missing"]:
            first = self.name_row(self.marks.firsts["user missing"])
            notes += (missing_note(self.name, counts["user missing"], reading, first),)
        return Column(
            self.name,
            nw.from_native(series, series_only=True),
            problem=self._problem(),
            notes=notes,
            what=self._content() if self.kind == "text" else None,
            is_index=is_whole and (is_first or self.name in INDEX_NAMES),
        )

    def _first_example(self, *names: str) -> tuple[str, str]:
        """Returns the text of the first row with one of these marks, and the name of the row."""
        row = next(self.marks.firsts[name] for name in names if self.marks.counts[name])
        return self.text_at(row), self.name_row(row)

    def _spelling(self) -> tuple[str, ...]:
        """Returns how numbers in a special spelling were read, with an example."""
        kinds = {"point": ("spelled point",), "comma": ("spelled comma", "readings differ")}
        names = kinds.get(self.kind, ())
        if not any(self.marks.counts[name] for name in names):
            return ()
        text, row = self._first_example(*names)
        count = self.marks.counts[self.kind]
        return (
            f"column '{self.name}' holds numbers written like {text!r} ({row}), which is read as "
            f"{_value(text, self.kind)} ({count:,} value{'s' * (count != 1)})",
        )

    def _problem(self) -> str | None:
        """Returns why the column cannot be used, with the way out."""
        subject = f"column '{self.name}' of {self.subject}"
        if self.kind == "ambiguous":
            text, row = self._first_example("readings differ")
            return (
                f"{subject} holds {text!r} at {row}, which is {_value(text, 'point')} with a "
                f"decimal point and {_value(text, 'comma')} with a decimal comma: say which with "
                f"{option('decimal', '.')} or {option('decimal', ',')}"
            )
        counts, best = self.marks.counts, self._best
        present, numbers = counts["present"], max(counts["point"], counts["comma"])
        others = present - counts[best]
        if self.kind != "text" or not others or 2 * numbers <= present:
            return None
        text, row = self._first_example(f"not {best}")
        remedy = f"leave the column out ({option('exclude', [self.name])})"
        if self.reading.decimal is not None and numbers == present:
            return (
                f"{subject} holds {text!r} at {row}, which is not a number with a decimal {best}: "
                f"leave out {option('decimal')}, or {remedy}"
            )
        counted = "a text" if others == 1 else f"{others:,} texts, first"
        missing = option("missing", [text])
        read = f"correct it, read it as missing ({missing})"
        if others > 1:
            read = f"correct them, name all that mean a missing value (as in {missing})"
        return f"{subject} holds numbers and {counted} {text!r} at {row}: {read}, or {remedy}"

    def _content(self) -> str:
        """Returns what the column holds instead of numbers."""
        present = self.marks.counts["present"]
        if not present:
            return "nothing"
        kind = DATES if self.marks.is_all("date") else "text"
        return text_example(kind, *self._first_example("present"), present)

    @property
    def _best(self) -> Literal["point", "comma"]:
        """The decimal sign with which most texts are numbers."""
        counts, decimal = self.marks.counts, self.reading.decimal
        if decimal is not None:
            return "point" if decimal == "." else "comma"
        return "comma" if counts["comma"] > counts["point"] else "point"


def _value(text: str, kind: TextKind) -> str:
    """Returns the number that a text means when read as this kind, as text."""
    import polars as pl

    return f"{pl.select(of_kind(pl.lit(text), kind)).item():.10g}"
