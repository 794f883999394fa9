"""Model search: who wins, what is kept of the winner's training, and which limits bind it."""

import itertools
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import kappaflow as kf
from kappaflow.bijections import Gaussianize
from kappaflow.data import load_table
from kappaflow.data.domains import domains_of
from kappaflow.errors import FileError, NumericalError
from kappaflow.factor import Whiten
from kappaflow.ranks import alone, is_first, ranks
from kappaflow.runs import candidate as candidate_module
from kappaflow.runs import model_search as module
from kappaflow.runs.candidate import Candidate, ModelSearch, candidates_of
from kappaflow.runs.fit import fit_run
from kappaflow.runs.model_search import chosen_before, search_model
from kappaflow.runs.race import (
    ModelChoice,
    Standing,
    Trial,
    as_good_as_the_best,
    compared,
    with_winner_first,
)
from kappaflow.runs.racers import Racer, gain
from kappaflow.runs.recipes import ModelConfig, build_flow, options_of
from kappaflow.runs.table_data import TableConfig
from kappaflow.training import Callback, checked_settings, fit_split
from kappaflow.training.run_folder import read_metrics

TINY = {"hidden": (8,), "partition": "half", "dropout": 0.0, "start": "identity"}
SEARCH = ModelSearch({}, 2.0, learning_rate=1e-2)
SETTINGS = checked_settings(learning_rate=1e-2, batch_size=64)


@pytest.fixture(autouse=True)
def tiny_candidates(monkeypatch, ticking):
    """Two small models race."""
    ticking(0.002)
    entrants = [("real_nvp", {"depth": 1, **TINY}), ("spline", {"depth": 2, **TINY})]
    monkeypatch.setattr(
        module,
        "candidates_of",
        lambda table, search, **more: [
            Candidate(recipe, {**own, **search.arguments}, search.learning_rate or 5e-3)
            for recipe, own in entrants
        ],
    )


@pytest.fixture(scope="module")
def uniform(tmp_path_factory):
    """A table whose density has jumps: splines fit it, and affine maps do not."""
    path = tmp_path_factory.mktemp("uniform") / "uniform.npy"
    np.save(path, np.random.default_rng(0).uniform(-1, 1, (1500, 2)))
    return TableConfig(str(path))


def searched(source, search=SEARCH, **limits):
    """Returns the choice of a search on a table, and where the training starts."""
    rows = source.load()
    settings = SETTINGS.model_copy(update=limits)
    return search_model(rows.train, rows.validation, search, settings, progress=False)


def searched_and_trained(source, search=SEARCH, **limits):
    """Returns the choice of a search, its start, and the result of the training that follows."""
    rows = source.load()
    settings = SETTINGS.model_copy(update={"max_epochs": 100_000, "patience": 100_000, **limits})
    parts = rows.train, rows.validation
    choice, start = search_model(*parts, search, settings, progress=False)
    flow, settings = build_flow(choice.model, rows.train, settings.seed), choice.settings(settings)
    return choice, start, fit_split(flow, *parts, settings, progress=False, start=start)


@pytest.mark.slow
def test_the_best_model_wins_and_trains_on(uniform):
    """The training starts at the winner's weights, optimizer state, steps and history."""
    choice, start, result = searched_and_trained(uniform, max_epochs=120, patience=120)
    assert choice.recipe == "spline" and choice.trials[0].behind == 0
    assert choice.trials[1].behind > 2 * choice.trials[1].error
    assert str(choice).startswith("chose 2 spline couplings")
    groups, progress, history = start
    assert progress["step"] == choice.trials[0].steps > 0 and groups["optimizer"]
    assert list(result.history[: len(history)]) == history
    assert result.validation_nll <= progress["best_nll"]
    rates = [line["learning_rate"] for line in result.history]
    assert max(rates) == pytest.approx(1e-2, rel=1e-3) and rates[-1] < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("calibration_steps", [16, 3000])
