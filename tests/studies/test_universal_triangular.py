"""Three and four couplings for triangular maps: error, conditioning, density, and mutants."""

from dataclasses import replace

import pytest
import torch

import kappaflow as kf
from kappaflow.bijection import Chain, Inverse
from kappaflow.conditioning.points import layers_of
from kappaflow_studies.universal import triangular
from kappaflow_studies.universal.approximation import total_variation, transport_error
from kappaflow_studies.universal.quantizer import Grid, quantizer_network
from kappaflow_studies.universal.targets import TARGETS, Banana, Ring, UniformCube
from kappaflow_studies.universal.triangular import CellMap, Cells, triangular_flow

SQUARE = TARGETS["square"]
SMOOTH = ["square", "banana", "banana-4d"]


def normals(target, count=300):
    """Returns the same standard normal samples each time."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, target.features, dtype=torch.float64, generator=generator)


def latent_to_data(flow):
    """Returns the flow as a chain that is inverted layer by layer."""
    return Chain(Inverse(layer.bijection) for layer in reversed(layers_of(flow.bijection)))


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("couplings", [3, 4])
def test_the_error_is_below_what_is_allowed(name, couplings):
    """The bound on W2, with its unseen part and three standard errors."""
    target, epsilon = TARGETS[name], 0.05
    flow, cells = triangular_flow(target, epsilon, couplings), Cells.of(target, epsilon, couplings)
    error = transport_error(flow, target, cells, samples=3000)
    assert error.bound + 3 * error.standard_error < epsilon
    assert error.unseen == pytest.approx((epsilon / 8) ** 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixture", "cube-4d", "banana-8d"])
@pytest.mark.parametrize("couplings", [3, 4])
def test_the_error_is_below_what_is_allowed_for_all_targets(name, couplings):
    """The remaining targets with a triangular map."""
    test_the_error_is_below_what_is_allowed(name, couplings)


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
        lambda one: flow.bijection.inverse(one[None])[0][0], one) for one in z])  # fmt: skip
    torch.testing.assert_close(rows, torch.diag_embed(slopes), rtol=1e-6, atol=1e-9)
    log_det = flow.bijection.inverse(z)[1]
    torch.testing.assert_close(log_det, slopes.log().sum(1), rtol=1e-9, atol=1e-9)


def test_slopes_are_those_of_the_target():
    """Difference quotients over a cell are the derivatives, up to its width and the identity."""
    cells, z = Cells.of(SQUARE, 1e-3), normals(SQUARE)
    z = z[z.abs().max(1).values < 2]
    image, slope = CellMap(SQUARE, cells).affine(z[:, :1])
    exact = 2 * torch.exp(-(z[:, :1] ** 2) / 2) / (2 * torch.pi) ** 0.5
    torch.testing.assert_close(slope, exact, rtol=2e-3, atol=0)
    torch.testing.assert_close(image, SQUARE.transport(z)[:, :1], rtol=0, atol=3e-4)


@pytest.mark.parametrize("couplings", [3, 4])
def test_singular_values_fall_as_derived(couplings):
    """From an error of 0.1 to 0.001: not at all with four couplings, like its root with three."""
    found = []
    for epsilon in (0.1, 0.001):
        flow = triangular_flow(SQUARE, epsilon, couplings)
        spectrum = kf.spectrum(latent_to_data(flow), normals(SQUARE))
        found.append(spectrum.sigma_min.median().item())
    reference = 1.0 if couplings == 4 else 10.0
    assert found[0] / found[1] == pytest.approx(
        reference, rel=0.35
    )  # R grows with three couplings


def test_three_couplings_for_four_features_pay_the_error():
    """One copy of the digits is left, at the resolution of the grid."""
    target, found = TARGETS["cube-4d"], []
    for epsilon in (0.1, 0.01):
        flow = triangular_flow(target, epsilon, 3)
        found.append(kf.spectrum(latent_to_data(flow), normals(target)).sigma_min.median().item())
    assert found[0] / found[1] == pytest.approx(10, rel=0.35)


def test_only_four_couplings_have_the_density():
    """The total variation falls with the error; with three, the densities hardly overlap."""
    four = [total_variation(triangular_flow(SQUARE, e), SQUARE) for e in (0.1, 0.01)]
    assert four[1] < four[0] / 5 and four[0] < 0.1
    assert total_variation(triangular_flow(SQUARE, 0.01, 3), SQUARE) > 0.9


def test_the_log_density_of_a_target_is_exact():
    """The square has the area 4, and the ring pi (1 - r^2)."""
    for target, area in ((SQUARE, 4.0), (Ring(0.5), torch.pi * 0.75)):
        z = normals(target)
        found = target.log_density(z)
        torch.testing.assert_close(found, torch.full_like(found, -torch.tensor(area).log()))


def test_total_variation_is_that_of_two_normals():
    """Between a square and the normal itself, by numerical integration of |p - q| / 2."""
    flow = kf.Flow(kf.StandardNormal(2), Chain([])).double()
    line = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    p = torch.exp(-(line[:, None] ** 2 + line**2) / 2) / (2 * torch.pi)
    exact = (0.25 - p).clamp(min=0).mean().item() * 4
    assert total_variation(flow, SQUARE, samples=50_000) == pytest.approx(exact, abs=0.01)


def test_no_samples_are_refused():
    """A mean over nothing is no number."""
    with pytest.raises(kf.errors.ArgumentError, match="'samples' should be"):
        total_variation(triangular_flow(SQUARE, 0.1), SQUARE, samples=0)


def test_they_are_inverted_in_float64():
    """At an error where three couplings for any map have lost the inverse."""
    for couplings in (3, 4):
        flow, z = triangular_flow(SQUARE, 1e-3, couplings), normals(SQUARE)
        back = flow.bijection(flow.bijection.inverse(z)[0])[0]
        assert (back - z).norm(dim=1).median() < 1e-9


@pytest.mark.parametrize("couplings", [3, 4])
def test_where_the_rounding_fails_nothing_is_farther_than_assumed(couplings):
    """With ramps over half of each cell, every feature is within 64 R' (R / D)^2."""
    cells = Cells.of(SQUARE, 0.2, couplings)
    wide = replace(
        cells, first=replace(cells.first, ramp=0.5), second=replace(cells.second, ramp=0.5)
    )
    flow = triangular_flow(SQUARE, 0.2, couplings)
    for coupling in flow.bijection:
        coupling.conditioner._cells = wide
        coupling.conditioner._map = CellMap(SQUARE, wide)
    z = normals(SQUARE, 5000)
    missed = (flow.bijection.inverse(z)[0] - SQUARE.transport(z)).abs().max()
    farthest = triangular.FARTHEST * (cells.input_bound / cells.first.width) ** 2
    assert 1 < missed < farthest


