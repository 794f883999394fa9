"""What the texts of a column are: numbers in some spelling, truth values, dates, or text.

A number can have a decimal point or a decimal comma, separators between thousands, and a unit or
currency. Each spelling is accepted for whole columns only. Facts about a column add up over the
chunks of a file, so that a file read in chunks is understood exactly as one read at once.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from kappaflow.data.raw import AS_USUAL, Decimal, ReadOptions

if TYPE_CHECKING:
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
    """

    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    firsts: dict[str, Spot] = field(default_factory=dict)
    units: dict[str, Spot] = field(default_factory=dict)

    def __add__(self, other: "Facts") -> "Facts":
        def after(spots: dict[str, Spot]) -> dict[str, Spot]:
            return {name: (self.rows + row, text) for name, (row, text) in spots.items()}

        return Facts(
            self.rows + other.rows,
            self.counts + other.counts,
            after(other.firsts) | self.firsts,
            after(other.units) | self.units,
        )

    def is_all(self, what: str) -> bool:
        """Returns whether all texts that are not missing are of this sort."""
        return self.counts[what] == self.counts["present"]


def cleaned(series: "pl.Series", options: ReadOptions = AS_USUAL) -> "pl.Series":
    """Returns texts without spaces around them, and null for those that mean a missing value."""
    text = series.str.strip_chars()
    text = text.set(text.is_in(MISSING), None)
    return text.set(named_missing(text, options), None) if options.missing else text


def named_missing(text: "pl.Series", options: ReadOptions) -> "pl.Series":
    """Returns which texts the user named as missing, as text or as the same number."""
    import polars as pl

    numbers = text.cast(pl.Float64, strict=False)
    found = text.is_in(options.missing) | numbers.is_in(options.missing_numbers)
    return found.fill_null(value=False)


def facts_of(text: "pl.Series") -> tuple[Facts, "pl.Series"]:
    """Returns facts about cleaned texts, and the plain numbers among them."""
    import polars as pl

    numbers = text.cast(pl.Float64, strict=False)
    present, plain = text.len() - text.null_count(), numbers.len() - numbers.null_count()
    counts, firsts = Counter(present=present, plain=plain), {}
    if present:
        _note_first(firsts, "present", text, text.is_not_null())
    if present == plain:
        units = {"": firsts["present"]} if present else {}
        _count_plain(text, numbers, counts, firsts)
        return Facts(text.len(), counts, firsts, units), numbers
    parts = _parts(text)
    point, comma = numbers.fill_null(_number(parts, ".")), _number(parts, ",")
    counts["plain"] = plain
    for name, read in (("point", point), ("comma", comma)):
        counts[name] = read.len() - read.null_count()
        _note_first(firsts, name, text, read.is_not_null() & numbers.is_null())
        _note_first(firsts, f"not {name}", text, read.is_null() & text.is_not_null())
    _note_first(firsts, "split", text, (point != comma).fill_null(value=False))
    counts["truth"] = int(text.str.to_lowercase().is_in(TRUTHS).sum())
    counts["date"] = int(text.str.contains(DATE).sum())
    return Facts(text.len(), counts, firsts, _units(text, parts, point, comma)), numbers


def _note_first(firsts: dict[str, Spot], name: str, text: "pl.Series", mask: "pl.Series") -> None:
    place = mask.arg_max() if mask.any() else None
    if place is not None:
        firsts[name] = (place + 1, text[place])


def _count_plain(
    text: "pl.Series", numbers: "pl.Series", counts: Counter[str], firsts: dict[str, Spot]
) -> None:
    """Counts plain numbers that are numbers with a decimal comma too: 1.234 can be 1234."""
    counts["point"] = counts["plain"]
    counts["whole"] = int((numbers.is_finite() & (numbers == numbers.round())).sum())
    pointed = text.filter(text.str.contains(".", literal=True).fill_null(value=False))
    tried = _number(_parts(pointed.head(TRIED)), ",").is_null()
    if tried.any():
        _note_first(firsts, "not comma", text, text == pointed[tried.arg_true()[0]])
        return
    comma = _number(_parts(text), ",") if pointed.len() else numbers
    _note_first(firsts, "not comma", text, comma.is_null() & text.is_not_null())
    counts["comma"] = comma.len() - comma.null_count()
    _note_first(firsts, "split", text, (numbers != comma).fill_null(value=False))


def _parts(text: "pl.Series") -> "pl.DataFrame":
    """Returns sign, currency, digits and unit of texts, null where one is no number."""
    return text.str.extract_groups(SPELLED).struct.unnest()


def _number(parts: "pl.DataFrame", decimal: Decimal) -> "pl.Series":
    """Returns the numbers with this decimal sign, null for what is none."""
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
    found: dict[str, Spot] = {}
    for name in unit.drop_nulls().unique(maintain_order=True).head(UNITS_KEPT).to_list():
        _note_first(found, name, text, (unit == name).fill_null(value=False))
    return found


def kinds_of(
    columns: Sequence[Facts], decimal: Decimal | None = None, *, lenient: bool = False
) -> list[Kind]:
    """Returns what the columns of a file are.

    A column that can be read with a decimal point and with a decimal comma, as other numbers, is
    read as the other columns of the file are; it is ambiguous if these give no answer.

    Args:
        columns: Facts about each column.
        decimal: The decimal sign, if the user named it.
        lenient: Whether a column with texts among its numbers is what its numbers are.

    Returns:
        A kind for each column.
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
    """Returns the kind that each column of a file is read as.

    Args:
        names: Names of the columns.
        columns: Facts about each column.
        options: Which columns are kept as text, and whether texts among numbers are missing.

    Returns:
        A kind for each column.
    """
    kinds = kinds_of(columns, options.decimal, lenient=options.lenient)
    text: Kind = "text"
    pairs = zip(names, kinds, strict=True)
    return [text if name in options.texts else kind for name, kind in pairs]


def _numbers_only(facts: Facts, decimal: Decimal | None) -> Facts:
    """Returns facts as if texts that are no numbers were missing; unchanged without numbers.

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
    """Returns what a column is, where `common` is the decimal sign of the other columns."""
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
    """Returns cleaned texts as values of a kind, null where one is no such value."""
    import polars as pl

    plain = text.cast(pl.Float64, strict=False)
    if kind == "plain":
        return plain
    if kind == "point":
        return plain.fill_null(_number(_parts(text), "."))
    if kind == "comma":
        return _number(_parts(text), ",")
    return text.str.to_lowercase() == "true" if kind == "truth" else text
