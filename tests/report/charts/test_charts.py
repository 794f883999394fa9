"""Charts: the same numbers on a page and in a file."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from kappaflow.report.charts import Box, Chart, Contour, Heat, Panel, Series, line
from kappaflow.report.charts.matplotlib import write_stills
from kappaflow.report.charts.plotly import draw, to_plotly


def chart(**changes):
    """Returns two panels with a band, a gap, points and a value that no log axis shows."""
    first = Series(
        name="a < b",
        x=[1, 2, 3],
        y=[1.0, None, 100.0],
        low=[0.5, None, 50.0],
        high=[2.0, None, 200.0],
    )
    second = Series(name="points", x=[1, 2], y=[0.0, 5.0], tone=1, kind="points")
    panels = [
        Panel(title="left", x="depth", y="kappa", y_log=True, series=[first]),
        Panel(title="right", x="depth", y="kappa", y_log=True, series=[second]),
    ]
    values = {"name": "one", "title": "One", "caption": "Look.", "panels": panels}
    return Chart(**{**values, **changes})


def drawn(chart):
    """Returns what the page draws for each panel."""
    return [draw(panel, chart) for _, _, panel in chart.placed]


def test_a_page_draws_bands_gaps_and_names_literally():
    """Bands belong to their lines, and a name is not markup."""
    left, right = drawn(chart())
    band, line = left["data"]
    assert band["fill"] == "toself" and line["name"] == "a &lt; b"
    assert line["y"] == [1.0, None, 100.0] and line["mode"] == "lines+markers"
    assert right["data"][0]["mode"] == "markers" and right["data"][0]["y"] == [None, 5.0]
    assert "1 of 2 values are zero" in chart().panels[1].remarks


def test_panels_share_a_logarithmic_axis():
    """Each panel has the range of all panels."""
    own = [figure["layout"]["yaxis"]["range"] for figure in drawn(chart())]
    shared = [figure["layout"]["yaxis"]["range"] for figure in drawn(chart(share_y=True))]
    assert own[0] != own[1] and shared[0] == shared[1]
    assert shared[0][1] >= own[0][1]


def test_panels_share_a_linear_axis():
    """A page has the same ranges as the files."""
    panels = [Panel(series=[Series(name="a", x=[1, 2], y=[0.0, top])]) for top in (10.0, 20.0)]
    figures = drawn(chart(panels=panels, share_y=True))
    assert [figure["layout"]["yaxis"]["range"] for figure in figures] == [[-1.0, 21.0]] * 2
    from_zero = [replace(panel, y_range=(0.0, None)) for panel in panels]
    (first, _) = drawn(chart(panels=from_zero, share_y=True))
    assert first["layout"]["yaxis"]["range"] == [0.0, 21.0]


def test_a_logarithmic_axis_has_a_decade_and_few_ticks():
    """A small change does not fill the panel, and labels are plain numbers where possible."""
    for numbers, ticks in (
        ([1.0, 1.1], ["0.5", "1", "2"]),
        ([1e-9, 1e9], ["10⁻⁹", "10⁻⁶", "0.001", "1", "1,000", "10⁶", "10⁹"]),
    ):
        panel = Panel(y_log=True, series=[line("a", [1, 2], numbers)])
        axis = drawn(chart(panels=[panel]))[0]["layout"]["yaxis"]
        assert axis["range"][1] - axis["range"][0] >= 1
        assert axis["ticktext"] == ticks


def test_a_file_shows_dollar_signs_literally(tmp_path):
    """A name such as "$x_$" is not a formula, and a broken formula is no error."""
    panel = Panel(title="$x_$", x="a $\\frac$ b", series=[Series(name="$^$", x=[1], y=[1.0])])
    svg, _ = write_stills(chart(panels=[panel]), tmp_path)
    comments = re.findall(r"<!-- (.*?) -->", svg.read_text())
    assert {"$x_$", "a $\\frac$ b", "$^$"} <= set(comments)


def test_files_are_drawn_from_the_same_numbers(tmp_path):
    """The SVG file contains the words, the PNG file opens, and the legend names nothing twice."""
    written = write_stills(chart(share_y=True), tmp_path)
    assert [path.name for path in written] == ["one.svg", "one.png"]
    svg = written[0].read_text()
    comments = re.findall(r"<!-- (.*?) -->", svg)
    for word in ("left", "right", "depth", "kappa", "points"):
        assert word in comments
    assert comments.count("kappa") == 1 and "Date" not in svg
    with Image.open(written[1]) as picture:
        assert picture.size[0] > 800


def test_a_picture_has_its_lowest_row_below(tmp_path):
    """The vertical axis of data points up, that of a screen points down."""
    heat = Heat(values=[[0.0, 0.0], [1.0, 1.0]], x=(-1, 1), y=(-2, 2))
    item = chart(name="heat", panels=[Panel(title="density", heat=heat)])
    (trace,) = drawn(item)[0]["data"]
    assert trace["z"] == [[0.0, 0.0], [1.0, 1.0]]
    assert (trace["y0"], trace["dy"]) == (-2, 4)
    write_stills(item, tmp_path)
    with Image.open(tmp_path / "heat.png") as picture:
        pixels = picture.convert("RGB")
    width, height = pixels.size
    upper, lower = (pixels.getpixel((width // 2, round(height * part))) for part in (0.35, 0.8))
    assert upper[0] > lower[0] and upper[1] > lower[1]  # yellow above violet


def test_a_series_with_lists_of_two_lengths_is_an_error():
    """The error names the series."""
    with pytest.raises(ValueError, match="'a' should have x, y, low and high of one length"):
        Series(name="a", x=[1, 2], y=[1.0])
    with pytest.raises(ValueError, match="'a' should have"):
        Series(name="a", x=[1], y=[1.0], low=[0.5])


def test_a_panel_without_values_says_so():
    """It shows a text in place of the values."""
    empty = Panel(title="none", x="x", y="y", series=[Series(name="a", x=[1], y=[None])])
    (figure,) = drawn(chart(panels=[empty]))
    assert figure["layout"]["shapes"][0]["label"]["text"] == "not finite"


def gaussian(cells=40):
    """Returns the density of a standard normal of two columns in cells."""
    middles = np.linspace(-5, 5, 2 * cells + 1)[1::2]
    return np.exp(-(middles[:, None] ** 2 + middles**2) / 2).tolist()


def test_contours_contain_their_shares():
    """The lines of a normal density are circles of known radii."""
    contour = Contour(name="samples", density=gaussian(), x=(-5, 5), y=(-5, 5))
    heights, (x, y) = np.array(contour.heights), contour.centers
    distance = np.hypot(*np.meshgrid(x, y))
    for level, share in ((1, 0.99), (2, 0.9), (3, 0.5)):
        radius = distance[heights >= level].max()
        assert radius == pytest.approx(math.sqrt(-2 * math.log(1 - share)), abs=0.35), level
    cut = np.array(gaussian()) * (np.array(x) > 0)  # a hard edge
    heights = np.array(replace(contour, density=cut.tolist()).heights)
    assert (heights[:, :20] == 0).all() and (heights[20, 20:30] > 1).all()


def test_a_lower_panel_shares_the_horizontal_axis(tmp_path):
    """On a page in one figure, in files and notebooks in a row of its own."""
    below = Panel(x="mass", y="pull", series=[line("", [0, 1], [2, -2])], x_range=(0, 1))
    contour = Contour(name="samples", density=gaussian(8), x=(0, 1), y=(0, 1))
    boxes = [Box(x=(0.2, 0.4)), Box(x=(0.5, 0.6), y=(0.1, 0.2))]
    upper = Panel(y="share", x_range=(0, 1), contour=contour, boxes=boxes, below=below)
    one = chart(panels=[upper, upper])
    figure = drawn(one)[0]
    assert [trace.get("yaxis") for trace in figure["data"]] == [None, "y2"]
    assert figure["layout"]["xaxis"]["title"]["text"] == "mass"
    lines = figure["data"][0]["contours"]
    assert (lines["start"], lines["end"], lines["size"]) == (1, 3, 1)
    assert figure["layout"]["shapes"][0]["yref"] == "y domain"
    assert (figure["layout"]["shapes"][1]["y0"], figure["layout"]["shapes"][1]["y1"]) == (0.1, 0.2)
    assert [panel.y for panel in one.unstacked.panels] == ["share", "share", "pull", "pull"]
    assert [entry.name for entry in one.entries] == ["samples"]
    assert len(to_plotly(one).data) == 4
    text = write_stills(one, tmp_path, ["svg"])[0].read_text(encoding="utf-8")
    assert text.count('id="axes_') == 4 and "ContourSet" in text
