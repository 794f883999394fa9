"""Singular values of Glows are right, and their tables say what the results say."""

import json

import pytest
import torch

import kappaflow as kf


@pytest.mark.slow
def test_both_ends_of_a_glow_are_those_of_its_dense_jacobian_in_float64(benchmark):
    """At 192 dimensions, where no matrix is formed, to the tolerance that was asked for."""
    module = benchmark("images_spectra")
    flow, x = module.image_case(8, 2, 4, 0.05)
    found = kf.spectrum(flow.core, x)
    assert (found.method, found.status) == ("lanczos", "converged")
    columns = benchmark("spectra").dense_columns(flow.core, x)
    assert columns["error_max"] < 1e-4 and columns["error_min"] < 1e-4
    wide, at = flow.core.double(), x.double()
    jacobian = torch.autograd.functional.jacobian(lambda v: wide(v)[0], at).reshape(192, 192)
    s = torch.linalg.svdvals(jacobian)
    assert found.sigma_max.item() == pytest.approx(s[0].item(), rel=1e-4)
    assert found.sigma_min.item() == pytest.approx(s[-1].item(), rel=1e-4)


@pytest.mark.slow
def test_a_tiny_benchmark_runs_end_to_end_to_its_page(benchmark, tmp_path):
    """Two images at which both ways are measured, one without a reference, one profile."""
    file = tmp_path / "image-spectra.json"
    benchmark("images_spectra").image_spectra(
        sides=(4,), matrix_free=(8,), profiled=(1,), hidden=2, file=file
    )
    lines = json.loads(file.read_text())["lines"]
    spectra = [line for line in lines if line["part"] == "spectrum"]
    assert [line["dimensions"] for line in spectra] == [48, 192, 48, 192]
    assert all(line["error_min"] < 1e-4 for line in spectra if line["dimensions"] == 48)
    assert lines[-1]["layers"] == 11 and lines[-1]["time_16_s"] > 0
    benchmark("page").write_page(folder=tmp_path, docs=tmp_path)
    text = (tmp_path / "benchmarks-images.md").read_text()
    assert "| 3 x 4 x 4 |" in text and "| 3 x 16 x 16 [s] |" in text
