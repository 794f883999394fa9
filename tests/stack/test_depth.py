"""1,024 couplings: finite from the first step, invertible on both sides, the identity at start."""

import pytest
import torch

import kappaflow as kf
from kappaflow.stack.operations import Recording


@pytest.mark.slow
def test_1024_couplings_are_finite_invertible_and_well_conditioned_at_start():
    """64 features, N(0, I): condition number 1, round trips below 1e-5 before and after a step."""
    torch.manual_seed(0)
    flow = kf.real_nvp(64, depth=1024, hidden=(16, 16), couplings={"memory": "invert"})
    x = torch.randn(64, 64)
    actual = kf.spectrum(flow.bijection, x[:2])
    assert torch.allclose(actual.condition_number, torch.ones(2).double(), rtol=1e-3)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-4, fused=True)
    for step in range(2):
        loss = -flow.log_prob(x).mean()
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in flow.parameters()])
        assert torch.isfinite(loss)
        assert torch.isfinite(norm)
        assert step or norm < 100
        with torch.no_grad():
            z, log_det = flow.bijection(x)
            back, inverse_log_det = flow.bijection.inverse(z)
            image = flow.bijection(flow.bijection.inverse(x)[0])[0]
        assert (back - x).abs().max() < 1e-5
        assert (image - x).abs().max() < 1e-5
        assert (log_det + inverse_log_det).abs().max() < 1e-3
        optimizer.step()


def test_a_deep_stack_records_its_operations_once(monkeypatch):
    """More than 32 blocks share buffers; in the second pass each finds its tape again."""
    recorded = []
    take = Recording.take
    monkeypatch.setattr(Recording, "take", lambda self: recorded.append(self) or take(self))
    flow = kf.real_nvp(2, depth=34 * 32, hidden=(2,))
    x = torch.randn(8, 2)
    with torch.no_grad():
        flow.log_prob(x)
        assert len(recorded) >= 34
        recorded.clear()
        flow.log_prob(x)
    assert not recorded
