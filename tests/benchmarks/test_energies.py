"""Flows are trained on energies, and the page says what was found."""

import math

import pytest
import torch


def test_the_free_field_has_the_log_z_of_its_matrix(benchmark):
    """Minus the Hessian of the log-density at zero, by autograd, in float64."""
    energies = benchmark("energies")
    log_density = energies.lattice(0.7, 0.0, side=3)
    zero = torch.zeros(9, dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(lambda x: -log_density(x[None])[0], zero)
    expected = 4.5 * math.log(2 * math.pi) - 0.5 * torch.logdet(hessian).item()
    assert energies.free_log_normalizer(0.7, side=3) == pytest.approx(expected, rel=1e-12)


def test_the_ring_has_mass_one(benchmark):
    """By a sum over a fine grid."""
    log_density, centers = benchmark("energies").ring()
    grid = torch.linspace(-7, 7, 281, dtype=torch.float64)
    x = torch.cartesian_prod(grid, grid)
    mass = log_density(x).exp().sum().item() * (14 / 280) ** 2
    assert mass == pytest.approx(1, abs=1e-6) and centers.shape == (8, 2)


@pytest.mark.slow
def test_a_small_benchmark_runs_end_to_end_to_its_page(benchmark, tmp_path):
    """One seed, ten steps."""
    benchmark("energies").energies(steps=10, seeds=1, file=tmp_path / "energies.json")
    benchmark("page").write_page(folder=tmp_path, docs=tmp_path)
    text = (tmp_path / "benchmarks-measuring.md").read_text()
    assert "10 steps" in text and "| broken, annealed |" in text
