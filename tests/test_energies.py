"""Importance weights: closed forms, tails of known shape, and what is refused."""

import math

import pytest
import torch

import kappaflow as kf
from kappaflow.errors import ArgumentError

SHIFT = 0.5


def normal(x):
    """The density of N(0, 1) in each coordinate, without its constant."""
    return -0.5 * x.square().sum(1)


def shifted(x):
    """The density of N(SHIFT, 1) in the first coordinate, N(0, 1) in the second."""
    return normal(x - torch.tensor([SHIFT, 0.0]).to(x))


def flow_of(log_scale=0.0, features=2):
    """A flow whose draws are N(0, exp(-2 log_scale)) in each coordinate, in float64."""
    affine = kf.bijections.ElementwiseAffine(features, log_scale=[log_scale] * features)
    return kf.Flow(kf.StandardNormal(features), affine).double()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def of_weights(log_weights):
    """Samples with given log weights, at 0, 1, 2, ..."""
    x = torch.arange(len(log_weights), dtype=torch.float64)[:, None]
    return kf.energies.ImportanceSamples(x, torch.zeros(len(x), dtype=torch.float64), log_weights)


@pytest.mark.parametrize("features", [1, 3])
def test_of_a_perfect_fit_each_draw_counts_and_log_z_is_exact(features):
    result = kf.energies.importance_sample(
        flow_of(features=features), normal, 5000, generator=generator()
    )
    assert len(result) == 5000
    assert result.log_normalizer == pytest.approx(features / 2 * math.log(2 * math.pi), abs=1e-12)
    assert result.effective_sample_size == pytest.approx(1)
    assert result.log_normalizer_error == pytest.approx(0, abs=1e-7)
    assert result.reverse_kl == pytest.approx(0, abs=1e-12)


def test_figures_of_a_shifted_gaussian_are_those_of_its_closed_forms():
    """ESS exp(-m^2), KL m^2 / 2, log Z; within five standard errors of 100,000 draws."""
    result = kf.energies.importance_sample(flow_of(), shifted, 100_000, generator=generator())
    assert result.effective_sample_size == pytest.approx(math.exp(-(SHIFT**2)), abs=0.01)
    assert result.reverse_kl == pytest.approx(SHIFT**2 / 2, abs=5 * SHIFT / math.sqrt(1e5))
    off = result.log_normalizer - math.log(2 * math.pi)
    assert abs(off) < 5 * result.log_normalizer_error
    mean, error = result.expectation(result.x[:, 0])
    assert abs(mean - SHIFT) < 5 * error < 0.03


@pytest.mark.slow
def test_the_error_of_log_z_is_its_spread_over_seeds():
    """The spread of 200 estimates is known to a twentieth; a missing root would be off tenfold."""
    result = [
        kf.energies.importance_sample(flow_of(), shifted, 200, generator=generator(s))
        for s in range(200)
    ]
    spread = torch.tensor([item.log_normalizer for item in result]).std().item()
    text = torch.tensor([item.log_normalizer_error for item in result]).mean().item()
    assert text == pytest.approx(spread, rel=0.25)


@pytest.mark.slow
@pytest.mark.parametrize("k", [0.2, 0.5, 1.0, 1.5])
def test_the_shape_of_a_tail_is_found(k):
    """Of uniform numbers to the power -k, whose tail is exactly Pareto; mean of 20 estimates."""
    result = []
    for seed in range(20):
        uniform = torch.rand(4096, generator=generator(seed), dtype=torch.float64)
        result.append(of_weights(-k * uniform.log()).pareto_k)
    assert sum(result) / 20 == pytest.approx(k, abs=0.12)


def test_the_shape_of_a_tail_is_infinite_without_one_and_no_number_for_few_draws():
    assert of_weights(torch.zeros(100, dtype=torch.float64)).pareto_k == -math.inf
    assert math.isnan(of_weights(torch.zeros(24, dtype=torch.float64)).pareto_k)


def test_draws_are_taken_by_their_weights():
    """Of weights 0, 1, 3 none, a quarter, three quarters; the same ones by the same seed."""
    samples = of_weights(torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64).log())
    drawn = samples.resample(10_000, generator=generator())
    shares = drawn[:, 0].long().bincount(minlength=3) / 10_000
    assert shares.tolist() == pytest.approx([0, 0.25, 0.75], abs=0.02)
    assert torch.equal(drawn, samples.resample(10_000, generator=generator()))


def test_outside_of_the_domain_weights_are_zero():
    """Half of the draws have none: Z is that of half a Gaussian."""

    def half(x):
        return torch.where(x[:, 0] > 0, normal(x), -math.inf)

    result = kf.energies.importance_sample(flow_of(), half, 20_000, generator=generator())
    assert result.log_normalizer == pytest.approx(math.log(math.pi), abs=0.05)
    assert result.effective_sample_size == pytest.approx(0.5, abs=0.02)


def test_no_number_is_said_where_a_weight_is_none():
    weights = torch.tensor([0.0] * 30 + [math.nan], dtype=torch.float64)
    samples = of_weights(weights)
    for name in ("log_normalizer", "effective_sample_size", "free_energy", "pareto_k"):
        assert math.isnan(getattr(samples, name))
    with pytest.raises(ArgumentError, match="should be numbers, got nan"):
        samples.resample(3)


def test_draws_are_many_at_a_time_and_follow_the_generator():
    """More than one part, joined in order; the flow's mode is put back."""
    flow = flow_of().train()
    result = kf.energies.importance_sample(flow, shifted, 5000, generator=generator(3))
    again = kf.energies.importance_sample(flow, shifted, 5000, generator=generator(3))
    assert flow.training and torch.equal(result.x, again.x)
    assert torch.equal(result.log_density, shifted(result.x))
    assert torch.equal(result.log_prob, flow.log_prob(result.x))


@pytest.mark.parametrize(
    ("flow", "log_density", "n", "message"),
    [
        ("flow", normal, 10, "'flow' should be a Flow, got str"),
        (kf.real_nvp(2, depth=2, hidden=(4,), padding=1), normal, 10, "is a bound"),
        (
            kf.real_nvp(2, depth=2, hidden=(4,), context_features=3),
            normal,
            10,
            "3 context columns",
        ),
        (flow_of(), 3, 10, "should be a function of points"),
        (flow_of(), lambda x: x, 10, r"shape \(10,\).*got \(10, 2\)"),
        (flow_of(), lambda x: 1.0, 10, "got float"),
        (flow_of(), lambda x: torch.ones(len(x), dtype=torch.long), 10, "got torch.int64"),
        (flow_of(), normal, 1, "'n' should be at least 2"),
    ],
)
def test_what_has_no_weights_is_refused_in_a_sentence(flow, log_density, n, message):
    with pytest.raises(ArgumentError, match=message):
        kf.energies.importance_sample(flow, log_density, n)


def test_values_of_another_shape_have_no_mean():
    with pytest.raises(ArgumentError, match=r"'values' should have shape \(3,\), got \(2,\)"):
        of_weights(torch.zeros(3, dtype=torch.float64)).expectation(torch.zeros(2))