def test_rare_points_are_as_rare_as_the_cells_say():
    """Ramps and tails, each feature counted, and their largest error makes the unseen part."""
    target, epsilon = TARGETS["banana-4d"], 0.1
    cells = Cells.of(target, epsilon)
    outside = 2 * torch.special.ndtr(torch.tensor(-cells.input_bound, dtype=torch.float64))
    total = target.features * (cells.first.ramp + outside.item())
    assert total == pytest.approx(cells.rare, rel=1e-3)
    farthest = triangular.FARTHEST * (cells.input_bound / cells.first.width) ** 2
    unseen = cells.rare * target.features * farthest**2
    assert unseen == pytest.approx(cells.unseen, rel=1e-3)


def test_rounding_is_what_the_network_does():
    """The closed form and the ReLU network, off the ramps; beyond the last cell too."""
    grid = Grid(width=0.5, digits=4, ramp=0.3)
    x = torch.linspace(-6, 6, 4001, dtype=torch.float64)[:, None]
    place = x / grid.width
    x = x[((place - place.round()).abs() > grid.ramp / 2)][:, None]
    network = quantizer_network(1, grid, [(1.0, 0.0)])
    torch.testing.assert_close(grid.round(x), network(x), rtol=0, atol=1e-12)


def test_ramps_are_straight_lines_between_cells():
    """At a quarter of the ramp, a quarter of the way to the next middle."""
    grid = Grid(width=1.0, digits=3, ramp=0.1)
    x = torch.tensor([0.96, 0.975, 1.0, 1.04], dtype=torch.float64)
    expected = torch.tensor([0.6, 0.75, 1.0, 1.4], dtype=torch.float64)
    torch.testing.assert_close(grid.round(x), expected)


def changed(monkeypatch, couplings, step, change):
    """Returns the error of a flow whose step returns a changed scale and offset."""
    steps = list(triangular.STEPS[couplings])
    original = steps[step]
    steps[step] = lambda cells, psi, x: change(*original(cells, psi, x))
    monkeypatch.setitem(triangular.STEPS, couplings, tuple(steps))
    return transport_error(triangular_flow(SQUARE, 0.05, couplings), SQUARE, samples=2000).bound


@pytest.mark.parametrize(
    ("couplings", "step"), [(3, 0), (3, 1), (3, 2), *((4, i) for i in range(4))]
)
def test_each_shift_is_needed(monkeypatch, couplings, step):
    """Without it the error is at least twice what is allowed."""
    assert changed(monkeypatch, couplings, step, lambda scale, offset: (scale, offset)) < 0.05
    assert changed(monkeypatch, couplings, step, lambda scale, offset: (scale, 0 * offset)) > 0.1


@pytest.mark.parametrize(
    ("target", "epsilon", "couplings", "message"),
    [
        (Ring(), 0.1, 4, "should have a triangular map"),
        (UniformCube(3), 0.1, 4, "even number of features"),
        (SQUARE, 0.0, 4, "'epsilon' should be"),
        (SQUARE, 2.0, 4, "at most 1.0"),
        (SQUARE, 1e-4, 4, "at least 0.001 with four couplings"),
        (SQUARE, 0.1, 5, "'couplings' should be one of 3, 4"),
    ],
)
def test_what_cannot_be_built_is_refused(target, epsilon, couplings, message):
    """Other maps, odd numbers of features, errors and numbers out of range."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        triangular_flow(target, epsilon, couplings)


def test_a_flow_comes_back_from_its_file(tmp_path):
    """The same samples, bit for bit."""
    flow = triangular_flow(Banana(), 0.1, 3)
    kf.save(flow, tmp_path)
    draws = [
        one.sample(50, generator=torch.Generator().manual_seed(0))
        for one in (flow, kf.load(tmp_path))
    ]
    assert torch.equal(*draws)
