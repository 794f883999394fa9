"""What the texts of a column are: numbers in some spelling, truth values, dates, or text.

polars reads the numbers. Only where it leaves texts over, a column is tried with a decimal comma
and with separators between thousands. Each spelling is accepted for whole columns only. Facts
about a column add up over the chunks of a file, so that a file read in chunks is understood
exactly as one read at once.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from kappaflow.data.raw import INDEX_NAMES, Column, Decimal, Reading, missing_note, text_example
from kappaflow.options import option

if TYPE_CHECKING:
    import narwhals as nw
    import polars as pl

MISSING = ("", "NA", "N/A", "n/a", "nan", "NaN", "NAN", "NULL", "null", "None", "?")
TRUTHS = ("true", "false")
DATE = (
    r"^\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ].*)?$|^\d{1,2}[-/.]\d{1,2}[-/.](\d{2}|\d{4})( .*)?$"
    r"|^\d{1,2}:\d{2}(:\d{2}.*)?$"
)
SIGN, EXPONENT, SPACED = r"[+\-\u2212]?", r"(?:[eE][+-]?\d+)?", r"'’\s"
TRIED = 100  # texts with a decimal point that are first tried as numbers with a decimal comma

Kind = Literal["plain", "point", "comma", "truth", "text", "ambiguous"]
Spot = tuple[int, str]  # a row, counted from 1, and its text


@dataclass(frozen=True)
class Facts:
    """Facts about the texts of a column, or of a chunk of it, which can be added.

    Attributes:
        rows: The number of texts, missing ones included.
        counts: How many texts are "present", "plain" numbers, "whole" ones, numbers with a
            decimal "point" or "comma" (thousands allowed), "truth" values, a "date".
        firsts: The first text that is "present", "not point", "not comma"; the first that is no
            plain number, but one with a decimal "point" or "comma"; "split" is the first that is
            a different number with point and comma.
    """

    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    firsts: dict[str, Spot] = field(default_factory=dict)

    def __add__(self, other: "Facts") -> "Facts":
        after = {name: (self.rows + row, text) for name, (row, text) in other.firsts.items()}
        return Facts(self.rows + other.rows, self.counts + other.counts, after | self.firsts)

    def is_all(self, what: str) -> bool:
        """Returns whether all texts that are not missing are of this sort."""
        return self.counts[what] == self.counts["present"]


def cleaned(series: "pl.Series", reading: Reading) -> tuple["pl.Series", "pl.Series | None"]:
    """Returns texts without spaces around them and null for missing values.

    The second value marks those that the user named as missing, as text or as the same number.
    """
    import polars as pl

    text = series.str.strip_chars()
    if not reading.missing:
        return text.set(text.is_in(MISSING), None), None
    numbers = text.cast(pl.Float64, strict=False)
    named = text.is_in(reading.missing) | numbers.is_in(reading.missing_numbers)
    named = named.fill_null(value=False)
    return text.set(named | text.is_in(MISSING), None), named


def facts_of(text: "pl.Series", named: "pl.Series | None" = None) -> Facts:
    """Returns facts about cleaned texts; `named` marks those that the user named as missing."""
    import polars as pl

    numbers = text.cast(pl.Float64, strict=False)
    present, plain = text.is_not_null(), numbers.is_not_null()
    is_plain = present.sum() == plain.sum()
    point = numbers if is_plain else numbers.fill_null(_number(text, "."))
    comma = _with_comma(text, numbers) if is_plain else _number(text, ",")
    marks = {"present": present, "plain": plain}
    marks |= {"point": point.is_not_null(), "comma": comma.is_not_null()}
    marks["whole"] = numbers.is_finite() & (numbers == numbers.round())
    firsts = {
        "present": present,
        "point": marks["point"] & ~plain,
        "comma": marks["comma"] & ~plain,
        "not point": present & ~marks["point"],
        "not comma": present & ~marks["comma"],
        "split": point != comma,
    }
    if not is_plain:
        marks["truth"] = text.str.to_lowercase().is_in(TRUTHS)
        marks["date"] = text.str.contains(DATE)
    if named is not None:
        marks["named"] = firsts["named"] = named
    counts = Counter({name: int(mark.sum() or 0) for name, mark in marks.items()})
    spots = {name: _first(text, mark.fill_null(value=False)) for name, mark in firsts.items()}
    return Facts(
        text.len(), counts, {name: spot for name, spot in spots.items() if spot is not None}
    )


def _first(text: "pl.Series", mark: "pl.Series") -> Spot | None:
    """Returns the first row that is marked, counted from 1, and its text."""
    index = mark.arg_max() if mark.any() else None
    return None if index is None else (index + 1, text[index] or "")


def _with_comma(text: "pl.Series", numbers: "pl.Series") -> "pl.Series":
    """Returns plain numbers as they read with a decimal comma: 1.234 can be 1234."""
    tried = text.filter(text.str.contains(".", literal=True)).head(TRIED)
    refused = tried.filter(_number(tried, ",").is_null())
    if refused.len():
        return numbers.set((text == refused[0]).fill_null(value=False), None)
    return _number(text, ",") if tried.len() else numbers


def _number(text: "pl.Series", decimal: Decimal) -> "pl.Series":
    """Returns the numbers with this decimal sign, null for other texts."""
    import polars as pl

    group, sign = (",", r"\.") if decimal == "." else (r"\.", ",")
    spelled = text.str.contains(
        rf"^{SIGN}(?:[1-9]\d{{0,2}}(?:[{group}{SPACED}]\d{{3}})+|\d*)(?:{sign}\d*)?{EXPONENT}$"
    )
    digits = text.str.replace_all(rf"[{group}{SPACED}]", "").str.replace(",", ".", literal=True)
    digits = digits.str.replace("\u2212", "-", literal=True)
    return digits.set(~spelled, None).cast(pl.Float64, strict=False)


def kinds_to_read(names: Sequence[str], columns: Sequence[Facts], reading: Reading) -> list[Kind]:
    """Returns the kind that each column of a file is read as.

    A column that can be read with a decimal point and with a decimal comma, as other numbers, is
    read as the other columns of the file are; it is ambiguous if these give no answer.
    """
    votes: set[Decimal] = {vote for facts in columns if (vote := _only_decimal(facts)) is not None}
    common = reading.decimal or (votes.pop() if len(votes) == 1 else None)
    kinds: list[Kind] = []
    for name, facts in zip(names, columns, strict=True):
        kind: Kind = "text" if name in reading.texts else _kind(facts, reading.decimal, common)
        if kind == "text" and reading.lenient and name not in reading.texts:
            kind = _kind(_numbers_only(facts, reading.decimal), reading.decimal, common)
        kinds.append(kind)
    return kinds


def _numbers_only(facts: Facts, decimal: Decimal | None) -> Facts:
    """Returns facts as if texts that are not numbers were missing; unchanged without numbers.

    Numbers are those with the decimal sign that the user named, or else with the more common one.
    """
    counts = Counter(facts.counts)
    if decimal is None:
        counts["present"] = max(counts["point"], counts["comma"])
    else:  # a plain number can have the other decimal sign
        counts["present"], counts["plain"] = counts["point" if decimal == "." else "comma"], 0
    return replace(facts, counts=counts) if counts["present"] else facts


def _only_decimal(facts: Facts) -> Decimal | None:
    """Returns the decimal sign of a column that can be read with one of them only."""
    point, comma = facts.is_all("point"), facts.is_all("comma")
    return None if point == comma else "." if point else ","


def _kind(facts: Facts, decimal: Decimal | None, common: Decimal | None) -> Kind:
    """Returns the kind of a column; `common` is the decimal sign of the other columns."""
    point, comma = facts.is_all("point"), facts.is_all("comma")
    if decimal is not None:  # the user excludes the other reading
        point, comma = point and decimal == ".", comma and decimal == ","
    if not (point or comma):
        return "truth" if facts.counts["present"] and facts.is_all("truth") else "text"
    if point and comma and "split" in facts.firsts:
        if common is None and not facts.is_all("plain"):
            return "ambiguous"
        point, comma = common != ",", common == ","
    if facts.is_all("plain") and not (comma and "split" in facts.firsts):
        return "plain"
    return "point" if point else "comma"


def of_kind(text: "pl.Series", kind: Kind) -> "pl.Series":
    """Returns cleaned texts as values of a kind, null for other texts."""
    import polars as pl

    if kind == "comma":
        return _number(text, ",")
    if kind in {"plain", "point"}:
        plain = text.cast(pl.Float64, strict=False)
        return plain if kind == "plain" else plain.fill_null(_number(text, "."))
    return text.str.to_lowercase() == "true" if kind == "truth" else text


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
    reading: Reading,
    name_row: Callable[[int], str],
    is_first: bool = False,
) -> Column:
    """Returns a column with its notes and its problem, and one empty value of its type.

    `name_row` names a row that is counted from 1, such as "line 4"; `is_first` is for a first
    column without a name.
    """
    import polars as pl

    types = {"truth": pl.Boolean, "text": pl.String, "ambiguous": pl.String}
    unnamed = is_first or name in INDEX_NAMES
    is_whole = facts.counts["present"] == facts.counts["whole"] == facts.rows
    messages = _Messages(name, facts, subject, reading.decimal, name_row)
    notes = messages.spelling(kind)
    if "named" in facts.firsts:
        first = name_row(facts.firsts["named"][0])
        notes += (missing_note(name, facts.counts["named"], reading, first),)
    return Column(
        name,
        in_narwhals(pl.Series([None], dtype=types.get(kind, pl.Float64))),
        problem=messages.problem(kind),
        notes=notes,
        what=messages.content() if kind == "text" else None,
        is_index=unnamed and is_whole and kind == "plain",
    )


@dataclass(frozen=True)
class _Messages:
    """The messages about a column of texts."""

    name: str
    facts: Facts
    subject: str
    decimal: str | None
    name_row: Callable[[int], str]

    def spelling(self, kind: Kind) -> tuple[str, ...]:
        """Returns how numbers in a special spelling were read, with an example."""
        names = {"point": ("point",), "comma": ("comma", "split")}.get(kind, ())
        spot = next((self.facts.firsts[name] for name in names if name in self.facts.firsts), None)
        if spot is None:
            return ()
        row, text = spot
        count = self.facts.counts[kind]
        return (
            f"column '{self.name}' holds numbers written like {text!r} ({self.name_row(row)}), "
            f"which is read as {_value(text, kind)} ({count:,} value{'s' * (count != 1)})",
        )

    def problem(self, kind: Kind) -> str | None:
        """Returns why the column cannot be used, with the way out."""
        subject = f"column '{self.name}' of {self.subject}"
        if kind == "ambiguous":
            row, text = self.facts.firsts["split"]
            return (
                f"{subject} holds {text!r} at {self.name_row(row)}, which is "
                f"{_value(text, 'point')} with a decimal point and {_value(text, 'comma')} with a "
                f"decimal comma: say which with {option('decimal', '.')} or "
                f"{option('decimal', ',')}"
            )
        counts, best = self.facts.counts, self._best
        present, numbers = counts["present"], max(counts["point"], counts["comma"])
        others = present - counts[best]
        if kind != "text" or not others or 2 * numbers <= present:
            return None
        row, text = self.facts.firsts[f"not {best}"]
        out = f"leave the column out ({option('exclude', [self.name])})"
        if self.decimal is not None and numbers == present:
            return (
                f"{subject} holds {text!r} at {self.name_row(row)}, which is no number with a "
                f"decimal {best}: leave out {option('decimal')}, or {out}"
            )
        counted = "a text" if others == 1 else f"{others:,} texts, first"
        return (
            f"{subject} holds numbers and {counted} {text!r} at {self.name_row(row)}: correct it, "
            f"read it as missing ({option('missing', [text])}), or {out}"
        )

    def content(self) -> str:
        """Returns what the column holds instead of numbers."""
        present = self.facts.counts["present"]
        if not present:
            return "nothing"
        row, text = self.facts.firsts["present"]
        kind = "dates or times" if self.facts.is_all("date") else "text"
        return text_example(kind, text, self.name_row(row), present)

    @property
    def _best(self) -> str:
        """The decimal sign with which most texts are numbers."""
        if self.decimal is not None:
            return "point" if self.decimal == "." else "comma"
        return max(("point", "comma"), key=self.facts.counts.__getitem__)


def _value(text: str, kind: Kind) -> str:
    """Returns the number that a text is with a decimal sign, as text."""
    import polars as pl

    return f"{of_kind(pl.Series([text]), kind)[0]:.10g}"
