"""The pilot: what it takes and why, what it keeps, and when its time is over."""

import json

import numpy as np
import pytest

from kappaflow.errors import FileError, NumericalError
from kappaflow.runs import pilot as module
from kappaflow.runs.fit import fit_run
from kappaflow.runs.job import Source, tables_of
from kappaflow.runs.pilot import Choice, Pilot, Trial, chosen_before, pilot
from kappaflow.runs.recipes import Model
from kappaflow.training import checked_settings

SMALL = Pilot({"hidden": (8,), "partition": "half"}, 1000.0)
SETTINGS = checked_settings(learning_rate=1e-2, batch_size=64, max_epochs=4)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Makes it a pilot of shallow models over few rows."""
    monkeypatch.setattr(module, "CANDIDATES", (("real_nvp", 1), ("real_nvp", 2), ("spline", 2)))
    monkeypatch.setattr(module, "ROWS", (2000, 4000))


@pytest.fixture(scope="module")
def uniform(tmp_path_factory):
    """A table of a density with jumps, which splines fit and affine maps do not."""
    path = tmp_path_factory.mktemp("uniform") / "uniform.npy"
    np.save(path, np.random.default_rng(0).uniform(-1, 1, (1500, 2)))
    return Source(str(path))


@pytest.fixture(scope="module")
def normal(tmp_path_factory):
    """A table of a normal density, which all models begin with."""
    path = tmp_path_factory.mktemp("normal") / "normal.npy"
    np.save(path, np.random.default_rng(1).normal(size=(1500, 2)))
    return Source(str(path))


def test_the_best_is_taken_where_it_is_better_by_more_than_its_error(uniform):
    """Splines fit jumps; the trials say how far the others are behind."""
    choice = pilot(tables_of(uniform), SMALL, SETTINGS, progress=False)
    assert choice.model == Model("spline", {**SMALL.arguments, "depth": 2})
    assert choice.trials[0] == choice.taken and choice.taken.behind == 0
    assert [one.rows for one in choice.trials] == [4000, 4000, 2000]
    assert all(one.behind > one.error for one in choice.trials[1:])
    assert choice.in_words().startswith("chose spline of 2 couplings by a pilot of ")


def test_the_cheapest_is_taken_where_none_is_better(normal):
    """Of a normal density all say the same, up to noise."""
    choice = pilot(tables_of(normal), SMALL, SETTINGS, progress=False)
    last = [one for one in choice.trials if one.rows == 4000]
    as_good = [(one.recipe, one.depth) for one in last if one.behind <= one.error]
    assert (choice.taken.recipe, choice.taken.depth) == min(as_good, key=module.CANDIDATES.index)


def test_one_standard_error_is_said():
    """Where a cheaper one is taken, it is said of which and by how much it is behind."""
    best = Trial(recipe="spline", depth=2, rows=40, nll=1.0, behind=0.0, error=0.0)
    taken = Trial(recipe="real_nvp", depth=1, rows=40, nll=1.01, behind=0.01, error=0.02)
    other = Trial(recipe="real_nvp", depth=2, rows=20, nll=1.5, behind=0.5, error=0.02)
    choice = Choice(
        taken=taken, arguments={}, trials=(best, taken, other), time_s=3.4, cut_short=True
    )
    assert choice.in_words() == (
        "chose real_nvp of 1 couplings by a pilot of 3 s, which its limit cut short: 1.010 nats "
        "on held-out rows, which is within one standard error (0.020) of spline of 2 couplings, "
        "1.000, and cheaper; real_nvp of 2 couplings 1.500 after 0.5 of the training"
    )


def test_it_is_deterministic(uniform):
    """The same seed comes to the same numbers, whatever was drawn before."""
    first, second = (pilot(tables_of(uniform), SMALL, SETTINGS, progress=False) for _ in range(2))
    assert [one.nll for one in first.trials] == [one.nll for one in second.trials]


def test_nothing_is_begun_when_its_time_is_over(uniform):
    """One model is tried always, so that there is something to take."""
    hurried = Pilot(SMALL.arguments, 0.0)
    choice = pilot(tables_of(uniform), hurried, SETTINGS, progress=False)
    assert choice.cut_short and [one.recipe for one in choice.trials] == ["real_nvp"]


def test_a_model_that_cannot_be_trained_is_left_out(uniform, monkeypatch):
    """Its steps are not finite; the others are compared, and where none is left it is said."""
    settings = SETTINGS.model_copy(update={"learning_rate": 1e30, "clip_norm": 1e30})
    kept = module.build_flow
    failing = {"real_nvp"}

    def build(model, table, seed):
        flow = kept(model, table, seed)
        if model.recipe in failing:
            for parameter in flow.parameters():
                parameter.data.fill_(float("nan"))
        return flow

    monkeypatch.setattr(module, "build_flow", build)
    choice = pilot(tables_of(uniform), SMALL, SETTINGS, progress=False)
    assert [one.recipe for one in choice.trials] == ["spline"]
    failing.add("spline")
    with pytest.raises(NumericalError, match="none of the models"):
        pilot(tables_of(uniform), SMALL, settings, progress=False)


def test_a_run_keeps_what_was_chosen(uniform, tmp_path, monkeypatch):
    """The configuration has it, notes say it, and the same command does not choose again."""
    said = []
    settings = {"max_epochs": 1, "learning_rate": 1e-2}
    summary = fit_run(uniform, SMALL, tmp_path / "run", say=said.append, **settings)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["model"]["name"] == "spline"
    assert config["run"]["pilot"]["taken"]["recipe"] == "spline"
    assert any(note.startswith("chose spline") for note in said)
    assert summary.notes[-1] in (tmp_path / "run" / "report.html").read_text()
    monkeypatch.setattr(module, "CANDIDATES", (("real_nvp", 1),))
    again = fit_run(uniform, SMALL, tmp_path / "run", **settings)
    assert again.was_finished and again.notes[-1] == summary.notes[-1]


def test_a_choice_that_was_changed_is_refused(tmp_path, uniform):
    """A folder that does not say what was chosen is not guessed at."""
    assert chosen_before(tmp_path) is None
    fit_run(uniform, SMALL, tmp_path / "run", max_epochs=1)
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    del config["run"]["pilot"]["taken"]["depth"]
    path.write_text(json.dumps(config))
    with pytest.raises(FileError, match="does not say what a pilot chose"):
        chosen_before(tmp_path / "run")
