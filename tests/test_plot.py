"""Plots of results: the same numbers in axes of matplotlib and in figures of plotly."""

import sys

import numpy as np
import pytest
import torch

import kappaflow as kf
from kappaflow.errors import ArgumentError, DataError

plt = pytest.importorskip("matplotlib.pyplot")
go = pytest.importorskip("plotly.graph_objects")


@pytest.fixture(scope="module", autouse=True)
def without_windows():
    """Draws into memory."""
    backend = plt.get_backend()
    plt.switch_backend("agg")
    yield
    plt.switch_backend(backend)


@pytest.fixture(autouse=True)
def close_figures():
    """Closes the figures of a test."""
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def x():
    """Returns rows of three columns, of which two are correlated."""
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    return torch.cat((x[:, :2], x[:, :1] + 0.5 * x[:, 2:]), dim=1)


@pytest.fixture(scope="module")
def result(x):
    """Returns a short training."""
    return kf.fit(kf.real_nvp(3, depth=2, hidden=(8,)), x, max_epochs=2, progress=False)


@pytest.mark.parametrize(
    ("quantity", "first"),
    [("condition_number", "condition_number"), ("singular_values", "sigma_max")],
)
def test_axes_and_figure_have_the_numbers_of_a_profile(result, x, quantity, first):
    """The line is the median over the rows."""
    profile = kf.profile(result.flow, x[:16])
    expected = getattr(profile, first).quantile(0.5, dim=1).numpy()
    ax = profile.plot(quantity=quantity)
    figure = profile.plot(quantity=quantity, interactive=True)
    start = len(ax.lines[0].get_ydata()) - len(expected)  # singular values start at the data
    np.testing.assert_allclose(ax.lines[0].get_ydata()[start:], expected)
    np.testing.assert_allclose(figure.data[1].y[start:], expected)
    assert ax.get_xlabel() == figure.layout.xaxis.title.text
    assert ax.get_yscale() == figure.layout.yaxis.type == "log"
    assert "var(" not in figure.to_json()


def test_a_plot_is_drawn_on_given_axes(result, x):
    """A flow is measured at some rows of the data."""
    figure, (left, right) = plt.subplots(1, 2)
    assert kf.plot.depth_profile(result, x, quantity="round_trip", ax=left) is left
    assert kf.plot.spectrum(result.flow, x.numpy(), ax=right) is right
    assert figure.axes == [left, right] and left.get_legend() is not None
    expected = kf.spectrum(result.flow.core, result.flow.standardization(x)[0], k=3).sigma_max
    low, high = expected[:, 0].min(), expected[:, 0].max()
    assert low <= right.lines[0].get_ydata()[0] <= high


def test_a_notebook_shows_each_plot(monkeypatch):
    """Its first figure turns the display of new figures on, which has to last."""
    figure = plt.figure
    monkeypatch.setattr(plt, "figure", lambda **options: (plt.ion(), figure(**options))[1])
    with plt.rc_context():
        kf.plot.factorization(kf.factor_linear(torch.tensor([[0.0, -1.0], [1.0, 0.0]])))
        assert plt.isinteractive()


def test_a_spectrum_is_plotted_at_both_ends(result, x):
    """One value at each end of three, and all values without one twice."""
    item = kf.spectrum(result.flow.core, x[:8]).plot(interactive=True)
    assert [list(trace.x) for trace in item.data if trace.name] == [[1], [3]]
    every = kf.spectrum(result.flow.core, x[:8], k=3).plot(interactive=True)
    lines = [trace for trace in every.data if trace.name]
    assert [list(trace.x) for trace in lines] == [[1, 2], [3]]
    falling = [value for trace in lines for value in trace.y]
    assert falling == sorted(falling, reverse=True)


def test_pairs_name_columns_and_correlations(result, x):
    """Any columns, by name or by number; the diagonal has densities."""
    axes = kf.plot.pairs(result, x, columns=[2, "x0"], rows=150)
    assert axes.shape == (2, 2) and axes[0, 1].axison is False
    rows = x[np.linspace(0, 199, 150).round().astype(int)]
    correlation = np.corrcoef(rows[:, [2, 0]].argsort(0).argsort(0).T)[0, 1]  # of the ranks
    assert axes[1, 0].get_title().startswith(f"r {correlation:.2f}, ")
    assert (axes[1, 0].get_xlabel(), axes[1, 0].get_ylabel()) == ("x2", "x0")
    assert len(axes[1, 0].lines[0].get_xdata()) == 150 and axes[1, 0].collections
    assert len(kf.plot.pairs(result, x, interactive=True).data) == 12


