"""The generator: exact off its ramps, bounded on them, in both float types."""

from math import sqrt

import pytest
import torch
from torch import nn

from kappaflow.errors import ArgumentError
from kappaflow_studies.sphere.generator import MixtureGenerator
from kappaflow_studies.sphere.mixture import SphereMixture


def inputs(n, features, seed=0):
    """Returns standard Gaussian inputs."""
    source = torch.Generator().manual_seed(seed)
    return torch.randn(n, features + 1, generator=source, dtype=torch.float64)


def on_a_ramp(generator, z):
    """Returns which inputs are."""
    starts, ends = map(torch.from_numpy, (generator.starts, generator.ends))
    return ((z[:, :1] > starts) & (z[:, :1] < ends)).any(dim=1)


def test_it_is_three_linear_layers_for_any_number_of_components():
    """Linear and ReLU only; hidden units and numbers grow with k and k d."""
    for k in (1, 2, 64):
        generator = MixtureGenerator(SphereMixture.random(k, 8))
        kinds = [type(layer) for layer in generator.network]
        assert kinds == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
        widths = generator.network[0].out_features + generator.network[2].out_features
        assert generator.hidden_units == widths == 2 * (k - 1) + 32
        assert generator.numbers == (k - 1) * (8 + 4) + 7 * 8


@pytest.mark.parametrize("components", [1, 2, 7, 256])
def test_it_is_exact_off_the_ramps(components):
    """Equal to a mean plus noise but for rounding; on ramps it is not."""
    mixture = SphereMixture.random(components, 16, sigma=0.1)
    generator = MixtureGenerator(mixture, accuracy=0.2)
    z = inputs(4000, 16)
    off = (generator(z) - generator.coupled(z)).norm(dim=1)
    ramp = on_a_ramp(generator, z)
    assert off[~ramp].max() < 1e-12
    if components > 1:
        assert abs(ramp.double().mean() - 0.2) < 5 * sqrt(0.16 / 4000)
        assert off[ramp].min() > 0 and off[ramp].mean() > 0.1


def test_the_coupled_point_has_the_distribution_of_the_mixture():
    """Equal shares of the components, and the noise of the input."""
    mixture = SphereMixture.random(5, 3, sigma=0.1, seed=2)
    generator = MixtureGenerator(mixture)
    z = inputs(50_000, 3)
    noise = 0.1 * z[:, 1:]
    own = torch.cdist(generator.coupled(z) - noise, mixture.means).argmin(dim=1)
    assert torch.allclose(generator.coupled(z), mixture.means[own] + noise)
    assert (own.bincount(minlength=5) - 10_000).abs().max() < 5 * sqrt(50_000 * 0.16)


@pytest.mark.slow
@pytest.mark.parametrize(("components", "accuracy"), [(2, 0.45), (5, 0.5), (32, 0.05), (3, 0.02)])
def test_the_bound_is_the_mean_difference_of_coupled_points(components, accuracy):
    """200,000 draws; five standard errors, of which each is below 3 %."""
    mixture = SphereMixture.random(components, 4, seed=1)
    generator = MixtureGenerator(mixture, accuracy=accuracy)
    z = inputs(200_000, 4)
    with torch.no_grad():
        off = (generator(z) - generator.coupled(z)).norm(dim=1)
    error = off.std().item() / sqrt(len(off))
    assert abs(off.mean().item() - generator.wasserstein_bound()) < 5 * error
    assert error < 0.03 * generator.wasserstein_bound()


def test_the_bound_is_a_quarter_of_the_accuracy_for_narrow_ramps():
    """Times the mean step; it falls with the accuracy as far as floats can tell."""
    mixture = SphereMixture.random(9, 4)
    step = mixture.means.diff(dim=0).norm(dim=1).mean().item()
    for accuracy in (1e-3, 1e-6, 1e-9):
        bound = MixtureGenerator(mixture, accuracy=accuracy).wasserstein_bound()
        assert bound == pytest.approx(accuracy / 4 * step, rel=1e-3)


@pytest.mark.parametrize("components", [2, 16, 64, 256])
def test_in_32_features_it_is_within_a_hundredth_of_the_mean_distance(components):
    """As it comes; five hundredths were asked for."""
    mixture = SphereMixture.random(components, 32)
    generator = MixtureGenerator(mixture)
    assert 0 < generator.wasserstein_bound() < 0.01 * mixture.mean_distance()


@pytest.mark.parametrize("accuracy", [1e-2, 1e-4, 1e-6])
def test_in_float32_steep_ramps_do_not_spoil_what_is_behind_them(accuracy):
    """Off the ramps rounding alone remains; a difference of two ReLUs would not do that."""
    mixture = SphereMixture.random(256, 32)
    generator = MixtureGenerator(mixture, accuracy=accuracy)
    z = inputs(2000, 32).float()
    exact = generator.coupled(z)
    nearby = on_a_ramp(MixtureGenerator(mixture, accuracy=accuracy + 1e-3), z.double())
    with torch.no_grad():
        off = (generator.float()(z) - exact).norm(dim=1)
    assert off[~nearby].max() < 1e-5
    starts, ends = map(torch.from_numpy, (generator.starts, generator.ends))
    slopes = (1 / (ends - starts)).float()
    ramps = (z[:, :1] - starts.float()).relu() * slopes - (z[:, :1] - ends.float()).relu() * slopes
    naive = mixture.means[0].float() + ramps @ mixture.means.diff(dim=0).float()
    naive = naive + mixture.sigma * z[:, 1:]
    assert (naive - exact).norm(dim=1)[~nearby].max() > 100 * off[~nearby].max()


def test_samples_follow_their_generator_and_the_network_s_type():
    """Equal seeds, equal draws; float32 after `.float()`."""
    generator = MixtureGenerator(SphereMixture.random(3, 2))
    one, two = (generator.sample(5, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, two) and one.dtype == torch.float64
    assert generator.float().sample(5).dtype == torch.float32


@pytest.mark.parametrize(
    ("components", "accuracy", "match"),
    [
        (4, 0.75, "below 1 - 1/k = 0.75, got 0.75: the ramps would meet"),
        (4, 1e-15, "narrower than float64"),
        (4, 0.0, "'accuracy' should be a finite number above 0"),
    ],
)
def test_ramps_that_cannot_be_are_refused(components, accuracy, match):
    """In one sentence."""
    with pytest.raises(ArgumentError, match=match):
        MixtureGenerator(SphereMixture.random(components, 2), accuracy=accuracy)


def test_inputs_of_another_width_are_refused():
    """One coordinate more than the mixture has."""
    with pytest.raises(ArgumentError, match=r"shape \(batch, 3\), got \(4, 2\)"):
        MixtureGenerator(SphereMixture.random(3, 2))(torch.ones(4, 2))
