"""Three couplings that make any law: what they promise, and mutants that break the promise."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import kappaflow as kf
from kappaflow.conditioning.points import layers_of
from kappaflow_studies.universal.approximation import transport_error
from kappaflow_studies.universal.construction import (
    FARTHEST,
    Scales,
    universal_flow,
    write_flow,
)
from kappaflow_studies.universal.quantizer import Grid
from kappaflow_studies.universal.targets import TARGETS, UniformCube

CUBE = TARGETS["square"]


def normals(target, count=5000):
    """Returns the same standard normal draws each time."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, target.features, dtype=torch.float64, generator=generator)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("epsilon", [0.5, 0.1])
def test_the_error_is_below_what_is_allowed(name, epsilon):
    """The bound on W2 with all that is unseen and three standard errors, and no wild guess."""
    target = TARGETS[name]
    flow, scales = universal_flow(target, epsilon), Scales.of(target, epsilon)
    error = transport_error(flow, target, scales, samples=5000)
    assert error.bound + 3 * error.standard_error < epsilon
    assert error.bound > 0.4 * epsilon
    assert error.unseen <= (epsilon / 8) ** 2 * 1.0001


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_the_bound_falls_below_two_hundredths(name):
    """For five planar laws and one in four dimensions."""
    target = TARGETS[name]
    flow, scales = universal_flow(target, 0.02), Scales.of(target, 0.02)
    error = transport_error(flow, target, scales, samples=10_000)
    assert error.bound + 3 * error.standard_error < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_it_is_three_affine_couplings_on_one_partition(name):
    """Ordinary ones, of constant scale, whose networks are made of Linear and ReLU."""
    target = TARGETS[name]
    flow = universal_flow(target, 0.1)
    couplings = [layer.bijection for layer in layers_of(flow.bijection)]
    first = kf.Partition.half(target.features)
    assert [type(part) for part in couplings] == [kf.AffineCoupling] * 3
    assert [part.partition for part in couplings] == [first, first.swapped(), first]
    parts = {type(part) for part in flow.modules() if isinstance(part, nn.Linear | kf.nets.MLP)}
    assert parts == {nn.Linear, kf.nets.MLP}
    z = normals(target, 100)
    scales = Scales.of(target, 0.1)
    product = scales.low_digits * scales.eta * scales.eta_prime
    expected = torch.full((100,), target.features / 2 * math.log(product), dtype=torch.float64)
    torch.testing.assert_close(flow.bijection.inverse(z)[1], expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", ["ring", "banana-4d"])
def test_the_second_coupling_reads_the_whole_point(name):
    """The first half comes rounded, the second as it was, from one half of numbers."""
    target = TARGETS[name]
    flow, scales = universal_flow(target, 0.05), Scales.of(target, 0.05)
    z, half = normals(target), target.features // 2
    *_, recoding, last = [layer.bijection for layer in layers_of(flow.bijection)]
    read = recoding.conditioner.decode(last.inverse(z)[0][:, half:])
    assert (read[:, :half] - z[:, :half]).abs().max() <= scales.input_grid.width / 2 * 1.0001
    torch.testing.assert_close(read[:, half:], z[:, half:], rtol=0, atol=1e-10)


def test_singular_values_are_those_of_the_derivation():
    """Off the ramps J = (eta, l' p; eta / l', p + eta' l), where p = d phi_2 / d z_2, exactly."""
    epsilon = 0.02
    flow, scales = universal_flow(CUBE, epsilon), Scales.of(CUBE, epsilon)
    z = normals(CUBE, 200)
    slope = 2 * torch.exp(-(z[:, 1] ** 2) / 2) / math.sqrt(2 * math.pi)
    low, low_prime = scales.low_digits, scales.low_digits_prime
    jacobian = torch.empty(200, 2, 2, dtype=torch.float64)
    jacobian[:, 0, 0], jacobian[:, 0, 1] = scales.eta, low_prime * slope
    jacobian[:, 1, 0], jacobian[:, 1, 1] = scales.eta / low_prime, slope + scales.eta_prime * low
    largest = torch.linalg.svdvals(jacobian)[:, 0]
    product = low * scales.eta * scales.eta_prime  # the determinant
    found = kf.spectrum(kf.Inverse(flow.bijection), z)
    torch.testing.assert_close(found.sigma_max, largest, rtol=1e-9, atol=0)
    torch.testing.assert_close(found.sigma_min, product / largest, rtol=1e-7, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("epsilon", [0.3, 0.01])
def test_the_determinant_is_the_fourth_power_of_the_error(name, epsilon):
    """Of one pair of features: 3 epsilon^4 / (1024 d^1.5 K R R'), as the page derives it."""
    target = TARGETS[name]
    scales, half = Scales.of(target, epsilon), target.features / 2
    expected = 3 * epsilon**4 / (1024 * half**1.5 * target.stretch() * scales.input_bound)
    found = scales.low_digits * scales.eta * scales.eta_prime
    assert found == pytest.approx(expected, rel=1e-12)


def test_it_can_be_inverted_in_float64():
    """Latent to data and back at a condition number above 1e10, within the rounding predicted."""
    flow, z = universal_flow(CUBE, 0.01), normals(CUBE, 1000)
    x = flow.bijection.inverse(z)[0]
    kappa = kf.spectrum(flow.bijection, x).condition_number
    error = (flow.bijection(x)[0] - z).norm(dim=1)
    assert kappa.median() > 1e10
    assert (error <= 10 * torch.finfo(torch.float64).eps * kappa * z.norm(dim=1)).all()


def test_the_rare_points_are_as_rare_as_the_scales_say():
    """Normal mass on the ramps and in the tails, each feature counted, exactly."""
    scales, target = Scales.of(TARGETS["banana-4d"], 0.1), TARGETS["banana-4d"]
    grid, half = scales.input_grid, target.features // 2
    cells = 2 ** (grid.digits - 1)
    edges = grid.width * torch.arange(1 - cells, cells, dtype=torch.float64)
    reach = grid.ramp * grid.width / 2
    on_ramps = (torch.special.ndtr(edges + reach) - torch.special.ndtr(edges - reach)).sum()
    outside = 2 * torch.special.ndtr(torch.tensor(-scales.input_bound, dtype=torch.float64))
    total = half * (on_ramps + scales.output_grid.ramp) + target.features * outside
    assert total.item() == pytest.approx(scales.rare, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_where_the_rounding_fails_nothing_is_far_off(name):
    """With ramps over half of each cell, which most points see, no feature is off by 4 R'."""
    target = TARGETS[name]
    scales = Scales.of(target, 0.2)
    wide = replace(
        scales,
        input_grid=replace(scales.input_grid, ramp=0.5),
        output_grid=replace(scales.output_grid, ramp=0.5),
    )
    z = normals(target)
    missed = (write_flow(target, wide).bijection.inverse(z)[0] - target.transport(z)).abs()
    assert missed.max() < FARTHEST * scales.output_bound
    assert missed.square().sum(1).mean().sqrt() > 0.4  # the ramps do their harm


def test_the_share_on_the_second_ramps_is_the_share_of_the_ramps():
    """phi_1 has a density, which is flat on the scale of a cell."""
    target, scales = TARGETS["ring"], Scales.of(TARGETS["ring"], 0.05)
    inputs, outputs = scales.input_grid, scales.output_grid
    z = normals(target, 50_000)
    z[:, 0] = inputs.width * ((z[:, 0] / inputs.width).floor() + 0.5)
    place = target.transport(z)[:, 0] / outputs.width
    for ramp in (0.02, 0.1):
        share = ((place - place.round()).abs() < ramp / 2).double().mean().item()
        assert share == pytest.approx(ramp, abs=5 * math.sqrt(ramp / 50_000))


def mutant(change):
    """Returns the error of a flow for the square at 0.05, something in it changed."""
    flow = universal_flow(CUBE, 0.05)
    with torch.no_grad():
        change(*flow.bijection)
    return transport_error(flow, CUBE, samples=5000).bound


def scaled(net, factor, rows):
    """Multiplies what a network answers."""
    net.layers[-1].weight[rows] *= factor
    net.layers[-1].bias[rows] *= factor


def no_low_digits(third, second, first):
    """phi_2 is not written."""
    second.conditioner.lower = 0.0


def decoded_by_half(third, second, first):
    """2R/D in place of 4R/D."""
    scaled(second.conditioner.decode, 0.5, rows=slice(1, 2))


def halves_exchanged(third, second, first):
    """The image of (x_2, x_1)."""
    for parameter in second.conditioner.decode.layers[-1].parameters():
        parameter.copy_(parameter.flip(0))


def nothing_read_off(third, second, first):
    """The third coupling forgets its shift."""
    scaled(third.conditioner, 0.0, rows=slice(1, 2))


def no_upper_digits(third, second, first):
    """The first half is not rounded into the second."""
    scaled(first.conditioner, 0.0, rows=slice(1, 2))


def too_much_left(third, second, first):
    """Eta twenty times as large: it drowns the low digits."""
    scaled(second.conditioner.encode, 1 / 20, rows=slice(1, 2))
    second.conditioner.lower /= 20
    second.conditioner.encode.layers[-1].bias[0] -= math.log(20) * math.log(3)
    second.scale_bound -= 2 * math.log(20)


def wide_ramps(third, second, first):
    """The first quantizer_network is a slope on a tenth of each cell."""
    grid = Scales.of(CUBE, 0.05).input_grid
    for layer in list(first.conditioner.layers)[0:-1:2]:
        layer.weight[3] *= grid.ramp / 0.1
        layer.bias[3] = 0.5 + (layer.bias[3] - 0.5) * grid.ramp / 0.1


MUTANTS = [
    no_low_digits,
    decoded_by_half,
    halves_exchanged,
    nothing_read_off,
    no_upper_digits,
    too_much_left,
    wide_ramps,
]


@pytest.mark.slow
@pytest.mark.parametrize("change", MUTANTS, ids=lambda change: change.__name__)
def test_a_mistake_raises_the_error_far_above_the_bound(change):
    """Each term is needed: without it the error is at least twice what is allowed."""
    assert mutant(lambda *couplings: None) < 0.05
    assert mutant(change) > 0.1


@pytest.mark.parametrize(
    ("target", "epsilon", "message"),
    [
        (UniformCube(3), 0.1, "even number of features"),
        (CUBE, 0.0, "'epsilon' should be"),
        (CUBE, 1.5, "at most 1.0"),
        ("square", 0.1, "should be a Target"),
    ],
)
def test_what_cannot_be_built_is_refused(target, epsilon, message):
    """Halves of different sizes, errors that are none, and things that are no target."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        universal_flow(target, epsilon)


def test_a_flow_comes_back_from_its_file(tmp_path):
    """The same draws, bit for bit, and the digits still do not learn."""
    flow = universal_flow(TARGETS["mixture"], 0.1)
    kf.save(flow, tmp_path)
    again = kf.load(tmp_path)
    draws = [f.sample(50, generator=torch.Generator().manual_seed(0)) for f in (flow, again)]
    assert torch.equal(*draws)
    decode = list(again.bijection)[1].conditioner.decode
    assert not any(parameter.requires_grad for parameter in decode.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["square", "banana-4d"])
def test_draws_are_exact_long_after_inverting_is_not(name):
    """At an error of 1e-5 float64 still draws, while the condition number is far above 1 / eps."""
    target = TARGETS[name]
    flow, scales = universal_flow(target, 1e-5), Scales.of(target, 1e-5)
    assert transport_error(flow, target, scales, samples=2000).bound < 1e-5
    z = normals(target, 100)
    back = flow.bijection(flow.bijection.inverse(z)[0])[0]
    assert (back - z).norm(dim=1).median() > 1


def test_a_finer_error_needs_more_digits_only():
    """The width of the networks stays, their depth grows like the logarithm."""
    flows = [universal_flow(CUBE, epsilon) for epsilon in (0.2, 0.1, 0.05)]
    grids = [Scales.of(CUBE, epsilon).input_grid for epsilon in (0.2, 0.1, 0.05)]
    assert [grid.digits for grid in grids] == [5, 6, 7] and isinstance(grids[0], Grid)
    for flow in flows:
        widths = {layer.out_features for layer in flow.bijection.bijections[0].conditioner.layers}
        assert widths == {4, 2}
