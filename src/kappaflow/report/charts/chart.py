"""What a chart shows, as plain numbers and words: both ways of drawing it read this."""

from typing import Literal

from pydantic import model_validator

from kappaflow.report.content import Part

Numbers = list[float | None]


class Series(Part):
    """One line of a panel, or points.

    Attributes:
        name: Its entry in the legend; equal names in a chart are the same thing.
        x: Along the horizontal axis; None makes a gap.
        y: Along the vertical one; None, and what an axis cannot show, makes a gap.
        low: Lower ends of a band around y, where there is one: quantiles, or an error.
        high: Upper ends.
        tone: Its colour: 0 to 7, the same in each panel for the same thing.
        dash: How the line is drawn; "none" draws points alone.
    """

    name: str
    x: Numbers
    y: Numbers
    low: Numbers | None = None
    high: Numbers | None = None
    tone: int = 0
    dash: Literal["solid", "dash", "dot", "none"] = "solid"

    @model_validator(mode="after")
    def _check(self) -> "Series":
        lengths = {len(v) for v in (self.x, self.y, self.low, self.high) if v is not None}
        if len(lengths) > 1 or (self.low is None) != (self.high is None):
            raise ValueError(f"'{self.name}' should have x, y, low and high of one length")
        return self


class Heat(Part):
    """A picture of numbers on a grid: a density, or an image.

    Attributes:
        values: A list for each row, the lowest row first.
        x: From and to, along the horizontal axis.
        y: From and to, along the vertical one.
    """

    values: list[Numbers]
    x: tuple[float, float]
    y: tuple[float, float]


class Panel(Part):
    """One pair of axes.

    Attributes:
        title: Above it.
        x: What the horizontal axis counts, with its unit.
        y: What the vertical axis counts, with its unit.
        x_log: Whether the horizontal axis is logarithmic.
        y_log: Whether the vertical axis is.
        y_most: Where the vertical axis ends at the latest: larger values go on above its edge, and
            the caption should say so.
        series: What is drawn.
        heat: Or a picture, without axes.
    """

    title: str = ""
    x: str = ""
    y: str = ""
    x_log: bool = False
    y_log: bool = False
    y_most: float | None = None
    series: list[Series] = []
    heat: Heat | None = None


class Chart(Part):
    """Panels that are looked at together.

    Attributes:
        name: Of its files, and of its place on the page.
        title: A few words.
        caption: What to look for, and what is drawn: "median and quartiles over 20 draws".
        panels: Drawn in rows from the left.
        columns: How many stand beside each other where there is room.
        wide: Whether a panel wants the width of the page.
        share_y: Whether the vertical axes go equally far, so that panels can be compared.
    """

    name: str
    title: str
    caption: str
    panels: list[Panel]
    columns: int = 3
    wide: bool = False
    share_y: bool = False

    def vertical(self, panel: Panel) -> list[Numbers]:
        """Returns all numbers that the vertical axis of a panel has to show."""
        panels = self.panels if self.share_y else [panel]
        series = [one for each in panels for one in each.series]
        found = [ys for one in series for ys in (one.y, one.low, one.high) if ys is not None]
        most = panel.y_most
        if most is None:
            return found
        return [[None if y is None else min(y, most) for y in ys] for ys in found]

    @property
    def is_pictures(self) -> bool:
        """Whether its panels are pictures."""
        return all(panel.heat is not None for panel in self.panels)
