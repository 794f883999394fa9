"""Formats numbers for reports, and selects the values that an axis can show."""

import math
from collections.abc import Iterable, Sequence

NOT_FINITE = "not finite"
NOT_MEASURED = "–"
TOO_LARGE_TO_DRAW = 1e100
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
    """Returns a number with `digits` significant digits, as a power of ten if large or small.

    Example:
        >>> significant(0.01234), significant(123456.0), significant(12), significant("NaN")
        ('0.0123', '123,000', '12', 'not finite')
    """
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
    """Returns a mean and its standard error, both rounded to the second digit of the error.

    Example:
        >>> with_error(9.31249, 0.0431)
        '9.312 ± 0.043'
    """
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
    return _minus(f"{number:,.{decimals}f}")


def quantile(values: Sequence[float], level: float) -> float:
    """Returns a quantile of values without interpolation (the next lower value)."""
    return sorted(values)[int(level * (len(values) - 1))]


def count(number: int, noun: str) -> str:
    """Returns a number with its noun, in the singular or plural.

    Example:
        >>> count(1, "row"), count(12340, "row")
        ('1 row', '12,340 rows')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def power_of_ten(exponent: int) -> str:
    """Returns a power of ten as text, with a superscript exponent."""
    return "10" + str(exponent).translate(_SUPERSCRIPTS)


def format_time(time_s: float) -> str:
    """Returns a duration as text, in seconds, minutes or hours.

    Example:
        >>> format_time(8.2), format_time(400.0), format_time(9000.0)
        ('8 seconds', '7 minutes', '2.5 hours')
    """
    if time_s < 100:
        return f"{time_s:.0f} seconds"
    if time_s < 6000:
        return f"{time_s / 60:.0f} minutes"
    return f"{time_s / 3600:.1f} hours"


def _times_power(number: float, digits: int) -> str:
    mantissa, exponent = f"{number:.{digits - 1}e}".split("e")
    return _minus(mantissa) + "\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}" + power_of_ten(int(exponent))


def _minus(text: str) -> str:
    return text.replace("-", "−")
