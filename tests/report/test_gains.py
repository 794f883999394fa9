"""The chart and the section of a report on what each layer gains."""

import torch

import kappaflow as kf
from kappaflow.report.conditioning import gains_chart, gains_section


def figures():
    """Returns the gains of a new flow whose first layer scales: all its couplings are idle."""
    flow = kf.real_nvp(2, depth=2, hidden=(8,))
    return kf.depth_gains(flow, torch.randn(100, 2, generator=torch.Generator().manual_seed(0)))


def test_the_chart_begins_at_the_data_and_ends_at_the_total():
    """With two standard errors around it, above the condition number from 1 on."""
    gains = figures().figures()
    likelihood, condition = gains_chart(gains).panels
    (curve,), (numbers,) = likelihood.series, condition.series
    assert curve.x == numbers.x == [0, 1, 2] and curve.labels[0] == "the data"
    assert curve.y[0] == 0 and numbers.y[0] == 1
    assert curve.high[2] - curve.y[2] == 2 * gains.reached_errors[2]
    assert likelihood.rules[0].at == gains.total


def test_the_section_names_the_layers_that_are_not_needed():
    """Without figures there is no section."""
    (section,) = gains_section(figures().figures())
    (text,) = [block.text for block in section.blocks if hasattr(block, "text")]
    assert text.startswith("Not needed, since next to nothing is lost without them: 1 Affine")
    assert gains_section(None) == []


def test_the_plot_has_both_panels():
    """From gains, or from a flow and rows."""
    gains = figures()
    flow, x = kf.real_nvp(2, depth=2, hidden=(8,)), torch.randn(100, 2)
    for figure in (gains.plot(interactive=True), kf.plot.depth_gains(flow, x, interactive=True)):
        assert {"gained so far", "condition number"} <= {trace.name for trace in figure.data}
