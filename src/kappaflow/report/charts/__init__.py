"""The content of a chart, as plain numbers and text; plotly.py and matplotlib.py draw it."""

import html
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kappaflow.report.numbers import (
    NOT_FINITE,
    as_float,
    count,
    drawable,
    significant,
    what_is_not_drawn,
)

Numbers = list[float | None]
Ends = tuple[float | None, float | None]
SeriesKind = Literal["line", "dashed", "dotted", "points", "steps", "area", "bars"]

# Tones: colors by meaning, which templates/page.css sets for light and dark pages.
DATA, SAMPLES, STRETCH, SQUEEZE, WORST, WARNING, INK, MUTED = range(8)
TONES = ("data", "samples", "stretch", "squeeze", "error", "warning", "ink", "muted")
LONGEST_NAME = 60  # characters
TEMPLATES = Path(__file__).parents[1] / "templates"
RARE = 0.0005  # share of the samples in a row or column of cells that no line encloses
CONTAINED = (0.99, 0.9, 0.5)  # shares inside of the lines of a contour
SMOOTHING = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
TINY = 1e-12
FEW_POINTS, MANY_POINTS = 12, 64  # a line of few marks each point; marks of many are small


@dataclass(frozen=True, kw_only=True)
class Series:
    """Numbers that are drawn in one way."""

    name: str  # entry in the legend, if any; series of one chart with equal names share an entry
    x: Numbers  # None makes a gap
    y: Numbers
    low: Numbers | None = None  # ends of a band around a line, or of whiskers through points
    high: Numbers | None = None
    tone: int = DATA
    # "steps" keep a value until the next x, "area" fills the space below.
    kind: SeriesKind = "line"
    mark: Literal["circle", "open diamond", "diamond"] = "circle"
    labels: list[str] | None = None  # text for each point, shown on hover

    def __post_init__(self) -> None:
        lengths = {len(v) for v in (self.x, self.y, self.low, self.high) if v is not None}
        if len(lengths) > 1 or (self.low is None) != (self.high is None):
            raise ValueError(f"'{self.name}' should have x, y, low and high of one length")

    @property
    def is_marked(self) -> bool:
        """Whether its points are marked: without a line, if there are few, or a single one."""
        known = sum(value is not None for value in self.y)
        most = {"points": len(self.y), "line": FEW_POINTS, "dashed": FEW_POINTS}.get(self.kind, 1)
        return known <= most

    @property
    def bounds(self) -> list[Numbers]:
        """The lists of numbers along the vertical axis."""
        return [values for values in (self.y, self.low, self.high) if values is not None]

    @property
    def description(self) -> str:
        """Its name, with the first and the last value or the number of points."""
        known = [value for value in self.y if value is not None]
        if len(known) > 1 and self.kind in ("line", "dashed", "dotted"):
            return f"{self.name}: {significant(known[0])} to {significant(known[-1])}"
        values = significant(known[0]) if len(known) == 1 else count(len(known), "value")
        return f"{self.name}: {values}"


@dataclass(frozen=True, kw_only=True)
class Heat:
    """Numbers on a grid as colors: a density, an image, or a matrix."""

    values: list[Numbers]  # a list for each row: the lowest row first, or the top of a matrix
    x: tuple[float, float] = (0, 1)  # positions of the first and the last column
    y: tuple[float, float] = (0, 1)  # positions of the first and the last row
    limit: float | None = None  # if given, a matrix, with axes and colors from -limit to limit

    @property
    def steps(self) -> tuple[float, float]:
        """The distances of neighboring columns, and of neighboring rows."""
        columns, rows = len(self.values[0]) if self.values else 0, len(self.values)
        across = (self.x[1] - self.x[0]) / max(1, columns - 1) or 1
        up = (self.y[1] - self.y[0]) / max(1, rows - 1) or 1
        return across, up


@dataclass(frozen=True, kw_only=True)
class Contour:
    """Lines of equal density, which contain 50, 90 and 99 % of it."""

    name: str
    density: Sequence[Sequence[float]]  # for each row of cells, the lowest first
    x: tuple[float, float]  # ends of the cells
    y: tuple[float, float]
    tone: int = SAMPLES
    kind: SeriesKind = "steps"  # the look in the legend

    @property
    def heights(self) -> list[list[float]]:
        """The density, smoothed and transformed so that the three lines are at 1, 2 and 3."""
        values = density = np.array(self.density)
        for axis in (0, 1):
            values = np.apply_along_axis(_smoothed, axis, values)
        rare = [density.sum(axis) < RARE * density.sum() for axis in (1, 0)]
        values[rare[0][:, None] | rare[1]] = 0  # beyond a hard edge, not only smoothed
        falling = np.sort(values, axis=None)[::-1]
        inside = np.cumsum(falling) / max(falling.sum(), TINY)
        index = np.searchsorted(inside, CONTAINED).clip(max=len(falling) - 1)
        levels = np.log(falling[index] + TINY) + 1e-6 * np.arange(3)
        known = [levels[0] - 5, *levels, levels[2] + 5]
        return np.interp(np.log(values + TINY), known, range(5)).round(3).tolist()

    @property
    def centers(self) -> tuple[list[float], list[float]]:
        """The centers of the cells along both axes."""
        across, up = (
            np.linspace(low, high, 2 * count + 1)[1::2].tolist()
            for (low, high), count in ((self.x, len(self.density[0])), (self.y, len(self.density)))
        )
        return across, up


