"""Couplings that are close in KL: the inequalities of the proof, and the flows against them."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from scipy.stats import t as student

import kappaflow as kf
from kappaflow.bijection import Chain, Inverse
from kappaflow.conditioning.points import layers_of
from kappaflow.errors import ArgumentError
from kappaflow_studies.universal.boxes import (
    MASSES,
    Blocks,
    BoxMap,
    Divergence,
    Strips,
    cell_loss,
    cell_masses,
    grids_of,
    likelihood_bound,
    likelihood_flow,
    squared_oscillation,
)
from kappaflow_studies.universal.targets import TARGETS

ROUNDING = 1e-12  # of sums of some thousand numbers of the size of one, in float64


def random_blocks(rng, cells, features=2, holes=0.3):
    """Returns a step density on a random grid of the cube, with holes and steep steps."""
    edges = [
        np.concatenate(([-1], np.sort(rng.uniform(-1, 1, cells - 1)), [1]))
        for _ in range(features)
    ]
    weights = rng.exponential(size=(cells,) * features) ** 3
    weights[rng.uniform(size=weights.shape) < holes] = 0
    weights.flat[0] += 1e-3
    kept = np.argwhere(weights > 0)
    low, high = (
        torch.tensor([[edges[k][j + end] for k, j in enumerate(cell)] for cell in kept])
        for end in (0, 1)
    )
    return Blocks(low, high, torch.tensor(weights[weights > 0] / weights.sum()))


def overlaps(nodes, low, high, latents):
    """Returns lengths of intervals within blocks (..., cells, blocks), and integrals of z^2."""
    left, right = nodes[..., :-1, None], nodes[..., 1:, None]
    from_x, to_x = np.clip(low, left, right), np.clip(high, left, right)
    width = latents[1] - latents[0]
    ends = [latents[:-1, None] + width * (x - left) / (right - left) for x in (from_x, to_x)]
    return to_x - from_x, (ends[1] ** 3 - ends[0] ** 3) / 3 * (right - left) / width


def exact_divergence(target, psi, grid):
    """Returns KL(Q | psi of the normal) and Q of each box, by exact integrals over blocks."""
    first, second = (nodes.numpy() for nodes in psi.nodes)
    low, high = target.low.numpy(), target.high.numpy()
    latents = grid.width * (np.arange(2**grid.digits + 1) - 2.0 ** (grid.digits - 1))
    length1, square1 = overlaps(first, low[:, 0], high[:, 0], latents)
    length2, square2 = overlaps(second, low[:, 1], high[:, 1], latents)
    density = target.weights.numpy() / (high - low).prod(1)
    masses = np.einsum("c,ic,ijc->ij", density, length1, length2)
    squares = np.einsum("c,ic,ijc->", density, square1, length2)
    squares += np.einsum("c,ic,ijc->", density, length1, square2)
    slopes = np.log(np.diff(first) / grid.width)[:, None] + np.log(np.diff(second) / grid.width)
    log_flow = -math.log(2 * math.pi) - squares / 2 - (masses * slopes).sum()
    return target.negative_entropy - log_flow, masses


def test_the_bound_of_the_cells_holds_for_two_thousand_grids():
    """Coarse and fine ones: G and S of the proof are below the constants of the theorem.

    And inner cells have at most the mass that gives strips their condition number.
    """
    rng = np.random.default_rng(0)
    reaches = [*np.exp(rng.uniform(np.log(0.05), np.log(7), 1990)), *([0.1, 1, 2, 3, 7] * 2)]
    tight = {"S": 0.0, "G": 0.0}
    for reach in reaches:
        grid = grids_of(float(reach), int(rng.integers(2, 10))).first
        s = grid.width * (1 + grid.width)
        inner = cell_masses(grid)[1:-1].max().item()
        assert inner <= grid.width / math.sqrt(2 * math.pi) * (1 + ROUNDING)
        assert squared_oscillation(grid) <= s**2 * (1 + ROUNDING)
        assert 0 <= cell_loss(grid) + ROUNDING <= likelihood_bound(0.0, 1, grid) + 2 * ROUNDING
        slack = math.sqrt(squared_oscillation(grid) * 1e6 / 2)
        assert 1e6 + slack + cell_loss(grid) <= likelihood_bound(1e6, 1, grid) * (1 + ROUNDING)
        tight["S"] = max(tight["S"], squared_oscillation(grid) / s**2)
        tight["G"] = max(tight["G"], cell_loss(grid) / likelihood_bound(0.0, 1, grid))
    assert tight["S"] > 0.95 and tight["G"] > 0.5


def test_masses_of_cells_are_those_of_the_normal():
    """With the tails in the outer cells, to the last digits of the smallest."""
    masses = cell_masses(grids_of(6.0, 6).first)
    assert masses.sum().item() == pytest.approx(1, abs=1e-15)
    assert masses[0].item() == pytest.approx(math.erfc(5.8125 / math.sqrt(2)) / 2, rel=1e-12)
    assert masses[32].item() == pytest.approx(math.erf(0.1875 / math.sqrt(2)) / 2, rel=1e-12)


@pytest.mark.parametrize(("reach", "digits", "word"), [(9.0, 5, "reach"), (3.0, 1, "digits")])
def test_grids_that_float64_or_the_theorem_does_not_allow_are_refused(reach, digits, word):
    """The message names the argument."""
    with pytest.raises(ArgumentError, match=word):
        grids_of(reach, digits)


@pytest.mark.parametrize("count", [50, pytest.param(500, marks=pytest.mark.slow)])
def test_the_theorem_holds_for_step_densities(count):
    """With holes: KL by exact integrals is within the slack, and below the bound."""
    rng, nearest = np.random.default_rng(1), 0.0
    for _ in range(count):
        target = random_blocks(rng, int(rng.integers(1, 5)))
        grids = grids_of(float(rng.uniform(0.3, 6)), int(rng.integers(2, 5)))
        kl, masses = exact_divergence(target, BoxMap(target, grids), grids.first)
        expected = cell_masses(grids.first).numpy()
        np.testing.assert_allclose(masses, np.outer(expected, expected), rtol=1e-6, atol=1e-13)
        proved = Divergence.of(target, grids)
        away = abs(kl - proved.coarse - 2 * proved.cells)
        assert away <= 2 * proved.slack + 1e-9
        assert -1e-9 <= kl <= proved.bound + 1e-9
        nearest = max(nearest, away / (2 * proved.slack + 1e-9))
    assert nearest > 0.2


def test_the_bound_for_lipschitz_log_densities_holds_for_two_thousand():
    """Exponential densities on [-1, 1], whose quantiles have a formula: Delta <= 2 Lambda mu."""
    rng, nearest = np.random.default_rng(2), 0.0
    for _ in range(2000):
        slope = float(np.exp(rng.uniform(np.log(0.1), np.log(20))))
        masses = cell_masses(grids_of(float(rng.uniform(0.5, 6)), int(rng.integers(2, 8))).first)
        ranks = np.concatenate(([0], np.cumsum(masses.numpy())[:-1], [1]))
        nodes = np.log(np.exp(-slope) + ranks * 2 * math.sinh(slope)) / slope
        constant = slope / (2 * math.sinh(slope))
        mean = 1 / math.tanh(slope) - 1 / slope
        fine = math.log(constant) + slope * mean
        coarse = fine - (masses.numpy() * np.log(masses.numpy() / np.diff(nodes))).sum()
        limit = 2 * slope * masses.max().item()
        assert -ROUNDING <= coarse <= limit
        nearest = max(nearest, coarse / limit)
    assert nearest > 0.1


def test_in_half_lines_the_density_is_as_small_as_the_proof_allows():
    """At 2,000 grids and distances t: log(tau e^-t / N(R - D + t)) <= 1 + R^2 + t^2."""
    rng, nearest = np.random.default_rng(3), -math.inf
    for _ in range(2000):
        reach, t = float(np.exp(rng.uniform(-3, 3.5))), float(rng.exponential() ** 3)
        width = reach * float(rng.uniform(1e-9, 1))
        tau = norm.sf(reach - width)
        away = norm.logsf(reach - width) - t - norm.logpdf(reach - width + t)
        assert away <= 1 + reach**2 + t**2
        nearest = max(nearest, away - reach**2 - t**2)
        assert width <= reach and tau <= 0.5
    assert nearest > -0.5


def unbounded_divergence(law, reach):
    """Returns KL of a symmetric distribution of one feature on the line, with half-lines."""
    count = math.ceil(reach * math.exp(reach**2 / 2))
    edges = np.linspace(-reach, 0, count + 1)
    nodes = np.concatenate((law.ppf(norm.cdf(edges[1:-1])), [0.0]))
    places, weights = (leg / 2 for leg in np.polynomial.legendre.leggauss(12))
    lengths, width = np.diff(nodes)[:, None], reach / count
    x, z = nodes[:-1, None] + lengths * (places + 0.5), edges[1:-1, None] + width * (places + 0.5)
    inner = law.logpdf(x) - norm.logpdf(z) + np.log(lengths / width)
    t = np.logspace(-8, 8, 200_001)
    tail = law.pdf(nodes[0] - t) * (law.logpdf(nodes[0] - t) - norm.logpdf(edges[1] - t))
    return 2 * ((law.pdf(x) * inner * weights * lengths).sum() + np.trapezoid(tail, t))


def test_heavy_tails_with_a_second_moment_are_reached():
    """Student's t with three degrees of freedom: KL falls below 0.02 and to half at each step."""
    values = [unbounded_divergence(student(3), reach) for reach in (2.5, 3.5, 4.5)]
    assert values[0] > 2 * values[1] > 4 * values[2] > 0
    assert values[2] < 0.02