def test_epochs_of_all_models_count(uniform, monkeypatch, calibration_steps):
    """A search takes at most a quarter of them, also if its calibration could take more."""
    monkeypatch.setattr(module, "CALIBRATION_STEPS", calibration_steps)
    choice, start, result = searched_and_trained(uniform, max_epochs=20, patience=20)
    steps = sum(trial.steps for trial in choice.trials)
    assert steps <= 0.25 * 20 * 19 + 4  # each of two models rounds up, twice
    own = start[1]["step"]
    later = len(result.history) - len(start[2])
    assert later * 19 <= 20 * 19 - steps + 19 and own < steps


def test_a_mixture_that_does_not_fit_leaves_the_other_models(uniform, monkeypatch):
    models = ("spline", {"depth": 1, **TINY}), ("real_nvp", {"depth": 1, **TINY})
    entrants = [Candidate(recipe, arguments, 5e-3) for recipe, arguments in models]
    entrants[1].arguments["components"] = 100_000
    monkeypatch.setattr(module, "candidates_of", lambda *arguments, **more: entrants)
    choice, _ = searched(uniform, ModelSearch({}, 0.5))
    assert choice.recipe == "spline" and len(choice.trials) == 1


def test_a_busy_machine_leaves_three_quarters_of_the_time_to_the_training(uniform, ticking):
    """The search does less there, and the learning rate still falls to zero within the limit."""
    ticking(0.004, slowness=4.0)
    choice, _, result = searched_and_trained(uniform, ModelSearch({}, 60.0), max_time_s=6.0)
    assert choice.seconds < 0.3 * 6 and choice.left_out == 1
    assert result.stopped_because == "max_time_s" and result.history[-1]["time_s"] < 6.05
    assert result.history[-1]["learning_rate_share"] < 0.02


@pytest.mark.parametrize(("seconds", "raced"), [(0.5, 1), (2.0, 2), (60.0, 2)])
def test_a_short_search_has_fewer_models(uniform, seconds, raced):
    """Those that race have about 60 steps each, and the note says how many do not."""
    choice, _ = searched(uniform, ModelSearch({}, seconds), max_time_s=240.0)
    assert len(choice.trials) == raced and choice.left_out == 2 - raced
    assert all(trial.steps > 45 for trial in choice.trials)
    assert ("there was no time to try 1 more" in str(choice)) == (raced == 1)


def test_models_have_the_same_processor_time_while_the_load_rises(uniform, monkeypatch):
    """A machine that becomes four times slower during the search favors none of them."""
    readings = itertools.count()

    def clock():
        work = 0.004 * next(readings)
        return work + 3 * max(0.0, work - 1.5)

    monkeypatch.setattr(module.loop.time, "process_time", lambda: 0.004 * next(readings))
    monkeypatch.setattr(module.loop, "clock", clock)
    choice, _ = searched(uniform, ModelSearch({}, 60.0), max_time_s=20.0)
    first, second = (trial.seconds for trial in choice.trials)
    assert first == pytest.approx(second, rel=0.25) and choice.seconds <= 5


@pytest.mark.parametrize(
    ("seconds", "epochs", "reason"),
    [(60.0, 2, "max_epochs=2 leaves no time for one"), (0.0, 200, "the search time is 0")],
)
def test_without_time_the_first_model_is_taken(uniform, seconds, epochs, reason):
    """The choice says why nothing was compared."""
    choice, start = searched(uniform, ModelSearch({}, seconds), max_epochs=epochs)
    assert (choice.recipe, choice.reason, start) == ("real_nvp", reason, None)
    assert reason in str(choice)


def test_models_that_cannot_be_trained_are_left_out(uniform, monkeypatch):
    """Where none is left the error names the option that chooses one."""
    build = candidate_module.build_flow
    failing = {"real_nvp"}

    def broken(model, table, seed):
        flow = build(model, table, seed)
        if model.recipe in failing:
            for parameter in flow.parameters():
                parameter.data.fill_(float("nan"))
        return flow

    monkeypatch.setattr(candidate_module, "build_flow", broken)
    choice, _ = searched(uniform, ModelSearch({}, 0.5))
    assert [trial.recipe for trial in choice.trials] == ["spline"]
    failing.add("spline")
    with pytest.raises(NumericalError, match="choose one by --model"):
        searched(uniform, ModelSearch({}, 0.5))


