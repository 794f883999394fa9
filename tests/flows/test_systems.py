"""Recipes of planar, radial and invertible networks: what they consist of, start at and learn."""

import math

import pytest
import torch

import kappaflow as kf

RECIPES = {
    "planar": kf.planar,
    "radial": kf.radial,
    "invertible_network": kf.invertible_network,
    "invertible_network, plain": lambda n, **rest: kf.invertible_network(
        n, linear="plain", **rest
    ),
}
every_recipe = pytest.mark.parametrize("name", RECIPES)


@pytest.mark.parametrize(
    ("name", "kind"), [("planar", kf.bijections.Planar), ("radial", kf.bijections.Radial)]
)
def test_depth_counts_maps_and_a_new_flow_is_the_identity(name, kind):
    """Behind the units there is nothing but such maps, and no two are the same."""
    flow, x = RECIPES[name](5, depth=6), torch.randn(7, 5)
    assert [type(part) for part in flow.bijection] == [kf.bijections.Standardize, *[kind] * 6]
    z, log_det = flow.bijection(x)
    torch.testing.assert_close(z, x, rtol=0, atol=1e-5)
    torch.testing.assert_close(log_det, torch.zeros(7), rtol=0, atol=1e-5)
    starts = [part.w if name == "planar" else part.center for part in flow.core]
    assert len({tuple(start.tolist()) for start in starts}) == 6


@pytest.mark.parametrize(
    ("linear", "kind"), [("svd", kf.bijections.SVDLinear), ("plain", kf.bijections.Linear)]
)
def test_an_invertible_network_alternates_and_ends_linear(linear, kind):
    """Depth counts linear layers; leaky ReLU of the given slope stands between them."""
    flow = kf.invertible_network(3, depth=3, linear=linear, negative_slope=0.4, smoothing=0.7)
    between = [kind, kf.bijections.LeakyReLU] * 2
    assert [type(part) for part in flow.bijection] == [kf.bijections.Standardize, *between, kind]
    bends = [part for part in flow.core if isinstance(part, kf.bijections.LeakyReLU)]
    assert {(bend.negative_slope, bend.smoothing) for bend in bends} == {(0.4, 0.7)}


@pytest.mark.parametrize("linear", ["svd", "plain"])
@pytest.mark.parametrize(("slope", "smoothing"), [(0.1, 0.0), (0.5, 0.3), (2.0, 1.0)])
def test_a_new_network_keeps_mean_and_size_of_normal_points(linear, slope, smoothing):
    """Each linear layer makes up for the leaky ReLU before it, and is a multiple of a turn."""
    settings = {"negative_slope": slope, "smoothing": smoothing}
    flow = kf.invertible_network(16, depth=2, linear=linear, **settings)
    z = flow.bijection(torch.randn(20_000, 16))[0]
    torch.testing.assert_close(z.mean(0), torch.zeros(16), rtol=0, atol=0.03)
    torch.testing.assert_close(torch.cov(z.T), torch.eye(16), rtol=0, atol=0.05)
    numbers = [
        part.condition_number
        for part in flow.core
        if not isinstance(part, kf.bijections.LeakyReLU)
    ]
    assert max(numbers) < 1.0001


@pytest.mark.parametrize("bound", [1.0, 2.0, 10.0])
def test_the_condition_number_of_each_layer_stays_below_its_bound(bound):
    """However far the parameters go, and whatever the size of the matrix."""
    flow = kf.invertible_network(6, depth=4, condition_number=bound).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    layers = [part for part in flow.core if isinstance(part, kf.bijections.SVDLinear)]
    assert max(layer.condition_number for layer in layers) <= bound * (1 + 1e-9)
    assert max(layer.condition_number for layer in layers) >= 0.9 * bound
    sizes = [torch.linalg.slogdet(layer.matrix()).logabsdet.item() / 6 for layer in layers]
    assert max(map(abs, sizes)) > math.log(bound) / 2 + 1  # out of reach without a free scale


@every_recipe
def test_a_seed_decides_the_start(name):
    """And torch's global generator is left alone."""
    state = torch.random.get_rng_state()

    def numbers(seed):
        return torch.cat([p.flatten() for p in RECIPES[name](4, seed=seed).parameters()])

    assert torch.equal(numbers(1), numbers(1))
    assert not torch.equal(numbers(1), numbers(100))
    assert torch.equal(torch.random.get_rng_state(), state)


def bent(n):
    """Returns points along a bent curve, standardized."""
    x = torch.randn(n, 2)
    x[:, 1] += x[:, 0].square()
    return (x - x.mean(0)) / x.std(0)


@pytest.mark.slow
@pytest.mark.parametrize(("smoothing", "right"), [(0.0, False), (0.3, True)])
def test_the_gradient_of_the_likelihood_misses_corners(smoothing, right):
    """It is the slope of the mean over many points once the corner is rounded, and not before."""
    flow = kf.invertible_network(2, depth=2, smoothing=smoothing).double()
    x, shift = bent(200_000).double(), next(iter(flow.core)).shift
    slope = torch.autograd.grad(flow.log_prob(x).mean(), shift)[0][0].item()
    sides = []
    for step in (0.05, -0.05):
        with torch.no_grad():
            shift[0] += step
            sides.append(flow.log_prob(x).mean().item())
            shift[0] -= step
    measured = (sides[0] - sides[1]) / 0.1
    assert (abs(slope - measured) < 0.02) == right
    assert right or abs(slope - measured) > 0.2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kf.planar(2, depth=0), "'depth' should be at least 1, got 0: depth counts pla"),
        (lambda: kf.planar(2, seed=-1), "'seed' should be at least 0"),
        (lambda: kf.radial(2, depth=0), "'depth' should be at least 1, got 0: depth counts rad"),
        (lambda: kf.invertible_network(2, depth=0), "depth counts linear layers"),
        (lambda: kf.invertible_network(2, linear="lu"), "'linear' should be one of 'svd', 'plai"),
        (
            lambda: kf.invertible_network(2, condition_number=0.5),
            "'condition_number' should be at least 1, got 0.5",
        ),
        (lambda: kf.invertible_network(2, seed=1.5), "'seed' should be a whole number"),
    ],
)
def test_arguments_that_cannot_be_are_refused(make, message):
    """One sentence names the argument, what it should be, and what it was."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        make()
