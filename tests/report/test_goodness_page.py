"""Samples against held-out rows: on the pages of runs and of the doctor."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.report.examples import Page, build_report, compared_at_contexts, conditional_rows

import kappaflow as kf
from kappaflow.goodness.corner import corner_of
from kappaflow.report.calibration import pit_chart
from kappaflow.report.diagnosis import render_diagnosis
from kappaflow.report.files import from_json, render, to_json
from kappaflow.report.goodness import corner_chart, goodness_section
from kappaflow.report.page import Charts, TextTable


@pytest.fixture(scope="module")
def compared():
    """Returns comparisons of an untrained conditional flow, as parts of a report."""
    return compared_at_contexts()


def test_comparisons_survive_report_json(compared):
    """With their level, and without the ranks."""
    text = to_json(build_report(**compared))
    content = json.loads(text)["charts"]
    assert content["two_sample"]["level"] == compared["two_sample"].level == "bad"
    assert "ranks" not in content["calibration"] and "corner" not in content["two_sample"]
    charts = from_json(text).charts
    assert {name: getattr(charts, name) for name in compared} == compared


def test_columns_are_shown_at_three_contexts(compared):
    """Held-out rows next to each quantile of the context, and samples at their contexts."""
    given, (x, context) = compared["given"], conditional_rows()
    assert [(part.column, part.count) for part in given] == [("x0", 60), ("x1", 60)] * 3
    expected = np.quantile(context.numpy(), [0.1, 0.5, 0.9])
    np.testing.assert_allclose([part.value for part in given[::2]], expected)
    assert all(part.low <= part.value <= part.high for part in given)
    near = x[(context[:, 0] >= given[4].low) & (context[:, 0] <= given[4].high), 0].numpy()
    counts = np.histogram(np.clip(near, given[4].edges[0], given[4].edges[-1]), given[4].edges)[0]
    np.testing.assert_allclose(given[4].rows, counts / 60)
    assert all(sum(part.samples) == pytest.approx(1) for part in given)


def test_a_corner_has_the_columns_of_the_worst_deviations():
    """Five of eight, with the shares of all samples over each pair."""
    x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    flow = kf.Flow(kf.StandardNormal(8), kf.bijections.ElementwiseAffine(8))
    x[:, 7] *= 3
    result = kf.two_sample(flow, x)
    corner = result.corner
    assert corner.columns[-1] == "x7"
    assert len(corner.columns) == 5 and len(corner.densities) == 10
    low, high = corner.frames[-1]
    inside = (x[:, 7] >= low) & (x[:, 7] < high)
    assert sum(corner.row_shares[-1]) == pytest.approx(inside.double().mean().item())
    density = np.reshape(corner.densities[-1], (24, 24))  # rows are cells of the last column
    np.testing.assert_allclose(density.sum(1), corner.sample_shares[-1], atol=1e-4)
    np.testing.assert_allclose(density.sum(0), corner.sample_shares[-2], atol=1e-4)


def test_a_panel_of_a_pair_has_its_columns_and_correlations():
    """Lines over the second column along the vertical axis; a constant column has no number."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 3)) * [1, 1, 0]
    samples = np.hstack([rows[:, :1], 0.1 * rows[:, 1:2] - rows[:, :1], rows[:, 2:]])
    samples[7] = np.inf
    chart = corner_chart(corner_of(["a", "b", "c"], rows, samples))
    assert chart.panels[3].title.startswith("r 0.0") or chart.panels[3].title.startswith("r −0.0")
    assert chart.panels[3].title.endswith(", −0.99")
    assert chart.panels[6].title == "r not finite, not finite"
    density, series = np.array(chart.panels[3].contour.density), chart.panels[4].series
    assert (chart.panels[3].x, chart.panels[3].y) == ("a", "b")
    width = (chart.panels[4].x_range[1] - chart.panels[4].x_range[0]) / 24
    inside = np.array(series[1].y[1:-1]) * width
    np.testing.assert_allclose(density.sum(1), inside, atol=0.01)
    assert np.corrcoef(density.sum(1), inside)[0, 1] > 0.999


def right_flow(features):
    """Returns a flow of standard normal rows."""
    return kf.Flow(kf.StandardNormal(features), kf.bijections.ElementwiseAffine(features))


def rows_with_line():
    """Returns 2,000 rows, of which 3 % are in a narrow line."""
    x = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    x[:60, 1] = 0.7 + 0.001 * x[:60, 1]
    return x


def with_line():
    """Returns the comparison of these rows with a flow without the line."""
    return kf.two_sample(right_flow(2), rows_with_line())


def first_chart(result, calibration=None):
    """Returns the chart at the top of the section."""
    section = goodness_section(kf.goodness.Goodness(result, calibration), result.corner)
    return next(block for block in section.blocks if isinstance(block, Charts)).charts[0], section


