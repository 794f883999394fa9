"""Checks of log_prob and of latents far out: each finds its planted fault, and nothing else."""

import math

import pytest
import torch

import kappaflow as kf
from diagnosis.faulty import FEATURES, SEEDS, Right, alone, findings, moved, points
from kappaflow.diagnosis.checks import normalization


class Noisy(Right):
    """A random log_det, and a log_prob that leaves it out."""

    def encode(self, x):
        z, log_det = super().encode(x)
        return z, log_det + 0.1 * torch.randn(len(x))

    def log_prob(self, x):
        return kf.StandardNormal(FEATURES).log_prob(self.encode(x)[0])


@pytest.mark.slow
def test_a_random_result_is_a_note():
    """KF104; other faults cannot be distinguished from noise."""
    result = findings(Noisy())
    assert result["KF104"].severity == "note" and not {"KF204", "KF205"} & result.keys()


class Normalized(kf.Bijection):
    """Divides by the standard deviation of the batch, like batch norm in training."""

    def forward(self, x, context=None):
        scale = x.std(0)
        return x / scale, (-scale.log().sum()).expand(len(x))

    def inverse(self, z, context=None):
        scale = points().std(0)
        return z * scale, scale.log().sum().expand(len(z))


def test_the_layer_that_mixes_rows_is_named():
    """The second of three."""
    affine = kf.bijections.ElementwiseAffine
    flow = alone(affine(FEATURES), Normalized(), affine(FEATURES))
    assert findings(flow)["KF204"].layer == "2 Normalized"


class Beyond(kf.Bijection):
    """The identity, except that encode clamps, and decode adds a number, beyond a distance."""

    def __init__(self, clamp=math.inf, edge=math.inf, added=0.0):
        super().__init__()
        self.clamp, self.edge, self.added = clamp, edge, added

    def forward(self, x, context=None):
        return x.clamp(-self.clamp, self.clamp), torch.zeros(len(x))

    def inverse(self, z, context=None):
        return z + torch.where(z.abs() > self.edge, self.added, 0.0), torch.zeros(len(z))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("beyond", "severity"), [(3.6, "warning"), (5.6, "note"), (8.0, "note"), (40.0, None)]
)
def test_lost_latents_far_out_are_found(beyond, severity):
    """KF303: a warning near the samples of the base, a note far out, nothing if correct."""
    flow = alone(Beyond(beyond), kf.bijections.ElementwiseAffine(FEATURES))
    result = findings(flow, points().clamp(-3, 3))
    assert set(result) == ({"KF303"} if severity else set())
    if severity:
        assert result["KF303"].severity == severity
        assert result["KF303"].evidence["lost_at_0_sigma"] == 0
        assert result["KF303"].evidence["lost_at_10_sigma"] > 0.3


def test_a_scale_that_overflows_far_out_names_its_layer():
    """Finite for samples of the base, infinite a few sigma further out."""
    flow = alone(kf.bijections.ElementwiseAffine(FEATURES), Beyond(edge=7, added=math.inf))
    assert findings(flow)["KF303"].layer == "2 Beyond"


class HeavyBase(kf.StandardNormal):
    """A standard normal times a constant."""

    def __init__(self, features, constant):
        super().__init__(features)
        self.constant = constant

    def log_prob(self, z, context=None):
        return super().log_prob(z) + self.constant


@SEEDS
def test_a_density_that_does_not_integrate_to_one_is_found(seed):
    """KF215 alone, with the constant of the base."""
    for constant in (-0.3, 0.3):
        flow = kf.Flow(HeavyBase(FEATURES, constant), moved(seed).bijection)
        result = findings(flow, points(seed))
        assert set(result) == {"KF215"}
        assert result["KF215"].evidence["log_integral"] == pytest.approx(constant, abs=1e-3)


@pytest.mark.parametrize(
    ("value", "standard_error", "effective", "fires"),
    [
        (1.051, 0.001, 201.0, True),
        (0.949, 0.001, 201.0, True),
        (1.049, 0.001, 201.0, False),
        (1.061, 0.010, 201.0, True),
        (1.059, 0.010, 201.0, False),
        (1.500, 0.001, 199.0, False),
    ],
)
def test_an_integral_differs_from_one_by_a_twentieth_and_six_errors(
    monkeypatch, value, standard_error, effective, fires
):
    """KF207, if enough samples count."""
    result = normalization.Integral(value, standard_error, effective)
    monkeypatch.setattr(normalization, "integral", lambda m: result)
    monkeypatch.setattr(normalization, "log_det_wrong", lambda m: False)
    monkeypatch.setattr(normalization, "base_inconsistent", lambda m: False)
    assert bool(list(normalization.not_normalized.observe(None))) == fires