def test_a_comparison_is_plotted_by_columns(result, x):
    """Densities above and differences below; columns in any order."""
    compared = kf.two_sample(result.flow, x)
    axes = compared.plot(columns=["x2", 0])
    marginal = compared.marginals[2]
    assert axes.shape == (2, 2) and axes[0, 0].get_title().startswith("x2: p ")
    density = np.array(marginal.samples) / np.diff(marginal.edges)
    np.testing.assert_allclose(axes[0, 0].lines[0].get_ydata()[1:-1], density)
    np.testing.assert_allclose(axes[1, 0].lines[0].get_ydata()[1:-1], marginal.pulls)
    assert axes[1, 1].get_xlabel() == "x0" and axes[0, 0].get_xlim() == axes[1, 0].get_xlim()
    figure = kf.plot.marginals(result, x, interactive=True)
    assert figure_shape(figure) == (2, 3)
    np.testing.assert_allclose(figure.data[1].y[1:-1], axes[0, 1].lines[0].get_ydata()[1:-1])


def test_a_calibration_is_plotted_as_coverage_and_ranks(result, x):
    """With one line and one panel for each column, for the density and random references."""
    calibration = kf.calibration(result.flow, x)
    ax = kf.plot.coverage(calibration, ax=plt.subplots()[1])
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    assert list(lines["central, x1"]) == calibration.covered["x1"]
    assert list(lines["highest density"]) == calibration.covered["highest density"]
    figure = kf.plot.pit(result, x, interactive=True)
    ranks = [trace for trace in figure.data if trace.name == "held-out rows"]
    expected = [list(16 * np.array(part)) for part in calibration.histograms.values()]
    assert [list(trace.y[1:-1]) for trace in ranks] == expected
    axes = calibration.plot()
    titles = [ax.get_title() for ax in axes.flat if ax.axison]
    assert axes.flat[0].figure.legends and axes.flat[0].get_legend() is None  # six names
    assert titles == ["Coverage", "x0", "x1", "x2", "highest density", "random reference"]


def test_pairs_of_a_conditional_flow_use_the_context_of_each_row():
    """One sample a row."""
    x = torch.randn(200, 1, generator=torch.Generator().manual_seed(0))
    flow = kf.real_nvp(1, depth=2, hidden=(8,), context_features=1)
    figure = kf.plot.pairs(flow, (x, x + 1), interactive=True)
    assert len(figure.data) == 2
    with pytest.raises(ArgumentError, match="should have 1 context columns"):
        kf.plot.pairs(flow, x)


def test_names_of_columns_are_shown_literally(result, x):
    """Neither HTML nor a variable of a style sheet."""
    names = ["<b>a</b>", "var(--data) $_$", "c"]
    table = kf.data.Table(x.double().numpy(), tuple(names), np.arange(1, 201), "here")
    figure = kf.plot.pairs(result, table, interactive=True)
    titles = [note.text for note in figure.layout.annotations]
    assert "&lt;b&gt;a&lt;/b&gt;" in titles and "var(--unknown)" not in titles
    ax = kf.plot.pairs(result, table, columns=[1])
    ax.figure.canvas.draw()
    assert ax.get_xlabel() == names[1]


def test_columns_of_a_training_are_found_by_their_names(x):
    """In any order, next to others."""
    names = ("a", "b", "c")
    table = kf.data.Table(x.double().numpy(), names, np.arange(1, 201), "here")
    result = kf.fit(kf.real_nvp(3, depth=2, hidden=(8,)), table, max_epochs=1, progress=False)
    order = [2, 1, 0, 1]
    others = kf.data.Table(table.values[:, order], ("c", "b", "a", "d"), table.rows, "there")
    expected, actual = (kf.plot.latent(result, item)[0, 1].lines[0] for item in (table, others))
    np.testing.assert_array_equal(actual.get_ydata(), expected.get_ydata())


