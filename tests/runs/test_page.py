"""The page of a report from Python."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import kappaflow as kf
from kappaflow.errors import ArgumentError, DataError, DataWarning

NAMES = ("a", "<b>")


def rows(number, seed=0):
    """Returns rows of two columns as a table."""
    values = np.random.default_rng(seed).normal(size=(number, 2))
    return kf.data.Table(values, NAMES, np.arange(1, number + 1), "here")


@pytest.fixture(scope="module")
def result():
    """Returns a short training."""
    flow = kf.real_nvp(2, depth=2, hidden=(8,))
    return kf.fit(flow, rows(300), max_epochs=2, progress=False)


def words(path):
    """Returns the text of a page, without scripts and tags."""
    html = re.sub(r"(?s)<(script|style).*?</\1>", "", path.read_text("utf-8"))
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_a_result_writes_its_page(result, tmp_path):
    """With the curves, the validation rows, both references, and no change of the flow."""
    result.flow.train()
    path = result.report(tmp_path / "page.html", title="Mine")
    assert path == tmp_path / "page.html" and list(tmp_path.iterdir()) == [path]
    assert result.flow.training
    result.flow.eval()
    text = words(path)
    for part in (
        "Mine", "held-out rows 30", "rows for comparison 270", "epochs 2 (best: ",
        "Likelihood over the epochs", "Compared row by row with a Gaussian",
        "The held-out rows are the validation rows", "Conditioning over depth", "&lt;b&gt;",
        "Latent", "Samples against held-out rows", "Findings of the doctor",
    ):  # fmt: skip
        assert part in text, part
    x = torch.tensor(result.validation.values, dtype=torch.float32)
    nll = -result.flow.log_prob(x).mean().item()
    assert f"{nll:.2f}" in text and "report.json" not in text
    assert result.validation_nll == pytest.approx(nll, abs=1e-5)


def test_the_page_has_the_notes_and_findings_of_the_fit(tmp_path):
    """Python, the printed result and the page name the same problems of the data."""
    table = replace(rows(40), notes=("column 'c' is left out: it holds text",))
    flow, settings = kf.real_nvp(2, depth=2, hidden=(8,)), {"max_epochs": 1, "progress": False}
    with pytest.warns(DataWarning):
        result = kf.fit(flow, table, validation=rows(12, seed=2), **settings)
    assert [note.partition(":")[0] for note in result.notes] == [
        "column 'c' is left out", "40 rows are left to train on, fewer than 50",
    ]  # fmt: skip
    text = words(result.report(tmp_path / "page.html"))
    assert all(note in text.replace("&#x27;", "'").replace("&#39;", "'") for note in result.notes)
    assert {"KF506", "KF508", "KF607"} <= {finding.code for finding in result.findings}
    assert all(finding.message in text for finding in result.findings)
    assert all(finding.code in result._repr_html_() for finding in result.findings)
    assert "rows for validation, which decided which epoch to keep" in text
    assert "never used" not in text
    other = words(kf.write_report(result, rows(50, seed=1), tmp_path / "other.html"))
    assert "rows that the training never used" in other


@pytest.mark.slow
def test_a_flow_alone_is_compared_on_half_of_its_rows(result, tmp_path):
    """The page says so, and claims nothing about the training; with `train` all rows count."""
    data = rows(100, seed=1)
    text = words(kf.write_report(result.flow, data.values, tmp_path / "page.html"))
    assert "held-out rows 50 " in text and "the other half" in text
    assert "No epoch was recorded" in text and "course of the training" not in text
    text = words(kf.write_report(result.flow, data, tmp_path / "page.html", train=rows(200)))
    assert "held-out rows 100 " in text and "rows for comparison 200 " in text


@pytest.mark.slow
def test_a_conditional_flow_has_a_page(tmp_path):
    """Its data are a pair."""
    x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    flow = kf.real_nvp(2, depth=2, hidden=(8,), context_features=1)
    result = kf.fit(flow, (x, x[:, :1]), max_epochs=1, progress=False)
    assert "given context_x0" in words(result.report(tmp_path / "page.html", (x, x[:, :1])))


def test_wrong_arguments_write_no_page(result, tmp_path):
    """Each is one sentence."""
    page, flow, data = tmp_path / "page.html", result.flow, rows(20)
    images = kf.glow((1, 4, 4), levels=1, steps=1, hidden=4)
    for arguments, error, message in (
        ((flow, data, tmp_path / "page.txt"), ArgumentError, "'path' should end in .html"),
        ((flow, None, page), ArgumentError, "'data' should be given"),
        ((images, data, page), ArgumentError, "'data' should be images"),
        ((images, kf.load_images("digits"), page), ArgumentError, r"images of shape \(1, 4, 4\)"),
        ((3, data, page), ArgumentError, "'flow' should be a Flow"),
        ((flow, rows(5), page), DataError, "at least 10 rows, got 5"),
        ((flow, data.values[:, :1], page), ArgumentError, "should have 2 columns"),
        ((flow, np.full((20, 2), np.inf), page), DataError, "should hold finite numbers"),
    ):
        with pytest.raises(error, match=message):
            kf.write_report(*arguments)
    assert list(tmp_path.iterdir()) == []