def test_the_worst_place_is_a_picture_with_its_sentence():
    """The region is shaded, and the histogram is zoomed to bins as narrow as the region."""
    result = with_line()
    chart, section = first_chart(result)
    panel, (low, high) = chart.panels[0], result.deviations[0].region[0]
    assert chart.name == "worst" and chart.caption == result.deviations[0].sentence
    assert panel.x_range[1] - panel.x_range[0] < 12 * (high - low) < 0.5
    assert panel.boxes[0].x == (low, high)
    assert max(panel.series[0].y) > 10 * max(panel.series[1].y)
    table = next(block for block in section.blocks if isinstance(block, TextTable))
    assert {row[0] for row in table.rows} == {one.sentence for one in result.deviations}


def test_a_worst_pair_is_a_cloud_of_points_with_a_box():
    """Of the rows and of the samples, in the columns of the box."""
    x = torch.randn(1500, 1, generator=torch.Generator().manual_seed(0)).repeat(1, 2)
    result = kf.two_sample(right_flow(2), x + 0.05 * torch.randn(1500, 2))
    chart, _ = first_chart(result)
    pair = next(one for one in result.deviations if len(one.columns) == 2)
    panel = chart.panels[0]
    assert chart.caption == pair.sentence and len(panel.boxes) == 1
    assert [series.kind for series in panel.series] == ["points", "points"]
    assert (panel.x, panel.y) == tuple(sorted(pair.columns))


def test_the_worst_context_is_a_histogram_of_ranks(compared):
    """Of the rows in that bin of the context."""
    calibration = compared["calibration"]
    right = kf.two_sample(right_flow(2), torch.randn(500, 2))
    chart, _ = first_chart(right, calibration)
    worst = next(one for one in calibration.deviations if one.sentence == chart.caption)
    assert chart.panels[0].series[1].y[1:-1] == [16 * s for s in worst.histogram]


def test_a_page_of_a_right_flow_has_no_picture_of_a_worst_place():
    """It says that no test found a difference, and what would not have shown."""
    x = torch.randn(500, 12, generator=torch.Generator().manual_seed(0))
    result = kf.two_sample(right_flow(12), x)
    report = build_report(columns=12, two_sample=result, corner=result.corner)
    page = Page(render(report))
    assert "worst" not in page.figures
    assert "No test of columns, pairs or all columns together finds a difference." in page.words
    assert "With 500 held-out rows, these tests see a line with" in page.words
    assert "This is not a bound on the divergence" in page.words
    for marginal in result.marginals:  # fine bins need a deviation
        widths = np.diff(marginal.edges)
        np.testing.assert_allclose(widths, widths[0])


def test_negligible_deviations_are_folded_below_a_green_verdict():
    """Significant, of a level that is good: there is no worst place."""
    result = with_line()
    small = tuple(replace(one, level="good") for one in result.deviations)
    chart, section = first_chart(replace(result, deviations=small, level="good"))
    text, details = section.blocks[:2]
    assert chart.name == "marginals" and "finds a difference that matters" in text.text
    assert details.summary == f"{len(small)} negligible deviations"


def test_a_page_of_a_conditional_flow_has_its_calibration(compared):
    """Coverage, ranks, coverage by context, and the columns at three contexts."""
    figures = Page(render(build_report(columns=2, **compared))).figures
    assert {"coverage", "contexts", "given-1", "given-6", "pit-1", "pit-4"} <= set(figures)
    names = [trace.get("name") for trace in figures["coverage"]["data"]]
    assert names[-2:] == ["highest density", "random references (TARP)"]
    nominal = figures["coverage"]["data"][-1]["x"]
    assert tuple(nominal) == compared["calibration"].coverages


def test_ranks_of_right_flows_are_inside_of_the_band():
    """In at least 95 of 100 comparisons all bins of all panels are; it should be 99."""
    inside = 0
    for seed in range(100):
        x = torch.randn(200, 1, generator=torch.Generator().manual_seed(1000 + seed))
        chart = pit_chart(kf.calibration(right_flow(1), x, seed=seed))
        inside += all(
            panel.series[0].low[0] <= y <= panel.series[0].high[0]
            for panel in chart.panels
            for y in panel.series[1].y[1:-1]
        )
    assert inside >= 95


def test_the_page_of_the_doctor_has_the_same_section():
    """Without what only a run has."""
    html = render_diagnosis(kf.doctor(right_flow(2), rows_with_line()))
    page = Page(html)
    assert {"worst", "marginals-1", "corner-1"} <= set(page.figures)
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert sections[:2] == ["findings", "samples"]
    card = html.split("<span>KF509</span>")[1].split("</article>")[0]
    assert "data-figure=" not in card  # its charts are those of the section