@pytest.mark.parametrize("features", [2, 4])
def test_four_couplings_map_each_cell_to_its_box(features):
    """Also at its edges, for densities with holes; and the density there is that of the proof."""
    rng = np.random.default_rng(features)
    target, grids = random_blocks(rng, 2, features), grids_of(3.0, 3)
    flow, psi, grid = likelihood_flow(target, grids), BoxMap(target, grids), grids.first
    cells = torch.from_numpy(rng.integers(0, 8, (2000, features)))
    places = torch.from_numpy(rng.choice([1e-6, 1 - 1e-6, 0.5, 0.3], (2000, features)))
    z = grid.width * (cells + places - 4)
    low, high = (
        torch.stack([
            psi.nodes[k][tuple(cells[:, :k].T) + (cells[:, k] + end,)] for k in range(features)
        ], 1)
        for end in (0, 1)
    )  # fmt: skip
    with torch.no_grad():
        x, log_det = flow.bijection.inverse(z)
        torch.testing.assert_close(x, low + places * (high - low), rtol=0, atol=1e-9)
        slopes = ((high - low) / grid.width).log().sum(1)
        torch.testing.assert_close(log_det, slopes, rtol=1e-9, atol=1e-7)
        back = flow.bijection(x)[0]
    wide = (high - low).min(1).values > 1e-6  # else float64 has no digits for the place
    assert wide.sum() > 1000
    torch.testing.assert_close(back[wide], z[wide], rtol=0, atol=1e-7)


