"""Domains of columns (half-bounded, bounded or circular), and the parser of their notation."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kappaflow.errors import ArgumentError

Bound = str | Sequence[object] | None
_PI = re.compile(r"([-+]?)(\d*\.?\d*)\s*\*?\s*pi")
_FORMS = (
    "'positive', 'circular', 'circular:0,360', '0,1', '2,' (above 2), ',5' (below 5), or two ends "
    "such as (0, 1) and (2, None)"
)


@dataclass(frozen=True)
class Interval:
    """An open interval, or a circle whose ends are one point; None is an end at infinity."""

    low: float | None
    high: float | None
    circular: bool = False

    @property
    def description(self) -> str:
        """The domain as a phrase, such as "above 0"."""
        if self.circular:
            return f"on the circle from {_short(self.low)} to {_short(self.high)}"
        if self.high is None:
            return f"above {_short(self.low)}"
        if self.low is None:
            return f"below {_short(self.high)}"
        return f"between {_short(self.low)} and {_short(self.high)}"

    @property
    def text(self) -> str:
        """The domain in the notation that `interval` parses, at full precision."""
        ends = f"{_exact(self.low)},{_exact(self.high)}"
        return f"circular:{ends}" if self.circular else ends

    def outside(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Returns a mask of the values beyond an end; missing values are not."""
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return (values < low) | (values > high)

    def at_an_end(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Returns a mask of the values exactly at an end, where a density is undefined.

        A circle has no such values.
        """
        if self.circular:
            return np.zeros(values.shape, dtype=np.bool_)
        ends = [end for end in (self.low, self.high) if end is not None]
        return np.isin(values, ends)


def interval(name: str, value: object) -> Interval | None:
    """Returns a domain from text or a pair of ends; None for all real numbers.

    The forms are None or "real"; "positive"; "circular", from -pi to pi, or "circular:0,360",
    ("circular", 0, 360); "0,1", (0, 1); "2,", (2, None); ",5", (None, 5). An end may be a multiple
    of pi, as in "circular:0,2pi". `name` is that of the argument, for messages.

    Example:
        >>> interval("bounds", "2,"), interval("bounds", (0, 1))
        (Interval(low=2.0, high=None, circular=False), Interval(low=0.0, high=1.0, circular=False))
    """
    if value is None or isinstance(value, Interval):
        return value
    parts = value
    if isinstance(value, str):
        parts = [part.strip() for part in value.replace("circular:", "circular,").split(",")]
    if not isinstance(parts, Sequence):
        raise _not_a_domain(name, value)
    parts = list(parts)
    if isinstance(value, str) and parts in ([""], ["real"]):
        return None
    if isinstance(value, str) and parts == ["positive"]:
        return Interval(0.0, None)
    circular = bool(parts) and isinstance(parts[0], str) and parts[0] == "circular"
    if circular:
        parts = [-math.pi, math.pi] if parts[1:] in ([], [""]) else parts[1:]
    try:
        low, high = map(_end, parts)
    except (TypeError, ValueError, OverflowError):
        raise _not_a_domain(name, value) from None
    if (low is None and high is None) or (circular and (low is None or high is None)):
        raise _not_a_domain(name, value)
    if low is not None and high is not None and not low < high:
        raise ArgumentError(
            f"'{name}' should have a lower end below the upper one, got {value!r}."
        )
    return Interval(low, high, circular)


def intervals(bounds: Sequence[Bound], features: int) -> tuple[Interval | None, ...]:
    """Returns the domain of each feature; None for all real numbers."""
    if isinstance(bounds, str) or not isinstance(bounds, Sequence) or len(bounds) != features:
        raise ArgumentError(
            f"'bounds' should be a sequence of {features}, one for each feature, with None where "
            f"there is no bound, got {bounds!r}."
        )
    return tuple(interval("bounds", bound) for bound in bounds)


def _end(part: Any) -> float | None:
    """Returns an end of a domain as a number, and None if there is none; else ValueError."""
    if part is None or (isinstance(part, str) and not part):
        return None
    match = _PI.fullmatch(part.strip()) if isinstance(part, str) else None
    number = float(f"{match[1]}{match[2] or 1}") * math.pi if match else float(part)
    if math.isnan(number) or isinstance(part, bool):
        raise ValueError(part)
    return None if math.isinf(number) else number


def _not_a_domain(name: str, value: object) -> ArgumentError:
    return ArgumentError(f"'{name}' should be {_FORMS}, got {value!r}.")


def _exact(end: float | None) -> str:
    return "" if end is None else repr(end).removesuffix(".0")


def _short(end: float | None) -> str:
    return "" if end is None else f"{end:g}"
