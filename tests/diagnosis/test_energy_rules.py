"""The checks of a flow against the energy_fit that it was fitted to."""

import json
import math

import pytest
import torch

import kappaflow as kf
from diagnosis.faulty import FEATURES, alone, codes
from kappaflow.diagnosis.checks.energies import energy_fit, modes_missed, weights_heavy
from kappaflow.diagnosis.measurements import Measurements
from kappaflow.errors import ArgumentError

SEEDS = (0, pytest.param(1, marks=pytest.mark.slow))
FAR = 12.0


def gaussian(features=2, log_scale=0.0):
    """A normal distribution as a flow."""
    scales = [log_scale] * features
    return alone(kf.bijections.ElementwiseAffine(features, log_scale=scales), features=features)


def normal(x):
    """The log-density of N(0, I) up to a constant."""
    return -0.5 * x.square().sum(1)


def curved(seed):
    """A flow with random weights, which is not a Gaussian."""
    torch.manual_seed(seed)
    flow = kf.real_nvp(FEATURES, depth=2, hidden=(8,), couplings={"scale_bound": 3.0})
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return flow.eval()


def nearby(flow, seed):
    """A flow close to another one: the effective sample size is about nine tenths."""
    torch.manual_seed(seed + 100)
    other = kf.real_nvp(FEATURES, depth=2, hidden=(8,), couplings={"scale_bound": 3.0})
    other.load_state_dict(flow.state_dict())
    for parameter in other.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return other.eval()


def of_flow(flow):
    """Its density times e^3, as an energy_fit."""
    return lambda x: flow.log_prob(x) + 3


def two_of(flow, share):
    """The same, with a copy far away that has a share of the mass."""

    def log_density(x):
        here, there = flow.log_prob(x), flow.log_prob(x - FAR)
        return torch.logaddexp(math.log(1 - share) + here, math.log(share) + there) + 3

    return log_density


@torch.no_grad()
def found(flow, log_density, x=None):
    """The findings on the energy_fit by code, without those on the flow itself."""
    m = Measurements(flow, x, log_density=log_density)
    return {one.code: one for check in (modes_missed, weights_heavy) for one in check(m)}


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_dropped_mode_is_found_and_a_good_fit_is_not_blamed(seed):
    """The flow nearly fits one mode; its own samples do not show a second one."""
    target = curved(seed)
    flow = nearby(target, seed)
    assert found(flow, of_flow(target), target.sample(64)) == {}
    dropped = found(flow, two_of(target, 0.5))
    assert set(dropped) == {"KF801"}
    evidence = dropped["KF801"].evidence
    assert evidence["missed_mass"] == pytest.approx(0.5, abs=0.15)
    assert evidence["effective_sample_size"] > 0.7
    assert dropped["KF801"].severity == "warning" and "no samples" in dropped["KF801"].message


@pytest.mark.slow
def test_a_mode_without_mass_is_not_missed():
    """A thousandth is not reported, a tenth is."""
    target = curved(0)
    assert "KF801" not in found(target, two_of(target, 0.001))
    assert found(target, two_of(target, 0.1))["KF801"].evidence["missed_mass"] == pytest.approx(
        0.1, abs=0.05
    )


def test_a_spike_inside_covered_mass_counts_for_its_own_mass():
    """It is narrower than the curvature step, so its proposal covers the whole flow."""
    flow = gaussian()
    spike = torch.tensor([[0.3, 0.2]])

    def log_density(x):
        narrow = 8 - (x - spike).square().sum(1) / (2 * 1e-3**2)  # e^8 1e-6 of the other mass
        return torch.logaddexp(normal(x), narrow)

    m = Measurements(flow, torch.cat((flow.sample(200), spike)), log_density=log_density)
    assert energy_fit(m).missed_by_nats > 5 and energy_fit(m).missed_mass < 0.01
    assert not modes_missed(m)


def test_the_search_for_modes_starts_from_given_rows():
    """Only rows inside a very narrow mode reveal it."""

    def log_density(x):
        wide = normal(x)
        ripples = (20 * x).cos().sum(1).clamp_max(1.9) * 30 * ((x - 5).square().sum(1) < 4)
        return torch.maximum(wide, ripples - 30)

    flow = gaussian()
    x = torch.cat((torch.zeros(3, 2), torch.full((1, 2), 5.0265)))
    finding = found(flow, log_density, x)["KF801"]
    assert finding.evidence["points_missed"] == 1 and finding.evidence["worst_point"] == 3


def test_rows_alone_reveal_a_mode_of_little_mass():
    """Samples of the target, a twentieth of them outside the flow."""
    flow = gaussian()

    def log_density(x):
        far = (x - 9).abs().sum(1)  # its maximum is a cusp of little mass
        return torch.logaddexp(normal(x), -7 - 3 * far)

    points = torch.cat((flow.sample(95), torch.full((5, 2), 9.0)))
    finding = found(flow, log_density, points)["KF801"]
    assert finding.message.startswith("5 of 100 rows") and "row 9" in finding.message
    assert "KF801" not in found(flow, log_density, points[:95])


