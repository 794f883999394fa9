"""Results in a console and in a notebook."""

import re

import pytest
import torch

import kappaflow as kf
from kappaflow.diagnosis import Diagnosis, Finding
from kappaflow.summary import Summary

X = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))


def results():
    """Yields each kind of result with parts of its text."""
    flow = kf.real_nvp(3, depth=2, hidden=(8,))
    result = kf.fit(flow, X, max_epochs=3, progress=False)
    yield (
        result,
        "real_nvp, 3 features",
        "validation NLL: ",
        "epochs: 3, best ",
        "stopped by max_e",
    )
    yield kf.profile(flow, X[:8]), "2 layers at 8 rows", "worst layer: ", "round trip from data: "
    yield kf.spectrum(flow.core, X[:8], k=2), "3 dimensions at 8 rows, exact by dense", "median 1"
    yield kf.round_trip(flow, X[:8]), "rows: 8; from data: median "
    yield kf.doctor(flow, X[:8]), "verdict: ", "findings: "
    yield kf.factor_linear(torch.tensor([[1.0, 2.0], [0.5, 3.0]])), "2 features in ", "residual: "
    samples = kf.energies.importance_sample(flow, lambda x: -x.square().sum(1), 64)
    yield samples, "samples: 64", "log Z: "


@pytest.fixture(scope="module")
def every():
    """Returns the results with parts of their texts."""
    return [(result, parts) for result, *parts in results()]


def test_a_result_is_a_short_text(every):
    """It has the main figures and no tensor."""
    for result, parts in every:
        text = repr(result)
        assert text.startswith(f"{type(result).__name__}(") and len(text) < 1200
        assert all(part in text for part in parts) and "tensor" not in text


def test_a_result_is_a_table_in_a_notebook(every):
    """It has the same figures, each in a row."""
    for result, _ in every:
        page = result._repr_html_()
        assert page.count("<tr>") >= 3 or len(result._facts()) < 3
        assert all(f">{name}</th>" in page for name, _ in result._facts())


def test_a_training_shows_its_curve(every):
    """Falling losses are a falling line."""
    result = every[0][0]
    line = re.search(r"held out: (\S+) (\S+) (\S+?)[;)]", repr(result))
    losses = [line["validation_nll_standardized"] for line in result.history]
    assert line[1] == f"{losses[0]:.3g}" and line[3] == f"{losses[-1]:.3g}"
    assert len(line[2]) == 3 and line[2].index("█") == losses.index(max(losses))


def test_names_of_columns_are_text_in_a_notebook():
    """A finding that names a column runs no script."""
    message = "column '<script>alert(1)</script>' & more"
    finding = Finding("KF501", "warning", None, message, "a < b", "leave it out")
    page = Diagnosis((finding,), message)._repr_html_()
    assert "<script" not in page and page.count("&lt;script&gt;") == 2
    assert "a &lt; b" in page and "warning KF501" in page


def test_a_table_escapes_what_it_shows():
    """Names and values, at the one place that writes HTML."""

    class Two(Summary):
        def _facts(self):
            return [("<b>", "&")]

    assert "<th" in Two()._repr_html_() and "&lt;b&gt;" in Two()._repr_html_()
    assert "<b><" not in Two()._repr_html_() and repr(Two()) == "Two(<b>: &)"