class Stop(Callback):
    """Interrupts a training after its first epoch."""

    def on_epoch(self, flow, figures):
        raise KeyboardInterrupt


def test_an_interrupted_run_keeps_its_choice(uniform, tmp_path):
    """The same command resumes the winner; nothing is searched again.

    A learning rate that is named takes the place of those that models have.
    """
    search = ModelSearch({}, 2.0)
    folder, settings = tmp_path / "run", {"max_epochs": 40, "learning_rate": 1e-2}
    with pytest.raises(KeyboardInterrupt):
        fit_run(uniform, search, folder, progress=False, callbacks=[Stop()], **settings)
    kept = chosen_before(folder)
    raced = len(read_metrics(folder))
    assert kept is not None and kept.recipe == "spline" and raced > 0
    summary = fit_run(uniform, search, folder, progress=False, **settings)
    assert summary.notes[-1] == str(kept)
    config = json.loads((folder / "config.json").read_text())
    assert config["run"]["model_search"] == kept.model_dump(mode="json")
    assert config["run"]["training"]["learning_rate"] == kept.learning_rate == 1e-2
    assert len(read_metrics(folder)) > raced
    assert str(kept) in (folder / "report.html").read_text()
    assert fit_run(uniform, search, folder, progress=False, **settings).was_finished
    del config["run"]["model_search"]["recipe"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileError, match="does not hold the choice of a model search"):
        chosen_before(folder)


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_keeps_its_choice(uniform, tmp_path):
    """The winner's weights are lost then, and it trains from its first step."""
    assert chosen_before(tmp_path) is None
    folder, settings = tmp_path / "run", {"max_epochs": 20, "batch_size": 64}
    with pytest.raises(KeyboardInterrupt):
        fit_run(uniform, SEARCH, folder, progress=False, callbacks=[Stop()], **settings)
    kept = chosen_before(folder)
    shutil.rmtree(folder / "checkpoint")
    summary = fit_run(uniform, SEARCH, folder, progress=False, **settings)
    assert summary.notes[-1] == str(kept) and read_metrics(folder)[0]["epoch"] == 1


def test_nothing_races_with_a_condition_budget(uniform, tmp_path):
    """The budget is kept from the first step on, and the message says why there is no search."""
    settings = {"max_epochs": 3, "condition_budget": 30.0}
    summary = fit_run(uniform, SEARCH, tmp_path / "run", progress=False, **settings)
    assert "nothing races with a condition budget" in summary.notes[-1]
    assert summary.result.condition_number_p95 < 60


@pytest.mark.slow
def test_one_validation_row_is_enough_to_choose(tmp_path):
    """Its difference has no spread, and the folder can be resumed."""
    table = load_table(np.random.default_rng(0).normal(size=(40, 2)))
    choice, _ = search_model(
        table, table.select(slice(0, 1)), ModelSearch({}, 0.5), SETTINGS, progress=False
    )
    json.dumps(choice.model_dump(mode="json"), allow_nan=False)
    assert all(trial.error == 0 for trial in choice.trials)


def test_a_search_time_that_is_no_number_is_refused():
    """The command line refuses one below 0 in the same place."""
    with pytest.raises(kf.errors.ArgumentError, match="'search_time' should be"):
        kf.fit_auto("magic", search_time=float("nan"))


