"""Checks of log_prob: each finds its planted fault, and nothing else."""

import math

import pytest
import torch

import kappaflow as kf
from kappaflow.diagnosis.checks import normalization as checks

FEATURES = 4
SEEDS = pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))]
)


def points(seed=0):
    """64 rows of N(0, I)."""
    return torch.randn(64, FEATURES, generator=torch.Generator().manual_seed(seed))


class Foreign(torch.nn.Module):
    """A flow as a plain object, with methods that may be wrong."""

    def __init__(self, seed, *, left_out=0.0, mixing=0.0, noise=0.0):
        super().__init__()
        torch.manual_seed(seed)
        self.flow = kf.real_nvp(FEATURES, depth=4, hidden=(8,), couplings={"scale_bound": 3.0})
        for parameter in self.flow.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        self.flow.bijection.bijections[0].fit(points(seed))
        self.left_out, self.mixing, self.noise = left_out, mixing, noise

    def encode(self, x):
        z, log_det = self.flow.bijection(x)
        return z, log_det + self.mixing * x.mean() + self.noise * torch.randn(len(x))

    def decode(self, z):
        x, log_det = self.flow.bijection.inverse(z)
        return x, log_det - self.mixing * x.mean()

    def log_prob(self, x):
        return self.flow.log_prob(x) - self.left_out * self.flow.bijection(x)[1]


def codes(flow, x):
    """Returns the codes of all findings, with their evidence."""
    return {one.code: one for one in kf.doctor(flow, x).findings}


@pytest.mark.slow
@SEEDS
def test_a_healthy_object_has_no_finding(seed):
    """At any seed."""
    assert codes(Foreign(seed), points(seed)) == {}


@pytest.mark.slow
@SEEDS
def test_a_log_prob_without_a_log_det_is_found(seed):
    """KF205 alone, since the layers are correct."""
    flow = Foreign(seed, left_out=1.0)
    found = codes(flow, points(seed))
    assert set(found) == {"KF205"} and found["KF205"].severity == "error"
    worst = flow.flow.bijection(points(seed))[1].abs().max().item()
    assert found["KF205"].evidence["worst_nats"] == pytest.approx(worst, rel=1e-3)


@pytest.mark.slow
@SEEDS
def test_rows_that_depend_on_each_other_are_found(seed):
    """KF204 with the layer, for a log_det that depends on the batch mean."""
    found = codes(Foreign(seed, mixing=5.0), points(seed))
    assert found["KF204"].layer == "1 Foreign" and found["KF204"].severity == "error"


class Normalised(kf.Bijection):
    """Divides by the standard deviation of the batch, like batch norm in training."""

    def forward(self, x, context=None):
        scale = x.std(0)
        return x / scale, (-scale.log().sum()).expand(len(x))

    def inverse(self, z, context=None):
        scale = points().std(0)
        return z * scale, scale.log().sum().expand(len(z))


def test_the_layer_that_mixes_rows_is_named():
    """The second of three."""
    shift = kf.bijections.ElementwiseAffine(FEATURES)
    chain = kf.Chain([shift, Normalised(), kf.bijections.ElementwiseAffine(FEATURES)])
    found = codes(kf.Flow(kf.StandardNormal(FEATURES), chain), points())
    assert found["KF204"].layer == "2 Normalised"


@pytest.mark.slow
@SEEDS
def test_a_random_result_is_a_note(seed):
    """KF104; other faults cannot be distinguished from noise."""
    found = codes(Foreign(seed, noise=0.1, left_out=1.0), points(seed))
    assert found["KF104"].severity == "note" and "KF205" not in found and "KF204" not in found


class Sampling(kf.Flow):
    """A flow that adds the log_det of the inverse to the density of its samples."""

    def sample_and_log_prob(self, n, context=None, *, generator=None):
        x, log_prob = super().sample_and_log_prob(n, context, generator=generator)
        return x, log_prob - 2 * self.bijection(x, context)[1]


@pytest.mark.slow
@SEEDS
def test_a_wrong_density_of_samples_is_found(seed):
    """KF206 alone, with its size."""
    flow = Foreign(seed).flow
    found = codes(Sampling(flow.base, flow.bijection), points(seed))
    assert set(found) == {"KF206"}
    assert found["KF206"].evidence["worst_nats"] > 0.1
    assert math.isfinite(found["KF206"].evidence["tolerance_nats"])


class Exploding(kf.Bijection):
    """The identity up to a distance, and another map beyond it."""

    def __init__(self, beyond):
        super().__init__()
        self.beyond = beyond

    def forward(self, x, context=None):
        return x.clamp(-self.beyond, self.beyond), torch.zeros(len(x))

    def inverse(self, z, context=None):
        return z, torch.zeros(len(z))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("beyond", "severity"), [(3.6, "warning"), (5.6, "note"), (8.0, "note"), (40.0, None)]
)
def test_lost_latents_far_out_are_found(beyond, severity):
    """KF303: a warning near the samples of the base, a note far out, nothing if correct."""
    layers = kf.Chain([Exploding(beyond), kf.bijections.ElementwiseAffine(FEATURES)])
    found = codes(kf.Flow(kf.StandardNormal(FEATURES), layers), points().clamp(-3, 3))
    assert set(found) == ({"KF303"} if severity else set())
    if severity:
        assert found["KF303"].severity == severity
        assert found["KF303"].evidence["lost_at_0_sigma"] == 0
        assert found["KF303"].evidence["lost_at_10_sigma"] > 0.3


def test_a_scale_that_overflows_far_out_names_its_layer():
    """Exp of a square: finite for samples of the base, infinite a few sigma further out."""

    class Squared(kf.Bijection):
        def forward(self, x, context=None):
            return x, torch.zeros(len(x))

        def inverse(self, z, context=None):
            overflow = torch.where(z.abs() > 7, math.inf, 0.0)
            return z + overflow, torch.zeros(len(z))

    layers = kf.Chain([kf.bijections.ElementwiseAffine(FEATURES), Squared()])
    found = codes(kf.Flow(kf.StandardNormal(FEATURES), layers), points())
    assert found["KF303"].layer == "2 Squared"


class HeavyBase(kf.StandardNormal):
    """A standard normal times a constant."""

    def __init__(self, features, constant):
        super().__init__(features)
        self.constant = constant

    def log_prob(self, z, context=None):
        return super().log_prob(z) + self.constant


@pytest.mark.slow
@SEEDS
def test_a_density_that_does_not_integrate_to_one_is_found(seed):
    """KF215 with the constant, since the base is wrong; none without a constant."""
    x = points(seed)[:, :2]
    torch.manual_seed(seed)
    right = kf.real_nvp(2, depth=4, hidden=(8,), couplings={"scale_bound": 3.0})
    for parameter in right.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    right.bijection.bijections[0].fit(x)
    assert codes(right, x) == {}
    for constant in (-0.3, 0.3):
        wrong = codes(kf.Flow(HeavyBase(2, constant), right.bijection), x)
        assert set(wrong) == {"KF215"}
        assert wrong["KF215"].evidence["log_integral"] == pytest.approx(constant, abs=1e-3)


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
    result = checks.Integral(value, standard_error, effective)
    monkeypatch.setattr(checks, "integral", lambda m: result)
    monkeypatch.setattr(checks, "log_det_wrong", lambda m: False)
    monkeypatch.setattr(checks, "base_inconsistent", lambda m: False)
    assert bool(list(checks.not_normalized.observe(None))) == fires
