"""What the texts of a column are: numbers in some spelling, truth values, dates, or text.

A number can have a decimal point or a decimal comma, separators between thousands, and a unit or
currency. Each spelling is accepted for whole columns only. Facts about a column add up over the
chunks of a file, so that a file read in chunks is understood exactly as one read at once.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from kappaflow.data.counting import COUNTED, Progression, progression
from kappaflow.data.raw import INDEX_NAMES, Column, Decimal, ReadOptions, missing_note, shortened
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
CURRENCY = r"\p{Sc}|USD|EUR|GBP|CHF|JPY"
UNIT = r"(?:\p{L}|%|‰|°|\p{Sc})[^\s,;]*"
SPELLED = (
    rf"^({SIGN})\s*({CURRENCY})?\s*({SIGN}(?:\d|[.,]\d)[\d.,{SPACED}]*?{EXPONENT})\s*({UNIT})?$"
)
UNITS_KEPT = 3  # different units of a column that are listed
TRIED = 100  # texts with a decimal point that are first tried as numbers with a decimal comma

Kind = Literal["plain", "point", "comma", "truth", "text", "ambiguous"]
Spot = tuple[int, str]  # a row, counted from 1, and its text


@dataclass(frozen=True)
class Facts:
    """Facts about the texts of a column, or of a chunk of it, which can be added.

    Attributes:
        rows: The number of texts, missing ones included.
        counts: How many texts are "present", "plain" numbers, numbers with a decimal "point" or
            "comma" (thousands and units allowed), "truth" values, a "date".
        firsts: The first text that is "present", "not point", "not comma"; the first that is no
            plain number, but one with a decimal "point" or "comma"; "split" is the first that is
            a different number with point and comma.
        units: The first text with each unit; the unit is "" where there is none.
        running: The progression that all numbers form, by kind of number.
    """

    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    firsts: dict[str, Spot] = field(default_factory=dict)
    units: dict[str, Spot] = field(default_factory=dict)
    running: dict[str, Progression] = field(default_factory=dict)

    def __add__(self, other: "Facts") -> "Facts":
        def after(spots: dict[str, Spot]) -> dict[str, Spot]:
            return {name: (self.rows + row, text) for name, (row, text) in spots.items()}

        if not self.rows:
            return other
        joined = {
            kind: both
            for kind, one in self.running.items()
            if (both := one.then(other.running.get(kind)))
        }
        return Facts(
            self.rows + other.rows,
            self.counts + other.counts,
            after(other.firsts) | self.firsts,
            after(other.units) | self.units,
            joined,
        )

    def is_all(self, what: str) -> bool:
        """Returns whether all texts that are not missing are of this sort."""
        return self.counts[what] == self.counts["present"]


def cleaned(series: "pl.Series", options: ReadOptions) -> tuple["pl.Series", "pl.Series | None"]:
    """Returns texts without spaces around them and null for missing values.

    The second value marks those that the user named as missing, as text or as the same number.
    """
    import polars as pl

    text = series.str.strip_chars()
    if not options.missing:
        return text.set(text.is_in(MISSING), None), None
    numbers = text.cast(pl.Float64, strict=False)
    named = text.is_in(options.missing) | numbers.is_in(options.missing_numbers)
    named = named.fill_null(value=False)
    return text.set(named | text.is_in(MISSING), None), named


def facts_of(text: "pl.Series", named: "pl.Series | None" = None) -> Facts:
    """Returns facts about cleaned texts; `named` marks those that the user named as missing."""
    import polars as pl

    numbers = text.cast(pl.Float64, strict=False)
    present, plain = text.len() - text.null_count(), numbers.len() - numbers.null_count()
    counts, firsts = Counter(present=present, plain=plain), {}
    finite = numbers.is_finite()
    counts["finite"] = int(finite.sum())
    if present:
        _note_first(firsts, "present", text, text.is_not_null())
    if named is not None and named.any():
        counts["named"] = int(named.sum())
        firsts["named"] = (int(named.arg_true()[0]) + 1, "")
    if present == plain:
        units = {"": firsts["present"]} if present else {}
        counts["whole"] = int((finite & (numbers == numbers.round())).sum())
        comma = _count_plain(text, numbers, counts, firsts)
        running = _progressions(plain=numbers, point=numbers, comma=comma)
        return Facts(text.len(), counts, firsts, units, running)
    parts = _parts(text)
    point, comma = numbers.fill_null(_number(parts, ".")), _number(parts, ",")
    for name, read in (("point", point), ("comma", comma)):
        counts[name] = read.len() - read.null_count()
        _note_first(firsts, name, text, read.is_not_null() & numbers.is_null())
        _note_first(firsts, f"not {name}", text, read.is_null() & text.is_not_null())
    _note_first(firsts, "split", text, (point != comma).fill_null(value=False))
    counts["truth"] = int(text.str.to_lowercase().is_in(TRUTHS).sum())
    counts["date"] = int(text.str.contains(DATE).sum())
    units, running = _units(text, parts, point, comma), _progressions(point=point, comma=comma)
    return Facts(text.len(), counts, firsts, units, running)


def _note_first(firsts: dict[str, Spot], name: str, text: "pl.Series", mask: "pl.Series") -> None:
    place = mask.arg_max() if mask.any() else None
    if place is not None:
        firsts[name] = (place + 1, text[place])


def _progressions(**numbers: "pl.Series | None") -> dict[str, Progression]:
    """Returns the progressions that numbers form, by kind; the first few of them rule out most."""
    result: dict[str, Progression] = {}
    for kind, series in numbers.items():
        if series is not None and progression(series.head(COUNTED).to_numpy()):
            whole = progression(series.to_numpy())
            result |= {} if whole is None else {kind: whole}
    return result


def _count_plain(
    text: "pl.Series", numbers: "pl.Series", counts: Counter[str], firsts: dict[str, Spot]
) -> "pl.Series | None":
    """Returns plain numbers read with a decimal comma, and counts them: 1.234 can be 1234."""
    counts["point"] = counts["plain"]
    pointed = text.filter(text.str.contains(".", literal=True).fill_null(value=False))
    tried = _number(_parts(pointed.head(TRIED)), ",").is_null()
    if tried.any():
        _note_first(firsts, "not comma", text, text == pointed[tried.arg_true()[0]])
        return None
    comma = _number(_parts(text), ",") if pointed.len() else numbers
    _note_first(firsts, "not comma", text, comma.is_null() & text.is_not_null())
    counts["comma"] = comma.len() - comma.null_count()
    _note_first(firsts, "split", text, (numbers != comma).fill_null(value=False))
    return comma


def _parts(text: "pl.Series") -> "pl.DataFrame":
    """Returns sign, currency, digits and unit of texts, null for texts that are no number."""
    return text.str.extract_groups(SPELLED).struct.unnest()


def _number(parts: "pl.DataFrame", decimal: Decimal) -> "pl.Series":
    """Returns the numbers with this decimal sign, null for other texts."""
    import polars as pl

    body = (parts["1"].fill_null("") + parts["3"]).str.replace("\u2212", "-", literal=True)
    group = "," if decimal == "." else r"\."
    sign = r"\." if decimal == "." else ","
    spelled = body.str.contains(
        rf"^[+-]?(?:[1-9]\d{{0,2}}(?:[{group}{SPACED}]\d{{3}})+|\d*)(?:{sign}\d*)?{EXPONENT}$"
    )
    digits = body.str.replace_all(rf"[{group}{SPACED}]", "").str.replace(",", ".", literal=True)
    return digits.set(~spelled, None).cast(pl.Float64, strict=False)


def _units(
    text: "pl.Series", parts: "pl.DataFrame", point: "pl.Series", comma: "pl.Series"
) -> dict[str, Spot]:
    """Returns the first number with each unit, of at most three units."""
    unit = (parts["2"].fill_null("") + " " + parts["4"].fill_null("")).str.strip_chars()
    unit = unit.set(point.is_null() & comma.is_null(), None)
    result: dict[str, Spot] = {}
    for name in unit.drop_nulls().unique(maintain_order=True).head(UNITS_KEPT).to_list():
        _note_first(result, name, text, (unit == name).fill_null(value=False))
    return result


def kinds_of(
    columns: Sequence[Facts], decimal: Decimal | None = None, *, lenient: bool = False
) -> list[Kind]:
    """Returns a kind for each column of a file.

    A column that can be read with a decimal point and with a decimal comma, as other numbers, is
    read as the other columns of the file are; it is ambiguous if these give no answer. `lenient`
    decides a column with texts among its numbers by its numbers.
    """
    votes: set[Decimal] = set()
    for facts in columns:
        vote = _only_decimal(facts)
        votes |= set() if vote is None else {vote}
    common = votes.pop() if decimal is None and len(votes) == 1 else decimal
    kinds: list[Kind] = [_kind(facts, decimal, common) for facts in columns]
    if not lenient:
        return kinds
    for place, facts in enumerate(columns):
        if kinds[place] == "text":
            kinds[place] = _kind(_numbers_only(facts, decimal), decimal, common)
    return kinds


def kinds_to_read(
    names: Sequence[str], columns: Sequence[Facts], options: ReadOptions
) -> list[Kind]:
    """Returns the kind that each column of a file is read as."""
    kinds = kinds_of(columns, options.decimal, lenient=options.lenient)
    text: Kind = "text"
    pairs = zip(names, kinds, strict=True)
    return [text if name in options.texts else kind for name, kind in pairs]


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
    if len(facts.units) > 1 or not (point or comma):
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

    plain = text.cast(pl.Float64, strict=False)
    if kind == "plain":
        return plain
    if kind == "point":
        return plain.fill_null(_number(_parts(text), "."))
    if kind == "comma":
        return _number(_parts(text), ",")
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
    options: ReadOptions,
    name_row: Callable[[int], str],
    is_first: bool = False,
) -> Column:
    """Returns a column with its notes and its problem, and one empty value of its type.

    `name_row` names a row that is counted from 1, such as "line 4"; `is_first` is for a first
    column without a name.
    """
    import polars as pl

    types = {"truth": pl.Boolean, "text": pl.String, "ambiguous": pl.String}
    series = in_narwhals(pl.Series([None], dtype=types.get(kind, pl.Float64)))
    unnamed = is_first or name in INDEX_NAMES
    whole = facts.counts["present"] == facts.counts["whole"] == facts.rows
    messages = _Messages(f"column '{name}'", facts, subject, options.decimal, name_row)
    notes = messages.notes(kind)
    if "named" in facts.firsts:
        first = name_row(facts.firsts["named"][0])
        notes += (missing_note(name, facts.counts["named"], options, first),)
    return Column(
        name,
        series,
        problem=messages.problem(name, kind),
        notes=notes,
        what=messages.content() if kind == "text" else None,
        is_index=unnamed and whole and kind == "plain",
        progression=facts.running.get(kind),
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
        """Returns how numbers in a special spelling were read, with an example."""
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
                f"which with {option('decimal', '.')} or {option('decimal', ',')}"
            )
        best = self._best
        present, counts = self.facts.counts["present"], self.facts.counts
        others = present - counts[best]
        if kind != "text" or not others or 2 * max(counts["point"], counts["comma"]) <= present:
            return None
        row, text = self.facts.firsts[f"not {best}"]
        out = f"leave the column out ({option('exclude', [name])})"
        if self.decimal is not None and max(counts["point"], counts["comma"]) == present:
            return (
                f"{self.column} of {self.subject} holds {text!r} at {self.name_row(row)}, which "
                f"is no number with a decimal {best}: leave out {option('decimal')}, or {out}"
            )
        counted = "a text" if others == 1 else f"{others:,} texts, first"
        return (
            f"{self.column} of {self.subject} holds numbers and {counted} {text!r} at "
            f"{self.name_row(row)}: correct it, read it as missing ({option('missing', [text])}), "
            f"or {out}"
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
