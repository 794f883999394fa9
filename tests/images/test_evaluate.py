"""The numbers and the pictures of a report on images against independent computations."""

import base64
import io
import json
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

import kappaflow as kf
from kappaflow.diagnosis import image_likelihood_findings
from kappaflow.images import ImageConfig
from kappaflow.images.content import independent_bits
from kappaflow.report.files import read_report
from kappaflow.runs import ModelConfig, fit_run, score_run
from kappaflow.runs.kinds import points_of
from kappaflow.training import FitResult

SOURCE = ImageConfig("digits", by_class=True)


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    """A run on the digits, given their class."""
    return fit_run(
        SOURCE,
        ModelConfig("glow", {"levels": 1, "steps": 1, "hidden": 4, "memory": "store"}),
        tmp_path_factory.mktemp("runs") / "run",
        progress=False,
        max_epochs=1,
        learning_rate=2e-2,
    )


@pytest.fixture(scope="module")
def report(summary):
    """Its report."""
    return read_report(summary.folder)


def pixels_of(picture):
    """The pixels of a picture of a report, (height, width)."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.png))))


def tiles_of(picture, side=8):
    """The images of a picture of a report, (N, side, side), as whole numbers 0 to 16."""
    sheet = pixels_of(picture)
    rows, columns = (sheet.shape[0] + 1) // (side + 1), picture.columns
    step = side + 1
    tiles = [
        sheet[r * step : r * step + side, c * step : c * step + side]
        for r in range(rows)
        for c in range(columns)
    ]
    return np.rint(np.stack(tiles) * (16 / 255))


@pytest.mark.slow
def test_bits_per_dimension_are_those_of_the_loaded_flow(summary, report):
    """The mean over the test images of minus log2 of the density, over 64 numbers."""
    parts, flow = SOURCE.load(), kf.load(summary.folder)
    x = parts.test.batch(range(len(parts.test))).float()
    context = torch.eye(10)[torch.from_numpy(parts.test.labels.copy())]
    with torch.no_grad():
        nll = -flow.log_prob(x, context, generator=torch.Generator().manual_seed(0)).double()
    bits = nll / (64 * math.log(2))
    result = summary.result
    assert result.test.bits_per_dimension == pytest.approx(bits.mean().item(), abs=1e-5)
    assert result.test.nll == pytest.approx(nll.mean().item(), abs=1e-3)
    error = bits.numpy().std() / math.sqrt(len(bits))
    assert result.test.bits_standard_error == pytest.approx(error, rel=1e-4)
    assert report.result.test.quantiles["max"] == pytest.approx(bits.max().item(), abs=1e-4)
    assert report.result.test.bits_per_dimension == result.test.bits_per_dimension


def test_the_baseline_is_that_of_histograms_counted_by_hand():
    """Each place on its own, joined with all places by the weight that validation prefers."""
    images = kf.load_images("digits")
    train, validation, test = (images.subset(range(i, i + 60)) for i in (0, 60, 120))
    pixels = [part.batch(range(60)).numpy().reshape(60, 64) for part in (train, validation, test)]
    anywhere = np.array([(pixels[0] == v).sum() + 1.0 for v in range(17)])
    anywhere /= anywhere.sum()

    def bits(weight, coded):
        total = 0.0
        for position in range(64):
            for value in coded[:, position]:
                seen = (pixels[0][:, position] == value).sum()
                total -= math.log2((seen + weight * anywhere[value]) / (60 + weight))
        return total / coded.size

    best = min((1.0, 4.0, 16.0, 64.0, 256.0), key=lambda weight: bits(weight, pixels[1]))
    baseline = independent_bits(train, validation, test)
    assert baseline.shape == (60,)
    assert baseline.mean() == pytest.approx(bits(best, pixels[2]), rel=1e-12)


def test_the_page_from_python_is_that_of_the_command(summary, tmp_path):
    """Sections, figures and pictures, from a result of `fit`; no files lie next to it."""
    parts, metrics = SOURCE.load(), (summary.folder / "metrics.jsonl").read_text()
    history = tuple(map(json.loads, metrics.splitlines()))
    flow = kf.load(summary.folder)
    result = FitResult(flow, history, 0.0, 1, "max_epochs", train=parts.train)
    page = result.report(tmp_path / "page.html", parts.test).read_text()
    command = (summary.folder / "report.html").read_text()
    for pattern in (r'<section id="([\w-]+)"', r'class="value">([^<]*)', r'base64,([^"]+)'):
        assert re.findall(pattern, page) == re.findall(pattern, command) != []
    assert "report.json" in command and "report.json" not in page
    assert [*tmp_path.iterdir()] == [tmp_path / "page.html"]


def test_a_flow_worse_than_the_histograms_is_told_so(summary, report):
    """After one epoch of a tiny flow the verdict says that it knows nothing of images."""
    assert summary.result.test.bits_per_dimension > summary.result.references[0].nll
    assert "KF502" in [finding.code for finding in report.result.findings]
    assert "histograms of single pixels" in summary.result.verdict
    for bits, independent in ((2.0, 2.1), (None, None), (math.nan, 2.0)):
        assert not list(image_likelihood_findings(bits, 0.01, independent))
    (finding,) = image_likelihood_findings(2.1, 0.01, 2.1 - 1e-3)
    assert "is no better (0.001 ± 0.010 bits per dimension) than" in finding.message


def test_grids_show_the_samples_at_their_temperature(summary, report):
    """A row for each of ten classes; colder ones come from the same latents, shortened."""
    flow = kf.load(summary.folder)
    context = torch.eye(10).repeat_interleave(8, 0)
    for temperature, picture in zip((0.5, 0.7, 0.8, 1.0), report.charts.samples, strict=True):
        generator = torch.Generator().manual_seed(0)
        drawn = flow.sample(1, context, temperature=temperature, generator=generator)
        assert np.array_equal(tiles_of(picture), drawn.reshape(80, 8, 8).numpy())
        assert picture.title == f"Temperature {temperature}" and picture.rows == list("0123456789")


def test_held_out_images_stand_in_the_rows_of_their_classes(report):
    """They are test images, and of the class of their row."""
    test = SOURCE.load().test
    tiles = tiles_of(report.charts.held_out)
    for row in range(10):
        own = test.batch(np.flatnonzero(test.labels == row)[:8]).numpy()[:, 0]
        assert np.array_equal(tiles[8 * row : 8 * row + len(own)], own)


def test_reconstructions_are_held_out_images_twice(report):
    """The second row equals the first, and the caption says so."""
    tiles = tiles_of(report.charts.reconstructions)
    test = SOURCE.load().test.batch(range(8)).numpy()[:, 0]
    assert np.array_equal(tiles[:8], test) and np.array_equal(tiles[8:], test)
    assert "All 512 pixels came back exactly." in report.charts.reconstructions.caption


def test_scores_of_held_out_images_are_spread_over_the_percentiles(summary):
    """The percentile is against the scores of the validation and test images."""
    scores = score_run(summary.folder, "digits")
    data = SOURCE.load()
    held_out = np.isin(scores["image"], [*data.validation.index, *data.test.index])
    assert abs(np.median(scores["percentile"][held_out]) - 50) < 1
    order = np.argsort(scores["log_prob"])
    assert (np.diff(scores["percentile"][order]) >= 0).all()
    assert np.allclose(scores["bits_per_dimension"], -scores["log_prob"] / (64 * math.log(2)))


def test_fewer_points_are_measured_where_each_costs_more():
    """Between 1 and 32, by the pixels and the square of the layers."""
    sizes = [((1, 8, 8), 1), ((1, 28, 28), 8), ((3, 64, 64), 8)]
    flows = [kf.glow(shape, levels=2, steps=steps, hidden=2) for shape, steps in sizes]
    assert [points_of(flow) for flow in flows] == [32, 2, 1]
