"""Charts: the same numbers on a page and in a file."""

import re

import pytest
from PIL import Image

from kappaflow.report.charts import Chart, Heat, Panel, Series, figures_of, write_stills
from kappaflow.report.charts.matplotlib import to_matplotlib


def chart(**changes):
    """Returns two panels with a band, a gap, points and a value that no log axis shows."""
    first = Series(
        name="a < b",
        x=[1, 2, 3],
        y=[1.0, None, 100.0],
        low=[0.5, None, 50.0],
        high=[2.0, None, 200.0],
    )
    second = Series(name="points", x=[1, 2], y=[0.0, 5.0], tone=1, dash="none")
    panels = [
        Panel(title="left", x="depth", y="kappa", y_log=True, series=[first]),
        Panel(title="right", x="depth", y="kappa", y_log=True, series=[second]),
    ]
    values = {"name": "one", "title": "One", "caption": "Look.", "panels": panels}
    return Chart(**{**values, **changes})


def test_each_panel_is_a_figure_of_the_page():
    """Figures are numbered, bands belong to their lines, and names are shown literally."""
    left, right = figures_of(chart())
    assert (left.name, right.name) == ("one-1", "one-2")
    band, line = left.traces
    assert band["fill"] == "toself" and line["name"] == "a &lt; b"
    assert line["y"] == [1.0, None, 100.0] and line["mode"] == "lines+markers"
    assert right.traces[0]["mode"] == "markers" and right.traces[0]["y"] == [None, 5.0]
    assert "1 of 2 values are zero" in right.remark


def test_panels_share_a_logarithmic_axis():
    """Each panel has the range of all panels."""
    own = [figure.layout["yaxis"]["range"] for figure in figures_of(chart())]
    shared = [figure.layout["yaxis"]["range"] for figure in figures_of(chart(share_y=True))]
    assert own[0] != own[1] and shared[0] == shared[1]
    assert shared[0][1] >= own[0][1]


def test_panels_share_a_linear_axis():
    """A page has the same ranges as the files."""
    panels = [Panel(series=[Series(name="a", x=[1, 2], y=[0.0, top])]) for top in (10.0, 20.0)]
    figures = figures_of(chart(panels=panels, share_y=True))
    assert [figure.layout["yaxis"]["range"] for figure in figures] == [[-1.0, 21.0]] * 2
    from_zero = [panel.model_copy(update={"y_from_zero": True}) for panel in panels]
    (first, _) = figures_of(chart(panels=from_zero, share_y=True))
    assert first.layout["yaxis"]["range"] == [0.0, 21.0]


def test_a_file_shows_dollar_signs_literally(tmp_path):
    """A name such as "$x_$" is not a formula, and a broken formula is no error."""
    panel = Panel(title="$x_$", x="a $\\frac$ b", series=[Series(name="$^$", x=[1], y=[1.0])])
    svg, _ = write_stills(chart(panels=[panel]), tmp_path)
    comments = re.findall(r"<!-- (.*?) -->", svg.read_text())
    assert {"$x_$", "a $\\frac$ b", "$^$"} <= set(comments)


@pytest.mark.slow
def test_chosen_ticks_of_a_logarithmic_axis_are_labelled():
    """Instead of the powers of ten."""
    series = [Series(name="a", x=[4, 16, 64], y=[1, 2, 3])]
    panel = Panel(x="depth", x_log=True, x_ticks=[4, 16, 64], series=series)
    (cell,) = to_matplotlib(chart(panels=[panel])).axes
    assert [label.get_text() for label in cell.get_xticklabels()] == ["4", "16", "64"]


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
    one = chart(name="heat", panels=[Panel(title="density", heat=heat)])
    (figure,) = figures_of(one)
    assert figure.traces[0]["z"] == [[0.0, 0.0], [1.0, 1.0]]
    assert (figure.traces[0]["y0"], figure.traces[0]["dy"]) == (-2, 4)
    write_stills(one, tmp_path)
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
    (figure,) = figures_of(chart(panels=[empty]))
    assert figure.layout["annotations"][0]["text"] == "not finite"


def test_an_axis_ends_at_its_upper_limit():
    """Larger values leave the panel at its upper edge, on the page and in files."""
    line = Series(name="loss", x=[1, 2, 3], y=[1.0, 10.0, 1e90], low=[1, 1, 1], high=[2, 20, 1e95])
    panel = Panel(y="nats", y_log=True, y_most=1e9, series=[line])
    shown = Chart(name="c", title="t", caption="", panels=[panel])
    low, high = figures_of(shown)[0].layout["yaxis"]["range"]
    assert -1 < low < 0.1 and 9 <= high < 11
    assert max(value for ys in shown.vertical(panel) for value in ys if value is not None) == 1e9