def test_three_couplings_of_strips_are_diagonal_with_the_price():
    """Each cell goes to its strip; the condition number is 1 / (P_i P_j), at least 2 pi / D^2."""
    grids = grids_of(3.0, 4)
    grid, flow = grids.first, Strips(grids).flow(grids)
    rng = np.random.default_rng(0)
    cells = torch.from_numpy(rng.integers(0, 16, (1000, 2)))
    places = torch.from_numpy(rng.choice([1e-6, 1 - 1e-6, 0.5, 0.3], (1000, 2)))
    z, masses = grid.width * (cells + places - 8), cell_masses(grid)
    widths = 2 * masses[:, None] * masses
    left = (widths.ravel().cumsum(0) - widths.ravel()).reshape(16, 16) - 1
    i, j = cells.T
    expected = torch.stack((left[i, j] + places[:, 0] * widths[i, j], 2 * places[:, 1] - 1), 1)
    with torch.no_grad():
        x, log_det = flow.bijection.inverse(z)
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-10)
    slopes = (widths[i, j] / grid.width).log() + math.log(2 / grid.width)
    torch.testing.assert_close(log_det, slopes, rtol=1e-10, atol=1e-9)
    couplings = reversed([layer.bijection for layer in layers_of(flow.bijection)])
    found = kf.spectrum(Chain(Inverse(coupling) for coupling in couplings), z).condition_number
    torch.testing.assert_close(found, 1 / (masses[i] * masses[j]), rtol=1e-6, atol=0)
    inner = ((cells > 0) & (cells < 15)).all(1)
    assert found[inner].min() >= 2 * math.pi / grid.width**2


