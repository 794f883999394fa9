"""Both ends of spectra are compared with extended precision, and the page says what was found."""

import json

import pytest
import torch

import kappaflow as kf
from kappaflow.conditioning import layers_of
from kappaflow.testing.contract import dense_jacobian


@pytest.mark.parametrize("name", ["8 couplings", "8 couplings, an LU layer of 1e6"])
def test_extended_precision_agrees_with_autograd_in_float64(benchmark, name):
    """Two ways that share no line: layer by layer, at a condition number that float64 can hold."""
    make = benchmark("sigma_min").CASES[name][0]
    core, x = make(4, 0.3, 0).double().eval(), torch.randn(1, 4).double()
    h, there, back = x, torch.eye(4).double(), torch.eye(4).double()
    for layer in layers_of(core):
        there = dense_jacobian(layer.bijection.forward, h, None)[0] @ there
        h = layer.bijection(h)[0].detach()
        back = back @ dense_jacobian(layer.bijection.inverse, h, None)[0]
    expected = torch.linalg.svdvals(there)[0].item(), 1 / torch.linalg.svdvals(back)[0].item()
    found = benchmark("exact_jacobians").exact_extremes(core, x[0])
    assert found == pytest.approx(expected, rel=1e-9)


def test_a_layer_without_a_matrix_is_refused(benchmark):
    """Its derivative is not written down."""
    with pytest.raises(TypeError, match="no derivative is written down of a 1 Permutation"):
        benchmark("exact_jacobians").exact_extremes(
            kf.Chain([kf.bijections.Permutation((1, 0))]), torch.ones(2)
        )


@pytest.mark.slow
def test_a_small_benchmark_runs_end_to_end_to_its_page(benchmark, tmp_path):
    """One flow of each kind, at one condition number."""
    file, threads = tmp_path / "sigma-min.json", torch.get_num_threads()
    try:
        benchmark("sigma_min").sigma_min(
            features=(4,), condition_numbers=(1e7,), seeds=1, file=file
        )
    finally:
        torch.set_num_threads(threads)
    lines = json.loads(file.read_text())["lines"]
    assert len(lines) == 5
    for line in lines:
        assert 1e6 < line["condition_number"] < 1e8
        for way in ("spectrum", "lanczos", "profile"):
            assert max(line[way].values()) < 1e-3
    benchmark("page").write_page(folder=tmp_path, docs=tmp_path)
    text = (tmp_path / "benchmarks-measuring.md").read_text()
    assert "| 32 couplings | 1e+07 |" in text
