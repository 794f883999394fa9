"""Narrow products in training: where they are narrow, and the scale of float16's gradients."""

import pytest
import torch

import kappaflow as kf
from kappaflow.stack import CouplingStack
from kappaflow.training import Callback


class _Narrow(torch.autograd.Function):
    """The identity, whose cotangent goes through float16 4,096 times as large."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, cotangent):
        return (cotangent * 4096).half().float() / 4096


@kf.register("tests.Overflows")
class Overflows(kf.Bijection):
    """A shift whose gradient overflows at a scale of 2**16, and at 2**9 no more.

    Args:
        always: It is not a number at any scale.
    """

    def __init__(self, always=False):
        super().__init__()
        self.always, self.shift = always, torch.nn.Parameter(torch.zeros(2))

    def forward(self, x, context=None):
        bad = self.always and self.training
        shift = self.shift + (self.shift * 0).sqrt() if bad else self.shift
        return _Narrow.apply(x + shift), torch.zeros(len(x))

    def inverse(self, z, context=None):
        return z - self.shift, torch.zeros(len(z))


def with_overflows(**arguments):
    """A flow whose second layer it is, with couplings behind it."""
    torch.manual_seed(0)
    parts = [Overflows(**arguments), *kf.real_nvp(2, depth=2, hidden=(8,)).core]
    return kf.Flow(kf.StandardNormal(2), kf.Chain([kf.bijections.Standardize(2), *parts]))


def rows():
    """Two hundred rows of two columns."""
    return torch.randn(200, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
@pytest.mark.parametrize(("named", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_products_are_narrow_in_training_steps_only(named, dtype, monkeypatch):
    """Validation, weights and log_dets stay in float32, and the likelihood hardly moves."""
    kinds = set()
    original = CouplingStack._kind_of_products

    def watched(stack, x, direction):
        kind = original(stack, x, direction)
        kinds.add((kind, torch.is_grad_enabled()))
        return kind

    monkeypatch.setattr(CouplingStack, "_kind_of_products", watched)
    x = torch.randn(600, 3, generator=torch.Generator().manual_seed(0))
    x[:, 1] += x[:, 0] ** 2
    found = {}
    for precision in ("full", named):
        kinds.clear()
        torch.manual_seed(0)
        flow = kf.real_nvp(3, depth=4, hidden=(16,))
        found[precision] = kf.fit(flow, x, max_epochs=4, precision=precision).validation_nll
        narrow = torch.float32 if precision == "full" else dtype
        assert kinds == {(narrow, True), (torch.float32, False)}
        assert {p.dtype for p in flow.parameters()} == {torch.float32}
    assert found[named] != found["full"]
    assert found[named] == pytest.approx(found["full"], abs=0.03)


@pytest.mark.parametrize("named", ["bf16", "fp16"])
def test_narrow_products_are_for_float32_flows(named):
    """A flow in float64 was made for its digits."""
    flow = kf.real_nvp(2, depth=2, hidden=(4,)).double()
    with pytest.raises(kf.errors.ArgumentError, match=f'precision="{named}", got torch.float64'):
        kf.fit(flow, torch.randn(100, 2).double(), max_epochs=1, precision=named)


def test_gradients_that_overflow_in_float16_lower_their_scale_and_training_goes_on():
    """Steps without one are counted, reported as what they are, and soon over."""
    result = kf.fit(with_overflows(), rows(), max_epochs=6, batch_size=50, precision="fp16")
    skipped = [line["skipped_steps"] for line in result.history]
    assert 0 < skipped[-1] < 12 and skipped[-1] == skipped[-3]
    assert result.history[-1]["blamed"].startswith("gradients in float16 at a scale of ")
    assert result.history[-1]["validation_nll"] != result.history[0]["validation_nll"]


def test_a_gradient_that_is_wrong_at_any_scale_is_blamed_on_its_layer():
    """When the scale has come down to 1 it was not the scale; weights do not move."""
    flow = with_overflows(always=True)
    with pytest.raises(kf.errors.NumericalError, match="20 steps in a row .* layer 1 Overflows"):
        kf.fit(flow, rows(), max_epochs=9, batch_size=50, precision="fp16")
    assert not next(iter(flow.core)).shift.any()


class Stops(Callback):
    """Ends a training after its second epoch."""

    def on_epoch(self, flow, figures):
        """Raises."""
        if figures["epoch"] == 2:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_the_scale_is_kept_in_the_checkpoint(tmp_path, monkeypatch):
    """A run in float16 resumes to the same losses, bit for bit."""
    monkeypatch.setattr("kappaflow.training.run_folder.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    how = {"max_epochs": 4, "batch_size": 50, "precision": "fp16"}
    whole = kf.fit(with_overflows(), rows(), out=tmp_path / "whole", **how)
    with pytest.raises(KeyboardInterrupt):
        kf.fit(with_overflows(), rows(), out=tmp_path / "run", callbacks=[Stops()], **how)
    resumed = kf.fit(with_overflows(), rows(), out=tmp_path / "run", **how)
    assert [line["train_nll"] for line in resumed.history] == [
        line["train_nll"] for line in whole.history
    ]
    assert resumed.history[-1]["skipped_steps"] == whole.history[-1]["skipped_steps"] > 0
