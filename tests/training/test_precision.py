"""Narrow products in training: where they are narrow, and the scale of float16's gradients."""

import pytest
import torch
from tests.training.examples import with_overflows

import kappaflow as kf
from kappaflow.stack import CouplingStack


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
    result = {}
    for precision in ("full", named):
        kinds.clear()
        torch.manual_seed(0)
        flow = kf.real_nvp(3, depth=4, hidden=(16,))
        result[precision] = kf.fit(flow, x, max_epochs=4, precision=precision).validation_nll
        narrow = torch.float32 if precision == "full" else dtype
        assert kinds == {(narrow, True), (torch.float32, False)}
        assert {p.dtype for p in flow.parameters()} == {torch.float32}
    assert result[named] != result["full"]
    assert result[named] == pytest.approx(result["full"], abs=0.03)


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
