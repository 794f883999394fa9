"""Twins of flows, and what is measured of both."""

import pytest
import torch

import kappaflow as kf
from kappaflow.testing.contract import jittered
from kappaflow_studies import training as twins


@pytest.fixture
def glow():
    """A started Glow with random weights, and some images."""
    torch.manual_seed(0)
    flow, x = kf.glow((1, 8, 8), levels=2, steps=2, hidden=4), torch.randn(4, 1, 8, 8)
    flow.log_prob(x)
    return jittered(flow, seed=2).eval(), x


def test_layer_by_layer_is_what_a_profile_says(glow):
    """The whole and the worst layer, at each point, by two routes."""
    full, layers, peak = twins._by_profile(*glow)
    alone, one_by_one, nothing = twins._one_by_one(*glow)
    torch.testing.assert_close(alone, full, rtol=1e-4, atol=0)
    torch.testing.assert_close(one_by_one, layers, rtol=1e-4, atol=0)
    assert nothing is None and (peak >= full).all()


@pytest.mark.slow
def test_large_images_are_measured_layer_by_layer(glow, monkeypatch):
    """The same quantiles but for the peak, of which there is none."""
    small = twins.conditioning(*glow)
    monkeypatch.setattr(twins, "MATRIX_FREE_ABOVE", 10)
    large = twins.conditioning(*glow)
    assert large["peak"] is None and small["peak"] >= small["condition_low"]
    for name in ("condition_low", "condition_middle", "condition_high", "worst_layer"):
        assert large[name] == pytest.approx(small[name], rel=1e-4)
    full = kf.spectrum(glow[0].core, glow[0].standardization(glow[1])[0]).condition_number
    assert small["condition_middle"] == pytest.approx(full.quantile(0.5).item(), rel=1e-4)


@pytest.mark.slow
def test_a_twin_is_the_same_density_without_maps(glow):
    """More couplings, no linear layer; the certificate's numbers."""
    flow, x = glow
    twin, message = twins.twin_of(flow, x)
    torch.testing.assert_close(twin.eval().log_prob(x), flow.log_prob(x), rtol=0, atol=1e-2)
    assert not any(isinstance(part, kf.bijections.InvertibleConv1x1) for part in twin.modules())
    assert message["couplings_after"] > message["couplings_before"] == 5
    assert message["maps"] == 4 and message["difference_float64"] < 1e-9


def test_a_flow_without_a_twin_says_why():
    """One sentence instead of numbers."""
    flow = kf.real_nvp(4, depth=2, hidden=(4,), partition=kf.Partition(4, (0,)))
    twin, message = twins.twin_of(flow, torch.randn(3, 4))
    assert twin is None and "parts of the sizes" in message["why_not"]


def test_flows_take_turns_when_they_are_timed():
    """One after the other, after a warm-up; a clock decides nothing."""
    flows = {
        "short": kf.real_nvp(4, depth=1, hidden=(4,)).eval(),
        "long": kf.real_nvp(4, depth=64, hidden=(64,)).eval(),
    }
    calls = []
    for name, flow in flows.items():
        flow.bijection.register_forward_hook(lambda *_, name=name: calls.append(name))
    times = twins.times_in_turns(flows, torch.randn(64, 4), 3)
    assert calls == ["short", "long"] * 4
    assert set(times) == set(flows) and min(times.values()) > 0
