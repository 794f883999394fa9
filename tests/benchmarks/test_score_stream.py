"""Scores of a large table are measured next to others, and the page says what was found."""

import json

import pytest


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Inputs to the softmax:UserWarning")
def test_a_small_benchmark_runs_end_to_end_to_its_page(benchmark, tmp_path, monkeypatch):
    """Narrow networks and few rows, one of ours and another, which is stopped at once."""
    file, module = tmp_path / "score.json", benchmark("score_stream")
    monkeypatch.setattr(module, "OURS", module.OURS[:1])
    monkeypatch.setattr(module, "KINDS", (*module.OURS, "zuko, NSF"))
    module.score_stream(rows=21_000, depth=2, width=8, at_most_s=0, file=file)
    found = json.loads(file.read_text())
    by_kind = {line["kind"]: line for line in found["lines"]}
    ours = by_kind["kappaflow score, real_nvp"]
    assert ours["whole"] and ours["rows"] == 21_000 and ours["peak_bytes"] > 0
    assert by_kind["zuko, NSF"]["rows"] == 4096 and not by_kind["zuko, NSF"]["whole"]
    benchmark("page").write_page(folder=tmp_path, docs=tmp_path)
    text = (tmp_path / "benchmarks-measuring.md").read_text()
    assert "of 21,000 rows of 10 columns" in text
    assert "zuko, NSF (4,096 rows)" in text
    assert "| kappaflow score, real_nvp |" in text
