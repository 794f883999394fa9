"""Charts: the same numbers on a page and in a file."""

import re

import pytest
from PIL import Image

from kappaflow.report.charts import Chart, Heat, Panel, Series, figures_of, write_stills


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
    """Numbered; bands belong to their lines, names are shown as they are."""
    left, right = figures_of(chart())
    assert (left.name, right.name) == ("one-1", "one-2")
    band, line = left.traces
    assert band["fill"] == "toself" and line["name"] == "a &lt; b"
    assert line["y"] == [1.0, None, 100.0] and line["mode"] == "lines+markers"
    assert right.traces[0]["mode"] == "markers" and right.traces[0]["y"] == [None, 5.0]
    assert "1 of 2 values are zero" in right.remark


def test_panels_share_an_axis_where_they_are_asked_to():
    """Each goes as far as all."""
    own = [figure.layout["yaxis"]["range"] for figure in figures_of(chart())]
    shared = [figure.layout["yaxis"]["range"] for figure in figures_of(chart(share_y=True))]
    assert own[0] != own[1] and shared[0] == shared[1]
    assert shared[0][1] >= own[0][1]


def test_files_are_drawn_from_the_same_numbers(tmp_path):
    """SVG with the words in it, PNG that opens; no name of the legend twice."""
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
    """As data has it, not as a screen does."""
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


def test_a_series_has_as_many_values_as_places():
    """Or it says which one has not."""
    with pytest.raises(ValueError, match="'a' should have x, y, low and high of one length"):
        Series(name="a", x=[1, 2], y=[1.0])
    with pytest.raises(ValueError, match="'a' should have"):
        Series(name="a", x=[1], y=[1.0], low=[0.5])


def test_nothing_to_draw_is_said():
    """A panel whose values are all missing has words instead."""
    empty = Panel(title="none", x="x", y="y", series=[Series(name="a", x=[1], y=[None])])
    (figure,) = figures_of(chart(panels=[empty]))
    assert figure.layout["annotations"][0]["text"] == "not finite"


def test_an_axis_ends_where_it_is_told_to():
    """What is larger goes on above its edge, on the page and in files."""
    line = Series(name="loss", x=[1, 2, 3], y=[1.0, 10.0, 1e90], low=[1, 1, 1], high=[2, 20, 1e95])
    panel = Panel(y="nats", y_log=True, y_most=1e9, series=[line])
    shown = Chart(name="c", title="t", caption="", panels=[panel])
    low, high = figures_of(shown)[0].layout["yaxis"]["range"]
    assert -1 < low < 0.1 and 9 <= high < 11
    assert max(value for ys in shown.vertical(panel) for value in ys if value is not None) == 1e9