def test_one_process_of_several_can_search_alone(monkeypatch):
    """The first searches as if there were no other, and the rest wait for it."""
    for name, value in {"WORLD_SIZE": "2", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert ranks() == 2 and not is_first()
    with alone():
        assert ranks() == 1 and is_first()
    assert ranks() == 2


@pytest.mark.parametrize("rows", [40, 5_000, 70_000])
def test_candidates_fit_tables_of_any_size(rows):
    """Few rows get more dropout; an argument that the user names is that of all that have it."""
    table = load_table(np.random.default_rng(0).normal(size=(rows, 3)))
    result = candidates_of(table, ModelSearch({"memory": "store"}))
    couplings = [arguments for recipe, arguments, _ in result if recipe != "autoregressive"]
    assert {arguments["memory"] for arguments in couplings} == {"store"}
    most = max(arguments["dropout"] for _, arguments, _ in result)
    assert most == {40: 0.3, 5_000: 0.05, 70_000: 0.0}[rows]
    results = {"round": 1, "steps": 1, "seconds": 1, "nll": 0, "behind": 0, "error": 0}
    texts = [str(Trial(**candidate._asdict(), **results)) for candidate in result]
    assert "1 autoregressive layer of 96x96, start identity, dropout 0" in texts
    for candidate in result:
        flow = build_flow(ModelConfig(*candidate[:2]), table, 0)
        assert flow.event_shape == (3,)


def test_with_a_context_each_kind_comes_before_a_second_start():
    """The last models are not tried where time is short."""
    rows = np.random.default_rng(0).normal(size=(400, 4))
    first = candidates_of(load_table(rows, context=["x2", "x3"]), ModelSearch())[:4]
    assert [recipe for recipe, *_ in first] == [*["autoregressive"] * 2, "spline", "real_nvp"]
    starts = [arguments["start"] for _, arguments, _ in first]
    assert starts == ["gaussianize", "identity", "gaussianize", "whiten"]


def test_circles_and_tables_of_few_rows_get_no_start():
    """It would bend a circle, and be fitted to noise where there are five rows."""
    table = load_table(np.random.default_rng(0).uniform(-3, 3, (400, 2)))
    for rows, circles in ((400, True), (5, False)):
        some = table.select(slice(0, rows))
        ((recipe, arguments, _),) = candidates_of(some, ModelSearch(), plain=circles)
        assert (recipe, arguments["start"]) == ("spline", "identity")


def test_rows_in_clusters_get_a_model_with_a_mixture_as_its_base():
    """Not a single cluster, and not given a context, which a mixture does not read."""
    rng = np.random.default_rng(0)
    few, many = rng.normal(size=(800, 2)), rng.normal(size=(8_000, 2))
    apart = few + 9 * rng.integers(0, 2, (800, 1))
    given = load_table(np.hstack([apart, few]), context=["x2", "x3"])
    tables = [(load_table(rows), count) for rows, count in ((few, 1), (apart, 2))]
    tables += [(load_table(many + 9 * rng.integers(0, 2, many.shape)), 4), (given, 1)]
    for table, count in tables:
        result = candidates_of(table, ModelSearch())
        assert max(arguments.get("components", 1) for _, arguments, _ in result) == count


def standing(nll=1.0, scores=(0.0,), gains=(math.inf, math.inf), **more):
    """Returns the figures of a model in a race."""
    figures = {"round": 2, "step": 100, "seconds": 4.0, "steps": 10_000, "max_time_s": 64.0}
    more = {"entry": 0, **figures, **more}
    scores = torch.tensor(scores)
    return Standing(
        candidate=Candidate("nice", {}, 0.1), nll=nll, scores=scores, gains=gains, **more
    )


def test_of_models_as_good_as_each_other_the_best_conditioned_wins():
    """One that is better by a standard error, or 0.01 nats, wins whatever its conditioning."""
    noisy = standing(1.0, [-3.0, 1.0, -1.0, -1.0])
    close = standing(1.005, [-1.1, -1.1, -1.1, -1.1], entry=1)
    behind = standing(1.1, [-1.1, -1.1, -1.1, -1.1], entry=2)
    worse = standing(9.0, [-9.0, -9.0, -9.0, -9.0], entry=3)
    early = standing(1.001, [-1.1, -1.1, -1.1, -1.1], entry=4, round=1)
    assert as_good_as_the_best([noisy, close, early]) == [noisy, close]
    assert as_good_as_the_best([noisy, behind]) == [noisy]
    assert as_good_as_the_best([noisy, worse]) == [noisy]
    tied = [replace(noisy, condition=500.0), replace(close, condition=3.0)]
    first, *others = with_winner_first([noisy, close, early], tied)
    assert (first.entry, first.condition) == (1, 3.0)
    assert [(other.entry, other.condition) for other in others] == [(0, 500.0), (4, None)]
    assert [s.entry for s in with_winner_first([noisy, worse], [noisy])] == [0, 3]


def test_a_model_that_gains_ever_less_is_not_forecast_far():
    """The next doubling gains less than the last, by the ratio of the last two gains."""

    def forecast(before, last):
        return standing(1.0, gains=(before, last)).forecast

    assert forecast(0.8, 0.2) == pytest.approx(1 - 0.05)
    assert forecast(10.0, 0.4) == pytest.approx(1 - 0.4 * 0.04)
    assert forecast(0.1, 0.4) == pytest.approx(1 - 0.2)  # a ratio of a half at most
    assert forecast(math.inf, 0.4) == 1  # not known yet
    assert forecast(-0.1, 0.4) == 1


def test_gains_are_those_of_doublings_of_the_steps():
    """Ends of epochs are anywhere: the NLL between them follows the logarithm of the step."""
    best = [(1, math.inf), (5, 8.0), (20, 6.0), (160, 3.0)]  # a nat with each doubling
    assert gain(best, 0.25, 0.5) == pytest.approx(1)
    assert gain(best, 0.5, 1.0) == pytest.approx(1)
    best = [(50, 6.0), (160, 3.0)]
    assert gain(best, 0.25, 0.5) == math.inf  # nothing was measured so early
    assert gain(best, 0.5, 1.0) == pytest.approx(3 / math.log2(3.2))
    assert gain([], 0.5, 1.0) == math.inf


def test_models_share_what_is_fitted_to_the_same_rows(monkeypatch):
    """A layer is fitted once for all models with the same layers up to it."""
    fits = []
    for kind in (Whiten, Gaussianize):
        plain = kind.fit
        monkeypatch.setattr(
            kind, "fit", lambda self, *rows, plain=plain: fits.append(self) or plain(self, *rows)
        )
    rng = np.random.default_rng(0)
    table, starts, outputs = load_table(rng.gamma(2, size=(200, 3)).cumsum(1)), {}, []
    for recipe, start in (
        ("real_nvp", "whiten"),
        ("autoregressive", "whiten-gaussianize"),
        ("spline", "whiten-gaussianize"),
        ("real_nvp", "gaussianize"),
    ):
        own = TINY.keys() & options_of(recipe)
        arguments = {"depth": 1, **{name: TINY[name] for name in own}, "start": start}
        candidate = Candidate(recipe, arguments, 5e-3)
        flow = build_flow(ModelConfig(recipe, candidate.arguments), table, 0)
        Racer(candidate, flow, table, table, SETTINGS, None, starts)
        outputs.append(flow.standardization(torch.as_tensor(table.values).float())[0])
        alone = build_flow(ModelConfig(recipe, candidate.arguments), table, 0)
        before = len(fits)
        alone.standardization.fit(torch.as_tensor(table.values).float())
        torch.testing.assert_close(
            outputs[-1], alone.standardization(torch.as_tensor(table.values).float())[0]
        )
        del fits[before:]
    assert [type(layer) for layer in fits] == [Whiten, Gaussianize, Gaussianize, Whiten]


def test_a_model_leaves_a_race_once_the_time_that_is_left_cannot_make_up_for_it():
    """Of 64 seconds it trained 4: four doublings, each gaining as much as the last at most."""

    def racer(nll, gained, seconds=4.0):
        scores = [-nll + 0.01, -nll - 0.01]
        return standing(nll, scores, gains=(gained, gained), seconds=seconds)

    best, may, cannot = racer(1.0, 0.0), racer(1.3, 0.1), racer(1.5, 0.1)
    assert compared([best, may, cannot], 3) == ([best, may], [cannot])
    late = racer(1.3, 0.1, seconds=32.0)
    assert compared([best, late], 2) == ([best], [late])


def test_each_model_has_its_learning_rate_unless_the_search_names_one():
    """A flow with a mixture as its base learns more slowly, and is trained on as it raced."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2)) + 9 * rng.integers(0, 2, (400, 1))
    rates = {rate for _, _, rate in candidates_of(load_table(x), ModelSearch())}
    assert rates == {1e-3, 5e-3}
    named = candidates_of(load_table(x), ModelSearch(learning_rate=0.01))
    assert {rate for _, _, rate in named} == {0.01}
    choice = ModelChoice(recipe="spline", arguments={}, learning_rate=1e-3)
    assert choice.settings(SETTINGS).learning_rate == 1e-3


def test_a_context_is_read_normal_too_where_the_columns_are_bent():
    """By a start or a domain; not if the search says otherwise, nor where the context is wide."""
    table = load_table(np.random.default_rng(0).uniform(size=(400, 3)), context=["x2"])

    def read(table=table, domains=None, **arguments):
        models = candidates_of(table, ModelSearch(arguments=arguments), domains=domains)
        built = [ModelChoice(**model._asdict()).build(table, {}, 0) for model in models]
        assert {flow.context_features for flow in built} == {len(table.context_columns)}
        options = [model.arguments for model in models]
        return {each["start"] for each in options if each.get("gaussianize_context")}

    bent = {"gaussianize", "whiten-gaussianize"}
    assert read() == bent
    assert read(domains=domains_of({"x0": (0, 1)}, table)) == {*bent, "identity", "whiten"}
    assert read(gaussianize_context=False) == set()
    columns = [f"x{i}" for i in range(1, 32)]
    wide = load_table(np.random.default_rng(0).normal(size=(100, 32)), context=columns)
    assert read(wide) == set()


def test_the_model_of_one_column_is_a_curve_and_nothing_races(monkeypatch):
    """A spike of 5 % of the rows: couplings alone would be a Gaussian, 0.9 nats worse."""
    monkeypatch.setattr(module, "candidates_of", candidates_of)
    x = np.random.default_rng(0).normal(size=(2000, 1))
    x[:100] = 3 + x[:100] / 100
    result = kf.fit_auto(x, max_epochs=10, progress=False)
    assert "a curve is fitted to the one column" in result.notes[-1]
    assert -result.flow.log_prob(x).mean() < 1.5


@pytest.mark.slow
def test_fit_auto_is_the_command_in_python(ticking):
    """It searches, trains, and says what it chose; images are refused."""
    ticking(0.002)
    x = np.random.default_rng(0).uniform(-1, 1, (800, 2))
    result = kf.fit_auto(x, max_time_s=12, progress=False)
    assert result.notes[-1].startswith("chose 2 spline couplings")
    assert result.flow.sample(3).shape == (3, 2)
    again = kf.fit_auto(x, search_time=0, max_epochs=1, progress=False)
    assert "without a search" in again.notes[-1]
    with pytest.raises(kf.errors.ArgumentError, match="should be a table"):
        kf.fit_auto("digits")


@pytest.mark.slow
def test_fit_auto_resumes_what_it_chose(tmp_path):
    """The same call finishes the training of the winner."""
    x = np.random.default_rng(0).uniform(-1, 1, (800, 2))
    settings = {"max_epochs": 30, "progress": False, "out": tmp_path / "run", "batch_size": 64}
    with pytest.raises(KeyboardInterrupt):
        kf.fit_auto(x, callbacks=[Stop()], **settings)
    kept = chosen_before(tmp_path / "run")
    assert kept is not None and len(kept.trials) == 2
    assert kf.fit_auto(x, **settings).notes[-1] == str(kept)
