"""`fit` on small data: what it reaches, keeps, refuses and survives."""

import contextlib
import json
import math
import warnings

import numpy as np
import pytest
import torch

import kappaflow as kf
from kappaflow.flows.recipe import from_options
from kappaflow.training.optimizer import learning_rate_at
from kappaflow.training.settings import Settings

ENTROPY_1 = 0.5 * math.log(2 * math.pi * math.e)  # of N(0, 1), nats


def gaussian(rows=2000, seed=0):
    """Rows of a correlated Gaussian in awkward units, and its entropy in nats."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.tensor([[300.0, 0.0, 0.0], [2.0, 1.0, 0.0], [0.001, 0.0, 0.002]])
    x = torch.randn(rows, 3, generator=generator) @ mixing.T + torch.tensor([1e4, -5.0, 0.0])
    return x, 3 * ENTROPY_1 + math.log(300 * 1.0 * 0.002)


def small(features=3, **arguments):
    """A flow that trains in a second."""
    torch.manual_seed(0)
    return from_options(kf.real_nvp, features, **{"depth": 4, "hidden": (16,), **arguments})


def figures_without_clock(history):
    """The lines of metrics without what depends on the machine's moment."""
    return [{k: v for k, v in h.items() if k not in {"time_s", "memory_bytes"}} for h in history]


@pytest.mark.slow
def test_a_gaussian_is_learnt_to_its_entropy_in_the_units_of_the_data():
    """The held-out NLL comes within 0.1 nats of the entropy, whatever the units."""
    x, entropy = gaussian()
    result = kf.fit(small(), x, max_epochs=40, learning_rate=5e-3)
    assert abs(result.validation_nll - entropy) < 0.1
    held_out, _ = gaussian(seed=1)
    assert abs(-result.flow.log_prob(held_out).mean().item() - entropy) < 0.1


def test_units_are_fitted_on_the_training_rows_only_and_only_once():
    """An extreme validation row does not move the standardization; nor does a second fit."""
    x, _ = gaussian(300)
    extreme = x.clone()
    extreme[0] = 1e6
    flow = small()
    kf.fit(flow, x, validation=extreme, max_epochs=1)
    units = flow.bijection.bijections[0]
    assert torch.allclose(units.mean, x.mean(0)) and bool(units.fitted)
    kf.fit(flow, extreme, max_epochs=1, progress=False)
    assert torch.allclose(units.mean, x.mean(0))


def test_metrics_hold_one_line_an_epoch_with_the_promised_figures(tmp_path):
    """metrics.jsonl is valid JSON, line by line, with every promised key."""
    x, _ = gaussian(300)
    kf.fit(small(), x, max_epochs=3, out=tmp_path / "run")
    lines = [
        json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    ]
    promised = {
        "epoch", "train_nll", "validation_nll", "condition_number_median", "condition_number_p95",
        "round_trip_data", "round_trip_latent", "time_s", "memory_bytes", "validation_nll_p99",
    }  # fmt: skip
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert all(promised <= set(line) for line in lines)
    assert all(line["condition_number_median"] >= 1 for line in lines)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_losses_and_another_seed_others():
    """Training is deterministic given the seed and the initial weights."""
    x, _ = gaussian(300)
    runs = [kf.fit(small(), x, max_epochs=2, seed=seed).history for seed in (0, 0, 1)]
    assert figures_without_clock(runs[0]) == figures_without_clock(runs[1])
    assert runs[0][-1]["train_nll"] != runs[2][-1]["train_nll"]


def test_fit_leaves_the_global_random_state_alone():
    """The user's own draws do not depend on whether a flow was trained in between."""
    x, _ = gaussian(300)
    flow = small()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    kf.fit(flow, x, max_epochs=1)
    assert torch.equal(torch.rand(3), expected)


class StopTraining(Exception):
    """Raised by a test in the middle of a training."""


def interrupted(monkeypatch, after, **arguments):
    """Runs a fit that dies after so many epochs, with a checkpoint each epoch."""
    from kappaflow.training.loop import Training

    measured, seen = Training._measured, []

    def dying(self, train_nll):
        if len(seen) == after:
            raise StopTraining
        seen.append(train_nll)
        return measured(self, train_nll)

    monkeypatch.setattr(Training, "_measured", dying)
    with pytest.raises(StopTraining):
        kf.fit(small(), **arguments)
    monkeypatch.undo()


