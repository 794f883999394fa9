"""A run on rounded columns: the same rows, noise and notes wherever they are asked for."""

import json

import numpy as np
import pytest
import torch

import kappaflow as kf
from kappaflow.data import chunks, load_table, split
from kappaflow.estimator import FlowDensity, FlowOutlierDetector
from kappaflow.files import CONFIG
from kappaflow.runs import ModelConfig, TableConfig, diagnose_run, fit_run, score_run, write_scores

MODEL = ModelConfig("real_nvp", {"depth": 2, "hidden": (8,)})
SETTINGS = {"progress": False, "max_epochs": 2, "batch_size": 200}


@pytest.fixture(scope="module")
def x():
    """Rows of a column with one decimal and one of whole numbers from 0 on."""
    g = np.random.default_rng(0)
    return np.stack([g.normal(size=1500).round(1), g.poisson(3, 1500).astype(float)], axis=1)


@pytest.fixture(scope="module")
def path(x, tmp_path_factory):
    """A file of them."""
    path = tmp_path_factory.mktemp("rounded") / "t.npy"
    np.save(path, x)
    return path


@pytest.fixture(scope="module")
def run(path):
    """A run on them, with noise in both columns."""
    source = TableConfig(str(path), repair="dequantize", bounds=["x1=positive"])
    return fit_run(source, MODEL, path.parent / "run", **SETTINGS)


def test_the_widths_of_the_noise_are_stored_and_the_likelihood_is_a_bound(run):
    """In config.json, result.json and the notes of the report."""
    stored = json.loads((run.folder / CONFIG).read_text())["run"]
    assert stored["widths"] == {"x0": 0.1, "x1": 1.0}
    assert run.result.likelihood == "bound"
    notes = json.loads((run.folder / "report.json").read_text())["result"]["notes"]
    assert any(
        "noise as wide as a step of their values to 'x0' (0.1), 'x1' (1)" in n for n in notes
    )


def test_scores_of_the_data_are_those_of_the_rows_that_were_trained_on(run, path, tmp_path):
    """Each row has the noise that it had in training, also where the file is read in chunks."""
    scores = score_run(run.folder, str(path))["log_prob"]
    tables = TableConfig(str(path), repair="dequantize", bounds=["x1=positive"]).load()
    flow = kf.load(run.folder)
    with torch.no_grad():
        expected = flow.log_prob(torch.from_numpy(tables.test.values).float()).numpy()
    np.testing.assert_allclose(scores[tables.test.rows - 1], expected, atol=1e-5)
    assert np.isfinite(scores).all()
    assert -scores[tables.test.rows - 1].mean() == pytest.approx(run.result.test.nll, abs=1e-5)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(chunks, "CHUNK_ROWS", 400)
        write_scores(run.folder, str(path), str(tmp_path / "scores.npy"))
    written = np.load(tmp_path / "scores.npy")  # row, log_prob, percentile
    np.testing.assert_allclose(written[:, 1], scores, atol=1e-5)


@pytest.mark.slow
def test_the_doctor_examines_the_noisy_rows(run, path):
    """Held-out rows of the run or rows of another file: none of them is called rounded."""
    other = path.with_name("other.npy")
    np.save(other, np.load(path)[::-1])
    for data, points in (
        (None, "held-out rows of the run"),
        (str(path), "held-out rows of the run"),
        (str(other), f"rows of {other}"),
    ):
        diagnosis, where = diagnose_run(run.folder, data)
        assert where == points
        assert not {"KF603", "KF604"} & {finding.code for finding in diagnosis.findings}


def test_the_command_and_python_keep_the_same_rows(x, path):
    """And say the same of those that repeat others, without a warning."""
    tables = TableConfig(str(path)).load()
    torch.manual_seed(0)
    flow = kf.real_nvp(2, depth=2, hidden=(8,))
    with pytest.warns(kf.errors.DataWarning) as caught:
        result = kf.fit(flow, x, **SETTINGS)
    (text,) = [note for note in result.notes if "repeat" in note]
    assert text in tables.notes and text.endswith("copies stay in one part of the split")
    assert not any("repeat" in str(warning.message) for warning in caught)
    parts = split(load_table(x), fractions=(0.9, 0.1))
    assert sum(map(len, parts)) == len(x)
    rows = np.vstack([t.values for t in (tables.train, tables.validation, tables.test)])
    np.testing.assert_array_equal(np.sort(rows, axis=0), np.sort(x, axis=0))


@pytest.mark.filterwarnings("ignore::kappaflow.errors.DataWarning")
def test_validation_rows_are_given_the_noise_of_the_training_rows(x):
    """Else their likelihood would be that of other columns."""
    torch.manual_seed(0)
    flow = kf.real_nvp(2, depth=2, hidden=(8,), bounds=(None, "positive"))
    result = kf.fit(flow, x[:1000], validation=x[1000:], repair="dequantize", **SETTINGS)
    assert np.isfinite(result.validation_nll)


@pytest.mark.filterwarnings("ignore::kappaflow.errors.DataWarning")
@pytest.mark.parametrize("make", [FlowDensity, FlowOutlierDetector])
def test_the_score_of_a_rounded_row_depends_on_its_values_alone(x, make):
    """The noise of a row to score does not follow from its place among others."""
    settings = {"depth": 2, "hidden": (8,), "max_epochs": 2, "random_state": 0}
    density = make(repair="dequantize", **settings).fit(x)
    scores = density.score_samples(x)
    np.testing.assert_allclose(density.score_samples(x[::-1])[::-1], scores, rtol=1e-9)
    np.testing.assert_allclose(density.score_samples(x[3:4]), scores[3:4], rtol=1e-9)
    if make is FlowOutlierDetector:  # else p-values would compare two kinds of noise
        assert np.isin(density.calibration_scores_.round(9), scores.round(9)).all()
    noisy = density._noisy(load_table(x)).values - x
    widths = np.array([0.1, 1.0])
    different = np.unique(noisy[np.unique(x, axis=0, return_index=True)[1]] / widths, axis=0)
    assert len(different) == len(np.unique(x, axis=0))
    assert (np.abs(different) <= 0.5).all() and np.abs(different.mean(0)).max() < 0.1


@pytest.mark.filterwarnings("ignore::kappaflow.errors.DataWarning")
def test_an_estimator_keeps_drops_or_weighs_repeats(x):
    """By the option that the command has; weights are what repeats are counted by."""
    settings = {"depth": 2, "hidden": (8,), "max_epochs": 1, "random_state": 0}
    means = {}
    for how in ("keep", "drop", "weigh"):
        flow = FlowDensity(duplicates=how, **settings).fit(x).flow_
        means[how] = flow.standardization.bijections[0].mean[1].item()
    assert means["keep"] == pytest.approx(x[:, 1].mean(), abs=0.1)
    assert means["weigh"] == pytest.approx(x[:, 1].mean(), abs=0.1)
    assert means["drop"] > x[:, 1].mean() + 0.3
    with pytest.raises(kf.errors.ArgumentError, match="'duplicates' should be one of"):
        FlowDensity(duplicates="forget", **settings).fit(x)
    with pytest.raises(kf.errors.ArgumentError, match="'duplicates' should be one of"):
        FlowOutlierDetector(duplicates="weigh", **settings).fit(x)
