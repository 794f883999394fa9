"""`kappaflow fit --bounds` and what is done with its run."""

import json
import re

import numpy as np
import polars as pl
import pytest
from tests.cli.conftest import SMALL

import kappaflow as kf

BOUNDS = ("--bounds", "mass=positive", "p=0,1", "angle=circular:0,360", "late=,5")


@pytest.fixture(scope="module")
def bounded(tmp_path_factory):
    """A table of columns with domains."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("bounded") / "rows.csv"
    columns = {
        "angle": np.degrees(rng.vonmises(0, 2, 300)) % 360,
        "mass": rng.lognormal(0, 2, 300),
        "p": rng.beta(2, 0.8, 300),
        "late": 5 - rng.exponential(1, 300),
        "free": rng.normal(size=300),
    }
    pl.DataFrame(columns).write_csv(path)
    return path


def test_a_run_keeps_its_bounds(run, bounded, tmp_path):
    """It is fitted once, samples inside, scores outside as -inf and says so, and is rewritten."""
    folder = tmp_path / "run"
    words = ("fit", bounded, "--out", folder, "--model", "spline", *BOUNDS, *SMALL)
    first = run(*words)
    assert first.status == 0, first.err
    config = json.loads((folder / "config.json").read_text())
    assert config["run"]["source"]["bounds"] == list(BOUNDS[1:])
    assert config["model"]["arguments"]["bounds"] == ["circular:0,360", "0,", "0,1", ",5", None]
    report = json.loads((folder / "report.json").read_text())
    message = dict(report["about"]["data"])["domains"]
    assert message.startswith("mass above 0; p between 0 and 1; angle on the circle from 0 to 360")
    again = run(*words)
    assert again.status == 0 and "finished already" in again.err
    assert run("sample", folder, "-n", 2000, "--out", tmp_path / "drawn.csv").status == 0
    drawn = pl.read_csv(tmp_path / "drawn.csv")
    assert drawn["mass"].min() > 0 and 0 < drawn["p"].min() and drawn["p"].max() < 1
    assert drawn["angle"].min() >= 0 and drawn["angle"].max() < 360 and drawn["late"].max() < 5
    outside = tmp_path / "outside.csv"
    pl.read_csv(bounded).head(3).with_columns(mass=pl.Series([1.0, -1.0, 0.0])).write_csv(outside)
    scored = run("score", folder, outside)
    values = [float(line.split(",")[1]) for line in scored.out.splitlines()[1:]]
    assert np.isneginf(values).tolist() == [False, True, True]
    assert "2 of 3 rows have a log_prob of -inf" in scored.err
    assert run("doctor", folder).status == 0
    refused = run("doctor", folder, outside)
    assert refused.status in (1, 2) and "row 1 does not" in refused.err
    rewritten = tmp_path / "rewritten"
    assert run("rewrite", folder, "--out", rewritten).status == 0
    x = kf.load(folder).sample(20)
    made = kf.load(rewritten).log_prob(x)
    np.testing.assert_allclose(made.detach(), kf.load(folder).log_prob(x).detach(), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--bounds", "mass=1,"), "column 'mass' of .* should lie above 1, line"),
        (("--bounds", "p=0,0.5"), "should lie between 0 and 0.5, line"),
        (("--bounds", "angle=circular"), "wrap the column first"),
        (("--bounds", "p"), "'bounds' should be like mass=positive"),
        (("--bounds", "q=positive"), "'bounds' names column 'q'"),
        (("--bounds", "mass=big"), "'bounds' should be 'positive'"),
        (("--context", "mass", "--bounds", "mass=positive"), "is one of the context"),
        (
            (
                "--model",
                "spline",
                "--start",
                "whiten",
                "--bounds",
                "angle=circular:0,360",
                "mass=positive",
            ),
            "'start' should be 'identity' with circular columns",
        ),
        (
            ("--model", "real_nvp", "--bounds", "angle=circular:0,360", "mass=positive"),
            "'bounds' should have no circular column with real_nvp.* Use the model 'spline'",
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(run, bounded, tmp_path, words, message):
    """In one sentence, before anything is written."""
    outcome = run("fit", bounded, "--out", tmp_path / "run", *words)
    assert outcome.status in (1, 2)
    assert len(outcome.err.strip().splitlines()) == 1
    assert re.search(message, outcome.err)
    assert not (tmp_path / "run").exists()
