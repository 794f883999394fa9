"""Numbers as text and on axes."""

import pytest

from kappaflow.report.charts import Chart, Panel, Series, histogram, line, log_ticks
from kappaflow.report.charts.plotly import draw
from kappaflow.report.numbers import (
    breakable,
    count,
    drawable,
    fixed,
    format_date,
    format_time,
    plain_text,
    significant,
    what_is_not_drawn,
    with_error,
    with_powers,
)

NBSP = "\N{NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (9.996, "10.0"),
        (0.012345, "0.0123"),
        (1234.5, "1,230"),
        (-1.5e-7, f"−1.50{NBSP}×{NBSP}10⁻⁷"),
        (3e12, f"3.00{NBSP}×{NBSP}10¹²"),
        (12, "12"),
        (None, "–"),
        (float("nan"), "not finite"),
        (float("inf"), "not finite"),
        ("Infinity", "not finite"),
        ("2.5", "2.50"),
    ],
)
def test_numbers_read_well(value, text):
    """Three digits, true minus signs, powers of ten, and text for what is not a number."""
    assert significant(value) == text


@pytest.mark.parametrize(
    ("mean", "error", "text"),
    [
        (9.31249, 0.0431, "9.312 ± 0.043"),
        (-127.4, 12.7, "−127 ± 13"),
        (3.0, 0.0, "3.000 ± 0.000"),
        (3.0, float("nan"), "3.000 (error not finite)"),
        (float("inf"), 0.1, "not finite"),
    ],
)
def test_a_mean_is_rounded_to_its_error(mean, error, text):
    """The error keeps two digits and the mean as many decimals."""
    assert with_error(mean, error) == text


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (count(1, "row"), "1 row"),
        (count(12340, "row"), "12,340 rows"),
        (format_time(8.2), "8 seconds"),
        (format_time(400.0), "7 minutes"),
        (format_time(9000.0), "2.5 hours"),
        (format_date("2026-03-01T08:05:09+00:00"), "1 March 2026, 08:05 UTC"),
        (plain_text((64, 64)), "64, 64"),
        (plain_text(True), "yes"),
        (plain_text(None), "none"),
        (plain_text(1e-05), "0.00001"),
        (plain_text(20.0), "20"),
        (plain_text({"a": 2, "b": ()}), "a: 2, b: none"),
        (with_powers("at most 1.5e-06 from"), f"at most 1.5{NBSP}×{NBSP}10⁻⁶ from"),
        (breakable("a_b, temperature_of_the_sensor", "|"), "a_b, temperature_|of_|the_|sensor"),
    ],
)
def test_counts_times_and_settings_read_well(shown, text):
    """As a reader would write them."""
    assert shown == text


def test_fixed_decimals_survive_huge_numbers():
    """A number too long to read turns into a power of ten."""
    assert fixed(2.345, 2) in {"2.35", "2.34"}
    assert fixed(1e300, 2) == f"1.00{NBSP}×{NBSP}10³⁰⁰"


def test_what_an_axis_cannot_show_becomes_a_gap_and_is_counted():
    """A log axis drops zeros, both axes drop what is not finite; missing values do not count."""
    values = [1.0, 0.0, float("nan"), None, "Infinity"]
    assert drawable(values) == [1.0, 0.0, None, None, None]
    assert drawable(values, log=True) == [1.0, None, None, None, None]
    assert what_is_not_drawn([values]) == "2 of 4 values are not finite and are left out."
    assert "1 of 4 values are zero" in what_is_not_drawn([values], log=True)
    assert what_is_not_drawn([[1.0, None]], log=True) == ""


@pytest.mark.parametrize("values", [[1.0], [1e-12, 1e12], [3.0, 4.0], [1e-99, 1e99], [], [0.0]])
def test_log_axes_have_a_few_ticks_inside_their_range(values):
    """From one value to two hundred decades, an axis has two to ten ticks."""
    panel = Panel(y_log=True, series=[line("a", values, values)])
    low, high = Chart(name="c", title="", panels=[panel]).y_ends(panel)
    ticks = log_ticks((low, high))
    assert 1 <= len(ticks) <= 10 and high >= 10 * low
    assert all(low <= tick <= high for tick in ticks)


def test_a_band_falls_apart_where_a_bound_is_missing():
    """A gap splits the polygon instead of drawing across it."""
    ends = {"low": [1.0, 1.0, None, 1.0], "high": [2.0] * 4}
    series = Series(name="a", x=[1, 2, 3, 4], y=[1.5] * 4, **ends)
    panel = Panel(series=[series])
    trace = draw(panel, Chart(name="c", title="", panels=[panel]))["data"][0]
    assert trace["x"] == [1, 2, 2, 1, None, 4, 4]
    assert trace["y"] == [1.0, 1.0, 2.0, 2.0, None, 1.0, 2.0]


def test_a_histogram_has_steps_and_ends_on_the_axis():
    """Each step keeps its height until the next edge."""
    series = histogram("a", [0, 1, 2], [3.0, 4.0], 0, filled=True)
    assert (series.x, series.y) == ([0, 0, 1, 2], [0.0, 3.0, 4.0, 0.0])