def test_training_latent_and_factorization_have_several_panels(result, x):
    """Each panel has the title of its chart and its own legend."""
    curves = result.plot()
    assert curves[0, 0].get_title() == "Likelihood over the epochs"
    expected = [line["train_nll_standardized"] for line in result.history]
    np.testing.assert_allclose(curves[0, 0].lines[0].get_ydata(), expected)
    assert all(ax.get_legend() is not None for ax in curves.flat if ax.axison)
    assert kf.plot.latent(result, x).shape == (1, 2)
    factors = kf.factor_linear(torch.tensor([[1.0, 2.0], [0.5, 3.0]]))
    figure = factors.plot(interactive=True)
    maps = [trace for trace in figure.data if trace.type == "heatmap"]
    np.testing.assert_allclose(maps[0].z, factors.matrix, rtol=1e-2)
    assert len(maps) == 1 + len(factors) and {axis.scaleanchor for axis in heat_axes(figure)} > {
        "x"
    }
    assert factors.plot().shape == figure_shape(figure)


def heat_axes(figure):
    """Returns the vertical axes that keep cells square."""
    return [axis for axis in figure.select_yaxes() if axis.scaleanchor]


def figure_shape(figure):
    """Returns the numbers of rows and columns of subplots."""
    rows, columns = figure._get_subplot_rows_columns()
    return len(rows), len(columns)


@pytest.mark.slow
def test_a_training_on_an_energy_is_plotted():
    """Its loss is the free energy; its text has log Z."""
    flow = kf.real_nvp(2, depth=2, hidden=(8,))
    result = kf.fit_energy(flow, lambda x: -x.square().sum(1), steps=20, progress=False)
    figure = result.plot(interactive=True)
    assert list(figure.data[0].y) == [line["free_energy"] for line in result.history]
    assert "log Z: " in repr(result) and "effective sample size: " in repr(result)


def test_images_are_measured_as_tensors():
    """A spectrum of many dimensions has a few values at each end."""
    flow = kf.glow((1, 4, 4), levels=1, steps=1, hidden=4)
    x = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert len(kf.plot.latent(flow, x, interactive=True).data) == 4


def test_without_matplotlib_a_sentence_says_what_to_do(result, monkeypatch):
    """Figures of plotly need no further package."""
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ArgumentError, match=r'pip install "kappaflow\[figures\]", or pass inter'):
        result.plot()
    turn = kf.factor_linear(torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
    assert isinstance(turn.plot(interactive=True), go.Figure)


def test_wrong_arguments_are_one_sentence(result, x):
    """They name the argument."""
    profile = kf.profile(result.flow, x[:4])
    for call, message in (
        (lambda: kf.plot.depth_profile(result), "'x' should be given with a flow"),
        (lambda: kf.plot.depth_profile(profile, x), "'x' should be left out: a profile"),
        (lambda: profile.plot(quantity="sigma"), "'quantity' should be one of"),
        (lambda: profile.plot(ax=1, interactive=True), "'ax' should be left out"),
        (lambda: kf.plot.training(result.flow), "'result' should be what fit"),
        (lambda: kf.plot.factorization(x), "'factorization' should be what factor_linear"),
        (lambda: kf.plot.pairs(result, x, columns=["y"]), "'columns' should be one of"),
        (lambda: kf.plot.pairs(result, x, columns="x0"), "'columns' should be a list"),
        (lambda: kf.plot.pairs(result, x, rows=0), "'rows' should be at least 1"),
        (lambda: kf.plot.latent(3, x), "'flow' should be a Flow"),
        (lambda: kf.plot.pit(result), "'data' should be given with a flow"),
        (lambda: kf.plot.marginals(result), "'data' should be given with a flow"),
        (lambda: kf.plot.marginals(result, x, columns=["y"]), "'columns' should be one of"),
        (lambda: kf.plot.coverage(kf.calibration(result.flow, x), x), "'data' should be left out"),
        (lambda: kf.plot.marginals(kf.two_sample(result.flow, x), x), "'data' should be left out"),
        (lambda: kf.plot.latent(result, x[:, :2]), "'data' should have 3 columns"),
    ):
        with pytest.raises(ArgumentError, match=message):
            call()
    with pytest.raises(DataError, match="should hold finite numbers"):
        kf.plot.latent(result, x.log())
