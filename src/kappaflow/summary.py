"""`Summary`: how results show themselves, as a line of text and as a table in a notebook."""

import html
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from kappaflow.extensions import load_extensions

LEVELS = "▁▂▃▄▅▆▇█"
Facts = list[tuple[str, str]]  # names and values, as plain text
NAME, VALUE = (
    f'style="text-align: left; vertical-align: top; white-space: {wrapping}"'
    for wrapping in ("nowrap", "pre-line")
)
F = TypeVar("F", bound=Callable[..., Any])
_VIEWS: dict[tuple[str, type], Callable[..., Any]] = {}


def register_view(name: str, *kinds: type) -> Callable[[F], F]:
    """Returns a decorator for the function that shows results of these types as `name`."""

    def register(function: F) -> F:
        _VIEWS.update({(name, kind): function for kind in kinds})
        return function

    return register


def view(name: str, kind: type) -> Callable[..., Any]:
    """Returns the registered function that shows results of a type."""
    load_extensions("views")
    return next(_VIEWS[name, base] for base in kind.__mro__ if (name, base) in _VIEWS)


class Summary:
    """Base class of results that show their main figures, and no tensors."""

    def _facts(self) -> Facts:
        """Returns the main figures, for the text and for the table."""
        raise NotImplementedError

    def _details(self) -> Facts:
        """Returns further rows of the table."""
        return []

    def __repr__(self) -> str:
        facts = "; ".join(f"{name}: {value}" for name, value in self._facts())
        return f"{type(self).__name__}({facts})"

    def __str__(self) -> str:
        return repr(self)

    def _repr_html_(self) -> str:
        """Returns the summary as a table for a notebook; all text is escaped."""
        rows = "".join(
            f"<tr><th {NAME}>{html.escape(name)}</th><td {VALUE}>{html.escape(value)}</td></tr>"
            for name, value in [*self._facts(), *self._details()]
        )
        return f"<table><caption {NAME}><b>{type(self).__name__}</b></caption>{rows}</table>"


def facts_of(result: Summary) -> Facts:
    """Returns the main figures of a result, as the command line prints them."""
    return result._facts()


class PlottedSummary(Summary):
    """Base class of results that `kappaflow.plot` draws."""

    def plot(self, **options: Any) -> Any:
        """Returns the plot of the result, by the function of `kappaflow.plot` for its type."""
        return view("plot", type(self))(self, **options)


def sparkline(values: Sequence[float | None], width: int, *, log: bool = False) -> str:
    """Returns values as a line of blocks with eight heights; empty if no value can be shown.

    None, non-finite numbers, and on a logarithmic scale numbers that are not positive are gaps.
    With more values than `width`, every k-th value is shown, up to the last.

    Example:
        >>> sparkline([1.0, 2.0, None, 8.0], 10)
        '▁▂ █'
        >>> sparkline([1.0, 10.0, 100.0], 10, log=True)
        '▁▅█'
    """
    step = max(1, math.ceil(len(values) / width))
    heights = [_height(value, log=log) for value in values[::-1][::step][::-1]]
    results = [height for height in heights if height is not None]
    if not results:
        return ""
    low, span = min(results), max(results) - min(results)
    top = len(LEVELS) - 1
    return "".join(
        " " if height is None else LEVELS[round(top * (height - low) / span) if span else 0]
        for height in heights
    )


def _height(value: float | None, *, log: bool) -> float | None:
    if value is None or not math.isfinite(value) or (log and value <= 0):
        return None
    return math.log(value) if log else value
