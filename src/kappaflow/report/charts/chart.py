"""The content of a chart, as plain numbers and text; plotly.py and matplotlib.py draw it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import model_validator

from kappaflow.report.content import Part
from kappaflow.report.numbers import (
    NOT_FINITE,
    as_float,
    drawable,
    power_of_ten,
    what_is_not_drawn,
)

Numbers = list[float | None]
Range = tuple[float, float]

# Tones: colors by meaning. Pages resolve them for light and dark, files for white paper.
DATA, SAMPLES, STRETCH, SQUEEZE, WORST, WARNING, INK, MUTED = range(8)


class Series(Part):
    """One line of a panel, or points, bars, or a histogram.

    Attributes:
        name: Entry in the legend; series of one chart with equal names share an entry.
        x: Horizontal positions; None makes a gap.
        low: Lower ends of a band around y, or of whiskers.
        high: Upper ends of the band or of the whiskers.
        dash: Style of the line; "none" draws points only.
        kind: "line"; "hold" keeps a value until the next x; "area" fills down to zero; "outline"
            is a line without marks; "bars".
        whiskers: The axis along which low and high are drawn as whiskers; None draws a band.
        labels: Text for each point, shown on hover.
        bridge_gaps: Whether the line connects the points on both sides of a gap.
    """

    name: str
    x: Numbers
    y: Numbers
    low: Numbers | None = None
    high: Numbers | None = None
    tone: int = DATA
    dash: Literal["solid", "dash", "dot", "none"] = "solid"
    kind: Literal["line", "hold", "area", "outline", "bars"] = "line"
    whiskers: Literal["x", "y"] | None = None
    labels: list[str] | None = None
    mark: Literal["circle", "open diamond", "diamond"] = "circle"
    mark_size: float = 7
    width: float = 2
    bridge_gaps: bool = False
    in_legend: bool = True

    @model_validator(mode="after")
    def _check(self) -> "Series":
        lengths = {len(v) for v in (self.x, self.y, self.low, self.high) if v is not None}
        if len(lengths) > 1 or (self.low is None) != (self.high is None):
            raise ValueError(f"'{self.name}' should have x, y, low and high of one length")
        return self

    @property
    def is_marked(self) -> bool:
        """Whether its points are marked: without a line, if there are few, or a single one."""
        if self.dash == "none":
            return True
        known = sum(value is not None for value in self.y)
        return known == 1 or (self.kind == "line" and known <= 12)

    @property
    def bounds(self) -> list[Numbers]:
        """The lists of numbers along the vertical axis."""
        ends = () if self.whiskers == "x" else (self.low, self.high)
        return [values for values in (self.y, *ends) if values is not None]


class Heat(Part):
    """Numbers on a grid as colors: a density, an image, or a matrix.

    Attributes:
        values: A list for each row: the lowest row first, or the top row of a matrix first.
        x: Positions of the first and the last column.
        y: Positions of the first and the last row.
        limit: If given, the grid is a matrix, with axes and colors from -limit to limit.
        png: A PNG file in base64 that is shown instead of the values, without smoothing.
        names: Names on both axes of a square matrix, instead of numbers.
    """

    values: list[Numbers]
    x: Range
    y: Range
    limit: float | None = None
    png: str = ""
    names: list[str] | None = None


class Rule(Part):
    """A reference line across a panel.

    Attributes:
        axis: "x" for a vertical line at a horizontal position, "y" for a horizontal line.
    """

    at: float
    axis: Literal["x", "y"] = "y"
    text: str = ""
    dash: Literal["dash", "dot"] = "dot"
    tone: int = MUTED


class Panel(Part):
    """One pair of axes.

    Attributes:
        x: Title of the horizontal axis, with its unit.
        y: Title of the vertical axis, with its unit.
        y_most: Upper end of the vertical axis. Larger values leave the panel at its upper edge, so
            the caption should say so.
        x_range: Ends of the horizontal axis; chosen from the numbers if left out.
        y_range: Ends of the vertical axis; chosen from the numbers if left out.
        x_whole: Whether only whole numbers are marked on the horizontal axis.
        x_ticks: The numbers marked on the horizontal axis; chosen if left out.
        place: Row and column in the grid of the chart, from 1; in reading order if left out.
        alt: Description with the main numbers, for readers who cannot see it.
        remark: A note on what is not drawn, in addition to values that are not finite.
        empty: Text that replaces a panel without values.
    """

    title: str = ""
    x: str = ""
    y: str = ""
    x_log: bool = False
    y_log: bool = False
    y_most: float | None = None
    series: list[Series] = []
    heat: Heat | None = None
    rules: list[Rule] = []
    x_range: Range | None = None
    y_range: Range | None = None
    x_whole: bool = False
    x_ticks: list[float] | None = None
    y_from_zero: bool = False
    y_hidden: bool = False
    place: tuple[int, int] | None = None
    alt: str = ""
    remark: str = ""
    empty: str = NOT_FINITE

    @property
    def is_empty(self) -> bool:
        """Whether it has no value that its axes can show."""
        lines = (drawable(one.y, log=self.y_log) for one in self.series)
        return self.heat is None and all(value is None for line in lines for value in line)

    @property
    def is_histogram(self) -> bool:
        return any(one.kind == "area" for one in self.series)

    @property
    def remarks(self) -> str:
        """Sentences about values that are not drawn."""
        numbers = [values for one in self.series for values in one.bounds]
        remarks = (what_is_not_drawn(numbers, log=self.y_log), self.remark)
        return " ".join(remark for remark in remarks if remark)


class Chart(Part):
    """A group of panels with a title and a caption.

    Attributes:
        name: Name of its files and of its place on a page.
        caption: What is drawn ("median and quartiles over 20 samples"), and what to look for.
        columns: Number of panels in a row, if there is space.
        wide: Whether a panel takes the full width of a page.
        small: Whether its panels are small multiples: no legend in each, no numbers on hover.
        height: Height of a panel on a page, in CSS pixels; None makes it square.
        legend_each: Whether each panel of a file has a legend, as on a page, and not all one.
    """

    name: str
    title: str
    caption: str
    panels: list[Panel]
    columns: int = 3
    wide: bool = False
    share_y: bool = False
    small: bool = False
    height: int | None = 330
    legend_each: bool = False

    def vertical(self, panel: Panel) -> list[Numbers]:
        """Returns the numbers that set the range of the vertical axis of a panel."""
        panels = self.panels if self.share_y else [panel]
        results = [values for each in panels for one in each.series for values in one.bounds]
        results.append([rule.at for each in panels for rule in each.rules if rule.axis == "y"])
        most = panel.y_most
        if most is None:
            return results
        return [[None if y is None else min(y, most) for y in ys] for ys in results]

    def vertical_range(self, panel: Panel) -> Range | None:
        """Returns the ends of the vertical axis of a panel; None to choose them when drawing."""
        if panel.y_range is not None or panel.y_log or not self.share_y:
            return panel.y_range
        shown = [v for ys in self.vertical(panel) for v in drawable(ys) if v is not None]
        low, high = min(shown, default=0.0), max(shown, default=1.0)
        margin = 0.05 * (high - low or 1.0)
        return 0.0 if panel.y_from_zero else low - margin, high + margin

    @property
    def grid(self) -> tuple[int, int]:
        """The number of rows and of columns of panels."""
        placed = [panel.place for panel in self.panels if panel.place is not None]
        if placed:
            return max(row for row, _ in placed), max(column for _, column in placed)
        columns = min(self.columns, len(self.panels))
        return -(-len(self.panels) // columns), columns

    @property
    def places(self) -> list[tuple[int, int]]:
        """Row and column of each panel in the grid, from 1."""
        columns = self.grid[1]
        return [
            panel.place or (number // columns + 1, number % columns + 1)
            for number, panel in enumerate(self.panels)
        ]

    @property
    def is_pictures(self) -> bool:
        """Whether its panels are pictures without axes."""
        return all(panel.heat is not None and panel.heat.limit is None for panel in self.panels)

    @property
    def entries(self) -> list[Series]:
        """A series for each entry of the legend."""
        named = {s.name: s for panel in self.panels for s in panel.series if s.in_legend}
        return list(named.values())


@dataclass(frozen=True)
class LogScale:
    """The range of a logarithmic axis, as log10 of its ends, and its labeled ticks."""

    low: float
    high: float
    ticks: list[float]
    labels: list[str]


def log_scale(numbers: Iterable[Iterable[object]]) -> LogScale:
    """Returns a scale for all positive finite numbers, of at least a decade."""
    values = [v for line in numbers for v in drawable(line, log=True) if v is not None]
    low, high = (math.log10(min(values)), math.log10(max(values))) if values else (0.0, 1.0)
    pad = max(0.0, 1 - (high - low)) / 2 + 0.05 * max(1.0, high - low)
    low, high = low - pad, high + pad
    ticks = _log_ticks(low, high)
    return LogScale(low, high, ticks, [_tick_label(tick) for tick in ticks])


def _log_ticks(low: float, high: float) -> list[float]:
    """Returns powers of ten; if there are many, a selection; if few, also 2 and 5 times each."""
    step = max(1, math.ceil((high - low) / 8))
    first = math.ceil(math.floor(low) / step) * step
    decades = range(first, math.floor(high) + 1, step)
    narrow, plain = high - low < 1.3, low > -2.1 and high < 4.3  # "5 × 10⁻⁷" takes much room
    mantissas = (1, 2, 5) if narrow or (plain and high - low < 2.3) else (1,)
    ticks = [mantissa * 10.0**decade for decade in decades for mantissa in mantissas]
    return [tick for tick in ticks if low <= math.log10(tick) <= high]


def _tick_label(value: float) -> str:
    if 0.009 < value < 20_000:
        return f"{value:,.6g}"
    exponent = math.floor(math.log10(value) + 1e-9)
    mantissa = round(value / 10.0**exponent)
    power = power_of_ten(exponent)
    return power if mantissa == 1 else f"{mantissa} × {power}"


def line(
    name: str,
    x: Iterable[object],
    y: Iterable[object],
    tone: int = DATA,
    **more: Any,  # noqa: ANN401
) -> Series:
    """Returns a series; keywords are further fields of `Series`."""
    numbers = ([as_float(v) for v in values] for values in (x, y))
    return Series(**dict(zip(("x", "y"), numbers, strict=True)), name=name, tone=tone, **more)


def band(
    name: str,
    x: Iterable[object],
    bands: Sequence[Iterable[object]],
    tone: int,
    **more: Any,  # noqa: ANN401
) -> Series:
    """Returns a line with a band or whiskers; `bands` are its low, middle and high values."""
    low, middle, high = ([as_float(v) for v in values] for values in bands)
    return line(name, x, middle, tone, low=low, high=high, **more)


def single_chart(name: str, title: str, caption: str, *, height: int = 330, **panel: Any) -> Chart:  # noqa: ANN401
    """Returns a chart with one panel; keywords are fields of `Panel`."""
    panels = [Panel(**panel)]
    return Chart(name=name, title=title, caption=caption, panels=panels, height=height)


def histogram(
    name: str, edges: Sequence[object], density: Sequence[object], tone: int, *, filled: bool
) -> Series:
    """Returns a histogram as an area or an outline, without the bins that cannot be drawn."""
    xs, ys = drawable(edges), drawable(density)
    bins = list(zip(xs[:-1], xs[1:], ys, strict=False))
    kept = [(a, b, y) for a, b, y in bins if a is not None and b is not None and y is not None]
    x: Numbers = [corner for a, b, _ in kept for corner in (a, b)]
    y: Numbers = [height for _, _, height in kept for _ in (0, 1)]
    if kept:
        x, y = [kept[0][0], *x, kept[-1][1]], [0.0, *y, 0.0]
    kind, width = ("area", 1) if filled else ("outline", 2)
    return line(name, x, y, tone, kind=kind, width=width)
