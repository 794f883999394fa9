"""Padded flows on the command line: what is printed, stored and drawn says what it is."""

import numpy as np
import polars as pl
import pytest
import torch
from tests.cli.conftest import SMALL, read, refused

import kappaflow as kf
from kappaflow.runs import ModelConfig, TableConfig, fit_run
from kappaflow.runs.recipes import with_padding
from kappaflow.runs.table_content import PADDING_SAMPLES

JOINT = "not a likelihood"


def fit(run, table, folder, *words):
    """Fits a small flow to the table."""
    outcome = run("fit", table, "--out", folder, *SMALL, *words)
    assert outcome.status == 0, outcome.err
    return outcome


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Where the runs of this file are, by the kind of their padding."""
    return tmp_path_factory.mktemp("padded")


@pytest.fixture
def padded(run, table, folders):
    """Returns a function that returns a run of a kind of padding, fitted once."""

    def folder(kind):
        if not (folders / kind / "result.json").exists():
            fit(run, table, folders / kind, "--padding", 2, "--padding-kind", kind)
        return folders / kind

    return folder


@pytest.mark.parametrize(
    "kind",
    [
        "gaussian",
        *(pytest.param(k, marks=pytest.mark.slow) for k in ("uniform", "copy", "learned")),
    ],
)
def test_a_bound_is_called_one_and_weighted(run, table, padded, kind):
    """On the terminal, in result.json and on the page, with the estimate and its error."""
    folder = padded(kind)
    again = run("fit", table, "--out", folder, *SMALL, "--padding", 2, "--padding-kind", kind)
    assert "Bound on the held-out NLL, standardized" in again.out
    assert "Held-out NLL, importance-weighted" in again.out and "Monte Carlo error" in again.out
    assert "for a Gaussian" in again.out and JOINT not in again.out
    stored = read(folder, "result.json")
    assert stored["likelihood"] == "bound"
    message = read(folder, "report.json")["result"]["padding"]
    assert message["features"] == 2 and message["has_density"] is True
    assert message == stored["padding"] and message["weighted"]["nll_standardized"] is not None
    page = (folder / "report.html").read_text()
    assert f"2 features, {message['description']}, were added to each row" in page
    assert "the mean of an upper bound" in page and "Monte Carlo error of" in page
    assert "Bound on the held-out NLL, standardized" in page and JOINT not in page


def test_the_weighted_likelihood_is_that_of_the_stored_flow(table, padded):
    """Of the held-out rows, by the function for it; the errors are those of the mean."""
    folder = padded("gaussian")
    test = TableConfig(str(table)).load().test
    flow, x = kf.load(folder), torch.from_numpy(test.values).float()
    estimate, error = kf.flows.importance_weighted_log_prob(
        flow, x, PADDING_SAMPLES, generator=torch.Generator().manual_seed(0)
    )
    weighted = read(folder, "report.json")["result"]["padding"]["weighted"]
    assert (weighted["rows"], weighted["draws"]) == (len(test), 64)
    assert weighted["nll"] == pytest.approx(-estimate.mean().item(), abs=1e-5)
    expected = estimate.numpy().std() / np.sqrt(len(test))
    assert weighted["standard_error"] == pytest.approx(expected, rel=1e-4)
    expected = np.sqrt((error.numpy() ** 2).sum()) / len(test)
    assert weighted["monte_carlo_error"] == pytest.approx(expected, rel=1e-4)
    units = flow.bijection.bijections[0].deviation.double().log().sum().item()
    assert weighted["nll_standardized"] == pytest.approx(weighted["nll"] - units, abs=1e-5)


@pytest.mark.slow
def test_without_a_density_no_number_passes_for_a_likelihood(run, table, padded, tmp_path):
    """Every output says that it is the joint density, and no Gaussian stands next to it."""
    folder = padded("zero")
    words = ("--padding", 2, "--padding-kind", "zero")
    again = run("fit", table, "--out", folder, *SMALL, *words)
    assert "Joint NLL with the padding" in again.out and JOINT in again.out
    assert "Held-out NLL" not in again.out and "Gaussian" not in again.out
    stored = read(folder, "result.json")
    assert stored["likelihood"] == "joint" and stored["padding"]["weighted"] is None
    page = (folder / "report.html").read_text()
    assert "This flow has no likelihood: 2 features, all zero, were added to each row" in page
    assert "Joint NLL with the padding, standardized" in page and JOINT in page
    assert "for comparison: a Gaussian" not in page and "Held-out NLL" not in page
    assert "KF501" not in page
    scored = run("score", folder, table)
    assert scored.out.splitlines()[0] == "row,joint_log_prob,percentile" and JOINT in scored.err
    out = tmp_path / "scores.parquet"
    assert run("score", folder, table, "--out", out).status == 0
    x = torch.from_numpy(kf.load_table(table).values).float()
    joint = kf.load(folder).joint_log_prob(x, torch.zeros(len(x), 2)).detach().numpy()
    assert np.allclose(pl.read_parquet(out)["joint_log_prob"], joint, atol=1e-5)


def test_a_copy_without_noise_has_no_density_either(run, table, tmp_path):
    """The scale decides."""
    words = ("--padding", 1, "--padding-kind", "copy", "--padding-scale", 0)
    assert JOINT in fit(run, table, tmp_path / "run", *words).out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gaussian", "zero"])
def test_a_padded_run_is_used_as_any_other(run, table, padded, tmp_path, kind):
    """Sampled, examined, drawn again, written again: with the same words."""
    folder = padded(kind)
    assert run("sample", folder, "-n", 5, "--out", tmp_path / "s.csv").status == 0
    assert pl.read_csv(tmp_path / "s.csv").columns == ["a", "b", "c"]
    assert "held-out rows of the run" in run("doctor", folder).out
    page = (folder / "report.html").read_bytes()
    assert run("report", folder).status == 0 and (folder / "report.html").read_bytes() == page
    assert run("rewrite", folder, "--out", tmp_path / "new").status == 0
    new = read(tmp_path / "new", "result.json")
    assert new["likelihood"] == ("joint" if kind == "zero" else "bound")
    message = [read(f, "report.json") for f in (folder, tmp_path / "new")]
    assert message[0]["result"]["padding"]["description"] == new["padding"]["description"]


@pytest.mark.slow
def test_options_of_padding_reach_the_model(run, table, tmp_path):
    """A number alone is a number in the model file; a kind and a scale are named there."""
    fit(run, table, tmp_path / "one", "--padding", 1)
    config = read(tmp_path / "one", "config.json")
    assert config["model"]["arguments"]["padding"] == 1
    words = ("--padding", 2, "--padding-kind", "uniform", "--padding-scale", 0.5)
    fit(run, table, tmp_path / "two", *words, "--model", "nice")
    assert repr(kf.load(tmp_path / "two").augment) == "UniformPad(features=2, scale=0.5)"
    message = read(tmp_path / "two", "report.json")["about"]["model"]
    assert ["padding kind", "uniform"] in message and ["padding scale", "0.5"] in message
    other = run("fit", table, "--out", tmp_path / "one", *SMALL, "--padding", 2)
    refused(other, "made with padding 1, not 2")


@pytest.mark.slow
def test_images_with_zeros_beside_them_have_no_bits(run, tmp_path):
    """The joint density is reported as one, on the terminal, on the page, and in the scores."""
    folder = tmp_path / "run"
    words = ("fit", "digits", "--out", folder, "--levels", 1, "--steps", 1, "--hidden", 4,
             "--max-epochs", 1, "--batch-size", 512, "--quiet")  # fmt: skip
    done = run(*words, "--padding", 1, "--padding-kind", "zero")
    assert done.status == 0, done.err
    assert "Joint NLL with the padding" in done.out and JOINT in done.out
    assert "bits" not in done.out and "Held-out" not in done.out
    page = (folder / "report.html").read_text()
    assert "This flow has no likelihood, because its padding has no density" in page
    assert "1 channel, all zero, was added to each image" in page
    assert "Joint NLL with the padding" in page and "Bits per dimension over" not in page
    stored = read(folder, "result.json")
    assert stored["likelihood"] == "joint" and stored["test"]["bits_per_dimension"] is None
    scored = run("score", folder, "digits")
    assert scored.out.splitlines()[0] == "image,joint_log_prob,percentile" and JOINT in scored.err


@pytest.mark.slow
def test_a_padding_can_be_given_as_one_in_python(table, tmp_path):
    """In place of a number and a kind; what is given twice is refused."""
    model = ModelConfig(
        "real_nvp", {"depth": 2, "hidden": (8,), "padding": kf.flows.Pad(1, scale=0.5)}
    )
    done = fit_run(TableConfig(str(table)), model, tmp_path / "run", progress=False, max_epochs=1)
    assert done.result.likelihood == "bound"
    with pytest.raises(kf.errors.ArgumentError, match="'padding_kind' should be left out where"):
        with_padding({"padding": 0, "padding_kind": "zero"}, (2,))
    assert with_padding({"depth": 3}, (2,)) == {"depth": 3}
