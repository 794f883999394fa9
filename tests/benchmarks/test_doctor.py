"""Examinations are timed with their pages, and the table says what was measured."""

import json

import pytest
import torch


@pytest.mark.slow
def test_a_small_benchmark_runs_end_to_end_to_its_page(benchmark, tmp_path):
    """Two flows of a few layers."""
    file, threads = tmp_path / "doctor.json", torch.get_num_threads()
    try:
        benchmark("doctor").doctor(threads=threads, repetitions=1, small=True, file=file)
    finally:
        torch.set_num_threads(threads)
    lines = json.loads(file.read_text())["lines"]
    assert [(line["flow"], line["dimensions"]) for line in lines] == [
        ("couplings", 64),
        ("Glow", 192),
    ]
    for line in lines:
        assert 0 < line["page_s"] < line["time_s"] and line["log_probs"] > 1
        assert line["condition_number"] > 1
    benchmark("page").write_page(folder=tmp_path, docs=tmp_path)
    text = (tmp_path / "benchmarks-measuring.md").read_text()
    assert "one run each" in text and "| couplings | 64 |" in text