@pytest.mark.parametrize("name", MASSES)
def test_the_divergence_of_samples_is_within_its_proved_bounds(name):
    """Within four standard errors of what is proved, for three couplings too."""
    target, grids = MASSES[name](), grids_of(3.0, 5)
    x = target.sample(20_000, generator=torch.Generator().manual_seed(0))
    proved = Divergence.of(target, grids)
    flows = [likelihood_flow(target, grids)]
    flows += [Strips(grids).flow(grids)] if name == "square" else []
    for flow in flows:
        with torch.no_grad():
            ratios = target.log_density(x) - flow.log_prob(x)
        error = 4 * ratios.std().item() / len(ratios) ** 0.5
        away = abs(ratios.mean().item() - proved.coarse - 2 * proved.cells)
        assert away <= 2 * proved.slack + error
        assert error < ratios.mean() < proved.bound


def test_the_bound_falls_with_finer_cells():
    """To a fifth and less for the mixture."""
    target = MASSES["mixture"]()
    sizes = ((2.5, 3), (3.5, 5), (4.5, 7))
    bounds = [Divergence.of(target, grids_of(*size)).bound for size in sizes]
    assert bounds[0] > 5 * bounds[1] > 25 * bounds[2] > 0


@pytest.mark.parametrize("name", MASSES)
def test_masses_entropies_and_samples_belong_to_one_density(name):
    """Against a sum of the density over a fine grid, and means over samples."""
    target = MASSES[name]()
    middles = (torch.arange(2000, dtype=torch.float64) + 0.5) / 1000 - 1
    for k in range(2):
        ends = torch.tensor([-0.5, 0.3], dtype=torch.float64)
        inside = (middles > ends[0]) & (middles < ends[1])
        summed = target.density(k, middles)[inside].sum(0) / 1000
        share = target.below(k, ends).diff(dim=0)[0]
        torch.testing.assert_close(summed, share, rtol=0, atol=2e-2 if name == "pole" else 1e-5)
    x = target.sample(10_000, generator=torch.Generator().manual_seed(1))
    log_q = target.log_density(x)
    error = 4 * log_q.std().item() / 100
    assert abs(log_q.mean().item() - target.negative_entropy) <= error + ROUNDING


@pytest.mark.parametrize("name", ["square", "mixture", "checkerboard"])
def test_distributions_of_known_masses_are_the_targets_of_their_names(name):
    """Densities agree at points of the target."""
    z = torch.randn(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = TARGETS[name]
    actual = MASSES[name]().log_density(target.transport(z))
    torch.testing.assert_close(actual, target.log_density(z), rtol=1e-7, atol=1e-7)
