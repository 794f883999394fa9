"""Formats numbers for reports, and selects the values that an axis can show."""

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal

NOT_FINITE = "not finite"
NOT_MEASURED = "–"
TOO_LARGE_TO_DRAW = 1e100
_TIMES = "\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def as_float(value: object) -> float | None:
    """Returns a value as a float: None if it was not measured, nan if it is not a number."""
    if value is None:
        return None
    if not isinstance(value, (int, float, str)):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def is_finite(value: object) -> bool:
    """Returns whether a value is a finite number."""
    number = as_float(value)
    return number is not None and math.isfinite(number)


def drawable(values: Iterable[object], *, log: bool = False) -> list[float | None]:
    """Returns the values, with None (a gap in the line) if an axis cannot show a value."""
    numbers = [as_float(value) for value in values]
    return [
        n if n is not None and abs(n) < TOO_LARGE_TO_DRAW and (n > 0 or not log) else None
        for n in numbers
    ]


def what_is_not_drawn(series: Iterable[Iterable[object]], *, log: bool = False) -> str:
    """Returns a sentence that counts the values that `drawable` leaves out; empty if none."""
    numbers = [as_float(value) for values in series for value in values]
    measured = [n for n in numbers if n is not None]
    large = sum(not abs(n) < TOO_LARGE_TO_DRAW for n in measured)
    small = sum(-TOO_LARGE_TO_DRAW < n <= 0 for n in measured) if log else 0
    parts = []
    if large:
        parts.append(f"{large:,} of {len(measured):,} values are not finite and are left out.")
    if small:
        parts.append(
            f"{small:,} of {len(measured):,} values are zero, which a log axis cannot show."
        )
    return " ".join(parts)


def significant(value: object, digits: int = 3) -> str:
    """Returns a number with `digits` significant digits, as a power of ten if large or small."""
    number = as_float(value)
    if number is None:
        return NOT_MEASURED
    if not math.isfinite(number):
        return NOT_FINITE
    if isinstance(value, int):
        return _minus(f"{value:,}") if abs(value) < 10**12 else _times_power(number, digits)
    if number == 0:
        return "0"
    if not 1e-3 <= abs(number) < 1e6:
        return _times_power(number, digits)
    rounded = float(f"{number:.{digits - 1}e}")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return _minus(f"{rounded:,.{decimals}f}")


def with_error(value: object, error: object) -> str:
    """Returns a mean and its standard error, both rounded to the second digit of the error."""
    mean, deviation = as_float(value), as_float(error)
    if mean is None or not math.isfinite(mean) or abs(mean) >= 1e6:
        return significant(value)
    if deviation is None or not math.isfinite(deviation):
        return f"{significant(value, 4)} (error {significant(error)})"
    decimals = 3
    if deviation > 0:
        decimals = min(6, max(0, 1 - math.floor(math.log10(deviation))))
    return _minus(f"{mean:,.{decimals}f} ± {deviation:,.{decimals}f}")


def fixed(value: object, decimals: int) -> str:
    """Returns a number as text with a fixed number of decimals."""
    number = as_float(value)
    if number is None or not math.isfinite(number) or abs(number) >= 1e9:
        return significant(value)
    return _minus(f"{round(number, decimals) + 0.0:,.{decimals}f}")  # no "-0.00"


def count(number: int, noun: str) -> str:
    """Returns a number with its noun, in the singular or plural."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def power_of_ten(exponent: int) -> str:
    """Returns a power of ten as text, with a superscript exponent."""
    return "10" + str(exponent).translate(_SUPERSCRIPTS)


def format_time(time_s: float) -> str:
    """Returns a duration as text, in seconds, minutes or hours."""
    if time_s < 100:
        return f"{time_s:.0f} seconds"
    if time_s < 6000:
        return f"{time_s / 60:.0f} minutes"
    return f"{time_s / 3600:.1f} hours"


def format_date(text: str) -> str:
    """Returns a date in ISO 8601 as a reader would write it, in UTC; other text unchanged."""
    try:
        date = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return text
    return f"{date.day} {date:%B %Y, %H:%M} UTC"


def plain_text(value: object) -> str:
    """Returns the value of a setting as a reader would write it, without Python's syntax."""
    if value is None or value in ((), [], {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        usual = value == 0 or 1e-6 <= abs(value) < 1e15
        return _minus(f"{Decimal(repr(value)).normalize():f}") if usual else significant(value, 6)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {plain_text(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(plain_text, value))
    return str(value)


def with_powers(text: str) -> str:
    r"""Returns a sentence whose numbers like 1.5e-06 are written as powers of ten."""
    number = r"\b(\d+(?:\.\d+)?)e([+-]\d+)\b"
    return re.sub(number, lambda match: f"{match[1]}{_TIMES}{power_of_ten(int(match[2]))}", text)


def breakable(text: str, mark: str) -> str:
    """Returns text with a mark after each sign in words of 20 letters: lines may break there."""
    return re.sub(r"\S{20,}", lambda word: re.sub(r"(?<=\w[_/.,:=])(?=\w)", mark, word[0]), text)


def _times_power(number: float, digits: int) -> str:
    mantissa, exponent = f"{number:.{digits - 1}e}".split("e")
    return _minus(mantissa) + _TIMES + power_of_ten(int(exponent))


def _minus(text: str) -> str:
    return text.replace("-", "−")
