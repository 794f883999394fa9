"""Checks of volumes and linear layers: planted faults at a few seeds."""

import math

import pytest
import torch

import kappaflow as kf
from diagnosis.faulty import (
    FEATURES,
    SEEDS,
    alone,
    findings,
    moved,
    points,
    stretching,
    with_layer,
)


def followed_by(seed, log_scale):
    """A correct flow, and a last layer with these log-scales."""
    return with_layer(stretching(*log_scale), at=9, seed=seed)


@pytest.mark.slow
@SEEDS
def test_a_vanishing_volume_is_found(seed):
    """KF304 with its share of the width of the data, in any unit."""
    share = findings(followed_by(seed, [9.0] * FEATURES), points(seed))["KF304"].evidence
    log_det = moved(seed).bijection(points(seed)[:64])[1] / FEATURES
    spread = points(seed).std(0).log().mean()
    expected = math.exp(-9 + ((-log_det).median() - spread).item())
    assert share["share_of_width"] == pytest.approx(expected, rel=2e-2)
    assert "KF304" not in findings(followed_by(seed, [5.0] * FEATURES), points(seed))


@pytest.mark.slow
@SEEDS
def test_a_linear_layer_that_is_nearly_singular_is_named(seed):
    """KF305 in float32, not in float64, where digits are left."""
    flow = followed_by(seed, [5.0, 0.0, 0.0, -5.0])
    finding = findings(flow, points(seed))["KF305"]
    assert finding.layer.endswith("ElementwiseAffine") and finding.severity == "warning"
    assert finding.evidence["condition_number"] == pytest.approx(math.exp(10), rel=1e-3)
    assert "KF305" not in findings(flow.double(), points(seed).double())
    assert "KF305" not in findings(followed_by(seed, [4.0, 0.0, 0.0, -4.0]), points(seed))


def test_narrow_data_is_not_a_collapse():
    """A flow that only widens data with a width of 0.001."""
    flow = alone(stretching(*[9.0] * FEATURES))
    assert "KF304" in findings(flow)
    assert findings(flow, math.exp(-9) * points()) == {}


def test_very_different_scales_round_the_log_det():
    """No KF203: the rounding of the sum of their logarithms is not a fault."""
    x = points(features=48) * 10 ** torch.linspace(-8, 8, 48)
    units = kf.bijections.Standardize(48)
    units.fit(x)
    reverse = kf.bijections.Permutation(tuple(reversed(range(48))))
    assert "KF203" not in findings(alone(units, reverse, features=48), x)


def test_a_wrong_log_det_of_a_standardization_is_found(monkeypatch):
    """KF203, though the standardization does not count for the conditioning."""
    own = kf.bijections.Standardize._log_det
    monkeypatch.setattr(kf.bijections.Standardize, "_log_det", lambda self, x: own(self, x) + 0.01)
    flow = moved(0)
    assert findings(flow, points(0))["KF203"].evidence["worst_nats"] == pytest.approx(
        0.01, rel=1e-2
    )


class Displaced(torch.nn.Module):
    """A map of the plane whose inverse misses x0, with the log_det of where it arrives."""

    def encode(self, x):
        log_scale = (200 * x[:, 0]).sin()
        return torch.stack((x[:, 0], x[:, 1] * log_scale.exp()), 1), log_scale

    def decode(self, z):
        first = z[:, 0] + 0.005
        log_scale = (200 * first).sin()
        return torch.stack((first, z[:, 1] / log_scale.exp()), 1), -log_scale


def test_a_wrong_inverse_is_not_blamed_on_its_log_det():
    """It differs by a nat from that at the row, and is right where the inverse arrives."""
    result = findings(Displaced(), points()[:, :2] * torch.tensor([1.0, 1e-3]))
    assert "KF201" in result and "KF203" not in result