@pytest.mark.parametrize("after", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_an_interrupted_run_goes_on_to_the_same_losses_bit_for_bit(tmp_path, monkeypatch, after):
    """Losses and weights after a resume equal those of a run that was never stopped.

    With 60 epochs the conditioning is not measured after every one.
    """
    x, _ = gaussian(100)
    monkeypatch.setattr("kappaflow.training.run_folder.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    whole = kf.fit(small(), x, max_epochs=60, out=tmp_path / "whole")
    interrupted(monkeypatch, after, data=x, max_epochs=60, out=tmp_path / "run")
    torch.manual_seed(99)
    other_start = kf.real_nvp(3, depth=4, hidden=(16,))
    resumed = kf.fit(other_start, x, max_epochs=60, out=tmp_path / "run")
    assert figures_without_clock(resumed.history) == figures_without_clock(whole.history)
    for name, tensor in whole.flow.state_dict().items():
        assert torch.equal(tensor, resumed.flow.state_dict()[name]), name


def test_a_finished_run_returns_its_stored_result_and_its_weights(tmp_path):
    """Nothing is trained again, and the flow gets the best weights."""
    x, _ = gaussian(300)
    first = kf.fit(small(), x, max_epochs=2, out=tmp_path / "run")
    fresh = small()
    second = kf.fit(fresh, x, max_epochs=2, out=tmp_path / "run")
    assert second.history == first.history
    assert torch.equal(fresh.log_prob(x), first.flow.log_prob(x))


def test_a_run_folder_of_other_data_or_arguments_is_refused_by_name(tmp_path):
    """The message says what differs: a setting, the model, or the rows."""
    x, _ = gaussian(300)
    out = tmp_path / "run"
    kf.fit(small(), x, max_epochs=1, out=out)
    with pytest.raises(kf.errors.ArgumentError, match="max_epochs 1, not 2"):
        kf.fit(small(), x, max_epochs=2, out=out)
    with pytest.raises(kf.errors.ArgumentError, match="depth 4, not 6"):
        kf.fit(small(depth=6), x, max_epochs=1, out=out)
    with pytest.raises(kf.errors.ArgumentError, match="other train rows"):
        kf.fit(small(), x + 1, max_epochs=1, out=out)


def test_a_folder_with_other_files_is_not_written_into(tmp_path):
    """A folder that is no run is left as it is."""
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(kf.errors.ArgumentError, match="holds other files"):
        kf.fit(small(), gaussian(300)[0], max_epochs=1, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_a_run_folder_is_a_model_file(tmp_path):
    """kf.load reads a run folder and gives the trained flow."""
    x, _ = gaussian(300)
    result = kf.fit(small(), x, max_epochs=1, out=tmp_path / "run")
    assert torch.equal(kf.load(tmp_path / "run").log_prob(x), result.flow.log_prob(x))


@pytest.mark.slow
def test_a_damaged_checkpoint_is_said_in_one_sentence(tmp_path):
    """A checkpoint cut short is an error, not a fresh start."""
    x, _ = gaussian(300)
    kf.fit(small(), x, max_epochs=2, out=tmp_path / "run")
    (tmp_path / "run/result.json").unlink()
    state = tmp_path / "run/checkpoint/state.safetensors"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(kf.errors.FileError, match="damaged or cut short"):
        kf.fit(small(), x, max_epochs=2, out=tmp_path / "run")


@kf.register("tests.Stumbles")
class Stumbles(kf.Bijection):
    """The identity, except for calls in training mode that it answers with infinity."""

    def __init__(self, bad_calls=()):
        super().__init__()
        self.bad_calls, self.calls = tuple(bad_calls), 0
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, x, context=None):
        if self.training:
            self.calls += 1
        factor = math.inf if self.training and self.calls in self.bad_calls else 1.0
        return x * factor * self.scale, self.scale.log().expand(len(x)) * x.shape[1]

    def inverse(self, z, context=None):
        return z / self.scale, -self.scale.log().expand(len(z)) * z.shape[1]


def stumbling(bad_calls):
    """A flow whose middle layer stumbles."""
    flow = small(2)
    return kf.Flow(flow.base, kf.Chain([*flow.bijection, Stumbles(bad_calls)]))


def test_a_step_that_is_not_finite_is_skipped_counted_and_blamed():
    """One infinite answer costs one step; the weights stay finite and the layer is named."""
    x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    # The blame asks the layers once more: calls 3 and 4 are one stumble.
    result = kf.fit(stumbling({3, 4}), x, max_epochs=3, batch_size=100)
    assert result.history[-1]["skipped_steps"] == 1
    assert result.history[-1]["blamed"] == "layer 5 Stumbles"
    assert all(torch.isfinite(p).all() for p in result.flow.parameters())


@pytest.mark.slow
def test_many_bad_steps_in_a_row_stop_with_a_diagnosis_and_finite_weights():
    """Training never ends with NaN weights, and says which layer and what to try."""
    x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    flow = stumbling(range(20, 10_000))
    with pytest.raises(kf.errors.NumericalError, match="layer 5 Stumbles.*learning_rate"):
        kf.fit(flow, x, max_epochs=30, batch_size=100, most_skipped=7)
    assert all(torch.isfinite(p).all() for p in flow.parameters())
    assert torch.isfinite(flow.log_prob(x)).all()


@pytest.mark.slow
def test_a_wild_learning_rate_ends_finite():
    """At a learning rate of 1e3 the weights stay finite, or the run stops with a diagnosis."""
    x, _ = gaussian(300)
    flow = small()
    with contextlib.suppress(kf.errors.NumericalError):
        kf.fit(flow, x, max_epochs=5, learning_rate=1e3)
    assert all(torch.isfinite(p).all() for p in flow.parameters())


def test_patience_and_time_end_a_training():
    """Early stopping and the time budget say that they were the reason."""
    x, _ = gaussian(300)
    assert kf.fit(small(), x, max_epochs=50, max_time_s=1e-6).stopped_because == "max_time_s"
    still = kf.fit(small(), x, max_epochs=50, learning_rate=1e-12, patience=3)
    assert still.stopped_because == "patience" and len(still.history) <= 6


def test_a_training_of_one_step_reports_that_its_learning_rate_did_not_fall():
    """KF508 reads the share of the highest learning rate from the history."""
    history = kf.fit(small(), gaussian(100)[0], max_epochs=1).history
    codes = {finding.code for finding in kf.diagnosis.training_findings(history, "max_epochs")}
    assert history[-1]["learning_rate_share"] == 1.0 and "KF508" in codes


@pytest.mark.slow
def test_a_conditional_flow_learns_from_pairs():
    """With (x, context) the density follows the context, whatever the context's units."""
    generator = torch.Generator().manual_seed(0)
    context = torch.rand(2000, 1, generator=generator) * 1e3 + 1e4
    x = (context - 1e4) / 100 + 0.5 * torch.randn(2000, 1, generator=generator)
    flow = small(1, hidden=(32, 32), context_features=1)
    result = kf.fit(flow, (x, context), max_epochs=60, learning_rate=1e-2)
    assert result.validation_nll < ENTROPY_1 + math.log(0.5) + 0.1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tensor", "array", "frame", "path"])
def test_data_of_every_kind_gives_the_same_training(kind, tmp_path):
    """A tensor, an array, a data frame and a file of the same numbers train alike."""
    import polars as pl

    values = np.round(gaussian(200)[0].numpy().astype(np.float64), 4)
    values[:, 2] = values[:, 0] ** 2 / 1e6 + np.arange(200) % 7 / 3
    frame = pl.DataFrame(values, schema=["a", "b", "c"], orient="row")
    frame.write_csv(tmp_path / "data.csv")
    data = {
        "tensor": torch.from_numpy(values),
        "array": values,
        "frame": frame,
        "path": tmp_path / "data.csv",
    }[kind]
    result = kf.fit(small(), data, max_epochs=1)
    assert result.history[-1]["train_nll"] == pytest.approx(
        kf.fit(small(), values, max_epochs=1).history[-1]["train_nll"], abs=0
    )


def test_data_without_a_density_stops_and_repair_goes_on():
    """A dependent column is named; with repair it is dropped, for a flow of that width."""
    x = gaussian(300)[0].double().numpy()
    table = np.column_stack([x, x[:, 0] - 2 * x[:, 1]])
    with pytest.raises(kf.errors.DataError, match="x3"):
        kf.fit(small(4), table, max_epochs=1)
    with pytest.warns(kf.errors.DataWarning, match="left out"):
        result = kf.fit(small(3), table, repair="drop", max_epochs=1)
    assert result.notes


def test_validation_rows_that_are_not_finite_stop_before_training():
    """Row and column are named; the flow is untouched."""
    x, _ = gaussian(300)
    flow, bad = small(), x.clone()
    bad[4, 1] = math.nan
    with pytest.raises(kf.errors.DataError, match=r"'x1' has a missing value \(NaN\) at row 5"):
        kf.fit(flow, x, validation=bad, max_epochs=1)
    assert not flow.bijection.bijections[0].fitted


def test_a_column_dropped_by_a_repair_is_dropped_from_the_validation_rows_too():
    """Both tables are given with four columns, one of them dependent."""
    x = gaussian(300)[0].double().numpy()
    table = np.column_stack([x, x[:, 0] - 2 * x[:, 1]])
    with pytest.warns(kf.errors.DataWarning):
        result = kf.fit(small(3), table, validation=table[:50], repair="drop", max_epochs=1)
    assert result.flow.bijection.bijections[0].fitted


def test_what_is_worth_knowing_about_the_data_is_warned_of_and_returned():
    """A column of whole numbers gives a warning, and the same sentence in the result."""
    x = gaussian(300)[0]
    x[:, 1] = x[:, 1].round()
    with pytest.warns(kf.errors.DataWarning, match="x1") as caught:
        result = kf.fit(small(), x, max_epochs=1)
    assert str(caught[0].message) in result.notes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_epochs": 0}, "'max_epochs'"),
        ({"max_epochs": 2.5}, "'max_epochs'"),
        ({"learning_rate": -1.0}, "'learning_rate'"),
        ({"learning_rate": math.nan}, "'learning_rate'"),
        ({"batch_sise": 3}, "'batch_sise' is no setting .* did you mean 'batch_size'"),
        ({"lr": 0.1}, "did you mean 'learning_rate'"),
        ({"epochs": 3}, "did you mean 'max_epochs'"),
        ({"val_data": None}, "did you mean 'validation'"),
        ({"optim": None}, "did you mean 'optimizer'"),
        ({"device": "cuda:99"}, "device"),
        ({"repair": "magic"}, "'?repair'?"),
    ],
)
@pytest.mark.boundary
def test_a_wrong_argument_is_named(arguments, message):
    """Every refusal is an ArgumentError that names the argument."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        kf.fit(small(), gaussian(100)[0], **arguments)


@pytest.mark.boundary
def test_a_flow_of_another_width_or_kind_is_refused():
    """Width, context and type of the flow are checked before training."""
    x = gaussian(100)[0]
    with pytest.raises(kf.errors.ArgumentError, match="4 columns"):
        kf.fit(small(4), x)
    with pytest.raises(kf.errors.ArgumentError, match="1 context columns"):
        kf.fit(small(context_features=1), x)
    with pytest.raises(kf.errors.ArgumentError, match="should be a Flow"):
        kf.fit(torch.nn.Linear(3, 3), x)
    with pytest.raises(kf.errors.ArgumentError, match="float32 or float64"):
        kf.fit(small().bfloat16(), x)


def test_float64_flows_train_in_float64():
    """The type of the flow is kept, and so is the accuracy."""
    result = kf.fit(small().double(), gaussian(200)[0], max_epochs=1)
    assert result.flow.dtype == torch.float64
    assert result.history[-1]["round_trip_data"] < 1e-12


def test_the_learning_rate_rises_then_falls_to_zero():
    """The schedule starts low, peaks at the setting, and ends near zero."""
    rates = [learning_rate_at(step, 100, highest=1.0, warmup=0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(1.0)
    assert rates.index(max(rates)) in {9, 10} and rates[-1] < 1e-3


@pytest.mark.slow
def test_a_time_limit_ends_the_schedule_too(ticking):
    """The learning rate falls to zero, and the last epoch is measured within the limit."""
    x, _ = gaussian(20_000)
    ticking(0.002)
    result = kf.fit(small(), x, max_epochs=10_000, max_time_s=1.5, batch_size=32)
    assert result.stopped_because == "max_time_s"
    assert result.history[-1]["learning_rate"] < 0.1 * 2e-3
    assert 1.4 < result.history[-1]["time_s"] < 1.51


@pytest.mark.parametrize(
    ("rows", "batch", "steps"),
    [(500, 128, 2_000), (1_000, 128, 2_000), (15_000, 512, 6_000), (200_000, 512, 12_000)],
)
def test_a_training_without_limits_has_steps_enough(rows, batch, steps):
    """A small table has many epochs of small batches, and a large one does not take for ever."""
    settings = Settings()
    assert settings.rows_a_step(rows) == batch
    per_epoch = -(-rows // batch)
    assert settings.epochs(per_epoch) * per_epoch == pytest.approx(steps, rel=0.04)
    assert settings.epochs_of_patience(per_epoch) * per_epoch >= 500


def test_no_warning_escapes_from_a_healthy_fit():
    """Libraries below are quiet on healthy data."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kf.fit(small(), gaussian(200)[0], max_epochs=1)