@dataclass(frozen=True, kw_only=True)
class Box:
    """A region that is shaded; an axis without ends is shaded along all of its length."""

    x: tuple[float, float]
    y: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A reference line across a panel: horizontal at a value of y, or vertical at a value of x."""

    at: float
    axis: Literal["x", "y"] = "y"
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes."""

    title: str = ""
    x: str = ""  # title of the horizontal axis, with its unit; without it, there are no numbers
    y: str = ""
    x_log: bool = False
    y_log: bool = False
    series: Sequence[Series] = ()
    heat: Heat | None = None
    contour: Contour | None = None
    boxes: Sequence[Box] = ()
    rules: Sequence[Rule] = ()
    x_range: Ends = (None, None)  # an end that is None is chosen from the numbers
    y_range: Ends = (None, None)
    x_whole: bool = False  # mark only whole numbers
    remark: str = ""  # on what is not drawn, in addition to values that are not finite
    below: "Panel | None" = None  # a lower panel with the same horizontal axis

    @property
    def vertical(self) -> list[Numbers]:
        """The lists of numbers along the vertical axis."""
        return [values for series in self.series for values in series.bounds]

    @property
    def empty(self) -> str:
        """A text in place of its values, if its axes can show none of them."""
        drawn = (v for series in self.series for v in drawable(series.y, log=self.y_log))
        if self.heat is not None or any(value is not None for value in drawn):
            return ""
        all_zero = all(value == 0 for values in self.vertical for value in values)
        return "all values are zero" if all_zero and self.vertical else NOT_FINITE

    @property
    def remarks(self) -> str:
        """Sentences about values that are not drawn."""
        return f"{what_is_not_drawn(self.vertical, log=self.y_log)} {self.remark}".strip()

    @property
    def description(self) -> str:
        """What it shows, for readers who cannot see it."""
        if self.heat is not None:
            return "A heat map." if self.heat.limit else "A picture."
        rules = [f"{rule.text}: {significant(rule.at)}" for rule in self.rules if rule.text]
        named = [series.description for series in self.series if series.name]
        named += [f"{self.contour.name}: contours"] if self.contour else []
        drawn = "; ".join(named + rules)
        return f"{self.y} against {self.x}. {drawn}."


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A group of panels with a title and a caption."""

    name: str  # of its files and of its place on a page
    title: str
    caption: str = ""  # what is drawn, and what to look for
    panels: Sequence[Panel | None] = ()  # in reading order; None leaves a place empty
    columns: int = 3  # panels in a row, if there is space
    share_y: bool = False  # the same vertical range in all panels
    small: bool = False  # small multiples: no legend in each, no numbers on hover
    height: int | None = 330  # of a panel on a page, in CSS pixels; None makes it square
    ratios: Sequence[float] = ()  # heights of the rows of panels; equal by default

    @property
    def unstacked(self) -> "Chart":
        """The chart with lower panels in rows of the grid between the others."""
        if all(panel.below is None for _, _, panel in self.placed):
            return self
        rows, columns = self.grid
        cells = [*self.panels, *[None] * (rows * columns - len(self.panels))]
        panels: list[Panel | None] = []
        for start in range(0, len(cells), columns):
            upper = cells[start : start + columns]
            panels += [panel and replace(panel, below=None, x="") for panel in upper]
            panels += [panel and panel.below for panel in upper]
        return replace(self, panels=panels, columns=columns, ratios=[2, 1] * rows)

    @property
    def placed(self) -> list[tuple[int, int, Panel]]:
        """Each panel after its row and column, from 1."""
        columns = self.grid[1]
        cells = ((n // columns + 1, n % columns + 1, p) for n, p in enumerate(self.panels))
        return [(row, column, panel) for row, column, panel in cells if panel is not None]

    @property
    def grid(self) -> tuple[int, int]:
        """The number of rows and of columns of panels."""
        columns = max(1, min(self.columns, len(self.panels)))
        return -(-len(self.panels) // columns), columns

    def x_ends(self, panel: Panel) -> Ends:
        """Returns the ends of the horizontal axis of a panel; None is chosen when drawing."""
        if panel.x_log and panel.x_range == (None, None):
            return _log_ends(series.x for series in panel.series)
        return panel.x_range

    def y_ends(self, panel: Panel) -> Ends:
        """Returns the ends of the vertical axis of a panel; None is chosen when drawing."""
        panels = [each for _, _, each in self.placed] if self.share_y else [panel]
        rules = [rule.at for rule in panel.rules if rule.axis == "y"]
        numbers = [rules, *(values for each in panels for values in each.vertical)]
        low, high = panel.y_range
        if panel.y_log and low is None and high is None:
            return _log_ends(numbers)
        if not self.share_y:
            return low, high
        shown = [v for values in numbers for v in drawable(values) if v is not None] or [0.0]
        margin = 0.05 * (max(shown) - min(shown) or 1.0)
        return (
            min(shown) - margin if low is None else low,
            max(shown) + margin if high is None else high,
        )

    @property
    def is_pictures(self) -> bool:
        """Whether its panels are pictures without axes."""
        heats = [panel.heat for _, _, panel in self.placed]
        return all(heat is not None and heat.limit is None for heat in heats)

    @property
    def entries(self) -> list[Series | Contour]:
        """A series or a contour for each entry of the legend."""
        panels = [panel for _, _, panel in self.placed]
        listed = [s for panel in panels for s in (*panel.series, panel.contour) if s and s.name]
        return [*{entry.name: entry for entry in listed}.values()]


def _log_ends(numbers: Iterable[Sequence[float | None]]) -> tuple[float, float]:
    """Returns the ends of a logarithmic axis with all positive numbers, of at least a decade."""
    values = [v for line in numbers for v in drawable(line, log=True) if v is not None]
    low, high = (math.log10(min(values)), math.log10(max(values))) if values else (0.0, 1.0)
    pad = max(0.0, 1 - (high - low)) / 2 + 0.05 * max(1.0, high - low)
    return 10 ** (low - pad), 10 ** (high + pad)


def log_ticks(ends: Ends) -> dict[float, str]:
    """Returns the ticks of a logarithmic axis: powers of ten, and if few, also 2 and 5 times."""
    low, high = ends[0] or 1.0, ends[1] or 10.0
    first, last = math.log10(low), math.log10(high)
    step = math.ceil((last - first) / 8)
    powers = range(math.floor(first / step) * step, math.ceil(last), step)
    mantissas = (1, 2, 5) if last - first < 2.3 else (1,)
    ticks = [mantissa * 10.0**power for power in powers for mantissa in mantissas]
    times = "1\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}"
    return {t: significant(t, 1).removeprefix(times) for t in ticks if low <= t <= high}


def color(tone: int) -> str:
    """Returns the CSS variable of a tone."""
    return f"var(--{TONES[tone % len(TONES)]})"


def label(text: str, longest: int = LONGEST_NAME) -> str:
    """Returns text that plotly shows literally: plotly reads a little HTML in every label."""
    short = text if len(text) <= longest else text[: longest - 1] + "…"
    return html.escape(short, quote=False)


@cache
def light_colors() -> dict[str, str]:
    """Returns the colors of light pages and of white paper by the names of their variables."""
    rule = (TEMPLATES / "page.css").read_text(encoding="utf-8").partition("}")[0]
    return dict(re.findall(r"--([\w-]+): ([^;]+);", rule))


def line(
    name: str,
    x: Iterable[object],
    y: Iterable[object],
    tone: int = DATA,
    **more: Any,
) -> Series:
    """Returns a series; keywords are further fields of `Series`."""
    return Series(name=name, x=_numbers(x), y=_numbers(y), tone=tone, **more)


def band(
    name: str,
    x: Iterable[object],
    bands: Sequence[Iterable[object]],
    tone: int,
    **more: Any,
) -> Series:
    """Returns a line with a band, or points with whiskers, from low, middle and high values."""
    low, middle, high = map(_numbers, bands)
    return line(name, x, middle, tone, low=low, high=high, **more)


def histogram(
    name: str, edges: Sequence[object], density: Sequence[object], tone: int, *, filled: bool
) -> Series:
    """Returns a histogram as an area or as its outline."""
    kind = "area" if filled else "steps"
    return line(name, [*edges[:1], *edges], [0.0, *density, 0.0] if edges else [], tone, kind=kind)


def single_chart(name: str, title: str, caption: str, **panel: Any) -> Chart:
    """Returns a chart with one panel; keywords are fields of `Panel`."""
    return Chart(name=name, title=title, caption=caption, panels=[Panel(**panel)])


def _smoothed(values: np.ndarray) -> np.ndarray:
    return np.convolve(values, SMOOTHING, "same")


def _numbers(values: Iterable[object]) -> Numbers:
    return [as_float(value) for value in values]
