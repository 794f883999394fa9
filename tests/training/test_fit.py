"""`fit` on small data: what it reaches, keeps, refuses and survives."""

import json
import math
import warnings

import numpy as np
import pytest
import torch
from tests.training.examples import gaussian, small

import kappaflow as kf
from kappaflow.training.optimizer import learning_rate_at
from kappaflow.training.settings import Settings


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
    """metrics.jsonl is valid JSON, line by line, with every promised key; the run is a model."""
    x, _ = gaussian(300)
    result = kf.fit(small(), x, max_epochs=3, out=tmp_path / "run")
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
    assert torch.equal(kf.load(tmp_path / "run").log_prob(x), result.flow.log_prob(x))


def test_fit_leaves_the_global_random_state_alone():
    """The user's own draws do not depend on whether a flow was trained; losses follow a seed."""
    (x, _), flow = gaussian(300), small()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = kf.fit(flow, x, max_epochs=1).history
    assert torch.equal(torch.rand(3), expected)
    again, other = (kf.fit(small(), x, max_epochs=1, seed=seed).history for seed in (0, 1))
    assert again[0]["train_nll"] == first[0]["train_nll"] != other[0]["train_nll"]


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


def test_a_column_dropped_by_a_repair_is_dropped_from_the_validation_rows_too():
    """Both tables are given with four columns, one of them dependent."""
    x = gaussian(300)[0].double().numpy()
    table = np.column_stack([x, x[:, 0] - 2 * x[:, 1]])
    with pytest.warns(kf.errors.DataWarning, match="left out"):
        result = kf.fit(small(3), table, validation=table[:50], repair="drop", max_epochs=1)
    assert result.flow.bijection.bijections[0].fitted and result.notes


def test_what_is_worth_knowing_about_the_data_is_warned_of_and_returned():
    """A column of whole numbers gives a warning, and the same sentence in the result."""
    x = gaussian(300)[0]
    x[:, 1] = x[:, 1].round()
    with pytest.warns(kf.errors.DataWarning, match="x1") as caught:
        result = kf.fit(small(), x, max_epochs=1)
    assert str(caught[0].message) in result.notes


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
    assert settings.epochs_of_patience(per_epoch) * per_epoch >= 1_000


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
    with pytest.raises(kf.errors.NumericalError, match="layer 1 BadGradient.*learning_rate"):
        kf.fit(flow, x, max_epochs=9, batch_size=50, most_skipped=5)
    assert all(torch.equal(a, b) for a, b in zip(before, flow.parameters(), strict=True))


@pytest.mark.slow
def test_bad_steps_that_are_not_in_a_row_do_not_stop_a_training():
    """The count of steps in a row starts again after a good one."""
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))

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


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_training_starts_where_the_caller_has_switched_gradients_off(off):
    """Libraries below are quiet; the dtype of the flow is kept, and so is its accuracy."""
    (x, _), flow = gaussian(200), small().double()
    with off(), warnings.catch_warnings():
        warnings.simplefilter("error")
        result = kf.fit(flow, x.clone(), max_epochs=np.int64(2))
    assert len(result.history) == 2 and result.flow.dtype == torch.float64
    assert result.history[-1]["round_trip_data"] < 1e-12


def test_a_result_without_its_history_is_no_result(tmp_path):
    """One sentence that names the key."""
    x, _ = gaussian(100)
    kf.fit(small(), x, max_epochs=1, out=tmp_path / "run")
    (tmp_path / "run/result.json").write_text('{"validation_nll": 1.0}')
    with pytest.raises(kf.errors.FileError, match="lacks 'best_epoch'"):
        kf.fit(small(), x, max_epochs=1, out=tmp_path / "run")


@pytest.mark.slow
def test_control_c_keeps_the_last_epoch_and_the_best_weights(tmp_path, monkeypatch):
    """Within a second of the last checkpoint too; the exception is raised again, with a note."""
    from kappaflow.training.checkpoint import read_checkpoint
    from kappaflow.training.loop import Training

    x, _ = gaussian(300)
    step = Training._step

    def interrupted(self, *arguments, **named):
        if len(self.history) == 3:
            raise KeyboardInterrupt
        return step(self, *arguments, **named)

    monkeypatch.setattr(Training, "_step", interrupted)
    flow = small()
    with pytest.raises(KeyboardInterrupt) as stopped:
        kf.fit(flow, x, max_epochs=9, out=tmp_path / "run")
    assert stopped.value.__notes__ == [
        "interrupted in epoch 4: run the same command again to resume."
    ]
    assert read_checkpoint(tmp_path / "run")[1]["epoch"] == 3
    assert torch.equal(flow.log_prob(x), kf.load(tmp_path / "run").log_prob(x))
    assert not flow.training


def test_a_kill_between_the_first_two_files_leaves_a_folder_that_can_be_started(tmp_path):
    """Weights without config.json and parts of files are ours; files of others stay."""
    x, _ = gaussian(100)
    kf.fit(small(), x, max_epochs=1, out=tmp_path / "run")
    for left in ("killed", "theirs"):
        (tmp_path / left).mkdir()
    weights = (tmp_path / "run/model.safetensors").read_bytes()
    (tmp_path / "killed/model.safetensors").write_bytes(weights)
    (tmp_path / "killed/.config.json.1234.tmp").write_text("{")
    assert kf.fit(small(), x, max_epochs=1, out=tmp_path / "killed").history
    assert not list((tmp_path / "killed").glob(".*"))
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
    assert result.notes == tuple(str(item.message) for item in got)