def overfitting(**arguments):
    """A training that is best long before its end: few rows, many steps, a large step."""
    x, _ = gaussian(60)
    held_out, _ = gaussian(200, seed=1)
    torch.manual_seed(0)
    flow = kf.real_nvp(3, depth=4, hidden=(64,))
    return kf.fit(
        flow, x, validation=held_out, batch_size=16, learning_rate=2e-2, warmup=0.0, **arguments
    ), held_out


@pytest.mark.slow
def test_the_flow_has_the_weights_of_its_best_epoch():
    """Its NLL on the validation rows is that of the best epoch, not of the last."""
    result, held_out = overfitting(max_epochs=25)
    assert result.best_epoch < 25
    nll = -result.flow.log_prob(held_out).mean().item()
    assert nll == pytest.approx(result.validation_nll, abs=1e-4)
    assert result.history[-1]["validation_nll"] > result.validation_nll + 0.01


@pytest.mark.slow
def test_a_resumed_run_has_the_weights_of_its_best_epoch_too(tmp_path, monkeypatch):
    """Where the best epoch lies before the interruption."""
    from kappaflow.training.loop import Training

    monkeypatch.setattr("kappaflow.training.run_folder.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    whole, held_out = overfitting(max_epochs=25)
    measured = Training._measured

    def dying(self, train_nll):
        if self.progress.epoch == 22:
            raise StopTraining
        return measured(self, train_nll)

    monkeypatch.setattr(Training, "_measured", dying)
    with pytest.raises(StopTraining):
        overfitting(max_epochs=25, out=tmp_path / "run")
    best = kf.load(tmp_path / "run")
    assert -best.log_prob(held_out).mean().item() == pytest.approx(whole.validation_nll, abs=1e-4)
    monkeypatch.setattr(Training, "_measured", measured)
    resumed, _ = overfitting(max_epochs=25, out=tmp_path / "run")
    assert resumed.best_epoch == whole.best_epoch < 21
    assert torch.equal(resumed.flow.log_prob(held_out), whole.flow.log_prob(held_out))


@pytest.mark.slow
def test_a_resume_with_dropout_draws_the_same_units(tmp_path, monkeypatch):
    """The random numbers of an epoch follow from the seed and the epoch alone."""
    import sys

    x, _ = gaussian(300)
    monkeypatch.setattr("kappaflow.training.run_folder.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    whole = kf.fit(small(dropout=0.3), x, max_epochs=4, out=tmp_path / "whole")
    dropping = small(dropout=0.3)
    monkeypatch.setattr(sys.modules[__name__], "small", lambda: dropping)
    torch.manual_seed(0)
    interrupted(monkeypatch, 2, data=x, max_epochs=4, out=tmp_path / "run")
    torch.manual_seed(5)
    flow = kf.real_nvp(3, depth=4, hidden=(16,), network={"dropout": 0.3})
    resumed = kf.fit(flow, x, max_epochs=4, out=tmp_path / "run")
    assert figures_without_clock(resumed.history) == figures_without_clock(whole.history)
    assert resumed.history[-1]["time_s"] > resumed.history[1]["time_s"] > 0


def test_a_run_killed_before_its_first_file_was_whole_can_be_started(tmp_path):
    """What a write that was cut short left behind is no reason to refuse the folder."""
    out = tmp_path / "run"
    out.mkdir()
    (out / ".config.json.1234.tmp").write_text("{")
    result = kf.fit(small(), gaussian(100)[0], max_epochs=1, out=out)
    assert result.stopped_because == "max_epochs"
    assert not list(out.glob(".*"))


@kf.register("tests.BadGradient")
class BadGradient(kf.Bijection):
    """The identity, whose gradient is not a number from a call on."""

    def __init__(self, since=0, until=10**9):
        super().__init__()
        self.since, self.until, self.calls = since, until, 0
        self.shift = torch.nn.Parameter(torch.zeros(2))

    def forward(self, x, context=None):
        self.calls += self.training and torch.is_grad_enabled()
        bad = self.training and self.since <= self.calls < self.until
        shift = self.shift + (self.shift * 0).sqrt() if bad else self.shift
        return x + shift, torch.zeros(len(x))

    def inverse(self, z, context=None):
        return z - self.shift, torch.zeros(len(z))


def with_bad_gradient(**arguments):
    """A flow whose second layer it is, with couplings behind it."""
    torch.manual_seed(0)
    parts = [BadGradient(**arguments), *kf.real_nvp(2, depth=3, hidden=(8,)).core]
    return kf.Flow(kf.StandardNormal(2), kf.Chain([kf.bijections.Standardize(2), *parts]))


def test_a_gradient_that_is_not_finite_is_skipped_and_blamed_on_its_layer():
    """The loss is finite; the layer is the one at fault, not the last; weights do not move."""
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    flow = with_bad_gradient()
    before = [parameter.clone() for parameter in flow.parameters()]
    with pytest.raises(kf.errors.NumericalError, match="the gradient of layer 1 BadGradient"):
        kf.fit(flow, x, max_epochs=9, batch_size=50, most_skipped=5)
    assert all(torch.equal(a, b) for a, b in zip(before, flow.parameters(), strict=True))


@pytest.mark.slow
def test_bad_steps_that_are_not_in_a_row_do_not_stop_a_training():
    """The count of steps in a row starts again after a good one."""
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    flow = with_bad_gradient(since=3, until=6)
    result = kf.fit(flow, x, max_epochs=4, batch_size=50, most_skipped=4)
    assert result.history[-1]["skipped_steps"] == 3

    class Twice(BadGradient):
        """Bad in two stretches of three steps."""

        def forward(self, x, context=None):
            self.since, self.until = (3, 6) if self.calls < 7 else (8, 11)
            return super().forward(x, context)

    flow = with_bad_gradient()
    flow = kf.Flow(
        flow.base, kf.Chain([kf.bijections.Standardize(2), Twice(), *list(flow.core)[1:]])
    )
    result = kf.fit(flow, x, max_epochs=4, batch_size=50, most_skipped=4)
    assert result.history[-1]["skipped_steps"] == 6


@pytest.mark.slow
def test_columns_of_the_validation_rows_are_matched_by_name():
    """In another order they give the same NLL; a missing one is an error that names it."""
    import polars as pl

    x, _ = gaussian(300)
    frame = pl.DataFrame(x.double().numpy(), schema=["a", "b", "c"], orient="row")
    runs = [
        kf.fit(small(), frame, validation=frame[:60].select(order), max_epochs=1).validation_nll
        for order in (["a", "b", "c"], ["c", "a", "b"])
    ]
    assert runs[0] == runs[1]
    with pytest.raises(kf.errors.DataError, match="they have a, b"):
        kf.fit(small(), frame, validation=frame[:60].select(["a", "b"]), max_epochs=1)


def test_two_standardizations_in_a_row_are_fitted_one_after_the_other():
    """The second sees what the first makes of the rows."""
    x, _ = gaussian(300)
    flow = small()
    flow = kf.Flow(flow.base, kf.Chain([kf.bijections.Standardize(3), *flow.bijection]))
    kf.fit(flow, x, validation=x[:50], max_epochs=1)
    first, second = list(flow.standardization)
    assert torch.allclose(first.mean, x.mean(0))
    assert second.mean.abs().max() < 1e-5
    assert (second.deviation - 1).abs().max() < 1e-4


def test_training_starts_where_the_caller_has_switched_gradients_off():
    """Under no_grad and in inference mode."""
    x, _ = gaussian(100)
    with torch.no_grad():
        assert kf.fit(small(), x, max_epochs=1).history
    flow = small()
    with torch.inference_mode():
        assert kf.fit(flow, x.clone(), max_epochs=1).history


@pytest.mark.boundary
@pytest.mark.parametrize(
    ("device", "message"),
    [(name, '\'device\' should be "cpu" or "cuda"') for name in ("gpu", "meta", 3.5)]
    + [("cuda:7", "'device' should exist on this machine, got cuda:7")],
)
def test_a_device_that_is_not_there_is_refused_by_name(device, message):
    """One sentence, before anything is trained."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        kf.fit(small(), gaussian(100)[0], device=device)


def test_a_flow_with_nothing_to_train_is_refused():
    """Frozen, or without parameters."""
    flow = small()
    flow.requires_grad_(False)
    with pytest.raises(kf.errors.ArgumentError, match="trainable parameters"):
        kf.fit(flow, gaussian(100)[0])


def test_numpy_numbers_are_numbers():
    """Settings may come out of an array."""
    assert len(kf.fit(small(), gaussian(100)[0], max_epochs=np.int64(2)).history) == 2


def test_a_result_without_its_history_is_no_result(tmp_path):
    """One sentence that names the key."""
    x, _ = gaussian(100)
    kf.fit(small(), x, max_epochs=1, out=tmp_path / "run")
    (tmp_path / "run/result.json").write_text('{"validation_nll": 1.0}')
    with pytest.raises(kf.errors.FileError, match="lacks 'best_epoch'"):
        kf.fit(small(), x, max_epochs=1, out=tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["_step", "_measured"])
def test_control_c_keeps_the_last_epoch_and_the_best_weights(tmp_path, monkeypatch, moment):
    """Within a second of the last checkpoint too; the exception is raised again, with a note."""
    from kappaflow.training.checkpoint import read_checkpoint
    from kappaflow.training.loop import Training

    x, _ = gaussian(300)
    original = getattr(Training, moment)

    def interrupted(self, *arguments, **named):
        done = original(self, *arguments, **named)
        if len(self.history) == (3 if moment == "_step" else 4):
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(Training, moment, interrupted)
    flow = small()
    with pytest.raises(KeyboardInterrupt) as stopped:
        kf.fit(flow, x, max_epochs=9, out=tmp_path / "run")
    assert stopped.value.__notes__ == [
        "interrupted in epoch 4: run the same command again to resume."
    ]
    assert read_checkpoint(tmp_path / "run")[1]["epoch"] == 3
    assert torch.equal(flow.log_prob(x), kf.load(tmp_path / "run").log_prob(x))
    assert not flow.training
    monkeypatch.undo()
    resumed = kf.fit(small(), x, max_epochs=9, out=tmp_path / "run").history
    whole = kf.fit(small(), x, max_epochs=9).history
    assert figures_without_clock(resumed) == figures_without_clock(whole)


def test_a_kill_between_the_first_two_files_leaves_a_folder_that_can_be_started(tmp_path):
    """Weights without config.json are ours, and nobody can load them; others' weights stay."""
    x, _ = gaussian(100)
    kf.fit(small(), x, max_epochs=1, out=tmp_path / "run")
    for left in ("killed", "theirs"):
        (tmp_path / left).mkdir()
    weights = (tmp_path / "run/model.safetensors").read_bytes()
    (tmp_path / "killed/model.safetensors").write_bytes(weights)
    assert kf.fit(small(), x, max_epochs=1, out=tmp_path / "killed").history
    (tmp_path / "theirs/model.safetensors").write_bytes(b"precious")
    with pytest.raises(kf.errors.ArgumentError, match="holds other files"):
        kf.fit(small(), x, max_epochs=1, out=tmp_path / "theirs")
    assert (tmp_path / "theirs/model.safetensors").read_bytes() == b"precious"


def test_weighed_copies_standardize_as_kept_ones_do():
    """The standardization is that of all rows, whether copies are rows or weights."""
    x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0)).double()
    x = torch.cat((x, x[x[:, 0] > 0].repeat(3, 1)))
    means = []
    for duplicates in ("keep", "weigh"):
        flow = kf.real_nvp(2, depth=2, hidden=(4,)).double()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of repeated rows, with "keep"
            kf.fit(flow, x, duplicates=duplicates, max_epochs=1)
        means.append(next(iter(flow.standardization)).mean)
    torch.testing.assert_close(means[0], means[1])


def test_fewer_than_fifty_rows_to_train_on_warn():
    """The result has the sentence too."""
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    with pytest.warns(
        kf.errors.DataWarning, match="45 rows are left to train on, fewer than 50"
    ) as got:
        result = kf.fit(kf.real_nvp(2, depth=2, hidden=(4,)), x, max_epochs=1)
    assert result.notes == tuple(str(one.message) for one in got)
