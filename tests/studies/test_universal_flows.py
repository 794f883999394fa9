"""Three and four couplings for any distribution: their promises, and mutants that break them."""

import math
from dataclasses import replace

import pytest
import sympy
import torch
from torch import nn

import kappaflow as kf
from kappaflow.bijection import Chain, Inverse
from kappaflow.conditioning.points import layers_of
from kappaflow_studies.universal import construction, triangular
from kappaflow_studies.universal.approximation import total_variation, transport_error
from kappaflow_studies.universal.commutators import at_every_point, commutator_flow
from kappaflow_studies.universal.construction import Scales, universal_flow
from kappaflow_studies.universal.quantizer import Grid, quantizer_network
from kappaflow_studies.universal.targets import TARGETS, Ring, UniformCube
from kappaflow_studies.universal.triangular import CellMap, Cells, triangular_flow

SQUARE = TARGETS["square"]


def normals(target, count=5000):
    """Returns the same standard normal samples each time."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, target.features, dtype=torch.float64, generator=generator)


def layers(flow):
    """Returns the couplings of a flow."""
    return [layer.bijection for layer in layers_of(flow.bijection)]


def sigma_min(flow, z):
    """Returns the median of the smallest singular value, layer by layer from latent to data."""
    chain = Chain(Inverse(layer) for layer in reversed(layers(flow)))
    return kf.spectrum(chain, z).sigma_min.median().item()


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("epsilon", [0.5, 0.1, 0.02])
def test_the_error_of_three_is_below_what_is_allowed(name, epsilon):
    """The bound on W2 with all that is unseen and three standard errors, and no wild guess."""
    target = TARGETS[name]
    flow, unseen = universal_flow(target, epsilon), (epsilon / 8) ** 2
    bound, error = transport_error(flow, target, unseen=unseen, samples=5000)
    assert 0.4 * epsilon < bound < epsilon - 3 * error


@pytest.mark.parametrize("name", ["square", "banana-4d"])
def test_they_are_three_affine_couplings_on_one_partition(name):
    """Of constant scale, whose networks are made of Linear and ReLU."""
    target, scales = TARGETS[name], Scales.of(TARGETS[name], 0.1)
    flow, first = universal_flow(target, 0.1), kf.Partition.half(target.features)
    assert [type(part) for part in layers(flow)] == [kf.AffineCoupling] * 3
    assert [part.partition for part in layers(flow)] == [first, first.swapped(), first]
    parts = {type(part) for part in flow.modules() if isinstance(part, nn.Linear | kf.nets.MLP)}
    assert parts == {nn.Linear, kf.nets.MLP}
    product = scales.low_digits * scales.eta * scales.eta_prime
    expected = torch.full((100,), target.features / 2 * math.log(product), dtype=torch.float64)
    log_det = flow.bijection.inverse(normals(target, 100))[1]
    torch.testing.assert_close(log_det, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", ["ring", "banana-4d"])
def test_the_second_coupling_reads_all_of_the_point(name):
    """The first half is rounded, the second exact, from one half of numbers."""
    target, scales = TARGETS[name], Scales.of(TARGETS[name], 0.05)
    z, half = normals(target), target.features // 2
    *_, recoding, last = layers(universal_flow(target, 0.05))
    read = recoding.conditioner.decode(last.inverse(z)[0][:, half:])
    assert (read[:, :half] - z[:, :half]).abs().max() <= scales.input_grid.width / 2 * 1.0001
    torch.testing.assert_close(read[:, half:], z[:, half:], rtol=0, atol=1e-10)


def test_singular_values_of_three_are_those_of_the_derivation():
    """Off the ramps J = (eta, l' p; eta / l', p + eta' l), where p = d phi_2 / d z_2, exactly."""
    flow, scales = universal_flow(SQUARE, 0.02), Scales.of(SQUARE, 0.02)
    z = normals(SQUARE, 200)
    slope = 2 * torch.exp(-(z[:, 1] ** 2) / 2) / math.sqrt(2 * math.pi)
    low, low_prime = scales.low_digits, scales.low_digits_prime
    jacobian = torch.empty(200, 2, 2, dtype=torch.float64)
    jacobian[:, 0, 0], jacobian[:, 0, 1] = scales.eta, low_prime * slope
    jacobian[:, 1, 0], jacobian[:, 1, 1] = scales.eta / low_prime, slope + scales.eta_prime * low
    largest = torch.linalg.svdvals(jacobian)[:, 0]
    product = low * scales.eta * scales.eta_prime  # the determinant
    spectrum = kf.spectrum(kf.Inverse(flow.bijection), z)
    torch.testing.assert_close(spectrum.sigma_max, largest, rtol=1e-9, atol=0)
    torch.testing.assert_close(spectrum.sigma_min, product / largest, rtol=1e-7, atol=0)
    x = flow.bijection.inverse(z)[0]  # and back, within the rounding predicted
    kappa, error = kf.spectrum(flow.bijection, x).condition_number, flow.bijection(x)[0] - z
    eps = torch.finfo(torch.float64).eps
    assert (error.norm(dim=1) <= 10 * eps * kappa * z.norm(dim=1)).all()


@pytest.mark.parametrize("name", ["square", "banana-4d"])
@pytest.mark.parametrize("epsilon", [0.3, 0.01])
def test_the_determinant_is_the_fourth_power_of_the_error(name, epsilon):
    """Of one pair of features: 3 epsilon^4 / (1024 d^1.5 K R R'), as the page derives it."""
    target, scales = TARGETS[name], Scales.of(TARGETS[name], epsilon)
    half = target.features / 2
    expected = 3 * epsilon**4 / (1024 * half**1.5 * target.stretch() * scales.input_bound)
    product = scales.low_digits * scales.eta * scales.eta_prime
    assert product == pytest.approx(expected, rel=1e-12)


def test_rare_points_are_as_rare_as_the_sizes_say():
    """Normal mass on the ramps and in the tails, each feature counted, exactly."""
    target, scales = TARGETS["banana-4d"], Scales.of(TARGETS["banana-4d"], 0.1)
    grid, half = scales.input_grid, target.features // 2
    cells = 2 ** (grid.digits - 1)
    edges = grid.width * torch.arange(1 - cells, cells, dtype=torch.float64)
    reach = grid.ramp * grid.width / 2
    on_ramps = (torch.special.ndtr(edges + reach) - torch.special.ndtr(edges - reach)).sum()
    outside = 2 * torch.special.ndtr(torch.tensor(-scales.input_bound, dtype=torch.float64))
    total = half * (on_ramps + scales.output_grid.ramp) + target.features * outside
    assert total.item() == pytest.approx(scales.rare, rel=1e-3)
    assert scales.rare * target.features * construction.FARTHEST**2 == pytest.approx(0.0125**2)
    cells = Cells.of(target, 0.1)
    outside = 2 * torch.special.ndtr(torch.tensor(-cells.input_bound, dtype=torch.float64))
    total = target.features * (cells.first.ramp + outside.item())
    assert total == pytest.approx(cells.rare, rel=1e-3)
    farthest = triangular.FARTHEST * (cells.input_bound / cells.first.width) ** 2
    assert cells.rare * target.features * farthest**2 == pytest.approx(0.0125**2, rel=1e-3)


@pytest.mark.parametrize("name", ["square", "checkerboard", "banana-4d"])
def test_where_the_rounding_of_three_fails_nothing_is_far_off(name):
    """With ramps over half of each cell, which most points see, no feature is off by 4 R'."""
    target, scales = TARGETS[name], Scales.of(TARGETS[name], 0.2)
    inputs, outputs = (replace(grid, ramp=0.5) for grid in (scales.input_grid, scales.output_grid))
    ramps = replace(scales, input_grid=inputs, output_grid=outputs)
    z, flow = normals(target), construction.write_flow(target, ramps)
    missed = (flow.bijection.inverse(z)[0] - target.transport(z)).abs()
    assert missed.max() < construction.FARTHEST * scales.output_bound
    assert missed.square().sum(1).mean().sqrt() > 0.4  # the ramps do their harm


@pytest.mark.parametrize("couplings", [3, 4])
def test_where_the_rounding_of_a_triangular_map_fails_nothing_is_farther(couplings):
    """With ramps over half of each cell, every feature is within 64 R' (R / D)^2."""
    cells = Cells.of(SQUARE, 0.2, couplings)
    first, second = (replace(grid, ramp=0.5) for grid in (cells.first, cells.second))
    ramps = replace(cells, first=first, second=second)
    psi, steps = CellMap(SQUARE, ramps), triangular.STEPS[couplings]
    flow, z = triangular.write_flow(2, ramps, psi, steps), normals(SQUARE)
    missed = (flow.bijection.inverse(z)[0] - SQUARE.transport(z)).abs().max()
    assert 1 < missed < triangular.FARTHEST * (cells.input_bound / cells.first.width) ** 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: universal_flow(UniformCube(3), 0.1), "even number of features"),
        (lambda: universal_flow(SQUARE, 1.5), "at most 1.0"),
        (lambda: triangular_flow(Ring(), 0.1), "should have a triangular map"),
        (lambda: triangular_flow(SQUARE, 1e-4), "at least 0.001 with four couplings"),
    ],
)
def test_what_cannot_be_built_is_refused(make, message):
    """Other maps, odd numbers of features, errors out of range."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        make()


@pytest.mark.parametrize("name", ["square", "banana-4d"])
def test_sampling_stays_exact_where_the_inverse_is_lost(name):
    """At an error of 1e-5, with a condition number far above 1 / eps."""
    target = TARGETS[name]
    flow, z = universal_flow(target, 1e-5), normals(target, 100)
    assert transport_error(flow, target, samples=2000)[0] < 1e-5
    back = flow.bijection(flow.bijection.inverse(z)[0])[0]
    assert (back - z).norm(dim=1).median() > 1


@pytest.mark.parametrize("couplings", [3, 4])
@pytest.mark.parametrize("name", ["square", "banana", "banana-4d", "mixture"])
def test_the_error_of_a_triangular_map_is_below_what_is_allowed(name, couplings):
    """The bound on W2, with its unseen part and three standard errors."""
    target, epsilon = TARGETS[name], 0.05
    flow, unseen = triangular_flow(target, epsilon, couplings), (epsilon / 8) ** 2
    bound, error = transport_error(flow, target, unseen=unseen, samples=3000)
    assert bound + 3 * error < epsilon


@pytest.mark.parametrize("name", ["square", "banana-4d"])
def test_four_couplings_are_the_map_on_cells(name):
    """Their Jacobian, by autograd, is diagonal and holds the slopes of the map between nodes."""
    target, epsilon = TARGETS[name], 0.02
    flow, cells = triangular_flow(target, epsilon), Cells.of(target, epsilon)
    z = normals(target, 50)
    first, second = cells.first.round(z).chunk(2, dim=1)
    psi = CellMap(target, cells)
    slopes = torch.cat((psi.affine(first)[1], psi.affine(second, first)[1]), 1)
    rows = torch.stack([torch.autograd.functional.jacobian(
        lambda row: flow.bijection.inverse(row[None])[0][0], row) for row in z])  # fmt: skip
    torch.testing.assert_close(rows, torch.diag_embed(slopes), rtol=1e-6, atol=1e-9)
    log_det = flow.bijection.inverse(z)[1]
    torch.testing.assert_close(log_det, slopes.log().sum(1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "couplings", "epsilon", "ratio"),
    [("square", 4, 0.001, 1), ("square", 3, 0.001, 10), ("cube-4d", 3, 0.01, 10)],
)
def test_singular_values_fall_as_derived(name, couplings, epsilon, ratio):
    """From 0.1 on: not with four couplings, with three like the root or, in 4d, the error."""
    target = TARGETS[name]
    flows = [triangular_flow(target, e, couplings) for e in (0.1, epsilon)]
    before, after = (sigma_min(flow, normals(target, 300)) for flow in flows)
    assert before / after == pytest.approx(ratio, rel=0.35)  # R grows with three couplings


def test_only_four_couplings_have_the_density():
    """The total variation falls with the error; with three, the densities hardly overlap."""
    four = [total_variation(triangular_flow(SQUARE, e), SQUARE) for e in (0.1, 0.01)]
    assert four[1] < four[0] / 5 and four[0] < 0.1
    assert total_variation(triangular_flow(SQUARE, 0.01, 3), SQUARE) > 0.9
    for couplings in (3, 4):  # and the inverse, where three for any map have lost it
        flow, z = triangular_flow(SQUARE, 1e-3, couplings), normals(SQUARE, 300)
        back = flow.bijection(flow.bijection.inverse(z)[0])[0]
        assert (back - z).norm(dim=1).median() < 1e-9


@pytest.mark.parametrize(
    ("couplings", "step"), [(3, 0), (3, 1), (3, 2), *((4, i) for i in range(4))]
)
def test_each_shift_is_needed(monkeypatch, couplings, step):
    """Without it the error is at least twice what is allowed."""
    steps = list(triangular.STEPS[couplings])
    original = steps[step]

    def unshifted(cells, psi, x):
        scale, offset = original(cells, psi, x)
        return scale, 0 * offset

    steps[step] = unshifted
    monkeypatch.setitem(triangular.STEPS, couplings, tuple(steps))
    flow = triangular_flow(SQUARE, 0.05, couplings)
    assert transport_error(flow, SQUARE, samples=2000)[0] > 0.1


GRIDS = [Grid(0.3, 1, 1e-3), Grid(1.0, 3, 1e-2), Grid(0.037, 8, 1e-7), Grid(0.011, 12, 1e-12)]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_networks_round_as_floor_does(grid):
    """Off the ramps, to rounding, in closed form too; the rest is exact when magnified."""
    x = (torch.rand(4000, 1, dtype=torch.float64) - 0.5) * 3 * grid.reach
    away = (x / grid.width - (x / grid.width).round()).abs()
    x = x[away[:, 0] > 0.51 * grid.ramp + 1e-12]
    half = 2 ** (grid.digits - 1)
    middles = grid.width * ((x / grid.width).floor().clamp(-half, half - 1) + 0.5)
    rounded = quantizer_network(1, grid, [(1.0, 0.0), (0.0, 1 / grid.width)])
    allowed = torch.finfo(torch.float64).eps * (grid.digits + 2) * grid.reach
    middle, rest = rounded(x).chunk(2, dim=1)
    torch.testing.assert_close(middle, middles, rtol=0, atol=allowed)
    expected = (x - middles) / grid.width
    torch.testing.assert_close(rest, expected, rtol=0, atol=allowed / grid.width)
    torch.testing.assert_close(grid.round(x), middles, rtol=0, atol=allowed)
    assert [layer.out_features for layer in rounded.layers] == [4] * 2 * grid.digits + [2]


def test_features_are_rounded_each_for_itself():
    """A network for three features answers as three networks do, a block for each pair."""
    grid, answers = Grid(0.5, 3, 1e-4), [(1.0, 0.0), (-2.0, 3.0), (0.0, 0.0)]
    x = torch.randn(50, 3, dtype=torch.float64)
    together = quantizer_network(3, grid, answers)(x).reshape(50, len(answers), 3)
    single = quantizer_network(1, grid, answers)
    for i in range(3):
        apart = single(x[:, i : i + 1])
        torch.testing.assert_close(together[:, :, i], apart, rtol=0, atol=1e-13)


def test_ramps_are_straight_lines_between_cells():
    """At a quarter of the ramp, a quarter of the way to the next middle; grids cover a range."""
    grid = Grid(width=1.0, digits=3, ramp=0.1)
    x = torch.tensor([0.96, 0.975, 1.0, 1.04], dtype=torch.float64)
    expected = torch.tensor([0.6, 0.75, 1.0, 1.4], dtype=torch.float64)
    torch.testing.assert_close(grid.round(x), expected)
    network = quantizer_network(1, grid, [(1.0, 0.0)])
    assert (network(x[:, None])[:, 0] - x).abs().max() <= 0.5 + 1e-12
    for width, digits in ((0.5, 2), (0.49, 3), (9, 1)):
        covering = Grid.covering(1.0, width, 0.01)
        assert covering.digits == digits and covering.reach >= 1


def bracket(first, second, x):
    """Returns [X, Y] = XY - YX of two fields, as symbols."""
    jacobians = [sympy.Matrix(field).jacobian(x) for field in (first, second)]
    return jacobians[1] * sympy.Matrix(first) - jacobians[0] * sympy.Matrix(second)


def test_brackets_of_couplings_are_those_of_the_proof():
    """For any functions a = c', b and c: equation (4) and the bracket after it, as symbols."""
    x = sympy.symbols("x_1 x_2")
    b, c = sympy.Function("b")(x[1]), sympy.Function("c")(x[0])
    slope = c.diff(x[0])
    expected = sympy.Matrix([-c, slope * x[1]])
    assert sympy.simplify(bracket((x[1], 0), (0, c), x) - expected) == sympy.zeros(2, 1)
    expected = sympy.Matrix([-slope * b, 0])
    assert sympy.simplify(bracket((c, 0), (b, 0), x) - expected) == sympy.zeros(2, 1)


def test_the_error_of_commutators_falls_and_the_condition_number_stays():
    """Each doubling halves the error; the map's own largest condition number is e."""
    rows = [at_every_point(steps) for steps in (8, 16, 32)]
    errors = [row["error"] for row in rows]
    assert [row["couplings"] for row in rows] == [33, 65, 129]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.1)
    numbers = [row["condition_number"] for row in rows]
    assert math.e < numbers[2] < numbers[1] < numbers[0] < 3.2
    first, chain = kf.Partition.half(2), commutator_flow(4)
    assert [layer.partition for layer in chain] == [first, first.swapped()] * 8 + [first]
    assert {type(layer) for layer in chain} == {kf.AffineCoupling}