def test_many_dimensions_keep_a_mode_visible():
    """In 30 dimensions, where the maximum of a density is far from its samples."""
    flow = gaussian(30)

    def log_density(x, other=True):
        here = normal(x)
        there = -0.5 * (x - 3).square().sum(1)
        return torch.logaddexp(here, there) if other else here

    assert found(flow, log_density)["KF801"].evidence["missed_mass"] == pytest.approx(
        0.5, abs=0.02
    )
    assert found(flow, lambda x: log_density(x, other=False)) == {}


def test_heavy_weights_and_few_effective_samples_are_reported():
    finding = found(gaussian(log_scale=1.0), normal)["KF802"]
    assert finding.evidence["pareto_k"] > 0.7 and "Pareto k" in finding.message
    few = found(gaussian(log_scale=-4.0), normal)["KF802"].evidence
    assert few["effective_sample_size"] < 0.01


def test_an_energy_that_is_not_finite_at_samples_is_reported():
    flow = gaussian()
    finding = found(flow, lambda x: (x[:, 0] + 1).log() - x.square().sum(1))["KF802"]
    assert finding.evidence["not_a_number"] > 100 and "not a number" in finding.message


def test_a_bounded_domain_is_not_a_fault():
    """-inf is a density of zero."""
    flow = gaussian()

    def log_density(x):
        return torch.where(x[:, 0] > -3, normal(x), -math.inf)

    assert found(flow, log_density) == {}


def test_a_density_without_mass_at_the_samples_is_an_error():
    """Rows outside the domain have no weight; those inside are missed."""
    flow = gaussian()

    def log_density(x):
        return torch.where(x[:, 0] > 40, -0.5 * (x - 50).square().sum(1), -math.inf)

    (finding,) = found(flow, log_density).values()
    assert finding.code == "KF802" and finding.severity == "error"
    assert finding.message == "The importance weights of all 2048 samples are zero."
    rows = torch.cat((flow.sample(38), torch.full((2, 2), 50.0)))
    missed = found(flow, log_density, rows)["KF801"]
    assert missed.message == "2 of 40 rows are where the flow has no samples, such as row 38."
    assert "nan" not in missed.cause
    assert "KF801" not in found(flow, log_density, rows[:38])


def test_weights_that_are_not_finite_are_counted():
    class Overflowing(kf.bijections.ElementwiseAffine):
        def inverse(self, z, context=None):
            x, log_det = super().inverse(z, context)
            return x, torch.where(z[:, 0] > 2, torch.nan, log_det)

    flow = kf.Flow(kf.StandardNormal(2), Overflowing(2))
    finding = found(flow, normal)["KF802"]
    assert finding.severity == "error" and "of 2048 samples are not finite" in finding.message


@pytest.mark.parametrize(
    ("flow", "log_density", "message"),
    [
        (kf.real_nvp(2, depth=2, hidden=(4,), padding=1), lambda x: x.sum(1), "is a bound"),
        (kf.real_nvp(2, depth=2, hidden=(4,)), lambda x: x.detach().sum(1), "differentiable"),
        (kf.real_nvp(2, depth=2, hidden=(4,)), lambda x: x, r"shape \(2048,\)"),
        (kf.real_nvp(2, depth=2, hidden=(4,)), "energy_fit", "should be a function"),
    ],
)
def test_invalid_energies_are_refused_in_a_sentence(flow, log_density, message):
    with pytest.raises(ArgumentError, match=message):
        kf.doctor(flow, log_density=log_density)


@pytest.mark.slow
def test_the_doctor_evaluates_the_energy_and_leaves_the_flow_unchanged():
    """Its mode, its state and torch's generator, too."""
    flow = curved(0).train()
    before = {name: value.clone() for name, value in flow.state_dict().items()}
    state = torch.get_rng_state()
    diagnosis = kf.doctor(flow, log_density=two_of(curved(0), 0.5))
    assert torch.equal(torch.get_rng_state(), state) and flow.training
    assert all(torch.equal(value, before[name]) for name, value in flow.state_dict().items())
    assert "KF801" in codes(diagnosis)
    assert json.loads(diagnosis.to_json())["verdict"].startswith("Use this flow with care")


def test_an_energy_of_one_row_at_a_time_is_examined():
    """It cannot be called without rows."""
    flow = curved(0)
    log_density = two_of(flow, 0.5)

    def by_row(x):
        return torch.stack(log_density(x).unbind())  # an error without rows

    assert energy_fit(Measurements(flow, log_density=by_row)).missed_mass > 0.3
