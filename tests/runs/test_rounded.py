"""A run on rounded columns: the same rows, noise and notes wherever they are asked for."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

import kappaflow as kf
from kappaflow.data import chunks, load_table, split, write_table
from kappaflow.data.prepare import prepare_table
from kappaflow.estimator import ConditionalFlowDensity, FlowDensity, FlowOutlierDetector
from kappaflow.runs import (
    ModelConfig,
    TableConfig,
    diagnose_run,
    fit_run,
    sample_run,
    score_run,
    write_scores,
)
from kappaflow.runs.stored import open_run

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
    tables = TableConfig(str(path), repair="keep").load()
    torch.manual_seed(0)
    flow = kf.real_nvp(2, depth=2, hidden=(8,))
    with pytest.warns(kf.errors.DataWarning) as caught:
        result = kf.fit(flow, x, repair="keep", **SETTINGS)
    (text,) = [note for note in result.notes if "repeat" in note]
    assert text in tables.notes and text.endswith("copies stay in one part of the split")
    assert not any("repeat" in str(warning.message) for warning in caught)
    parts = split(load_table(x), fractions=(0.9, 0.1))
    assert sum(map(len, parts)) == len(x)
    rows = np.vstack([t.values for t in (tables.train, tables.validation, tables.test)])
    np.testing.assert_array_equal(np.sort(rows, axis=0), np.sort(x, axis=0))


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    """A file of counts, one decimal, whole numbers of 16 bits, and a context of 0 and 1."""
    g, path = np.random.default_rng(1), tmp_path_factory.mktemp("counts") / "t.csv"
    columns = {"count": g.poisson(0.7, 900), "size": g.normal(size=900).round(1)}
    more = {"adc": g.normal(3e4, 3e3, 900).round(), "side": g.integers(0, 2, 900)}
    write_table(columns | more, str(path))
    return path


def check_values(samples):
    """Counts from 0 on, numbers with one decimal, and continuous ones."""
    np.testing.assert_array_equal(samples[:, 0], np.rint(samples[:, 0]))
    np.testing.assert_array_equal(samples[:, 1], samples[:, 1].round(1))
    assert samples[:, 0].min() == 0 and (samples[:, 1:] != np.rint(samples[:, 1:])).any(0).all()


def test_a_run_on_counts_samples_counts(counts, tmp_path):
    """As its configuration says, which has the steps of their values."""
    source = TableConfig(str(counts), context=["side"])
    assert fit_run(source, MODEL, tmp_path / "run", **SETTINGS).result.likelihood == "bound"
    run = open_run(tmp_path / "run", None)
    steps = {name: grid.step for name, grid in run.config.grids.items()}
    assert steps == {"count": 1.0, "size": 0.1}
    samples = sample_run(tmp_path / "run", 2, context=str(counts))
    check_values(np.stack([*samples.values()], axis=1)[:, :3])
    assert np.isfinite(score_run(tmp_path / "run", str(counts))["log_prob"]).all()
    assert run.config.read_again(source).train.widths == steps


FITS = [kf.fit_auto, partial(kf.fit, kf.real_nvp(3, depth=2, hidden=(8,)))]


@pytest.mark.filterwarnings("ignore::kappaflow.errors.DataWarning")
@pytest.mark.parametrize("fit", FITS)
def test_python_fits_counts_with_noise_and_says_that_the_flow_is_continuous(counts, fit, tmp_path):
    """The values are those of the table of the result, and of a run in a folder."""
    with pytest.warns(kf.errors.DataWarning, match="to 'count' .* but flow.sample does not"):
        result = fit(counts, exclude="side", out=tmp_path / "run", **SETTINGS)
    samples = result.flow.sample(50).double().numpy()[:, 0]
    values = result.train.grids["count"].nearest(samples)
    assert (values != samples).all() and set(values) <= set(range(9))
    check_values(np.stack([*sample_run(tmp_path / "run", 300).values()], axis=1))


@pytest.mark.filterwarnings("ignore::kappaflow.errors.DataWarning")
def test_estimators_sample_counts(counts):
    """Quantiles are counts too; features get no noise."""
    x, settings = load_table(counts).values, {"depth": 2, "hidden": (8,), "max_epochs": 2}
    check_values(FlowDensity(**settings).fit(x[:, :3]).sample(300, random_state=0))
    kept = FlowDensity(repair="keep", **settings).fit(x[:, :3])
    assert not np.isin(kept.sample(9), range(9)).any()
    conditional = ConditionalFlowDensity(**settings).fit(x[:, 1:], x[:, 0])
    for values in (conditional.sample(x[:90, 1:]), conditional.quantile(x[:, 1:], 0.1)):
        assert np.isin(values, range(9)).all() and set(conditional._grids) == {"y0"}


def test_samples_are_compared_as_the_values_that_they_are_rounded_to():
    """A flow with the right share of each value is right, whatever its density between them."""
    x = np.random.default_rng(0).normal(size=(2000, 2)).round()
    table = prepare_table(load_table(x)).table
    flow = kf.Flow(kf.StandardNormal(2), kf.bijections.ElementwiseAffine(2))
    assert kf.two_sample(flow, table).level == kf.doctor(flow, table).goodness.level == "good"
    assert kf.two_sample(flow, replace(table, grids={})).level != "good"
    assert kf.two_sample(flow, replace(table, values=table.values + 1)).level == "bad"


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
