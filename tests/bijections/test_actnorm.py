"""Activation normalisation: its start, and that it happens once."""

import pytest
import torch

import kappaflow as kf


def test_the_first_batch_comes_out_with_mean_zero_and_deviation_one():
    """In training mode the first call sets scale and shift, and log_det counts them."""
    x = 3 + torch.tensor([2.0, 0.1]) * torch.randn(64, 2)
    z, log_det = kf.bijections.ActNorm(2)(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(2))
    torch.testing.assert_close(log_det[0], -x.std(0, correction=0).log().sum())


def test_evaluation_mode_does_not_start_it():
    """Until it has seen a training batch it is the identity."""
    norm = kf.bijections.ActNorm(2).eval()
    x = 5 + torch.randn(8, 2)
    assert torch.equal(norm(x)[0], x)
    assert not norm.initialized


def test_the_inverse_does_not_start_it():
    """Latents are no data to start from."""
    norm = kf.bijections.ActNorm(2)
    norm.inverse(torch.randn(8, 2))
    assert not norm.initialized


def test_a_batch_of_one_row_sets_the_shift_only():
    """One row has no deviation: the scale stays 1."""
    norm = kf.bijections.ActNorm(2)
    z, log_det = norm(torch.tensor([[3.0, -4.0]]))
    assert torch.equal(z, torch.zeros(1, 2))
    assert torch.equal(norm.log_scale, torch.zeros(2))
    assert log_det.item() == 0


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6, 1e-30])
def test_a_constant_feature_is_only_shifted(value):
    """Rounding noise of a constant feature is never blown up."""
    norm = kf.bijections.ActNorm(2).double()
    x = torch.stack((torch.full((9,), value), torch.randn(9)), 1).double()
    x[:, 0] = value
    x[::2, 0] *= 1 + torch.finfo(x.dtype).eps
    z, _ = norm(x)
    assert norm.log_scale[0] == 0
    assert torch.isfinite(z).all()
    assert z[:, 0].abs().max() <= 1e-15 * abs(value)


def test_measuring_does_not_start_it():
    """A spectrum, a profile and a round trip in training mode leave an unstarted one unstarted."""
    flow = kf.Flow(kf.StandardNormal(2), kf.Chain([kf.bijections.ActNorm(2)]))
    x = 5 + torch.randn(8, 2)
    kf.spectrum(flow.bijection, x)
    kf.profile(flow, x)
    kf.round_trip(flow, x)
    norm = next(iter(flow.bijection))
    assert flow.training
    assert norm.training
    assert not norm.initialized


def test_that_it_has_started_survives_saving(tmp_path):
    """A loaded one does not start again, and its repr says so."""
    flow = kf.Flow(kf.StandardNormal(2), kf.bijections.ActNorm(2))
    flow.log_prob(3 + torch.randn(16, 2))
    kf.save(flow, tmp_path)
    loaded = kf.load(tmp_path).train()
    x = torch.randn(16, 2)
    assert "initialized=True" in repr(loaded)
    assert torch.equal(loaded.log_prob(x), flow.log_prob(x))


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
def test_it_waits_for_a_batch_whose_moments_are_finite(bad):
    """After a first batch that is not finite it is still the identity, and the next starts it."""
    norm, x = kf.bijections.ActNorm(2), 5 + torch.randn(8, 2)
    spoilt = x.clone()
    spoilt[3, 1] = bad
    assert torch.equal(norm(spoilt)[0].nan_to_num(), spoilt.nan_to_num())
    assert not norm.initialized
    z, _ = norm(x)
    assert norm.initialized
    torch.testing.assert_close(z.mean(0), torch.zeros(2), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("first", "own"), [(0.0, float("nan")), (float("nan"), 0.0)])
def test_every_process_takes_the_start_of_the_first_and_its_wait(monkeypatch, first, own):
    """A process whose own batch is bad starts with the others, and none starts alone."""

    def broadcast(tensor, source):
        assert source == 0
        tensor.copy_(torch.full_like(tensor, 0.5 + first))

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "broadcast", broadcast)
    norm = kf.bijections.ActNorm(2)
    norm(own + torch.randn(8, 2))
    assert bool(norm.initialized) == (first == 0.0)
    assert torch.equal(norm.log_scale, torch.full((2,), 0.5 if first == 0.0 else 0.0))
    assert torch.equal(norm.shift, torch.full((2,), 0.5 if first == 0.0 else 0.0))


def test_its_repr_works_where_it_has_no_numbers():
    """On the meta device nobody knows whether it has started."""
    assert repr(kf.bijections.ActNorm(2).to("meta")) == "ActNorm(features=2, initialized=unknown)"
