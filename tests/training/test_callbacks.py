"""What a training tells, when, and with which weights."""

import pytest
import torch

import kappaflow as kf
from kappaflow.errors import ArgumentError
from kappaflow.training import TensorBoard

X = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)).exp()


class Listener(kf.training.Callback):
    """Keeps what it receives, and what the flow says at that moment."""

    def __init__(self, stops_after=None):
        self.reported, self.nll, self.stops_after = [], [], stops_after

    def on_start(self, flow, settings):
        self.reported.append(("start", settings.max_epochs, flow.training))

    def on_epoch(self, flow, figures):
        self.reported.append(("epoch", figures["epoch"], flow.training))
        with torch.no_grad():
            self.nll.append((figures["validation_nll"], -flow.log_prob(HELD_OUT).mean().item()))
        if figures["epoch"] == self.stops_after:
            raise KeyboardInterrupt

    def on_best(self, flow, figures):
        self.reported.append(("best", figures["epoch"], flow.training))

    def on_end(self, result):
        self.reported.append(("end", result.best_epoch, False))


HELD_OUT = X[150:]


def fitted(**more):
    """Returns the result of a small training."""
    torch.manual_seed(0)
    flow = kf.real_nvp(2, depth=2, hidden=(8,), network={"dropout": 0.2})
    settings = {"max_epochs": 4, "progress": False, "validation": HELD_OUT, "batch_size": 50}
    return kf.fit(flow, X[:150], **{**settings, **more})


def test_each_moment_is_told_in_its_order():
    listener = Listener()
    result = fitted(callbacks=[listener])
    epochs = [number for what, number, _ in listener.reported if what == "epoch"]
    assert epochs == [1, 2, 3, 4]
    assert listener.reported[0] == ("start", 4, False)
    assert listener.reported[-1] == ("end", result.best_epoch, False)
    best = [number for what, number, _ in listener.reported if what == "best"]
    assert best[0] == 1
    assert best[-1] == result.best_epoch
    for number in best:
        position = listener.reported.index(("best", number, False))
        assert listener.reported[position - 1] == ("epoch", number, False)


@pytest.mark.slow
def test_the_weights_are_those_that_are_validated_and_the_training_does_not_notice():
    listener = Listener()
    with_it, without = fitted(callbacks=[listener]), fitted()
    for computed, logged in listener.nll:
        assert logged == pytest.approx(computed, abs=1e-5)
    assert [line["validation_nll"] for line in with_it.history] == [
        line["validation_nll"] for line in without.history
    ]
    for item, other in zip(with_it.flow.parameters(), without.flow.parameters(), strict=True):
        assert torch.equal(item, other)


@pytest.mark.slow
def test_a_run_that_goes_on_tells_the_rest_and_a_finished_one_nothing(tmp_path):
    first, second, third = Listener(stops_after=2), Listener(), Listener()
    with pytest.raises(KeyboardInterrupt):
        fitted(out=tmp_path / "run", callbacks=[first])
    fitted(out=tmp_path / "run", callbacks=[second])
    reported = [number for what, number, _ in second.reported if what == "epoch"]
    assert reported[-1] == 4
    assert reported in ([1, 2, 3, 4], [2, 3, 4], [3, 4])  # a checkpoint a second
    fitted(out=tmp_path / "run", callbacks=[third])
    assert third.reported == []


def test_tensorboard_reads_the_figures(tmp_path):
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    result = fitted(callbacks=[TensorBoard(tmp_path)])
    read = reading.EventAccumulator(str(tmp_path))
    read.Reload()
    values = [(item.step, item.value) for item in read.Scalars("validation_nll")]
    expected = [(line["epoch"], line["validation_nll"]) for line in result.history]
    assert [step for step, _ in values] == [epoch for epoch, _ in expected]
    assert [value for _, value in values] == pytest.approx([value for _, value in expected])
    assert "condition_number_median" in read.Tags()["scalars"]


def test_tensorboard_writes_nothing_for_a_training_that_is_refused(tmp_path):
    pytest.importorskip("tensorboard")
    with pytest.raises(ValueError, match="no density"):
        kf.fit(kf.real_nvp(2, depth=2), X.mul(0), callbacks=[TensorBoard(tmp_path / "board")])
    assert not (tmp_path / "board").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="is a file"):
        TensorBoard(tmp_path / "file")
